//! The whole engine under random schedules, on a simulated disk: commits, rollbacks, reads, views,
//! checkpoints, backups, a close, a failing device, and power loss at any moment. No thread waits
//! forever, one order explains all reads, and nothing acknowledged is undone.
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" cargo test --release --target-dir target/shuttle --test shuttle
//! ```
//!
//! `SEAWAL_LONG=10` runs ten times as many schedules, and `SEAWAL_SEED` runs other ones. A schedule
//! that fails is printed, and `SHUTTLE_REPLAY` names a file with a schedule to run again.
#![cfg(shuttle)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails the test")]

#[path = "suite/common/mod.rs"]
mod common;
#[path = "suite/serializability/history.rs"]
#[allow(dead_code, reason = "other tests use the rest of it")]
mod history;

use common::{Rng, scale};
use history::{Did, End, History, List};
use seawal::kv::{Kv, KvRejection};
use seawal::recovery::Verdict;
use seawal::sim::{Crash, Fault, OpKind, Persistence, SimDisk};
use seawal::{Background, Engine, Error, ExecuteError, Options, Ticket};
use shuttle::rand::RngCore;
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, Runner, thread};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake};
use std::time::Duration;

const KEYS: u64 = 3;

/// Runs the model under `schedules` schedules. Half are random, and half have few changes of
/// priority (Burckhardt et al., "A Randomized Scheduler with Probabilistic Guarantees of Finding
/// Bugs", ASPLOS 2010).
fn explore(schedules: u64, model: fn()) {
    let seed = std::env::var("SEAWAL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let each = usize::try_from(schedules * scale()).unwrap() / 2;
    if let Some(file) = std::env::var_os("SHUTTLE_REPLAY") {
        return run(ReplayScheduler::new_from_file(file).unwrap(), model);
    }
    run(RandomScheduler::new_from_seed(seed, each), model);
    run(PctScheduler::new_from_seed(seed, 3, each), model);
}

fn run(scheduler: impl Scheduler + 'static, model: fn()) {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(model);
}

fn options(background: Background) -> Options {
    common::manual().background(background).lock_timeout(Duration::from_secs(5)).checkpoint_log_bytes(24 << 10)
}

fn encode(list: &[u32]) -> Vec<u8> {
    list.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn decode(bytes: &[u8]) -> List {
    bytes.chunks_exact(4).map(|chunk| u32::from_le_bytes(chunk.try_into().unwrap())).collect()
}

fn lists(found: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Vec<(u8, List)> {
    found.map(|(key, value)| (key[0], decode(&value))).collect()
}

/// Wakes a thread of the model.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on(ticket: Ticket<()>) -> seawal::Result<()> {
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut ticket = pin!(ticket);
    loop {
        if let Poll::Ready(answer) = ticket.as_mut().poll(&mut Context::from_waker(&waker)) {
            return answer;
        }
        thread::park();
    }
}

/// Shared by all threads of one run. Its locks are not part of the model, and are not held across a
/// step.
struct World {
    disk: SimDisk,
    engine: Engine<Kv>,
    background: Background,
    history: History,
    /// Lists that were returned to a reader. They only grow, so a recovered list must begin with
    /// them.
    told: Mutex<Vec<(u8, List)>>,
}

impl World {
    fn new() -> Arc<World> {
        let mut rng = shuttle::rand::thread_rng();
        let disk = SimDisk::new(rng.next_u64());
        // without background threads, only the waiting threads flush
        let background = if rng.next_u32() % 2 == 0 { Background::Threads } else { Background::Manual };
        let engine = options(background).open_on::<Kv>(Arc::new(disk.clone())).unwrap();
        Arc::new(World { disk, engine, background, history: History::default(), told: Mutex::default() })
    }

    fn tell(&self, seen: impl IntoIterator<Item = (u8, List)>) {
        self.told.lock().unwrap().extend(seen);
    }

    /// Loses power, opens the store, and checks that everything returned to a reader is there.
    fn lose_power(&self) {
        let told = self.told.lock().unwrap().clone();
        let disk = self.disk.crash(Crash::Nothing);
        let engine = options(Background::Manual).open_on::<Kv>(Arc::new(disk)).unwrap();
        let report = engine.recovery_report().clone();
        for (key, list) in told {
            let left = engine.get([key]).unwrap().map(|bytes| decode(&bytes)).unwrap_or_default();
            assert!(left.starts_with(&list), "{list:?} of {key} was told, {left:?} is left: {report:?}");
        }
    }

    /// Checks the final state.
    fn judge(&self) {
        let id = self.history.begin();
        let saw = lists(self.engine.iter().unwrap());
        self.history.end(id, vec![Did::Scan { keys: 0..255, saw }], End::Committed);
        assert!(self.history.is_strictly_serializable(), "no order explains it:\n{}", self.history.text());
    }
}

/// A thread that repeats random actions.
struct Worker {
    world: Arc<World>,
    rng: Rng,
    next: u32,
}

/// The outcome of an action. It may fail because of the log or a close, but never by an endless
/// wait.
type Outcome = Result<Option<(Vec<Did>, End)>, ExecuteError<KvRejection>>;

impl Worker {
    fn spawn(world: &Arc<World>, id: u32, actions: u64) -> thread::JoinHandle<Option<Error>> {
        let rng = Rng::new(shuttle::rand::thread_rng().next_u64());
        let mut worker = Worker { world: world.clone(), rng, next: id * 1000 };
        thread::spawn(move || (0..actions).find_map(|_| worker.act().err()))
    }

    /// Performs one action. Returns the error that ends the thread, if there is one.
    fn act(&mut self) -> Result<(), Error> {
        let world = self.world.clone();
        let id = world.history.begin();
        let outcome = match self.rng.below(12) {
            0 => self.read(),
            1 => self.scan(),
            2 => self.view(),
            3 => self.checkpoint(),
            4 => self.back_up(),
            5 => self.step(),
            6 => self.roll_back(),
            _ => self.append(),
        };
        match outcome {
            Ok(Some((did, end))) => world.history.end(id, did, end),
            Ok(None) => {}
            Err(ExecuteError::Failed(Error::Conflict)) => {}
            Err(ExecuteError::Failed(error)) => return Err(error),
            Err(ExecuteError::Rejected(rejection)) => panic!("{rejection}"),
        }
        Ok(())
    }

    fn key(&mut self) -> u8 {
        b'a' + self.rng.below(KEYS) as u8
    }

    fn read(&mut self) -> Outcome {
        let key = self.key();
        let saw = self.world.engine.get([key])?.map(|bytes| decode(&bytes));
        self.world.tell(saw.clone().map(|list| (key, list)));
        Ok(Some((vec![Did::Read { key, saw }], End::Committed)))
    }

    fn scan(&mut self) -> Outcome {
        let saw = lists(self.world.engine.iter()?);
        self.world.tell(saw.clone());
        Ok(Some((vec![Did::Scan { keys: 0..255, saw }], End::Committed)))
    }

    fn view(&mut self) -> Outcome {
        let view = self.world.engine.view()?;
        let saw = lists(view.range::<[u8]>("", ..).map(|(key, value)| (key.to_vec(), value.to_vec())));
        self.world.tell(saw.clone());
        Ok(Some((vec![Did::Scan { keys: 0..255, saw }], End::Committed)))
    }

    fn checkpoint(&mut self) -> Outcome {
        self.world.engine.checkpoint()?;
        Ok(None)
    }

    fn back_up(&mut self) -> Outcome {
        let copy = SimDisk::new(self.rng.next());
        self.world.engine.backup_to_storage(Arc::new(copy.clone()))?;
        let copy = options(Background::Manual).open_on::<Kv>(Arc::new(copy)).unwrap();
        let saw = lists(copy.iter().unwrap());
        Ok(Some((vec![Did::Scan { keys: 0..255, saw }], End::Committed)))
    }

    /// A background step, which may run concurrently with the background threads.
    fn step(&mut self) -> Outcome {
        let steps = seawal::wal::LogStep::ALL;
        self.world.engine.step(seawal::Step::Log(steps[self.rng.below(4) as usize]))?;
        self.world.engine.step(seawal::Step::Checkpoint)?;
        Ok(None)
    }

    fn roll_back(&mut self) -> Outcome {
        let tx = self.world.engine.begin()?;
        let key = self.key();
        let saw = tx.get([key])?.map(|bytes| decode(&bytes));
        tx.insert([key], encode(&[0]))?;
        tx.rollback()?;
        self.world.tell(saw.clone().map(|list| (key, list)));
        Ok(Some((vec![Did::Read { key, saw }], End::RolledBack)))
    }

    /// Appends to one or two lists, and waits for the commit in one of several ways.
    fn append(&mut self) -> Outcome {
        let tx = self.world.engine.begin()?;
        let mut did = Vec::new();
        let mut wrote = Vec::new();
        for _ in 0..1 + self.rng.below(2) {
            let key = self.key();
            self.next += 1;
            let value = self.next;
            let saw = tx.get([key])?.map(|bytes| decode(&bytes));
            let mut list = saw.clone().unwrap_or_default();
            list.push(value);
            tx.insert([key], encode(&list))?;
            wrote.push((key, list));
            did.extend([Did::Read { key, saw }, Did::Append { key, value }]);
        }
        match self.rng.below(4) {
            0 => tx.submit()?.wait()?,
            // polling a future does no I/O, so it needs the background threads
            1 if self.world.background == Background::Threads => block_on(tx.submit()?)?,
            2 => {
                drop(tx.submit()?);
                wrote.clear();
            }
            _ => tx.commit()?,
        }
        self.world.tell(wrote);
        Ok(Some((did, End::Committed)))
    }
}

#[test]
fn what_is_seen_is_serializable_and_what_was_told_survives_power_loss_at_any_moment() {
    explore(1600, || {
        let world = World::new();
        let workers = [1, 2, 3].map(|id| Worker::spawn(&world, id, 3));
        let crasher = {
            let world = world.clone();
            thread::spawn(move || world.lose_power())
        };
        for worker in workers {
            let error = worker.join().unwrap();
            assert!(error.is_none(), "{error:?}");
        }
        crasher.join().unwrap();
        world.lose_power();
        world.judge();
        world.engine.close().unwrap();
        world.lose_power();
    });
}

#[test]
fn closing_answers_everybody_and_nothing_that_was_told_is_lost() {
    explore(800, || {
        let world = World::new();
        let workers = [1, 2].map(|id| Worker::spawn(&world, id, 3));
        let closer = {
            let world = world.clone();
            thread::spawn(move || world.engine.close())
        };
        world.engine.close().unwrap();
        closer.join().unwrap().unwrap();
        for worker in workers {
            let error = worker.join().unwrap();
            assert!(matches!(error, None | Some(Error::Closed)), "{error:?}");
        }
        world.lose_power();
    });
}

#[test]
fn a_publication_that_is_owed_since_a_full_disk_leaves_the_mark_of_a_close_alone() {
    explore(800, || {
        let disk = SimDisk::new(shuttle::rand::thread_rng().next_u64());
        let open = |background| options(background).open_on::<Kv>(Arc::new(disk.clone())).unwrap();
        open(Background::Manual).insert("a", "1").unwrap();
        // the manifest is the first write of recovery, and there is space again at once
        disk.fail_next(OpKind::WriteAt, Fault::NoSpace, Persistence::Once);
        let engine = open(Background::Manual);
        let stepper = {
            let engine = engine.clone();
            thread::spawn(move || engine.step(seawal::Step::Log(seawal::wal::LogStep::Watermark)))
        };
        engine.close().unwrap();
        let stepped = stepper.join().unwrap();
        assert!(matches!(stepped, Ok(_) | Err(Error::Closed)), "{stepped:?}");
        drop(engine);
        let engine = open(Background::Manual);
        let report = engine.recovery_report().clone();
        assert_eq!((report.verdict, report.records), (Verdict::Clean, 0), "{report:?}");
        assert_eq!(engine.get("a").unwrap().as_deref(), Some(&b"1"[..]));
    });
}

#[test]
fn a_device_that_fails_answers_everybody_and_nothing_that_was_told_is_lost() {
    explore(800, || {
        let world = World::new();
        let workers = [1, 2, 3].map(|id| Worker::spawn(&world, id, 2));
        let breaker = {
            let world = world.clone();
            thread::spawn(move || world.disk.fail_next(OpKind::WriteDurableAt, Fault::Eio, Persistence::Once))
        };
        for worker in workers {
            let error = worker.join().unwrap();
            // a failed snapshot fails its checkpoint, and a failed frame latches the log
            let fits = |error: &Error| error.is_latched() || matches!(error, Error::Io { .. });
            assert!(error.as_ref().is_none_or(fits), "{error:?}");
        }
        breaker.join().unwrap();
        world.lose_power();
        drop(world.engine.close());
        world.lose_power();
    });
}

#[test]
fn tickets_nobody_waits_for_are_flushed_and_an_engine_may_be_dropped_with_them() {
    explore(400, || {
        let world = World::new();
        let threads = world.background == Background::Threads;
        let other = {
            let world = world.clone();
            thread::spawn(move || drop(world.engine.submit(seawal::kv::KvCommand::put("", "a", encode(&[1]))).unwrap()))
        };
        let ticket = world.engine.submit(seawal::kv::KvCommand::put("", "b", encode(&[2]))).unwrap();
        if threads {
            while !ticket.is_done() {
                thread::yield_now();
            }
            world.tell([(b'b', vec![2])]);
        }
        other.join().unwrap();
        drop(ticket);
        let World { disk, engine, history, told, .. } = Arc::into_inner(world).unwrap();
        drop(engine);
        // a drop hands over the appended records
        told.lock().unwrap().extend([(b'a', vec![1]), (b'b', vec![2])]);
        let engine = options(Background::Manual).open_on::<Kv>(Arc::new(disk.clone())).unwrap();
        let world = World { disk, engine, background: Background::Manual, history, told };
        world.lose_power();
    });
}
