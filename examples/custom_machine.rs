//! A custom state machine: a bank of plain Rust types, made durable by deriving serde's traits.
//!
//! `cargo run --features serde --example custom_machine`
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use seawal::machine::{Access, Footprint, SerdeMachine};
use seawal::{Engine, ExecuteError, Options};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The whole state. Its maps are ordered, so that equal banks encode to equal bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Bank {
    accounts: BTreeMap<String, u64>,
}

/// The commands of the bank.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Order {
    Deposit { to: String, amount: u64 },
    Withdraw { from: String, amount: u64 },
    Transfer { from: String, to: String, amount: u64 },
}

#[derive(Clone, Debug, PartialEq)]
enum Refusal {
    TooLittle { account: String, balance: u64 },
    TooMuch { account: String },
}

/// Makes `ExecuteError<Refusal>` a standard error, so that `?` returns it.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::TooLittle { account, balance } => write!(f, "{account} has no more than {balance}"),
            Refusal::TooMuch { account } => write!(f, "{account} cannot hold so much"),
        }
    }
}

impl Bank {
    fn balance(&self, account: &str) -> u64 {
        self.accounts.get(account).copied().unwrap_or(0)
    }

    /// Lists an account only while it holds money, so that a reversed order restores the exact
    /// bytes.
    fn set(&mut self, account: &str, balance: u64) {
        if balance == 0 {
            self.accounts.remove(account);
        } else {
            self.accounts.insert(account.to_owned(), balance);
        }
    }

    fn less(&self, account: &str, amount: u64) -> Result<u64, Refusal> {
        let balance = self.balance(account);
        balance.checked_sub(amount).ok_or_else(|| Refusal::TooLittle { account: account.to_owned(), balance })
    }

    fn more(&self, account: &str, amount: u64) -> Result<u64, Refusal> {
        let sum = self.balance(account).checked_add(amount);
        sum.ok_or_else(|| Refusal::TooMuch { account: account.to_owned() })
    }
}

impl SerdeMachine for Bank {
    const NAME: &'static str = "bank";
    const VERSION: u32 = 1;
    type Command = Order;
    /// The new balances, in the order in which the command names the accounts.
    type Reply = Vec<u64>;
    type Rejection = Refusal;

    /// Checks everything before it changes anything, so that a rejected order has no effect.
    ///
    /// An inverse moves the same amount back instead of restoring old balances. Both are correct
    /// while the transaction holds its locks, and this one is clearer.
    fn apply(&mut self, order: &Order) -> Result<(Vec<u64>, Order), Refusal> {
        match order {
            Order::Deposit { to, amount } => {
                let sum = self.more(to, *amount)?;
                self.set(to, sum);
                Ok((vec![sum], Order::Withdraw { from: to.clone(), amount: *amount }))
            }
            Order::Withdraw { from, amount } => {
                let rest = self.less(from, *amount)?;
                self.set(from, rest);
                Ok((vec![rest], Order::Deposit { to: from.clone(), amount: *amount }))
            }
            Order::Transfer { from, to, amount } => {
                let rest = self.less(from, *amount)?;
                if from == to {
                    return Ok((vec![rest + amount; 2], order.clone()));
                }
                let sum = self.more(to, *amount)?;
                self.set(from, rest);
                self.set(to, sum);
                Ok((vec![rest, sum], Order::Transfer { from: to.clone(), to: from.clone(), amount: *amount }))
            }
        }
    }

    /// An order locks the accounts that it names. Orders on other accounts run concurrently.
    fn footprint(order: &Order) -> Footprint {
        let account = |name: &String| Footprint::key(Access::Exclusive, name.as_bytes());
        match order {
            Order::Deposit { to: name, .. } | Order::Withdraw { from: name, .. } => account(name),
            Order::Transfer { from, to, .. } => account(from).and(account(to)),
        }
    }
}

fn transfer(from: &str, to: &str, amount: u64) -> Order {
    Order::Transfer { from: from.into(), to: to.into(), amount }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    {
        let engine = Engine::<Bank>::open(dir.path())?;
        engine.execute(Order::Deposit { to: "alice".into(), amount: 100 })?;
        let balances = engine.execute(transfer("alice", "bob", 30))?;
        println!("alice has {}, bob has {}", balances[0], balances[1]);

        match engine.execute(transfer("bob", "carol", 31)) {
            Err(ExecuteError::Rejected(refusal @ Refusal::TooLittle { .. })) => println!("refused: {refusal}"),
            other => return Err(format!("bob paid what he does not have: {other:?}").into()),
        }

        // two orders in one transaction; without the commit, neither takes effect
        let tx = engine.begin()?;
        tx.execute(transfer("alice", "carol", 50))?;
        tx.execute(transfer("carol", "bob", 50))?;
        tx.rollback()?;
        assert_eq!(engine.read(|bank| (bank.balance("alice"), bank.balance("bob")))?, (70, 30));

        let open = engine.begin()?;
        open.execute(transfer("bob", "carol", 10))?;
        // the view shows committed states only
        assert_eq!(engine.view()?.balance("carol"), 0);
        open.commit()?;
        // dropped without a close, as if the program had crashed here
    }
    let engine = Options::new().open::<Bank>(dir.path())?;
    let report = engine.recovery_report().clone();
    println!("opened again: {report}");
    let bank = engine.view()?.into_inner();
    println!("{:?}", bank.accounts);
    let expected = [("alice", 70), ("bob", 20), ("carol", 10)].map(|(name, sum)| (name.to_owned(), sum));
    assert_eq!(bank.accounts, BTreeMap::from(expected));
    engine.close()?;
    Ok(())
}
