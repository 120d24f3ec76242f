//! The books of the demo: balances, and a row for each transfer, both written by one transaction.
//!
//! The balances follow from the rows, so a transfer that was applied in part is detected.

use crate::failure::{Failure, Status};
use seawal::io::Create;
use seawal::kv::{Kv, KvCommand};
use seawal::{Engine, Options};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Balances, by account.
pub(super) const ACCOUNTS: &str = "demo.accounts";
/// Transfers, by id: from, to, amount.
pub(super) const TRANSFERS: &str = "demo.transfers";
/// Entries that are only written in parts of transactions that are rolled back.
pub(super) const GHOSTS: &str = "demo.ghosts";
/// The opening balance of each account.
const OPENING: i64 = 1000;
const SHARED_ACCOUNTS: usize = 48;
/// The number of threads of the worker.
pub(super) const THREADS: usize = 8;
/// The number of transactions that each of them keeps open.
pub(super) const OPEN_EACH: usize = 6;

/// The name of an account that all threads use.
pub(super) fn shared(number: u64) -> String {
    format!("shared-{:03}", number % SHARED_ACCOUNTS as u64)
}

/// The name of an account that only one open transaction at a time uses. Each of those transactions
/// has two such accounts.
pub(super) fn private(thread: usize, slot: usize, side: usize) -> String {
    format!("private-{thread:02}-{slot:02}-{side}")
}

fn all_accounts() -> impl Iterator<Item = String> {
    let private = (0..THREADS)
        .flat_map(|thread| (0..OPEN_EACH).flat_map(move |slot| (0..2).map(move |side| private(thread, slot, side))));
    (0..SHARED_ACCOUNTS as u64).map(shared).chain(private)
}

/// The figures of the opened books.
pub(super) struct Opened {
    pub(super) accounts: usize,
    pub(super) total: i64,
}

/// The contents of the books.
pub(super) struct Ledger {
    balances: BTreeMap<String, i64>,
    pub(super) transfers: BTreeMap<String, (String, String, i64)>,
    ghosts: usize,
}

fn wrong(text: impl Into<String>) -> Failure {
    Failure::new(Status::Damage, text)
}

impl Ledger {
    /// Creates the accounts, unless an earlier demo did. Refuses a store that no demo created.
    pub(super) fn open_books(dir: &Path) -> Result<Opened, Failure> {
        let store: Engine<Kv> = Options::new().create(Create::IfMissing).open(dir)?;
        let view = store.view()?;
        if view.is_empty() {
            let opening = |account| KvCommand::put(ACCOUNTS, account, OPENING.to_string());
            store.batch(all_accounts().map(opening))?;
        } else if view.table_is_empty(ACCOUNTS) {
            let text = format!("{} holds a store that no demo created; choose another directory", dir.display());
            return Err(Failure::new(Status::Usage, text));
        }
        let ledger = Ledger::read(&*store.view()?)?;
        ledger.check(&BTreeSet::new())?;
        store.close()?;
        Ok(Opened { accounts: ledger.balances.len(), total: ledger.total() })
    }

    pub(super) fn read(view: &Kv) -> Result<Ledger, Failure> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let number = |bytes: &[u8]| {
            text(bytes).parse::<i64>().map_err(|_| wrong(format!("{:?} is not an amount of money", text(bytes))))
        };
        let mut balances = BTreeMap::new();
        for (account, balance) in view.range::<[u8]>(ACCOUNTS, ..) {
            balances.insert(text(account), number(balance)?);
        }
        let mut transfers = BTreeMap::new();
        for (id, row) in view.range::<[u8]>(TRANSFERS, ..) {
            let fields = text(row);
            let [from, to, amount] = fields.split(' ').collect::<Vec<_>>()[..] else {
                return Err(wrong(format!("transfer {} is incomplete: {fields:?}", text(id))));
            };
            transfers.insert(text(id), (from.to_owned(), to.to_owned(), number(amount.as_bytes())?));
        }
        let ghosts = view.range::<[u8]>(GHOSTS, ..).count();
        Ok(Ledger { balances, transfers, ghosts })
    }

    pub(super) fn total(&self) -> i64 {
        self.balances.values().sum()
    }

    /// Checks that every reported transfer is there, that every balance matches the transfers, and
    /// that no entry is left of transactions that were rolled back.
    pub(super) fn check(&self, reported: &BTreeSet<String>) -> Result<(), Failure> {
        let lost: Vec<&String> = reported.iter().filter(|id| !self.transfers.contains_key(*id)).collect();
        if let Some(first) = lost.first() {
            return Err(wrong(format!("{} acknowledged transfers are lost, the first is {first}", lost.len())));
        }
        let mut expected: BTreeMap<String, i64> = all_accounts().map(|account| (account, OPENING)).collect();
        for (from, to, amount) in self.transfers.values() {
            *expected.entry(from.clone()).or_default() -= amount;
            *expected.entry(to.clone()).or_default() += amount;
        }
        for (account, balance) in &expected {
            let found = self.balances.get(account).copied();
            if found != Some(*balance) {
                return Err(wrong(format!("account {account} holds {found:?}, but its transfers add up to {balance}")));
            }
        }
        if self.balances.len() != expected.len() {
            return Err(wrong("there are accounts that were never opened"));
        }
        if self.ghosts > 0 {
            return Err(wrong(format!("{} entries are left of transactions that were rolled back", self.ghosts)));
        }
        Ok(())
    }
}
