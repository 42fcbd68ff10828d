//! The second part, at the start after it: the cluster becomes another one, of this node alone.

use keyward_model::event::EventKind;

use super::Recovery;
use crate::app::Worker;
use crate::cluster::{renewal, rows};
use crate::record::Facts;
use crate::refusal::Refusal;
use crate::seal;

/// Takes whoever was left out out of the state, gives the cluster its new id, and this node a new authority. Called again
/// it goes on where it stopped. `false`: it cannot be done yet, since this node is sealed or does not lead yet.
///
/// # Errors
/// Something cannot be written.
pub async fn finish(worker: &Worker, recovery: &Recovery) -> Result<bool, Refusal> {
    let app = &worker.app;
    let barrier = &app.barrier;
    if barrier.is_sealed() || !barrier.node().leads() {
        return Ok(false);
    }
    let installation = seal::installation(worker.reader())?.ok_or(Refusal::Sealed)?;
    if installation.cluster != recovery.cluster {
        let mut facts = Facts::of_server(barrier);
        facts.set(EventKind::SysConfig, "recover", "system");
        facts.object = Some("cluster");
        let intent = facts.intent(barrier.entropy(), barrier.now());
        barrier
            .write(&worker.desk, facts.request, &|| intent.clone(), |draft| {
                for (number, row) in rows::draft_nodes(draft)? {
                    if number != app.cluster.number() {
                        seal::remove_node(draft, row.node)?;
                        rows::remove_node(draft, number)?;
                    }
                }
                // Whoever has a copy of the old authority's key, or a token that names it, comes in no more.
                rows::remove_authority(draft)?;
                rows::remove_tokens(draft)?;
                seal::rename_cluster(draft, recovery.cluster)
            })
            .await?;
    }
    renewal::found(worker).await?;
    app.cluster.recovered().map_err(|error| Refusal::Unavailable(error.to_string().into()))?;
    tracing::warn!(
        cluster = %recovery.cluster, index = recovery.index, term = recovery.term,
        "this node went on alone from here; whoever was a member before has to join anew"
    );
    Ok(true)
}
