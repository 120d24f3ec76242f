//! Opening a store that was killed, which replays its log, and one that was closed, which loads its
//! snapshot.

use super::super::failure::Failure;
use super::figures::{Figures, median, per_second, ratio};
use super::floor;
use super::place::Place;
use super::settings::Bench;
use super::turns::needs_another_turn;
use seawal::kv::{Kv, KvCommand};
use seawal::sim::explore::{KilledStore, kill};
use seawal::{Engine, RecoveryReport};
use std::path::Path;
use std::time::{Duration, Instant};

pub(super) fn measure(bench: &Bench, place: &Place) -> Result<Figures, Failure> {
    let (entries, dir) = (bench.entries(), place.store());
    let killed = KilledStore { records: entries.div_ceil(bench.batch()), losers: 0, inverses: 0 };
    let batch = |n: u64| {
        let first = n.saturating_mul(bench.batch());
        KvCommand::batch((first..first.saturating_add(bench.batch()).min(entries)).map(|n| bench.put(n, n)))
    };
    killed.build::<Kv>(&dir, &bench.options(), batch, |_, _| KvCommand::delete("", "unused"))?;
    let (mut reads, mut opens, mut bytes, mut records) = (Vec::new(), Vec::new(), 0, 0);
    let began = Instant::now();
    while needs_another_turn(began, bench.time() / 2, opens.len()) {
        let (took, read) = floor::read_log(&dir)?;
        reads.push(took);
        bytes = read;
        let (took, report) = open(bench, &dir)?;
        records = report.records;
        opens.push(took);
    }
    // closing writes a snapshot of everything
    let store: Engine<Kv> = bench.options().open(&dir)?;
    store.close()?;
    let (mut loads, mut snapshot_bytes) = (Vec::new(), 0);
    let began = Instant::now();
    while needs_another_turn(began, bench.time() / 2, loads.len()) {
        let (took, report) = open(bench, &dir)?;
        snapshot_bytes = report.snapshot_bytes;
        loads.push(took);
    }
    let (secs, snapshot_secs, floor_secs) = (median(opens), median(loads), median(reads));
    let (rate, floor) = (per_second(entries, secs), per_second(entries, floor_secs));
    Ok(Vec::from([
        ("records", records.into()),
        ("secs", secs.as_secs_f64().into()),
        ("rate", rate.into()),
        ("floor", floor.into()),
        ("ratio", ratio(rate, floor).into()),
        ("log_bytes", bytes.into()),
        ("entries", entries.into()),
        ("snapshot_secs", snapshot_secs.as_secs_f64().into()),
        ("snapshot_rate", per_second(entries, snapshot_secs).into()),
        ("snapshot_bytes", snapshot_bytes.into()),
    ]))
}

/// Opens the store and kills the engine, so that the next open has the same work.
fn open(bench: &Bench, dir: &Path) -> Result<(Duration, RecoveryReport), Failure> {
    let began = Instant::now();
    let store = bench.options().open::<Kv>(dir)?;
    let report = store.recovery_report().clone();
    let took = began.elapsed();
    kill(&store);
    Ok((took, report))
}
