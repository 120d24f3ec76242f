//! Values that derive serde's traits. Their encoding is that of postcard.

use super::serde_name::name_of;
use super::value::Value;
use crate::machine::{DecodeError, decode_value, encode_value, shape_of_value};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;

impl<T: Serialize + DeserializeOwned + 'static> Value for T {
    type Owned = T;

    fn type_name() -> Cow<'static, str> {
        name_of::<T>()
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Cow<'static, str>> {
        encode_value(self, out).map_err(Cow::Owned)
    }

    fn decode(bytes: &[u8]) -> Result<T, DecodeError> {
        decode_value(bytes)
    }

    fn shape(known: &[u8]) -> Vec<u8> {
        shape_of_value::<T>(known)
    }
}
