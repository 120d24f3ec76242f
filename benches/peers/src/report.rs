//! Tables and plots from figures.

use crate::figures::{Figures, Part};
use crate::parts::{Which, checkpoint, commit, growth, reads, recovery, segments, space, young};
use crate::peer::OURS;
use crate::work::Spread;
use crate::{peers, plot};
use std::fmt::Write;
use std::io;
use std::path::Path;

/// A number for people: three significant digits, and thousands separated.
pub fn short(number: f64) -> String {
    if !number.is_finite() {
        return "–".into();
    }
    if number.abs() < 100.0 {
        return format!("{number:.*}", if number.abs() < 10.0 { 2 } else { 1 });
    }
    let unit = 10f64.powf((number.abs().log10().floor() - 2.0).max(0.0));
    let digits = format!("{:.0}", (number / unit).round() * unit);
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The date, the machine, and what was measured.
pub fn about(taken: &str) -> String {
    let days = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs() / 86_400);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let memory = read("/proc/meminfo").split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
    format!("{}, {cores} cores, {} GiB, Linux {}; {taken}", date(days), (memory + (1 << 19)) >> 20, kernel.trim())
}

/// A day since 1970 as a date (Howard Hinnant's `civil_from_days`).
fn date(days: u64) -> String {
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    format!("{}-{month:02}-{day:02}", yoe + era * 400 + u64::from(month <= 2))
}

/// The subjects of a part in the order of the peers. Those that are not peers come first.
fn subjects(part: &Part, rows: &[String]) -> Vec<String> {
    let mut known: Vec<String> = [commit::FLOOR, commit::WAKE_UPS, growth::DEVICE].map(str::to_owned).to_vec();
    known.extend(peers::all().iter().map(|peer| peer.name.to_owned()));
    let mut all: Vec<String> =
        rows.iter().flat_map(|row| part.row(row)).map(|(subject, _)| subject.to_owned()).collect();
    all.sort_by_key(|subject| known.iter().position(|name| name == subject).unwrap_or(usize::MAX));
    all.dedup();
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|subject| seen.insert(subject.clone()));
    all
}

fn cell(figure: Option<Spread>) -> String {
    match figure {
        None => "–".into(),
        Some(Spread { median, least, most }) => {
            format!("{} <sub>{}–{}</sub>", short(median), short(least), short(most))
        }
    }
}

/// A table with a row for each subject and a column for each row of figures.
pub fn table(part: &Part, rows: &[String]) -> String {
    let mut text = String::from("| |");
    for row in rows {
        let _ = write!(text, " {row} |");
    }
    let _ = write!(text, "\n| --- |{}\n", " --- |".repeat(rows.len()));
    for subject in subjects(part, rows) {
        let _ = write!(text, "| {} |", if subject == OURS { format!("**{OURS}**") } else { subject.clone() });
        for row in rows {
            let _ = write!(text, " {} |", cell(part.get(row, &subject)));
        }
        text.push('\n');
    }
    text
}

