//! A ledger that loses no money: crashed on a simulated disk, and then used in a directory.
//! `cargo run --features serde,sim --example ledger -- DIR`; kill it at any time, and start it again.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use seawal::machine::{Access, Footprint, SerdeMachine};
use seawal::{Engine, ExecuteError, sim::explore::Explore};
use serde::{Deserialize, Serialize};

const ACCOUNTS: usize = 8;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Ledger {
    balances: Vec<i64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Transfer {
    from: usize,
    to: usize,
    amount: i64,
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger { balances: vec![1_000; ACCOUNTS] }
    }
}

impl SerdeMachine for Ledger {
    const NAME: &'static str = "ledger";
    const VERSION: u32 = 1;
    type Command = Transfer;
    type Reply = ();
    type Rejection = &'static str;

    fn apply(&mut self, &Transfer { from, to, amount }: &Transfer) -> Result<((), Transfer), &'static str> {
        if !(0..=self.balances[from]).contains(&amount) {
            return Err("the account does not hold as much");
        }
        self.balances[from] -= amount;
        self.balances[to] += amount;
        Ok(((), Transfer { from: to, to: from, amount })) // the reply, and what undoes the transfer
    }

    fn footprint(transfer: &Transfer) -> Footprint {
        let account = |n: usize| Footprint::key(Access::Exclusive, &n.to_be_bytes());
        account(transfer.from).and(account(transfer.to))
    }
}

fn check(ledger: &Ledger) -> Result<(), String> {
    let is_right = ledger.balances.iter().sum::<i64>() == 1_000 * ACCOUNTS as i64;
    if is_right && ledger.balances.iter().all(|n| *n >= 0) { Ok(()) } else { Err(format!("wrong: {ledger:?}")) }
}

fn transfer(from: u64, to: u64, amount: u64) -> Transfer {
    Transfer { from: from as usize % ACCOUNTS, to: to as usize % ACCOUNTS, amount: amount as i64 }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: ledger DIR")?;
    let random = Explore::<Ledger>::commands(|rng| transfer(rng.below(8), rng.below(8), rng.below(700)));
    println!("crashed: {} states are right", random.invariant(check).states(1_000).run()?.states);

    let ledger = Engine::<Ledger>::open(dir)?;
    println!("opened: {}", ledger.recovery_report());
    ledger.read(check)??;
    for n in 0..1_000 {
        // both transfers, or none
        match ledger.transact(|tx| {
            tx.execute(transfer(n, n + 1, n % 500))?;
            tx.execute(transfer(n + 1, n * 3, n % 800))
        }) {
            Err(ExecuteError::Rejected(reason)) => println!("{n}: {reason}"),
            done => done.map(|()| println!("{n}: done"))?,
        }
    }
    Ok(ledger.close()?)
}
