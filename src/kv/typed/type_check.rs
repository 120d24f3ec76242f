//! What a handle knows about the record of its table's types.

use super::key::Key;
use super::source::sealed::{Read, Write};
use super::types::{self, Found};
use super::value::Value;
use crate::engine::{ExecuteError, ExecuteResult};
use crate::error::{Error, Result};
use crate::io::sync::{AtomicBool, OnceLock, Ordering};
use crate::kv::command::MAX_TABLE_LEN;
use crate::kv::keys::{TYPES_TABLE, is_reserved, is_table};
use crate::kv::{Kv, KvCommand, KvRejection, KvReply};

/// The state of a check, which ends as soon as a record is found.
#[derive(Debug, Default)]
pub(super) struct TypeCheck {
    /// Whether a committed record has these types. It is never changed, so this holds for good.
    is_known: AtomicBool,
    /// Why the handle is refused.
    refused: OnceLock<Error>,
}

impl Clone for TypeCheck {
    fn clone(&self) -> Self {
        TypeCheck { is_known: AtomicBool::new(self.is_known()), refused: self.refused.clone() }
    }
}

impl TypeCheck {
    /// Looks the types of a table up, once.
    pub(super) fn begin<S: Read, K: Key + ?Sized, V: Value + ?Sized>(source: &S, table: &str) -> Self {
        let check = TypeCheck::default();
        if !is_table(table) || is_reserved(table) {
            let reason = format!(
                "{table:?} is not a name for a table: use at most {MAX_TABLE_LEN} bytes without NUL, and do not begin \
                 with U+0001"
            );
            let _ = check.refused.set(Error::invalid(reason));
        } else {
            // an operation looks again if this fails
            let _ = check.look::<S, K, V>(source, table);
        }
        check
    }

    #[inline]
    fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    /// Why the handle is refused.
    #[inline]
    fn refusal(&self) -> Result<()> {
        match self.refused.get() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Reads, and then makes sure that what was read had these types.
    ///
    /// A record comes with the first row. So as long as there was none before the read, one may have
    /// come with the rows that were read.
    #[inline]
    pub(super) fn read<S: Read, K: Key + ?Sized, V: Value + ?Sized, T>(
        &self,
        source: &S,
        table: &str,
        read: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        if self.is_known() {
            return read();
        }
        self.refusal()?;
        let value = read()?;
        self.look::<S, K, V>(source, table)?;
        Ok(value)
    }

    /// Looks a record up, waiting for no transaction.
    ///
    /// # Errors
    /// [`Error::OtherTypes`]. It also counts if the record may still be rolled back, but then a
    /// later operation looks again.
    fn look<S: Read, K: Key + ?Sized, V: Value + ?Sized>(&self, source: &S, table: &str) -> Result<()> {
        let looked = Kv::with_lock_key(TYPES_TABLE, table.as_bytes(), |composite| {
            source.peek(composite, |kv, is_committed| (Found::at::<K, V>(kv, composite), is_committed))
        });
        let Some((found, is_committed)) = looked.transpose()? else { return Ok(()) };
        let compared = match found {
            Found::Nothing => return Ok(()),
            Found::Same => Ok(()),
            Found::Unknown(record) => types::compare::<K, V>(table, record),
        };
        if is_committed {
            self.settle(&compared);
        }
        compared
    }

    fn settle(&self, compared: &Result<()>) {
        match compared {
            Ok(()) => self.is_known.store(true, Ordering::Relaxed),
            Err(error) => _ = self.refused.set(error.clone()),
        }
    }

    /// Executes a command that may write the first row of the table. A record is written with it if
    /// there is none.
    #[inline]
    pub(super) fn write<S: Write, K: Key + ?Sized, V: Value + ?Sized>(
        &self,
        source: &S,
        table: &str,
        command: KvCommand,
    ) -> ExecuteResult<Kv, KvReply> {
        if self.is_known() {
            return source.execute(command);
        }
        self.refusal()?;
        self.write_first::<S, K, V>(source, table, command)
    }

    #[cold]
    fn write_first<S: Write, K: Key + ?Sized, V: Value + ?Sized>(
        &self,
        source: &S,
        table: &str,
        command: KvCommand,
    ) -> ExecuteResult<Kv, KvReply> {
        let found = || -> Result<Found> {
            Kv::with_lock_key(TYPES_TABLE, table.as_bytes(), |composite| {
                source.lock_types(composite, |kv| Found::at::<K, V>(kv, composite))
            })
            .unwrap_or(Ok(Found::Nothing))
        };
        loop {
            match found()? {
                Found::Nothing => {}
                Found::Same => {
                    if !S::MAY_ROLL_BACK {
                        self.settle(&Ok(()));
                    }
                    return source.execute(command);
                }
                Found::Unknown(record) => {
                    types::compare::<K, V>(table, record)?;
                    continue;
                }
            }
            let record = types::new_record::<K, V>();
            let first = KvCommand::CompareAndSet {
                table: TYPES_TABLE.to_owned(),
                key: table.as_bytes().to_vec(),
                expected: None,
                new: Some(record),
            };
            match source.execute(KvCommand::Batch(vec![first, command.clone()])) {
                Ok(KvReply::Batch(replies)) => {
                    if !S::MAY_ROLL_BACK {
                        self.settle(&Ok(()));
                    }
                    return Ok(replies.into_iter().next_back().unwrap_or(KvReply::Previous(None)));
                }
                Ok(reply) => return Ok(reply),
                // another thread was faster
                Err(ExecuteError::Rejected(KvRejection::InBatch { index: 0, .. })) => {}
                Err(ExecuteError::Rejected(KvRejection::InBatch { rejection, .. })) => {
                    return Err(ExecuteError::Rejected(*rejection));
                }
                Err(error) => return Err(error),
            }
        }
    }
}
