//! `sys/tools/random` and `sys/tools/hash`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_policy::Operation;
use serde_json::json;
use sha2::Digest as _;

use super::Context;
use crate::http::answer::Answer;
use crate::http::fields::Field;
use crate::http::gotext;
use crate::refusal::Refusal;

/// Where random bytes may be asked to come from: here they all come from the operating system.
const SOURCES: [&str; 3] = ["platform", "seal", "all"];
/// Random bytes in one answer, unless the request says how many.
const RANDOM_BYTES: i64 = 32;
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
        Some((source, count)) => (source, count),
        None if SOURCES.contains(&below) => (below, ""),
        None => ("platform", below),
    };
    let bytes = match count {
        // No digit begins with a hyphen: nothing of the path is a count.
        "" => context.params.int("bytes")?.unwrap_or(RANDOM_BYTES),
        text if text.starts_with('-') => context.params.int("bytes")?.unwrap_or(RANDOM_BYTES),
        text => text.parse().map_err(|_| {
            let text = gotext::quote(text);
            Refusal::malformed(format!(
                "error parsing url-set byte count: strconv.Atoi: parsing {text}: invalid syntax"
            ))
        })?,
    };
    if bytes < 1 {
        return Err(Refusal::malformed("'bytes' cannot be less than 1"));
    }
    if bytes > RANDOM_BYTES_MAX {
        return Err(Refusal::malformed("'bytes' should be less than 131072"));
    }
    let format = Format::read(context, "base64", gotext::quote)?;
    if !SOURCES.contains(&source) {
        let source = gotext::quote(source);
        return Err(Refusal::malformed(format!(
            "unsupported entropy source {source}; must be \"platform\" or \"seal\", or \"all\""
        )));
    }
    let mut out = vec![0; usize::try_from(bytes).unwrap_or_default()];
    context.worker.app.barrier.entropy().fill(&mut out);
    let mut answer = Answer::data(&json!({ "random_bytes": format.encode(&out) }));
    if source == "seal" {
        answer.warn("no seal/entropy augmentation available, using platform entropy source".into());
    }
    Ok(context.with_parameter_warnings(answer, &RANDOM))
}

fn hash(context: &Context<'_>, below: &str) -> Result<Answer, Refusal> {
    context.params.check(&HASH)?;
    let given = context.params.string("algorithm")?;
    let algorithm = match (below, given.as_deref()) {
        ("", given) => given.unwrap_or("sha2-256"),
        (path, _) => path,
    };
    let input = context.params.string("input")?.unwrap_or_default().replace(['\r', '\n'], "");
    let input = STANDARD.decode(input.as_bytes()).map_err(|error| {
        let at = match error {
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            // Where the group of four begins that is not whole.
            base64::DecodeError::InvalidLength(at) => at / 4 * 4,
            base64::DecodeError::InvalidPadding => input.len() / 4 * 4,
        };
        Refusal::malformed(format!("unable to decode input as base64: illegal base64 data at input byte {at}"))
    })?;
    let format = Format::read(context, "hex", str::to_owned)?;
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
    Ok(context.with_parameter_warnings(Answer::data(&json!({ "sum": format.encode(&sum) })), &HASH))
}

/// How bytes are written in an answer.
#[derive(Clone, Copy)]
enum Format {
    Hex,
    Base64,
}

impl Format {
    /// The parameter `format`, else `default`; `show` writes one that is none.
    fn read(context: &Context<'_>, default: &str, show: impl Fn(&str) -> String) -> Result<Self, Refusal> {
        match context.params.string("format")?.as_deref().unwrap_or(default) {
            "hex" => Ok(Self::Hex),
            "base64" => Ok(Self::Base64),
            other => Err(Refusal::malformed(format!(
                "unsupported encoding format {}; must be \"hex\" or \"base64\"",
                show(other)
            ))),
        }
    }

    fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => hex::encode(bytes),
            Self::Base64 => STANDARD.encode(bytes),
        }
    }
}
