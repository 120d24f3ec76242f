//! Keys of several parts: tuples, and their leading parts as prefixes.

use super::key::Key;
use super::key_range::KeyPrefix;
use crate::machine::DecodeError;
use std::borrow::Cow;

/// Stands for a zero byte within a part.
const ESCAPED_ZERO: [u8; 2] = [0, 0xff];
/// Ends a part. It is less than [`ESCAPED_ZERO`], so a part that goes on comes later.
const END: [u8; 2] = [0, 0];

/// Appends a part that others follow.
fn push_part<T: Key>(part: &T, out: &mut Vec<u8>) {
    let encoded = part.encode();
    let bytes = encoded.as_ref();
    if T::LEN.is_some() {
        return out.extend_from_slice(bytes);
    }
    for (at, piece) in bytes.split(|&byte| byte == 0).enumerate() {
        if at > 0 {
            out.extend_from_slice(&ESCAPED_ZERO);
        }
        out.extend_from_slice(piece);
    }
    out.extend_from_slice(&END);
}

/// Splits a part off the front.
fn split_part<T: Key>(bytes: &[u8]) -> Result<(T::Owned, &[u8]), DecodeError> {
    let ends_early = || DecodeError::new("it ends within a part");
    if let Some(len) = T::LEN {
        let (part, rest) = bytes.split_at_checked(len).ok_or_else(ends_early)?;
        return Ok((T::decode(part)?, rest));
    }
    let mut part = Vec::new();
    let mut rest = bytes;
    loop {
        let zero = rest.iter().position(|&byte| byte == 0).ok_or_else(ends_early)?;
        let (piece, behind) = rest.split_at(zero);
        part.extend_from_slice(piece);
        match behind.split_first_chunk() {
            Some((&END, behind)) => return Ok((T::decode(&part)?, behind)),
            Some((&ESCAPED_ZERO, behind)) => {
                part.push(0);
                rest = behind;
            }
            _ => return Err(DecodeError::new("a part is not escaped")),
        }
    }
}

/// The length of several parts, if each has a fixed length.
const fn total(parts: &[Option<usize>]) -> Option<usize> {
    let (mut total, mut at) = (0, 0);
    while at < parts.len() {
        let Some(len) = parts[at] else { return None };
        total += len;
        at += 1;
    }
    Some(total)
}

macro_rules! tuple {
    ($($name:ident $at:tt),*; $last:ident $last_at:tt) => {
        impl<$($name: Key<Owned = $name>,)* $last: Key<Owned = $last>> Key for ($($name,)* $last,) {
            type Owned = Self;
            type Encoded<'a> = Vec<u8>;
            const LEN: Option<usize> = total(&[$($name::LEN,)* $last::LEN]);

            fn type_name() -> Cow<'static, str> {
                let names: &[Cow<'static, str>] = &[$($name::type_name(),)* $last::type_name()];
                Cow::Owned(format!("({})", names.join(", ")))
            }

            fn encode(&self) -> Vec<u8> {
                let mut out = Vec::with_capacity(Self::LEN.unwrap_or(48));
                $(push_part(&self.$at, &mut out);)*
                out.extend_from_slice(self.$last_at.encode().as_ref());
                out
            }

            #[allow(non_snake_case, reason = "a part is named after its type")]
            fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                let rest = bytes;
                $(let ($name, rest) = split_part::<$name>(rest)?;)*
                Ok(($($name,)* $last::decode(rest)?,))
            }
        }
    };
}

tuple!(; A 0);
tuple!(A 0; B 1);
tuple!(A 0, B 1; C 2);
tuple!(A 0, B 1, C 2; D 3);
tuple!(A 0, B 1, C 2, D 3; E 4);
tuple!(A 0, B 1, C 2, D 3, E 4; F 5);

/// The leading parts of a tuple are a prefix of its encoding.
macro_rules! prefix {
    ($($name:ident $at:tt),+ => $($rest:ident),+) => {
        impl<$($name: Key<Owned = $name>,)+ $($rest: Key<Owned = $rest>),+> KeyPrefix<($($name,)+ $($rest,)+)>
            for ($($name,)+)
        {
            fn encode_prefix(&self) -> Vec<u8> {
                let mut out = Vec::with_capacity(48);
                $(push_part(&self.$at, &mut out);)+
                out
            }
        }
    };
}

prefix!(A 0 => B);
prefix!(A 0 => B, C);
prefix!(A 0 => B, C, D);
prefix!(A 0 => B, C, D, E);
prefix!(A 0 => B, C, D, E, F);
prefix!(A 0, B 1 => C);
prefix!(A 0, B 1 => C, D);
prefix!(A 0, B 1 => C, D, E);
prefix!(A 0, B 1 => C, D, E, F);
prefix!(A 0, B 1, C 2 => D);
prefix!(A 0, B 1, C 2 => D, E);
prefix!(A 0, B 1, C 2 => D, E, F);
prefix!(A 0, B 1, C 2, D 3 => E);
prefix!(A 0, B 1, C 2, D 3 => E, F);
prefix!(A 0, B 1, C 2, D 3, E 4 => F);
