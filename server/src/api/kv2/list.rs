//! Lists and scans of names, with paging and the policy's filter.

use keyward_model::Table;
use keyward_policy::{KeysFilter, Operation};

use super::{DETAILED_METADATA, METADATA, decode, secrets};
use crate::api::Context;
use crate::barrier::{open, storage};
use crate::engine::kv::{SecretRecord, render};
use crate::http::answer::Answer;
use crate::http::fields::FieldError;
use crate::refusal::Refusal;

/// `LIST metadata/<folder>`, `SCAN metadata/<folder>`.
///
/// # Errors
/// Nothing there.
pub(super) fn names(context: &Context<'_>, folder: &str) -> Result<Answer, Refusal> {
    context.params.check(&METADATA)?;
    let names = page(context, folder)?;
    if let Some(empty) = nothing(context, &names) {
        return empty.map(|empty| context.with_parameter_warnings(empty, &METADATA));
    }
    let mut out = Vec::new();
    render::keys(&mut out, names.iter().map(String::as_str));
    Ok(context.with_parameter_warnings(Answer::json(out), &METADATA))
}

/// The same with each key's metadata.
///
/// # Errors
/// Nothing there.
pub(super) fn detailed(context: &Context<'_>, folder: &str) -> Result<Answer, Refusal> {
    context.params.check(&DETAILED_METADATA)?;
    let names = page(context, folder)?;
    if let Some(empty) = nothing(context, &names) {
        return empty.map(|empty| context.with_parameter_warnings(empty, &DETAILED_METADATA));
    }
    let keys = context.keys()?;
    let tree = secrets(context.mount()?);
    let mut records: Vec<Option<SecretRecord>> = Vec::with_capacity(names.len());
    for name in &names {
        let row = if name.ends_with('/') {
            None
        } else {
            let key = tree.key(&keys, &format!("{folder}{name}"));
            context.reader().row(Table::Secrets, &key).map_err(storage)?
        };
        records.push(row.map(|row| decode(&open(&keys, Table::Secrets, &row)?)).transpose()?);
    }
    let mut out = Vec::new();
    render::detailed_keys(&mut out, names.iter().map(String::as_str).zip(records.iter().map(Option::as_ref)));
    Ok(context.with_parameter_warnings(Answer::json(out), &DETAILED_METADATA))
}

/// A list of nothing is 404, a scan of nothing an empty answer.
fn nothing(context: &Context<'_>, names: &[String]) -> Option<Result<Answer, Refusal>> {
    if !names.is_empty() {
        return None;
    }
    Some(match context.request.operation {
        Operation::Scan if context.permit.keys_filter().is_some() => Ok(Answer::json(b"{\"keys\":[]}".to_vec())),
        Operation::Scan => Ok(Answer::json(b"{}".to_vec())),
        _ => Err(Refusal::Absent),
    })
}

/// The names that this request gets: filtered first, then cut to its page.
fn page(context: &Context<'_>, folder: &str) -> Result<Vec<String>, Refusal> {
    let after = context.params.string("after")?.unwrap_or_default();
    let limit = limit(context)?;
    let keys = context.keys()?;
    let tree = secrets(context.mount()?);
    let folder = folder.strip_suffix('/').unwrap_or(folder);
    let mut names = if context.request.operation == Operation::Scan {
        tree.scan(&keys, context.reader(), folder)?
    } else {
        tree.list(&keys, context.reader(), folder)?
    };
    if let Some(filter) = context.permit.keys_filter() {
        names = readable(context, filter, names)?;
    }
    if !after.is_empty() {
        names.retain(|name| name.as_str() > after.as_ref());
    }
    if let Some(limit) = limit {
        names.truncate(limit);
    }
    Ok(names)
}

/// How many names at most: the policy's cap, else what the request asks for. `max` and nothing mean all.
fn limit(context: &Context<'_>) -> Result<Option<usize>, Refusal> {
    if let Some(cap) = context.permit.pagination_limit() {
        return Ok(usize::try_from(cap).ok().filter(|cap| *cap > 0));
    }
    if context.params.string("limit").ok().flatten().as_deref() == Some("max") {
        return Ok(None);
    }
    let asked: Result<Option<i64>, FieldError> = context.params.int("limit");
    Ok(asked?.and_then(|asked| usize::try_from(asked).ok()).filter(|asked| *asked > 0))
}

/// The names that pass the filter of the policy that allowed the listing.
///
/// # Errors
/// Sealed meanwhile.
pub fn readable(context: &Context<'_>, filter: &KeysFilter, names: Vec<String>) -> Result<Vec<String>, Refusal> {
    let acl = context.worker.acl(context.session()?)?;
    Ok(names.into_iter().filter(|name| acl.1.shows(filter, &context.request.path, name)).collect())
}