/// The tables of a part, by the rows that each shows.
fn rows(part: &str) -> Vec<Vec<String>> {
    let sizes = growth::SIZES;
    match part {
        "commit" => vec![
            commit::THREADS.map(commit::row).to_vec(),
            commit::PERCENTILES.map(|(name, _)| commit::latency_row(name)).to_vec(),
            [100_000, 1_000_000].map(commit::tickets_row).to_vec(),
        ],
        "buffered" => vec![vec![commit::SINGLE.into(), commit::BATCHED.into()]],
        "reads" | "reads-large" => {
            vec![reads::THREADS.map(reads::point_row).to_vec(), reads::THREADS.map(reads::scan_row).to_vec()]
        }
        "segments" => {
            vec![segments::PERCENTILES.map(|(name, _)| segments::row(name)).to_vec(), vec![segments::BEGUN.into()]]
        }
        "young" => young::THREADS
            .map(|threads| {
                let latencies = commit::PERCENTILES.map(|(name, _)| young::row(threads, name));
                std::iter::once(young::rate_row(threads)).chain(latencies).collect()
            })
            .to_vec(),
        "recovery" => vec![vec![recovery::KILLED.into(), recovery::CLOSED.into()]],
        "checkpoint" => vec![
            commit::PERCENTILES.map(|(name, _)| checkpoint::latency_row(name)).to_vec(),
            vec![checkpoint::RATE.into(), checkpoint::VIEW.into()],
            [checkpoint::ENTRIES, checkpoint::LARGE].map(checkpoint::freeze_row).to_vec(),
        ],
        "space" => vec![
            [1_000_000, 10_000_000].map(space::inserted_row).to_vec(),
            [1_000_000, 10_000_000].map(space::beside_row).to_vec(),
            [1_000_000, 10_000_000].map(space::recovered_row).to_vec(),
            vec![space::CHECKPOINT.into(), space::LOG.into()],
        ],
        "growth" => vec![
            sizes.map(growth::replay_row).to_vec(),
            sizes.map(growth::load_row).to_vec(),
            sizes.map(growth::checkpoint_row).to_vec(),
            sizes.map(growth::points_row).to_vec(),
            vec![growth::SINGLES_ROW.into()],
        ],
        _ => Vec::new(),
    }
}

/// All figures of a part.
pub fn part(name: &str, part: &Part) -> String {
    let mut text = format!("{}.\n", part.about);
    for rows in rows(name) {
        let there: Vec<String> = rows.into_iter().filter(|row| part.row(row).next().is_some()).collect();
        if !there.is_empty() {
            let _ = write!(text, "\n{}", table(part, &there));
        }
    }
    text
}

/// The setup of each peer.
fn setups() -> String {
    let mut text =
        String::from("| | version | survives power loss | survives a kill | and |\n| --- | --- | --- | --- | --- |\n");
    for peer in &peers::all() {
        let version = peer.version();
        let (durable, buffered) = (peer.durable.unwrap_or("–"), peer.buffered.unwrap_or("–"));
        let _ = writeln!(text, "| {} | {version} | {durable} | {buffered} | {} |", peer.name, peer.note);
    }
    text
}

/// The bars of some rows of a part.
fn plot_bars(root: &Path, file: &str, title: &str, part: &Part, rows: &[String]) -> io::Result<()> {
    let groups: Vec<_> = subjects(part, rows)
        .into_iter()
        .filter(|subject| subject != commit::WAKE_UPS)
        .map(|subject| {
            let bars = rows.iter().map(|row| part.get(row, &subject).map(|figure| figure.median)).collect();
            (subject, bars)
        })
        .collect();
    let names: Vec<&str> = rows.iter().map(String::as_str).collect();
    plot::bars(&root.join(DIRECTORY).join(file), title, &names, &groups).map_err(io::Error::other)
}

fn plot_growth(root: &Path, part: &Part) -> io::Result<()> {
    let line = |name: &str, row: fn(u64) -> String| {
        let point = |entries: u64| part.get(&row(entries), OURS).map(|figure| (entries as f64, figure.median));
        (name.to_owned(), growth::SIZES.into_iter().filter_map(point).collect())
    };
    let lines = [
        line("log replay", growth::replay_row),
        line("snapshot load", growth::load_row),
        line("checkpoint, unpaced", growth::checkpoint_row),
        line("point reads, 1 thread", growth::points_row),
    ];
    let title = "entries a second, by how many there are";
    plot::lines(&root.join(DIRECTORY).join("growth.svg"), title, &lines).map_err(io::Error::other)
}

const DIRECTORY: &str = "docs/benchmarks";

/// The short page, and the page with every figure.
const SUMMARY: &str = "docs/benchmarks.md";
const RESULTS: &str = "docs/benchmarks/results.md";
/// The short tables of the summary.
const SHORT_TABLES: [&str; 5] = ["commit", "read", "open", "checkpoint", "memory"];

