//! The state machine: an ordered map in named tables, how commands change it, and its fast paths.

use super::codec;
use super::command::{KvCommand, KvRejection, KvReply, MAX_BATCH_DEPTH};
use super::keys::{TYPES_TABLE, is_table, with_composite};
use super::limits::{check_expected, check_key, check_value};
use super::parallel_save;
use super::range::{KvPiece, KvRange, KvSpan, KvTables};
use super::redo_buffer::{RedoBuffer, RedoTuning};
use super::snapshot::{self, Saver};
use super::tree::{End, Tree};
use crate::machine::RecoveryRates;
use crate::machine::parts::Joined;
use crate::machine::{
    Access, Applied, Bulk, BulkMachine, DecodeError, Footprint, PartWriter, Parts, RedoFault, StateMachine,
};
use std::fmt;
use std::io;
use std::ops::RangeBounds;

/// An ordered map from bytes to bytes, in named tables. A clone costs nothing and is independent.
///
/// Only [`KvCommand`]s change it. It is read directly.
///
/// ```
/// use seawal::kv::{Kv, KvCommand};
/// use seawal::machine::StateMachine;
///
/// let mut kv = Kv::default();
/// kv.apply(&KvCommand::put("fruit", "apple", "red")).unwrap();
/// kv.apply(&KvCommand::put("fruit", "pear", "green")).unwrap();
/// let frozen = kv.clone();
/// kv.apply(&KvCommand::delete("fruit", "apple")).unwrap();
///
/// assert_eq!(kv.get("fruit", "apple"), None);
/// assert_eq!(frozen.get("fruit", "apple"), Some(&b"red"[..]));
/// assert_eq!(frozen.range("fruit", "b"..).count(), 1);
/// assert_eq!(frozen.tables().collect::<Vec<_>>(), ["fruit"]);
/// ```
#[derive(Clone, Default)]
pub struct Kv {
    pub(super) tree: Tree,
    /// The writes that redo has buffered; `None` outside of redo.
    pub(super) redo_buffer: Option<Box<RedoBuffer>>,
}

impl Kv {
    /// The name of the default table: the empty string.
    pub const DEFAULT_TABLE: &'static str = "";

    /// The value of a key; `None` if the key does not exist.
    pub fn get(&self, table: &str, key: impl AsRef<[u8]>) -> Option<&[u8]> {
        if !is_table(table) {
            return None;
        }
        with_composite(table, key.as_ref(), |composite| self.tree.get(composite))
    }

    /// Whether a key exists.
    pub fn contains(&self, table: &str, key: impl AsRef<[u8]>) -> bool {
        is_table(table) && with_composite(table, key.as_ref(), |composite| self.tree.contains(composite))
    }

