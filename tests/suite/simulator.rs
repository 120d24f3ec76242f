//! The simulated disk below the engine: its promises to tests that use it.

use crate::common::{Cmd, Stacks, files, manual, open, open_on, scale, stacks, state};
use seawal::io::{Clock, WritePath};
use seawal::sim::{Crash, Fault, OpKind, Persistence, SimDisk};
use std::sync::mpsc;
use std::time::{Duration, Instant};

fn disk(seed: u64) -> SimDisk {
    let path = if seed % 2 == 1 { WritePath::BufferedSync } else { WritePath::Direct };
    SimDisk::builder().seed(seed).write_path(path).build()
}

#[test]
fn a_crash_point_is_what_a_crash_at_that_operation_leaves() {
    for seed in 0..2 * scale() {
        let workload = stacks().seed(seed).steps(60);
        let whole = disk(seed);
        whole.record_crash_points(..);
        workload.run_on(&whole).unwrap_or_else(|e| panic!("{e}"));
        let points = whole.take_crash_points();
        assert_eq!(points.len() as u64, whole.op_count());
        let mut unsynced = 0;
        for (op, point) in (0..).zip(&points) {
            let stopped = disk(seed);
            stopped.enable_trace();
            stopped.fail_at(op, Fault::Crash, Persistence::ForEver);
            workload.run_on(&stopped).unwrap_or_else(|e| panic!("{e}"));
            assert!(stopped.is_down());
            assert_eq!(point.op(), op);
            let last = stopped.trace().pop().unwrap();
            assert!(last.starts_with(&format!("{op} {:?} ", point.kind())), "{last}");
            assert_eq!(point.pending_units(), stopped.pending_units(), "{last}");
            unsynced += point.pending_units();
            let choices = [Crash::Nothing, Crash::Everything, Crash::KillOnly, Crash::Seeded(op), Crash::TornBlock(op)];
            for choice in choices {
                let (found, wanted) = (point.crash(choice), stopped.crash(choice));
                assert_eq!(files(&found), files(&wanted), "seed {seed}, {choice:?}: {last}");
                assert_eq!(found.pending_units(), wanted.pending_units());
                assert_eq!((found.random(), found.monotonic()), (wanted.random(), wanted.monotonic()));
            }
        }
        assert!(unsynced > points.len(), "{unsynced}");
    }
}

#[test]
fn a_later_frame_that_completes_first_is_promised_only_with_the_earlier_one() {
    let disk = SimDisk::new(4);
    // all in one segment
    let options = manual().max_frames_in_flight(2).segment_bytes(128 << 10).first_segment_bytes(128 << 10);
    let (engine, _) = open_on::<Stacks>(&disk, &options).unwrap();
    engine.execute(Cmd::push(1, 1)).unwrap();
    disk.hold_writes();
    let wait_for = |held| {
        let begun = Instant::now();
        while disk.held_writes() < held {
            assert!(begun.elapsed().as_secs() < 20, "{held} frames are not in flight");
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        // releases the held writes even if this scope fails, so that no thread waits for them
        // forever
        let _released = Released(&disk);
        let first = scope.spawn(|| engine.execute(Cmd::push(1, 2)).unwrap());
        wait_for(1);
        let second = scope.spawn(|| engine.execute(Cmd::push(1, 3)).unwrap());
        wait_for(2);
        assert!(disk.complete_write(1));
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!first.is_finished() && !second.is_finished(), "nothing is promised yet");
        let mut seen = std::collections::BTreeSet::new();
        for crash in disk.crash_choices(4) {
            seen.insert(state(&open(&disk.crash(crash)).0).at(1));
        }
        assert_eq!(seen, [vec![1], vec![1, 2, 3]].into(), "the frame behind the hole never counts");
        disk.release_writes();
        first.join().unwrap();
        second.join().unwrap();
    });
    assert_eq!(state(&open(&disk.crash(Crash::Nothing)).0).at(1), [1, 2, 3]);
}

/// Four or more threads that wait for a fast device spin first. The clock stands still here, so the
/// number of yields bounds the spinning. Then they park. Each must be woken: to lead, to be
/// acknowledged, or to see that the device has failed.
#[test]
fn who_has_waited_awake_for_long_sleeps_and_is_woken_all_the_same() {
    let disk = SimDisk::new(5);
    let (engine, _) = open_on::<Stacks>(&disk, &manual()).unwrap();
    let (answer, answers) = mpsc::channel();
    let commit_beside = |threads: usize| {
        disk.hold_writes();
        for _ in 0..threads {
            let (engine, answer) = (engine.clone(), answer.clone());
            let commit = move || answer.send(engine.execute(Cmd::push(1, 0)).map(drop));
            std::thread::Builder::new().name("spinning".into()).spawn(commit).unwrap();
        }
        await_sleep("spinning");
    };
    let mut all = 0;
    for threads in [4, 9, 9] {
        commit_beside(threads);
        assert!(answers.try_recv().is_err(), "nothing is promised yet");
        let (mut answered, mut since) = (0, Instant::now());
        while answered < threads {
            // one after another: those of a preallocated segment, and those of frames
            if disk.complete_write(0) {
                since = Instant::now();
                await_sleep("spinning");
            }
            answered += answers.try_iter().map(Result::unwrap).count();
            assert!(since.elapsed().as_secs() < 20, "{answered} of {threads} are answered, and nobody writes");
            std::thread::yield_now();
        }
        all += threads;
        assert_eq!(state(&engine).at(1).len(), all);
    }
    commit_beside(8);
    disk.fail_next(OpKind::WriteDurableAt, Fault::Eio, Persistence::ForEver);
    disk.release_writes();
    let next = || answers.recv_timeout(Duration::from_secs(20)).expect("one who waits was not woken").is_err();
    assert!((0..8).filter(|_| next()).count() > 0, "who had not been written was refused");
}

/// Waits until all threads of this name sleep, seen several times in a row: threads that spin run,
/// or are ready to run.
fn await_sleep(name: &str) {
    let name = format!("({name}) ");
    let is_awake = |task: &std::path::Path| {
        let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
        stat.split_once(&name).is_some_and(|(_, state)| !state.starts_with('S'))
    };
    let (mut seen, began) = (0, Instant::now());
    while seen < 10 {
        std::thread::sleep(Duration::from_millis(10));
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let awake = tasks.filter(|task| is_awake(&task.as_ref().unwrap().path())).count();
        seen = if awake == 0 { seen + 1 } else { 0 };
        assert!(began.elapsed().as_secs() < 60, "{awake} threads do not fall asleep");
    }
}

/// Releases the writes that a disk holds, when it is dropped.
struct Released<'a>(&'a SimDisk);

impl Drop for Released<'_> {
    fn drop(&mut self) {
        self.0.release_writes();
    }
}
