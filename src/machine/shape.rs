//! The shape of types that derive serde's traits: which values they consist of, in which order.
//!
//! Postcard writes neither types nor names, so bytes of one type can pass for another one. The
//! shape tells them apart. It is found by deserializing made-up values again and again, with
//! another variant each time, until every part of the type has been visited. The crate
//! `serde-reflection` finds formats in this way; a checksum needs less.
//!
//! An enum may get new variants at its end. So a shape says how many variants of each enum it
//! covers, and the shape of a newer type is found for as many.

use serde::de::value::U32Deserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The most passes over a type. One pass covers one variant, or one of the two cases of an option,
/// a sequence or a map.
const MAX_PASSES: usize = 4096;
/// The most values that one pass visits.
const MAX_VALUES: usize = 1 << 16;
/// The deepest nesting that is visited.
const MAX_DEPTH: usize = 64;
/// How many times a named type is visited within itself.
const MAX_RECURSION: usize = 2;

/// The checksum of a shape, and the number of variants of each enum in the order of the visits.
///
/// Empty if the type cannot be visited: it rejects made-up values, or is too large. Enums have no
/// more variants than in `known`, which is empty or an earlier result.
pub(super) fn shape_of<A: DeserializeOwned, B: DeserializeOwned>(known: &[u8]) -> Vec<u8> {
    let known = known.get(4..).unwrap_or_default();
    let known = known.chunks_exact(2).map(|count| u16::from_le_bytes([count[0], count[1]]));
    let mut tracer = Tracer { known: known.collect(), ..Tracer::default() };
    // a machine's own code may panic on a made-up value
    let traced = catch_unwind(AssertUnwindSafe(|| tracer.trace::<A>(0) && tracer.trace::<B>(1)));
    if traced.is_ok_and(|complete| complete) { tracer.finish() } else { Vec::new() }
}

/// As [`shape_of`], of a single type.
pub(crate) fn shape_of_value<T: DeserializeOwned>(known: &[u8]) -> Vec<u8> {
    shape_of::<T, ()>(known)
}

/// Where in a type a value lies: the positions of the values around it, and its own.
type Place = Vec<u32>;

/// A value that has several forms.
#[derive(Default)]
struct Choice {
    /// Which forms have been visited, and which of them could be deserialized.
    visited: Vec<bool>,
    possible: Vec<bool>,
}

#[derive(Default)]
struct Tracer {
    /// The number of variants to visit of each enum.
    known: Vec<u16>,
    /// The place of each enum, and its number of variants.
    enums: HashMap<Place, u16>,
    counts: Vec<u16>,
    choices: HashMap<Place, Choice>,
    /// The choices of this pass, and whether each of them is new.
    chosen: Vec<(Place, usize, bool)>,
    /// What lies where.
    values: BTreeMap<Place, String>,
    place: Place,
    names: Vec<&'static str>,
    visits: usize,
}

impl Tracer {
    /// Visits a whole type. Returns `false` if it cannot.
    fn trace<T: DeserializeOwned>(&mut self, position: u32) -> bool {
        for _ in 0..MAX_PASSES {
            self.place = vec![position];
            self.names.clear();
            self.chosen.clear();
            self.visits = 0;
            let done = T::deserialize(Probe(self)).is_ok();
            for (place, form, _) in self.chosen.iter().filter(|_| done) {
                if let Some(possible) = self.choices.get_mut(place).and_then(|choice| choice.possible.get_mut(*form)) {
                    *possible = true;
                }
            }
            // a form is through once everything behind it is: the last choice goes first
            let Some((place, form, _)) = self.chosen.iter().rev().find(|(_, _, is_new)| *is_new) else { return done };
            if let Some(visited) = self.choices.get_mut(place).and_then(|choice| choice.visited.get_mut(*form)) {
                *visited = true;
            }
        }
        false
    }

    fn finish(&self) -> Vec<u8> {
        let mut checksum = crc32fast::Hasher::new();
        for (place, value) in &self.values {
            place.iter().for_each(|position| checksum.update(&position.to_le_bytes()));
            checksum.update(&u32::MAX.to_le_bytes());
            checksum.update(value.as_bytes());
            checksum.update(&[0]);
        }
        let mut shape = checksum.finalize().to_le_bytes().to_vec();
        self.counts.iter().for_each(|count| shape.extend_from_slice(&count.to_le_bytes()));
        shape
    }

