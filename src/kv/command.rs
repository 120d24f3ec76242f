//! The commands of the key-value machine, its replies and its rejections.

use crate::count::Count;
use std::fmt;

/// The longest table name, in bytes.
pub const MAX_TABLE_LEN: usize = 255;
/// The longest key in the default table, in bytes. In another table, the limit is less by the
/// length of the table name.
pub const MAX_KEY_LEN: usize = 64 * 1024 - 1;
/// The longest value, in bytes.
pub const MAX_VALUE_LEN: usize = 1 << 30;
/// How deeply batches may be nested.
pub const MAX_BATCH_DEPTH: usize = 8;

/// A change to a [`Kv`](super::Kv).
///
/// A table is named by a string of at most [`MAX_TABLE_LEN`] bytes without NUL; it exists exactly
/// while it holds a key.
///
/// ```
/// use seawal::kv::{Kv, KvCommand, KvReply};
/// use seawal::machine::StateMachine;
///
/// let mut kv = Kv::default();
/// let (reply, inverse) = kv.apply(&KvCommand::put("users", "alice", "1")).unwrap();
/// assert_eq!(reply, KvReply::Previous(None));
/// assert_eq!(inverse, KvCommand::delete("users", "alice"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvCommand {
    /// Sets the value of a key.
    Put {
        /// The table.
        table: String,
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
    },
    /// Removes a key, if it exists.
    Delete {
        /// The table.
        table: String,
        /// The key.
        key: Vec<u8>,
    },
    /// Sets or removes a key if its value is the expected one. Otherwise the command is rejected.
    CompareAndSet {
        /// The table.
        table: String,
        /// The key.
        key: Vec<u8>,
        /// The expected value; `None` if the key must not exist.
        expected: Option<Vec<u8>>,
        /// The new value; `None` removes the key.
        new: Option<Vec<u8>>,
    },
    /// Carries out several commands in order, all or none.
    Batch(Vec<KvCommand>),
}

impl KvCommand {
    /// Sets the value of a key.
    pub fn put(table: impl Into<String>, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        KvCommand::Put { table: table.into(), key: key.into(), value: value.into() }
    }

    /// Removes a key, if it exists.
    pub fn delete(table: impl Into<String>, key: impl Into<Vec<u8>>) -> Self {
        KvCommand::Delete { table: table.into(), key: key.into() }
    }

    /// Sets a key to `new` (`None` removes it) if its value is `expected` (`None`: if it does not
    /// exist).
    ///
    /// ```
    /// use seawal::kv::{Kv, KvCommand, KvRejection};
    /// use seawal::machine::StateMachine;
    ///
    /// let mut kv = Kv::default();
    /// let create = KvCommand::compare_and_set("jobs", "7", None::<&str>, Some("running"));
    /// kv.apply(&create).unwrap();
    /// assert_eq!(kv.apply(&create), Err(KvRejection::Mismatch { actual: Some(b"running".to_vec()) }));
    /// ```
    pub fn compare_and_set(
        table: impl Into<String>,
        key: impl Into<Vec<u8>>,
        expected: Option<impl Into<Vec<u8>>>,
        new: Option<impl Into<Vec<u8>>>,
    ) -> Self {
        KvCommand::CompareAndSet {
            table: table.into(),
            key: key.into(),
            expected: expected.map(Into::into),
            new: new.map(Into::into),
        }
    }

    /// Carries out several commands in order, all or none. Batches may be nested up to
    /// [`MAX_BATCH_DEPTH`].
    ///
    /// ```
    /// use seawal::kv::{Kv, KvCommand, KvRejection};
    /// use seawal::machine::StateMachine;
    ///
    /// let mut kv = Kv::default();
    /// let batch = KvCommand::batch([
    ///     KvCommand::put("a", "k", "v"),
    ///     KvCommand::compare_and_set("b", "k", Some("not there"), None::<&str>),
    /// ]);
    /// let Err(KvRejection::InBatch { index: 1, rejection }) = kv.apply(&batch) else { panic!() };
    /// assert_eq!(*rejection, KvRejection::Mismatch { actual: None });
    /// assert!(kv.is_empty());
    /// ```
    pub fn batch(commands: impl IntoIterator<Item = KvCommand>) -> Self {
        KvCommand::Batch(commands.into_iter().collect())
    }

