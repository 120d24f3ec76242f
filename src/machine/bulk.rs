//! Optional fast paths for machines that move a lot of data, and the engine's calls to them.
//!
//! The engine never names a method of [`BulkMachine`] directly. It calls the functions below, which
//! use [`StateMachine::BULK`] if the machine sets it, and the five plain methods if not. `BULK` is
//! a constant, so the optimizer removes the branch and inlines the call.

use super::recovery_rates::RecoveryRates;
use super::{Applied, Bulk, DecodeError, Digest, PartWriter, Parts, RedoFault, SnapshotSource, StateMachine};
use std::io;

/// Optional fast paths of a [`StateMachine`]. The built-in [`Kv`](crate::kv::Kv) uses all of them.
///
/// Each method has a default that does what the plain methods do, so implement only those that pay.
/// To switch them on, the machine must also set [`StateMachine::BULK`]; without that, this
/// implementation is never called.
///
/// # The law
///
/// A fast path gives what the plain methods give:
///
/// 1. [`apply_without_inverse`](Self::apply_without_inverse) changes the state, replies and rejects
///    as [`apply`](StateMachine::apply) does. If it returns no inverse,
///    [`inverse_of`](Self::inverse_of) returns the one that `apply` would have returned.
/// 2. If [`visit_keys`](Self::visit_keys) returns `true`, it visited exactly the keys of
///    [`footprint`](StateMachine::footprint), in the same order, and the footprint claims each of
///    them exclusively.
/// 3. [`redo`](Self::redo) of some commands, followed by [`finish_redo`](Self::finish_redo), leaves
///    the state that decoding and applying them in order leaves.
/// 4. [`encoded_len`](Self::encoded_len) is the number of bytes that
///    [`encode`](StateMachine::encode) appends.
/// 5. [`save_parts`](Self::save_parts) writes the bytes that [`save`](StateMachine::save) writes,
///    and [`load_parts`](Self::load_parts) reads them back as [`load`](StateMachine::load) does.
/// 6. [`digest`](Self::digest) is equal for states with equal saved bytes.
///
/// [`sim::explore`](crate::sim::explore) checks these points together with those of `StateMachine`.
///
/// # Example
///
/// ```
/// use seawal::machine::{Applied, Bulk, BulkMachine, DecodeError, StateMachine};
/// # use std::io::{self, BufRead, Write};
///
/// #[derive(Clone, Default)]
/// struct Counter(u64);
///
/// impl StateMachine for Counter {
///     const BULK: Option<Bulk<Self>> = Some(Bulk::of());
///     // … the constants, types and five methods of every machine …
/// #   const NAME: &'static str = "counter";
/// #   const VERSION: u32 = 1;
/// #   type Command = i64;
/// #   type Reply = u64;
/// #   type Rejection = &'static str;
/// #   fn apply(&mut self, add: &i64) -> Result<(u64, i64), &'static str> {
/// #       self.0 = self.0.checked_add_signed(*add).ok_or("below zero")?;
/// #       Ok((self.0, -add))
/// #   }
/// #   fn encode(add: &i64, out: &mut Vec<u8>) {
/// #       out.extend_from_slice(&add.to_le_bytes());
/// #   }
/// #   fn decode(bytes: &[u8], _version: u32) -> Result<i64, DecodeError> {
/// #       Ok(i64::from_le_bytes(bytes.try_into().map_err(|_| DecodeError::new("not eight bytes"))?))
/// #   }
/// #   fn save(&self, out: &mut dyn Write) -> io::Result<()> {
/// #       out.write_all(&self.0.to_le_bytes())
/// #   }
/// #   fn load(input: &mut dyn BufRead, _version: u32) -> Result<Self, DecodeError> {
/// #       let mut bytes = [0; 8];
/// #       input.read_exact(&mut bytes)?;
/// #       Ok(Counter(u64::from_le_bytes(bytes)))
/// #   }
/// }
///
/// impl BulkMachine for Counter {
///     fn encoded_len(_add: &i64) -> usize {
///         8
///     }
/// }
/// ```
pub trait BulkMachine: StateMachine {
    /// Carries out a command without building its inverse, if [`inverse_of`](Self::inverse_of) can
    /// rebuild that from the command and its reply.
    ///
    /// The engine calls it for commands outside transactions, which are rarely undone. The default
    /// calls [`apply`](StateMachine::apply) and returns its inverse.
    ///
    /// # Errors
    /// The rejection that `apply` returns.
    fn apply_without_inverse(&mut self, command: &Self::Command) -> Applied<Self> {
        self.apply(command).map(|(reply, inverse)| (reply, Some(inverse)))
    }

    /// Rebuilds the inverse of a command that
    /// [`apply_without_inverse`](Self::apply_without_inverse) carried out with this reply.
    ///
    /// The default returns `None`: the inverse is unknown.
    fn inverse_of(command: &Self::Command, reply: &Self::Reply) -> Option<Self::Command> {
        let _ = (command, reply);
        None
    }

