//! The names of types that derive serde's traits.
//!
//! A type is asked to deserialize itself, and the first request that it makes says what it is. This
//! name is for messages, and for types whose shape cannot be found.

use serde::de::{DeserializeOwned, Deserializer, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::panic::catch_unwind;

/// The name of a type.
pub(super) fn name_of<T: DeserializeOwned>() -> Cow<'static, str> {
    // a type's own code may panic
    match catch_unwind(|| T::deserialize(Probe)) {
        Ok(Err(Name(name))) => name,
        _ => Cow::Borrowed("a type without a name"),
    }
}

/// Answers each request with an error that carries the name.
struct Probe;

#[derive(Debug)]
struct Name(Cow<'static, str>);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Name {}

impl serde::de::Error for Name {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Name(Cow::Owned(message.to_string()))
    }
}

macro_rules! named {
    ($($method:ident $name:literal),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Name> {
            Err(Name(Cow::Borrowed($name)))
        })*
    };
}

impl<'de> Deserializer<'de> for Probe {
    type Error = Name;

    named! {
        deserialize_bool "bool",
        deserialize_i8 "i8",
        deserialize_i16 "i16",
        deserialize_i32 "i32",
        deserialize_i64 "i64",
        deserialize_i128 "i128",
        deserialize_u8 "u8",
        deserialize_u16 "u16",
        deserialize_u32 "u32",
        deserialize_u64 "u64",
        deserialize_u128 "u128",
        deserialize_f32 "f32",
        deserialize_f64 "f64",
        deserialize_char "char",
        deserialize_str "String",
        deserialize_string "String",
        deserialize_bytes "bytes",
        deserialize_byte_buf "bytes",
        deserialize_unit "()",
        deserialize_seq "a sequence",
        deserialize_map "a map",
        deserialize_any "any type",
        deserialize_identifier "an identifier",
        deserialize_ignored_any "any type",
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Name> {
        match visitor.visit_some(Probe) {
            Err(Name(name)) => Err(Name(Cow::Owned(format!("Option<{name}>")))),
            value => value,
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, _: V) -> Result<V::Value, Name> {
        Err(Name(Cow::Owned(format!("{len} values"))))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, _: V) -> Result<V::Value, Name> {
        Err(Name(Cow::Borrowed(name)))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, _: V) -> Result<V::Value, Name> {
        Err(Name(Cow::Borrowed(name)))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, name: &'static str, _: usize, _: V) -> Result<V::Value, Name> {
        Err(Name(Cow::Borrowed(name)))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Name> {
        Err(Name(Cow::Borrowed(name)))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Name> {
        Err(Name(Cow::Borrowed(name)))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only the name counts")]
    struct User {
        name: String,
    }

    #[test]
    fn types_have_the_names_that_serde_gives_them() {
        assert_eq!(name_of::<User>(), "User");
        assert_eq!(name_of::<Box<Option<User>>>(), "Option<User>");
        assert_eq!(name_of::<(u8, User)>(), "2 values");
        assert_eq!(name_of::<BTreeMap<u8, User>>(), "a map");
        assert_eq!([name_of::<u64>(), name_of::<String>(), name_of::<Vec<u8>>()], ["u64", "String", "a sequence"]);
    }

    #[test]
    fn a_type_that_panics_has_no_name() {
        struct Panics;
        impl<'de> Deserialize<'de> for Panics {
            fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                panic!("as asked")
            }
        }
        assert_eq!(name_of::<Panics>(), "a type without a name");
    }
}
