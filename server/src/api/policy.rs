//! ACL policies: `sys/policies/acl`, and the older `sys/policy`.

mod text;

mod write;

use std::cmp::Ordering;

use keyward_model::{Table, Timestamp};
use keyward_policy::{Ask, Operation};
use serde_json::{Value, json};

use super::Context;
use crate::http::answer::Answer;
use crate::http::fields::Field;
use crate::policies::{self, Stored};
use crate::refusal::Refusal;

/// What `sys/policy` takes; `sys/policies/acl` does not know the last.
const FIELDS: [Field; 9] = [
    Field::bool("allow_slashes_in_identity_templates"),
    Field::bool("allow_wildcards_in_identity_templates"),
    Field::int("cas"),
    Field::bool("cas_required"),
    Field::time("expiration"),
    Field::captured("name"),
    Field::text("policy"),
    Field::duration("ttl"),
    Field::text("rules"),
];

const DETAILED: [Field; 2] = [Field::bool("list"), Field::captured("name")];

/// The two faces of the same policies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Face {
    /// `sys/policies/acl`.
    Acl,
    /// `sys/policy`.
    Old,
}

impl Face {
    fn fields(self) -> &'static [Field] {
        let [known @ .., _] = &FIELDS;
        match self {
            Self::Acl => known,
            Self::Old => &FIELDS,
        }
    }
}

/// Answers the family.
///
/// # Errors
/// What the endpoint refuses; no such path or verb.
pub async fn act(context: &Context<'_>) -> Result<Answer, Refusal> {
    context.note(|facts| facts.object = Some("policy"));
    let rest = context.rest();
    let operation = context.request.operation;
    let (face, name) = if let Some(name) = rest.strip_prefix("policies/acl") {
        (Face::Acl, name)
    } else if let Some(name) = rest.strip_prefix("policy") {
        (Face::Old, name)
    } else {
        return detailed(context);
    };
    let name = match name.strip_prefix('/') {
        Some(name) => name,
        None if name.is_empty() => name,
        None => return Err(Refusal::UnsupportedPath),
    };
    if name.is_empty() {
        return match (operation, face) {
            (Operation::List, _) | (Operation::Read, Face::Old) => list(context, face, name, &[]),
            _ => Err(Refusal::UnsupportedOperation),
        };
    }
    if operation == Operation::List {
        return list(context, face, name, face.fields());
    }
    let given = name.strip_suffix('/').unwrap_or(name);
    let lower = given.to_lowercase();
    let name = lower.trim();
    if name != given {
        may_by_its_name(context, given, name)?;
    }
    let reference = policies::reference(&*context.keys()?, name);
    context.note(|facts| facts.resource_ref = Some(reference));
    context.params.check(face.fields())?;
    match (operation, face) {
        (Operation::Read, _) => read(context, face, name),
        (Operation::Create | Operation::Update, _) | (Operation::Patch, Face::Acl) => {
            write::write(context, face, given, name).await
        }
        (Operation::Delete, _) => delete(context, name).await,
        _ => Err(Refusal::UnsupportedOperation),
    }
}

/// A policy's name is its lower case without the blanks around it: whoever writes it otherwise needs the right to that path,
/// too.
fn may_by_its_name(context: &Context<'_>, given: &str, name: &str) -> Result<(), Refusal> {
    let path = context.request.path.trim_end_matches('/');
    let path = format!("{}{name}", path.strip_suffix(given).unwrap_or_default());
    let acl = context.worker.acl(context.session()?)?;
    let ask = Ask {
        operation: context.request.operation,
        path: &path,
        parameters: Some(context.params),
        wrap_ttl: context.request.wrap_ttl,
    };
    if acl.1.decide(&ask).allowed { Ok(()) } else { Err(Refusal::Denied) }
}

fn stored(context: &Context<'_>, name: &str) -> Result<Option<Stored>, Refusal> {
    let keys = context.keys()?;
    let key = policies::key_of(&keys, name);
    let barrier = &context.worker.app.barrier;
    let opened = barrier.read(context.reader(), Table::Policies, &key)?;
    let stored = opened.map(|opened| policies::decode(opened.body.expose())).transpose()?;
    Ok(stored.filter(|stored| !stored.is_expired(barrier.judged_at())))
}

/// Names that begin with `prefix`, as clients know their order.
fn names(context: &Context<'_>, prefix: &str) -> Result<Vec<String>, Refusal> {
    let (tables, now) = (context.worker.tables()?, context.worker.app.barrier.judged_at());
    let standing = tables.policies.iter().filter(|(name, policy)| name.starts_with(prefix) && !policy.is_expired(now));
    let mut names: Vec<String> = standing.map(|(name, _)| name.clone()).collect();
    names.sort_unstable_by(|a, b| listed_before(a, b));
    Ok(names)
}

