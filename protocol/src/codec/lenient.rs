//! A layer between serde and rmp-serde that makes structs growable: elements behind the fields that a reader knows are
//! skipped, where rmp-serde would refuse the array. It also notes in which field something was wrong, hides claimed
//! lengths from whoever would reserve room for them, and refuses a struct written as a map.
//!
//! Everything else is handed through. Depth is counted below this layer, for skipped elements too.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, VariantAccess,
    Visitor,
};

/// Struct and field in which the first error happened.
#[derive(Default)]
pub(super) struct Trace {
    failed: Cell<Option<(&'static str, &'static str)>>,
}

impl Trace {
    /// Struct and field, if the error was in one.
    pub(super) fn field(&self) -> Option<(&'static str, &'static str)> {
        self.failed.get()
    }

    /// The innermost field reports first and stays.
    fn note(&self, shape: Option<Shape>, index: usize) {
        if let (None, Some(Shape { name, fields })) = (self.failed.get(), shape) {
            self.failed.set(fields.get(index).map(|field| (name, *field)));
        }
    }
}

/// Name and fields of the struct that is being read.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    fields: &'static [&'static str],
}

/// Anything of serde's (deserializer, visitor, seed, access), with this layer around it.
pub(super) struct Lenient<'t, T> {
    inner: T,
    trace: &'t Trace,
    /// Set where `inner` reads the fields of a struct.
    shape: Option<Shape>,
    /// How many elements have been asked for.
    index: usize,
}

impl<'t, T> Lenient<'t, T> {
    pub(super) fn new(inner: T, trace: &'t Trace) -> Self {
        Self { inner, trace, shape: None, index: 0 }
    }

    fn shaped(inner: T, trace: &'t Trace, name: &'static str, fields: &'static [&'static str]) -> Self {
        Self { inner, trace, shape: Some(Shape { name, fields }), index: 0 }
    }
}

macro_rules! hand_through {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method(Lenient::new(visitor, self.trace))
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Lenient<'_, D> {
    type Error = D::Error;

    hand_through! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string deserialize_bytes
        deserialize_byte_buf deserialize_option deserialize_unit deserialize_seq deserialize_map
        deserialize_identifier deserialize_ignored_any
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, Lenient::new(visitor, self.trace))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_newtype_struct(name, Lenient::new(visitor, self.trace))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_tuple(length, Lenient::new(visitor, self.trace))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_tuple_struct(name, length, Lenient::new(visitor, self.trace))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_struct(name, fields, Lenient::shaped(visitor, self.trace, name, fields))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_enum(name, variants, Lenient::new(visitor, self.trace))
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! hand_values_through {
    ($($method:ident: $value:ty,)*) => {
        $(fn $method<E: Error>(self, value: $value) -> Result<V::Value, E> { self.inner.$method(value) })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Lenient<'_, V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(formatter)
    }

    hand_values_through! {
        visit_bool: bool, visit_i8: i8, visit_i16: i16, visit_i32: i32, visit_i64: i64, visit_i128: i128,
        visit_u8: u8, visit_u16: u16, visit_u32: u32, visit_u64: u64, visit_u128: u128, visit_f32: f32,
        visit_f64: f64, visit_char: char, visit_str: &str, visit_borrowed_str: &'de str, visit_string: String,
        visit_bytes: &[u8], visit_borrowed_bytes: &'de [u8], visit_byte_buf: Vec<u8>,
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Lenient::new(deserializer, self.trace))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Lenient::new(deserializer, self.trace))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<V::Value, A::Error> {
        let access = Lenient { inner: &mut elements, trace: self.trace, shape: self.shape, index: 0 };
        let value = self.inner.visit_seq(access)?;
        if self.shape.is_some() {
            while elements.next_element::<IgnoredAny>()?.is_some() {}
        }
        Ok(value)
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        match self.shape {
            Some(_) => Err(A::Error::invalid_type(Unexpected::Map, &"an array of the fields in their order")),
            None => self.inner.visit_map(Lenient::new(entries, self.trace)),
        }
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(Lenient::new(access, self.trace))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Lenient<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Lenient::new(deserializer, self.trace))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Lenient<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let result = self.inner.next_element_seed(Lenient::new(seed, self.trace));
        if result.is_err() {
            self.trace.note(self.shape, self.index);
        }
        self.index += 1;
        result
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Lenient<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_key_seed(Lenient::new(seed, self.trace))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Lenient::new(seed, self.trace))
    }
}

impl<'de, 't, A: EnumAccess<'de>> EnumAccess<'de> for Lenient<'t, A> {
    type Error = A::Error;
    type Variant = Lenient<'t, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.inner.variant_seed(Lenient::new(seed, self.trace))?;
        Ok((value, Lenient::new(variant, self.trace)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Lenient<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(Lenient::new(seed, self.trace))
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(length, Lenient::new(visitor, self.trace))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.struct_variant(fields, Lenient::shaped(visitor, self.trace, "the case", fields))
    }
}
