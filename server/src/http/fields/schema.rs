//! What a path declares of its parameters: all of them are held to their types before its handler runs, also those that the
//! verb does not use.

use super::{FieldError, Params};

/// A parameter that a path declares.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    name: &'static str,
    kind: Kind,
}

/// The type of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// The path gives it, whatever else is said.
    Captured,
    Text,
    Int,
    Int64,
    /// A limit of a listing: a number, or `max`.
    Limit,
    Bool,
    Duration,
    SignedDuration,
    Ints,
    Texts,
    Map,
    Pairs,
    Time,
}

impl Field {
    /// A part of the path.
    pub const fn captured(name: &'static str) -> Self {
        Self { name, kind: Kind::Captured }
    }

    /// A string.
    pub const fn text(name: &'static str) -> Self {
        Self { name, kind: Kind::Text }
    }

    /// A whole number.
    pub const fn int(name: &'static str) -> Self {
        Self { name, kind: Kind::Int }
    }

    /// A whole number, where refusals say `int64`.
    pub const fn int64(name: &'static str) -> Self {
        Self { name, kind: Kind::Int64 }
    }

    /// A whole number, or `max`.
    pub const fn limit(name: &'static str) -> Self {
        Self { name, kind: Kind::Limit }
    }

    /// A yes or no.
    pub const fn bool(name: &'static str) -> Self {
        Self { name, kind: Kind::Bool }
    }

    /// A duration that is not negative.
    pub const fn duration(name: &'static str) -> Self {
        Self { name, kind: Kind::Duration }
    }

    /// A duration.
    pub const fn signed_duration(name: &'static str) -> Self {
        Self { name, kind: Kind::SignedDuration }
    }

    /// Whole numbers.
    pub const fn ints(name: &'static str) -> Self {
        Self { name, kind: Kind::Ints }
    }

    /// Strings.
    pub const fn texts(name: &'static str) -> Self {
        Self { name, kind: Kind::Texts }
    }

    /// An object.
    pub const fn map(name: &'static str) -> Self {
        Self { name, kind: Kind::Map }
    }

    /// Names and texts.
    pub const fn pairs(name: &'static str) -> Self {
        Self { name, kind: Kind::Pairs }
    }

    /// A moment.
    pub const fn time(name: &'static str) -> Self {
        Self { name, kind: Kind::Time }
    }

    /// What it is called.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    fn check(self, params: &Params<'_>) -> Result<(), FieldError> {
        let name = self.name;
        match self.kind {
            Kind::Captured => Ok(()),
            Kind::Text => params.string(name).map(drop),
            Kind::Int => params.int(name).map(drop),
            Kind::Int64 => params.int64(name).map(drop),
            Kind::Limit if matches!(params.string(name), Ok(Some(text)) if text == "max") => Ok(()),
            Kind::Limit => params.int(name).map(drop),
            Kind::Bool => params.bool(name).map(drop),
            Kind::Duration => params.duration(name).map(drop),
            Kind::SignedDuration => params.signed_duration(name).map(drop),
            Kind::Ints => params.ints(name).map(drop),
            Kind::Texts => params.strings(name).map(drop),
            Kind::Map => params.map(name).map(drop),
            Kind::Pairs => params.pairs(name).map(drop),
            Kind::Time => params.time(name).map(drop),
        }
    }
}

impl Params<'_> {
    /// Holds every field that came to its type.
    ///
    /// # Errors
    /// [`FieldError`] of the first one, in the order of `fields`, that does not fit.
    pub fn check(&self, fields: &[Field]) -> Result<(), FieldError> {
        if self.is_empty() { Ok(()) } else { fields.iter().try_for_each(|field| field.check(self)) }
    }

    /// The warnings about parameters that are none of `fields`, and about those that the path gives.
    pub fn warnings(&self, fields: &[Field]) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.is_empty() {
            return warnings;
        }
        let names = self.names();
        let declared = |name: &str| fields.iter().find(|field| field.name == name);
        let chosen = |wanted: fn(Option<&Field>) -> bool| {
            let chosen: Vec<_> = names.iter().map(AsRef::as_ref).filter(|name| wanted(declared(name))).collect();
            (!chosen.is_empty()).then(|| chosen.join(" "))
        };
        if let Some(unknown) = chosen(|field| field.is_none()) {
            warnings.push(format!("Endpoint ignored these unrecognized parameters: [{unknown}]"));
        }
        if let Some(twice) = chosen(|field| field.is_some_and(|field| field.kind == Kind::Captured)) {
            warnings.push(format!(
                "Endpoint replaced the value of these parameters with the values captured from the endpoint's path: [{twice}]"
            ));
        }
        warnings
    }
}
