//! The keyring: its status, and rotation (`sys/key-status`, `sys/rotate`).

use keyward_crypto::Keyring;
use keyward_policy::Operation;
use serde_json::json;

use super::Context;
use crate::http::answer::Answer;
use crate::refusal::Refusal;
use crate::seal;

/// How often a data key may be wrapped under one epoch before a rotation is due; shown, as clients know it.
const MAX_OPERATIONS: u64 = 3_865_470_566;

/// Answers the family.
///
/// # Errors
/// No such path or verb.
pub async fn act(context: &Context<'_>) -> Result<Answer, Refusal> {
    context.note(|facts| facts.object = Some("keyring"));
    let read = context.request.operation == Operation::Read;
    let update = matches!(context.request.operation, Operation::Create | Operation::Update);
    match context.rest() {
        "key-status" if read => status(context),
        "rotate" | "rotate/keyring" if update => rotate(context).await,
        "rotate/config" | "rotate/keyring/config" if read => Ok(Answer::data(&json!({
            "enabled": true,
            "interval": 0,
            "max_operations": MAX_OPERATIONS,
        }))),
        "key-status" | "rotate" | "rotate/keyring" | "rotate/config" | "rotate/keyring/config" => {
            Err(Refusal::UnsupportedOperation)
        }
        _ => Err(Refusal::UnsupportedPath),
    }
}

fn status(context: &Context<'_>) -> Result<Answer, Refusal> {
    let keys = context.keys()?;
    let active = keys.active_epoch();
    let epoch = keys.epochs().into_iter().find(|epoch| epoch.number == active);
    let (installed, uses) = epoch.map_or((context.worker.app.started, 0), |epoch| (epoch.created, epoch.uses));
    let answer = Answer::injected(&json!({
        "term": active,
        "install_time": installed.rfc3339(),
        "encryptions": uses,
    }));
    Ok(context.with_parameter_warnings(answer, &[]))
}

/// A new epoch for everything sealed from now on; what was sealed before is wrapped anew in the background.
async fn rotate(context: &Context<'_>) -> Result<Answer, Refusal> {
    let app = &context.worker.app;
    let _turn = app.rotating.lock().await; // one rotation at a time, each on the keyring of the one before
    let keys = context.keys()?;
    let copy = |sealed: &[u8]| {
        Keyring::open_from(&keys.root, keys.domain(), sealed)
            .map_err(|error| Refusal::internal(format!("the keyring could not be copied: {error}")))
    };
    let mut keyring = copy(&keys.seal_to(&keys.root, app.barrier.entropy()))?;
    keyring.rotate(app.barrier.now(), app.barrier.entropy());
    let sealed = keyring.seal_to(&keys.root, app.barrier.entropy());
    context
        .write_answer(
            |draft| {
                // Of two nodes that rotated, one after the other, none may leave an epoch of the other's out.
                let stored = seal::draft_keyring(draft)?.ok_or(Refusal::Sealed)?;
                if copy(&stored)?.active_epoch() != keys.active_epoch() {
                    return Err(Refusal::Unavailable("the keyring was rotated meanwhile; try again".into()));
                }
                seal::store_keyring(draft, &sealed)
            },
            |()| Ok(Answer::no_content()),
        )
        .await
}
