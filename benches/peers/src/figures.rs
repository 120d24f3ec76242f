//! The measured figures, kept in a file of lines, so that parts can be measured one at a time and
//! shown together.
//!
//! A ratio compares figures of one part only, because a part is one run, and the speed of machines
//! drifts.

use crate::work::Spread;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::Path;

/// The figures of one run of a part.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// The date and the machine of the measurement.
    pub about: String,
    /// By row, then by subject.
    rows: BTreeMap<String, BTreeMap<String, Spread>>,
}

impl Part {
    pub fn set(&mut self, row: &str, subject: &str, figure: Spread) {
        self.rows.entry(row.into()).or_default().insert(subject.into(), figure);
    }

    pub fn get(&self, row: &str, subject: &str) -> Option<Spread> {
        self.rows.get(row)?.get(subject).copied()
    }

    pub fn row(&self, row: &str) -> impl Iterator<Item = (&str, Spread)> {
        self.rows.get(row).into_iter().flatten().map(|(subject, figure)| (subject.as_str(), *figure))
    }
}

/// Samples during a measurement: several of each, interleaved.
#[derive(Default)]
pub struct Samples(BTreeMap<(String, String), Vec<f64>>);

impl Samples {
    pub fn add(&mut self, row: &str, subject: &str, sample: f64) {
        eprintln!("  {row}, {subject}: {}", crate::report::short(sample));
        self.0.entry((row.into(), subject.into())).or_default().push(sample);
    }

    pub fn into_part(self) -> Part {
        let mut part = Part::default();
        for ((row, subject), samples) in self.0 {
            part.set(&row, &subject, Spread::of(samples));
        }
        part
    }
}

#[derive(Debug, Default, PartialEq)]
pub struct Figures(BTreeMap<String, Part>);

impl Figures {
    /// The figures of an earlier run; none if there was no run.
    pub fn load(path: &Path) -> io::Result<Figures> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Figures::parse(&text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Figures::default()),
            Err(e) => Err(e),
        }
    }

    pub fn save(&self, path: &Path) -> io::Result<()> {
        std::fs::write(path, self.text())
    }

    fn parse(text: &str) -> Figures {
        let mut figures = Figures::default();
        for line in text.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            match fields[..] {
                [part, "about", about] => figures.0.entry(part.into()).or_default().about = about.into(),
                [part, row, subject, median, least, most] => {
                    let number = |text: &str| text.parse().unwrap_or(f64::NAN);
                    let figure = Spread { median: number(median), least: number(least), most: number(most) };
                    figures.0.entry(part.into()).or_default().set(row, subject, figure);
                }
                _ => {}
            }
        }
        figures
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, part) in &self.0 {
            let _ = writeln!(text, "{name}\tabout\t{}", part.about);
            for (row, subjects) in &part.rows {
                for (subject, Spread { median, least, most }) in subjects {
                    let _ = writeln!(text, "{name}\t{row}\t{subject}\t{median:.4}\t{least:.4}\t{most:.4}");
                }
            }
        }
        text
    }

    pub fn replace(&mut self, name: &str, part: Part) {
        self.0.insert(name.into(), part);
    }

    pub fn part(&self, name: &str) -> Option<&Part> {
        self.0.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_come_back_from_their_file_and_a_part_is_replaced_as_a_whole() {
        let mut part = Part { about: "today".into(), ..Part::default() };
        part.set("a row", "somebody", Spread { median: 2.0, least: 1.0, most: 3.5 });
        let mut figures = Figures::default();
        figures.replace("reads", part.clone());
        assert_eq!(Figures::parse(&figures.text()), figures);
        part.set("a row", "somebody", Spread { median: 9.0, least: 9.0, most: 9.0 });
        figures.replace("reads", part);
        assert_eq!(figures.part("reads").unwrap().get("a row", "somebody").unwrap().median, 9.0);
    }
}
