//! Operations, faults, crashes and damage, drawn from a fuzzer's bytes and checked against a model.
//!
//! The model is the list of states that the commits led to, in their order, and the newest of them
//! that was acknowledged. A crash may lose later states and nothing else. After damage the store
//! may also refuse to open.

mod damage;

use crate::directory::files_of;
use crate::store::{agree, is_typed, options, storage};
use arbitrary::{Arbitrary, Unstructured};
use damage::Damage;
use seawal::fuzzing::Files;
use seawal::inspect;
use seawal::io::{Create, WritePath};
use seawal::kv::{Kv, KvCommand, KvReply};
use seawal::sim::{Crash, Fault, Persistence, SimDisk};
use seawal::wal::LogStep;
use seawal::{Durability, Engine, Error, ExecuteError, ExecuteResult, Options, RecoveryPolicy};
use seawal::{Savepoint, Step, Ticket, Transaction};
use std::collections::BTreeMap;
use std::time::Duration;

const MAX_OPERATIONS: usize = 200;
const SLOTS: usize = 3;

struct History {
    large_blocks: bool,
    buffered: bool,
    in_flight: bool,
    end: End,
    operations: Vec<Operation>,
}

impl History {
    /// The end comes first, and all bytes after it become operations. A derived list would stop at
    /// every other byte.
    fn read(bytes: &mut Unstructured<'_>) -> arbitrary::Result<History> {
        let (large_blocks, buffered, in_flight) = bytes.arbitrary()?;
        let end = bytes.arbitrary()?;
        let mut operations = Vec::new();
        while !bytes.is_empty() && operations.len() < MAX_OPERATIONS {
            operations.push(bytes.arbitrary()?);
        }
        Ok(History { large_blocks, buffered, in_flight, end, operations })
    }
}

#[derive(Arbitrary, Debug)]
enum Operation {
    Execute(Write, Promise),
    Submit(Write, Promise),
    Wait,
    Begin(u8),
    Within(u8, Write),
    Save(u8),
    Restore(u8),
    Commit(u8, Promise),
    RollBack(u8),
    Background(u8),
    Checkpoint,
    Advance(u8),
    Look,
    Remember,
    Close,
    Drop,
    Crash(Loss, u8),
    Fail { after: u8, fault: Fails, for_ever: bool },
    FreePages(Option<u8>),
}