    /// The command that undoes this one, whose reply was `reply`.
    pub(super) fn inverse(&self, reply: &KvReply) -> Self {
        match (self, reply) {
            (KvCommand::Batch(commands), KvReply::Batch(replies)) => {
                let inverses = commands.iter().zip(replies).rev().map(|(command, reply)| command.inverse(reply));
                // the command that does nothing is a batch, and might be nested too deeply here
                KvCommand::Batch(inverses.filter(|inverse| !inverse.is_nothing()).collect())
            }
            (
                KvCommand::Put { table, key, .. }
                | KvCommand::Delete { table, key }
                | KvCommand::CompareAndSet { table, key, .. },
                KvReply::Previous(Some(previous)),
            ) => KvCommand::put(&**table, &**key, &**previous),
            (
                KvCommand::Put { table, key, .. } | KvCommand::CompareAndSet { table, key, new: Some(_), .. },
                KvReply::Previous(None),
            ) => KvCommand::delete(&**table, &**key),
            // the key did not exist before or after; other combinations do not occur
            _ => KvCommand::nothing(),
        }
    }

    /// The command that does nothing.
    pub(super) fn nothing() -> Self {
        KvCommand::Batch(Vec::new())
    }

    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, KvCommand::Batch(commands) if commands.is_empty())
    }
}

/// The reply to a command that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvReply {
    /// The previous value; `None` if the key did not exist.
    Previous(Option<Vec<u8>>),
    /// The replies of a batch, in order.
    Batch(Vec<KvReply>),
}

/// The reason why a command was rejected. It changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvRejection {
    /// The value is not the one that a [`CompareAndSet`](KvCommand::CompareAndSet) expects.
    Mismatch {
        /// The value in the store; `None` if the key does not exist.
        actual: Option<Vec<u8>>,
    },
    /// The table name is longer than [`MAX_TABLE_LEN`] bytes or contains a NUL.
    InvalidTable {
        /// The name.
        table: String,
    },
    /// The key is too long.
    KeyTooLong {
        /// Its length in bytes.
        len: usize,
        /// The longest key of the table, in bytes.
        limit: usize,
    },
    /// The value is too long.
    ValueTooLong {
        /// Its length in bytes.
        len: usize,
        /// [`MAX_VALUE_LEN`].
        limit: usize,
    },
    /// Batches are nested deeper than [`MAX_BATCH_DEPTH`].
    BatchTooDeep,
    /// A command of a batch was rejected, and so the whole batch.
    InBatch {
        /// The index of the command in the batch, from zero.
        index: usize,
        /// The reason.
        rejection: Box<KvRejection>,
    },
}

impl fmt::Display for KvRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |len: usize| Count(len as u64, "byte", "bytes");
        match self {
            KvRejection::Mismatch { actual: Some(actual) } => {
                write!(f, "the value is not the expected one: it has {}", bytes(actual.len()))
            }
            KvRejection::Mismatch { actual: None } => {
                f.write_str("the value is not the expected one: the key does not exist")
            }
            KvRejection::InvalidTable { table } => {
                write!(f, "{table:?} is not a table name: use at most {MAX_TABLE_LEN} bytes and no NUL")
            }
            KvRejection::KeyTooLong { len, limit } => {
                write!(f, "the key has {}; the limit in this table is {limit}", bytes(*len))
            }
            KvRejection::ValueTooLong { len, limit } => {
                write!(f, "the value has {}; the limit is {limit}", bytes(*len))
            }
            KvRejection::BatchTooDeep => write!(f, "batches are nested more than {MAX_BATCH_DEPTH} levels deep"),
            KvRejection::InBatch { index, rejection } => write!(f, "command {index} of the batch: {rejection}"),
        }
    }
}

impl std::error::Error for KvRejection {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            KvRejection::InBatch { rejection, .. } => Some(&**rejection),
            _ => None,
        }
    }
}
