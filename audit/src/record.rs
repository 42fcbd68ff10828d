//! An event as canonical JSON (RFC 8785), in pieces that wait for their place in the chain.
//!
//! `hash`, `prev`, `seq` and `stream` are known only under the journal's lock, so a record is rendered beforehand as the
//! five pieces between them. Members are written directly in their sorted order; nothing is built in between.

use std::io::Write;

use keyward_model::event::{Event, LogPlace};
use keyward_model::{Fraction, Id, Timestamp};

use crate::journal::Flusher;
use crate::line;

/// The longest text that a caller's identifier takes in a record, in bytes; longer ones are cut at a character.
pub const TEXT_BYTES_MAX: usize = 256;

/// Records on their way to a [`Journal`](crate::Journal): one per thread, reused without allocating.
///
/// Made by [`Journal::batch`](crate::Journal::batch). Records keep the order in which they were pushed.
#[derive(Debug)]
pub struct Batch {
    pub(crate) node: String,
    pub(crate) pieces: Pieces,
    pub(crate) lines: Vec<u8>,
    pub(crate) flusher: Option<Flusher>,
}

/// Rendered records, cut where the chain's members go.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pub(crate) bytes: Vec<u8>,
    pub(crate) records: Vec<Cuts>,
}

/// Where the pieces of one record end in [`Pieces::bytes`]: before `hash`, `prev`, `seq`, `stream`, and at its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cuts {
    pub(crate) start: usize,
    pub(crate) ends: [usize; 5],
    pub(crate) ts: Timestamp,
    /// The Raft index that the record names, or 0.
    pub(crate) index: u64,
}

/// The members that the chain adds, in order; piece `n` ends before name `n`.
const CHAIN_MEMBERS: [&[u8]; 4] = [b"hash", b"prev", b"seq", b"stream"];

/// Why bytes are not an intent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an audit intent in the log is not a canonical record of this schema: the log was written by another version")]
pub struct IntentError;

impl Batch {
    pub(crate) fn new(node: Id) -> Self {
        Self { node: node.to_uuid(), pieces: Pieces::default(), lines: Vec::new(), flusher: None }
    }

    /// Renders `event` behind those already here.
    pub fn push(&mut self, event: &Event<'_>) {
        self.pieces.push(event, Some(&self.node), None);
    }

    /// Takes in an intent that a replicated command carried, made by [`intent`], now that it has a `place` in the log.
    ///
    /// # Errors
    /// [`IntentError`] if `bytes` are not canonical or lack a member that every record has; the batch is as before.
    pub fn push_intent(&mut self, bytes: &[u8], place: LogPlace) -> Result<(), IntentError> {
        self.pieces.push_intent(bytes, &self.node, place)
    }

    /// How many records are waiting.
    pub fn len(&self) -> usize {
        self.pieces.records.len()
    }

    /// How much memory the records take that are waiting, in bytes; about as much as they will in the file.
    pub fn size(&self) -> usize {
        self.pieces.bytes.len()
    }

    /// Whether none is waiting.
    pub fn is_empty(&self) -> bool {
        self.pieces.records.is_empty()
    }

    /// Forgets the records that are waiting; the memory stays.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.lines.clear();
    }
}

/// The record of an intent as it travels in a replicated command: canonical JSON without the members that depend on
/// where it ends up (`node`, `term`, `index` and those of the chain).
pub fn intent(event: &Event<'_>) -> Vec<u8> {
    let mut pieces = Pieces::default();
    pieces.push(event, None, None);
    pieces.bytes
}

/// The `id` of the record that an intent becomes; `None` if it is no canonical object, or has none.
pub fn id_of(intent: &[u8]) -> Option<&str> {
    let members = line::members(intent).ok()?;
    members.iter().find(|member| member.name == b"id").and_then(line::Member::text)
}

