//! A saved state in the parts that its machine cut it into, to be read one behind the other or decoded side by side.
//!
//! It knows nothing of where the parts come from, and uses no thread but to decode.

use super::DecodeError;
use crate::io::sync::{Mutex, thread};
use std::io::{self, BufRead, Read};

/// Where parts come from: one at a time, or as the stream of them all. Only one of the two is used.
pub(crate) trait PartSource: BufRead + Send {
    /// The next part; nothing behind the last.
    fn next_part(&mut self) -> io::Result<Option<Part>>;
}

/// The bytes of one part.
pub(crate) type Part = Box<dyn AsRef<[u8]> + Send>;

/// A saved state in parts, in order. A part is what [`save`](super::StateMachine::save) wrote between two calls of
/// [`flush`](io::Write::flush); a machine that never calls it has one.
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
    /// Parts that lie in memory.
    pub fn of(parts: &'a [impl AsRef<[u8]> + Sync]) -> Parts<'a> {
        let (parts, at) = (parts.iter().map(AsRef::as_ref).collect(), 0);
        Parts::new(InMemory { parts, at, rest: &[] }, 1)
    }

    /// Parts to be decoded by so many threads, the caller's among them.
    pub(crate) fn new(source: impl PartSource + 'a, threads: usize) -> Parts<'a> {
        Parts { source: Box::new(source), threads }
    }

    /// All of them, one behind the other.
    pub fn into_stream(self) -> Box<dyn BufRead + 'a> {
        self.source
    }

    /// Decodes each part by itself, several at once where there are processors for it. `decode` is given the part's number, from
    /// zero, and its bytes. The outcomes come in the order of the parts.
    ///
    /// # Errors
    /// The first part's that cannot be decoded, or the error of the input.
    pub fn decode<T: Send>(
        self,
        decode: impl Fn(usize, &[u8]) -> Result<T, DecodeError> + Sync,
    ) -> Result<Vec<T>, DecodeError> {
        let queue = Mutex::new(Queue { source: self.source, next: 0, over: false });
        let work = || {
            let mut done = Vec::new();
            while let Some(taken) = take(&queue) {
                let (number, part) = taken?;
                match decode(number, (*part).as_ref()) {
                    Ok(outcome) => done.push((number, outcome)),
                    Err(error) => {
                        queue.lock().over = true;
                        return Err((number, error));
                    }
                }
            }
            Ok(done)
        };
        let outcomes = if self.threads < 2 { vec![work()] } else { side_by_side(self.threads, &work) };
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for outcome in outcomes {
            match outcome {
                Ok(some) => done.extend(some),
                Err(error) => failed.push(error),
            }
        }
        if let Some((_, error)) = failed.into_iter().min_by_key(|(number, _)| *number) {
            return Err(error);
        }
        done.sort_unstable_by_key(|(number, _)| *number);
        Ok(done.into_iter().map(|(_, outcome)| outcome).collect())
    }
}

struct Queue<'a> {
    source: Box<dyn PartSource + 'a>,
    next: usize,
    /// Whether the last part was taken, or one has failed.
    over: bool,
}

/// Takes the next part, with its number.
fn take(queue: &Mutex<Queue<'_>>) -> Option<Result<(usize, Part), (usize, DecodeError)>> {
    let mut queue = queue.lock();
    if queue.over {
        return None;
    }
    let number = queue.next;
    queue.next = number.saturating_add(1);
    let part = queue.source.next_part();
    queue.over = !matches!(part, Ok(Some(_)));
    match part {
        Ok(part) => part.map(|part| Ok((number, part))),
        Err(error) => Some(Err((number, error.into()))),
    }
}

/// Runs `work` on the caller's thread and on others, so many in all. A panic of one is the caller's.
fn side_by_side<R: Send>(threads: usize, work: &(impl Fn() -> R + Sync)) -> Vec<R> {
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut outcomes = vec![work()];
        for other in others {
            match other.join() {
                Ok(outcome) => outcomes.push(outcome),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        outcomes
    })
}

struct InMemory<'a> {
    parts: Vec<&'a [u8]>,
    at: usize,
    /// What has not been read of the part before.
    rest: &'a [u8],
}

impl PartSource for InMemory<'_> {
    fn next_part(&mut self) -> io::Result<Option<Part>> {
        let part = self.parts.get(self.at).map(|part| Box::new(part.to_vec()) as Part);
        self.at = self.at.saturating_add(1);
        Ok(part)
    }
}

impl BufRead for InMemory<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while let (true, Some(part)) = (self.rest.is_empty(), self.parts.get(self.at)) {
            self.rest = part;
            self.at = self.at.saturating_add(1);
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

/// Reads out of what [`BufRead::fill_buf`] gives.
pub(crate) fn read_buffered(source: &mut impl BufRead, buf: &mut [u8]) -> io::Result<usize> {
    let ready = source.fill_buf()?;
    let len = ready.len().min(buf.len());
    if let (Some(to), Some(from)) = (buf.get_mut(..len), ready.get(..len)) {
        to.copy_from_slice(from);
    }
    source.consume(len);
    Ok(len)
}

/// Takes a stream apart where it is flushed, as a snapshot does.
#[derive(Debug, Default)]
#[cfg(any(test, feature = "sim"))]
pub(crate) struct PartWriter {
    parts: Vec<Vec<u8>>,
    open: bool,
}

#[cfg(any(test, feature = "sim"))]
impl PartWriter {
    pub(crate) fn into_parts(self) -> Vec<Vec<u8>> {
        self.parts
    }
}

#[cfg(any(test, feature = "sim"))]
impl io::Write for PartWriter {
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
