//! Reading records back from an open log.

use crate::error::{Error, Result};
use crate::ids::Lsn;
use crate::store::open_dir::SegmentFile;
use crate::wal::reader_holds::ReaderHold;
use crate::wal::scan::chunk::records_of;
use crate::wal::scan::scanner::Scanner;
use std::panic::{RefUnwindSafe, UnwindSafe};

/// The records of a log in order, from a given LSN up to what was durable when the iterator was
/// made.
///
/// Each item is a record's LSN and its bytes. The iterator ends after an error: [`Error::Corrupt`]
/// for damage below the durable LSN, [`Error::UnsupportedVersion`], or an I/O error.
pub struct Records {
    scanner: Option<Scanner>,
    from: Lsn,
    upto: Lsn,
    /// Keeps the segments that are still to be read from being recycled.
    hold: ReaderHold,
    /// Records of the current chunk, in reverse.
    ready: Vec<(Lsn, Vec<u8>)>,
}

// as for the log
impl UnwindSafe for Records {}
impl RefUnwindSafe for Records {}

impl Records {
    pub(in crate::wal) fn new(scanner: Scanner, from: Lsn, upto: Lsn, hold: ReaderHold) -> Records {
        Records { scanner: Some(scanner), from, upto, hold, ready: Vec::new() }
    }

    /// Reads the next chunk into `ready`. Returns `false` at the end.
    fn read_chunk(&mut self) -> Result<bool> {
        debug_assert!(self.ready.is_empty(), "all records of the chunk before have been returned");
        let Some(scanner) = self.scanner.as_mut() else { return Ok(false) };
        let Some(chunk) = scanner.next_chunk()? else { return Ok(false) };
        self.hold.advance(scanner.position());
        let path = |file: &SegmentFile| scanner.path(&file.name);
        for record in records_of(&chunk) {
            let (lsn, bytes) = record.map_err(|(lsn, reason)| {
                Error::corrupt(path(chunk.segment()), chunk.offset_of(lsn), Some(lsn), reason)
            })?;
            if lsn >= self.upto {
                self.scanner = None;
                break;
            }
            if lsn >= self.from {
                self.ready.push((lsn, bytes.to_vec()));
            }
        }
        self.ready.reverse();
        if let Some(scanner) = self.scanner.as_mut() {
            scanner.reuse(chunk);
        }
        Ok(true)
    }
}

impl Iterator for Records {
    type Item = Result<(Lsn, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.ready.pop() {
                return Some(Ok(record));
            }
            match self.read_chunk() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.scanner = None;
                    return Some(Err(error));
                }
            }
        }
    }
}
