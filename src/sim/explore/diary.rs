//! The record of a run: how often it did what, and a line for each step if the history is to be
//! shown.

use std::collections::BTreeMap;

/// Counts what a run did, and keeps a line for each step if the history is to be shown.
#[derive(Default)]
pub(super) struct Diary {
    pub(super) lines: Option<Vec<String>>,
    pub(super) counts: BTreeMap<&'static str, u64>,
}

impl Diary {
    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(shortened(line()));
        }
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
}

/// Leaves out the middle of a long line.
pub(super) fn shortened(line: String) -> String {
    const MOST: usize = 300;
    if line.len() <= MOST {
        return line;
    }
    let (start, end) = (line.floor_char_boundary(MOST / 2), line.ceil_char_boundary(line.len() - MOST / 2));
    format!("{} … {}", &line[..start], &line[end..])
}
