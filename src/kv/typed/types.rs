//! The record of a table's types.
//!
//! ```text
//! bytes  = length (varint), then that many bytes
//! record = 0x01 key:bytes value:bytes shape:bytes
//! ```
//!
//! `key` and `value` are the names of the types. The records lie in a table of their own, under the
//! names of their tables. The first write to a table writes its record in the same command, and it
//! is never changed: what a handle has found once holds as long as the store.

use super::key::Key;
use super::value::Value;
use crate::error::{Error, Result};
use crate::io::sync::thread_local;
use crate::kv::Kv;
use crate::kv::codec::{ends_early, split_varint};
use crate::machine::DecodeError;
use crate::varint::put_varint;
use std::any::TypeId;
use std::cell::RefCell;
use std::collections::HashMap;

/// The first byte of a record.
const FORMAT: u8 = 1;

/// The types of a table, as they are recorded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TypeRecord {
    pub(super) key: String,
    pub(super) value: String,
    shape: Vec<u8>,
}

impl TypeRecord {
    /// The record of these types. The shape covers what `known` covers.
    fn of<K: Key + ?Sized, V: Value + ?Sized>(known: &[u8]) -> Self {
        TypeRecord { key: K::type_name().into(), value: V::type_name().into(), shape: V::shape(known) }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        for part in [self.key.as_bytes(), self.value.as_bytes(), &self.shape] {
            put_varint(part.len() as u64, &mut out);
            out.extend_from_slice(part);
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let Some((&FORMAT, mut rest)) = bytes.split_first() else {
            return Err(DecodeError::new("a newer program wrote it"));
        };
        let mut part = || -> Result<Vec<u8>, DecodeError> {
            let (len, behind) = split_varint(rest)?.ok_or_else(ends_early)?;
            let len = usize::try_from(len).map_err(|_| ends_early())?;
            let (part, behind) = behind.split_at_checked(len).ok_or_else(ends_early)?;
            rest = behind;
            Ok(part.to_vec())
        };
        let (key, value, shape) = (part()?, part()?, part()?);
        let text = |bytes| String::from_utf8(bytes).map_err(|_| DecodeError::new("a name is not UTF-8"));
        if rest.is_empty() {
            Ok(TypeRecord { key: text(key)?, value: text(value)?, shape })
        } else {
            Err(DecodeError::new("bytes follow the record"))
        }
    }

    /// Whether a table with these types can be used as one with the `other` types.
    fn fits(&self, other: &TypeRecord) -> bool {
        let values = match (&self.shape[..], &other.shape[..]) {
            // a type may get another name, as long as its encoding is the same
            ([], []) => self.value == other.value,
            (own, other) => own == other,
        };
        self.key == other.key && values
    }

    fn describe(&self) -> String {
        format!("Table<{}, {}>", self.key, self.value)
    }
}

thread_local! {
    /// The last record that was found to fit, for each pair of types. Comparing a record is slow: a
    /// shape takes thousands of steps.
    static FITTING: RefCell<HashMap<(TypeId, TypeId), Vec<u8>>> = RefCell::new(HashMap::new());
}

fn types<K: Key + ?Sized, V: Value + ?Sized>() -> (TypeId, TypeId) {
    (TypeId::of::<K>(), TypeId::of::<V>())
}

/// What a state says about the types of a table.
pub(super) enum Found {
    /// The table was never written through a handle.
    Nothing,
    /// It has these types.
    Same,
    /// It has this record, which must be compared. That runs the types' own code, so it happens
    /// without locks.
    Unknown(Vec<u8>),
}

impl Found {
    /// Compares the record at a composite key.
    pub(super) fn at<K: Key + ?Sized, V: Value + ?Sized>(kv: &Kv, composite: &[u8]) -> Found {
        let Some(record) = kv.at_lock_key(composite) else { return Found::Nothing };
        let is_known = FITTING.with(|fitting| {
            fitting
                .try_borrow()
                .is_ok_and(|fitting| fitting.get(&types::<K, V>()).is_some_and(|known| *known == record))
        });
        if is_known { Found::Same } else { Found::Unknown(record.to_vec()) }
    }
}

/// The record of these types, for a table that has none.
pub(super) fn new_record<K: Key + ?Sized, V: Value + ?Sized>() -> Vec<u8> {
    TypeRecord::of::<K, V>(&[]).encode()
}

/// Compares a record with the types of a handle.
///
/// # Errors
/// [`Error::OtherTypes`]; [`Error::Undecodable`] if it is not a record.
pub(super) fn compare<K: Key + ?Sized, V: Value + ?Sized>(table: &str, record: Vec<u8>) -> Result<()> {
    let recorded =
        TypeRecord::decode(&record).map_err(|error| Error::undecodable(table, "record of the types", "", &error))?;
    let own = TypeRecord::of::<K, V>(&recorded.shape);
    if !recorded.fits(&own) {
        let (recorded, requested) = (recorded.describe(), own.describe());
        return Err(Error::OtherTypes { table: table.to_owned(), recorded, requested });
    }
    FITTING.with(|fitting| {
        if let Ok(mut fitting) = fitting.try_borrow_mut() {
            fitting.insert(types::<K, V>(), record);
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_has_the_documented_bytes() {
        let record = TypeRecord { key: "u64".into(), value: "str".into(), shape: vec![7, 8] };
        assert_eq!(record.encode(), b"\x01\x03u64\x03str\x02\x07\x08");
        assert_eq!(new_record::<str, [u8]>(), b"\x01\x03str\x04[u8]\x00");
        let error = TypeRecord::decode(b"\x02\x03u64").unwrap_err();
        assert_eq!(error.to_string(), "a newer program wrote it");
    }

    proptest! {
        #[test]
        fn a_record_survives_its_encoding_and_damage_is_refused(
            key in ".{0,9}", value in ".{0,9}", shape in any::<Vec<u8>>(), cut in any::<prop::sample::Index>(),
            noise in prop::collection::vec(any::<u8>(), 0..30),
        ) {
            let record = TypeRecord { key, value, shape };
            let mut bytes = record.encode();
            prop_assert!(TypeRecord::decode(&bytes[..cut.index(bytes.len())]).is_err());
            prop_assert_eq!(TypeRecord::decode(&bytes).unwrap(), record);
            bytes.push(0);
            prop_assert!(TypeRecord::decode(&bytes).is_err());
            let _ = TypeRecord::decode(&noise);
        }
    }
}
