//! Objects: their members, in the order of the schema.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::value::RawValue;

use super::text::quoted;
use super::{Converter, MAX_ELEMENTS, MAX_SCHEMAS, Place, literal, name_of};
use crate::app::server::api::error::ApiError;
use crate::app::server::api::request::object::{List, Object, Texts};
use crate::app::server::api::to_json;

/// A property of an object.
struct Property<'a> {
    name: String,
    schema: &'a RawValue,
    is_required: bool,
}

impl<'a> Converter<'_, 'a> {
    /// `allOf`: an object with the properties of all parts, or the values that are in each `enum`.
    pub(super) fn all_of(
        &mut self,
        place: &Place<'_, 'a>,
        object: &Object<'a>,
    ) -> Result<String, ApiError> {
        let List(all) = object.require::<List<'_, MAX_ELEMENTS>>("allOf")?;
        let n = all.len();
        let mut parts: Vec<(&'a RawValue, bool)> = Vec::new();
        for schema in all.into_iter().rev() {
            let part = Object::from_value(place.path, schema)?;
            match part.read::<List<'_, MAX_ELEMENTS>>("anyOf")? {
                Some(List(some)) => parts.extend(some.into_iter().rev().map(|it| (it, false))),
                None => parts.push((schema, true)),
            }
        }
        let mut properties: Vec<Property<'a>> = Vec::new();
        let mut values: Vec<(String, usize)> = Vec::new();
        let mut n_visits = 0_usize;
        while let Some((schema, is_required)) = parts.pop() {
            n_visits = n_visits.saturating_add(1);
            if n_visits > MAX_SCHEMAS {
                return Err(place.error("`allOf` is too large"));
            }
            let part = Object::from_value(place.path, schema)?;
            if let Some(reference) = part.read::<String>("$ref")? {
                parts.push((self.target(place, &reference)?, is_required));
                continue;
            }
            if let Some(List(some)) = part.read::<List<'_, MAX_ELEMENTS>>("enum")? {
                for value in some.into_iter().map(literal) {
                    match values.iter_mut().find(|(other, _)| *other == value) {
                        Some((_, n)) => *n = n.saturating_add(1),
                        None => values.push((value, 1)),
                    }
                }
            }
            for (name, schema) in part.below("properties")?.iter().flat_map(Object::all) {
                let is_other = |property: &Property<'_>| property.name != name;
                if properties.iter().all(is_other) {
                    properties.push(Property { name: name.to_string(), schema, is_required });
                }
            }
        }
        values.retain(|(_, times)| *times == n);
        if !values.is_empty() {
            let values: Vec<String> = values.into_iter().map(|(value, _)| value).collect();
            return self.text.add(place.hint, values.join(" | "));
        }
        self.members(place, properties, None)
    }

    pub(super) fn object(
        &mut self,
        place: &Place<'_, 'a>,
        object: &Object<'a>,
    ) -> Result<String, ApiError> {
        let required =
            object.read::<Texts<MAX_ELEMENTS>>("required")?.map_or_else(Vec::new, |it| it.0);
        let properties = object.below("properties")?;
        let additional = match object.get("additionalProperties") {
            Some(value) if value.get() == "false" => None,
            None if properties.is_some() => None,
            None => Some(None),
            Some(value) if value.get() == "true" => Some(None),
            Some(value) => Some(Some(value)),
        };
        let properties: Vec<Property<'a>> = properties
            .iter()
            .flat_map(Object::all)
            .map(|(name, schema)| Property {
                name: name.to_string(),
                schema,
                is_required: required.iter().any(|other| other == name),
            })
            .collect();
        if properties.is_empty() && matches!(additional, Some(None)) {
            return self.text.use_rule("object");
        }
        self.members(place, properties, additional)
    }

    /// An object with these properties, the required ones first.
    ///
    /// `additional`: whether others may follow, and the schema of their values.
    fn members(
        &mut self,
        place: &Place<'_, 'a>,
        properties: Vec<Property<'a>>,
        additional: Option<Option<&'a RawValue>>,
    ) -> Result<String, ApiError> {
        let mut required = Vec::new();
        // The rules of the members that may be left out, and whether each may be repeated.
        let mut optional: Vec<(String, bool)> = Vec::new();
        for Property { name, schema, is_required } in &properties {
            let hint = name_of(name);
            let value = self.visit_in(place, &hint, &format!("properties.{name}"), schema)?;
            let body = format!("{} space \":\" space {value}", quoted(&to_json(&name)));
            let member = self.text.add(&hint, body)?;
            match is_required {
                true => required.push(member),
                false => optional.push((member, false)),
            }
        }
        if let Some(schema) = additional {
            let value = match schema {
                None => self.text.use_rule("value")?,
                Some(schema) => self.visit_in(place, "other", "additionalProperties", schema)?,
            };
            let key = match properties.is_empty() {
                true => self.text.use_rule("string")?,
                false => {
                    let names: Vec<&str> = properties.iter().map(|it| &*it.name).collect();
                    self.text.other_key(&names)?
                }
            };
            let body = format!("{key} \":\" space {value}");
            optional.push((self.text.add("other", body)?, true));
        }
        let mut body = String::from("\"{\" space ");
        body.push_str(&required.join(" \",\" space "));
        if !optional.is_empty() {
            // `rest`: the members behind one that is there, each with its comma.
            let mut rest: Option<String> = None;
            let mut starts = Vec::new();
            for (member, repeats) in optional.iter().rev() {
                let times = if *repeats { "*" } else { "?" };
                let after = rest.as_deref().unwrap_or_default();
                let again = if *repeats { format!(" (\",\" space {member})*") } else { "".into() };
                starts.push(format!("{member}{again} {after}"));
                let more = format!("(\",\" space {member}){times} {after}");
                rest = Some(self.text.add("rest", more)?);
            }
            starts.reverse();
            let comma = if required.is_empty() { "" } else { " \",\" space" };
            body.push_str(&format!(" ({comma} ({}))?", starts.join(" | ")));
        }
        body.push_str(" space \"}\"");
        self.text.add(place.hint, body)
    }
}
