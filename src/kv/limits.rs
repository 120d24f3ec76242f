//! The checks that reject a command: limits of table names, keys and values, and the expected
//! value.

use super::command::{KvRejection, MAX_KEY_LEN, MAX_VALUE_LEN};
use super::keys::is_table;

/// Rejects an invalid table name and a key that is too long.
pub(super) fn check_key(table: &str, key: &[u8]) -> Result<(), KvRejection> {
    if !is_table(table) {
        return Err(KvRejection::InvalidTable { table: table.to_owned() });
    }
    let limit = MAX_KEY_LEN - table.len();
    if key.len() > limit { Err(KvRejection::KeyTooLong { len: key.len(), limit }) } else { Ok(()) }
}

/// Rejects a value that is too long.
pub(super) fn check_value(value: &[u8]) -> Result<(), KvRejection> {
    let (len, limit) = (value.len(), MAX_VALUE_LEN);
    if len > limit { Err(KvRejection::ValueTooLong { len, limit }) } else { Ok(()) }
}

/// Checks the value that a compare-and-set found.
pub(super) fn check_expected(actual: Option<&[u8]>, expected: Option<&[u8]>) -> Result<(), KvRejection> {
    if actual == expected { Ok(()) } else { Err(KvRejection::Mismatch { actual: actual.map(<[u8]>::to_vec) }) }
}
