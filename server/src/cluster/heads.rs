//! Where the audit streams of all nodes stand, kept by all nodes: an end that was cut off is missed.
//!
//! Each node signs the head of its own stream and gives it to the leader, every few seconds while records come in, and at
//! a clean stop. It is a row of the state, in clear, since a node has to find its own before anybody unsealed it. A head
//! comes in without an audit record: a record would move the head.

use std::time::Duration;

use keyward_audit::{Journal, JournalError, SignedHead};
use keyward_model::{Id, Table, Timestamp};
use keyward_storage::Reader;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

use super::rows;
use crate::app::Worker;
use crate::barrier::{Columns, Draft, storage};
use crate::refusal::Refusal;

/// Rows of heads: the prefix, then the stream's name.
const HEAD: &str = "cluster/audit/";
/// Heads that are kept: of all members, and of streams that went on under another name.
pub const HEADS_MAX: usize = 256;
/// Of these, how many of one node: its stream, and those that it replaced. All members together do not fill the table.
pub const HEADS_MAX_OF_ONE: usize = 16;
/// How far an incarnation of a stream may be above the newest known one. They are raised by hand, one at a time; some may
/// have ended before they gave a head, and a node that was refused once would stay refused.
const INCARNATIONS_AHEAD_MAX: u64 = 100;
/// How often a node gives its head while records come in, and after how many records at once.
const EVERY: Duration = Duration::from_secs(5);
const RECORDS_MAX: u64 = 1000;
/// Pause after the leader did not take one.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Time for the last one before a stop.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// A head as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadRow {
    /// What the node signed.
    pub checkpoint: String,
    /// When it came in.
    pub taken: Timestamp,
}

/// Why a head is not taken.
#[derive(Debug, PartialEq)]
pub enum NotTaken {
    /// It is no head of this node's, or signed with another key than those before, or of a stream that ended.
    Foreign,
    /// There is no place for one more stream of this node's: none that is known makes room for it.
    Full,
    /// Another record is known at its place.
    Contradicts,
    /// A later record of the stream is known: it was overtaken on its way, or the stream's end was cut off, which its node
    /// finds out by itself.
    Older,
    /// Not now.
    Refused(Refusal),
}

/// What a node remembers between turns.
#[derive(Debug, Default)]
pub struct Progress {
    /// `seq` of the head that was given last, and when.
    given: Option<(u64, Instant)>,
    not_before: Option<Instant>,
    /// `seq` of the own row that was held against the files last.
    checked: u64,
}

