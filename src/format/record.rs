//! Records: the logical entries of the engine's log.
//!
//! ```text
//! Update  1 | varint LSN − transaction           | command
//! Commit  2 | varint LSN − transaction | varint wall clock, µs since 1970
//! Abort   3 | varint LSN − transaction
//! Clr     4 | varint LSN − transaction | varint LSN − undo_next, 0 if nothing is left to undo
//! Execute 5 | varint wall clock, µs since 1970   | command
//! Point   6 |
//! Digest  7 | varint LSN − point | varint digest
//! ```
//!
//! A transaction's id is the LSN of its first record, so the distances are short, and 0 in that
//! record. A digest belongs to the state at an earlier point: it is computed from a frozen copy
//! while the log goes on. The log holds no undo data: replaying a command yields its inverse again,
//! and a CLR (compensation log record, as in ARIES) says "undo the last effect".

use super::bytes::{Head, Take};
use crate::ids::{Lsn, TxnId};

const UPDATE: u8 = 1;
const COMMIT: u8 = 2;
const ABORT: u8 = 3;
const CLR: u8 = 4;
const EXECUTE: u8 = 5;
const POINT: u8 = 6;
const DIGEST: u8 = 7;

/// One record. The command is as the machine encoded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// A command of an interactive transaction.
    Update { txn: TxnId, command: &'a [u8] },
    /// The transaction ends and its effects stay.
    Commit { txn: TxnId, wall_micros: u64 },
    /// The transaction ends and all its effects are undone.
    Abort { txn: TxnId },
    /// The transaction's last remaining effect was undone. The next one to undo is at `undo_next`.
    Clr { txn: TxnId, undo_next: Option<Lsn> },
    /// A transaction of one command, which commits with it.
    Execute { wall_micros: u64, command: &'a [u8] },
    /// The digest of the state at this LSN may follow.
    Point,
    /// The digest of the state at `point`.
    Digest { point: Lsn, digest: u64 },
}

impl Record<'_> {
    /// The bytes before the command, given the LSN that the record will have.
    pub(crate) fn head(&self, lsn: Lsn) -> Head {
        let mut head = Head::default();
        let mut tagged = |tag: u8, txn: TxnId| {
            head.push(tag);
            head.varint(lsn.since(txn.first_lsn()));
        };
        match self {
            Record::Update { txn, .. } => tagged(UPDATE, *txn),
            Record::Commit { txn, wall_micros } => {
                tagged(COMMIT, *txn);
                head.varint(*wall_micros);
            }
            Record::Abort { txn } => tagged(ABORT, *txn),
            Record::Clr { txn, undo_next } => {
                tagged(CLR, *txn);
                head.varint(undo_next.map_or(0, |next| lsn.since(next)));
            }
            Record::Execute { wall_micros, .. } => {
                head.push(EXECUTE);
                head.varint(*wall_micros);
            }
            Record::Point => head.push(POINT),
            Record::Digest { point, digest } => {
                head.push(DIGEST);
                head.varint(lsn.since(*point));
                head.varint(*digest);
            }
        }
        head
    }

    /// Reads a record at `lsn`. `None` if the bytes are not one.
    pub(crate) fn decode(lsn: Lsn, bytes: &[u8]) -> Option<Record<'_>> {
        let mut take = Take(bytes);
        let tag = take.u8()?;
        if tag == EXECUTE {
            return Some(Record::Execute { wall_micros: take.varint()?, command: take.0 });
        }
        if tag == POINT {
            return take.0.is_empty().then_some(Record::Point);
        }
        let named = back(lsn, take.varint()?)?;
        let txn = TxnId::from(named);
        let record = match tag {
            UPDATE => return Some(Record::Update { txn, command: take.0 }),
            COMMIT => Record::Commit { txn, wall_micros: take.varint()? },
            ABORT => Record::Abort { txn },
            CLR => {
                let undo_next = match take.varint()? {
                    0 => None,
                    distance => Some(back(lsn, distance)?),
                };
                Record::Clr { txn, undo_next }
            }
            DIGEST => Record::Digest { point: named, digest: take.varint()? },
            _ => return None,
        };
        take.0.is_empty().then_some(record)
    }
}

fn back(lsn: Lsn, distance: u64) -> Option<Lsn> {
    lsn.get().checked_sub(distance).map(Lsn::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = (u64, u64, u64, Vec<u8>, u8)> {
        (1u64..u64::MAX, any::<u64>(), any::<u64>(), any::<Vec<u8>>(), 0u8..7)
    }

    proptest! {
        #[test]
        fn a_record_comes_back((lsn, a, b, command, kind) in record()) {
            let txn = TxnId::new(a % lsn);
            let record = match kind {
                0 => Record::Update { txn, command: &command },
                1 => Record::Commit { txn, wall_micros: b },
                2 => Record::Abort { txn },
                3 => Record::Clr { txn, undo_next: (b % lsn != 0).then(|| Lsn::new(b % lsn)) },
                4 => Record::Point,
                5 => Record::Digest { point: txn.first_lsn(), digest: b },
                _ => Record::Execute { wall_micros: b, command: &command },
            };
            let lsn = Lsn::new(lsn);
            let mut bytes = record.head(lsn).as_slice().to_vec();
            if let Record::Update { command, .. } | Record::Execute { command, .. } = record {
                bytes.extend_from_slice(command);
            }
            prop_assert_eq!(Record::decode(lsn, &bytes), Some(record));
        }

        #[test]
        fn any_bytes_are_a_record_or_none(lsn in any::<u64>(), bytes in any::<Vec<u8>>()) {
            let _ = Record::decode(Lsn::new(lsn), &bytes);
        }
    }
}