    fn note(&mut self, value: impl Into<String>) -> Result<(), Rejected> {
        self.visits = self.visits.saturating_add(1);
        self.values.entry(self.place.clone()).or_insert_with(|| value.into());
        if self.visits > MAX_VALUES { Err(Rejected) } else { Ok(()) }
    }

    /// The form to visit of a value that has several.
    fn choose(&mut self, forms: usize) -> Result<usize, Rejected> {
        let choice = self
            .choices
            .entry(self.place.clone())
            .or_insert_with(|| Choice { visited: vec![false; forms], possible: vec![false; forms] });
        let new = choice.visited.iter().position(|visited| !visited);
        let form = new.or_else(|| choice.possible.iter().position(|possible| *possible)).ok_or(Rejected)?;
        self.chosen.push((self.place.clone(), form, new.is_some()));
        Ok(form)
    }

    /// How many variants of an enum are visited. A type that has fewer than the shape knows has
    /// another shape.
    fn variants(&mut self, present: usize) -> usize {
        let present = u16::try_from(present).unwrap_or(u16::MAX);
        let count = match self.enums.get(&self.place) {
            Some(count) => *count,
            None => {
                let count = self.known.get(self.counts.len()).map_or(present, |known| present.min(*known));
                self.counts.push(count);
                self.enums.insert(self.place.clone(), count);
                count
            }
        };
        usize::from(count)
    }

    /// Visits something within the present place.
    fn within<T>(
        &mut self,
        position: usize,
        visit: impl FnOnce(Probe<'_>) -> Result<T, Rejected>,
    ) -> Result<T, Rejected> {
        if self.place.len() >= MAX_DEPTH {
            return Err(Rejected);
        }
        self.place.push(u32::try_from(position).unwrap_or(u32::MAX));
        let result = visit(Probe(self));
        self.place.pop();
        result
    }

    /// Visits a named type, unless it lies too deep in itself.
    fn named<T>(
        &mut self,
        name: &'static str,
        visit: impl FnOnce(&mut Tracer) -> Result<T, Rejected>,
    ) -> Result<T, Rejected> {
        if self.names.iter().filter(|outer| **outer == name).count() >= MAX_RECURSION {
            return Err(Rejected);
        }
        self.names.push(name);
        let result = visit(self);
        self.names.pop();
        result
    }
}

/// Why a pass ended: the type rejected a made-up value, or contains itself.
#[derive(Debug)]
struct Rejected;

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the made-up value is rejected")
    }
}

impl std::error::Error for Rejected {}

impl serde::de::Error for Rejected {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Rejected
    }
}

/// Answers each request for a value with a made-up one, and notes the request.
struct Probe<'a>(&'a mut Tracer);

