//! What the payloads of Conduit's frames say, as MessagePack: read leniently, within bounds, and written.
//!
//! A field that is missing or of another type is a [`Field`] that gives nothing, so that whoever asks can say
//! what is wrong with it; fields that nobody knows are skipped. Nothing is copied out of a payload, and nothing in
//! it makes more room than itself.

use std::fmt;

use bytes::Bytes;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::CONDUIT_DEPTH_MAX;

pub mod replies;

/// A payload that is not MessagePack, or not what its type demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a payload is not what its type demands")]
pub struct PayloadError;

/// A value of a payload, as far as anybody wants it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Field<'a> {
    /// There is none.
    #[default]
    Missing,
    /// Text.
    Text(&'a str),
    /// A number that is whole and not negative.
    Number(u64),
    /// Yes or no.
    Flag(bool),
    /// Anything else.
    Other,
}

impl<'a> Field<'a> {
    /// The text, if it is one.
    #[must_use]
    pub fn text(self) -> Option<&'a str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The number, if it is one.
    #[must_use]
    pub fn number(self) -> Option<u64> {
        if let Self::Number(number) = self { Some(number) } else { None }
    }
}

/// What a client says of itself, and what it shows.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Auth<'a> {
    /// SHA-256 of the password, in hexadecimal digits.
    #[serde(borrow)]
    pub password_hash: Field<'a>,
    /// Who it is.
    #[serde(borrow)]
    pub client_info: Option<Info<'a>>,
}

/// What a client calls itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Info<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Field<'a>,
}

/// A call of a method.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Call<'a> {
    /// The method.
    #[serde(borrow)]
    pub method: Field<'a>,
    /// What it is given.
    #[serde(borrow)]
    pub params: Option<Params<'a>>,
}

/// All that any method takes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names are the wire's")]
pub struct Params<'a> {
    #[serde(borrow)]
    pub filename: Field<'a>,
    pub size: Field<'a>,
    pub checksum: Field<'a>,
    pub transfer_id: Field<'a>,
    pub chunk_index: Field<'a>,
    pub data_b64: Field<'a>,
    pub client: Field<'a>,
}

/// A message.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Message<'a> {
    /// What it is.
    #[serde(borrow, rename = "type")]
    pub kind: Field<'a>,
    /// What it says.
    #[serde(borrow)]
    pub data: Option<Acknowledged<'a>>,
}

/// What a client says of a file that is pushed to it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Acknowledged<'a> {
    /// Which push it is.
    #[serde(borrow)]
    pub transfer_id: Field<'a>,
    /// Whether it takes it.
    pub ready: Field<'a>,
}

/// Reads a payload.
///
/// # Errors
/// [`PayloadError`] if it is no MessagePack, nested too deeply, or no map where one has to be.
pub fn read<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, PayloadError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(payload);
    deserializer.set_max_depth(CONDUIT_DEPTH_MAX);
    T::deserialize(&mut deserializer).map_err(|_| PayloadError)
}

/// Writes a payload, structs as maps.
///
/// # Errors
/// [`PayloadError`] for what MessagePack has no form for.
pub fn write<T: Serialize>(words: &T) -> Result<Bytes, PayloadError> {
    rmp_serde::to_vec_named(words).map(Bytes::from).map_err(|_| PayloadError)
}

impl<'de: 'a, 'a> Deserialize<'de> for Field<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Lenient)
    }
}

/// Takes whatever comes.
struct Lenient;

impl<'de> Visitor<'de> for Lenient {
    type Value = Field<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Field<'de>, E> {
        Ok(Field::Text(text))
    }

    fn visit_str<E>(self, _copied: &str) -> Result<Field<'de>, E> {
        Ok(Field::Other)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Field<'de>, E> {
        Ok(Field::Number(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Field<'de>, E> {
        Ok(u64::try_from(number).map_or(Field::Other, Field::Number))
    }

    fn visit_f64<E>(self, _number: f64) -> Result<Field<'de>, E> {
        Ok(Field::Other)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Field<'de>, E> {
        Ok(Field::Flag(flag))
    }

    fn visit_unit<E>(self) -> Result<Field<'de>, E> {
        Ok(Field::Missing)
    }

    fn visit_bytes<E>(self, _bytes: &[u8]) -> Result<Field<'de>, E> {
        Ok(Field::Other)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Field<'de>, D::Error> {
        IgnoredAny::deserialize(inner).map(|_| Field::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Field<'de>, A::Error> {
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Other)
    }
}
