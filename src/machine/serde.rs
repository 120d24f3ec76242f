//! Machines whose commands and state derive serde's traits and so need no codec of their own.
//!
//! The encoding is that of postcard. This module adds what postcard lacks: it reads from a stream
//! without trusting the lengths in it, keeps the errors of the input and output, and rejects
//! trailing bytes.

use super::shape::shape_of;
use super::{Access, Bulk, BulkMachine, DecodeError, Footprint, SnapshotSource, StateMachine};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::OnceCell;
use std::io::{self, Read};

/// A [`StateMachine`] with derived encodings.
///
/// Requires the feature `serde`.
///
/// Implement this instead of [`StateMachine`]; the rest follows from [`Serialize`] and
/// [`Deserialize`](serde::Deserialize) of the machine, which is its own snapshot, and of its
/// commands. The [law](StateMachine#the-law) is the same. These points need care:
///
/// - Equal states must give equal bytes, so maps and sets must be ordered: `BTreeMap`, never
///   `HashMap`, whose order changes from one process to the next.
/// - The format, [postcard](https://postcard.jamesmunns.com/wire-format), is not self-describing.
///   With serde's attributes `tag`, `untagged`, `flatten` and `skip_serializing_if` it writes bytes
///   that it cannot read back. Debug builds check each command that is encoded, and panic if it
///   cannot be read back.
/// - Enum variants are written as their position, and fields in their order. Add variants at the
///   end. Raise [`VERSION`](Self::VERSION) with any other change of the types, or of what a command
///   does. The store keeps a checksum of the shape of the types, and refuses to open with
///   [`Error::Unreadable`](crate::Error::Unreadable) if they have changed and the version has not.
///   It covers names of fields and variants, but not what a type's own implementation of
///   `Deserialize` hides.
/// - A recursive type is read back by recursion, as deep as the bytes say.
///
/// Both traits have an `apply`, so import only the one you use, or name it:
/// `SerdeMachine::apply(&mut stock, &command)`.
///
/// # Example
///
/// ```
/// use seawal::machine::SerdeMachine;
/// use serde::{Deserialize, Serialize};
/// use std::collections::BTreeMap;
///
/// #[derive(Clone, Default, Serialize, Deserialize)]
/// struct Stock(BTreeMap<String, u32>);
///
/// #[derive(Clone, Serialize, Deserialize)]
/// enum Move {
///     In(String, u32),
///     Out(String, u32),
/// }
///
/// impl SerdeMachine for Stock {
///     const NAME: &'static str = "stock";
///     const VERSION: u32 = 1;
///     type Command = Move;
///     type Reply = u32;
///     type Rejection = &'static str;
///
///     fn apply(&mut self, command: &Move) -> Result<(u32, Move), &'static str> {
///         let (item, left, inverse) = match command {
///             Move::In(item, n) => {
///                 let held = self.0.get(item).copied().unwrap_or(0);
///                 (item, held.checked_add(*n).ok_or("too many")?, Move::Out(item.clone(), *n))
///             }
///             Move::Out(item, n) => {
///                 let held = self.0.get(item).copied().unwrap_or(0);
///                 (item, held.checked_sub(*n).ok_or("not in stock")?, Move::In(item.clone(), *n))
///             }
///         };
///         // An item is listed while there is any, so that the inverse restores the very bytes.
///         if left == 0 { self.0.remove(item) } else { self.0.insert(item.clone(), left) };
///         Ok((left, inverse))
///     }
/// }
///
/// let mut stock = Stock::default();
/// stock.apply(&Move::In("bolt".into(), 7)).unwrap();
/// assert!(stock.apply(&Move::Out("bolt".into(), 9)).is_err());
///
/// // It is a state machine like any other.
/// use seawal::machine;
/// let mut snapshot = Vec::new();
/// machine::StateMachine::save(&stock, &mut snapshot).unwrap();
/// let loaded: Stock = machine::StateMachine::load(&mut &snapshot[..], 1).unwrap();
/// assert_eq!(loaded.0["bolt"], 7);
/// ```
pub trait SerdeMachine: Clone + Default + Send + Sync + Serialize + DeserializeOwned + 'static {
    /// See [`StateMachine::NAME`].
    const NAME: &'static str;
    /// See [`StateMachine::VERSION`].
    const VERSION: u32;
    /// See [`StateMachine::SNAPSHOT_SOURCE`].
    ///
    /// Default: [`SnapshotSource::Replay`], because ordinary collections are cloned element by
    /// element. It takes the memory of a second state during a checkpoint. Set
    /// [`SnapshotSource::Clone`] if the state stays small.
    const SNAPSHOT_SOURCE: SnapshotSource = SnapshotSource::Replay;

    /// A change to the state. Its inverse is a command too.
    type Command: Clone + Send + Sync + Serialize + DeserializeOwned + 'static;
    /// The answer to a command that was carried out.
    type Reply: Send + 'static;
    /// The reason why a command was refused.
    type Rejection: Send + 'static;

    /// Carries out a command in place and returns its reply and its inverse, or rejects it and
    /// changes nothing.
    ///
    /// # Errors
    /// The machine's own rejection.
    fn apply(&mut self, command: &Self::Command) -> Result<(Self::Reply, Self::Command), Self::Rejection>;

    /// Returns what a command reads and writes, for locking.
    ///
    /// Default: everything, exclusively, so transactions run one after the other.
    fn footprint(command: &Self::Command) -> Footprint {
        let _ = command;
        Footprint::everything(Access::Exclusive)
    }

    /// Returns whether this machine can replay logs and load snapshots that its `version` wrote:
    /// whether its types had the same encodings and its commands the same effects as now.
    ///
    /// Default: only its own [`VERSION`](Self::VERSION).
    fn supports(version: u32) -> bool {
        version == Self::VERSION
    }
}

