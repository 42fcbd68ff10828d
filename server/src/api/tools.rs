//! `sys/tools/random` and `sys/tools/hash`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_policy::Operation;
use serde_json::json;
use sha2::Digest as _;

use super::Context;
use crate::http::answer::Answer;
use crate::http::fields::Field;
use crate::refusal::Refusal;

/// Most random bytes in one answer.
const RANDOM_BYTES_MAX: i64 = 131_072;
const RANDOM: [Field; 4] =
    [Field::captured("source"), Field::captured("urlbytes"), Field::int("bytes"), Field::text("format")];
const HASH: [Field; 4] =
    [Field::captured("urlalgorithm"), Field::text("algorithm"), Field::text("format"), Field::text("input")];

/// Answers below `sys/tools/`.
///
/// # Errors
/// No such path or verb, or parameters out of bounds.
pub fn act(context: &Context<'_>) -> Result<Answer, Refusal> {
    let rest = context.rest().strip_prefix("tools/").unwrap_or_default();
    let (tool, below) = rest.split_once('/').unwrap_or((rest, ""));
    let update = matches!(context.request.operation, Operation::Create | Operation::Update);
    match tool {
        "random" if update => random(context, below),
        "hash" if update => hash(context, below),
        "random" | "hash" => Err(Refusal::UnsupportedOperation),
        _ => Err(Refusal::UnsupportedPath),
    }
}

fn random(context: &Context<'_>, below: &str) -> Result<Answer, Refusal> {
    context.params.check(&RANDOM)?;
    let (source, count) = match below.split_once('/') {
        Some((source, count)) => (Some(source), count),
        None if ["platform", "seal", "all"].contains(&below) => (Some(below), ""),
        None => (None, below),
    };
    if let Some(source) = source
        && !["platform", "seal", "all"].contains(&source)
    {
        return Err(Refusal::malformed(format!(
            "unsupported entropy source \"{source}\"; must be \"platform\" or \"seal\", or \"all\""
        )));
    }
    let bytes = match count {
        "" => context.params.int("bytes")?.unwrap_or(32),
        text if text.starts_with('-') => 32,
        text => text.parse().map_err(|_| {
            Refusal::malformed(format!(
                "error parsing url-set byte count: strconv.Atoi: parsing {}: invalid syntax",
                crate::http::gotext::quote(text)
            ))
        })?,
    };
    if bytes < 1 {
        return Err(Refusal::malformed("'bytes' cannot be less than 1"));
    }
    if bytes > RANDOM_BYTES_MAX {
        return Err(Refusal::malformed("'bytes' should be less than 131072"));
    }
    let mut out = vec![0; usize::try_from(bytes).unwrap_or(32)];
    context.worker.app.barrier.entropy().fill(&mut out);
    let text = match context.params.string("format")?.as_deref() {
        None | Some("" | "base64") => STANDARD.encode(&out),
        Some("hex") => hex::encode(&out),
        Some(other) => {
            return Err(Refusal::malformed(format!(
                "unsupported encoding format \"{other}\"; must be \"hex\" or \"base64\""
            )));
        }
    };
    let answer = Answer::data(&json!({ "random_bytes": text }));
    Ok(context.with_parameter_warnings(answer, &RANDOM))
}

fn hash(context: &Context<'_>, below: &str) -> Result<Answer, Refusal> {
    context.params.check(&HASH)?;
    let given = context.params.string("algorithm")?.unwrap_or_default();
    let algorithm = match (below, given.as_ref()) {
        ("", "") => "sha2-256",
        ("", given) => given,
        (path, _) => path,
    };
    let input = context.params.string("input")?.unwrap_or_default();
    let input = STANDARD.decode(input.as_bytes()).map_err(|error| {
        let at = match error {
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            base64::DecodeError::InvalidLength(at) => at,
            base64::DecodeError::InvalidPadding => input.len(),
        };
        Refusal::malformed(format!("unable to decode input as base64: illegal base64 data at input byte {at}"))
    })?;
    let sum = match algorithm {
        "sha2-224" => sha2::Sha224::digest(&input).to_vec(),
        "sha2-256" => sha2::Sha256::digest(&input).to_vec(),
        "sha2-384" => sha2::Sha384::digest(&input).to_vec(),
        "sha2-512" => sha2::Sha512::digest(&input).to_vec(),
        "sha3-224" => sha3::Sha3_224::digest(&input).to_vec(),
        "sha3-256" => sha3::Sha3_256::digest(&input).to_vec(),
        "sha3-384" => sha3::Sha3_384::digest(&input).to_vec(),
        "sha3-512" => sha3::Sha3_512::digest(&input).to_vec(),
        other => return Err(Refusal::malformed(format!("unsupported algorithm {other}"))),
    };
    let text = match context.params.string("format")?.as_deref() {
        None | Some("" | "hex") => hex::encode(sum),
        Some("base64") => STANDARD.encode(sum),
        Some(other) => {
            return Err(Refusal::malformed(format!(
                "unsupported encoding format {other}; must be \"hex\" or \"base64\""
            )));
        }
    };
    let answer = Answer::data(&json!({ "sum": text }));
    Ok(context.with_parameter_warnings(answer, &HASH))
}