    /// Iterates over the entries of a table whose keys lie in a range, in order and from both ends.
    ///
    /// ```
    /// use seawal::kv::{Kv, KvCommand};
    /// use seawal::machine::StateMachine;
    ///
    /// let mut kv = Kv::default();
    /// for key in ["a", "b", "c"] {
    ///     kv.apply(&KvCommand::put(Kv::DEFAULT_TABLE, key, "")).unwrap();
    /// }
    /// let mut range = kv.range(Kv::DEFAULT_TABLE, "b"..);
    /// assert_eq!(range.next_back(), Some((&b"c"[..], &b""[..])));
    /// assert_eq!(range.next(), Some((&b"b"[..], &b""[..])));
    /// assert_eq!(range.next(), None);
    /// // The whole table. An unbounded range has no key type, so name one.
    /// assert_eq!(kv.range::<[u8]>(Kv::DEFAULT_TABLE, ..).count(), 3);
    /// ```
    pub fn range<K: AsRef<[u8]> + ?Sized>(&self, table: &str, range: impl RangeBounds<K>) -> KvRange<'_> {
        KvSpan::of_range(table, &range).entries(&self.tree)
    }

    /// Iterates over the entries of a table whose keys start with `prefix`, in order and from both
    /// ends.
    ///
    /// ```
    /// use seawal::kv::{Kv, KvCommand};
    /// use seawal::machine::StateMachine;
    ///
    /// let mut kv = Kv::default();
    /// kv.apply(&KvCommand::put("t", "user/1", "alice")).unwrap();
    /// kv.apply(&KvCommand::put("t", "visit/1", "today")).unwrap();
    /// assert_eq!(kv.prefix("t", "user/").count(), 1);
    /// assert_eq!(kv.prefix("t", "").count(), 2);
    /// ```
    pub fn prefix(&self, table: &str, prefix: impl AsRef<[u8]>) -> KvRange<'_> {
        KvSpan::of_prefix(table, prefix.as_ref()).entries(&self.tree)
    }

    /// Iterates over the names of the tables that hold a key, in order. The records of the
    /// [types](super::Table#types) of tables do not count, here and in [`len`](Self::len).
    pub fn tables(&self) -> KvTables<'_> {
        KvTables::new(&self.tree)
    }

    /// The number of entries in all tables.
    pub fn len(&self) -> usize {
        self.tree.len() - self.prefix(TYPES_TABLE, "").count()
    }

    /// Whether all tables are empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a table is empty. A table exists exactly while it is not.
    pub fn table_is_empty(&self, table: &str) -> bool {
        self.prefix(table, "").next().is_none()
    }

    /// The size of all keys and values, in bytes. Each key counts with the name of its table and
    /// one more byte.
    pub fn payload_bytes(&self) -> u64 {
        self.tree.payload_bytes()
    }

    /// The footprint of reading one key.
    ///
    /// ```
    /// use seawal::kv::{Kv, KvCommand};
    /// use seawal::machine::StateMachine;
    ///
    /// let write = Kv::footprint(&KvCommand::put("t", "k", "v"));
    /// assert!(write.conflicts_with(&Kv::key_footprint("t", "k")));
    /// assert!(write.conflicts_with(&Kv::range_footprint("t", "a".."z")));
    /// assert!(!write.conflicts_with(&Kv::prefix_footprint("t", "x")));
    /// ```
    pub fn key_footprint(table: &str, key: impl AsRef<[u8]>) -> Footprint {
        with_composite(table, key.as_ref(), |composite| Footprint::key(Access::Shared, composite))
    }

    /// The footprint of reading a range of a table: its keys, whether they exist or not.
    pub fn range_footprint<K: AsRef<[u8]> + ?Sized>(table: &str, range: impl RangeBounds<K>) -> Footprint {
        KvSpan::of_range(table, &range).footprint(Access::Shared)
    }

    /// The footprint of reading the keys of a table that start with `prefix`.
    pub fn prefix_footprint(table: &str, prefix: impl AsRef<[u8]>) -> Footprint {
        KvSpan::of_prefix(table, prefix.as_ref()).footprint(Access::Shared)
    }

    /// Passes to `f` the composite key, which names a key in the state and in footprints. Returns
    /// `None` if the table name is invalid.
    pub(crate) fn with_lock_key<R>(table: &str, key: &[u8], f: impl FnOnce(&[u8]) -> R) -> Option<R> {
        is_table(table).then(|| with_composite(table, key, f))
    }

    /// The value of a composite key that [`Kv::with_lock_key`] made.
    pub(crate) fn at_lock_key(&self, composite: &[u8]) -> Option<&[u8]> {
        self.tree.get(composite)
    }

    /// The entries in a span.
    pub(crate) fn entries(&self, span: &KvSpan) -> KvRange<'_> {
        span.entries(&self.tree)
    }

    /// Removes from one end of a span the entries that lie in one leaf, and returns them.
    pub(crate) fn take_piece(&self, span: &mut KvSpan, end: End) -> Option<KvPiece> {
        span.take(&self.tree, end)
    }

    /// Sets or removes a checked key. The reply is the previous value.
    fn set(&mut self, table: &str, key: &[u8], value: Option<&[u8]>) -> KvReply {
        KvReply::Previous(with_composite(table, key, |composite| match value {
            Some(value) => self.tree.insert(composite, value),
            None => self.tree.remove(composite),
        }))
    }

    /// Carries out a command that lies in `depth` batches, or rejects it and changes nothing.
    fn carry_out(&mut self, command: &KvCommand, depth: usize) -> Result<KvReply, KvRejection> {
        match command {
            KvCommand::Put { table, key, value } => {
                check_key(table, key)?;
                check_value(value)?;
                Ok(self.set(table, key, Some(value)))
            }
            KvCommand::Delete { table, key } => {
                check_key(table, key)?;
                Ok(self.set(table, key, None))
            }
            KvCommand::CompareAndSet { table, key, expected, new } => {
                check_key(table, key)?;
                new.as_deref().map_or(Ok(()), check_value)?;
                check_expected(self.get(table, key), expected.as_deref())?;
                Ok(self.set(table, key, new.as_deref()))
            }
            KvCommand::Batch(_) if depth >= MAX_BATCH_DEPTH => Err(KvRejection::BatchTooDeep),
            KvCommand::Batch(commands) => self.carry_out_batch(commands, depth),
        }
    }

    fn carry_out_batch(&mut self, commands: &[KvCommand], depth: usize) -> Result<KvReply, KvRejection> {
        let mut replies = Vec::with_capacity(commands.len());
        for (index, command) in commands.iter().enumerate() {
            match self.carry_out(command, depth + 1) {
                Ok(reply) => replies.push(reply),
                Err(rejection) => {
                    for (command, reply) in commands.iter().zip(&replies).rev() {
                        let undone = self.carry_out(&command.inverse(reply), depth);
                        debug_assert!(undone.is_ok(), "an inverse never rejects");
                    }
                    return Err(KvRejection::InBatch { index, rejection: Box::new(rejection) });
                }
            }
        }
        Ok(KvReply::Batch(replies))
    }
}

