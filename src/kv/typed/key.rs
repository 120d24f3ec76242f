//! Types of keys, and their encodings, which keep the order of the values.

use crate::machine::DecodeError;
use std::borrow::Cow;

/// A type of keys of a [`Table`](super::Table).
///
/// The encodings are compared as bytes, so they have the order of the keys:
///
/// | type | encoding |
/// | --- | --- |
/// | `u8` to `u128`, `usize` | big-endian; `usize` as `u64` |
/// | `i8` to `i128`, `isize` | big-endian with the sign bit flipped; `isize` as `i64` |
/// | `bool` | one byte, 0 or 1 |
/// | `char` | the scalar value as a `u32` |
/// | `str`, `String` | UTF-8 |
/// | `[u8]`, `Vec<u8>`, `[u8; N]` | the bytes |
/// | `Option<T>` | 0, or 1 and the encoding of the value: `None` comes first |
/// | tuples of up to six parts | the encodings one after the other |
/// | `()` | nothing: for a table with one row |
///
/// In a tuple, a part of variable length before the last one is escaped and terminated: each zero
/// byte becomes `00 ff`, and `00 00` follows the part. So the order is that of the parts, one after
/// the other.
///
/// # Types of your own
///
/// Delegate to a key of this list:
///
/// ```
/// use seawal::kv::Key;
/// use seawal::machine::DecodeError;
/// use seawal::{Store, Table};
/// use std::borrow::Cow;
///
/// #[derive(Debug, PartialEq)]
/// struct UserId(u64);
///
/// impl Key for UserId {
///     type Owned = UserId;
///     type Encoded<'a> = [u8; 8];
///     const LEN: Option<usize> = u64::LEN;
///
///     fn type_name() -> Cow<'static, str> {
///         "UserId".into()
///     }
///     fn encode(&self) -> [u8; 8] {
///         Key::encode(&self.0)
///     }
///     fn decode(bytes: &[u8]) -> Result<UserId, DecodeError> {
///         u64::decode(bytes).map(UserId)
///     }
/// }
///
/// const EMAILS: Table<UserId, str> = Table::new("emails");
/// # let dir = tempfile::tempdir()?;
/// # let store = Store::open(dir.path())?;
/// store.table(EMAILS).insert(&UserId(7), "ann@example.org")?;
/// let (id, email) = store.table(EMAILS).first()?.unwrap();
/// assert_eq!((id, &*email), (UserId(7), "ann@example.org"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Key: 'static {
    /// What reads return: the type itself, or its owned form, such as `String` for `str`.
    type Owned;
    /// The encoding of a key, such as `[u8; 8]`, `&[u8]` or `Vec<u8>`.
    type Encoded<'a>: AsRef<[u8]>
    where
        Self: 'a;
    /// The length of every encoding, in bytes.
    ///
    /// Default: `None`, which says that they differ in length, or may do so. Such a part of a tuple
    /// takes at least two more bytes.
    const LEN: Option<usize> = None;

    /// Returns the name of the type, which the store keeps for each table. Types with the same
    /// encoding and order may share a name, as `str` and `String` do.
    ///
    /// It must never change while stores use it, so do not use [`std::any::type_name`].
    fn type_name() -> Cow<'static, str>;

    /// Encodes a key. Encodings, compared as bytes, have the order of the keys. Two keys have the
    /// same encoding only if they are equal.
    fn encode(&self) -> Self::Encoded<'_>;

    /// Decodes a key.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not an encoding of a key. It must not panic, whatever the
    /// bytes are.
    fn decode(bytes: &[u8]) -> Result<Self::Owned, DecodeError>;
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], DecodeError> {
    bytes.try_into().map_err(|_| DecodeError::new(format!("it has {} bytes instead of {N}", bytes.len())))
}

macro_rules! integers {
    ($($ty:ident),*) => {$(
        impl Key for $ty {
            type Owned = $ty;
            type Encoded<'a> = [u8; size_of::<$ty>()];
            const LEN: Option<usize> = Some(size_of::<$ty>());

            fn type_name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($ty))
            }

            #[inline]
            fn encode(&self) -> Self::Encoded<'_> {
                // the least number is a sign bit, or zero if there is no sign
                (*self ^ $ty::MIN).to_be_bytes()
            }

            #[inline]
            fn decode(bytes: &[u8]) -> Result<$ty, DecodeError> {
                array(bytes).map(|bytes| $ty::from_be_bytes(bytes) ^ $ty::MIN)
            }
        }
    )*};
}