/// Of a folder first the names in it, then the folders in it from the last to the first.
fn listed_before(a: &str, b: &str) -> Ordering {
    match (a.split_once('/'), b.split_once('/')) {
        (Some((a, below_a)), Some((b, below_b))) if a == b => listed_before(below_a, below_b),
        (Some((a, _)), Some((b, _))) => b.cmp(a),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => a.cmp(b),
    }
}

/// All names, with `root` as the last, or those below a folder.
fn list(context: &Context<'_>, face: Face, prefix: &str, fields: &[Field]) -> Result<Answer, Refusal> {
    context.params.check(fields)?;
    let mut names = names(context, prefix)?;
    if prefix.is_empty() {
        names.push("root".into());
    }
    let answer = match face {
        Face::Acl if names.is_empty() => return Err(Refusal::Absent),
        Face::Old if names.is_empty() => Answer::injected(&json!({ "policies": null })),
        Face::Acl => Answer::data(&json!({ "keys": names })),
        Face::Old => Answer::injected(&json!({ "keys": names, "policies": names })),
    };
    Ok(context.with_parameter_warnings(answer, fields))
}

/// The same with what a read shows of each; `root` is always among them.
fn detailed(context: &Context<'_>) -> Result<Answer, Refusal> {
    let rest = context.rest().strip_prefix("policies/detailed/acl").ok_or(Refusal::UnsupportedPath)?;
    let prefix = match rest.strip_prefix('/') {
        Some(prefix) => prefix,
        None if rest.is_empty() => rest,
        None => return Err(Refusal::UnsupportedPath),
    };
    if context.request.operation != Operation::List {
        return Err(Refusal::UnsupportedOperation);
    }
    let fields = if prefix.is_empty() { &DETAILED[..1] } else { &DETAILED };
    context.params.check(fields)?;
    let mut names = names(context, prefix)?;
    names.push("root".into());
    let mut info = serde_json::Map::new();
    for name in &names {
        if let Some(shown) = shown(context, name, true)? {
            info.insert(name.clone(), shown);
        }
    }
    Ok(context.with_parameter_warnings(Answer::data(&json!({ "key_info": info, "keys": names })), fields))
}

/// What a read shows: of a plain policy its name and text, unless `all` is wanted.
fn shown(context: &Context<'_>, name: &str, all: bool) -> Result<Option<Value>, Refusal> {
    let built_in = |text: &str| Some(Stored { version: 0, ..Stored::new(name, text.to_owned(), Timestamp::default()) });
    let stored = match name {
        "root" => built_in(""),
        "response-wrapping" => built_in(keyward_policy::RESPONSE_WRAPPING_POLICY),
        _ => stored(context, name)?,
    };
    Ok(stored.map(|stored| {
        let mut shown = json!({ "name": stored.name, "policy": stored.text });
        // WHY: clients of before these members came compare the answer with just those two.
        if stored.is_plain() && !all {
            return shown;
        }
        shown["version"] = stored.version.into();
        shown["cas_required"] = stored.cas_required.into();
        shown["allow_wildcards_in_identity_templates"] = stored.allow_wildcards_in_templates.into();
        shown["allow_slashes_in_identity_templates"] = stored.allow_slashes_in_templates.into();
        if stored.version > 0 {
            shown["modified"] = stored.modified.rfc3339().into();
        }
        if let Some(at) = stored.expires {
            shown["expiration"] = at.rfc3339().into();
        }
        shown
    }))
}

fn read(context: &Context<'_>, face: Face, name: &str) -> Result<Answer, Refusal> {
    let mut shown = shown(context, name, false)?.ok_or(Refusal::Absent)?;
    let answer = match face {
        Face::Acl => Answer::data(&shown),
        Face::Old => {
            let text = shown.as_object_mut().and_then(|map| map.remove("policy")).unwrap_or_default();
            shown["rules"] = text;
            Answer::injected(&shown)
        }
    };
    Ok(context.with_parameter_warnings(answer, face.fields()))
}

async fn delete(context: &Context<'_>, name: &str) -> Result<Answer, Refusal> {
    match name {
        "root" | "response-wrapping" => return Err(Refusal::malformed(format!("cannot delete \"{name}\" policy"))),
        "default" => return Err(Refusal::malformed("cannot delete default policy")),
        _ => {}
    }
    context
        .write_answer(
            |draft| {
                let key = policies::key_of(draft.keyring(), name);
                draft.remove(Table::Policies, &key)
            },
            |()| Ok(Answer::no_content()),
        )
        .await
}

#[cfg(test)]
mod tests;
