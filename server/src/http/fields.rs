//! The parameters of a request, and their coercion to the types that endpoints declare.
//!
//! Vault takes `"3"`, `3`, `true` and `0x3` where it wants a number; clients and recordings depend on what is taken,
//! and on the text of what is not. The rules are OpenBao 2.6.2's.

mod coerce;

mod query;

mod schema;

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;

use keyward_model::Timestamp;
use keyward_policy::Parameters;
use serde_json::Value;

use super::json::{Kind, Object, Raw};
pub use coerce::{parse_bool, weak_int, weak_string};
pub use query::BadForm;
pub use schema::Field;

/// A parameter as it came.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A member of a JSON body.
    Json(Raw<'a>),
    /// The values of a query or form name, at least one.
    Query(&'a [String]),
}

/// When an endpoint coerces its fields, which decides how its refusals begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    /// With the existence check of a create or update (KV `data/` and `metadata/`, roles).
    Existence,
    /// In front of the handler: everything else.
    Handler,
}

/// A parameter that does not fit its type. The text is the caller's answer; the status is 400.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}error converting input for field \"{field}\": {why}", match check { Check::Existence => "", Check::Handler => "Field validation failed: " })]
pub struct FieldError {
    check: Check,
    field: String,
    why: Cow<'static, str>,
}

enum Source<'a> {
    Nothing,
    Body(Object<'a>),
    Query(BTreeMap<String, Vec<String>>),
}

/// The parameters of one request. Every getter gives `None` where the caller did not give the field.
pub struct Params<'a> {
    source: Source<'a>,
    check: Cell<Check>,
}

impl<'a> Params<'a> {
    /// Of a JSON body; `None` is a body without data.
    pub fn from_body(body: Option<Object<'a>>, check: Check) -> Self {
        Self { source: body.map_or(Source::Nothing, Source::Body), check: Cell::new(check) }
    }

    /// Of a query string (without the `?`). Pairs with a bad escape or a `;`, and the name `help`, are dropped.
    pub fn from_query(query: &str, check: Check) -> Self {
        Self { source: Source::Query(query::parse(query)), check: Cell::new(check) }
    }

    /// Of a form body; several values of a name are joined by commas.
    ///
    /// # Errors
    /// [`BadForm`] for a bad escape, a `;` or more than 10 MiB.
    pub fn from_form(body: &[u8], check: Check) -> Result<Self, BadForm> {
        Ok(Self { source: Source::Query(query::parse_form(body)?), check: Cell::new(check) })
    }

    /// From here on, refusals begin as those of the existence check do.
    pub fn check_existence(&self) {
        self.check.set(Check::Existence);
    }

