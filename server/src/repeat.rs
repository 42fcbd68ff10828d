//! A write that comes again takes effect once.
//!
//! Who may have to send a write a second time gives it an id of their own (`Idempotency-Key`). The command that does the
//! work then also puts a row that says so, with the answer where that holds no secret. The same id of the same caller
//! finds the row, on whichever node leads by then, and is answered from it. Writes without an id pay nothing for this.

use std::collections::HashMap;

use keyward_crypto::Keyring;
use keyward_model::{Change, Id, Table, Timestamp};
use keyward_storage::{Reader, StoreError};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::app::Worker;
use crate::barrier::{Columns, Draft, Opened};
use crate::http::answer::{Answer, Envelope, Form};
use crate::http::request::{Face, Request};
use crate::refusal::{Problem, Refusal};

/// For how long a write is remembered, in seconds.
pub const KEPT_S: i64 = 600;
/// Writes that are remembered at once. Over it new ones with an id are refused: to forget one early would break what was
/// promised to its caller.
pub const KEPT_MAX: u64 = 65_536;
/// Of these, how many one token may have: no caller takes the place of all others.
pub const KEPT_MAX_OF_ONE: u64 = KEPT_MAX / 16;
/// Bytes of a row's key that say whose it is, so that they can be counted.
const CALLER_BYTES: usize = 8;
/// Rows that are read at once to count them.
const COUNT_ROWS: usize = 1024;
/// What an answer says that tells of an earlier one.
const TAKEN: &[u8] = b"taken before";
/// Bytes of an answer that is kept; a longer one is not.
const ANSWER_BYTES_MAX: usize = 4096;
/// Bytes of a caller's id.
const ID_BYTES_MAX: usize = 128;

/// The caller's id of a request: 1 to 128 visible characters of ASCII.
#[derive(Clone, PartialEq, Eq)]
pub struct CallersId(Box<str>);

/// What makes a repetition recognisable: whose id it is, and what was asked.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    key: [u8; 32],
    digest: [u8; 32],
}

/// How many writes are remembered, in all and of each caller; those under way left out.
#[derive(Debug, Default)]
pub struct Remembered {
    all: u64,
    of: HashMap<[u8; CALLER_BYTES], u64>,
}

/// What is remembered of a write that was done.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// SHA-256 of what was asked.
    digest: [u8; 32],
    /// The id under which it was recorded.
    request: [u8; 16],
    /// When it was decided.
    at: Timestamp,
    /// The version that it made or was about.
    pub version: Option<u64>,
    answer: Option<Kept>,
}

/// An answer without a secret in it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    status: u16,
    form: KeptForm,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
enum KeptForm {
    Empty,
    Bare(String),
    Envelope { data: Option<String>, warnings: Vec<String>, injected: bool, raw: bool },
}

impl CallersId {
    /// Reads the field of a request.
    ///
    /// # Errors
    /// It is empty, too long, or holds something else than visible ASCII.
    pub fn read(value: &[u8]) -> Result<Self, Refusal> {
        let fits = (1..=ID_BYTES_MAX).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
        let text = std::str::from_utf8(value).ok().filter(|_| fits);
        text.map(|text| Self(text.into()))
            .ok_or_else(|| Refusal::malformed("Idempotency-Key must be 1 to 128 visible ASCII characters, given once"))
    }
}