macro_rules! made_up {
    ($($method:ident $visit:ident $value:expr),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Rejected> {
            self.0.note(stringify!($visit))?;
            visitor.$visit($value)
        })*
    };
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Rejected;

    made_up! {
        deserialize_bool visit_bool false,
        deserialize_i8 visit_i8 1,
        deserialize_i16 visit_i16 1,
        deserialize_i32 visit_i32 1,
        deserialize_i64 visit_i64 1,
        deserialize_i128 visit_i128 1,
        deserialize_u8 visit_u8 1,
        deserialize_u16 visit_u16 1,
        deserialize_u32 visit_u32 1,
        deserialize_u64 visit_u64 1,
        deserialize_u128 visit_u128 1,
        deserialize_f32 visit_f32 1.0,
        deserialize_f64 visit_f64 1.0,
        deserialize_char visit_char 'a',
        deserialize_str visit_str "a",
        deserialize_string visit_str "a",
        deserialize_bytes visit_bytes &[1],
        deserialize_byte_buf visit_bytes &[1],
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Rejected> {
        self.0.note("unit")?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Rejected> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Rejected> {
        self.0.note("option")?;
        match self.0.choose(2)? {
            0 => self.0.within(0, |inner| visitor.visit_some(inner)),
            _ => visitor.visit_none(),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Rejected> {
        // the encoding is that of what lies within
        self.0.named(name, |tracer| visitor.visit_newtype_struct(Probe(tracer)))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Rejected> {
        self.0.note("sequence")?;
        let len = if self.0.choose(2)? == 0 { 1 } else { 0 };
        visitor.visit_seq(Items { tracer: self.0, at: 0, len })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Rejected> {
        self.0.note(format!("{len} values"))?;
        visitor.visit_seq(Items { tracer: self.0, at: 0, len })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Rejected> {
        self.0.named(name, |tracer| Probe(tracer).deserialize_tuple(len, visitor))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Rejected> {
        self.0.note("map")?;
        let len = if self.0.choose(2)? == 0 { 2 } else { 0 };
        visitor.visit_map(Items { tracer: self.0, at: 0, len })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Rejected> {
        self.0.note(fields.join(","))?;
        self.0.named(name, |tracer| visitor.visit_seq(Items { tracer, at: 0, len: fields.len() }))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Rejected> {
        let count = self.0.variants(variants.len());
        self.0.note(variants.get(..count).unwrap_or(variants).join("|"))?;
        self.0.named(name, |tracer| {
            let form = tracer.choose(count)?;
            tracer.within(form, |inner| visitor.visit_enum(Variant { tracer: inner.0, form }))
        })
    }

    // postcard cannot read these either
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Rejected> {
        Err(Rejected)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Rejected> {
        Err(Rejected)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Rejected> {
        Err(Rejected)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The items of a sequence, a tuple or a struct; or the keys and values of a map in turn.
struct Items<'a> {
    tracer: &'a mut Tracer,
    at: usize,
    len: usize,
}

impl Items<'_> {
    fn next<'de, T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Rejected> {
        let at = self.at;
        self.at = at.saturating_add(1);
        self.tracer.within(at, |inner| seed.deserialize(inner))
    }
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Rejected;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Rejected> {
        if self.at == self.len { Ok(None) } else { self.next(seed).map(Some) }
    }

    fn size_hint(&self) -> Option<usize> {
        self.len.checked_sub(self.at)
    }
}

impl<'de> MapAccess<'de> for Items<'_> {
    type Error = Rejected;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Rejected> {
        if self.at == self.len { Ok(None) } else { self.next(seed).map(Some) }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Rejected> {
        self.next(seed)
    }
}

struct Variant<'a> {
    tracer: &'a mut Tracer,
    form: usize,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Rejected;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Rejected> {
        let index = u32::try_from(self.form).map_err(Rejected::custom)?;
        let index: U32Deserializer<Rejected> = index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Rejected;

    fn unit_variant(self) -> Result<(), Rejected> {
        self.tracer.note("unit")
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Rejected> {
        seed.deserialize(Probe(self.tracer))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Rejected> {
        Probe(self.tracer).deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Rejected> {
        self.tracer.note(fields.join(","))?;
        visitor.visit_seq(Items { tracer: self.tracer, at: 0, len: fields.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::num::NonZeroU8;

    fn of<T: DeserializeOwned>() -> Vec<u8> {
        shape_of::<T, ()>(&[])
    }

    #[test]
    fn types_of_another_encoding_have_another_shape() {
        #[derive(Deserialize)]
        #[allow(dead_code, reason = "only the shape counts")]
        struct User {
            name: String,
            visits: u32,
        }
        let user = of::<User>();
        mod longer {
            #[derive(serde::Deserialize)]
            #[allow(dead_code, reason = "only the shape counts")]
            pub(super) struct User {
                name: String,
                visits: u32,
                seen: Option<u64>,
            }
        }
        mod wider {
            #[derive(serde::Deserialize)]
            #[allow(dead_code, reason = "only the shape counts")]
            pub(super) struct User {
                name: String,
                visits: u64,
            }
        }
        mod swapped {
            #[derive(serde::Deserialize)]
            #[allow(dead_code, reason = "only the shape counts")]
            pub(super) struct User {
                visits: u32,
                name: String,
            }
        }
        mod renamed {
            #[derive(serde::Deserialize)]
            #[allow(dead_code, reason = "only the shape counts")]
            pub(super) struct Person {
                name: String,
                visits: u32,
            }
        }
        assert!(!user.is_empty());
        assert_eq!(of::<renamed::Person>(), user, "the type's own name is not in the encoding");
        for other in [of::<longer::User>(), of::<wider::User>(), of::<swapped::User>(), of::<(String, u32)>()] {
            assert!(!other.is_empty() && other != user);
        }
        // wherever the change lies
        let within = [
            of::<Vec<User>>(),
            of::<Option<User>>(),
            of::<BTreeMap<u8, User>>(),
            of::<[User; 2]>(),
            of::<Box<(u8, Option<Vec<User>>)>>(),
        ];
        let longer = [
            of::<Vec<longer::User>>(),
            of::<Option<longer::User>>(),
            of::<BTreeMap<u8, longer::User>>(),
            of::<[longer::User; 2]>(),
            of::<Box<(u8, Option<Vec<longer::User>>)>>(),
        ];
        for (within, longer) in within.iter().zip(&longer) {
            assert!(!within.is_empty() && within != longer);
        }
        assert_ne!(shape_of::<User, ()>(&[]), shape_of::<(), User>(&[]));
    }

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only the shape counts")]
    enum Before {
        Add(u32),
        Remove { key: Option<String> },
    }

    mod after {
        #[derive(serde::Deserialize)]
        #[allow(dead_code, reason = "only the shape counts")]
        pub(super) enum Appended {
            Add(u32),
            Remove { key: Option<String> },
            Clear,
            Nest(Option<Box<Appended>>),
        }
        #[derive(serde::Deserialize)]
        #[allow(dead_code, reason = "only the shape counts")]
        pub(super) enum Inserted {
            Clear,
            Add(u32),
            Remove { key: Option<String> },
        }
        #[derive(serde::Deserialize)]
        #[allow(dead_code, reason = "only the shape counts")]
        pub(super) enum Changed {
            Add(u32),
            Remove { key: Option<Vec<u8>> },
        }
    }

    #[test]
    fn an_enum_may_get_variants_at_its_end() {
        let before = shape_of::<Before, Before>(&[]);
        assert!(!before.is_empty());
        assert_eq!(shape_of::<after::Appended, after::Appended>(&before), before);
        let appended = shape_of::<after::Appended, after::Appended>(&[]);
        assert_ne!(appended, before);
        assert_ne!(shape_of::<Before, Before>(&appended), appended, "the older type lacks variants");
        for changed in [shape_of::<after::Inserted, Before>(&before), shape_of::<Before, after::Changed>(&before)] {
            assert!(!changed.is_empty() && changed != before);
        }
    }

    #[test]
    fn types_that_contain_themselves_have_a_shape() {
        #[derive(Deserialize)]
        #[allow(dead_code, reason = "only the shape counts")]
        enum Tree {
            Node(Box<Tree>, Box<Tree>),
            Leaf(u8),
        }
        #[derive(Deserialize)]
        #[allow(dead_code, reason = "only the shape counts")]
        struct List(u8, Option<Box<List>>);
        assert!(!of::<Tree>().is_empty());
        assert!(!of::<List>().is_empty());
        assert!(!of::<Vec<NonZeroU8>>().is_empty());
    }

    #[test]
    fn a_type_that_rejects_every_made_up_value_has_no_shape() {
        #[derive(Debug)]
        struct Picky;
        impl<'de> Deserialize<'de> for Picky {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match u64::deserialize(deserializer)? {
                    7 => Ok(Picky),
                    _ => Err(D::Error::custom("not seven")),
                }
            }
        }
        assert_eq!(of::<Picky>(), []);
        assert!(!of::<Vec<(u8, Picky)>>().is_empty(), "the rest has a shape");
        struct Panics;
        impl<'de> Deserialize<'de> for Panics {
            fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                panic!("a made-up value")
            }
        }
        assert_eq!(of::<Panics>(), []);
    }
}