    /// Passes each key of the command's [`footprint`](StateMachine::footprint) to `visit`, without
    /// allocating the footprint. Returns `false` if the footprint is more than exclusively claimed
    /// keys; the engine then ignores what was visited and asks for the footprint.
    ///
    /// The default returns `false`.
    fn visit_keys(command: &Self::Command, visit: &mut dyn FnMut(&[u8])) -> bool {
        let _ = (command, visit);
        false
    }

    /// Carries out logged commands in order, without replies and inverses. Recovery spends most of
    /// its time here.
    ///
    /// A machine may buffer the commands until [`finish_redo`](Self::finish_redo). Until then the
    /// engine calls nothing but these two methods and
    /// [`limit_redo_memory`](Self::limit_redo_memory), and does not read the state. The machine bounds
    /// its buffer itself, and decodes and checks each command before it buffers it. After an error
    /// the engine discards the state.
    ///
    /// The default decodes and applies the commands one by one.
    ///
    /// # Errors
    /// [`RedoFault`] names the command that cannot be decoded or is rejected. Both mean that the
    /// log is damaged.
    fn redo(&mut self, commands: &[&[u8]], version: u32) -> Result<(), RedoFault> {
        redo_one_by_one(self, commands, version)
    }

    /// Sets how much memory the commands that [`redo`](Self::redo) buffers may take, in bytes:
    /// [`Options::redo_memory_bytes`](crate::Options::redo_memory_bytes). The engine calls it before
    /// each `redo`. The default does nothing, because a machine that buffers nothing needs no
    /// bound.
    fn limit_redo_memory(&mut self, bytes: u64) {
        let _ = bytes;
    }

    /// Carries out the commands that [`redo`](Self::redo) has buffered. The default does nothing.
    fn finish_redo(&mut self) {}

    /// Returns the number of bytes that [`encode`](StateMachine::encode) appends.
    ///
    /// [`Options::max_txn_undo_bytes`](crate::Options::max_txn_undo_bytes) counts inverses in these
    /// bytes. The default encodes the command into a scratch buffer.
    fn encoded_len(command: &Self::Command) -> usize {
        len_of_encoding::<Self>(command)
    }

    /// Saves a frozen copy of the state that is not needed afterwards, in parts. A checkpoint
    /// writes its snapshot with this.
    ///
    /// The machine may free memory as it goes. It calls [`PartWriter::end_part`] where a part ends,
    /// at the same places for equal states; about one MiB is a good size. The default calls
    /// [`save`](StateMachine::save), which makes one part.
    ///
    /// # Errors
    /// Only those of `out`.
    fn save_parts(self, out: &mut dyn PartWriter) -> io::Result<()> {
        self.save(out)
    }

    /// Loads a state from its parts. Recovery loads snapshots with this.
    ///
    /// A machine that can decode a part without the parts before it loads faster, because
    /// [`Parts::decode`] uses several threads. The default calls [`load`](StateMachine::load) with
    /// all parts as one stream.
    ///
    /// # Errors
    /// Those of `load`.
    fn load_parts(parts: Parts<'_>, version: u32) -> Result<Self, DecodeError> {
        Self::load(&mut parts.into_stream(), version)
    }

    /// Returns how much memory the copy that [`save_parts`](Self::save_parts) is saving holds in
    /// addition to this state, as a share of this state's size.
    ///
    /// That is the part of a copy-on-write state that changed since the copy was made and is not
    /// yet saved. If the share grows too large, the checkpoint drops its pacing and the engine
    /// throttles commits. While no copy is being saved the share is 0.
    ///
    /// The engine calls this often and under its core lock, so read a counter. The default returns
    /// 0, which throttles nothing.
    fn copied_share(&self) -> f64 {
        0.0
    }

    /// Returns a digest of the state. [`Options::digest_every`](crate::Options::digest_every) logs
    /// digests, and recovery compares them with those of the states it rebuilds.
    ///
    /// A machine that maintains a digest as it changes can return that here. The default digests
    /// what [`save`](StateMachine::save) writes, which reads the whole state. Digests are compared
    /// only between equal [versions](StateMachine::VERSION) of a machine.
    ///
    /// # Errors
    /// Those of `save`.
    fn digest(&self) -> io::Result<u64> {
        digest_of_saved(self)
    }
}

impl<M: StateMachine> Bulk<M> {
    /// States that recovery has other rates than that of one command after the other.
    pub(crate) const fn with_rates(mut self, rates: RecoveryRates) -> Self {
        self.rates = rates;
        self
    }
}

/// What recovery of this machine typically takes.
pub(crate) fn recovery_rates<M: StateMachine>() -> RecoveryRates {
    M::BULK.map_or(RecoveryRates::ONE_BY_ONE, |bulk| bulk.rates)
}

impl<M: BulkMachine> Bulk<M> {
    /// The table for a machine that implements [`BulkMachine`].
    pub const fn of() -> Self {
        Bulk {
            rates: RecoveryRates::ONE_BY_ONE,
            apply_without_inverse: M::apply_without_inverse,
            inverse_of: M::inverse_of,
            visit_keys: M::visit_keys,
            limit_redo_memory: M::limit_redo_memory,
            redo: M::redo,
            finish_redo: M::finish_redo,
            encoded_len: M::encoded_len,
            save_parts: M::save_parts,
            load_parts: M::load_parts,
            copied_share: M::copied_share,
            digest: M::digest,
        }
    }
}