impl Pieces {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
    }

    /// Renders one event. `node`: where it is recorded, or `None` for an intent. `checkpoint`: a canonical object.
    pub(crate) fn push(&mut self, event: &Event<'_>, node: Option<&str>, checkpoint: Option<&[u8]>) {
        let out = &mut self.bytes;
        let start = out.len();
        if let Some(action) = event.action {
            text(out, ",\"action\":", action);
        }
        if let Some(alias) = &event.alias {
            text(out, ",\"alias\":", alias);
        }
        if let Some(auth) = &event.auth {
            text(out, ",\"auth\":{\"method\":", &auth.method);
            out.extend_from_slice(if auth.mfa { b",\"mfa\":true" } else { b",\"mfa\":false" });
            if let Some(hash) = &auth.token_jti_hash {
                hex(out, ",\"token_jti_hash\":\"", hash);
                out.push(b'"');
            }
            out.push(b'}');
        }
        if let Some(change) = &event.change {
            text(out, ",\"change\":{\"object\":", &change.object);
            out.push(b'}');
        }
        if let Some(channel) = event.channel {
            text(out, ",\"channel\":", channel);
        }
        if let Some(checkpoint) = checkpoint {
            out.extend_from_slice(b",\"checkpoint\":");
            out.extend_from_slice(checkpoint);
        }
        if let Some(code) = event.code {
            text(out, ",\"code\":", code);
        }
        if let Some(source) = event.decision_source {
            text(out, ",\"decision_source\":", source);
        }
        if let Some(engine) = event.engine {
            text(out, ",\"engine\":", engine);
        }
        plain(out, ",\"event\":\"", event.event.name());
        out[start] = b'{';
        let hash = out.len();

        out.extend_from_slice(b",\"id\":\"ae_");
        out.extend_from_slice(&event.id.text());
        out.push(b'"');
        if let (Some(place), Some(_)) = (event.replicated, node) {
            number(out, ",\"index\":", place.index);
        }
        if let Some(version) = event.kv_version {
            number(out, ",\"kv_version\":", version);
        }
        if let Some(latency) = event.latency_us {
            number(out, ",\"latency_us\":{\"total\":", latency);
            out.push(b'}');
        }
        if let Some(node) = node {
            plain(out, ",\"node\":\"", node);
        }
        plain(out, ",\"outcome\":\"", event.outcome.name());
        let prev = out.len();

        if let Some(provider) = event.provider {
            text(out, ",\"provider\":", provider);
        }
        if let Some(request) = &event.request_id {
            text(out, ",\"request_id\":", request);
        }
        if let Some(resource) = &event.resource_ref {
            text(out, ",\"resource_ref\":", resource);
        }
        let seq = out.len();

        if let Some(ip) = event.source_ip {
            out.extend_from_slice(b",\"source\":{\"ip\":\"");
            // Writing into memory cannot fail, and no address has a character that JSON would escape.
            write!(out, "{}", ip.to_canonical()).unwrap_or_default();
            out.extend_from_slice(b"\"}");
        }
        let stream = out.len();

        if let Some(subject) = &event.subject {
            text(out, ",\"subject\":{\"id\":", &subject.id);
            text(out, ",\"type\":", subject.kind);
            out.push(b'}');
        }
        if let Some(tenant) = &event.tenant_id {
            text(out, ",\"tenant_id\":", tenant);
        }
        if let (Some(place), Some(_)) = (event.replicated, node) {
            number(out, ",\"term\":", place.term);
        }
        out.extend_from_slice(b",\"ts\":\"");
        event.ts.write_rfc3339(out, Fraction::Millis);
        out.extend_from_slice(b"\",\"v\":1");
        if let Some(status) = event.version_status {
            text(out, ",\"version_status\":", status);
        }
        out.push(b'}');
        let index = event.replicated.map_or(0, |place| place.index);
        self.records.push(Cuts { start, ends: [hash, prev, seq, stream, out.len()], ts: event.ts, index });
    }

    /// Cuts an intent open and puts `node`, `term` and `index` into their places.
    fn push_intent(&mut self, bytes: &[u8], node: &str, place: LogPlace) -> Result<(), IntentError> {
        let members = line::members(bytes).map_err(|line::NonCanonical| IntentError)?;
        let start = self.bytes.len();
        let mut ends = [0; 5];
        let mut piece = 0;
        let mut ts = None;
        let mut own =
            [(&b"index"[..], Some(place.index)), (b"node", None), (b"term", Some(place.term))].into_iter().peekable();
        let mut events = 0;
        for member in members {
            if CHAIN_MEMBERS.contains(&member.name) {
                self.bytes.truncate(start);
                return Err(IntentError);
            }
            while let Some((name, value)) = own.next_if(|(name, _)| *name < member.name) {
                close_pieces(name, &mut piece, &mut ends, self.bytes.len());
                self.own_member(name, value, node);
            }
            if own.peek().is_some_and(|(name, _)| *name == member.name) {
                self.bytes.truncate(start);
                return Err(IntentError);
            }
            close_pieces(member.name, &mut piece, &mut ends, self.bytes.len());
            self.bytes.push(b',');
            self.bytes.extend_from_slice(member.whole);
            match member.name {
                b"ts" => ts = member.text().and_then(Timestamp::parse_rfc3339),
                b"event" | b"id" | b"outcome" | b"v" => events += 1,
                _ => {}
            }
        }
        let (Some(ts), 4, None, 4) = (ts, events, own.peek(), piece) else {
            self.bytes.truncate(start);
            return Err(IntentError);
        };
        self.bytes[start] = b'{';
        self.bytes.push(b'}');
        ends[4] = self.bytes.len();
        self.records.push(Cuts { start, ends, ts, index: place.index });
        Ok(())
    }

    fn own_member(&mut self, name: &[u8], value: Option<u64>, node: &str) {
        self.bytes.extend_from_slice(b",\"");
        self.bytes.extend_from_slice(name);
        match value {
            Some(value) => number(&mut self.bytes, "\":", value),
            None => plain(&mut self.bytes, "\":\"", node),
        }
    }
}

