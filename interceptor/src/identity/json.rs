//! JSON that every reader reads alike: no key twice in an object, and no deeper than it needs to be. Parsers disagree
//! about which of two equal keys counts (RFC 8259 section 4), so a token with two `oid`s names two people.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// How deep objects and arrays may be nested. Entra's tokens need 3.
const DEPTH: usize = 8;

/// What is wrong with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonError {
    /// It isn't a JSON object in UTF-8, or something follows it.
    NotAnObject,
    /// An object has a key twice.
    DuplicateKey,
    /// It is nested deeper than 8.
    TooDeep,
}

const DUPLICATE: &str = "\u{1}duplicate";
const TOO_DEEP: &str = "\u{1}deep";

/// Reads one object.
pub(super) fn object(bytes: &[u8]) -> Result<Map<String, Value>, JsonError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict(DEPTH).deserialize(&mut reader).map_err(|error| {
        // serde_json appends the place, so the marks stand at the beginning.
        let text = error.to_string();
        if text.starts_with(DUPLICATE) {
            JsonError::DuplicateKey
        } else if text.starts_with(TOO_DEEP) {
            JsonError::TooDeep
        } else {
            JsonError::NotAnObject
        }
    })?;
    match (value, reader.end()) {
        (Value::Object(map), Ok(())) => Ok(map),
        _ => Err(JsonError::NotAnObject),
    }
}

/// A value that may be nested this deep.
struct Strict(usize);

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let deeper = self.0.checked_sub(1).ok_or_else(|| A::Error::custom(TOO_DEEP))?;
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(Strict(deeper))? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let deeper = self.0.checked_sub(1).ok_or_else(|| A::Error::custom(TOO_DEEP))?;
        let mut values = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if values.contains_key(&key) {
                return Err(A::Error::custom(DUPLICATE));
            }
            let value = map.next_value_seed(Strict(deeper))?;
            values.insert(key, value);
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests;
