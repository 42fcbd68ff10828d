//! A write that comes again takes effect once.
//!
//! Who may have to send a write a second time gives it an id of their own (`Idempotency-Key`). The command that does the
//! work then also puts a row that says so, with the answer where that holds no secret. The same id of the same caller
//! finds the row, on whichever node leads by then, and is answered from it. Writes without an id pay nothing for this.

use keyward_crypto::Keyring;
use keyward_model::{Id, Table, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::barrier::{Columns, Draft, Opened};
use crate::http::answer::{Answer, Envelope, Form};
use crate::http::request::{Face, Request};
use crate::refusal::{Problem, Refusal};

/// For how long a write is remembered, in seconds.
pub const KEPT_S: i64 = 600;
/// Writes that are remembered at once. Over it new ones with an id are refused: to forget one early would break what was
/// promised to its caller.
pub const KEPT_MAX: u64 = 65_536;
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
        let key = keyring.token_hash(&[b"repeat\0", &caller[..], id.as_bytes()].concat());
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
