//! What one row adds to the sum over all rows.

use keyward_model::{Row, Table};
use sha2::{Digest, Sha256};

/// The SHA-256 digest of a row in its place: what [`keyward_model::StateSum`] adds up.
///
/// The encoding is unambiguous: a fixed header (domain, table, revision, due, head, and the lengths of what follows),
/// then key, group and body. It is part of the replicated protocol: all nodes and the signed sum depend on it.
pub fn row_digest(table: Table, row: &Row) -> [u8; 32] {
    Parts { rev: row.rev, group: &row.group, due: row.due, head: row.head, body: &row.body }.digest(table, &row.key)
}

/// A row as it lies in a database page, not yet copied.
pub(crate) struct Parts<'a> {
    pub(crate) rev: u64,
    pub(crate) group: &'a [u8],
    pub(crate) due: Option<i64>,
    pub(crate) head: Option<u64>,
    pub(crate) body: &'a [u8],
}

impl Parts<'_> {
    pub(crate) fn digest(&self, table: Table, key: &[u8]) -> [u8; 32] {
        let mut header = [0u8; HEADER];
        let (domain, rest) = header.split_at_mut(DOMAIN.len());
        domain.copy_from_slice(DOMAIN);
        let (flags, numbers) = rest.split_at_mut(3);
        flags.copy_from_slice(&[table as u8, u8::from(self.due.is_some()), u8::from(self.head.is_some())]);
        let fields = [
            self.rev,
            self.due.unwrap_or_default().cast_unsigned(),
            self.head.unwrap_or_default(),
            key.len() as u64,
            self.group.len() as u64,
            self.body.len() as u64,
        ];
        for (place, field) in numbers.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        let mut hash = Sha256::new();
        hash.update(header);
        hash.update(key);
        hash.update(self.group);
        hash.update(self.body);
        hash.finalize().into()
    }
}

const DOMAIN: &[u8; 13] = b"keyward.row.1";
const HEADER: usize = DOMAIN.len() + 3 + 6 * 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row { key: vec![1, 2], rev: 3, group: vec![4], due: Some(5), head: Some(6), body: vec![7, 8] }
    }

    #[test]
    fn the_encoding_stays_as_it_is() {
        assert_eq!(
            hex::encode(row_digest(Table::Secrets, &row())),
            "18f0639f624cd5152dfd3c74e651990cd39a1565e60757520978a79bdecd664e"
        );
    }

    #[test]
    fn every_field_counts_and_none_runs_into_the_next() {
        let base = row_digest(Table::Secrets, &row());
        let mut seen = vec![base, row_digest(Table::Tokens, &row())];
        for change in [
            |r: &mut Row| r.key = vec![1],
            |r: &mut Row| r.rev = 4,
            |r: &mut Row| r.group = vec![],
            |r: &mut Row| r.due = None,
            |r: &mut Row| r.due = Some(0),
            |r: &mut Row| r.head = None,
            |r: &mut Row| r.head = Some(0),
            |r: &mut Row| r.body = vec![7],
            |r: &mut Row| (r.key, r.group) = (vec![1], vec![2, 4]),
            |r: &mut Row| (r.group, r.body) = (vec![4, 7], vec![8]),
        ] {
            let mut changed = row();
            change(&mut changed);
            seen.push(row_digest(Table::Secrets, &changed));
        }
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}
