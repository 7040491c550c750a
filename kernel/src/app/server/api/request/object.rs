//! JSON objects of requests, whose fields are read by name and type.
//!
//! An object keeps the texts of its values. A value is parsed when it is read, so a value that
//! nobody reads takes no memory, and each error names its field.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::ops::RangeInclusive;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::super::error::ApiError;

/// The most fields of a request. Clients send up to some sixty.
const MAX_REQUEST_FIELDS: usize = 128;
/// The most fields of an object within, such as the properties of a JSON schema.
const MAX_FIELDS: usize = 1024;

/// An object of a request.
#[derive(Debug, Default)]
pub struct Object<'a> {
    /// The object's place in the body, which goes before its fields' names in errors.
    place: String,
    fields: Vec<(String, &'a RawValue)>,
}

impl<'a> Object<'a> {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// The body is no JSON object, or has a field twice.
    pub fn from_body(body: &'a [u8]) -> Result<Self, ApiError> {
        let fields: Fields<'_> = serde_json::from_slice(body)
            .map_err(|e| ApiError::invalid(format!("the body: {e}")))?;
        if fields.0.len() > MAX_REQUEST_FIELDS {
            let problem = format!("the body: more than {MAX_REQUEST_FIELDS} fields");
            return Err(ApiError::invalid(problem));
        }
        Ok(Object { place: String::new(), fields: fields.0 })
    }

    /// Reads an object within a body.
    ///
    /// # Errors
    /// The value is no object, or has a field twice.
    pub fn from_value(place: &str, value: &'a RawValue) -> Result<Self, ApiError> {
        let fields: Fields<'_> = parse(place, value)?;
        Ok(Object { place: format!("{place}."), fields: fields.0 })
    }

    /// The object without its other fields.
    pub fn only(&self, names: &[&str]) -> Self {
        let fields = self.all().filter(|(name, _)| names.contains(name));
        let fields = fields.map(|(name, value)| (name.into(), value)).collect();
        Object { place: self.place.clone(), fields }
    }

    /// The fields that are not null, with their values.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        let is_there = |(_, value): &&(String, &RawValue)| value.get() != "null";
        self.fields.iter().filter(is_there).map(|(name, value)| (name.as_str(), *value))
    }

    /// All fields, with their values.
    pub fn all(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// Reads a field that is an object.
    ///
    /// # Errors
    /// The value is no object.
    pub fn below(&self, field: &str) -> Result<Option<Object<'a>>, ApiError> {
        self.get(field).map(|value| Object::from_value(&self.name(field), value)).transpose()
    }

    /// A field's value; `None` for null, as clients send null for the default.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.fields().find(|(field, _)| *field == name).map(|(_, value)| value)
    }

    /// The name of a field as errors give it.
    pub fn name(&self, field: &str) -> String {
        format!("{}{field}", self.place)
    }

    /// A field with a wrong value.
    pub fn error(&self, field: &str, problem: impl fmt::Display) -> ApiError {
        self.error_of(field, &problem)
    }

    #[cold]
    #[inline(never)]
    fn error_of(&self, field: &str, problem: &dyn fmt::Display) -> ApiError {
        ApiError::field(&self.name(field), problem)
    }

    /// Reads a field.
    ///
    /// # Errors
    /// The value has another type.
    pub fn read<T: Deserialize<'a>>(&self, field: &str) -> Result<Option<T>, ApiError> {
        self.get(field).map(|value| parse(&self.name(field), value)).transpose()
    }

    /// Reads a field that must be there.
    ///
    /// # Errors
    /// The field is missing, or the value has another type.
    pub fn require<T: Deserialize<'a>>(&self, field: &str) -> Result<T, ApiError> {
        self.read(field)?.ok_or_else(|| self.error(field, "required"))
    }

    /// Reads a switch.
    ///
    /// # Errors
    /// The value is neither `true` nor `false`.
    pub fn switch(&self, field: &str, default: bool) -> Result<bool, ApiError> {
        Ok(self.read(field)?.unwrap_or(default))
    }

    /// Reads a number.
    ///
    /// # Errors
    /// The value is no number, or too large for 32 bits.
    pub fn number(&self, field: &str) -> Result<Option<f32>, ApiError> {
        let Some(number) = self.read::<f64>(field)? else { return Ok(None) };
        let number = number as f32;
        match number.is_finite() {
            true => Ok(Some(number)),
            false => Err(self.error(field, "the number is too large")),
        }
    }

    /// Reads a whole number in a range. `40.0` is one, as some clients have no integers.
    ///
    /// # Errors
    /// The value is no whole number, or out of range.
    pub fn whole(
        &self,
        field: &str,
        range: RangeInclusive<i128>,
    ) -> Result<Option<i128>, ApiError> {
        let Some(Whole(number)) = self.read(field)? else { return Ok(None) };
        match range.contains(&number) {
            true => Ok(Some(number)),
            false => {
                let (least, most) = range.into_inner();
                Err(self.error(field, format!("{number} is not between {least} and {most}")))
            }
        }
    }
}

/// Parses a value; errors name it.
///
/// # Errors
/// The value has another type.
pub fn parse<'a, T: Deserialize<'a>>(name: &str, value: &'a RawValue) -> Result<T, ApiError> {
    serde_json::from_str(value.get()).map_err(|error| wrong_type(name, &error))
}

/// The error of a value of another type; apart, as there is a [`parse`] for each type.
#[cold]
fn wrong_type(name: &str, error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    // The line and column are those within the value.
    let problem = text.rsplit_once(" at line ").map_or(&*text, |(problem, _)| problem);
    ApiError::field(name, problem)
}

/// The fields of an object.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields: Vec<(String, &RawValue)> = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if fields.len() == MAX_FIELDS {
                        return Err(A::Error::custom(format!("more than {MAX_FIELDS} fields")));
                    }
                    if fields.iter().any(|(other, _)| *other == name) {
                        return Err(A::Error::custom(format!("`{name}` is there twice")));
                    }
                    fields.push((name, map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

/// A list of at most `MOST` values, each to be parsed when it is read.
#[derive(Debug)]
pub struct List<'a, const MOST: usize>(pub Vec<&'a RawValue>);

impl<'de: 'a, 'a, const MOST: usize> Deserialize<'de> for List<'a, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(AtMost::<&RawValue, MOST>(PhantomData)).map(List)
    }
}

/// A list of at most `MOST` texts.
#[derive(Debug)]
pub struct Texts<const MOST: usize>(pub Vec<String>);

impl<'de, const MOST: usize> Deserialize<'de> for Texts<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(AtMost::<String, MOST>(PhantomData)).map(Texts)
    }
}

/// Reads at most `MOST` values.
struct AtMost<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for AtMost<T, MOST> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            if values.len() == MOST {
                return Err(A::Error::custom(format!("more than {MOST} elements")));
            }
            values.push(value);
        }
        Ok(values)
    }
}

/// A whole number.
pub struct Whole(pub i128);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E>(self, number: i64) -> Result<Whole, E> {
                Ok(Whole(number.into()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Whole, E> {
                Ok(Whole(number.into()))
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Whole, E> {
                let whole = number as i128;
                match whole as f64 == number {
                    true => Ok(Whole(whole)),
                    false => Err(E::invalid_value(serde::de::Unexpected::Float(number), &self)),
                }
            }
        }

        deserializer.deserialize_any(Reader)
    }
}
