//! `sys/init`, `sys/unseal`, `sys/seal`: from an empty folder to a server that can open its data, and back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_crypto::{CryptoError, PassphraseCost, PassphraseSeal, Seal, ShamirSeal};
use keyward_model::SecretBytes;
use keyward_model::event::EventKind;
use keyward_policy::Operation;
use serde_json::json;

use super::{Context, status};
use crate::app::Worker;
use crate::cluster::peer_unseal::asker;
use crate::config::SealKind;
use crate::http::answer::Answer;
use crate::refusal::Refusal;
use crate::seal::{self, NewSeal, OpenError, OpenedKeys, SealRecord};
use crate::{boot, pep};

/// Shares that can be made of one key.
const SHARES_MAX: i64 = 255;

/// Answers the family.
///
/// # Errors
/// No such verb, input that is not as it should be, or keys that do not open.
pub async fn act(context: &Context<'_>) -> Result<Answer, Refusal> {
    match (context.request.path.as_str(), context.request.operation) {
        ("sys/init", Operation::Read) => {
            let initialised = seal::installation(context.reader())?.is_some();
            Ok(Answer::bare(200, &json!({ "initialized": initialised })))
        }
        ("sys/init", Operation::Update) => init(context).await,
        ("sys/unseal", Operation::Update) => unseal(context).await,
        ("sys/seal", Operation::Update) => seal_now(context).await,
        _ => Err(Refusal::UnknownVerb),
    }
}

async fn init(context: &Context<'_>) -> Result<Answer, Refusal> {
    context.note(|facts| {
        facts.set(EventKind::SysConfig, "administer", "system");
        facts.object = Some("installation");
    });
    let kind = context.worker.app.config.seal.kind;
    if seal::installation(context.reader())?.is_some() {
        return Err(again(context, kind)?);
    }
    let (new_seal, recovery) = match kind {
        SealKind::Shamir => {
            refuse_given(context, &["recovery_shares", "recovery_threshold"], "shamir")?;
            let (shares, threshold) = shape(context, "secret_shares", "secret_threshold")?
                .ok_or_else(|| bad_shape("shares must be at least one"))?;
            (NewSeal::Shamir { shares, threshold }, None)
        }
        SealKind::KeyFile => {
            refuse_given(context, &["secret_shares", "secret_threshold"], kind.name())?;
            let key = boot::key_file(&context.worker.app.config, context.worker.app.barrier.entropy())
                .map_err(|error| Refusal::malformed(error.to_string()))?;
            (NewSeal::KeyFile(key), shape(context, "recovery_shares", "recovery_threshold")?)
        }
        SealKind::Passphrase => {
            refuse_given(context, &["secret_shares", "secret_threshold"], kind.name())?;
            if given(context, "recovery_shares")? || given(context, "recovery_threshold")? {
                return Err(Refusal::malformed(
                    "recovery shares are for a server that unseals itself by a key file; one that is sealed by a passphrase could not use them: leave recovery_shares and recovery_threshold out",
                ));
            }
            let passphrase = context.params.string("passphrase")?.filter(|text| !text.is_empty()).ok_or_else(|| {
                Refusal::malformed("this server is sealed by a passphrase: `passphrase` must be given")
            })?;
            let passphrase = SecretBytes::new(passphrase.as_bytes().to_vec());
            (NewSeal::Passphrase(passphrase), None)
        }
    };
    let done = boot::initialise(context.worker, context.request.id, new_seal, recovery, None).await?;
    let hexes = |keys: &[SecretBytes]| keys.iter().map(|key| hex::encode(key.expose())).collect::<Vec<_>>();
    let base64s = |keys: &[SecretBytes]| keys.iter().map(|key| STANDARD.encode(key.expose())).collect::<Vec<_>>();
    let mut body = json!({
        "keys": hexes(&done.keys),
        "keys_base64": base64s(&done.keys),
        "root_token": done.root_token.expose(),
    });
    if !done.recovery_keys.is_empty() {
        body["recovery_keys"] = json!(hexes(&done.recovery_keys));
        body["recovery_keys_base64"] = json!(base64s(&done.recovery_keys));
    }
    if kind == SealKind::Shamir {
        context.worker.app.seal(); // Vault's rule: whoever holds the shares shows that they work
    }
    Ok(Answer::bare(200, &body))
}

/// What a second initialisation is told: as with Vault, first what is wrong with the shares that it asks for.
fn again(context: &Context<'_>, kind: SealKind) -> Result<Refusal, Refusal> {
    let asked = shape(context, "secret_shares", "secret_threshold")?;
    Ok(match asked {
        None if kind == SealKind::Shamir => bad_shape("shares must be at least one"),
        _ => Refusal::malformed("Vault is already initialized"),
    })
}

/// Whether a number is given that is not 0.
fn given(context: &Context<'_>, field: &str) -> Result<bool, Refusal> {
    Ok(context.params.int(field)?.unwrap_or(0) != 0)
}

