//! `apply` against the same thing in memory: random commands, some of them stale, some log entries with several.

mod common;

use std::collections::BTreeMap;

use common::{Database, blob, command, next};
use keyward_model::{Change, Command, Outcome, Row, StateSum, Table, VersionBlob};
use keyward_storage::{Content, Entry, row_digest};
use proptest::prelude::*;

/// The state as plain maps.
#[derive(Clone, Default, PartialEq, Debug)]
struct Model {
    rows: BTreeMap<(Table, Vec<u8>), Row>,
    versions: BTreeMap<u64, VersionBlob>,
    last_version: u64,
}

impl Model {
    fn sum(&self) -> StateSum {
        self.rows.iter().fold(StateSum::default(), |sum, ((table, _), row)| sum.plus(row_digest(*table, row)))
    }

    fn apply(&mut self, command: &Command) -> Outcome {
        if command.before != self.sum() {
            return Outcome::Stale;
        }
        let mut after = self.clone();
        for change in &command.changes {
            if after.change(change).is_none() {
                return Outcome::Stale;
            }
        }
        *self = after;
        Outcome::Done
    }

    fn change(&mut self, change: &Change) -> Option<()> {
        match change.clone() {
            Change::Put { table, row } => {
                let place = (table, row.key.clone());
                let rev = self.rows.get(&place).map_or(0, |old| old.rev);
                (row.rev == rev + 1).then(|| drop(self.rows.insert(place, row)))
            }
            Change::Remove { table, key, rev } => {
                self.rows.remove(&(table, key)).filter(|old| old.rev == rev).map(drop)
            }
            Change::AddVersion { id, blob } => (id > self.last_version).then(|| {
                self.last_version = id;
                self.versions.insert(id, blob);
            }),
            Change::Rewrap { id, wrapped } => {
                if let Some(blob) = self.versions.get_mut(&id) {
                    blob.wrapped = wrapped;
                }
                Some(())
            }
            Change::EraseVersion { id } => {
                self.versions.remove(&id);
                Some(())
            }
        }
    }
}

/// What a test draws; numbers become real when the state is known.
#[derive(Clone, Debug)]
enum Step {
    Put { table: Table, row: Row, off: u64 },
    Remove { table: Table, key: Vec<u8>, off: u64 },
    Add { step: u64, payload: Vec<u8> },
    Rewrap { back: u64, wrapped: Vec<u8> },
    Erase { back: u64 },
}

/// Mostly 0.
fn off() -> impl Strategy<Value = u64> {
    prop_oneof![9 => Just(0u64), 1 => 1..3u64]
}

fn table() -> impl Strategy<Value = Table> {
    prop_oneof![Just(Table::Secrets), Just(Table::Tokens)]
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(vec![]), Just(vec![1]), Just(vec![1, 2]), Just(vec![255; 40])]
}

fn step() -> impl Strategy<Value = Step> {
    let row =
        (key(), prop::collection::vec(any::<u8>(), 0..3), any::<Option<i64>>(), any::<Option<u64>>(), 0..6000usize)
            .prop_map(|(key, group, due, head, size)| Row {
                key,
                rev: 0,
                group,
                due,
                head,
                body: vec![size as u8; size],
            });
    prop_oneof![
        6 => (table(), row, off()).prop_map(|(table, row, off)| Step::Put { table, row, off }),
        2 => (table(), key(), off()).prop_map(|(table, key, off)| Step::Remove { table, key, off }),
        3 => (prop_oneof![9 => 1..4u64, 1 => Just(0)], prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(step, payload)| Step::Add { step, payload }),
        1 => (0..4u64, prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(back, wrapped)| Step::Rewrap { back, wrapped }),
        1 => (0..4u64).prop_map(|back| Step::Erase { back }),
    ]
}

/// The change that `step` means in the state `model`, which it then changes as if it fitted.
fn change(model: &mut Model, step: &Step) -> Change {
    let rev = |model: &Model, table: Table, key: &[u8]| model.rows.get(&(table, key.to_vec())).map_or(0, |row| row.rev);
    let change = match step.clone() {
        Step::Put { table, mut row, off } => {
            row.rev = rev(model, table, &row.key) + 1 + off;
            Change::Put { table, row }
        }
        Step::Remove { table, key, off } => Change::Remove { table, rev: rev(model, table, &key) + off, key },
        Step::Add { step, payload } => Change::AddVersion { id: model.last_version + step, blob: blob(b"w", &payload) },
        Step::Rewrap { back, wrapped } => Change::Rewrap { id: model.last_version.saturating_sub(back), wrapped },
        Step::Erase { back } => Change::EraseVersion { id: model.last_version.saturating_sub(back) },
    };
    let _fits = model.change(&change);
    change
}

/// One log entry: commands, each its steps and whether it was decided on an older state.
type Drawn = Vec<(Vec<Step>, bool)>;

fn entry() -> impl Strategy<Value = Drawn> {
    prop::collection::vec((prop::collection::vec(step(), 0..4), prop::bool::weighted(0.1)), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_database_is_the_model(batches in prop::collection::vec(prop::collection::vec(entry(), 1..3), 1..8)) {
        let mut db = Database::new();
        let mut model = Model::default();
        for batch in batches {
            let mut entries: Vec<Vec<Command>> = Vec::new();
            let mut expected = Vec::new();
            for drawn in batch {
                let (mut commands, mut outcomes) = (Vec::new(), Vec::new());
                for (steps, old) in drawn {
                    let before = if old { model.sum().plus([3; 32]) } else { model.sum() };
                    let mut ahead = model.clone();
                    let changes = steps.iter().map(|step| change(&mut ahead, step)).collect();
                    let command = command(before, changes);
                    outcomes.push(model.apply(&command));
                    commands.push(command);
                }
                entries.push(commands);
                expected.push(outcomes);
            }
            let mut position = db.writer.applied();
            let entries: Vec<Entry<'_>> = entries
                .iter()
                .map(|commands| {
                    let at = next(position);
                    position = Some(at);
                    Entry { position: at, content: Content::Commands(commands) }
                })
                .collect();
            prop_assert_eq!(db.writer.apply(&entries).unwrap(), expected);
            prop_assert_eq!(db.writer.sum(), model.sum());
        }
        for _ in 0..2 {
            let reader = db.store.reader().unwrap();
            let verified = reader.verify().unwrap();
            prop_assert_eq!(verified.found, model.sum());
            prop_assert_eq!(verified.meta.sum, model.sum());
            prop_assert_eq!(verified.meta.last_version, model.last_version);
            prop_assert_eq!(verified.rows, model.rows.len() as u64);
            for table in Table::ALL {
                let rows: Vec<&Row> = model.rows.iter().filter(|((of, _), _)| *of == table).map(|(_, row)| row).collect();
                let found = reader.scan(table, None, 100).unwrap();
                prop_assert_eq!(found.iter().collect::<Vec<_>>(), rows);
                for row in &found {
                    let head = row.head.and_then(|id| model.versions.get(&id).cloned());
                    prop_assert_eq!(reader.row_with_head(table, &row.key).unwrap(), Some((row.clone(), head)));
                }
            }
            for id in 0..=model.last_version {
                prop_assert_eq!(reader.version(id).unwrap(), model.versions.get(&id).cloned());
            }
            drop(reader);
            db = db.reopen();
        }
    }
}
