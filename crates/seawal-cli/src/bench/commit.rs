//! Commits of one record each.

use super::super::failure::{Failure, Status};
use super::figures::{Figures, per_second, rates};
use super::floor::Floor;
use super::latencies::Latencies;
use super::place::Place;
use super::settings::Bench;
use super::turns::{SLICE, needs_another_turn};
use seawal::Durability;
use seawal::Engine;
use seawal::kv::Kv;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(super) fn measure(bench: &Bench, place: &Place) -> Result<Figures, Failure> {
    let store: Engine<Kv> = bench.durable_options().first_segment_bytes(64 << 20).open(place.store())?;
    let mut floor = Floor::new(&place.floor())?;
    let durable = bench.durability == Durability::Sync;
    let (mut commits, mut writes) = (Latencies::default(), Latencies::default());
    let (mut committing, mut writing) = (Duration::ZERO, Duration::ZERO);
    let (began, mut turns) = (Instant::now(), 0);
    while needs_another_turn(began, bench.time(), turns) {
        writing += if durable {
            floor.durable(bench.record_bytes().saturating_mul(bench.threads), &mut writes)?
        } else {
            floor.buffered(bench.record_bytes(), &mut writes)?
        };
        committing += slice(bench, &store, turns as u64, &mut commits)?;
        turns += 1;
    }
    let groups = store.stats().log.map(|log| log.batch_sizes).unwrap_or_default();
    store.close()?;
    // the floor assumes that one write carries a commit of every thread
    let at_once = if durable { bench.threads } else { 1 };
    let floor = per_second(writes.count().saturating_mul(at_once), writing);
    let mut all = rates(per_second(commits.count(), committing), floor, &commits);
    all.extend([
        ("floor_p50_us", writes.micros(0.5).into()),
        ("floor_p99_us", writes.micros(0.99).into()),
        ("floor_p999_us", writes.micros(0.999).into()),
        ("commits", commits.count().into()),
        ("records_a_frame", groups.mean().into()),
    ]);
    Ok(all)
}

/// All threads commit for one slice. Returns how long that took.
pub(super) fn slice(bench: &Bench, store: &Engine<Kv>, turn: u64, all: &mut Latencies) -> Result<Duration, Failure> {
    let stop = AtomicBool::new(false);
    let (began, latencies) = run(bench, store, turn, &stop, |_| thread::sleep(SLICE))?;
    latencies.iter().for_each(|latencies| all.merge(latencies));
    Ok(began.elapsed())
}

/// All threads commit while `meanwhile` runs. Returns when they began, and the latencies of each
/// thread.
pub(super) fn run(
    bench: &Bench,
    store: &Engine<Kv>,
    turn: u64,
    stop: &AtomicBool,
    meanwhile: impl FnOnce(&AtomicBool),
) -> Result<(Instant, Vec<Latencies>), Failure> {
    let threads = usize::try_from(bench.threads).unwrap_or(1);
    let barrier = Barrier::new(threads.saturating_add(1));
    thread::scope(|scope| {
        let mut running = Vec::with_capacity(threads);
        for number in 0..bench.threads {
            let barrier = &barrier;
            running.push(scope.spawn(move || {
                let mut latencies = Latencies::default();
                let mut n = number;
                barrier.wait();
                while !stop.load(Ordering::Relaxed) {
                    let command = bench.put(n % bench.entries(), n.wrapping_add(turn << 40));
                    let before = Instant::now();
                    store.execute(command)?;
                    latencies.record(before.elapsed());
                    n = n.wrapping_add(bench.threads);
                }
                Ok(latencies)
            }));
        }
        barrier.wait();
        let began = Instant::now();
        meanwhile(stop);
        stop.store(true, Ordering::Relaxed);
        let died = |_| Err(Failure::new(Status::Other, "a committing thread panicked"));
        let latencies = running.into_iter().map(|thread| thread.join().unwrap_or_else(died));
        latencies.collect::<Result<Vec<_>, Failure>>().map(|latencies| (began, latencies))
    })
}