fn refuse_given(context: &Context<'_>, fields: &[&str; 2], kind: &str) -> Result<(), Refusal> {
    if given(context, fields[0])? || given(context, fields[1])? {
        return Err(Refusal::malformed(format!(
            "parameters {},{} not applicable to seal type {kind}",
            fields[0], fields[1]
        )));
    }
    Ok(())
}

fn bad_shape(why: &str) -> Refusal {
    Refusal::malformed(format!("invalid seal configuration: {why}"))
}

/// Shares and threshold as asked for; `None` if neither was.
fn shape(context: &Context<'_>, shares: &str, threshold: &str) -> Result<Option<(u8, u8)>, Refusal> {
    let pgp = context.params.strings(if shares == "secret_shares" { "pgp_keys" } else { "recovery_pgp_keys" })?;
    let (asked, needed) = (context.params.int(shares)?, context.params.int(threshold)?);
    if asked.is_none() && needed.is_none() {
        return Ok(None);
    }
    let (asked, needed) = (asked.unwrap_or(0), needed.unwrap_or(0));
    let wrong = [
        (asked < 1, "shares must be at least one"),
        (needed < 1, "threshold must be at least one"),
        (asked > 1 && needed == 1, "threshold must be greater than one for multiple shares"),
        (asked > SHARES_MAX, "shares must be less than 256"),
        (needed > SHARES_MAX, "threshold must be less than 256"),
        (needed > asked, "threshold cannot be larger than shares"),
    ];
    if let Some((_, why)) = wrong.iter().find(|(wrong, _)| *wrong) {
        return Err(bad_shape(why));
    }
    if pgp.is_some_and(|keys| !keys.is_empty()) {
        return Err(bad_shape("keys encrypted to PGP keys are not offered; leave pgp_keys out"));
    }
    Ok(u8::try_from(asked).ok().zip(u8::try_from(needed).ok()))
}

async fn unseal(context: &Context<'_>) -> Result<Answer, Refusal> {
    context.note(|facts| facts.set(EventKind::SysUnseal, "administer", "system"));
    let app = &context.worker.app;
    let migrates = context.params.bool("migrate")?.unwrap_or(false);
    if context.params.bool("reset")?.unwrap_or(false) {
        if !app.barrier.is_sealed() {
            return Err(Refusal::malformed("vault is unsealed"));
        }
        app.unsealing.reset();
        return Ok(Answer::bare(200, &status::seal_status(context.worker)?));
    }
    let given =
        context.params.string("key")?.filter(|key| !key.is_empty()).ok_or_else(|| {
            Refusal::malformed("'key' must be specified in request body as JSON, or 'reset' set to true")
        })?;
    if migrates {
        return Err(Refusal::malformed("can't perform a seal migration, no migration seal found"));
    }
    let records = seal::records(context.reader())?;
    let Some(record) = records.iter().find(|record| record.kind != "keyfile") else {
        drop(decoded(&given)?);
        let initialised = seal::installation(context.reader())?.is_some();
        return match (initialised, app.barrier.is_sealed()) {
            (false, _) => Err(Refusal::malformed("Vault is not initialized")),
            (true, false) => Ok(Answer::bare(200, &status::seal_status(context.worker)?)),
            (true, true) => Err(Refusal::malformed(
                "this server unseals itself by its key file: put the file back and restart, there are no shares",
            )),
        };
    };
    let is_share = record.kind != "passphrase";
    let key = if is_share { decoded(&given)? } else { SecretBytes::new(given.as_bytes().to_vec()) };
    if app.barrier.is_sealed() {
        if is_share {
            check_share(&key)?;
        }
        unseal_with(context, key, record).await?;
    }
    Ok(Answer::bare(200, &status::seal_status(context.worker)?))
}

/// Takes a share or a passphrase, and unseals if that was the last that was needed. One at a time, so that keys in place,
/// which may have been rotated, are never overwritten. Nobody queues: each would have the whole state read once more.
async fn unseal_with(context: &Context<'_>, key: SecretBytes, record: &SealRecord) -> Result<(), Refusal> {
    let app = &context.worker.app;
    let Ok(_turn) = app.rotating.try_lock() else {
        return Err(Refusal::Unavailable("the keys are being opened or changed by somebody else; try again".into()));
    };
    if !app.barrier.is_sealed() {
        return Ok(());
    }
    let Some(seal) = complete(context, key, record)? else { return Ok(()) };
    let keys = open(context, seal, record.recovery).await?;
    context.record_first().await?;
    app.barrier.unseal(keys, &app.store)?;
    app.cluster.hold.clear();
    keep_hold(context.worker).await;
    Ok(())
}

