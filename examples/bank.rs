//! A bank on the built-in key-value machine: transfers from several threads, a savepoint, and a
//! view that adds up all the money.
//!
//! `cargo run --example bank`
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use seawal::{Engine, Error, ExecuteError, Transaction, kv::Kv};
use std::error::Error as StdError;

const ACCOUNTS: u64 = 8;
const OPENING: i64 = 1_000;
const THREADS: u64 = 4;
const TRANSFERS: u64 = 50;

type Money<T> = seawal::ExecuteResult<Kv, T>;

fn account(number: u64) -> String {
    format!("account/{number}")
}

fn balance_of(bytes: &[u8]) -> Option<i64> {
    Some(i64::from_le_bytes(bytes.try_into().ok()?))
}

/// The balance that the transaction sees. The account stays locked until the transaction ends,
/// exclusively, for the balance is about to be changed: with a shared lock, two transfers that both
/// have read it would wait for each other.
fn balance(tx: &Transaction<Kv>, number: u64) -> Money<i64> {
    Ok(tx.get_for_update(account(number))?.as_deref().and_then(balance_of).unwrap_or(0))
}

fn add(tx: &Transaction<Kv>, number: u64, amount: i64) -> Money<()> {
    let sum = balance(tx, number)? + amount;
    tx.insert(account(number), sum.to_le_bytes()).map(drop)
}

/// Moves money if there is enough of it. `transact` runs the transaction again after a deadlock.
fn transfer(bank: &Engine<Kv>, from: u64, to: u64, amount: i64) -> Money<bool> {
    bank.transact(|tx| {
        let savepoint = tx.savepoint()?;
        add(tx, to, amount)?;
        add(tx, from, -amount)?;
        if balance(tx, from)? < 0 {
            // undoes both steps; the transaction could continue with something else
            tx.rollback_to(savepoint)?;
            return Ok(false);
        }
        Ok(true)
    })
}

/// All the money at one moment. A view waits for no transaction, and no transaction waits for a
/// view.
fn total(bank: &Engine<Kv>) -> Result<i64, Error> {
    let view = bank.view()?;
    Ok(view.prefix(Kv::DEFAULT_TABLE, "account/").filter_map(|(_, bytes)| balance_of(bytes)).sum())
}

fn main() -> Result<(), Box<dyn StdError>> {
    let dir = tempfile::tempdir()?;
    let money = ACCOUNTS as i64 * OPENING;
    {
        let bank = Engine::<Kv>::open(dir.path())?;
        bank.transact(|tx| (0..ACCOUNTS).try_for_each(|n| add(tx, n, OPENING)))?;
        println!("{ACCOUNTS} accounts, {} in all", total(&bank)?);

        let refused = std::thread::scope(|scope| -> Result<usize, ExecuteError<_>> {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let bank = &bank;
                    scope.spawn(move || -> Money<usize> {
                        let mut refused = 0;
                        for n in 0..TRANSFERS {
                            let (from, to) = ((n + thread) % ACCOUNTS, (n * 3 + thread + 1) % ACCOUNTS);
                            refused += usize::from(!transfer(bank, from, to, (n as i64 * 97) % 1_500)?);
                            if n % 10 == 0 {
                                // a view never shows a transfer that is half done
                                assert_eq!(total(bank)?, money);
                            }
                        }
                        Ok(refused)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().map_err(|_| ExecuteError::Failed(Error::Poisoned))?).sum()
        })?;
        println!("{} transfers by {THREADS} threads, {refused} refused for want of money", THREADS * TRANSFERS);
        println!("{} in all", total(&bank)?);
        // dropped without a close, as if the program had crashed here
    }
    let bank = seawal::Options::new().open::<Kv>(dir.path())?;
    let report = bank.recovery_report().clone();
    println!("opened again: {report}");
    assert_eq!(total(&bank)?, money);
    for (key, bytes) in bank.prefix("account/")? {
        let balance = balance_of(&bytes).ok_or("no balance")?;
        println!("{}: {balance}", String::from_utf8_lossy(&key));
        assert!(balance >= 0);
    }
    bank.close()?;
    Ok(())
}