/// Ends the pieces whose chain member sorts before `name`.
fn close_pieces(name: &[u8], piece: &mut usize, ends: &mut [usize; 5], at: usize) {
    while *piece < CHAIN_MEMBERS.len() && CHAIN_MEMBERS[*piece] < name {
        ends[*piece] = at;
        *piece += 1;
    }
}

/// `lead`, then `value` as a JSON string in the one form that RFC 8785 allows.
fn text(out: &mut Vec<u8>, lead: &str, value: &str) {
    out.extend_from_slice(lead.as_bytes());
    out.push(b'"');
    let value = &value[..value.floor_char_boundary(TEXT_BYTES_MAX)];
    // WHY: no way out before the end, so that many bytes are looked at in one step.
    if value.bytes().fold(true, |plain, b| plain & (b >= 0x20) & (b != b'"') & (b != b'\\')) {
        out.extend_from_slice(value.as_bytes());
    } else {
        for b in value.bytes() {
            match b {
                b'"' => out.extend_from_slice(b"\\\""),
                b'\\' => out.extend_from_slice(b"\\\\"),
                0x08 => out.extend_from_slice(b"\\b"),
                b'\t' => out.extend_from_slice(b"\\t"),
                b'\n' => out.extend_from_slice(b"\\n"),
                0x0c => out.extend_from_slice(b"\\f"),
                b'\r' => out.extend_from_slice(b"\\r"),
                0..0x20 => hex(out, "\\u00", &[b]),
                _ => out.push(b),
            }
        }
    }
    out.push(b'"');
}

/// `lead` (with the opening quote), then a value that is known to need no escape, then the closing quote.
fn plain(out: &mut Vec<u8>, lead: &str, value: &str) {
    out.extend_from_slice(lead.as_bytes());
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

/// `lead`, then `value` in decimal.
pub(crate) fn number(out: &mut Vec<u8>, lead: &str, mut value: u64) {
    out.extend_from_slice(lead.as_bytes());
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// `lead`, then `bytes` in lower-case hexadecimal.
pub(crate) fn hex(out: &mut Vec<u8>, lead: &str, bytes: &[u8]) {
    out.extend_from_slice(lead.as_bytes());
    for b in bytes {
        out.extend_from_slice(&HEX[usize::from(*b)]);
    }
}

/// Every byte as two hexadecimal digits.
pub(crate) const HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut n = 0;
    while n < 256 {
        table[n] = [digits[n >> 4], digits[n & 15]];
        n += 1;
    }
    table
};

#[cfg(test)]
pub(crate) mod tests;