/// # Panics
/// `encode` panics if the command cannot be serialized: if an implementation of [`Serialize`] in it
/// fails (as for a path that is not Unicode), or writes a sequence of unknown length.
impl<T: SerdeMachine> StateMachine for T {
    const NAME: &'static str = <T as SerdeMachine>::NAME;
    const VERSION: u32 = <T as SerdeMachine>::VERSION;
    const BULK: Option<Bulk<Self>> = Some(Bulk::of());
    const SNAPSHOT_SOURCE: SnapshotSource = <T as SerdeMachine>::SNAPSHOT_SOURCE;
    type Command = <T as SerdeMachine>::Command;
    type Reply = <T as SerdeMachine>::Reply;
    type Rejection = <T as SerdeMachine>::Rejection;

    fn apply(&mut self, command: &Self::Command) -> Result<(Self::Reply, Self::Command), Self::Rejection> {
        <T as SerdeMachine>::apply(self, command)
    }

    fn footprint(command: &Self::Command) -> Footprint {
        <T as SerdeMachine>::footprint(command)
    }

    fn encode(command: &Self::Command, out: &mut Vec<u8>) {
        let start = out.len();
        if let Err(error) = postcard::serialize_with_flavor(command, Append(out)) {
            panic!("a command of {} cannot be serialized: {error}", <T as SerdeMachine>::NAME);
        }
        debug_assert!(
            reads_back::<Self::Command>(&out[start..]),
            "a command of {} cannot be read back as it was written: do its serde attributes need a self-describing \
             format?",
            <T as SerdeMachine>::NAME
        );
    }

    fn decode(bytes: &[u8], _version: u32) -> Result<Self::Command, DecodeError> {
        match postcard::take_from_bytes(bytes).map_err(undecodable)? {
            (command, []) => Ok(command),
            _ => Err(DecodeError::new("bytes follow the command")),
        }
    }

    fn save(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let mut serializer = postcard::Serializer { output: Sink { out, buffer: Vec::new(), error: None } };
        let done = self.serialize(&mut serializer).and_then(|()| serializer.output.flush());
        let failure = serializer.output.error;
        done.map_err(|error| failure.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidData, error)))
    }

    fn load(input: &mut dyn io::BufRead, _version: u32) -> Result<Self, DecodeError> {
        let kept = Kept::default();
        let stream = Stream { input, buffer: Vec::new(), at: 0, error: None, kept: &kept };
        let mut deserializer = postcard::Deserializer::from_flavor(stream);
        let state = T::deserialize(&mut deserializer);
        let mut stream = deserializer.finalize().map_err(undecodable)?;
        let at_end = state.is_ok() && stream.is_at_end();
        match (stream.error, state) {
            (Some(error), _) => Err(DecodeError::from(error)),
            (None, Err(error)) => Err(undecodable(error)),
            (None, Ok(_)) if !at_end => Err(DecodeError::new("bytes follow the state")),
            (None, Ok(state)) => Ok(state),
        }
    }

    fn supports(version: u32) -> bool {
        <T as SerdeMachine>::supports(version)
    }

    fn shape(known: &[u8]) -> Vec<u8> {
        shape_of::<T, Self::Command>(known)
    }
}

/// Postcard counts the bytes of a command without encoding it.
impl<T: SerdeMachine> BulkMachine for T {
    fn encoded_len(command: &Self::Command) -> usize {
        // a command that cannot be serialized has no length; `encode` panics for it
        postcard::serialize_with_flavor(command, postcard::ser_flavors::Size::default()).unwrap_or(0)
    }
}

/// Appends the encoding of a single value.
///
/// # Errors
/// The reason why it cannot be serialized. Debug builds also refuse a value that cannot be read
/// back.
pub(crate) fn encode_value<T: Serialize + DeserializeOwned>(value: &T, out: &mut Vec<u8>) -> Result<(), String> {
    let start = out.len();
    postcard::serialize_with_flavor(value, Append(out)).map_err(|error| error.to_string())?;
    if cfg!(debug_assertions) && !reads_back::<T>(&out[start..]) {
        return Err(
            "it cannot be read back as it was written: do its serde attributes need a self-describing format?".into()
        );
    }
    Ok(())
}