/// The seal that a key completes; `None` while shares are missing.
fn complete(context: &Context<'_>, key: SecretBytes, record: &SealRecord) -> Result<Option<Box<dyn Seal>>, Refusal> {
    if record.kind == "passphrase" {
        return Ok(Some(Box::new(PassphraseSeal::new(key, PassphraseCost::RECOMMENDED))));
    }
    let app = &context.worker.app;
    let Some(shares) = app.unsealing.add(key, record.threshold, app.barrier.entropy()) else { return Ok(None) };
    ShamirSeal::from_shares(&shares)
        .map(|seal| Some(Box::new(seal) as Box<dyn Seal>))
        .map_err(|error| Refusal::malformed(format!("invalid key: failed to compute combined key: {error}")))
}

/// The keys that a seal opens. Reads the whole state once, so it runs beside the event loop.
async fn open(context: &Context<'_>, seal: Box<dyn Seal>, recovery: bool) -> Result<OpenedKeys, Refusal> {
    let app = std::sync::Arc::clone(&context.worker.app);
    let opened = tokio::task::spawn_blocking(move || {
        let reader = app.store.reader().map_err(|_| OpenError::Unreadable)?;
        seal::open(&reader, &*seal, recovery, app.cluster.node())
    })
    .await
    .map_err(|error| Refusal::internal(format!("unseal: {error}")))?;
    opened.map_err(|error| match error {
        OpenError::Seal(CryptoError::WrongKey | CryptoError::Integrity) => Refusal::malformed(
            "unable to retrieve stored keys: invalid key: failed to decrypt keys from storage: cipher: message authentication failed",
        ),
        OpenError::Tampered => {
            tracing::error!("{error}");
            Refusal::Unavailable(error.to_string().into())
        }
        other => Refusal::malformed(other.to_string()),
    })
}

/// A share or key in hex or base64.
fn decoded(text: &str) -> Result<SecretBytes, Refusal> {
    let bytes = hex::decode(text).ok().filter(|bytes| bytes.len() > 1).or_else(|| STANDARD.decode(text).ok());
    bytes.map(SecretBytes::new).ok_or_else(|| Refusal::malformed("'key' must be a valid hex or base64 string"))
}

/// Whether it has a length that a share or key can have.
fn check_share(share: &SecretBytes) -> Result<(), Refusal> {
    match share.expose().len() {
        0..16 => Err(Refusal::malformed("invalid key: key is shorter than minimum 16 bytes")),
        16..=33 => Ok(()),
        _ => Err(Refusal::malformed("invalid key: key is longer than maximum 33 bytes")),
    }
}

/// Needs update and sudo on `sys/seal`; when sealed already, nothing is left to protect.
async fn seal_now(context: &Context<'_>) -> Result<Answer, Refusal> {
    context.note(|facts| facts.set(EventKind::SysSeal, "administer", "system"));
    let worker = context.worker;
    if worker.app.barrier.is_sealed() {
        let may_open = || {
            Refusal::Unavailable("this node asks others to unseal it: stop it, or seal it when it is unsealed".into())
        };
        return if asker::may_ask(worker) { Err(may_open()) } else { Ok(Answer::no_content()) };
    }
    demand_operator(context)?;
    context.record_first().await?;
    // Before the keys go: nobody gives them back meanwhile, nor after a crash.
    worker.app.cluster.hold.set();
    let kept = keep_hold(worker).await;
    worker.app.seal();
    if kept || !worker.app.config.seal.peer_unseal {
        return Ok(Answer::no_content());
    }
    Err(Refusal::Unavailable(
        "this node is sealed; that people sealed it could not be kept, so another node may unseal it after a restart"
            .into(),
    ))
}

/// Writes down whether people sealed this node; whether that is kept. What they did is done, whatever the disk says.
async fn keep_hold(worker: &Worker) -> bool {
    let app = std::sync::Arc::clone(&worker.app);
    let kept = tokio::task::spawn_blocking(move || app.cluster.hold.keep()).await;
    let kept = kept.map_err(std::io::Error::other).flatten();
    if let Err(error) = &kept {
        tracing::error!(error = %error, "whether this node was sealed by hand could not be kept for its next start");
    }
    kept.is_ok()
}

/// For paths without a guard of their own: a token with update and sudo on the path.
///
/// # Errors
/// No such token; sealed meanwhile.
pub fn demand_operator(context: &Context<'_>) -> Result<(), Refusal> {
    let worker = context.worker;
    let session = match context.request.token() {
        Some(token) => worker.session(token)?.ok_or(Refusal::Unauthenticated)?,
        None => return Err(Refusal::Unauthenticated),
    };
    context.note(|facts| facts.token = Some(std::sync::Arc::clone(&session.name)));
    let compiled = worker.acl(&session)?;
    let verdict = pep::judge(&compiled.1, context.request, context.params, Operation::Update);
    if verdict.allowed && verdict.sudo { Ok(()) } else { Err(Refusal::Denied) }
}
