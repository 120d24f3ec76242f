//! A logger with little memory: it keeps the newest lines, and syncs every 100 ms. A kill loses no
//! line that it has printed; power loss loses those of the last 100 ms.
//!
//! `cargo run --example small_logger -- DIR`; kill it at any time, and start it again.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use seawal::{Durability, Options, kv::Kv};
use std::error::Error;
use std::time::Duration;

/// How many lines are kept.
const KEPT: u64 = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: small_logger DIR")?;
    let log = Options::small_memory().durability(Durability::Interval(Duration::from_millis(100))).open::<Kv>(dir)?;
    println!("opened: {}", log.recovery_report());

    // keys are numbers in big-endian order, so the last key is that of the newest line
    let numbers: Vec<u64> = log
        .range::<Vec<u8>>(..)?
        .map(|(key, _)| Ok(u64::from_be_bytes(key[..].try_into()?)))
        .collect::<Result<_, Box<dyn Error>>>()?;
    let next = numbers.last().map_or(0, |last| last + 1);
    if !numbers.iter().copied().eq(next.saturating_sub(KEPT)..next) {
        return Err(format!("lines are missing: {numbers:?}").into());
    }
    println!("it holds {} lines", numbers.len());

    for n in next..next + 5_000 {
        // the new line and the removal of the oldest one are one transaction
        log.transact(|tx| {
            tx.insert(n.to_be_bytes(), format!("line {n}: all is well"))?;
            if let Some(old) = n.checked_sub(KEPT) {
                tx.remove(old.to_be_bytes())?;
            }
            Ok::<_, seawal::ExecuteError<_>>(())
        })?;
        println!("{n}: logged");
    }
    Ok(log.close()?)
}
