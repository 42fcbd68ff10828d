//! Whether this node's state is what the leader's is. Each second a follower tells the leader what its state added up to
//! after the last entries; a node whose state differs must not go on.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::applier::Standing;
use crate::link::Board;
use crate::link::frame::Kind;
use crate::link::message::{Lane, decode_differs, encode_sums};
use crate::observer::Observer;
use crate::roster::Roster;

/// Between two comparisons.
const ROUND: Duration = Duration::from_secs(1);

/// Compares for as long as the node lives.
pub(crate) async fn compare(
    board: Arc<Board>,
    roster: Arc<Roster>,
    standing: Arc<Standing>,
    observer: Arc<dyn Observer>,
) {
    let mut tick = interval(ROUND);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        tick.tick().await;
        let Some(leader) = roster.leader().filter(|leader| *leader != roster.node_id()) else { continue };
        let sums = standing.sums();
        let last = sums.last().map(|(index, _)| (leader, *index));
        if last.is_none() || last == told {
            continue;
        }
        let Some(link) = board.link(leader, Lane::Log, None) else { continue };
        let Ok(answer) = link.call(Kind::Sums, encode_sums(&sums), ROUND).await else { continue };
        match decode_differs(&answer) {
            Some(None) => told = last,
            Some(Some(index)) => {
                let message = format!(
                    "after log entry {index} the state of this node differs from that of the leader, node {leader:016x}: \
                     remove this node from the cluster, and let it join anew with an empty data folder"
                );
                observer.failed(&message);
                return;
            }
            None => {}
        }
    }
}