impl From<Refusal> for NotTaken {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// All heads, by stream.
///
/// # Errors
/// A row cannot be read.
pub fn all(reader: &Reader) -> Result<Vec<(SignedHead, HeadRow)>, Refusal> {
    let rows = reader.children(Table::Config, HEAD.as_bytes(), None, HEADS_MAX).map_err(storage)?;
    rows.iter().map(|row| decode(&row.body)).collect()
}

fn decode(body: &[u8]) -> Result<(SignedHead, HeadRow), Refusal> {
    let row: HeadRow = serde_json::from_slice(body).map_err(|error| Refusal::damaged("row of an audit head", error))?;
    let head = SignedHead::read(&row.checkpoint).map_err(|error| Refusal::internal(error.to_string()))?;
    Ok((head, row))
}

fn key_of(stream: &str) -> Vec<u8> {
    format!("{HEAD}{stream}").into_bytes()
}

/// Holds the files of this node's stream against the head that the cluster remembers of it.
///
/// # Errors
/// What is wrong with them, and what to do.
pub fn check_own(journal: &Journal, reader: &Reader) -> Result<u64, String> {
    let row = reader.row(Table::Config, &key_of(journal.stream())).map_err(|error| error.to_string())?;
    let Some(row) = row else { return Ok(0) };
    let (head, _) = decode(&row.body).map_err(|refusal| format!("{refusal:?}"))?;
    let (seq, has, of_other_key) = (head.seq, journal.head().0, head.key != journal.public_key());
    let hash = journal.hash_of(seq).map_err(|error| error.to_string())?;
    let what = if has < seq {
        format!("ends at record {has}, and the cluster remembers record {seq}: its end was cut off")
    } else if hash.is_some_and(|hash| hash != head.hash) {
        format!("has another record {seq} than the one that the cluster remembers")
    } else if of_other_key && hash.is_none() {
        // With its key a node may have moved its old files away. Whoever exchanged the key shows what was signed before.
        format!("lacks record {seq}, which the cluster remembers as signed with another key than that in identity.json")
    } else {
        if of_other_key {
            tracing::error!(
                stream = journal.stream(),
                "the cluster remembers this node's audit stream as signed with another key than that in identity.json: \
                 compare what `keyward audit heads` shows of it with the keys that were noted"
            );
        }
        return Ok(seq);
    };
    Err(format!(
        "the audit stream {} {what}, or this is an older copy of the data folder\nkeep the files as evidence, and run \
         `keyward audit verify --cluster` over them; to go on with a new stream, raise `incarnation` in identity.json by one",
        journal.stream()
    ))
}

/// Gives the leader this node's head if it is time, and looks at what the cluster remembers of its stream.
pub async fn turn(worker: &Worker, progress: &mut Progress) {
    let app = &worker.app;
    let (seq, now) = (app.journal().head().0, Instant::now());
    if app.is_initialised() && check_newest(worker, progress).is_err() {
        return;
    }
    let due = match progress.given {
        None => seq > 0,
        Some((given, at)) => seq > given && (now - at >= EVERY || seq - given >= RECORDS_MAX),
    };
    if !due || progress.not_before.is_some_and(|until| now < until) {
        return;
    }
    match give(worker).await {
        Ok(Some(seq)) => progress.given = Some((seq, now)),
        Ok(None) => {}
        Err(NotTaken::Refused(_)) => progress.not_before = Some(now + AGAIN_AFTER),
        Err(NotTaken::Older) => {
            tracing::debug!("the cluster has a later head of this node's audit stream");
            progress.not_before = Some(now + EVERY);
        }
        Err(refused) => {
            tracing::error!(?refused, "the cluster does not take the head of this node's audit stream");
            progress.not_before = Some(now + EVERY);
        }
    }
}

/// The state may have caught up since the start, and with it what is remembered of this node.
fn check_newest(worker: &Worker, progress: &mut Progress) -> Result<(), ()> {
    let row = worker.reader().row(Table::Config, &key_of(worker.app.journal().stream())).ok().flatten();
    let newest = row.and_then(|row| decode(&row.body).ok()).map_or(0, |(head, _)| head.seq);
    if newest == progress.checked || progress.given.is_some_and(|(given, _)| given == newest) {
        return Ok(());
    }
    match check_own(worker.app.journal(), worker.reader()) {
        Ok(seq) => {
            progress.checked = seq;
            Ok(())
        }
        Err(what) => {
            worker.app.failure.stop(&what);
            Err(())
        }
    }
}

/// Before a clean stop: a checkpoint over the last records, and its head to the leader, if that can be done at once.
pub async fn last(worker: &Worker) {
    let app = &worker.app;
    if let Err(error) = app.journal().last_checkpoint(app.barrier.now()) {
        tracing::warn!(error = %error, "the last audit checkpoint was not written");
    }
    if !app.is_initialised() {
        return;
    }
    let node = app.barrier.node();
    let mut leadership = node.leadership();
    let given = timeout(LAST_WAIT, async {
        drop(leadership.wait_for(|now| now.leads || now.leader.is_some()).await);
        give(worker).await
    });
    match given.await {
        Ok(Ok(_)) => {}
        Ok(Err(refused)) => tracing::warn!(?refused, "the cluster did not take the last head of the audit stream"),
        Err(_) => tracing::warn!("no node took the last head of the audit stream in time"),
    }
}

/// Signs the head and has the leader keep it; `None` if there is no record yet or nobody leads.
async fn give(worker: &Worker) -> Result<Option<u64>, NotTaken> {
    let (app, node) = (&worker.app, worker.app.barrier.node());
    let seen = *node.leadership().borrow();
    let here = seen.leads || node.is_alone();
    if (here && app.barrier.is_sealed()) || (!here && seen.leader.is_none()) {
        return Ok(None);
    }
    let unreadable = |error: JournalError| Refusal::internal(error.to_string());
    let Some(head) = app.journal().signed_head().map_err(unreadable)? else { return Ok(None) };
    match seen.leader.filter(|_| !here) {
        Some(leader) => worker.forwarder.give_head(worker, leader, &head.text).await?,
        None => keep(worker, app.cluster.node(), &head).await?,
    }
    Ok(Some(head.seq))
}

/// For the leader: takes the head that the member `peer` sent.
///
/// # Errors
/// [`NotTaken`].
pub async fn take(worker: &Worker, peer: u64, text: &[u8]) -> Result<(), NotTaken> {
    let row = rows::node(worker.reader(), peer)?.ok_or(NotTaken::Foreign)?;
    let text = std::str::from_utf8(text).map_err(|_| NotTaken::Foreign)?;
    let head = SignedHead::read(text).map_err(|_| NotTaken::Foreign)?;
    keep(worker, row.node, &head).await
}

async fn keep(worker: &Worker, node: Id, head: &SignedHead) -> Result<(), NotTaken> {
    let Some(incarnation) = incarnation_of(node, &head.stream) else { return Err(NotTaken::Foreign) };
    let barrier = &worker.app.barrier;
    let request = Id::random(barrier.entropy());
    let (kept, _) =
        barrier.write(&worker.desk, request, &Vec::new, |draft| Ok(put(draft, node, incarnation, head))).await?;
    kept
}

/// The incarnation that the name of a stream of `node` says; each has one name.
fn incarnation_of(node: Id, stream: &str) -> Option<u64> {
    let incarnation = stream.strip_prefix(&format!("{node}-"))?.parse().ok()?;
    (keyward_audit::stream_name(node, incarnation) == stream).then_some(incarnation)
}

fn put(draft: &mut Draft<'_>, node: Id, incarnation: u64, head: &SignedHead) -> Result<(), NotTaken> {
    let key = key_of(&head.stream);
    let mut newest = None;
    for other in draft.keys_below(Table::Config, &key_of(&format!("{node}-")), None, HEADS_MAX)? {
        let Some(opened) = draft.get(Table::Config, &other)? else { continue };
        let (known, _) = decode(opened.body.expose())?;
        if known.key != head.key {
            return Err(NotTaken::Foreign);
        }
        newest = newest.max(incarnation_of(node, &known.stream));
        if other == key && head.seq < known.seq {
            return Err(NotTaken::Older);
        }
        if other == key && head.seq == known.seq {
            return if head.hash == known.hash { Ok(()) } else { Err(NotTaken::Contradicts) };
        }
    }
    // A stream that another one went on from stays as it is remembered: it has ended, whatever its node tells of it later.
    let may_be = |newest: u64| (newest..=newest.saturating_add(INCARNATIONS_AHEAD_MAX)).contains(&incarnation);
    if !newest.is_none_or(may_be) {
        return Err(NotTaken::Foreign);
    }
    make_room(draft, node, &key)?;
    let row = HeadRow { checkpoint: head.text.clone(), taken: draft.now() };
    let body = serde_json::to_vec(&row).map_err(|error| Refusal::internal(error.to_string()))?;
    Ok(draft.put(Table::Config, &key, Columns::default(), &body)?)
}

/// Sees to it that there is room for a head. Where all places are taken, the oldest head of a node that is no member any
/// more goes. What a member sends costs no member a head, least of all itself: who rewrites a stream would first push the
/// true head out with heads that it made up.
fn make_room(draft: &mut Draft<'_>, node: Id, key: &[u8]) -> Result<(), NotTaken> {
    if draft.exists(Table::Config, key)? {
        return Ok(());
    }
    let of = |node: Id| key_of(&format!("{node}-"));
    let mut keys = draft.keys_below(Table::Config, HEAD.as_bytes(), None, HEADS_MAX)?;
    if keys.iter().filter(|key| key.starts_with(&of(node))).count() >= HEADS_MAX_OF_ONE {
        return Err(NotTaken::Full);
    }
    if keys.len() < HEADS_MAX {
        return Ok(());
    }
    let members: Vec<_> = rows::draft_nodes(draft)?.iter().map(|(_, row)| of(row.node)).chain([of(node)]).collect();
    keys.retain(|key| !members.iter().any(|member| key.starts_with(member)));
    let oldest = oldest(draft, keys)?.ok_or(NotTaken::Full)?;
    Ok(draft.remove(Table::Config, &oldest)?)
}

/// The one that did not move for the longest time.
fn oldest(draft: &mut Draft<'_>, keys: Vec<Vec<u8>>) -> Result<Option<Vec<u8>>, Refusal> {
    let mut oldest = None;
    for key in keys {
        let Some(opened) = draft.get(Table::Config, &key)? else { continue };
        let taken = decode(opened.body.expose())?.1.taken;
        if oldest.as_ref().is_none_or(|(least, _)| taken < *least) {
            oldest = Some((taken, key));
        }
    }
    Ok(oldest.map(|(_, key)| key))
}

#[cfg(test)]
mod tests;
