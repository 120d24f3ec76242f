//! The handle of a table: its writes.

use super::handle::TableHandle;
use super::key::Key;
use super::source::WriteSource;
use super::source::sealed::How;
use super::value::Value;
use crate::engine::ExecuteError;
use crate::error::{Error, Result};
use crate::kv::store::previous;
use crate::kv::tree::End;
use crate::kv::{KvCommand, KvRejection, KvReply};
use std::borrow::Borrow;

/// Turns a rejection into an error. A handle asks for the mismatch of a compare-and-set itself.
fn error_of(error: ExecuteError<KvRejection>) -> Error {
    match error {
        ExecuteError::Failed(error) => error,
        ExecuteError::Rejected(KvRejection::InBatch { rejection, .. }) => error_of(ExecuteError::Rejected(*rejection)),
        ExecuteError::Rejected(KvRejection::KeyTooLong { len, limit }) => too_large("a key", len, limit),
        ExecuteError::Rejected(KvRejection::ValueTooLong { len, limit }) => too_large("a value", len, limit),
        ExecuteError::Rejected(rejection) => Error::invalid(rejection.to_string()),
    }
}

fn too_large(what: &'static str, size: usize, limit: usize) -> Error {
    Error::TooLarge { what, size: size as u64, limit: limit as u64 }
}

