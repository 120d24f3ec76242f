//! Types of values, and their encodings.

use crate::machine::DecodeError;
use std::borrow::{Borrow, Cow};

/// A type of values of a [`Table`](super::Table).
///
/// These implement it:
///
/// - `[u8]`, which is stored as it is;
/// - `str`, which is stored as UTF-8;
/// - with the feature `serde`, every type that implements `Serialize` and `DeserializeOwned`. Its
///   encoding is that of [postcard](https://postcard.jamesmunns.com/wire-format). What
///   `SerdeMachine` says of the attributes that it cannot read back holds here too. The store
///   keeps a checksum of the shape of the type with each table. So a type whose fields have
///   changed is refused. An enum may get new variants at its end.
///
/// # Types of your own
///
/// ```
/// use seawal::kv::Value;
/// use seawal::machine::DecodeError;
/// use seawal::{Store, Table};
/// use std::borrow::Cow;
///
/// #[derive(Debug, PartialEq)]
/// struct Color([u8; 3]);
///
/// impl Value for Color {
///     type Owned = Color;
///
///     fn type_name() -> Cow<'static, str> {
///         "Color".into()
///     }
///     fn encode(&self, out: &mut Vec<u8>) -> Result<(), Cow<'static, str>> {
///         out.extend(self.0);
///         Ok(())
///     }
///     fn decode(bytes: &[u8]) -> Result<Color, DecodeError> {
///         bytes.try_into().map(Color).map_err(|_| DecodeError::new("it has not three bytes"))
///     }
/// }
///
/// const FRUIT: Table<str, Color> = Table::new("fruit");
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::open(dir.path())?;
/// store.table(FRUIT).put("plum", &Color([90, 0, 140]))?;
/// assert_eq!(store.table(FRUIT).get("plum")?, Some(Color([90, 0, 140])));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Value: 'static {
    /// What reads return: the type itself, or its owned form, such as `String` for `str`.
    type Owned: Borrow<Self>;

    /// Returns the name of the type, which the store keeps for each table.
    ///
    /// It must never change while stores use it, so do not use [`std::any::type_name`].
    fn type_name() -> Cow<'static, str>;

    /// Appends the encoding of a value. Equal values must have equal encodings, because
    /// [`compare_and_set`](super::TableHandle::compare_and_set) compares these.
    ///
    /// # Errors
    /// The reason why the value cannot be encoded. The write then fails with
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument).
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Cow<'static, str>>;

    /// Decodes a value.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not an encoding of a value. It must not panic, whatever the
    /// bytes are.
    fn decode(bytes: &[u8]) -> Result<Self::Owned, DecodeError>;

    /// Decodes a value from bytes that are not needed any more.
    ///
    /// Default: [`decode`](Self::decode).
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    fn decode_vec(bytes: Vec<u8>) -> Result<Self::Owned, DecodeError> {
        Self::decode(&bytes)
    }

    /// Returns a checksum of what the encoding consists of, at most 1,024 bytes. A table that was
    /// written with another one is refused. `known` is what the store has, or empty. A type may
    /// use it to describe only what was there before.
    ///
    /// Default: empty, which is compared with nothing. Then the names of the types are compared.
    fn shape(known: &[u8]) -> Vec<u8> {
        let _ = known;
        Vec::new()
    }
}

impl Value for [u8] {
    type Owned = Vec<u8>;

    fn type_name() -> Cow<'static, str> {
        Cow::Borrowed("[u8]")
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Cow<'static, str>> {
        out.extend_from_slice(self);
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
        Ok(bytes.to_vec())
    }

    fn decode_vec(bytes: Vec<u8>) -> Result<Vec<u8>, DecodeError> {
        Ok(bytes)
    }
}

impl Value for str {
    type Owned = String;

    fn type_name() -> Cow<'static, str> {
        Cow::Borrowed("str")
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Cow<'static, str>> {
        out.extend_from_slice(self.as_bytes());
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<String, DecodeError> {
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| DecodeError::new("it is not UTF-8"))
    }

    fn decode_vec(bytes: Vec<u8>) -> Result<String, DecodeError> {
        String::from_utf8(bytes).map_err(|_| DecodeError::new("it is not UTF-8"))
    }
}
