//! What a state machine is: the one thing a user of the crate writes.
//!
//! A command applied to a state gives a reply and the command's inverse, or a rejection that changed
//! nothing. Rollback, savepoints, recovery, views and checkpoints all rest on that. This module knows
//! nothing of LSNs, disks or threads.

mod digest;
mod footprint;
pub(crate) mod parts;
#[cfg(feature = "serde")]
mod with_serde;

pub use digest::Digest;
pub use footprint::{Access, Claim, Extent, Footprint};
pub use parts::Parts;
#[cfg(feature = "serde")]
pub use with_serde::SerdeMachine;

use std::borrow::Cow;
use std::fmt;
use std::io;

/// A deterministic state machine.
///
/// # The law
///
/// The engine is only as correct as the machine keeps this:
///
/// 1. [`apply`](Self::apply) is deterministic: the same state and command give the same state, reply and inverse. No hash
///    order, no clock, no randomness, no shared interior mutability. `Clone` is independent, and
///    [`load`](Self::load) of what [`save`](Self::save) wrote behaves as the original.
/// 2. For every state, every command `c` with inverse `c⁻¹`, and every sequence `D` of commands whose
///    footprints do not conflict with `c`'s: `c, D, c⁻¹` equals `D` alone, in saved bytes, replies and
///    later behaviour. (A counter-example: an id counter put back by an inverse while another
///    transaction took the next id.)
/// 3. An inverse never rejects and never panics, and stays inside its command's footprint.
/// 4. [`footprint`](Self::footprint) is a pure function of the command, and covers all that `apply` reads or writes.
///    [`each_key`](Self::each_key) tells the same, and [`apply_alone`](Self::apply_alone) does what `apply` does.
/// 5. A rejected command changed nothing. A command that was logged never rejects in replay.
///
/// # Example
///
/// ```
/// use seawal::machine::{DecodeError, StateMachine};
/// use std::io::{self, BufRead, Write};
///
/// /// A counter that never goes below zero.
/// #[derive(Clone, Default)]
/// struct Counter(u64);
///
/// impl StateMachine for Counter {
///     const NAME: &'static str = "counter";
///     const VERSION: u32 = 1;
///     type Command = i64;
///     type Reply = u64;
///     type Rejection = &'static str;
///
///     fn apply(&mut self, add: &i64) -> Result<(u64, i64), &'static str> {
///         self.0 = self.0.checked_add_signed(*add).ok_or("below zero")?;
///         Ok((self.0, -add))
///     }
///     fn encode(add: &i64, out: &mut Vec<u8>) {
///         out.extend_from_slice(&add.to_le_bytes());
///     }
///     fn decode(bytes: &[u8], _version: u32) -> Result<i64, DecodeError> {
///         Ok(i64::from_le_bytes(bytes.try_into().map_err(|_| DecodeError::new("eight bytes"))?))
///     }
///     fn save(&self, out: &mut dyn Write) -> io::Result<()> {
///         out.write_all(&self.0.to_le_bytes())
///     }
///     fn load(input: &mut dyn BufRead, _version: u32) -> Result<Self, DecodeError> {
///         let mut bytes = [0; 8];
///         input.read_exact(&mut bytes)?;
///         Ok(Counter(u64::from_le_bytes(bytes)))
///     }
/// }
///
/// let mut counter = Counter::default();
/// let (reply, inverse) = counter.apply(&5).unwrap();
/// assert_eq!((reply, inverse), (5, -5));
/// counter.apply(&inverse).unwrap();
/// assert_eq!(counter.0, 0);
/// ```
pub trait StateMachine: Clone + Default + Send + Sync + 'static {
    /// The machine's name, written into every file; at most 64 bytes.
    const NAME: &'static str;
    /// The version of the machine's behaviour and encodings. Raise it when an old log would replay differently.
    const VERSION: u32;

    /// A change to the state. Its inverse is a command too.
    type Command: Clone + Send + Sync + 'static;
    /// What a command that was carried out answers.
    type Reply: Send + 'static;
    /// Why a command was refused.
    type Rejection: Send + 'static;

    /// Carries a command out in place and returns its reply and its inverse, or rejects it and changes nothing.
    ///
    /// # Errors
    /// The machine's own rejection.
    fn apply(&mut self, command: &Self::Command) -> Result<(Self::Reply, Self::Command), Self::Rejection>;

    /// The same for a command that nobody is likely to undo, which is most of them: a machine whose replies tell the inverse need not
    /// make one, and then answers [`inverse_of`](Self::inverse_of) if it is asked for after all. The default makes it.
    ///
    /// # Errors
    /// Those of [`apply`](Self::apply).
    fn apply_alone(&mut self, command: &Self::Command) -> Applied<Self> {
        self.apply(command).map(|(reply, inverse)| (reply, Some(inverse)))
    }

    /// The inverse of a command that [`apply_alone`](Self::apply_alone) carried out and answered so: that which
    /// [`apply`](Self::apply) would have made. `None`, the default, says that it cannot be told.
    fn inverse_of(command: &Self::Command, reply: &Self::Reply) -> Option<Self::Command> {
        let _ = (command, reply);
        None
    }

    /// What a command reads and writes, for locking. The default, everything, makes transactions serial.
    fn footprint(command: &Self::Command) -> Footprint {
        let _ = command;
        Footprint::everything(Access::Exclusive)
    }

    /// Hands the keys of a command's [`footprint`](Self::footprint) to `see`, where it consists of single keys which are all touched
    /// exclusively, and says whether it does. While nobody holds a lock that is all that is asked, and no footprint need be made. The
    /// default says no.
    fn each_key(command: &Self::Command, see: &mut dyn FnMut(&[u8])) -> bool {
        let _ = (command, see);
        false
    }

    /// Appends the command's encoding to `out`.
    fn encode(command: &Self::Command, out: &mut Vec<u8>);

    /// Reads a command back. `version` is that of the machine which wrote it.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are none of its encodings. It must not panic, whatever the bytes.
    fn decode(bytes: &[u8], version: u32) -> Result<Self::Command, DecodeError>;

    /// Carries out commands that were logged and whose inverses nobody will need, in order: what recovery does most. The default
    /// decodes and applies them one by one; a machine may do it faster, as long as the outcome is the same. After a fault the state is
    /// thrown away.
    ///
    /// A machine may put off what it is given, to carry out much at once: between a call of this and the next of
    /// [`finish_redo`](Self::finish_redo) it is asked for nothing but more of this, and nobody looks at the state. What it puts off it has
    /// already found to be readable and not to be rejected, and it sets itself a limit to how much that may be.
    ///
    /// # Errors
    /// Which command could not be decoded, or was rejected, which in a log is damage.
    fn redo(&mut self, commands: &[&[u8]], version: u32) -> Result<(), RedoFault> {
        for (index, bytes) in commands.iter().enumerate() {
            let command = Self::decode(bytes, version).map_err(|error| RedoFault::unreadable(index, error))?;
            self.apply(&command).map_err(|_| RedoFault::rejected(index))?;
        }
        Ok(())
    }

    /// Carries out all that [`redo`](Self::redo) has put off. With nothing put off, which is the default, it does nothing.
    fn finish_redo(&mut self) {}

    /// How many bytes [`encode`](Self::encode) appends. What a transaction may hold for its rollback is counted in these.
    fn encoded_len(command: &Self::Command) -> usize {
        let mut scratch = Vec::new();
        Self::encode(command, &mut scratch);
        scratch.len()
    }

    /// Writes the whole state, the same bytes for equal states.
    ///
    /// A machine that reads its [parts](Self::load_parts) apart says by [`flush`](io::Write::flush) where one ends, at the same places
    /// for equal states. A part of about a mebibyte is a good size.
    ///
    /// # Errors
    /// Only those of `out`.
    fn save(&self, out: &mut dyn io::Write) -> io::Result<()>;

    /// The same for a frozen copy that nobody needs afterwards, so that it can be freed piece by piece while it is written.
    ///
    /// # Errors
    /// Only those of `out`.
    fn save_frozen(self, out: &mut dyn io::Write) -> io::Result<()> {
        self.save(out)
    }

    /// How much memory a frozen copy that is being [saved](Self::save_frozen) holds beside this state, as a share of what the state
    /// takes: what has changed since it was frozen and was not written yet. Where that becomes much, a checkpoint
    /// hurries, and commits wait for it. The default, nothing, leaves both alone.
    ///
    /// It is asked often, under the lock that commits need, and so looks at what was counted before. While no copy is being saved it is 0.
    fn copied_share(&self) -> f64 {
        0.0
    }

    /// Reads a state that [`save`](Self::save) of the machine at `version` wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not such a state, or an error of `input`. It must not panic,
    /// nor allocate what `input` does not back.
    fn load(input: &mut dyn io::BufRead, version: u32) -> Result<Self, DecodeError>;

    /// Reads a state that was saved in [`Parts`], which is what recovery does. A machine whose parts can be decoded without those before
    /// them is loaded faster by several threads. The default reads them one behind the other.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    fn load_parts(parts: Parts<'_>, version: u32) -> Result<Self, DecodeError> {
        Self::load(&mut parts.into_stream(), version)
    }

    /// A short name of the state: equal for states with equal saved bytes, however they came about. The default digests what
    /// [`save`](Self::save) writes, one pass over the state. With [`digest_every`](crate::Options::digest_every) it stands in the log,
    /// and is compared only by the version of the machine that wrote it.
    ///
    /// # Errors
    /// Those of `save`.
    fn digest(&self) -> io::Result<u64> {
        let mut digest = Digest::new();
        self.save(&mut digest)?;
        Ok(digest.finish())
    }

    /// Whether this machine replays logs and loads snapshots of the machine at `version`.
    fn supports(version: u32) -> bool {
        version == Self::VERSION
    }
}