/// Visits every key that a command names. Batches that are nested too deeply are rejected anyway.
fn visit_keys(command: &KvCommand, depth: usize, visit: &mut dyn FnMut(&[u8])) {
    match command {
        KvCommand::Put { table, key, .. }
        | KvCommand::Delete { table, key }
        | KvCommand::CompareAndSet { table, key, .. } => with_composite(table, key, visit),
        KvCommand::Batch(_) if depth >= MAX_BATCH_DEPTH => {}
        KvCommand::Batch(commands) => commands.iter().for_each(|command| visit_keys(command, depth + 1, visit)),
    }
}

impl StateMachine for Kv {
    const NAME: &'static str = "kv";
    const VERSION: u32 = 1;
    const BULK: Option<Bulk<Self>> = Some(Bulk::of().with_rates(RecoveryRates::IN_BATCHES));

    type Command = KvCommand;
    type Reply = KvReply;
    type Rejection = KvRejection;

    fn apply(&mut self, command: &KvCommand) -> Result<(KvReply, KvCommand), KvRejection> {
        let reply = self.carry_out(command, 0)?;
        let inverse = command.inverse(&reply);
        Ok((reply, inverse))
    }

    fn encode(command: &KvCommand, out: &mut Vec<u8>) {
        codec::encode(command, out);
    }

    fn decode(bytes: &[u8], _version: u32) -> Result<KvCommand, DecodeError> {
        codec::decode(bytes)
    }

    fn save(&self, out: &mut dyn io::Write) -> io::Result<()> {
        snapshot::save(&self.tree, &mut Joined(out))
    }

    fn load(input: &mut dyn io::BufRead, _version: u32) -> Result<Self, DecodeError> {
        Ok(Kv { tree: snapshot::load(input)?, redo_buffer: None })
    }

    fn footprint(command: &KvCommand) -> Footprint {
        let mut all = Footprint::none();
        visit_keys(command, 0, &mut |key| all = std::mem::take(&mut all).and_key(Access::Exclusive, key));
        all
    }
}

impl BulkMachine for Kv {
    fn apply_without_inverse(&mut self, command: &KvCommand) -> Applied<Kv> {
        self.carry_out(command, 0).map(|reply| (reply, None))
    }

    fn inverse_of(command: &KvCommand, reply: &KvReply) -> Option<KvCommand> {
        Some(command.inverse(reply))
    }

    fn visit_keys(command: &KvCommand, visit: &mut dyn FnMut(&[u8])) -> bool {
        visit_keys(command, 0, visit);
        true
    }

    fn limit_redo_memory(&mut self, bytes: u64) {
        let Kv { tree, redo_buffer } = self;
        let buffer = redo_buffer.get_or_insert_with(|| Box::new(RedoBuffer::new(tree, RedoTuning::default())));
        buffer.limit_memory(tree, bytes);
    }

    fn redo(&mut self, commands: &[&[u8]], _version: u32) -> Result<(), RedoFault> {
        let Kv { tree, redo_buffer } = self;
        let buffer = redo_buffer.get_or_insert_with(|| Box::new(RedoBuffer::new(tree, RedoTuning::default())));
        buffer.redo(tree, commands)
    }

    fn finish_redo(&mut self) {
        if let Some(mut buffer) = self.redo_buffer.take() {
            buffer.merge_into(&mut self.tree);
        }
    }

    fn encoded_len(command: &KvCommand) -> usize {
        codec::encoded_len(command)
    }

    /// Frees each part of the tree that nothing else holds as soon as that part is written.
    fn save_parts(self, out: &mut dyn PartWriter) -> io::Result<()> {
        let threads = parallel_save::threads_for(&self.tree);
        if threads > 1 {
            return parallel_save::save(self.tree, threads, out);
        }
        let mut saver = Saver::new(out, self.tree.len());
        self.tree.drain_sorted(|key, value| saver.push(key, value))?;
        saver.finish()
    }

    fn load_parts(parts: Parts<'_>, _version: u32) -> Result<Self, DecodeError> {
        Ok(Kv { tree: snapshot::load_parts(parts)?, redo_buffer: None })
    }

    fn copied_share(&self) -> f64 {
        self.tree.copied_share()
    }
}

impl fmt::Debug for Kv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kv").field("len", &self.len()).field("payload_bytes", &self.payload_bytes()).finish()
    }
}
