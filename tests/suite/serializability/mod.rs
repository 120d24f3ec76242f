//! Concurrent threads must see only what serial execution explains, including ranges, predicates
//! and real-time order.

mod anomalies;
mod history;

use self::history::{Did, End, History, List};
use crate::common::{Rng, scale};
use seawal::kv::{Kv, KvCommand, KvRejection};
use seawal::sim::SimDisk;
use seawal::{Durability, Engine, ExecuteError, ExecuteResult, Options, Transaction};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

const THREADS: u64 = 4;
/// Per thread and table; the checker's work grows with it.
const TXNS: u64 = 14;
const KEYS: u64 = 5;

fn encode(list: &[u32]) -> Vec<u8> {
    list.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn decode(bytes: &[u8]) -> List {
    bytes.chunks_exact(4).map(|chunk| u32::from_le_bytes(chunk.try_into().unwrap())).collect()
}

fn entries(found: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Vec<(u8, List)> {
    found.map(|(key, value)| (key[0], decode(&value))).collect()
}

fn count_even(entries: &[(u8, List)]) -> usize {
    entries.iter().filter(|(_, list)| list.len() % 2 == 0).count()
}

/// One thread's work in one table.
struct Worker {
    engine: Engine<Kv>,
    table: String,
    rng: Rng,
    /// Every value is written only once.
    next: u32,
}

impl Worker {
    fn key(&mut self) -> u8 {
        b'a' + self.rng.below(KEYS) as u8
    }

    fn value(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn range(&mut self) -> std::ops::Range<u8> {
        let from = self.key();
        from..from + 1 + self.rng.below(KEYS) as u8
    }

    fn durability(&mut self) -> Durability {
        match self.rng.below(4) {
            0 => Durability::Os,
            1 => Durability::Interval(Duration::from_millis(1)),
            _ => Durability::Sync,
        }
    }

    /// Lets other threads run in the middle of a transaction.
    fn pause(&mut self) {
        match self.rng.below(8) {
            0 => thread::sleep(Duration::from_micros(self.rng.below(200))),
            1..=3 => thread::yield_now(),
            _ => {}
        }
    }

    fn run(mut self, history: &History) {
        for _ in 0..TXNS {
            let id = history.begin();
            let done = match self.rng.below(10) {
                0 => Some(self.read_alone()),
                1 => Some(self.view()),
                2 => Some(self.swap()),
                3 => Some(self.write_blindly()),
                _ => self.transaction(),
            };
            if let Some((did, end)) = done {
                history.end(id, did, end);
            }
            self.pause();
        }
    }

    fn read_alone(&mut self) -> (Vec<Did>, End) {
        let table = self.engine.raw_table(&*self.table);
        let did = if self.rng.one_in(2) {
            let key = self.key();
            Did::Read { key, saw: table.get([key]).unwrap().map(|bytes| decode(&bytes)) }
        } else {
            let keys = self.range();
            Did::Scan { saw: entries(table.range([keys.start]..[keys.end]).unwrap()), keys }
        };
        (vec![did], End::Committed)
    }

    fn view(&mut self) -> (Vec<Did>, End) {
        let view = self.engine.view().unwrap();
        let all = view.range::<[u8]>(&self.table, ..).map(|(key, value)| (key.to_vec(), value.to_vec()));
        (vec![Did::Scan { keys: 0..255, saw: entries(all) }], End::Committed)
    }

    /// A single command, which reports the value that it found if it does not match.
    fn swap(&mut self) -> (Vec<Did>, End) {
        let (key, new) = (self.key(), vec![self.value()]);
        let expected = self.engine.raw_table(&*self.table).get([key]).unwrap().filter(|_| !self.rng.one_in(4));
        let swapped = self.engine.raw_table(&*self.table).compare_and_set([key], expected.clone(), Some(encode(&new)));
        let saw = match swapped {
            Ok(()) => Ok(()),
            Err(ExecuteError::Rejected(KvRejection::Mismatch { actual })) => Err(actual.map(|bytes| decode(&bytes))),
            Err(error) => panic!("{error}"),
        };
        // the read before it was not a part of this transaction
        let expected = expected.map(|bytes| decode(&bytes));
        (vec![Did::Swap { key, expected, new, saw }], End::Committed)
    }

    /// A batch of two writes, which returns the previous values.
    fn write_blindly(&mut self) -> (Vec<Did>, End) {
        let (put, value, delete) = (self.key(), self.value(), self.key());
        let batch = [
            KvCommand::delete(&*self.table, [put]),
            KvCommand::put(&*self.table, [put], encode(&[value])),
            KvCommand::delete(&*self.table, [delete]),
        ];
        let durability = self.durability();
        let ticket = self.engine.submit_with(KvCommand::batch(batch), durability).unwrap();
        if self.rng.one_in(2) {
            ticket.wait().unwrap();
        }
        let did = vec![Did::Delete { key: put }, Did::Append { key: put, value }, Did::Delete { key: delete }];
        (did, End::Committed)
    }

    /// Several steps, each of which locks what it reads. `None` if it was chosen as a deadlock
    /// victim.
    fn transaction(&mut self) -> Option<(Vec<Did>, End)> {
        let tx = self.engine.begin().unwrap();
        let mut did = Vec::new();
        for _ in 0..1 + self.rng.below(4) {
            match self.step(&tx) {
                Ok(steps) => did.extend(steps),
                Err(error) => {
                    assert!(error.is_conflict(), "{error}");
                    return None;
                }
            }
            self.pause();
        }
        if self.rng.one_in(6) {
            tx.rollback().unwrap();
            return Some((did, End::RolledBack));
        }
        match self.rng.below(3) {
            0 => tx.submit().unwrap().wait().unwrap(),
            1 => drop(tx.submit().unwrap()),
            _ => tx.commit_with(self.durability()).unwrap(),
        }
        Some((did, End::Committed))
    }

    fn step(&mut self, tx: &Transaction<Kv>) -> ExecuteResult<Kv, Vec<Did>> {
        let (table, key) = (self.table.clone(), self.key());
        Ok(match self.rng.below(8) {
            0 => {
                tx.remove_in(&table, [key])?;
                vec![Did::Delete { key }]
            }
            1 | 2 => {
                let keys = self.range();
                let saw = entries(tx.range_in(&table, [keys.start]..[keys.end])?);
                vec![Did::CountEven { keys: keys.clone(), saw: count_even(&saw) }, Did::Scan { keys, saw }]
            }
            3 => {
                let saw = tx.get_in(&table, [key])?.map(|bytes| decode(&bytes));
                vec![Did::Read { key, saw }]
            }
            _ => {
                let saw = tx.get_in(&table, [key])?.map(|bytes| decode(&bytes));
                self.pause();
                let value = self.value();
                let mut list = saw.clone().unwrap_or_default();
                list.push(value);
                tx.insert_in(&table, [key], encode(&list))?;
                vec![Did::Read { key, saw }, Did::Append { key, value }]
            }
        })
    }
}

/// Runs several threads at once, on one table after another.
fn explore(engine: &Engine<Kv>, tables: u64) {
    let mut judged = 0;
    for round in 0..tables {
        let history = Arc::new(History::default());
        let start = Barrier::new(THREADS as usize);
        thread::scope(|scope| {
            for id in 0..THREADS {
                let worker = Worker {
                    engine: engine.clone(),
                    table: format!("t{round}"),
                    rng: Rng::new(round << 8 | id),
                    next: id as u32 * 10_000,
                };
                let (history, start) = (&history, &start);
                scope.spawn(move || {
                    start.wait();
                    worker.run(history);
                });
            }
        });
        assert!(history.is_strictly_serializable(), "no order explains table {round}:\n{}", history.text());
        judged += history.len() as u64;
    }
    assert!(judged > tables * THREADS * TXNS / 2, "only {judged} transactions came to their end");
}

#[test]
fn what_threads_see_at_once_is_strictly_serializable_on_a_simulated_disk() {
    let engine = Options::new().open_on::<Kv>(Arc::new(SimDisk::new(1))).unwrap();
    explore(&engine, 60 * scale());
    engine.close().unwrap();
}

#[test]
fn what_threads_see_at_once_is_strictly_serializable_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::<Kv>::open(dir.path()).unwrap();
    explore(&engine, 10 * scale());
    engine.close().unwrap();
}