/// Writes the generated parts of both documents, and the plots.
pub fn write(root: &Path, figures: &Figures) -> io::Result<()> {
    rewrite(root, SUMMARY, |document| {
        for name in SHORT_TABLES {
            replace(document, name, &crate::targets::short_table(figures, name))?;
        }
        replace(document, "opening", &opening(figures))
    })?;
    rewrite(root, RESULTS, |document| {
        replace(document, "targets", &crate::targets::table(figures, root))?;
        replace(document, "setups", &setups())?;
        for which in Which::ALL {
            let measured = figures.part(which.name());
            let text = measured.map_or_else(|| "Not measured.\n".into(), |measured| part(which.name(), measured));
            replace(document, which.name(), &text)?;
        }
        Ok(())
    })?;
    if let Some(measured) = figures.part("commit") {
        let title = "durable commits a second";
        plot_bars(root, "commits.svg", title, measured, &commit::THREADS.map(commit::row))?;
    }
    if let Some(measured) = figures.part("reads") {
        let rows = [reads::point_row(1), reads::point_row(2), reads::scan_row(1), reads::scan_row(2)];
        plot_bars(root, "reads.svg", "reads a second, of a million entries", measured, &rows)?;
    }
    figures.part("growth").map_or(Ok(()), |measured| plot_growth(root, measured))
}

/// The time that each peer takes to open after a kill, the fastest first, in one row.
fn opening(figures: &Figures) -> String {
    let Some(part) = figures.part("recovery") else { return "Not measured.\n".into() };
    let mut all: Vec<(&str, f64)> = part.row(recovery::KILLED).map(|(name, figure)| (name, figure.median)).collect();
    all.sort_by(|a, b| a.1.total_cmp(&b.1));
    let names: String = all.iter().map(|(name, _)| format!(" {name} |")).collect();
    let rules = " --- |".repeat(all.len());
    let seconds: String = all.iter().map(|(_, seconds)| format!(" {} |", short(*seconds))).collect();
    format!("| |{names}\n| --- |{rules}\n| seconds |{seconds}\n")
}

/// Changes a document in place.
fn rewrite(root: &Path, name: &str, change: impl FnOnce(&mut String) -> io::Result<()>) -> io::Result<()> {
    let path = root.join(name);
    let mut document = std::fs::read_to_string(&path)?;
    change(&mut document).map_err(|e| io::Error::other(format!("{name}: {e}")))?;
    std::fs::write(&path, document)
}

/// Replaces the text between the two marks of a generated part.
fn replace(document: &mut String, name: &str, text: &str) -> io::Result<()> {
    let (begin, end) = (format!("<!-- generated: {name} -->\n"), "<!-- end -->");
    let missing = || io::Error::other(format!("there is no generated part named {name}"));
    let from = document.find(&begin).ok_or_else(missing)? + begin.len();
    let upto = from + document[from..].find(end).ok_or_else(missing)?;
    document.replace_range(from..upto, &format!("\n{text}\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_by_the_digits_that_count() {
        let shown = [0.5, 12.34, 123.4, 1234.0, 98_765.0, 1_234_567.0].map(short);
        assert_eq!(shown, ["0.50", "12.3", "123", "1,230", "98,800", "1,230,000"]);
    }

    #[test]
    fn days_are_dates() {
        assert_eq!([0, 59, 11_016, 20_000].map(date), ["1970-01-01", "1970-03-01", "2000-02-29", "2024-10-04"]);
    }

    #[test]
    fn a_generated_part_is_replaced_and_the_rest_is_left() {
        let mut document = "a\n<!-- generated: x -->\nold\n<!-- end -->\nb\n".to_owned();
        replace(&mut document, "x", "new").unwrap();
        assert_eq!(document, "a\n<!-- generated: x -->\n\nnew\n<!-- end -->\nb\n");
        assert!(replace(&mut document, "y", "new").is_err());
    }
}