impl<S: WriteSource, K: Key + ?Sized, V: Value + ?Sized> TableHandle<S, K, V> {
    fn encode_value(&self, value: &V) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match value.encode(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(reason) => Err(Error::invalid(format!(
                "a value of the table {:?} cannot be encoded as {}: {reason}",
                self.name(),
                V::type_name()
            ))),
        }
    }

    fn execute(&self, command: KvCommand) -> Result<KvReply> {
        self.types.write::<S, K, V>(&self.source, self.name(), command).map_err(error_of)
    }

    fn put_bytes(&self, key: Vec<u8>, value: Vec<u8>) -> Result<KvReply> {
        self.execute(KvCommand::Put { table: self.name().to_owned(), key, value })
    }

    fn delete_bytes(&self, key: Vec<u8>) -> Result<KvReply> {
        self.execute(KvCommand::Delete { table: self.name().to_owned(), key })
    }

    /// Sets or removes a key if its value is the expected one. Returns what is there otherwise.
    fn swap_bytes(
        &self,
        key: Vec<u8>,
        expected: Option<Vec<u8>>,
        new: Option<Vec<u8>>,
    ) -> Result<Result<(), Option<Vec<u8>>>> {
        let command = KvCommand::CompareAndSet { table: self.name().to_owned(), key, expected, new };
        match self.types.write::<S, K, V>(&self.source, self.name(), command) {
            Ok(_) => Ok(Ok(())),
            Err(ExecuteError::Rejected(KvRejection::Mismatch { actual })) => Ok(Err(actual)),
            Err(error) => Err(error_of(error)),
        }
    }

    /// Sets the value of a key, and returns its previous value. [`put`](Self::put) is for those who
    /// do not need that.
    ///
    /// # Errors
    /// Those of [all methods](TableHandle#errors); [`Error::TooLarge`] if the key or the value is
    /// too long. If the previous value cannot be decoded, it is [`Error::Undecodable`], but the key
    /// was set.
    pub fn insert(&self, key: &K, value: &V) -> Result<Option<V::Owned>> {
        let reply = self.put_bytes(key.encode().as_ref().to_vec(), self.encode_value(value)?)?;
        previous(reply).map(|bytes| self.decode_value(bytes)).transpose()
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// Those of [all methods](TableHandle#errors); [`Error::TooLarge`] if the key or the value is
    /// too long.
    pub fn put(&self, key: &K, value: &V) -> Result<()> {
        self.put_bytes(key.encode().as_ref().to_vec(), self.encode_value(value)?).map(drop)
    }

    /// Removes a key. Returns whether it existed.
    ///
    /// # Errors
    /// Those of [all methods](TableHandle#errors).
    pub fn remove(&self, key: &K) -> Result<bool> {
        let reply = self.delete_bytes(key.encode().as_ref().to_vec())?;
        Ok(previous(reply).is_some())
    }

    /// Removes a key, and returns its value.
    ///
    /// # Errors
    /// Those of [all methods](TableHandle#errors). If the value cannot be decoded, it is
    /// [`Error::Undecodable`], but the key was removed.
    pub fn take(&self, key: &K) -> Result<Option<V::Owned>> {
        let reply = self.delete_bytes(key.encode().as_ref().to_vec())?;
        previous(reply).map(|bytes| self.decode_value(bytes)).transpose()
    }

    /// Changes the value of a key as one step: `f` gets its value, `None` if the key does not exist,
    /// and returns the new value, `None` to remove the key. Returns the new value.
    ///
    /// On a store, `f` runs again if another commit changed the key meanwhile. In a transaction, the
    /// key is locked exclusively first. If `f` changes nothing, nothing is written.
    ///
    /// # Errors
    /// Those of [all methods](TableHandle#errors); [`Error::TooLarge`] if the key or the value is
    /// too long.
    ///
    /// ```
    /// use seawal::{Store, Table};
    ///
    /// const VISITS: Table<str, u64> = Table::new("visits");
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::open(dir.path())?;
    /// let visits = store.table(VISITS);
    /// assert_eq!(visits.update("home", |count| Some(count.unwrap_or(0) + 1))?, Some(1));
    /// assert_eq!(visits.update("home", |count| Some(count.unwrap_or(0) + 1))?, Some(2));
    /// assert_eq!(visits.update("home", |_| None)?, None);
    /// assert!(!visits.contains("home")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn update(&self, key: &K, mut f: impl FnMut(Option<V::Owned>) -> Option<V::Owned>) -> Result<Option<V::Owned>> {
        let mut before = self.read_key(key, How::EXCLUSIVE, |value| value.map(<[u8]>::to_vec))?;
        let encoded = key.encode();
        loop {
            let new = f(before.clone().map(|bytes| self.decode_value(bytes)).transpose()?);
            let after = new.as_ref().map(|value| self.encode_value(value.borrow())).transpose()?;
            if after == before {
                return Ok(new);
            }
            let key = encoded.as_ref().to_vec();
            if S::MAY_ROLL_BACK {
                // the lock keeps the value as it was read
                match after {
                    Some(value) => self.put_bytes(key, value)?,
                    None => self.delete_bytes(key)?,
                };
                return Ok(new);
            }
            match self.swap_bytes(key, before, after)? {
                Ok(()) => return Ok(new),
                Err(actual) => before = actual,
            }
        }
    }

    /// Sets a key to `new`, or removes it if that is `None`, if its value is `expected` now: `None`
    /// if it must not exist. Otherwise it changes nothing, and returns what is there as an `Err`
    /// within the `Ok`, as [`AtomicU64::compare_exchange`](std::sync::atomic::AtomicU64) does.
    ///
    /// Values are compared by their encodings.
    ///
    /// # Errors
    /// Those of [all methods](TableHandle#errors); [`Error::TooLarge`] if the key or the value is
    /// too long.
    ///
    /// ```
    /// use seawal::{Store, Table};
    ///
    /// const JOBS: Table<u64, str> = Table::new("jobs");
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Store::open(dir.path())?;
    /// let jobs = store.table(JOBS);
    /// assert_eq!(jobs.compare_and_set(&7, None, Some("running"))?, Ok(()));
    /// assert_eq!(jobs.compare_and_set(&7, None, Some("mine"))?, Err(Some("running".into())));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compare_and_set(
        &self,
        key: &K,
        expected: Option<&V>,
        new: Option<&V>,
    ) -> Result<Result<(), Option<V::Owned>>> {
        let [expected, new] = [expected, new].map(|value| value.map(|value| self.encode_value(value)).transpose());
        match self.swap_bytes(key.encode().as_ref().to_vec(), expected?, new?)? {
            Ok(()) => Ok(Ok(())),
            Err(actual) => Ok(Err(actual.map(|bytes| self.decode_value(bytes)).transpose()?)),
        }
    }

    /// Removes the first entry, and returns it.
    ///
    /// In a transaction, it locks the whole table exclusively.
    ///
    /// # Errors
    /// Those of [all methods](TableHandle#errors). If the entry cannot be decoded, it is
    /// [`Error::Undecodable`], but it was removed.
    pub fn pop_first(&self) -> Result<Option<(K::Owned, V::Owned)>> {
        self.pop(End::Front)
    }

    /// Removes the last entry, and returns it.
    ///
    /// # Errors
    /// As [`pop_first`](Self::pop_first).
    pub fn pop_last(&self) -> Result<Option<(K::Owned, V::Owned)>> {
        self.pop(End::Back)
    }

    fn pop(&self, end: End) -> Result<Option<(K::Owned, V::Owned)>> {
        loop {
            let Some((key, value)) = self.entry_at(end, How::EXCLUSIVE)? else { return Ok(None) };
            if S::MAY_ROLL_BACK {
                // the lock keeps the entry where it was read
                self.delete_bytes(key.clone())?;
                return self.decode_entry(&key, value).map(Some);
            }
            // another thread may have removed or changed it
            if self.swap_bytes(key.clone(), Some(value.clone()), None)?.is_ok() {
                return self.decode_entry(&key, value).map(Some);
            }
        }
    }
}