impl Mark {
    /// The mark of `request` if it has an id and may change something; `caller` is the row key of its token.
    pub fn of(request: &Request, caller: &[u8; 32], keyring: &Keyring) -> Option<Self> {
        let CallersId(id) = request.callers_id.as_ref().filter(|_| request.may_change())?;
        let mut key = keyring.token_hash(&[b"repeat\0", &caller[..], id.as_bytes()].concat());
        let whose = keyring.token_hash(&[b"repeats of\0", &caller[..]].concat());
        key[..CALLER_BYTES].copy_from_slice(&whose[..CALLER_BYTES]);
        let mut digest = Sha256::new();
        let face = if request.face == Face::Native { "native" } else { "compatible" };
        let ttl = request.wrap_ttl.map_or(0, |ttl| ttl.as_nanos()).to_be_bytes();
        let operation = format!("{:?}", request.operation);
        for part in [face, &operation, &request.path, &request.query].map(str::as_bytes) {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.update(ttl);
        digest.update(&request.body);
        Some(Self { key, digest: digest.finalize().into() })
    }

    /// The mark of `request`, and what was done under it, as the state tells that can be read now.
    ///
    /// # Errors
    /// Sealed, the row cannot be read, or the id stands for another request of this caller's.
    pub fn find(
        worker: &Worker,
        request: &Request,
        caller: &[u8; 32],
    ) -> Result<(Option<Self>, Option<Box<Done>>), Refusal> {
        let barrier = &worker.app.barrier;
        if request.callers_id.is_none() {
            return Ok((None, None));
        }
        let Some(mark) = Self::of(request, caller, &*barrier.keyring()?) else { return Ok((None, None)) };
        let found = barrier.read(worker.reader(), Table::Repeats, mark.key())?;
        let done = found.map(|opened| mark.judge(&opened, barrier.judged_at())).transpose()?.flatten();
        Ok((Some(mark), done))
    }

    /// The place of its row.
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// What the row says at `now`; `None` if its time is up.
    ///
    /// # Errors
    /// The id stands for another request of this caller's.
    pub fn judge(&self, opened: &Opened, now: Timestamp) -> Result<Option<Box<Done>>, Refusal> {
        if opened.due.is_none_or(|due| due <= now.0) {
            return Ok(None);
        }
        let done: Done =
            serde_json::from_slice(opened.body.expose()).map_err(|error| Refusal::damaged("row of a write", error))?;
        if done.digest == self.digest { Ok(Some(Box::new(done))) } else { Err(Refusal::Problem(Problem::ID_REUSED)) }
    }

    /// Refuses what was done before, as all commands before this one leave it.
    ///
    /// # Errors
    /// [`Refusal::Repeated`], and those of [`Mark::judge`].
    pub fn refuse_again(&self, draft: &mut Draft<'_>) -> Result<(), Refusal> {
        let now = draft.now();
        let Some(opened) = draft.get(Table::Repeats, &self.key)? else { return Ok(()) };
        self.judge(&opened, now)?.map_or(Ok(()), |done| Err(Refusal::Repeated(done)))
    }

    /// Remembers that the draft's work is done.
    ///
    /// # Errors
    /// The row's predecessor cannot be read.
    pub fn remember(
        &self,
        draft: &mut Draft<'_>,
        request: Id,
        version: Option<u64>,
        answer: Option<Kept>,
    ) -> Result<(), Refusal> {
        let at = draft.now();
        let done = Done { digest: self.digest, request: request.0, at, version, answer };
        let body = serde_json::to_vec(&done).map_err(|error| Refusal::internal(error.to_string()))?;
        let columns = Columns { due: Some(at.plus_seconds(KEPT_S).0), ..Columns::default() };
        draft.put(Table::Repeats, &self.key, columns, &body)
    }
}

impl Remembered {
    /// Of a state.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of_state(reader: &Reader) -> Result<Self, StoreError> {
        let mut remembered = Self::default();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = reader.scan(Table::Repeats, after.as_deref(), COUNT_ROWS)?;
            for row in &rows {
                remembered.add(&row.key);
            }
            match rows.into_iter().last() {
                Some(last) => after = Some(last.key),
                None => return Ok(remembered),
            }
        }
    }

    /// Takes note of an applied change.
    pub fn note(&mut self, change: &Change) {
        match change {
            Change::Put { table: Table::Repeats, row } if row.rev == 1 => self.add(&row.key),
            Change::Remove { table: Table::Repeats, key, .. } => {
                self.all = self.all.saturating_sub(1);
                let whose = whose(key);
                let left = self.of.get(&whose).map_or(0, |rows| rows.saturating_sub(1));
                if left == 0 {
                    self.of.remove(&whose);
                } else {
                    self.of.insert(whose, left);
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, key: &[u8]) {
        self.all += 1;
        *self.of.entry(whose(key)).or_default() += 1;
    }

    /// In all.
    pub fn all(&self) -> u64 {
        self.all
    }

    /// Whether there is room for one more of the caller of `mark`.
    pub fn has_room(&self, mark: &Mark) -> bool {
        self.all < KEPT_MAX && self.of.get(&whose(&mark.key)).is_none_or(|rows| *rows < KEPT_MAX_OF_ONE)
    }
}

fn whose(key: &[u8]) -> [u8; CALLER_BYTES] {
    key.first_chunk().copied().unwrap_or_default()
}

/// Whether an answer says for sure what became of an earlier request with the same id: that it is done, by now or before, or
/// that the id stands for another one. Any other refusal is about this time only: what allowed the earlier one may be gone
/// because it was done.
pub fn settles(status: u16, body: &[u8]) -> bool {
    match status {
        200..=299 | 422 => true,
        409 => body.windows(TAKEN.len()).any(|text| text == TAKEN),
        _ => false,
    }
}

impl Done {
    /// The answer that it got, if it was kept.
    pub fn answer(&self) -> Option<Answer> {
        self.answer.clone().map(Kept::restored)
    }

    /// What a caller is told who asks for it again.
    pub fn told(&self) -> String {
        let version = self.version.map(|number| format!(", version {number}")).unwrap_or_default();
        let (at, request) = (self.at.rfc3339(), Id(self.request).to_uuid());
        format!(
            "this request was taken before ({at}, request {request}{version}): nothing was done again, and its answer is not kept"
        )
    }
}

impl Kept {
    /// Of `answer`; `None` if it holds a secret or is long.
    pub fn of(answer: &Answer) -> Option<Self> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let form = match &answer.form {
            Form::Empty => KeptForm::Empty,
            Form::Bare(bytes) => KeptForm::Bare(text(bytes)?),
            Form::Envelope(Envelope {
                data,
                auth: None,
                wrap_info: None,
                warnings,
                lease_duration: 0,
                injected,
                raw,
            }) => {
                let data = match data {
                    Some(data) => Some(text(data)?),
                    None => None,
                };
                KeptForm::Envelope { data, warnings: warnings.clone(), injected: *injected, raw: *raw }
            }
            _ => return None,
        };
        let bytes = match &form {
            KeptForm::Empty => 0,
            KeptForm::Bare(text) => text.len(),
            KeptForm::Envelope { data, warnings, .. } => {
                data.as_ref().map_or(0, String::len) + warnings.iter().map(String::len).sum::<usize>()
            }
        };
        (bytes <= ANSWER_BYTES_MAX).then_some(Self { status: answer.status, form })
    }

    fn restored(self) -> Answer {
        let form = match self.form {
            KeptForm::Empty => Form::Empty,
            KeptForm::Bare(text) => Form::Bare(text.into_bytes()),
            KeptForm::Envelope { data, warnings, injected, raw } => Form::Envelope(Envelope {
                data: data.map(String::into_bytes),
                warnings,
                injected,
                raw,
                ..Envelope::default()
            }),
        };
        Answer { status: self.status, form }
    }
}

/// Without the id: it says which answer may be asked for.
impl std::fmt::Debug for CallersId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallersId").finish_non_exhaustive()
    }
}

/// Without its text.
impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Without the answer.
impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Done").field("at", &self.at).field("version", &self.version).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
