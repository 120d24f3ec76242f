//! The simulated disk under the engine: what it promises to those who explore with it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails the test")]

mod common;

use common::oracle::{Oracle, run};
use common::{files, manual, scale};
use seawal::sim::{Crash, Fault, Persistence, SimDisk};
use seawal::storage::{Storage, WritePath};

fn disk(seed: u64) -> SimDisk {
    let path = if seed % 2 == 1 { WritePath::BufferedSync } else { WritePath::Direct };
    SimDisk::builder().seed(seed).write_path(path).build()
}

#[test]
fn a_crash_point_is_what_a_crash_at_that_operation_leaves() {
    for seed in 0..2 * scale() {
        let whole = disk(seed);
        whole.record_crash_points(..);
        run(&whole, &mut Oracle::default(), seed, 60, &manual()).unwrap();
        let points = whole.take_crash_points();
        assert_eq!(points.len() as u64, whole.op_count());
        let mut unsynced = 0;
        for (op, point) in (0..).zip(&points) {
            let stopped = disk(seed);
            stopped.enable_trace();
            stopped.fail_at(op, Fault::Crash, Persistence::ForEver);
            let _ = run(&stopped, &mut Oracle::default(), seed, 60, &manual());
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
