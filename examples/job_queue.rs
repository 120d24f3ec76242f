//! A job queue with leases, retries and dead letters. The lease of a worker that dies expires.
//! `cargo run --features serde --example job_queue -- DIR`; kill it at any time, and start it again.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use seawal::{Error, Store, Table};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const READY: Table<u64, Job> = Table::new("ready");
const LEASED: Table<(u64, u64), Job> = Table::new("leased"); // by the end of the lease
const DONE: Table<u64, Job> = Table::new("done");
const DEAD: Table<u64, Job> = Table::new("dead letters");

#[derive(Serialize, Deserialize)]
struct Job {
    work: String,
    attempts: u32,
}

fn now_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Leases the next job, and returns the end of the lease, the number and the job.
fn lease(store: &Store) -> Result<Option<(u64, u64, Job)>, Error> {
    store.transact(|tx| {
        let (ready, leased) = (tx.table(READY), tx.table(LEASED));
        while let Some((lease, job)) = leased.first()?.filter(|((until, _), _)| *until < now_millis()) {
            leased.remove(&lease)?;
            ready.put(&lease.1, &job)?;
        }
        let Some((id, job)) = ready.pop_first()? else { return Ok(None) };
        let (until, job) = (now_millis() + 200, Job { attempts: job.attempts + 1, ..job });
        leased.put(&(until, id), &job)?;
        Ok(Some((until, id, job)))
    })
}

fn work(store: &Store) -> Result<(), Error> {
    while !(store.table(LEASED).is_empty()? && store.table(READY).is_empty()?) {
        let Some((until, id, job)) = lease(store)? else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        let succeeds = id % 10 != 0 && (id % 3 != 0 || job.attempts > 1);
        let target = || match (succeeds, job.attempts) {
            (true, _) => DONE,
            (false, 0..3) => READY,
            (false, _) => DEAD,
        };
        store.transact(|tx| {
            // a lease that has expired was given to another worker
            if tx.table(LEASED).remove(&(until, id))? { tx.table(target()).put(&id, &job) } else { Ok(()) }
        })?;
        println!("{id}: {} is {}, attempt {}", job.work, target().name(), job.attempts);
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::open(std::env::args().nth(1).ok_or("usage: job_queue DIR")?)?;
    println!("opened: {}", store.recovery_report());
    let numbers = |table| store.table(table).iter()?.map(|entry| Ok(entry?.0)).collect::<Result<Vec<u64>, Error>>();
    let leased = store.table(LEASED).iter()?.map(|entry| Ok(entry?.0.1)).collect::<Result<Vec<u64>, Error>>()?;
    let mut all = [numbers(READY)?, numbers(DONE)?, numbers(DEAD)?, leased].concat();
    all.sort_unstable();
    if all.is_empty() {
        let job = |id| Job { work: format!("mail {id}"), attempts: 0 };
        store.transact(|tx| (0..200).try_for_each(|id| tx.table(READY).put(&id, &job(id))))?;
    } else if !all.into_iter().eq(0..200) {
        return Err("a job is lost or there twice".into());
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| work(&store))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or(Err(Error::Poisoned)))
    })?;
    println!("done: {}, dead letters: {}", store.table(DONE).len()?, store.table(DEAD).len()?);
    Ok(store.close()?)
}
