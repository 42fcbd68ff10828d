//! The keyring: its status, and rotation (`sys/key-status`, `sys/rotate`).

use keyward_policy::Operation;
use serde_json::{Value, json};

use super::Context;
use crate::barrier::Draft;
use crate::http::answer::Answer;
use crate::http::duration;
use crate::http::fields::Field;
use crate::refusal::Refusal;
use crate::rotation::{INTERVAL_MIN_S, OPERATIONS_MAX, OPERATIONS_MIN, Rotated, Settings};

/// What the settings of the rotation are.
const SETTINGS: [Field; 3] = [Field::bool("enabled"), Field::duration("interval"), Field::int64("max_operations")];

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
        "rotate/config" | "rotate/keyring/config" if read => settings(context),
        "rotate/config" | "rotate/keyring/config" if update => set(context).await,
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
    let _turn = app.rotating.lock().await;
    let rotated = Rotated::of(app)?;
    context.write_answer(|draft| rotated.put(app, draft), |()| Ok(Answer::no_content())).await
}

fn settings(context: &Context<'_>) -> Result<Answer, Refusal> {
    context.params.check(&SETTINGS)?;
    let Settings { enabled, interval_s, max_operations } = Settings::load(context.reader())?;
    let interval = match interval_s {
        0 => Value::from(0),
        seconds => duration::format_seconds(seconds).into(),
    };
    let answer = Answer::data(&json!({ "enabled": enabled, "interval": interval, "max_operations": max_operations }));
    Ok(context.with_parameter_warnings(answer, &SETTINGS))
}

/// Sets what is given and leaves the rest.
async fn set(context: &Context<'_>) -> Result<Answer, Refusal> {
    let params = context.params;
    params.check(&SETTINGS)?;
    let (enabled, interval_s) = (params.bool("enabled")?, params.duration("interval")?);
    let max_operations = params.int64("max_operations")?;
    let decide = |draft: &mut Draft<'_>| {
        let before = Settings::of_draft(draft)?;
        let settings = Settings {
            enabled: enabled.unwrap_or(before.enabled),
            interval_s: interval_s.unwrap_or(before.interval_s),
            max_operations: max_operations.unwrap_or(before.max_operations),
        };
        if settings.interval_s != 0 && settings.interval_s < INTERVAL_MIN_S {
            let least = duration::format_seconds(INTERVAL_MIN_S);
            return Err(Refusal::malformed(format!("interval must be greater or equal to {least}")));
        }
        if !(OPERATIONS_MIN..=OPERATIONS_MAX).contains(&settings.max_operations) {
            let range = format!("max_operations must be in the range [{OPERATIONS_MIN},{OPERATIONS_MAX}]");
            return Err(Refusal::malformed(range));
        }
        settings.put(draft)
    };
    context.write_answer(decide, |()| Ok(Answer::no_content())).await
}
