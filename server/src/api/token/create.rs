//! A new token.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use keyward_model::event::EventKind;
use keyward_model::{Secret, Timestamp};

use super::auth;
use crate::api::Context;
use crate::authn::token::issue::{self, Wish};
use crate::authn::token::ttl::{self, Bounds, SECOND};
use crate::authn::token::{self, Token, TokenKind};
use crate::http::answer::Answer;
use crate::http::fields::{Field, Input, Params};
use crate::http::json::{Kind, Raw};
use crate::http::{duration, gotext};
use crate::refusal::Refusal;

const FIELDS: [Field; 14] = [
    Field::text("display_name"),
    Field::text("entity_alias"),
    Field::text("explicit_max_ttl"),
    Field::text("id"),
    Field::text("lease"),
    Field::pairs("meta"),
    Field::bool("no_default_policy"),
    Field::bool("no_parent"),
    Field::int("num_uses"),
    Field::text("period"),
    Field::texts("policies"),
    Field::bool("renewable"),
    Field::text("ttl"),
    Field::text("type"),
];

const WEAK_ID: &str = "Supplying a custom ID for the token uses the weaker SHA1 hashing instead of the more secure \
                       SHA2-256 HMAC for token obfuscation. SHA1 hashed tokens on the wire leads to less secure lookups.";

/// Whose child the new token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Line {
    /// The caller's, unless it asks for none.
    Child,
    /// Nobody's.
    Orphan,
}

/// What the caller asks for, in its types, nothing judged yet.
struct Call {
    chosen: Option<Secret<String>>,
    display_name: String,
    entity_alias: bool,
    explicit_max_ttl: String,
    kind: String,
    lease: String,
    meta: Option<BTreeMap<String, String>>,
    no_default_policy: bool,
    no_parent: bool,
    period: String,
    policies: Vec<String>,
    renewable: bool,
    ttl: String,
    uses: i64,
}

/// Lives that were asked for, in nanoseconds; 0 for none.
#[derive(Clone, Copy)]
struct Lives {
    explicit_max: i64,
    period: i64,
    ttl: i64,
}

/// Issues a token below the caller's, or one without a parent.
pub(super) async fn create(context: &Context<'_>, line: Line) -> Result<Answer, Refusal> {
    let call = Call::read(context.params)?;
    let session = context.session()?;
    let parent = &session.token;
    let sudo = context.permit.sudo();
    let no_parent = Refusal::Malformed("parent token lookup failed: no parent found".into());
    match parent.uses {
        0 => {}
        ..0 => return Err(no_parent), // its last use is this one
        1.. => return Err(Refusal::malformed("restricted use token cannot generate child tokens")),
    }
    call.check(sudo)?;
    let wish = Wish { given: &call.policies, parent: &parent.policies, sudo, no_default: call.no_default_policy };
    let policies = issue::policies(&wish).map_err(Refusal::Malformed)?;
    if call.no_parent && !sudo {
        return Err(Refusal::malformed("root or sudo privileges required to create orphan token"));
    }
    let orphan = call.no_parent || line == Line::Orphan;
    let lives = call.lives(sudo)?;

    let entropy = context.worker.app.barrier.entropy();
    let drawn = call.chosen.is_none().then(|| token::fresh(entropy));
    let Some(text) = call.chosen.as_ref().or(drawn.as_ref()) else {
        return Err(Refusal::internal("no token was drawn"));
    };
    let key = token::key_of(&*context.keys()?, text.expose());
    let mount = context.mount()?;
    let bounds = Bounds {
        default: mount.default_lease().saturating_mul(SECOND),
        max: mount.max_lease().saturating_mul(SECOND),
        explicit_max: lives.explicit_max,
        period: lives.period,
    };
    let received = context.request.received;
    let mut fresh = Token {
        display_name: issue::display_name(&call.display_name),
        meta: call.meta.clone(),
        orphan,
        explicit_max_ttl_s: ttl::seconds_up(lives.explicit_max),
        period_s: ttl::seconds_up(lives.period),
        uses: call.uses,
        uses_made: call.uses,
        renewable: call.renewable,
        ..Token::new(TokenKind::Service, &context.request.path, policies, received, entropy)
    };
    context.note(|facts| facts.set(EventKind::TokenIssued, "create", "token"));
    let warning = context
        .write(|draft| {
            let now = draft.now();
            let parent = token::get(draft, &session.key)?.filter(|(parent, _)| !parent.is_expired(now));
            let Some((parent, _)) = parent else { return Err(no_parent.clone()) };
            let warning = fresh.begin(&bounds, lives.ttl, now)?;
            if fresh.expires.is_none() && parent.expires.is_some() {
                return Err(Refusal::malformed("expiring root tokens cannot create non-expiring root tokens"));
            }
            if let Some(chosen) = &call.chosen {
                issue::check_chosen(chosen.expose()).map_err(Refusal::malformed)?;
            }
            if token::get(draft, &key)?.is_some() {
                return Err(Refusal::malformed("cannot create a token with a duplicate ID"));
            }
            token::put(draft, &key, &fresh, if orphan { b"" } else { &session.key })?;
            Ok(warning)
        })
        .await?;

    let mut answer = Answer::auth(auth(&fresh, text.expose(), fresh.creation_ttl_s));
    let (known, now) = (context.worker.tables()?, context.worker.app.barrier.judged_at());
    let stands = |name: &str| known.policies.get(name).is_some_and(|policy| !policy.is_expired(now));
    let ghosts = fresh.policies.iter().filter(|name| *name != "root" && !stands(name));
    let ghosts = ghosts.map(|name| format!("Policy {} does not exist", gotext::quote(name)));
    let weak = call.chosen.as_ref().map(|_| WEAK_ID.to_owned());
    for warning in warning.into_iter().chain(weak).chain(ghosts) {
        answer.warn(warning);
    }
    Ok(context.with_parameter_warnings(answer, &FIELDS))
}

