//! Reading records back from a log that is open.

use crate::error::{Error, Result};
use crate::ids::Lsn;
use crate::store::open_dir::SegmentFile;
use crate::wal::reader_holds::ReaderHold;
use crate::wal::scan::scanner::{Chunk, Scanner};

/// The records of a log from an LSN up to what was durable when it was made, in order.
///
/// Yields each record's LSN and bytes. After an error it ends.
pub struct Records {
    scanner: Option<Scanner>,
    from: Lsn,
    upto: Lsn,
    /// Keeps the segments that are still to be read.
    hold: ReaderHold,
    /// Records of the chunk that was read last, in reverse.
    ready: Vec<(Lsn, Vec<u8>)>,
}

impl Records {
    pub(in crate::wal) fn new(scanner: Scanner, from: Lsn, upto: Lsn, hold: ReaderHold) -> Records {
        Records { scanner: Some(scanner), from, upto, hold, ready: Vec::new() }
    }

    fn read_chunk(&mut self) -> Result<bool> {
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

/// The records of a chunk, or where and why they do not add up.
pub(crate) fn records_of(chunk: &Chunk) -> impl Iterator<Item = Result<(Lsn, &[u8]), (Lsn, &'static str)>> {
    chunk.frames().flat_map(|frame| {
        let lsn = frame.header.lsn;
        frame.records().map(move |record| record.map_err(|fault| (lsn, fault.reason())))
    })
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
