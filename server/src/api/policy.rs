//! ACL policies: `sys/policies/acl`, and the older `sys/policy`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_model::Table;
use keyward_policy::{Ask, Operation};
use serde_json::{Value, json};

use super::Context;
use crate::barrier::Columns;
use crate::http::answer::Answer;
use crate::http::fields::Field;
use crate::policies::{self, Stored};
use crate::refusal::Refusal;

/// Longest policy name, in bytes.
const NAME_BYTES_MAX: usize = 512;

const FIELDS: [Field; 3] = [Field::text("name"), Field::text("policy"), Field::text("rules")];

/// The two faces of the same policies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Face {
    /// `sys/policies/acl`.
    Acl,
    /// `sys/policy`.
    Old,
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
            (Operation::List, _) | (Operation::Read, Face::Old) => list(context, face),
            _ => Err(Refusal::UnsupportedOperation),
        };
    }
    let given = name.strip_suffix('/').unwrap_or(name);
    let name = given.to_lowercase();
    if name != given {
        may_lower_case(context, given, &name)?;
    }
    match operation {
        Operation::Read => read(context, face, &name),
        Operation::Create | Operation::Update => write(context, face, given, &name).await,
        Operation::Delete => delete(context, &name).await,
        _ => Err(Refusal::UnsupportedOperation),
    }
}

/// A policy's name is its lower case: whoever writes it with capitals needs the right to the path in lower case, too.
fn may_lower_case(context: &Context<'_>, given: &str, name: &str) -> Result<(), Refusal> {
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
    let opened = context.worker.app.barrier.read(context.reader(), Table::Policies, &key)?;
    opened.map(|opened| policies::decode(opened.body.expose())).transpose()
}

/// Names in order, with `root` last, as clients know it.
fn names(context: &Context<'_>) -> Result<Vec<String>, Refusal> {
    let tables = context.worker.tables()?;
    let mut names: Vec<String> = tables.policies.keys().cloned().collect();
    names.sort_unstable();
    names.push("root".into());
    Ok(names)
}

fn list(context: &Context<'_>, face: Face) -> Result<Answer, Refusal> {
    let names = names(context)?;
    let answer = match face {
        Face::Acl => Answer::data(&json!({ "keys": names })),
        Face::Old => Answer::injected(&json!({ "keys": names, "policies": names })),
    };
    Ok(context.with_parameter_warnings(answer, &[]))
}

fn detailed(context: &Context<'_>) -> Result<Answer, Refusal> {
    if !matches!(context.rest(), "policies/detailed/acl/" | "policies/detailed/acl") {
        return Err(Refusal::UnsupportedPath);
    }
    if context.request.operation != Operation::List {
        return Err(Refusal::UnsupportedOperation);
    }
    let names = names(context)?;
    let mut info = serde_json::Map::new();
    for name in &names {
        if let Some(shown) = shown(context, name)? {
            info.insert(name.clone(), shown);
        }
    }
    Ok(Answer::data(&json!({ "key_info": info, "keys": names })))
}

/// What a read shows: name and text, and nothing that stands for a feature not in use.
fn shown(context: &Context<'_>, name: &str) -> Result<Option<Value>, Refusal> {
    Ok(match name {
        "root" => Some(json!({ "name": "root", "policy": "" })),
        "response-wrapping" => Some(json!({ "name": name, "policy": keyward_policy::RESPONSE_WRAPPING_POLICY })),
        _ => stored(context, name)?.map(|stored| json!({ "name": stored.name, "policy": stored.text })),
    })
}

fn read(context: &Context<'_>, face: Face, name: &str) -> Result<Answer, Refusal> {
    let mut shown = shown(context, name)?.ok_or(Refusal::Absent)?;
    Ok(match face {
        Face::Acl => Answer::data(&shown),
        Face::Old => {
            let text = shown.as_object_mut().and_then(|map| map.remove("policy")).unwrap_or_default();
            shown["rules"] = text;
            Answer::injected(&shown)
        }
    })
}

async fn write(context: &Context<'_>, face: Face, given: &str, name: &str) -> Result<Answer, Refusal> {
    let mut warnings = Vec::new();
    if given != name {
        warnings.push(format!("policy name was converted to {name}"));
    }
    let text = context.params.string("policy")?.filter(|text| !text.is_empty());
    let text = match (text, face) {
        (Some(text), _) => Some(text),
        (None, Face::Old) => {
            let rules = context.params.string("rules")?.filter(|text| !text.is_empty());
            if rules.is_some() {
                warnings.push("'rules' is deprecated, please use 'policy' instead".into());
            }
            rules
        }
        (None, Face::Acl) => None,
    };
    let text = text.ok_or_else(|| Refusal::malformed("'policy' parameter not supplied or empty"))?;
    // Text that decodes as base64 is taken for an encoded policy.
    let text = STANDARD
        .decode(text.as_bytes())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or_else(|| text.into_owned());
    keyward_policy::parse(&text).map_err(|error| Refusal::malformed(error.to_string()))?;
    if matches!(name, "root" | "response-wrapping") {
        return Err(Refusal::malformed(format!("cannot update \"{name}\" policy")));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(Refusal::malformed(format!("a policy name has at most {NAME_BYTES_MAX} bytes")));
    }
    warnings.splice(0..0, context.params.warnings(&FIELDS));
    context
        .write_answer(
            |draft| {
                let key = policies::key_of(draft.keyring(), name);
                let before = draft.get(Table::Policies, &key)?;
                let version = match before {
                    Some(opened) => policies::decode(opened.body.expose())?.version + 1,
                    None => 1,
                };
                let stored = Stored { name: name.into(), text: text.clone(), modified: draft.now(), version };
                let body = serde_json::to_vec(&stored).map_err(|error| Refusal::internal(error.to_string()))?;
                draft.put(Table::Policies, &key, Columns::default(), &body)
            },
            |()| Ok(Answer::warned(warnings.clone())),
        )
        .await
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