impl Call {
    fn read(params: &Params<'_>) -> Result<Self, Refusal> {
        let text = |field| params.string(field).map(|text| text.map(Cow::into_owned).unwrap_or_default());
        let meta = match params.get("meta") {
            Some(Input::Json(raw)) if raw.kind() == Kind::Null => None,
            _ => params.pairs("meta")?,
        };
        Ok(Self {
            chosen: Some(Secret::new(text("id")?)).filter(|id| !id.expose().is_empty()),
            display_name: text("display_name")?,
            entity_alias: !text("entity_alias")?.is_empty(),
            explicit_max_ttl: text("explicit_max_ttl")?,
            kind: text("type")?,
            lease: text("lease")?,
            meta,
            no_default_policy: params.bool("no_default_policy")?.unwrap_or(false),
            no_parent: params.bool("no_parent")?.unwrap_or(false),
            period: text("period")?,
            policies: names(params)?,
            renewable: params.bool("renewable")?.unwrap_or(true),
            ttl: text("ttl")?,
            uses: params.int("num_uses")?.unwrap_or(0),
        })
    }

    /// What can be refused without looking at policies or times.
    fn check(&self, sudo: bool) -> Result<(), Refusal> {
        match self.kind.as_str() {
            "" | "service" => {}
            "batch" => {
                return Err(Refusal::malformed(
                    "batch tokens are not offered: leave `type` out or ask for \"service\"",
                ));
            }
            _ => return Err(Refusal::malformed("invalid 'token_type' value")),
        }
        if self.uses < 0 {
            return Err(Refusal::malformed("number of uses cannot be negative"));
        }
        if self.entity_alias {
            return Err(Refusal::malformed("'entity_alias' is only allowed in combination with token role"));
        }
        if self.chosen.is_some() && !sudo {
            return Err(Refusal::malformed("root or sudo privileges required to specify token id"));
        }
        Ok(())
    }

    fn lives(&self, sudo: bool) -> Result<Lives, Refusal> {
        let explicit_max = nanos("explicit_max_ttl", &self.explicit_max_ttl)?;
        let period = nanos("period", &self.period)?;
        if period > 0 && !sudo {
            return Err(Refusal::malformed("root or sudo privileges required to create periodic token"));
        }
        let ttl = if self.ttl.is_empty() { nanos("lease", &self.lease)? } else { nanos("ttl", &self.ttl)? };
        Ok(Lives { explicit_max, period, ttl })
    }
}

impl Token {
    /// Begins the token's life at `now`, with `wanted` nanoseconds if that is allowed. Only a root token may live for ever.
    fn begin(&mut self, bounds: &Bounds, wanted: i64, now: Timestamp) -> Result<Option<String>, Refusal> {
        (self.created, self.issued) = (now, Some(now));
        let (ttl, warning) = if bounds.period == 0 && wanted == 0 && self.is_root() {
            (bounds.explicit_max, None)
        } else {
            let granted = ttl::grant(bounds, wanted, now, now);
            let granted = granted.ok_or(Refusal::internal("the token mount allows no life at all"))?;
            (granted.ttl, granted.warning)
        };
        self.creation_ttl_s = ttl::seconds(ttl);
        self.ttl_s = self.creation_ttl_s;
        self.expires = (ttl > 0).then(|| ttl::end(ttl, bounds.explicit_max, now, now));
        self.renewable &= ttl > 0;
        Ok(warning)
    }
}

/// A life that was asked for, in nanoseconds.
fn nanos(field: &str, text: &str) -> Result<i64, Refusal> {
    let nanos = duration::parse(text).map_err(Refusal::Malformed)?;
    if nanos < 0 { Err(Refusal::malformed(format!("{field} must be positive"))) } else { Ok(nanos) }
}

/// `policies`: a list of names, or one name; commas are part of it.
fn names(params: &Params<'_>) -> Result<Vec<String>, Refusal> {
    let items: Vec<Raw<'_>> = match params.get("policies") {
        None => return Ok(Vec::new()),
        Some(Input::Query(values)) => return Ok(values.to_vec()),
        Some(Input::Json(raw)) => match raw.kind() {
            Kind::Null => return Ok(Vec::new()),
            Kind::Array => raw.elements().collect(),
            Kind::Object if raw.members().next().is_none() => return Ok(Vec::new()),
            Kind::String if raw.string().is_some_and(|text| text.is_empty()) => return Ok(Vec::new()),
            Kind::Object | Kind::String | Kind::Bool | Kind::Number => vec![raw],
        },
    };
    let (mut names, mut faults) = (Vec::new(), String::new());
    for (at, item) in items.into_iter().enumerate() {
        match item.kind() {
            Kind::String => names.push(item.string().unwrap_or_default().into_owned()),
            Kind::Number => names.push(item.text().to_owned()),
            Kind::Bool => names.push(if item.text() == "true" { "1" } else { "0" }.to_owned()),
            Kind::Null => names.push(String::new()),
            Kind::Array | Kind::Object => {
                let kind = if item.kind() == Kind::Array { "[]interface {}" } else { "map[string]interface {}" };
                // Writing to a string cannot fail.
                let _ = write!(faults, "\n'[{at}]' expected type 'string', got unconvertible type '{kind}'");
            }
        }
    }
    if faults.is_empty() {
        return Ok(names);
    }
    Err(Refusal::malformed(format!(
        "Field validation failed: error converting input for field \"policies\": decoding failed due to the following error(s):\n{faults}"
    )))
}

#[cfg(test)]
mod tests;
