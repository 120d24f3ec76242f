//! A store that nobody uses takes no processor time.

use crate::child::{Running, command, started, tell};
use crate::common::{Cmd, Stacks};
use seawal::{Engine, Error, ExecuteError, Options};
use std::path::Path;
use std::time::{Duration, Instant};

/// S11: the maintenance thread and the preallocator woke up 54 times a second.
#[test]
fn an_idle_store_wakes_no_thread_and_work_wakes_the_right_one() {
    let dir = tempfile::tempdir().unwrap();
    let (status, lines) = Running::start(command(&[], "idle", dir.path(), &[])).finish();
    assert!(status.success() && lines.iter().any(|line| line == "done"), "{status}: {lines:?}");
}

pub(crate) fn child_idle() {
    let (dir, _) = started();
    let options = Options::new().checkpoint_log_bytes(256 << 10).max_txn_age(Duration::from_millis(700));
    let engine = options.digest_every(1000).open::<Stacks>(dir).unwrap();
    assert_idle("just opened");
    (0..20).for_each(|n| _ = engine.execute(Cmd::push(1, n)).unwrap());
    engine.begin().unwrap().commit().unwrap();
    assert_idle("after commits");
    // an open transaction expires though nothing else happens
    let tx = engine.begin().unwrap();
    tx.execute(Cmd::push(2, 1)).unwrap();
    until("the transaction expires", || engine.stats().open_transactions == 0);
    assert!(matches!(tx.execute(Cmd::push(2, 2)), Err(ExecuteError::Failed(Error::Expired))));
    drop(tx);
    assert_idle("after an expiry");
    for round in 1..=3 {
        let before = engine.stats();
        push_bytes(&engine, 300 << 10);
        until("a checkpoint is taken", || engine.stats().checkpoints > before.checkpoints);
        (0..1000).for_each(|n| drop(engine.submit(Cmd::push(4, n)).unwrap()));
        until("a digest is taken", || engine.stats().digests > before.digests);
        assert_idle(&format!("after checkpoint {round}"));
    }
    engine.close().unwrap();
    tell("done");
}

fn push_bytes(engine: &Engine<Stacks>, bytes: usize) {
    for n in 0..bytes.div_ceil(30_000) {
        engine.execute(Cmd::Push { key: 3, value: n as u32, pad: 30_000 }).unwrap();
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < Duration::from_secs(30), "it never happens: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until no thread of the store has run for two seconds.
fn assert_idle(when: &str) {
    let mut woken = 0;
    for _ in 0..15 {
        let before = switches();
        std::thread::sleep(Duration::from_secs(2));
        woken = switches() - before;
        if woken == 0 {
            return;
        }
    }
    panic!("{when}: {woken} wake-ups in two seconds");
}

/// How often a thread of the store was switched to.
fn switches() -> u64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let own = |path: &Path| std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("seawal"));
    let count = |path: &Path| {
        let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
        lines.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum::<u64>()
    };
    threads.filter(|path| own(path)).map(|path| count(&path)).sum()
}
