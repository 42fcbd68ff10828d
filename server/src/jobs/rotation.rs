//! Rotates the keyring when its settings say so. What was sealed before is wrapped anew by the rewrap job.

use std::cell::RefCell;

use keyward_model::event::EventKind;

use crate::app::Worker;
use crate::record::Facts;
use crate::refusal::Refusal;
use crate::rotation::{Rotated, Settings};

/// Begins a new epoch where one is due, and says whether it did.
///
/// # Errors
/// No audit record can be written, a row cannot be read, or nothing can be written.
pub async fn turn(worker: &Worker) -> Result<bool, Refusal> {
    let app = &worker.app;
    let is_due = || {
        let settings = Settings::load(worker.reader())?;
        Ok::<_, Refusal>(settings.are_due(&*app.barrier.keyring()?, app.barrier.judged_at()))
    };
    if !is_due()? {
        return Ok(false);
    }
    let _turn = app.rotating.lock().await;
    if !is_due()? {
        return Ok(false); // somebody did it meanwhile
    }
    let rotated = Rotated::of(app)?;
    let mut facts = Facts::of_server(&app.barrier);
    facts.set(EventKind::SysConfig, "administer", "system");
    facts.object = Some("keyring rotation");
    worker.write(&RefCell::new(facts), |draft| rotated.put(app, draft)).await?;
    tracing::info!("the keyring was rotated, as its settings say");
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ask, on_a_node};

    #[test]
    fn the_keyring_is_rotated_when_its_time_has_come() {
        on_a_node(async |worker, clock| {
            let epoch = || worker.app.barrier.keyring().unwrap().active_epoch();
            let config = "sys/rotate/config";
            assert_eq!(ask(worker, "root", "POST", config, r#"{"interval":"24h"}"#).await.0, 204);
            assert_eq!(ask(worker, "root", "PUT", "secret/data/a", r#"{"data":{"k":"v"}}"#).await.0, 200);
            clock.advance(86_400);
            assert!(!turn(worker).await.unwrap());
            clock.advance(1);
            assert!(turn(worker).await.unwrap());
            assert_eq!(epoch(), 2);
            assert!(!turn(worker).await.unwrap(), "once");
            assert_eq!(ask(worker, "root", "GET", "secret/data/a", "").await.1["data"]["data"]["k"], "v");

            assert_eq!(ask(worker, "root", "POST", config, r#"{"enabled":false}"#).await.0, 204);
            clock.advance(10 * 86_400);
            assert!(!turn(worker).await.unwrap(), "it is off");
            assert_eq!(ask(worker, "root", "POST", config, r#"{"enabled":true}"#).await.0, 204);
            assert!(turn(worker).await.unwrap());
            assert_eq!(epoch(), 3);
        });
    }
}