integers!(u8, u16, u32, u64, u128, i8, i16, i32, i64, i128);

macro_rules! of_the_processor {
    ($($ty:ident as $wide:ident),*) => {$(
        impl Key for $ty {
            type Owned = $ty;
            type Encoded<'a> = [u8; 8];
            const LEN: Option<usize> = Some(8);

            fn type_name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($wide))
            }

            fn encode(&self) -> [u8; 8] {
                // no processor has larger ones
                Key::encode(&(*self as $wide)).to_owned()
            }

            fn decode(bytes: &[u8]) -> Result<$ty, DecodeError> {
                $wide::decode(bytes)?.try_into().map_err(|_| DecodeError::new("it is too large for this processor"))
            }
        }
    )*};
}

of_the_processor!(usize as u64, isize as i64);

impl Key for bool {
    type Owned = bool;
    type Encoded<'a> = [u8; 1];
    const LEN: Option<usize> = Some(1);

    fn type_name() -> Cow<'static, str> {
        Cow::Borrowed("bool")
    }

    fn encode(&self) -> [u8; 1] {
        [u8::from(*self)]
    }

    fn decode(bytes: &[u8]) -> Result<bool, DecodeError> {
        match array(bytes)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(DecodeError::new("it is neither 0 nor 1")),
        }
    }
}

impl Key for char {
    type Owned = char;
    type Encoded<'a> = [u8; 4];
    const LEN: Option<usize> = Some(4);

    fn type_name() -> Cow<'static, str> {
        Cow::Borrowed("char")
    }

    fn encode(&self) -> [u8; 4] {
        u32::from(*self).to_be_bytes()
    }

    fn decode(bytes: &[u8]) -> Result<char, DecodeError> {
        char::from_u32(u32::decode(bytes)?).ok_or_else(|| DecodeError::new("it is not a character"))
    }
}

impl Key for () {
    type Owned = ();
    type Encoded<'a> = [u8; 0];
    const LEN: Option<usize> = Some(0);

    fn type_name() -> Cow<'static, str> {
        Cow::Borrowed("()")
    }

    fn encode(&self) -> [u8; 0] {
        []
    }

    fn decode(bytes: &[u8]) -> Result<(), DecodeError> {
        array::<0>(bytes).map(|[]| ())
    }
}

macro_rules! text {
    ($($ty:ty),*) => {$(
        impl Key for $ty {
            type Owned = String;
            type Encoded<'a> = &'a [u8];

            fn type_name() -> Cow<'static, str> {
                Cow::Borrowed("str")
            }

            fn encode(&self) -> &[u8] {
                self.as_bytes()
            }

            fn decode(bytes: &[u8]) -> Result<String, DecodeError> {
                match std::str::from_utf8(bytes) {
                    Ok(text) => Ok(text.to_owned()),
                    Err(_) => Err(DecodeError::new("it is not UTF-8")),
                }
            }
        }
    )*};
}

text!(str, String);

macro_rules! bytes {
    ($($ty:ty),*) => {$(
        impl Key for $ty {
            type Owned = Vec<u8>;
            type Encoded<'a> = &'a [u8];

            fn type_name() -> Cow<'static, str> {
                Cow::Borrowed("[u8]")
            }

            fn encode(&self) -> &[u8] {
                self
            }

            fn decode(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
                Ok(bytes.to_vec())
            }
        }
    )*};
}

bytes!([u8], Vec<u8>);

impl<const N: usize> Key for [u8; N] {
    type Owned = [u8; N];
    type Encoded<'a> = [u8; N];
    const LEN: Option<usize> = Some(N);

    fn type_name() -> Cow<'static, str> {
        Cow::Owned(format!("[u8; {N}]"))
    }

    fn encode(&self) -> [u8; N] {
        *self
    }

    fn decode(bytes: &[u8]) -> Result<[u8; N], DecodeError> {
        array(bytes)
    }
}

impl<T: Key<Owned = T>> Key for Option<T> {
    type Owned = Option<T>;
    type Encoded<'a> = Vec<u8>;

    fn type_name() -> Cow<'static, str> {
        Cow::Owned(format!("Option<{}>", T::type_name()))
    }

    fn encode(&self) -> Vec<u8> {
        match self {
            None => vec![0],
            Some(key) => [&[1], key.encode().as_ref()].concat(),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Option<T>, DecodeError> {
        match bytes {
            [0] => Ok(None),
            [1, rest @ ..] => T::decode(rest).map(Some),
            _ => Err(DecodeError::new("it is neither `None` nor `Some`")),
        }
    }
}
