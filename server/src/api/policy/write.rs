//! Writing a policy, as a whole or in part.

use keyward_model::Timestamp;
use keyward_policy::Operation;

use super::{Face, stored, text};
use crate::api::Context;
use crate::barrier::Draft;
use crate::http::answer::Answer;
use crate::policies::{self, Stored};
use crate::refusal::Refusal;

/// Longest policy name, in bytes.
const NAME_BYTES_MAX: usize = 512;

/// The version that stands for "there must be none yet".
const NONE_YET: i64 = -1;

/// What a call says of the policy.
struct Wish<'a> {
    name: &'a str,
    /// Only what is named is changed; else what is not named is reset.
    patch: bool,
    text: Option<String>,
    /// The version that must stand there.
    cas: Option<i64>,
    cas_required: Option<bool>,
    end: Option<End>,
    wildcards: Option<bool>,
    slashes: Option<bool>,
}

/// When the policy ends.
#[derive(Clone, Copy)]
enum End {
    At(Timestamp),
    /// So many seconds after it is written.
    After(i64),
}

/// Writes the policy `name`, which the caller wrote as `given`.
///
/// # Errors
/// What is asked for is not valid, or not for the version that stands there.
pub(super) async fn write(context: &Context<'_>, face: Face, given: &str, name: &str) -> Result<Answer, Refusal> {
    let mut warnings = Vec::new();
    let lower = given.to_lowercase();
    if given != lower {
        warnings.push(format!("policy name was converted to {lower}"));
    }
    let wish = Wish::read(context, face, name, &mut warnings)?;
    // Without an answer of its own there is no place for what the path does not know.
    if wish.patch || !warnings.is_empty() {
        warnings.extend(context.params.warnings(face.fields()));
    }
    let answer = |()| {
        let warned = Answer::warned(warnings.clone());
        Ok(if wish.patch && warnings.is_empty() { Answer::done() } else { warned })
    };
    let decide = |draft: &mut Draft<'_>| {
        let settled = wish.settle(draft)?;
        policies::put(draft, &settled)
    };
    context.write_answer(decide, answer).await
}

impl<'a> Wish<'a> {
    /// Reads the fields and looks at what can be judged without the policy that stands there, in the order of the API.
    fn read(context: &Context<'_>, face: Face, name: &'a str, warnings: &mut Vec<String>) -> Result<Self, Refusal> {
        let (params, patch) = (context.params, context.request.operation == Operation::Patch);
        let is_built_in = matches!(name, "root" | "response-wrapping");
        if name.is_empty() {
            return Err(Refusal::malformed("policy name must be provided in the URL"));
        }
        if patch && !is_built_in && stored(context, name)?.is_none() {
            return Err(not_found());
        }
        let mut given = params.string("policy")?;
        if face == Face::Old && given.as_ref().is_none_or(|text| text.is_empty()) {
            given = params.string("rules")?;
            warnings.push("'rules' is deprecated, please use 'policy' instead".into());
        }
        // WHY: a patch with `null` is one with an empty text, and the text of `root` is empty.
        let keeps = patch && name != "root" && params.get("policy").is_none();
        if !keeps && given.as_ref().is_none_or(|text| text.is_empty()) {
            return Err(Refusal::malformed("'policy' parameter not supplied or empty"));
        }
        let end = match (params.time("expiration")?, params.duration("ttl")?) {
            (Some(_), Some(_)) => {
                return Err(Refusal::malformed("cannot supply both 'expiration' and 'ttl' for policies"));
            }
            (at, after) => at.map(End::At).or(after.map(End::After)),
        };
        let elapsed = match end {
            Some(End::At(at)) => at <= context.worker.app.barrier.judged_at(),
            Some(End::After(seconds)) => seconds <= 0,
            None => false,
        };
        if elapsed {
            return Err(Refusal::malformed("refusing to update policy as expiration time has already elapsed"));
        }
        let text = given.map(|given| text::decoded(&given)).transpose()?;
        if let Some(text) = &text {
            keyward_policy::accept(text).map_err(|error| Refusal::malformed(error.to_string()))?;
        }
        if is_built_in {
            return Err(Refusal::malformed(format!("cannot update \"{name}\" policy")));
        }
        // It cannot be deleted, either: what every token may stays until somebody writes it anew.
        if name == "default" && end.is_some() {
            return Err(Refusal::malformed("cannot set an end for default policy"));
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(Refusal::malformed(format!("a policy name has at most {NAME_BYTES_MAX} bytes")));
        }
        Ok(Self {
            name,
            patch,
            text,
            cas: params.int("cas")?,
            cas_required: params.bool("cas_required")?,
            end,
            wildcards: params.bool("allow_wildcards_in_identity_templates")?,
            slashes: params.bool("allow_slashes_in_identity_templates")?,
        })
    }

    /// The policy as it will stand.
    fn settle(&self, draft: &mut Draft<'_>) -> Result<Stored, Refusal> {
        let before = policies::get(draft, self.name)?;
        if self.patch && before.is_none() {
            return Err(not_found());
        }
        self.is_for(before.as_ref())?;
        let now = draft.now();
        let mut next = Stored::new(self.name, String::new(), now);
        if let Some(before) = before {
            (next.version, next.versioned) = (before.version + 1, before.versioned);
            if self.patch {
                next = Stored { version: next.version, modified: now, ..before };
            }
        }
        if let Some(text) = &self.text {
            next.text.clone_from(text);
        }
        match self.end {
            Some(End::At(at)) => next.expires = Some(at),
            Some(End::After(seconds)) => next.expires = Some(now.plus_seconds(seconds)),
            None => {}
        }
        next.versioned |= self.cas.is_some();
        next.cas_required = self.cas_required.unwrap_or(next.cas_required);
        next.allow_wildcards_in_templates = self.wildcards.unwrap_or(next.allow_wildcards_in_templates);
        next.allow_slashes_in_templates = self.slashes.unwrap_or(next.allow_slashes_in_templates);
        Ok(next)
    }

    /// Whether the version that stands there is the one that is meant. A patch is always for what it finds.
    fn is_for(&self, before: Option<&Stored>) -> Result<(), Refusal> {
        let required = self.cas_required == Some(true) || before.is_some_and(|before| before.cas_required);
        let version = before.map_or(0, |before| before.version);
        match self.cas {
            None if required && !self.patch => {
                Err(Refusal::malformed("check-and-set parameter required for this call"))
            }
            Some(NONE_YET) if before.is_some() => {
                Err(Refusal::malformed("check-and-set parameter set to -1 on existing entry"))
            }
            None | Some(NONE_YET) => Ok(()),
            Some(cas) if u64::try_from(cas) == Ok(version) => Ok(()),
            Some(_) => Err(Refusal::malformed("check-and-set parameter did not match the current version")),
        }
    }
}

fn not_found() -> Refusal {
    Refusal::malformed("policy not found")
}
