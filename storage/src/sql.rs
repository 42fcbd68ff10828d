//! The same statement for each table of sealed rows.

use keyward_model::Table;

/// One SQL text per table, in the order of [`Table::ALL`].
pub(crate) struct PerTable(pub(crate) [&'static str; 11]);

impl PerTable {
    /// The text for `table`.
    pub(crate) const fn of(&self, table: Table) -> &'static str {
        self.0[table as usize - 1]
    }
}

/// The SQL text `$before table $after` for each table.
macro_rules! per_table {
    ($before:literal, $after:literal) => {
        $crate::sql::PerTable([
            concat!($before, "config", $after),
            concat!($before, "mounts", $after),
            concat!($before, "policies", $after),
            concat!($before, "tokens", $after),
            concat!($before, "accessors", $after),
            concat!($before, "secrets", $after),
            concat!($before, "folders", $after),
            concat!($before, "entries", $after),
            concat!($before, "wrapped", $after),
            concat!($before, "secret_ids", $after),
            concat!($before, "repeats", $after),
        ])
    };
}
pub(crate) use per_table;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_names_its_table() {
        const NAMES: PerTable = per_table!("", "");
        for table in Table::ALL {
            assert_eq!(NAMES.of(table), table.name());
        }
    }
}