/// Decodes a single value that takes all of `bytes`.
pub(crate) fn decode_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(bytes).map_err(undecodable)? {
        (value, []) => Ok(value),
        _ => Err(DecodeError::new("bytes follow the value")),
    }
}

fn undecodable(error: postcard::Error) -> DecodeError {
    DecodeError::new(error.to_string())
}

/// Whether decoding the bytes and encoding the result gives the same bytes.
fn reads_back<C: Serialize + DeserializeOwned>(bytes: &[u8]) -> bool {
    let again = postcard::from_bytes(bytes).and_then(|value: C| postcard::to_stdvec(&value));
    again.is_ok_and(|again| again == bytes)
}

/// Appends to a borrowed vector.
struct Append<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// The least number of bytes that a read or write through `dyn` moves. It makes the cost of the
/// call negligible.
const CHUNK_BYTES: usize = 32 << 10;

/// Writes to a stream. It keeps the I/O error, which postcard's error type cannot carry.
struct Sink<'a> {
    out: &'a mut dyn io::Write,
    buffer: Vec<u8>,
    error: Option<io::Error>,
}

impl Sink<'_> {
    fn flush(&mut self) -> postcard::Result<()> {
        let written = self.out.write_all(&self.buffer);
        self.buffer.clear();
        self.checked(written)
    }

    fn checked(&mut self, written: io::Result<()>) -> postcard::Result<()> {
        written.map_err(|error| {
            self.error = Some(error);
            postcard::Error::SerializeBufferFull
        })
    }
}

impl postcard::ser_flavors::Flavor for Sink<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.buffer.push(byte);
        if self.buffer.len() >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        if self.buffer.len() + bytes.len() < CHUNK_BYTES {
            self.buffer.extend_from_slice(bytes);
            return Ok(());
        }
        self.flush()?;
        let written = self.out.write_all(bytes);
        self.checked(written)
    }

    fn finalize(mut self) -> postcard::Result<()> {
        self.flush()
    }
}

/// Reads from a stream. It buffers no more than a chunk or the longest single string.
struct Stream<'de> {
    input: &'de mut dyn io::BufRead,
    buffer: Vec<u8>,
    /// How many bytes of the buffer have been read.
    at: usize,
    error: Option<io::Error>,
    kept: &'de Kept,
}

impl Stream<'_> {
    /// Buffers at least `count` unread bytes. The buffer grows as bytes arrive, so a false length
    /// cannot allocate memory.
    fn fill(&mut self, count: usize) -> postcard::Result<()> {
        let unread = self.buffer.len() - self.at;
        if unread >= count {
            return Ok(());
        }
        self.buffer.drain(..self.at);
        self.at = 0;
        let missing = (count - unread).max(CHUNK_BYTES) as u64;
        if let Err(error) = (&mut *self.input).take(missing).read_to_end(&mut self.buffer) {
            self.error = Some(error);
        }
        if self.buffer.len() < count { Err(postcard::Error::DeserializeUnexpectedEnd) } else { Ok(()) }
    }

    /// Whether the input has ended. If it fails instead, the error is kept.
    fn is_at_end(&mut self) -> bool {
        self.fill(1).is_err() && self.error.is_none()
    }
}

impl<'de> postcard::de_flavors::Flavor<'de> for Stream<'de> {
    type Remainder = Stream<'de>;
    type Source = &'de [u8];

    #[inline]
    fn pop(&mut self) -> postcard::Result<u8> {
        if self.at == self.buffer.len() {
            self.fill(1)?;
        }
        let byte = self.buffer[self.at];
        self.at += 1;
        Ok(byte)
    }

    /// The bytes that are buffered. Nothing is reserved for a sequence that claims more elements
    /// than that.
    fn size_hint(&self) -> Option<usize> {
        Some(self.buffer.len() - self.at)
    }

    fn try_take_n(&mut self, count: usize) -> postcard::Result<&'de [u8]> {
        let bytes = self.try_take_n_temp(count)?.to_vec();
        let (bytes, next) = self.kept.keep(bytes);
        self.kept = next;
        Ok(bytes)
    }

    fn try_take_n_temp<'a>(&'a mut self, count: usize) -> postcard::Result<&'a [u8]>
    where
        'de: 'a,
    {
        self.fill(count)?;
        let start = self.at;
        self.at += count;
        Ok(&self.buffer[start..self.at])
    }

    fn finalize(self) -> postcard::Result<Stream<'de>> {
        Ok(self)
    }
}

/// Byte strings that live until the end, for the few types that deserialize from a borrowed string.
#[derive(Default)]
struct Kept {
    bytes: OnceCell<Vec<u8>>,
    next: OnceCell<Box<Kept>>,
}

impl Kept {
    fn keep(&self, bytes: Vec<u8>) -> (&[u8], &Kept) {
        (self.bytes.get_or_init(|| bytes), self.next.get_or_init(Box::default))
    }
}

impl Drop for Kept {
    /// Drops the list in a loop. The default would recurse, and overflow the stack on a long list.
    fn drop(&mut self) {
        let mut next = self.next.take();
        while let Some(mut kept) = next {
            next = kept.next.take();
        }
    }
}
