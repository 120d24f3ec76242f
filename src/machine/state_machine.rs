//! The trait that a user implements, and its law.

use super::recovery_rates::RecoveryRates;
use super::{Access, DecodeError, Footprint, PartWriter, Parts, RedoFault};
use std::fmt;
use std::io;

/// A deterministic state machine: the state, and the commands that change it.
///
/// # The law
///
/// The engine is correct only if the machine obeys these rules.
/// [`sim::explore`](crate::sim::explore) checks them with random commands.
///
/// 1. [`apply`](Self::apply) is deterministic: the same state and command give the same new state,
///    reply and inverse. It uses no hash order, clock, randomness or shared interior mutability.
/// 2. A clone is independent of its original, and a state that [`load`](Self::load) read from what
///    [`save`](Self::save) wrote behaves like the original.
/// 3. For every state, every command `c` with inverse `c⁻¹`, and every sequence `D` of commands
///    whose footprints do not conflict with that of `c`: `c, D, c⁻¹` equals `D` alone, in saved
///    bytes, replies and later behavior. A counterexample is an id counter that an inverse sets
///    back after another transaction has taken the next id.
/// 4. An inverse never rejects, never panics, and stays within the footprint of its command.
/// 5. [`footprint`](Self::footprint) is a pure function of the command and covers everything that
///    `apply` reads or writes.
/// 6. A rejected command changes nothing. A command that was logged never rejects in replay.
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
///         Ok(i64::from_le_bytes(bytes.try_into().map_err(|_| DecodeError::new("not eight bytes"))?))
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
    /// The name of the machine, written into every file; at most 64 bytes.
    const NAME: &'static str;
    /// The version of the machine's behavior and encodings. Raise it if an old log would replay
    /// differently.
    const VERSION: u32;
    /// The fast paths of a machine that implements [`BulkMachine`](super::BulkMachine):
    /// `Some(Bulk::of())`.
    ///
    /// Default: `None`. The engine then uses nothing but the methods of this trait.
    const BULK: Option<Bulk<Self>> = None;
    /// Where checkpoints and backups get the state that they save.
    ///
    /// Default: [`SnapshotSource::Clone`], which stops all commits while the state is cloned. Set
    /// [`SnapshotSource::Replay`] if the time that a clone takes grows with the state.
    const SNAPSHOT_SOURCE: SnapshotSource = SnapshotSource::Clone;

    /// A change to the state. Its inverse is a command too.
    type Command: Clone + Send + Sync + 'static;
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

    /// Appends the encoding of a command to `out`. The log stores commands in this form.
    fn encode(command: &Self::Command, out: &mut Vec<u8>);

    /// Decodes a command. `version` is the version of the machine that encoded it.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not an encoding of a command. It must not panic, whatever
    /// the bytes are.
    fn decode(bytes: &[u8], version: u32) -> Result<Self::Command, DecodeError>;

    /// Writes the whole state. Equal states must write equal bytes.
    ///
    /// # Errors
    /// Only those of `out`.
    fn save(&self, out: &mut dyn io::Write) -> io::Result<()>;

    /// Reads a state that [`save`](Self::save) wrote. `version` is the version of the machine that
    /// wrote it.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not such a state, or if `input` fails. It must not panic,
    /// and must not allocate memory for more than `input` contains.
    fn load(input: &mut dyn io::BufRead, version: u32) -> Result<Self, DecodeError>;

    /// Returns what a command reads and writes, for locking.
    ///
    /// Default: everything, exclusively, so transactions run one after the other.
    fn footprint(command: &Self::Command) -> Footprint {
        let _ = command;
        Footprint::everything(Access::Exclusive)
    }

    /// Returns whether this machine can replay logs and load snapshots that its `version` wrote.
    ///
    /// Default: only its own [`VERSION`](Self::VERSION).
    fn supports(version: u32) -> bool {
        version == Self::VERSION
    }

    /// Returns a checksum of the shape of the types that the machine encodes, at most 1,024 bytes.
    ///
    /// The store keeps it beside [`VERSION`](Self::VERSION). If an open of the same version finds
    /// another one, it fails with [`Error::Unreadable`](crate::Error::Unreadable): a type was
    /// changed and the version was not raised. `known` is what the store has, or empty. A machine
    /// may use it to describe only what was there before.
    ///
    /// Default: empty, which is compared with nothing. [`SerdeMachine`](super::SerdeMachine) finds
    /// the shape of its types by itself.
    fn shape(known: &[u8]) -> Vec<u8> {
        let _ = known;
        Vec::new()
    }
}

/// Where checkpoints and backups get the state that they save: see
/// [`StateMachine::SNAPSHOT_SOURCE`].
///
/// A checkpoint saves the same bytes with either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotSource {
    /// From a clone of the live state, which is made while no command runs.
    ///
    /// For a machine whose clone is cheap, because it shares its data with the original as
    /// [`Kv`](crate::kv::Kv) does, or because the state is small.
    Clone,
    /// From a second state, rebuilt from the newest snapshot and the log after it, as recovery
    /// does. The live state is not cloned, and no commit waits for any part of this.
    ///
    /// The costs: memory for a second whole state until it is saved, also in [`Engine::close`] if
    /// it takes a checkpoint; and the time of an open for each checkpoint and each backup, mostly
    /// beside the commits. A checkpoint fails if an open would fail.
    ///
    /// Two operations still stop all commits for a time that grows with the state:
    /// [`Engine::view`], which clones it, and each digest of [`Options::digest_every`], unless the
    /// machine maintains one ([`BulkMachine::digest`](super::BulkMachine::digest)).
    ///
    /// [`Engine::close`]: crate::Engine::close
    /// [`Engine::view`]: crate::Engine::view
    /// [`Options::digest_every`]: crate::Options::digest_every
    Replay,
}

/// The reply to a command and, if it was built, its inverse; or the rejection.
pub type Applied<M> =
    Result<(<M as StateMachine>::Reply, Option<<M as StateMachine>::Command>), <M as StateMachine>::Rejection>;

/// The methods of a [`BulkMachine`](super::BulkMachine), for [`StateMachine::BULK`].
///
/// Stable Rust cannot ask whether a type implements a trait, so the machine says so with this table
/// of function pointers. It lies beside [`StateMachine`], which has it as a constant.
#[allow(clippy::type_complexity, reason = "the table repeats the signatures of its trait")]
pub struct Bulk<M: StateMachine> {
    pub(super) rates: RecoveryRates,
    pub(super) apply_without_inverse: fn(&mut M, &M::Command) -> Applied<M>,
    pub(super) inverse_of: fn(&M::Command, &M::Reply) -> Option<M::Command>,
    pub(super) visit_keys: fn(&M::Command, &mut dyn FnMut(&[u8])) -> bool,
    pub(super) limit_redo_memory: fn(&mut M, u64),
    pub(super) redo: fn(&mut M, &[&[u8]], u32) -> Result<(), RedoFault>,
    pub(super) finish_redo: fn(&mut M),
    pub(super) encoded_len: fn(&M::Command) -> usize,
    pub(super) save_parts: fn(M, &mut dyn PartWriter) -> io::Result<()>,
    pub(super) load_parts: fn(Parts<'_>, u32) -> Result<M, DecodeError>,
    pub(super) copied_share: fn(&M) -> f64,
    pub(super) digest: fn(&M) -> io::Result<u64>,
}

impl<M: StateMachine> fmt::Debug for Bulk<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulk").field("machine", &M::NAME).finish_non_exhaustive()
    }
}
