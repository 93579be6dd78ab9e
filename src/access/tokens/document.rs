//! JSON and base64url as signed documents need them: strict, in one reading only, and bounded.
//!
//! Two readers that take the same bytes for different things are how a check is passed by. So a name that stands twice in an
//! object is an error [RFC 7515 4, RFC 7519 4], in objects that nobody looks into too; base64url has no padding, no spaces and
//! no bits left over; and nothing may follow a document. What is in a document is judged by the caller: `tokens`, `jwks` and
//! `claims`.
//!
//! Depth is bounded by the library (128 levels), names by [`limits::TOKEN_NAMES_MAX`], the rest by the size of the input.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use crate::limits;

/// Why bytes are no document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flaw {
    /// Not JSON in UTF-8, too deep, or something follows it.
    NotJson,
    /// Not an object.
    NotAnObject,
    /// A name stands twice in one object.
    NameTwice,
    /// More than [`limits::TOKEN_NAMES_MAX`] names in one object.
    TooManyNames,
}

impl Flaw {
    /// What is wrong, as the end of a sentence.
    pub(super) fn text(self) -> &'static str {
        match self {
            Flaw::NotJson => "is not JSON",
            Flaw::NotAnObject => "is not a JSON object",
            Flaw::NameTwice => "has a name twice in one object",
            Flaw::TooManyNames => "has too many names in one object",
        }
    }
}

/// A JSON value; texts without an escape are borrowed.
#[derive(Debug)]
pub(super) enum Json<'a> {
    Text(Cow<'a, str>),
    /// Not negative, without fraction or exponent, below 2^64.
    Whole(u64),
    Array(Vec<Json<'a>>),
    Object(Object<'a>),
    /// Every other number, true, false or null: nothing that is read here has one.
    Other,
}

impl<'a> Json<'a> {
    pub(super) fn text(&self) -> Option<&str> {
        if let Json::Text(text) = self { Some(text) } else { None }
    }

    pub(super) fn array(&self) -> Option<&[Json<'a>]> {
        if let Json::Array(items) = self { Some(items) } else { None }
    }
}

/// Names and values, no name twice.
#[derive(Debug)]
pub(super) struct Object<'a>(Vec<(Cow<'a, str>, Json<'a>)>);

impl<'a> Object<'a> {
    /// Reads an object.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Object<'a>, Flaw> {
        let flaw = Cell::new(Flaw::NotJson);
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let json = Reading(&flaw).deserialize(&mut reader).map_err(|_| flaw.get())?;
        reader.end().map_err(|_| Flaw::NotJson)?;
        if let Json::Object(object) = json { Ok(object) } else { Err(Flaw::NotAnObject) }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Json<'a>> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

/// Reads a value, and says in the cell what is wrong if it is not the syntax.
#[derive(Clone, Copy)]
struct Reading<'f>(&'f Cell<Flaw>);

impl Reading<'_> {
    fn failed<E: Error>(self, flaw: Flaw) -> E {
        self.0.set(flaw);
        E::custom(flaw.text())
    }
}

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Json<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json<'de>, E> {
        Ok(Json::Whole(number))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json<'de>, A::Error> {
        let mut object = Object(Vec::new());
        while let Some(name) = access.next_key_seed(self)? {
            let Json::Text(name) = name else { return Err(self.failed(Flaw::NotJson)) };
            if object.has(&name) {
                return Err(self.failed(Flaw::NameTwice));
            }
            if object.0.len() == limits::TOKEN_NAMES_MAX {
                return Err(self.failed(Flaw::TooManyNames));
            }
            let value = access.next_value_seed(self)?;
            object.0.push((name, value));
        }
        Ok(Json::Object(object))
    }
}

/// Decodes base64url without padding [RFC 7515 2]; `None` if it is anything else, or not the one way to write these bytes.
pub(super) fn from_base64url(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    BASE64URL_NOPAD.decode(text).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_stands_twice_is_refused_wherever_it_stands() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":{"b":1,"c":2,"b":1}}"#,
            r#"{"x":[{"b":1,"b":1}]}"#,
        ] {
            assert_eq!(Object::read(text.as_bytes()).err(), Some(Flaw::NameTwice), "{text}");
        }
        assert!(Object::read(br#"{"a":{"a":1},"b":[{"a":1},{"a":1}]}"#).is_ok());
    }

    #[test]
    fn what_is_not_one_whole_object_is_refused() {
        for text in
            ["", "{", "{}x", "{}{}", "{\"a\":}", "{'a':1}", "{\"a\":\"\\ud800\"}", "{1:2}", "{\"a\":01}"]
        {
            assert_eq!(Object::read(text.as_bytes()).err(), Some(Flaw::NotJson), "{text}");
        }
        assert_eq!(Object::read(b"{\"a\":\"\xFF\"}").err(), Some(Flaw::NotJson));
        for text in ["[]", "1", "\"a\"", "null"] {
            assert_eq!(Object::read(text.as_bytes()).err(), Some(Flaw::NotAnObject), "{text}");
        }
    }

    #[test]
    fn depth_and_names_are_bounded() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(Object::read(nested(100).as_bytes()).is_ok());
        for levels in [128, 1_000, 100_000] {
            assert_eq!(Object::read(nested(levels).as_bytes()).err(), Some(Flaw::NotJson));
        }
        let names = |count: usize| {
            let names: Vec<String> = (0..count).map(|name| format!("\"{name}\":0")).collect();
            format!("{{{}}}", names.join(","))
        };
        assert!(Object::read(names(limits::TOKEN_NAMES_MAX).as_bytes()).is_ok());
        let flaw = Object::read(names(limits::TOKEN_NAMES_MAX + 1).as_bytes()).err();
        assert_eq!(flaw, Some(Flaw::TooManyNames));
    }

    #[test]
    fn base64url_has_one_way_to_write_each_text() {
        assert_eq!(from_base64url(b"YQ").as_deref().map(Vec::as_slice), Some(&b"a"[..]));
        for text in ["YR", "YQ==", "YQ=", "Y", "YQ\n", " YQ", "Y+", "Y/", "Y\u{e9}"] {
            assert_eq!(from_base64url(text.as_bytes()), None, "{text:?}");
        }
    }
}
