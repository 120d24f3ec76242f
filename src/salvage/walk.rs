//! Walks over all intact frames of a log from an LSN on, and the gaps between them.
//!
//! Segments whose headers are consistent form a run, which recovery's own scanner reads. The walk
//! continues where a scan ends. It terminates, because each step passes a frame, a gap or a run.

use super::inventory::Inventory;
use crate::error::{Error, Result};
use crate::ids::{Lsn, SegmentId};
use crate::wal::scan::{Chunk, Known, Scanner, Segment, check_sequence};
use std::collections::VecDeque;

/// One step of a walk.
pub(super) enum Step {
    /// Intact frames.
    Chunk(Chunk),
    /// A gap: its first LSN, its end if anything follows or the end is known, and the reason.
    Gap(Lsn, Option<Lsn>, Vec<Error>),
    /// The end of the log, which recovery would find too.
    End(Lsn),
}

/// Consecutive segments, and the reason why they do not continue the run before.
struct Run {
    segments: Vec<Segment>,
    why: Option<Error>,
}

impl Run {
    fn base(&self) -> Option<Lsn> {
        self.segments.first().map(|first| first.header.base)
    }
}

/// A walk over the rest of a damaged log.
pub(super) struct Walker<'a> {
    inventory: &'a Inventory,
    runs: VecDeque<Run>,
    scanner: Option<Scanner>,
    /// The current position.
    at: Lsn,
    /// Steps to return before the scanner continues.
    gap: Option<(Lsn, Error)>,
    ended: bool,
}

impl<'a> Walker<'a> {
    /// Begins a walk at `start`, which is a frame boundary.
    pub(super) fn new(inventory: &'a Inventory, start: Lsn) -> Walker<'a> {
        let first = inventory.segments.iter().rposition(|s| s.header.base <= start);
        let segments = inventory.segments.get(first.unwrap_or(0)..).unwrap_or_default();
        let mut runs = runs(inventory, segments);
        let mut gap = None;
        if first.is_none()
            && let Some(next) = segments.first()
            && next.header.previous_end != start
        {
            let before = SegmentId::new(next.file.id.get().saturating_sub(1));
            gap = Some((next.header.base, missing(inventory, before, before, start)));
        }
        let scanner = runs.pop_front().map(|run| scan(inventory, run, start));
        Walker { inventory, runs, scanner, at: start, gap, ended: false }
    }

    /// The next step. The last one is [`Step::End`] or a gap without an end; then `None` follows.
    ///
    /// # Errors
    /// Unsupported versions, and all errors that do not report damage.
    pub(super) fn next(&mut self) -> Result<Option<Step>> {
        if let Some((to, why)) = self.gap.take() {
            return Ok(Some(Step::Gap(self.at, Some(to), vec![why])));
        }
        if self.ended {
            return Ok(None);
        }
        let Some(mut scanner) = self.scanner.take() else { return self.cross_runs(None).map(Some) };
        match scanner.next_chunk() {
            Ok(Some(chunk)) => {
                self.at = scanner.position();
                self.scanner = Some(scanner);
                Ok(Some(Step::Chunk(chunk)))
            }
            Ok(None) => {
                self.at = scanner.position();
                self.cross_runs(None).map(Some)
            }
            Err(error) if error.is_corrupt() => {
                self.at = scanner.position();
                // if the segment's end is unknown, frames after a hole may be ones that a recovery
                // cut off
                let ends_the_log = self.runs.is_empty() && self.last() == self.inventory.newest;
                if (ends_the_log || scanner.end_is_recorded()) && scanner.skip_damage()? {
                    let step = Step::Gap(self.at, Some(scanner.position()), vec![error]);
                    self.scanner = Some(scanner);
                    return Ok(Some(step));
                }
                self.cross_runs(Some(error)).map(Some)
            }
            Err(error) => Err(error),
        }
    }

    /// The newest segment that exists.
    fn last(&self) -> SegmentId {
        self.inventory.segments.last().map_or(SegmentId::new(0), |last| last.file.id)
    }

    /// Continues with the next run, if there is one.
    fn cross_runs(&mut self, damage: Option<Error>) -> Result<Step> {
        let mut why = Vec::from_iter(damage);
        if let Some(mut run) = self.runs.pop_front() {
            let to = run.base();
            why.extend(run.why.take());
            self.scanner = Some(scan(self.inventory, run, self.at));
            return Ok(Step::Gap(self.at, to, why));
        }
        self.ended = true;
        let (last, newest) = (self.last(), self.inventory.newest);
        if last < newest {
            why.push(missing(self.inventory, SegmentId::new(last.get().saturating_add(1)), newest, self.at));
        }
        let end = self.inventory.clean_end().filter(|end| *end > self.at);
        Ok(if why.is_empty() { Step::End(self.at) } else { Step::Gap(self.at, end, why) })
    }
}

fn scan(inventory: &Inventory, run: Run, start: Lsn) -> Scanner {
    let clean_end = inventory.store_dir.manifest.as_ref().map(|m| m.clean_end);
    let known = Known { watermark: inventory.watermark(), clean_end };
    Scanner::over(inventory.storage().clone(), run.segments, start, known)
}

fn runs(inventory: &Inventory, segments: &[Segment]) -> VecDeque<Run> {
    let mut runs: VecDeque<Run> = VecDeque::new();
    for segment in segments {
        let Some(run) = runs.back_mut() else {
            runs.push_back(Run { segments: vec![segment.clone()], why: None });
            continue;
        };
        let Some(before) = run.segments.last() else { continue };
        let expected = SegmentId::new(before.file.id.get().saturating_add(1));
        let epochs = (before.header.epoch, segment.header.epoch);
        let why = if inventory.rebuilt.contains(&segment.file.id) && epochs.0 != epochs.1 {
            // within an epoch, segments are contiguous; between epochs, only the lost header said
            // how much was cut
            let reason = "the segment has lost its header, which said where its predecessor ended";
            let path = inventory.storage().path(&segment.file.name);
            Some(Error::corrupt(path, 0, Some(segment.header.base), reason))
        } else if segment.file.id == expected {
            check_sequence(&**inventory.storage(), &[before.clone(), segment.clone()], None).err()
        } else {
            let last = SegmentId::new(segment.file.id.get().saturating_sub(1));
            Some(missing(inventory, expected, last, before.header.base))
        };
        match why {
            None => run.segments.push(segment.clone()),
            why => runs.push_back(Run { segments: vec![segment.clone()], why }),
        }
    }
    runs
}

/// The reason why segments cannot be used: the fault of the first damaged one, or that they are
/// missing.
fn missing(inventory: &Inventory, first: SegmentId, last: SegmentId, lsn: Lsn) -> Error {
    let bad = inventory.bad_segments.iter().find(|(id, _)| (first..=last).contains(id));
    if let Some((_, error)) = bad {
        return error.clone();
    }
    let reason = if first == last {
        format!("segment {first} is missing")
    } else {
        format!("segments {first} to {last} are missing")
    };
    Error::corrupt_as_a_whole(inventory.storage().path(""), Some(lsn), reason)
}
