//! Checkpoints: their speed, and the latency of commits during one.

use super::super::failure::Failure;
use super::figures::{Figures, median, rates, ratio};
use super::floor::Floor;
use super::latencies::Latencies;
use super::place::Place;
use super::settings::Bench;
use super::turns::needs_another_turn;
use super::{commit, read};
use seawal::Error;
use seawal::{Engine, kv::Kv};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// The minimum number of checkpoints for meaningful latencies of concurrent commits.
const PACED: usize = 2;

pub(super) fn measure(bench: &Bench, place: &Place) -> Result<Figures, Failure> {
    read::filled(bench, place)?.close()?;
    let floor = Floor::new(&place.floor())?;
    let unpaced = unpaced(bench, place, &floor)?;
    let Commits { quiet, beside, freeze } = paced(bench, &place.store())?;
    let rate = |took: Duration| ratio(unpaced.bytes as f64, took.as_secs_f64());
    let (secs, floor_secs) = (median(unpaced.checkpoints), median(unpaced.writes));
    let mut all = rates(rate(secs), rate(floor_secs), &beside);
    all.extend([
        ("quiet_p50_us", quiet.micros(0.5).into()),
        ("quiet_p99_us", quiet.micros(0.99).into()),
        ("quiet_p999_us", quiet.micros(0.999).into()),
        ("freeze_us", (freeze.as_secs_f64() * 1e6).into()),
        ("secs", secs.as_secs_f64().into()),
        ("bytes", unpaced.bytes.into()),
        ("entries", bench.entries().into()),
        ("entries_rate", ratio(bench.entries() as f64, secs.as_secs_f64()).into()),
    ]);
    Ok(all)
}

struct Unpaced {
    checkpoints: Vec<Duration>,
    writes: Vec<Duration>,
    bytes: u64,
}

/// Unpaced checkpoints and new files of as many bytes, in turn.
fn unpaced(bench: &Bench, place: &Place, floor: &Floor) -> Result<Unpaced, Failure> {
    let dir = &place.store();
    let store: Engine<Kv> = bench.options().checkpoint_bytes_per_second(None).open(dir)?;
    let mut all = Unpaced { checkpoints: Vec::new(), writes: Vec::new(), bytes: 0 };
    let began = Instant::now();
    while needs_another_turn(began, bench.time() / 2, all.checkpoints.len()) {
        // without a new commit there would be nothing to checkpoint
        store.execute(bench.put(0, all.checkpoints.len() as u64 + 1))?;
        let before = Instant::now();
        store.checkpoint()?;
        let took = before.elapsed();
        all.checkpoints.push(took);
        // freeing the space of the previous snapshot in the background slows the device down: wait
        // for it
        std::thread::sleep(took * 2);
        all.bytes = newest_snapshot_bytes(dir)?;
        all.writes.push(floor.new_file(&place.floor(), all.bytes)?);
    }
    store.close()?;
    Ok(all)
}

/// The size of the largest snapshot. The snapshots differ by an entry or two.
fn newest_snapshot_bytes(dir: &Path) -> Result<u64, Failure> {
    let failed = |e| Failure::io("read the sizes of the snapshots", &e);
    let mut most = 0;
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.path().extension().is_some_and(|extension| extension == "snap") {
            most = entry.metadata().map_err(failed)?.len().max(most);
        }
    }
    Ok(most)
}

struct Commits {
    quiet: Latencies,
    beside: Latencies,
    freeze: Duration,
}

/// Commits with a concurrent checkpoint at the default pace, and without one, in turn.
fn paced(bench: &Bench, dir: &Path) -> Result<Commits, Failure> {
    let store: Engine<Kv> = bench.options().open(dir)?;
    let (mut quiet, mut beside) = (Latencies::default(), Latencies::default());
    let (began, mut turns) = (Instant::now(), 0);
    while needs_another_turn(began, bench.time() / 2, turns) || turns < PACED {
        let stop = AtomicBool::new(false);
        let mut outcome: Result<Duration, Error> = Ok(Duration::ZERO);
        let checkpoint = |_: &AtomicBool| {
            let before = Instant::now();
            outcome = store.checkpoint().map(|()| before.elapsed());
        };
        let (_, latencies) = commit::run(bench, &store, turns as u64, &stop, checkpoint)?;
        latencies.iter().for_each(|latencies| beside.merge(latencies));
        // then commit for the same time without a checkpoint
        let (until, mut turn) = (Instant::now() + outcome?, 0u64);
        while turn == 0 || Instant::now() < until {
            turn += 1;
            commit::slice(bench, &store, (turns as u64) << 16 | turn, &mut quiet)?;
        }
        turns += 1;
    }
    let freeze = store.stats().longest_freeze;
    store.close()?;
    Ok(Commits { quiet, beside, freeze })
}
