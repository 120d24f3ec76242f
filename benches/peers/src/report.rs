//! Tables and plots from figures.

use crate::figures::{Figures, Part};
use crate::parts::{Effort, Which, commit, reads};
use crate::peer::OURS;
use crate::peers;
use crate::work::Spread;
use std::fmt::Write;
use std::io;
use std::path::Path;

/// A number as people read it: three digits that count, thousands apart.
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

/// When and on what this is measured.
pub fn about(effort: &Effort) -> String {
    let days = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs() / 86_400);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let memory = read("/proc/meminfo").split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
    let Effort { repetitions, time, .. } = effort;
    format!(
        "{}, {cores} cores, {} GiB, Linux {}; medians of {repetitions} samples of {} s each, taken in turn",
        date(days),
        (memory + (1 << 19)) >> 20,
        kernel.trim(),
        time.as_secs_f64()
    )
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

/// The subjects of a part in the order of the peers, what is no peer first.
fn subjects(part: &Part, rows: &[String]) -> Vec<String> {
    let mut known: Vec<String> = [commit::FLOOR, commit::WAKE_UPS].map(str::to_owned).to_vec();
    known.extend(peers::all().iter().map(|peer| peer.name.to_owned()));
    let mut all: Vec<String> = rows.iter().flat_map(|row| part.row(row)).map(|(subject, _)| subject.to_owned()).collect();
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

pub fn rows(part: &str) -> Vec<Vec<String>> {
    match part {
        "commit" => vec![
            commit::THREADS.map(commit::row).to_vec(),
            commit::PERCENTILES.map(|(name, _)| commit::latency_row(name)).to_vec(),
            [100_000, 1_000_000].map(commit::tickets_row).to_vec(),
        ],
        "buffered" => vec![vec![commit::SINGLE.into(), commit::BATCHED.into()]],
        "reads" => vec![reads::THREADS.map(reads::point_row).to_vec(), reads::THREADS.map(reads::scan_row).to_vec()],
        _ => Vec::new(),
    }
}

pub fn part(name: &str, part: &Part) -> String {
    let mut text = format!("{}\n", part.about);
    for rows in rows(name) {
        let _ = write!(text, "\n{}", table(part, &rows));
    }
    text
}

pub fn write(root: &Path, figures: &Figures) -> io::Result<()> {
    let _ = (root, figures, Which::ALL);
    Ok(())
}