#[derive(Arbitrary, Clone, Debug)]
enum Write {
    Put(u8, u16),
    Delete(u8),
    CompareAndSet(u8, bool),
    Batch(Vec<(u8, Option<u8>)>),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Promise {
    Sync,
    Interval,
    Os,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Loss {
    Nothing,
    Everything,
    Seeded,
    Kill,
    TornBlock,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Fails {
    Eio,
    NoSpace,
    Short,
    Interrupted,
    PowerOff,
}

#[derive(Arbitrary, Debug)]
enum End {
    Crash(Loss, u8),
    /// Files at rest are damaged, after evidence for the end of the log was written.
    Damage(Damage),
    /// The same with several damages, which may destroy the evidence together with what it proves.
    Ruin(Vec<Damage>),
}

impl Promise {
    fn durability(self) -> Durability {
        match self {
            Promise::Sync => Durability::Sync,
            Promise::Interval => Durability::Interval(Duration::from_millis(5)),
            Promise::Os => Durability::Os,
        }
    }
}

fn crash(disk: &SimDisk, loss: Loss, seed: u8) -> SimDisk {
    disk.crash(match loss {
        Loss::Nothing => Crash::Nothing,
        Loss::Everything => Crash::Everything,
        Loss::Seeded => Crash::Seeded(u64::from(seed)),
        Loss::Kill => Crash::KillOnly,
        Loss::TornBlock => Crash::TornBlock(u64::from(seed)),
    })
}

type State = BTreeMap<Vec<u8>, Vec<u8>>;
/// A key with its new value, or none if it is removed.
type Change = (Vec<u8>, Option<Vec<u8>>);

fn key(number: u8) -> Vec<u8> {
    // short, long and empty keys, and keys that are prefixes of one another
    vec![b'k'; usize::from(number % 8)].into_iter().chain((number >= 128).then_some(number)).collect()
}

/// The states that the commits led to.
struct Model {
    states: Vec<State>,
    /// All states that ever were, with those that a crash took back.
    ever: Vec<State>,
    /// The indexes of the newest states that survive power loss, and a kill.
    durable: usize,
    written: usize,
}

impl Model {
    fn newest(&self) -> &State {
        self.states.last().unwrap()
    }

    fn push(&mut self, state: State) -> usize {
        self.ever.push(state.clone());
        self.states.push(state);
        self.states.len() - 1
    }

    fn promised(&mut self, at: usize, promise: Promise) {
        self.written = self.written.max(at);
        if matches!(promise, Promise::Sync) {
            self.durable = self.durable.max(at);
        }
    }

    /// Continues from the state that was found, which must not be older than `least`.
    fn found(&mut self, state: &State, least: usize) {
        let at = self.states.iter().rposition(|known| known == state);
        let Some(at) = at.filter(|at| *at >= least) else {
            panic!("found {at:?} of {} states, at least {least} was promised", self.states.len());
        };
        self.states.truncate(at + 1);
        (self.durable, self.written) = (at, at);
    }
}

/// An open transaction with its changes.
struct Open {
    tx: Transaction<Kv>,
    changes: Vec<Change>,
    savepoints: Vec<(Savepoint, usize)>,
    /// Whether it has executed a command, even one undone since. Its commit is a record then.
    wrote: bool,
}

struct Run {
    disk: SimDisk,
    options: Options,
    engine: Option<Engine<Kv>>,
    model: Model,
    open: [Option<Open>; SLOTS],
    tickets: Vec<(Ticket<KvReply>, usize, Promise)>,
    remembered: Files,
    counter: u64,
    /// Whether faults were injected, so that operations may fail.
    faulty: bool,
    /// Whether the outcome of the last commit is unknown.
    unsure: bool,
}

/// Runs a history. With the environment variable `SEAWAL_SHOW` it prints each step.
pub fn history(data: &[u8]) {
    let Ok(history) = History::read(&mut Unstructured::new(data)) else { return };
    let shows = std::env::var_os("SEAWAL_SHOW").is_some();
    let path = if history.buffered { WritePath::BufferedSync } else { WritePath::Direct };
    let block = if history.large_blocks { 4096 } else { 512 };
    let disk = SimDisk::builder().seed(5).block_bytes(block).write_path(path).build();
    let options = options().max_frames_in_flight(1 + usize::from(history.in_flight));
    let engine = options.open_on::<Kv>(storage(&disk)).unwrap();
    let empty = State::new();
    let model = Model { states: vec![empty.clone()], ever: vec![empty], durable: 0, written: 0 };
    let mut run = Run {
        disk,
        options,
        engine: Some(engine),
        model,
        open: Default::default(),
        tickets: Vec::new(),
        remembered: Files::new(),
        counter: 0,
        faulty: false,
        unsure: false,
    };
    for operation in &history.operations {
        if shows {
            eprintln!("{:?} of {} states are durable, then {operation:?}", run.model.durable, run.model.states.len());
        }
        run.step(operation);
    }
    if shows {
        eprintln!("then {:?}", history.end);
    }
    match history.end {
        End::Crash(loss, seed) => {
            run.crash(loss, seed);
            run.look();
        }
        End::Damage(damage) => run.damage(&[damage]),
        End::Ruin(damage) => run.damage(&damage),
    }
}

fn state_of(engine: &Engine<Kv>) -> Result<State, Error> {
    let view = engine.view_latest()?;
    Ok(view.range::<[u8]>("", ..).map(|(key, value)| (key.to_vec(), value.to_vec())).collect())
}

impl Run {
    fn engine(&self) -> &Engine<Kv> {
        self.engine.as_ref().unwrap()
    }

    fn step(&mut self, operation: &Operation) {
        match operation {
            Operation::Execute(write, promise) => {
                let (command, changes) = self.command(write);
                let result = self.engine().execute_with(command, promise.durability()).map(|_| ());
                self.committed(result, &changes, *promise);
            }
            Operation::Submit(write, promise) => {
                let (command, changes) = self.command(write);
                let result = self.engine().submit_with(command, promise.durability());
                let failed = result.as_ref().map(|_| ()).map_err(Clone::clone);
                if let (Some(at), Ok(ticket)) = (self.appended(failed, &changes), result) {
                    self.tickets.push((ticket, at, *promise));
                }
            }
            Operation::Wait => self.wait(),
            Operation::Begin(slot)
            | Operation::Within(slot, _)
            | Operation::Save(slot)
            | Operation::Restore(slot)
            | Operation::Commit(slot, _)
            | Operation::RollBack(slot) => self.transact(usize::from(*slot) % SLOTS, operation),
            Operation::Background(kind) => self.background(*kind),
            Operation::Checkpoint => {
                let result = self.engine().checkpoint();
                self.may_fail(result);
            }
            Operation::Advance(millis) => self.disk.advance(Duration::from_millis(u64::from(*millis))),
            Operation::Look => self.look(),
            Operation::Remember => self.remembered = files_of(&self.disk),
            Operation::Close => self.close(),
            Operation::Drop => self.reopen(),
            Operation::Crash(loss, seed) => self.crash(*loss, *seed),
            Operation::Fail { after, fault, for_ever } => {
                let fault = match fault {
                    Fails::Eio => Fault::Eio,
                    Fails::NoSpace => Fault::NoSpace,
                    Fails::Short => Fault::ShortWrite,
                    Fails::Interrupted => Fault::Interrupted,
                    Fails::PowerOff => Fault::Crash,
                };
                let persistence = if *for_ever { Persistence::ForEver } else { Persistence::Once };
                self.disk.fail_at(self.disk.op_count() + u64::from(*after % 64), fault, persistence);
                self.faulty = true;
            }
            Operation::FreePages(pages) => {
                self.disk.set_free_bytes(pages.map(|pages| u64::from(pages) * 4096));
                self.faulty = true;
            }
        }
    }

    /// Runs an operation on one of the open transactions.
    fn transact(&mut self, slot: usize, operation: &Operation) {
        match operation {
            Operation::Begin(_) if self.open[slot].is_none() => {
                let tx = self.engine().begin();
                self.open[slot] =
                    tx.ok().map(|tx| Open { tx, changes: Vec::new(), savepoints: Vec::new(), wrote: false });
            }
            Operation::Within(_, write) => self.within(slot, write),
            Operation::Save(_) => {
                if let Some(open) = &mut self.open[slot]
                    && let Ok(savepoint) = open.tx.savepoint()
                {
                    open.savepoints.push((savepoint, open.changes.len()));
                }
            }
            Operation::Restore(_) => {
                if let Some(open) = &mut self.open[slot]
                    && let Some((savepoint, changes)) = open.savepoints.pop()
                    && open.tx.rollback_to(savepoint).is_ok()
                {
                    open.changes.truncate(changes);
                }
            }
            Operation::Commit(_, promise) => {
                if let Some(open) = self.open[slot].take() {
                    let result = open.tx.commit_with(promise.durability());
                    if open.wrote {
                        self.committed(result.map_err(ExecuteError::Failed), &open.changes, *promise);
                    } else {
                        self.may_fail(result);
                    }
                }
            }
            Operation::RollBack(_) => {
                if let Some(open) = self.open[slot].take() {
                    let result = open.tx.rollback();
                    self.may_fail(result);
                }
            }
            _ => {}
        }
    }

    /// A command, and its changes if it is applied.
    fn command(&mut self, write: &Write) -> (KvCommand, Vec<Change>) {
        self.counter += 1;
        let counter = self.counter;
        // all values differ, so that applying a command twice shows
        let value = |len: u16| {
            let mut value = counter.to_le_bytes().to_vec();
            value.resize(8 + usize::from(len % 3000), 0xa5);
            value
        };
        let put = |key: Vec<u8>, value: Vec<u8>| (KvCommand::put("", key.clone(), value.clone()), (key, Some(value)));
        let delete = |key: Vec<u8>| (KvCommand::delete("", key.clone()), (key, None));
        match write {
            Write::Put(number, len) => {
                let (command, change) = put(key(*number), value(*len));
                (command, vec![change])
            }
            Write::Delete(number) => {
                let (command, change) = delete(key(*number));
                (command, vec![change])
            }
            Write::CompareAndSet(number, matches) => {
                let actual = self.model.newest().get(&key(*number)).cloned();
                let expected = if *matches { actual } else { Some(b"something else".to_vec()) };
                let new = value(3);
                let command = KvCommand::compare_and_set("", key(*number), expected, Some(new.clone()));
                (command, vec![(key(*number), Some(new))])
            }
            Write::Batch(parts) => {
                let parts = parts.iter().take(8).enumerate().map(|(at, (number, len))| match len {
                    Some(len) => put(key(*number), [&value(u16::from(*len))[..], &[at as u8]].concat()),
                    None => delete(key(*number)),
                });
                let (commands, changes): (Vec<_>, Vec<_>) = parts.unzip();
                (KvCommand::batch(commands), changes)
            }
        }
    }

    fn within(&mut self, slot: usize, write: &Write) {
        let (command, changes) = self.command(write);
        let Some(open) = &mut self.open[slot] else { return };
        match open.tx.execute(command) {
            Ok(_) => {
                open.changes.extend(changes);
                open.wrote = true;
            }
            Err(ExecuteError::Rejected(_)) => {}
            Err(ExecuteError::Failed(error)) => {
                let is_over = !matches!(error, Error::LockTimeout | Error::Full { .. } | Error::TooLarge { .. });
                if is_over {
                    // its effects are rolled back when it is dropped
                    self.open[slot] = None;
                }
                self.may_fail(Err(error));
            }
        }
    }

    /// Notes the outcome of a commit in the model.
    fn committed(&mut self, result: ExecuteResult<Kv, ()>, changes: &[Change], promise: Promise) {
        let is_ok = result.is_ok();
        if let (Some(at), true) = (self.appended(result, changes), is_ok) {
            self.model.promised(at, promise);
        }
    }

    /// Adds the state that a commit led to. Returns its index.
    fn appended(&mut self, result: ExecuteResult<Kv, ()>, changes: &[Change]) -> Option<usize> {
        let mut next = self.model.newest().clone();
        for (key, value) in changes {
            match value {
                Some(value) => next.insert(key.clone(), value.clone()),
                None => next.remove(key),
            };
        }
        match result {
            Ok(()) => Some(self.model.push(next)),
            Err(ExecuteError::Rejected(_)) => None,
            Err(ExecuteError::Failed(error)) => {
                let nothing_happened =
                    matches!(error, Error::LockTimeout | Error::Conflict | Error::TooLarge { .. } | Error::Expired);
                self.may_fail(Err(error));
                if !nothing_happened {
                    match state_of(self.engine()) {
                        Ok(state) if !self.unsure && state == *self.model.newest() => return None,
                        Ok(state) if !self.unsure && state == next => {}
                        _ => self.unsure = true,
                    }
                    self.model.push(next);
                }
                None
            }
        }
    }

    /// Asserts that an operation failed only if faults were injected.
    fn may_fail(&mut self, result: Result<(), Error>) {
        match result {
            Ok(()) | Err(Error::Conflict | Error::LockTimeout | Error::TooLarge { .. } | Error::Expired) => {}
            Err(Error::Poisoned) => panic!("nothing panics here"),
            Err(Error::Corrupt { path, offset, reason, .. }) => {
                assert!(self.faulty, "{} is damaged at {offset:?}: {reason}", path.display());
            }
            // the limit of 1 MiB of log may have been reached
            Err(Error::Full { .. }) => {}
            Err(error) => assert!(self.faulty, "{error:?}"),
        }
    }

    fn wait(&mut self) {
        for (ticket, at, promise) in std::mem::take(&mut self.tickets) {
            match ticket.wait() {
                Ok(_) => self.model.promised(at, promise),
                Err(error) => {
                    self.unsure = true;
                    self.may_fail(Err(error));
                }
            }
        }
    }

    fn background(&mut self, kind: u8) {
        let step = match kind % 7 {
            0 => Step::Log(LogStep::Flush),
            1 => Step::Log(LogStep::SyncDue),
            2 => Step::Log(LogStep::Watermark),
            3 => Step::Log(LogStep::PrepareSegment),
            4 => Step::BeginCheckpoint,
            5 => Step::Checkpoint,
            _ => Step::Expire,
        };
        let result = self.engine().step(step).map(|_| ());
        self.may_fail(result);
    }

    /// Asserts that the committed state is that of the model.
    fn look(&mut self) {
        if self.unsure {
            return;
        }
        match state_of(self.engine()) {
            Ok(state) => assert!(state == *self.model.newest(), "the committed state is another"),
            Err(error) => self.may_fail(Err(error)),
        }
    }

    fn end_engine(&mut self) {
        self.open = Default::default();
        self.tickets.clear();
        self.engine = None;
    }

    fn close(&mut self) {
        self.wait();
        // the open transactions are rolled back, one after the other
        self.open = Default::default();
        let result = self.engine().close();
        if result.is_ok() && !self.unsure {
            let newest = self.model.states.len() - 1;
            self.model.promised(newest, Promise::Sync);
        }
        self.may_fail(result);
        self.reopen();
    }

    /// Ends the engine and opens the store again, on the same disk unless that has lost power.
    fn reopen(&mut self) {
        if self.disk.is_down() {
            return self.crash(Loss::Seeded, 1);
        }
        self.end_engine();
        // data of a failed sync is lost even without a power loss: the device never received it
        self.open_again(if self.faulty { self.model.durable } else { self.model.written });
    }

    fn crash(&mut self, loss: Loss, seed: u8) {
        // the disk stops first, so that ending the engine leaves no trace on it
        let after = crash(&self.disk, loss, seed);
        self.end_engine();
        self.disk = after;
        self.open_again(if matches!(loss, Loss::Kill) && !self.faulty {
            self.model.written
        } else {
            self.model.durable
        });
    }

    fn open_again(&mut self, least: usize) {
        let opened = self.options.open_on::<Kv>(storage(&self.disk));
        let engine = match opened {
            Ok(engine) => engine,
            Err(error) => {
                assert!(self.faulty, "{error:?}");
                assert!(!error.is_corrupt(), "what failed is not damaged: {error:?}");
                self.disk.clear_faults();
                self.disk.set_free_bytes(None);
                if self.disk.is_down() {
                    self.disk = self.disk.crash(Crash::Seeded(2));
                }
                self.options.open_on::<Kv>(storage(&self.disk)).unwrap()
            }
        };
        let state = match state_of(&engine) {
            Ok(state) => state,
            Err(error) => {
                // a fault struck after the opening; the next opening shows it
                assert!(self.faulty, "{error:?}");
                self.engine = Some(engine);
                self.unsure = true;
                return;
            }
        };
        self.model.found(&state, least);
        self.engine = Some(engine);
        self.unsure = false;
    }

    /// Writes evidence for the end of the log, damages files, and opens the store. All data must be
    /// there, or an error must report the damage.
    fn damage(mut self, damage: &[Damage]) {
        self.disk.clear_faults();
        self.disk.set_free_bytes(None);
        if self.disk.is_down() || self.unsure || self.engine().sync().is_err() {
            self.crash(Loss::Seeded, 3);
        }
        self.wait();
        self.engine().sync().unwrap();
        for _ in 0..10 {
            self.disk.advance(Duration::from_millis(30));
            while self.engine().step(Step::Log(LogStep::Watermark)).unwrap() {}
        }
        // open transactions become losers, and the store is not closed
        let disk = self.disk.crash(Crash::Everything);
        self.end_engine();
        for damage in damage {
            damage.strike(&disk, &self.remembered);
        }
        let before = files_of(&disk);
        let verified = inspect::verify(storage(&disk));
        let reader = options().recovery(RecoveryPolicy::ReadOnly).open_on::<Kv>(storage(&disk));
        assert!(files_of(&disk) == before, "inspecting writes nothing");
        agree(&verified, reader.as_ref().err());
        // a file that was moved over another counts as two
        let is_single = matches!(damage, [damage] if !matches!(damage, Damage::Rename { .. }));
        let holds = |engine: &Engine<Kv>| {
            let state = state_of(engine).unwrap();
            let known = if is_single { state == *self.model.newest() } else { self.model.ever.contains(&state) };
            assert!(known, "damage {damage:?} has led to a state of {} keys that never was", state.len());
        };
        match options().create(Create::Never).open_on::<Kv>(storage(&disk)) {
            Ok(engine) => {
                holds(&engine);
                holds(&reader.unwrap());
            }
            Err(error) => {
                is_typed(&error);
                assert!(reader.is_err());
                assert!(files_of(&disk) == before, "what does not open is left as it was");
            }
        }
    }
}
