//! Reads of random entries, and scans of a hundred.

use super::super::failure::{Failure, Status};
use super::data::{KEY_BYTES, key, mix, value};
use super::figures::{Figures, per_second, rates};
use super::latencies::Latencies;
use super::place::Place;
use super::settings::Bench;
use super::turns::{SLICE, needs_another_turn};
use seawal::Durability;
use seawal::Engine;
use seawal::kv::{Kv, KvCommand};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const SCANNED: usize = 100;
/// The number of reads that are timed together, so that the cost of the clock does not show.
const TIMED_TOGETHER: u32 = 8;

/// The floor of reads: the same entries in a plain sorted array.
struct Sorted {
    keys: Vec<[u8; KEY_BYTES as usize]>,
    values: Vec<u8>,
    value_bytes: usize,
}

impl Sorted {
    fn new(bench: &Bench) -> Sorted {
        let mut keys: Vec<_> = (0..bench.entries()).map(key).collect();
        keys.sort_unstable();
        let value_bytes = usize::try_from(bench.value).unwrap_or(0);
        let values = value((keys.len() as u64).saturating_mul(bench.value), 1);
        Sorted { keys, values, value_bytes }
    }

    fn get(&self, key: &[u8; KEY_BYTES as usize]) -> Option<Vec<u8>> {
        let at = self.keys.binary_search(key).ok()?.checked_mul(self.value_bytes)?;
        self.values.get(at..at.checked_add(self.value_bytes)?).map(<[u8]>::to_vec)
    }
}

pub(super) fn measure(bench: &Bench, place: &Place) -> Result<Figures, Failure> {
    let store = filled(bench, place)?;
    let sorted = Sorted::new(bench);
    let lost = || Failure::new(Status::Other, "an entry that was written is missing");
    let point = |n: u64| store.get(key(n))?.map(drop).ok_or_else(lost);
    let scan = |n: u64| {
        let start = key(n);
        let found = store.range(start.as_slice()..)?.take(SCANNED).map(|(_, value)| value.len()).sum::<usize>();
        std::hint::black_box(found);
        Ok(())
    };
    let plain = |n: u64| sorted.get(&key(n)).map(|value| drop(std::hint::black_box(value))).ok_or_else(lost);
    let mut totals = [(); 3].map(|()| (Latencies::default(), 0u64, Duration::ZERO));
    let (began, mut turns) = (Instant::now(), 0);
    let works: [&(dyn Fn(u64) -> Result<(), Failure> + Sync); 3] = [&plain, &point, &scan];
    while needs_another_turn(began, bench.time(), turns) {
        for (work, (latencies, done, time)) in works.into_iter().zip(&mut totals) {
            let (more, took) = slice(bench, turns as u64, latencies, work)?;
            *done = done.saturating_add(more);
            *time += took;
        }
        turns += 1;
    }
    store.close()?;
    let [floor, points, scans] = &totals;
    let rate = |(_, done, time): &(Latencies, u64, Duration)| per_second(*done, *time);
    let mut all = rates(rate(points), rate(floor), &points.0);
    all.extend([
        ("floor_p50_us", floor.0.micros(0.5).into()),
        ("floor_p99_us", floor.0.micros(0.99).into()),
        ("scan_rate", rate(scans).into()),
        ("entries_a_scan", SCANNED.into()),
    ]);
    Ok(all)
}

/// A store with all entries, inserted in random order.
pub(super) fn filled(bench: &Bench, place: &Place) -> Result<Engine<Kv>, Failure> {
    let store: Engine<Kv> = bench.options().durability(Durability::Os).open(place.store())?;
    let mut first = 0u64;
    while first < bench.entries() {
        let end = first.saturating_add(bench.batch()).min(bench.entries());
        store.execute(KvCommand::batch((first..end).map(|n| bench.put(n, n))))?;
        first = end;
    }
    store.sync()?;
    Ok(store)
}

/// The first number of a thread's key sequence in a turn. It must not be 0, which is a fixed point
/// of the generator.
fn start(thread: u64, turn: u64) -> u64 {
    mix(thread.wrapping_add(turn << 32).wrapping_add(1))
}

/// All threads read for one slice. Returns the number of reads, and how long they took.
fn slice(
    bench: &Bench,
    turn: u64,
    all: &mut Latencies,
    work: &(dyn Fn(u64) -> Result<(), Failure> + Sync),
) -> Result<(u64, Duration), Failure> {
    let threads = usize::try_from(bench.threads).unwrap_or(1);
    let (stop, barrier) = (AtomicBool::new(false), Barrier::new(threads.saturating_add(1)));
    let one = |number: u64| {
        let (mut latencies, mut done) = (Latencies::default(), 0u64);
        let mut n = start(number, turn);
        barrier.wait();
        while !stop.load(Ordering::Relaxed) {
            let before = Instant::now();
            for _ in 0..TIMED_TOGETHER {
                n = mix(n);
                work(n % bench.entries())?;
            }
            latencies.record(before.elapsed() / TIMED_TOGETHER);
            done = done.saturating_add(u64::from(TIMED_TOGETHER));
        }
        Ok((latencies, done))
    };
    thread::scope(|scope| {
        let one = &one;
        let running: Vec<_> = (0..bench.threads).map(|number| scope.spawn(move || one(number))).collect();
        barrier.wait();
        let began = Instant::now();
        thread::sleep(SLICE);
        stop.store(true, Ordering::Relaxed);
        let died = |_| Err(Failure::new(Status::Other, "a reading thread panicked"));
        let mut total = 0u64;
        for thread in running {
            let (latencies, done): (Latencies, u64) = thread.join().unwrap_or_else(died)?;
            all.merge(&latencies);
            total = total.saturating_add(done);
        }
        Ok((total, began.elapsed()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_reads_other_keys_all_the_time() {
        let mut seen = std::collections::HashSet::new();
        for (thread, turn) in (0..4).flat_map(|thread| (0..4).map(move |turn| (thread, turn))) {
            let row = std::iter::successors(Some(start(thread, turn)), |&n| Some(mix(n))).take(100);
            assert!(row.into_iter().all(|n| seen.insert(n)), "thread {thread}, turn {turn}");
        }
    }
}
