//! Saved states in parts: writing them, and reading them in sequence or decoding them in parallel.
//!
//! This module does not know where parts are stored. It uses threads only to decode.

use super::DecodeError;
use crate::io::parallel::parallel_map;
use crate::io::sync::Mutex;
use std::io::{self, BufRead, Read, Write};

/// The output of [`save_parts`](super::BulkMachine::save_parts): a writer that is told where a part
/// of the state ends.
pub trait PartWriter: Write {
    /// Ends the current part: the next byte begins a new one. Without bytes since the last call, it
    /// does nothing.
    ///
    /// # Errors
    /// Those of the writer.
    fn end_part(&mut self) -> io::Result<()>;
}

/// A vector takes the bytes of all parts and does not record where they end.
impl PartWriter for Vec<u8> {
    fn end_part(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes parts to a plain writer, one after the other.
pub(crate) struct Joined<'a>(pub(crate) &'a mut dyn Write);

impl Write for Joined<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl PartWriter for Joined<'_> {
    fn end_part(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A source of parts. It is read either part by part or as one stream, never both.
pub(crate) trait PartSource: BufRead + Send {
    /// Returns the next part, or `None` after the last.
    fn next_part(&mut self) -> io::Result<Option<Part>>;
}

/// The bytes of one part.
pub(crate) type Part = Box<dyn AsRef<[u8]> + Send>;

/// A saved state in parts, in order.
///
/// A part is what [`save_parts`](super::BulkMachine::save_parts) wrote between two calls of
/// [`PartWriter::end_part`]. A machine that never calls that has one part.
///
/// ```
/// use seawal::machine::Parts;
/// use std::io::Read;
///
/// let saved = [&b"one"[..], b"two", b"three"];
/// let lengths = Parts::of(&saved).decode(|_, part| Ok(part.len()));
/// assert_eq!(lengths.unwrap(), [3, 3, 5]);
///
/// let mut all = String::new();
/// Parts::of(&saved).into_stream().read_to_string(&mut all)?;
/// assert_eq!(all, "onetwothree");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Parts<'a> {
    source: Box<dyn PartSource + 'a>,
    threads: usize,
}

impl<'a> Parts<'a> {
    /// Parts in memory.
    pub fn of(parts: &'a [impl AsRef<[u8]> + Sync]) -> Parts<'a> {
        let (parts, next) = (parts.iter().map(AsRef::as_ref).collect(), 0);
        Parts::new(InMemory { parts, next, rest: &[] }, 1)
    }

    /// Parts to be decoded by at most `threads` threads, including the caller's.
    pub(crate) fn new(source: impl PartSource + 'a, threads: usize) -> Parts<'a> {
        Parts { source: Box::new(source), threads: threads.max(1) }
    }

    /// Returns a reader of all parts, one after the other.
    pub fn into_stream(self) -> Box<dyn BufRead + 'a> {
        self.source
    }

    /// Decodes the parts in parallel and returns the results in the order of the parts.
    ///
    /// `decode` gets the number of a part, counted from zero, and its bytes. Recovery uses several
    /// threads if the machine has several processors; [`Parts::of`] uses the caller's thread only.
    ///
    /// # Errors
    /// The error of the first part that cannot be decoded, or the error of the input.
    pub fn decode<T: Send>(
        self,
        decode: impl Fn(usize, &[u8]) -> Result<T, DecodeError> + Sync,
    ) -> Result<Vec<T>, DecodeError> {
        let queue = Mutex::new(Queue { source: self.source, next: 0, finished: false });
        let work = || {
            let mut decoded = Vec::new();
            while let Some(next) = next_part(&queue) {
                let (number, part) = next?;
                match decode(number, (*part).as_ref()) {
                    Ok(result) => decoded.push((number, result)),
                    Err(error) => {
                        queue.lock().finished = true;
                        return Err((number, error));
                    }
                }
            }
            Ok(decoded)
        };
        let results = parallel_map(vec![(); self.threads], self.threads, |()| work());
        let (mut decoded, mut errors) = (Vec::new(), Vec::new());
        for result in results {
            match result {
                Ok(some) => decoded.extend(some),
                Err(error) => errors.push(error),
            }
        }
        if let Some((_, error)) = errors.into_iter().min_by_key(|(number, _)| *number) {
            return Err(error);
        }
        decoded.sort_unstable_by_key(|(number, _)| *number);
        Ok(decoded.into_iter().map(|(_, result)| result).collect())
    }
}

struct Queue<'a> {
    source: Box<dyn PartSource + 'a>,
    next: usize,
    /// Set after the last part, and after the first error.
    finished: bool,
}

/// Takes the next part and its number off the queue.
fn next_part(queue: &Mutex<Queue<'_>>) -> Option<Result<(usize, Part), (usize, DecodeError)>> {
    let mut queue = queue.lock();
    if queue.finished {
        return None;
    }
    let number = queue.next;
    queue.next = number.saturating_add(1);
    let part = queue.source.next_part();
    queue.finished = !matches!(part, Ok(Some(_)));
    match part {
        Ok(part) => part.map(|part| Ok((number, part))),
        Err(error) => Some(Err((number, error.into()))),
    }
}

struct InMemory<'a> {
    parts: Vec<&'a [u8]>,
    next: usize,
    /// The unread bytes of the part before `next`.
    rest: &'a [u8],
}