/// The reply and, where it was made, the inverse of a command; or why it was refused.
pub type Applied<M> =
    Result<(<M as StateMachine>::Reply, Option<<M as StateMachine>::Command>), <M as StateMachine>::Rejection>;

/// Why a logged command could not be redone.
#[derive(Debug)]
pub struct RedoFault {
    pub(crate) index: usize,
    pub(crate) unreadable: Option<DecodeError>,
}

impl RedoFault {
    /// The command at this index is none of the machine's encodings.
    pub fn unreadable(index: usize, error: DecodeError) -> Self {
        RedoFault { index, unreadable: Some(error) }
    }

    /// The machine rejects the command at this index.
    pub fn rejected(index: usize) -> Self {
        RedoFault { index, unreadable: None }
    }
}

/// Bytes that are not what they should be.
#[derive(Debug)]
pub struct DecodeError {
    reason: Cow<'static, str>,
    source: Option<io::Error>,
}

impl DecodeError {
    /// An error that says what was expected or found.
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        DecodeError { reason: reason.into(), source: None }
    }

    /// The error of the input, if that is what failed and not the bytes.
    pub fn into_io(self) -> Result<io::Error, Self> {
        match self.source {
            Some(source) => Ok(source),
            None => Err(self),
        }
    }
}

impl From<io::Error> for DecodeError {
    fn from(source: io::Error) -> Self {
        DecodeError { reason: Cow::Borrowed("the input could not be read"), source: Some(source) }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{}: {source}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

impl std::error::Error for DecodeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}
