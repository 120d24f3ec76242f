//! Decides what an invalid frame means: the end of a segment, the end of the log, or damage.
//!
//! A frame is invalid at some LSN. Three facts decide, and nothing else:
//!
//! - *recorded*: the header of a following segment records where this segment ends. It was written
//!   only after all of this segment was durable, or by a recovery that cut this segment there.
//! - *here*: the recorded end is this LSN.
//! - *proven*: a watermark above this LSN stands in a valid frame, a segment header, the manifest or
//!   the clean mark. It proves that everything below it had been on stable storage. A whole frame of
//!   this LSN or a later one at a wrong place proves the same: the log continued, and the device
//!   misdirected the write of this frame.
//!
//! The decision is a table, so that it can be read, printed and tested for every input. Each row
//! has a label, which is part of the message about what it decided.

/// What is known about an LSN at which there is no valid frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// Whether a following segment's header records where this segment ends.
    pub(crate) end_is_recorded: bool,
    /// Whether the recorded end is this LSN.
    pub(crate) at_recorded_end: bool,
    /// Whether there is a watermark above this LSN, or a misdirected frame of this LSN or a later
    /// one.
    pub(crate) proven_complete: bool,
}

/// The conclusion from the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// This segment ends here, and the log continues in the next one. The bytes past this LSN are
    /// not read.
    EndOfSegment,
    /// The log ends here. The bytes past this LSN were never acknowledged as durable; recovery cuts
    /// them.
    EndOfLog,
    /// Data that had been durable is gone. Nothing is cut.
    Damage,
}

use Finding::{Damage, EndOfLog, EndOfSegment};

/// A row of the table: label, recorded, here, proven, finding.
pub(crate) type Row = (&'static str, bool, bool, bool, Finding);

/// The decision table. Each combination of the three facts has exactly one row.
///
/// - E1: the end is recorded and reached, and a watermark agrees. The usual end of a full segment.
/// - E2: the end is recorded and reached. No watermark lies above it: the log was cut here, and
///   nothing was made durable since.
/// - E3: the segment ends later, and a watermark also says that this frame was durable.
/// - E4: the segment ends later. The next header was written only once this segment was durable.
/// - E5: no end is recorded, but a watermark or a misplaced frame says that this frame was durable.
/// - E6: no end is recorded and nothing proves this frame: the write was never acknowledged.
/// - E7: impossible, because an end that is not recorded cannot be here. Decided as E5.
/// - E8: impossible for the same reason. Decided as E6.
pub(crate) const RULE: [Row; 8] = [
    ("E1", true, true, true, EndOfSegment),
    ("E2", true, true, false, EndOfSegment),
    ("E3", true, false, true, Damage),
    ("E4", true, false, false, Damage),
    ("E5", false, false, true, Damage),
    ("E6", false, false, false, EndOfLog),
    ("E7", false, true, true, Damage),
    ("E8", false, true, false, EndOfLog),
];

impl Evidence {
    /// Looks the evidence up in [`RULE`]. Returns the label of the row and its finding.
    pub(crate) fn decide(self) -> (&'static str, Finding) {
        debug_assert!(self.end_is_recorded || !self.at_recorded_end, "E7 and E8 cannot occur");
        let Evidence { end_is_recorded, at_recorded_end, proven_complete } = self;
        let found =
            RULE.iter().find(|row| (row.1, row.2, row.3) == (end_is_recorded, at_recorded_end, proven_complete));
        debug_assert!(found.is_some(), "the table covers every input");
        found.map_or(("E0", Damage), |row| (row.0, row.4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_answers_every_combination_once_and_never_cuts_what_is_proven() {
        let mut labels = Vec::new();
        for bits in 0..8u8 {
            let (recorded, here, proven) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
            let rows: Vec<_> = RULE.iter().filter(|r| (r.1, r.2, r.3) == (recorded, here, proven)).collect();
            let [row] = rows.as_slice() else { unreachable!("{} rows for one input", rows.len()) };
            let expected = match (recorded, here, proven) {
                (true, true, _) => EndOfSegment,
                (true, false, _) => Damage,
                (false, _, true) => Damage,
                (false, _, false) => EndOfLog,
            };
            assert_eq!(row.4, expected, "{row:?}");
            labels.push(row.0);
            if recorded || !here {
                let evidence = Evidence { end_is_recorded: recorded, at_recorded_end: here, proven_complete: proven };
                assert_eq!(evidence.decide(), (row.0, row.4));
            }
        }
        labels.sort_unstable();
        assert_eq!(labels, ["E1", "E2", "E3", "E4", "E5", "E6", "E7", "E8"]);
    }
}