impl PartSource for InMemory<'_> {
    fn next_part(&mut self) -> io::Result<Option<Part>> {
        let part = self.parts.get(self.next).map(|part| Box::new(part.to_vec()) as Part);
        self.next = self.next.saturating_add(1);
        Ok(part)
    }
}

impl BufRead for InMemory<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while let (true, Some(part)) = (self.rest.is_empty(), self.parts.get(self.next)) {
            self.rest = part;
            self.next = self.next.saturating_add(1);
        }
        Ok(self.rest)
    }

    fn consume(&mut self, amount: usize) {
        self.rest = self.rest.get(amount..).unwrap_or_default();
    }
}

impl Read for InMemory<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buf)
    }
}

/// Implements [`Read::read`] with [`BufRead::fill_buf`].
pub(crate) fn read_buffered(source: &mut impl BufRead, buf: &mut [u8]) -> io::Result<usize> {
    let ready = source.fill_buf()?;
    let len = ready.len().min(buf.len());
    if let (Some(to), Some(from)) = (buf.get_mut(..len), ready.get(..len)) {
        to.copy_from_slice(from);
    }
    source.consume(len);
    Ok(len)
}

/// Collects the parts of a state in memory.
#[cfg(any(test, feature = "sim"))]
#[derive(Debug, Default)]
pub(crate) struct PartCollector {
    parts: Vec<Vec<u8>>,
    open: bool,
}

#[cfg(any(test, feature = "sim"))]
impl PartCollector {
    pub(crate) fn into_parts(self) -> Vec<Vec<u8>> {
        self.parts
    }
}

#[cfg(any(test, feature = "sim"))]
impl Write for PartCollector {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() && !self.open {
            self.parts.push(Vec::new());
            self.open = true;
        }
        if let Some(part) = self.parts.last_mut() {
            part.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(any(test, feature = "sim"))]
impl PartWriter for PartCollector {
    fn end_part(&mut self) -> io::Result<()> {
        self.open = false;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "what fails here fails the test")]
mod tests {
    use super::*;

    fn numbers(parts: usize) -> Vec<Vec<u8>> {
        (0..parts).map(|n| vec![n as u8; n]).collect()
    }

    #[test]
    fn parts_decoded_side_by_side_come_in_order() {
        for threads in [1, 2, 5] {
            let parts = numbers(100);
            let decoded =
                Parts { threads, ..Parts::of(&parts) }.decode(|number, part| Ok((number, part.to_vec()))).unwrap();
            assert_eq!(decoded, parts.iter().cloned().enumerate().collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_part_that_fails_is_the_one_told() {
        for threads in [1, 2, 5] {
            let parts = numbers(100);
            let failed = Parts { threads, ..Parts::of(&parts) }.decode(|number, _| match number {
                60.. => Err(DecodeError::new(number.to_string())),
                _ => Ok(()),
            });
            assert_eq!(failed.unwrap_err().to_string(), "60");
        }
    }

    #[test]
    fn a_panic_in_one_part_is_the_callers() {
        for threads in [1, 3] {
            let parts = numbers(30);
            let decode = || {
                Parts { threads, ..Parts::of(&parts) }.decode(|number, _| {
                    assert!(number != 7, "seven");
                    Ok(())
                })
            };
            assert!(std::panic::catch_unwind(decode).is_err());
        }
    }
}
