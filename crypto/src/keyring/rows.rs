//! Rows: sealed under the active epoch, bound to every column that stands beside the body.
//!
//! Body: suite (1), kind (1), epoch (4, big-endian), salt (32), ciphertext, tag (16).

use keyward_model::{Entropy, Row, SecretBytes, Table};

use super::Keyring;
use crate::CryptoError;
use crate::aead::{OnceKey, SALT, SUITE, TAG, strip_header};
use crate::place::{Kind, Place};

/// The body of a row under a key derived from its epoch's key.
const ROW: u8 = 0x01;

const LABEL: &str = "row";

/// The columns of a row that stand in clear, and where.
struct Columns<'a> {
    table: Table,
    key: &'a [u8],
    rev: u64,
    group: &'a [u8],
    due: Option<i64>,
    head: Option<u64>,
}

impl Keyring {
    /// Seals the body of a row. The result opens only with exactly these columns in exactly this table.
    #[expect(clippy::too_many_arguments, reason = "these are the columns of a row, each bound into the seal")]
    pub fn seal_row(
        &self,
        table: Table,
        key: &[u8],
        rev: u64,
        group: &[u8],
        due: Option<i64>,
        head: Option<u64>,
        plaintext: &[u8],
        entropy: &dyn Entropy,
    ) -> Vec<u8> {
        let (epoch, prf) = self.sealing_epoch();
        let place = self.row_place(epoch, &Columns { table, key, rev, group, due, head });
        let salt = self.hedge.hedge(entropy, LABEL, [place.as_bytes(), plaintext]);
        let mut out = Vec::with_capacity(6 + SALT + plaintext.len() + TAG);
        out.extend_from_slice(&[SUITE, ROW]);
        out.extend_from_slice(&epoch.to_be_bytes());
        out.extend_from_slice(&salt);
        OnceKey::new(prf.derive(LABEL, &salt)).seal(place.as_bytes(), plaintext, &mut out);
        out
    }

    /// Opens a row that stands in `table`. Never panics, whatever the bytes.
    ///
    /// # Errors
    /// [`CryptoError::Integrity`] if any column or the body is not what was sealed; [`CryptoError::Malformed`],
    /// [`CryptoError::UnknownSuite`], [`CryptoError::UnknownEpoch`] or [`CryptoError::DestroyedEpoch`] as they say.
    pub fn open_row(&self, table: Table, row: &Row) -> Result<SecretBytes, CryptoError> {
        let rest = strip_header(&row.body, ROW)?;
        let (epoch, rest) = rest.split_first_chunk().ok_or(CryptoError::Malformed)?;
        let (salt, sealed) = rest.split_first_chunk::<SALT>().ok_or(CryptoError::Malformed)?;
        let epoch = u32::from_be_bytes(*epoch);
        let prf = self.opening_epoch(epoch)?;
        let columns = Columns { table, key: &row.key, rev: row.rev, group: &row.group, due: row.due, head: row.head };
        OnceKey::new(prf.derive(LABEL, salt)).open(self.row_place(epoch, &columns).as_bytes(), sealed)
    }

    fn row_place(&self, epoch: u32, columns: &Columns<'_>) -> Place {
        let mut place = Place::new(self.domain, Kind::Row);
        place.field(&[columns.table as u8]);
        place.field(columns.key);
        place.number(columns.rev);
        place.field(columns.group);
        place.optional(columns.due.map(i64::cast_unsigned));
        place.optional(columns.head);
        place.number(epoch.into());
        place
    }
}

/// The epoch that a row's body is sealed under; `None` if it is not a row's body. Needs no key and proves nothing.
pub fn row_epoch(body: &[u8]) -> Option<u32> {
    strip_header(body, ROW).ok()?.first_chunk().copied().map(u32::from_be_bytes)
}
