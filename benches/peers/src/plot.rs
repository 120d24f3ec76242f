//! Plots, as SVG.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::error::Error;
use std::path::Path;

type Drawn = Result<(), Box<dyn Error + Send + Sync>>;

const COLOURS: [RGBColor; 5] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
];
const SIZE: (u32, u32) = (900, 460);

/// The range of whole decades that includes all of these.
fn decades(numbers: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, most) = numbers.filter(|n| *n > 0.0).fold((f64::MAX, 1.0f64), |(a, b), n| (a.min(n), b.max(n)));
    (10f64.powf(least.min(most).log10().floor()), 10f64.powf(most.log10().ceil()).max(10.0))
}

/// One group of bars for each subject, with one bar for each series, on a logarithmic scale.
pub fn bars(path: &Path, title: &str, series: &[&str], groups: &[(String, Vec<Option<f64>>)]) -> Drawn {
    let (low, high) = decades(groups.iter().flat_map(|(_, bars)| bars.iter().flatten().copied()));
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(78)
        .y_label_area_size(80)
        .build_cartesian_2d(-0.5..groups.len() as f64 - 0.5, (low..high).log_scale())?;
    let label = |y: &f64| crate::report::short(*y);
    chart.configure_mesh().disable_x_mesh().disable_x_axis().y_label_formatter(&label).draw()?;
    let width = 0.8 / series.len().max(1) as f64;
    for (at, name) in series.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let bars = groups.iter().enumerate().filter_map(|(group, (_, bars))| {
            let left = group as f64 - 0.4 + at as f64 * width;
            let top = bars.get(at).copied().flatten()?;
            Some(Rectangle::new([(left, low), (left + width * 0.92, top)], colour.filled()))
        });
        let legend = move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled());
        chart.draw_series(bars)?.label(*name).legend(legend);
    }
    let style = ("sans-serif", 12).into_font().transform(FontTransform::None).into_text_style(&root);
    for (group, (name, _)) in groups.iter().enumerate() {
        let (x, y) = chart.backend_coord(&(group as f64, low));
        // names alternate between two heights, so that long ones do not overlap
        let y = y + 8 + if group % 2 == 0 { 0 } else { 18 };
        root.draw(&Text::new(name.clone(), (x, y), style.clone().pos(Pos::new(HPos::Center, VPos::Top))))?;
    }
    let labels = SeriesLabelPosition::UpperRight;
    chart.configure_series_labels().position(labels).border_style(BLACK).background_style(WHITE.mix(0.85)).draw()?;
    root.present()?;
    Ok(())
}

/// A line, and its points from left to right.
pub type Line = (String, Vec<(f64, f64)>);

/// Lines over a number of entries; both scales are logarithmic.
pub fn lines(path: &Path, title: &str, series: &[Line]) -> Drawn {
    let (left, right) = decades(series.iter().flat_map(|(_, points)| points.iter().map(|(x, _)| *x)));
    let (low, high) = decades(series.iter().flat_map(|(_, points)| points.iter().map(|(_, y)| *y)));
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(90)
        .build_cartesian_2d((left..right).log_scale(), (low..high).log_scale())?;
    let label = |number: &f64| crate::report::short(*number);
    chart
        .configure_mesh()
        .x_desc("entries")
        .y_desc("a second")
        .x_label_formatter(&label)
        .y_label_formatter(&label)
        .draw()?;
    for (at, (name, points)) in series.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(4);
        let legend = move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour.stroke_width(2));
        chart.draw_series(line)?.label(name).legend(legend);
    }
    chart.configure_series_labels().position(SeriesLabelPosition::LowerLeft).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}