/// See [`BulkMachine::apply_without_inverse`].
#[inline]
pub(crate) fn apply_without_inverse<M: StateMachine>(state: &mut M, command: &M::Command) -> Applied<M> {
    match M::BULK {
        Some(bulk) => (bulk.apply_without_inverse)(state, command),
        None => state.apply(command).map(|(reply, inverse)| (reply, Some(inverse))),
    }
}

/// See [`BulkMachine::inverse_of`].
#[inline]
pub(crate) fn inverse_of<M: StateMachine>(command: &M::Command, reply: &M::Reply) -> Option<M::Command> {
    M::BULK.and_then(|bulk| (bulk.inverse_of)(command, reply))
}

/// See [`BulkMachine::visit_keys`].
#[inline]
pub(crate) fn visit_keys<M: StateMachine>(command: &M::Command, visit: &mut dyn FnMut(&[u8])) -> bool {
    M::BULK.is_some_and(|bulk| (bulk.visit_keys)(command, visit))
}

/// See [`BulkMachine::limit_redo_memory`].
pub(crate) fn limit_redo_memory<M: StateMachine>(state: &mut M, bytes: u64) {
    if let Some(bulk) = M::BULK {
        (bulk.limit_redo_memory)(state, bytes);
    }
}

/// See [`BulkMachine::redo`].
pub(crate) fn redo<M: StateMachine>(state: &mut M, commands: &[&[u8]], version: u32) -> Result<(), RedoFault> {
    match M::BULK {
        Some(bulk) => (bulk.redo)(state, commands, version),
        None => redo_one_by_one(state, commands, version),
    }
}

/// See [`BulkMachine::finish_redo`].
pub(crate) fn finish_redo<M: StateMachine>(state: &mut M) {
    if let Some(bulk) = M::BULK {
        (bulk.finish_redo)(state);
    }
}

/// See [`BulkMachine::encoded_len`].
#[inline]
pub(crate) fn encoded_len<M: StateMachine>(command: &M::Command) -> usize {
    match M::BULK {
        Some(bulk) => (bulk.encoded_len)(command),
        None => len_of_encoding::<M>(command),
    }
}

/// See [`BulkMachine::save_parts`].
pub(crate) fn save_parts<M: StateMachine>(state: M, out: &mut dyn PartWriter) -> io::Result<()> {
    match M::BULK {
        Some(bulk) => (bulk.save_parts)(state, out),
        None => state.save(out),
    }
}

/// See [`BulkMachine::load_parts`].
pub(crate) fn load_parts<M: StateMachine>(parts: Parts<'_>, version: u32) -> Result<M, DecodeError> {
    match M::BULK {
        Some(bulk) => (bulk.load_parts)(parts, version),
        None => M::load(&mut parts.into_stream(), version),
    }
}

/// See [`BulkMachine::copied_share`].
#[inline]
pub(crate) fn copied_share<M: StateMachine>(state: &M) -> f64 {
    M::BULK.map_or(0.0, |bulk| (bulk.copied_share)(state))
}

/// See [`BulkMachine::digest`].
pub(crate) fn digest<M: StateMachine>(state: &M) -> io::Result<u64> {
    match M::BULK {
        Some(bulk) => (bulk.digest)(state),
        None => digest_of_saved(state),
    }
}

/// What is kept of a state until its digest is asked for.
pub(crate) enum KeptForDigest<M> {
    /// A clone, where that is cheap: it is digested later.
    Clone(M),
    /// The digest itself, where a digest costs less than a clone.
    Digest(io::Result<u64>),
}

impl<M: StateMachine> KeptForDigest<M> {
    pub(crate) fn of(state: &M) -> Self {
        match M::SNAPSHOT_SOURCE {
            SnapshotSource::Clone => KeptForDigest::Clone(state.clone()),
            SnapshotSource::Replay => KeptForDigest::Digest(digest(state)),
        }
    }

    pub(crate) fn digest(self) -> io::Result<u64> {
        match self {
            KeptForDigest::Clone(state) => digest(&state),
            KeptForDigest::Digest(digest) => digest,
        }
    }
}

fn redo_one_by_one<M: StateMachine>(state: &mut M, commands: &[&[u8]], version: u32) -> Result<(), RedoFault> {
    for (index, bytes) in commands.iter().enumerate() {
        let command = M::decode(bytes, version).map_err(|error| RedoFault::unreadable(index, error))?;
        state.apply(&command).map_err(|_| RedoFault::rejected(index))?;
    }
    Ok(())
}

fn len_of_encoding<M: StateMachine>(command: &M::Command) -> usize {
    let mut scratch = Vec::new();
    M::encode(command, &mut scratch);
    scratch.len()
}

fn digest_of_saved<M: StateMachine>(state: &M) -> io::Result<u64> {
    let mut digest = Digest::new();
    state.save(&mut digest)?;
    Ok(digest.finish())
}
