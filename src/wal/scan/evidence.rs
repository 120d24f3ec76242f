//! What a frame that cannot be accepted means: the end of a segment, the end of the log, or damage.
//!
//! Only evidence decides. A watermark above an LSN, wherever it stands, proves that the bytes below it
//! had been completed; so does the header of a following segment, which was written only once all of its
//! predecessor was durable, or by a recovery that cut the predecessor there. The rule is data, so that
//! it can be read, printed and tested over every combination of its inputs. It knows nothing of files.

/// What is known about a place in a segment where no acceptable frame stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// A following segment's header says where this one ends.
    pub(crate) end_is_recorded: bool,
    /// That end is this very place.
    pub(crate) at_recorded_end: bool,
    /// A watermark above this place stands in a valid frame, a segment header, the manifest or the clean mark.
    pub(crate) proven_complete: bool,
}

/// What follows from the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// This segment ends here and the next one goes on. What lies behind is not looked at.
    EndOfSegment,
    /// The log ends here. What lies behind was never acknowledged and is cut.
    EndOfLog,
    /// Something that had been completed is not there any more.
    Damage,
}

use Finding::{Damage, EndOfLog, EndOfSegment};

/// The rule: for each combination of (end is recorded, at the recorded end, proven complete), what it means.
pub(crate) const RULE: [(bool, bool, bool, Finding); 8] = [
    (true, true, true, EndOfSegment),
    (true, true, false, EndOfSegment),
    // the next header is only written once all of this segment is durable
    (true, false, true, Damage),
    (true, false, false, Damage),
    (false, false, true, Damage),
    (false, false, false, EndOfLog),
    // no end is recorded, so this cannot be it; read as if it were not
    (false, true, true, Damage),
    (false, true, false, EndOfLog),
];

impl Evidence {
    /// Looks the evidence up in [`RULE`].
    pub(crate) fn judge(self) -> Finding {
        RULE.iter()
            .find(|row| (row.0, row.1, row.2) == (self.end_is_recorded, self.at_recorded_end, self.proven_complete))
            .map_or(Damage, |row| row.3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_answers_every_combination_once_and_never_cuts_what_is_proven() {
        for bits in 0..8u8 {
            let (recorded, at_end, proven) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
            let rows = RULE.iter().filter(|r| (r.0, r.1, r.2) == (recorded, at_end, proven)).count();
            assert_eq!(rows, 1);
            let evidence = Evidence { end_is_recorded: recorded, at_recorded_end: at_end, proven_complete: proven };
            let expected = match (recorded, at_end, proven) {
                (true, true, _) => EndOfSegment,
                (true, false, _) => Damage,
                (false, _, true) => Damage,
                (false, _, false) => EndOfLog,
            };
            assert_eq!(evidence.judge(), expected, "{evidence:?}");
        }
    }
}