    /// The parameter as it came.
    pub fn get(&self, field: &str) -> Option<Input<'_>> {
        match &self.source {
            Source::Nothing => None,
            Source::Body(object) => object.get(field).map(Input::Json),
            Source::Query(pairs) => pairs.get(field).map(|values| Input::Query(values)),
        }
    }

    /// The body, if there is one.
    pub fn body(&self) -> Option<&Object<'a>> {
        match &self.source {
            Source::Body(object) => Some(object),
            Source::Nothing | Source::Query(_) => None,
        }
    }

    /// Forgets a query parameter that has done its work (`list=true`).
    pub fn remove(&mut self, field: &str) {
        if let Source::Query(pairs) = &mut self.source {
            pairs.remove(field);
        }
    }

    /// The names that came, each once, sorted by bytes.
    pub fn names(&self) -> Vec<Cow<'_, str>> {
        let mut names: Vec<_> = match &self.source {
            Source::Nothing => Vec::new(),
            Source::Body(object) => object.members().map(|(name, _)| name).collect(),
            Source::Query(pairs) => pairs.keys().map(|name| Cow::Borrowed(name.as_str())).collect(),
        };
        names.sort_unstable();
        names
    }

    /// Whether no parameter came.
    pub fn is_empty(&self) -> bool {
        match &self.source {
            Source::Nothing => true,
            Source::Body(object) => object.is_empty(),
            Source::Query(pairs) => pairs.is_empty(),
        }
    }

    /// A string; null is `None`.
    ///
    /// # Errors
    /// [`FieldError`] for lists and objects.
    pub fn string(&self, field: &str) -> Result<Option<Cow<'_, str>>, FieldError> {
        self.read(field, |input| match input {
            Input::Json(raw) if raw.kind() == Kind::Null => Ok(None),
            other => coerce::string(other).map(Some),
        })
    }

    /// A whole number; null and `""` are 0.
    ///
    /// # Errors
    /// [`FieldError`] for anything that is not one, or beyond 64 bits.
    pub fn int(&self, field: &str) -> Result<Option<i64>, FieldError> {
        self.read(field, |input| coerce::int(input).map(Some))
    }

    /// The same, where refusals say `int64`.
    ///
    /// # Errors
    /// As [`Params::int`].
    pub fn int64(&self, field: &str) -> Result<Option<i64>, FieldError> {
        self.read(field, |input| coerce::int64(input).map(Some))
    }

    /// A yes or no; null and `""` are no.
    ///
    /// # Errors
    /// [`FieldError`] for anything that is neither.
    pub fn bool(&self, field: &str) -> Result<Option<bool>, FieldError> {
        self.read(field, |input| coerce::bool(input).map(Some))
    }

    /// A duration in whole seconds, cut towards zero; null is `None`.
    ///
    /// # Errors
    /// [`FieldError`] for what is no duration, and for negative ones.
    pub fn duration(&self, field: &str) -> Result<Option<i64>, FieldError> {
        self.read(field, |input| match coerce::duration(input)? {
            Some(seconds @ ..0) => Err(format!("cannot provide negative value '{seconds}'").into()),
            other => Ok(other),
        })
    }

    /// As [`Params::duration`], but it may be negative.
    ///
    /// # Errors
    /// [`FieldError`] for what is no duration.
    pub fn signed_duration(&self, field: &str) -> Result<Option<i64>, FieldError> {
        self.read(field, coerce::duration)
    }

    /// Whole numbers: a list, one, or `"1,2,3"`; null and `""` are none.
    ///
    /// # Errors
    /// [`FieldError`] with a line for each bad item.
    pub fn ints(&self, field: &str) -> Result<Option<Vec<i64>>, FieldError> {
        self.read(field, |input| coerce::ints(input).map(Some))
    }

    /// Strings: a list, one, or `"a,b"`, without the blanks around them; null and `""` are none.
    ///
    /// # Errors
    /// [`FieldError`] for lists and objects inside.
    pub fn strings(&self, field: &str) -> Result<Option<Vec<String>>, FieldError> {
        self.read(field, |input| coerce::strings(input).map(Some))
    }

    /// The text of a JSON object, or `null`. A list of objects is merged, later ones win.
    ///
    /// # Errors
    /// [`FieldError`] for anything else.
    pub fn map(&self, field: &str) -> Result<Option<Cow<'_, str>>, FieldError> {
        self.read(field, |input| coerce::map(input).map(Some))
    }

    /// Names and texts: an object of scalars, `"k=v"`, or a list of such.
    ///
    /// # Errors
    /// [`FieldError`] for anything else.
    pub fn pairs(&self, field: &str) -> Result<Option<BTreeMap<String, String>>, FieldError> {
        self.read(field, |input| coerce::pairs(input).map(Some))
    }

    /// A moment: RFC 3339, or seconds since 1970; null is `None`.
    ///
    /// # Errors
    /// [`FieldError`] for anything else.
    pub fn time(&self, field: &str) -> Result<Option<Timestamp>, FieldError> {
        self.read(field, coerce::time)
    }

    fn read<'s, T>(
        &'s self,
        field: &str,
        coerce: impl FnOnce(Input<'s>) -> Result<Option<T>, Cow<'static, str>>,
    ) -> Result<Option<T>, FieldError> {
        let Some(input) = self.get(field) else {
            return Ok(None);
        };
        coerce(input).map_err(|why| FieldError { check: self.check.get(), field: field.to_owned(), why })
    }
}

impl Parameters for Params<'_> {
    fn each(&self, visit: &mut dyn FnMut(&str, &Value) -> bool) {
        match &self.source {
            Source::Nothing => {}
            Source::Body(object) => {
                for (name, value) in object.members() {
                    // Each member was checked to be JSON when the body came in.
                    let value = serde_json::from_str(value.text()).unwrap_or(Value::Null);
                    if !visit(&name, &value) {
                        return;
                    }
                }
            }
            Source::Query(pairs) => {
                for (name, values) in pairs {
                    let value = match values.as_slice() {
                        [one] => Value::from(one.as_str()),
                        many => Value::from(many.to_vec()),
                    };
                    if !visit(name, &value) {
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
