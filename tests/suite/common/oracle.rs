//! A workload drawn from a seed, with several open transactions on one thread, and a model that knows after each step
//! which states a crash may leave.
//!
//! The rule: what recovery finds is the state after some prefix, in commit order, of the transactions that committed or
//! may have, and every acknowledged one is in that prefix. What a strict read showed counts as acknowledged.

use super::{Cmd, Rng, Stacks};
use seawal::machine::{Access, Footprint, StateMachine};
use seawal::sim::{Crash, SimDisk};
use seawal::wal::LogStep;
use seawal::{Durability, Engine, Error, ExecuteError, Options, ReadLevel, Savepoint, Step, Ticket, Transaction};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const KEYS: u64 = 10;
const INTERVAL: Duration = Duration::from_millis(50);

/// Everything that is known about what must and may survive.
#[derive(Clone, Debug)]
pub(crate) struct Oracle {
    /// The state after each commit, from what was last recovered.
    states: Vec<Stacks>,
    /// How many commits survive power loss for certain.
    acked: usize,
    /// How many survive a kill for certain.
    written: usize,
    /// For each key the newest commit with `Sync` that touched it, as a length of the prefix.
    synced: BTreeMap<u8, usize>,
    /// Commits with `Interval`, and when they are due.
    due: Vec<(usize, Duration)>,
    /// Whether power was lost since the state was last known.
    power_lost: bool,
    /// Whether the last state is of a commit that failed in a way that leaves it open.
    in_doubt: bool,
    next_value: u32,
    /// For messages.
    pub(crate) log: Vec<String>,
    /// What was done, to see that workloads do what they are for.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl Default for Oracle {
    fn default() -> Self {
        Oracle {
            states: vec![Stacks::default()],
            acked: 0,
            written: 0,
            synced: BTreeMap::new(),
            due: Vec::new(),
            power_lost: false,
            in_doubt: false,
            next_value: 0,
            log: Vec::new(),
            counts: BTreeMap::new(),
        }
    }
}

impl Oracle {
    /// What was done last, or everything with `SEAWAL_LOG` set.
    pub(crate) fn tail(&self) -> String {
        let skip = if std::env::var_os("SEAWAL_LOG").is_some() { 0 } else { self.log.len().saturating_sub(15) };
        self.log[skip..].join("\n")
    }

    fn committed(&self) -> &Stacks {
        self.states.last().unwrap()
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn value(&mut self) -> u32 {
        self.next_value += 1;
        self.next_value
    }

    /// A transaction that committed, or may have.
    fn commit(&mut self, commands: &[Cmd], durability: Durability) -> usize {
        let mut next = self.committed().clone();
        for command in commands {
            next.apply(command).expect("a command that was carried out can be carried out in commit order");
        }
        self.states.push(next);
        let at = self.states.len() - 1;
        if durability == Durability::Sync {
            for key in commands.iter().flat_map(Cmd::keys) {
                self.synced.insert(key, at);
            }
        }
        at
    }

    fn ack(&mut self, at: usize) {
        self.acked = self.acked.max(at);
        self.written = self.written.max(at);
    }

    /// It said `Ok` with this durability.
    fn acknowledge(&mut self, at: usize, durability: Durability, now: Duration) {
        match durability {
            Durability::Sync => self.ack(at),
            Durability::Os => self.written = self.written.max(at),
            Durability::Interval(within) => {
                self.written = self.written.max(at);
                self.due.push((at, now + within));
            }
        }
    }

    fn shown(&mut self, keys: &[u8]) -> usize {
        keys.iter().filter_map(|key| self.synced.get(key).copied()).max().unwrap_or(0)
    }

    fn all_shown(&self) -> usize {
        self.synced.values().copied().max().unwrap_or(0)
    }

    /// A crash happened.
    pub(crate) fn crashed(&mut self, crash: Crash) {
        self.power_lost |= crash != Crash::KillOnly;
        self.log.push(format!("--- crash {crash:?}"));
    }

    /// Checks a state that was recovered and takes it as the new beginning.
    pub(crate) fn recovered(&mut self, found: &Stacks) -> Result<(), String> {
        let least = if self.power_lost { self.acked } else { self.written };
        let at = (0..self.states.len()).rev().find(|at| self.states[*at] == *found);
        match at {
            Some(at) if at >= least || self.states[least..].contains(found) => {}
            Some(at) => {
                return Err(format!(
                    "{} commits of {} acknowledged (of {}) are there: {found:?}\nwanted {:?}",
                    at,
                    least,
                    self.states.len() - 1,
                    self.states[least]
                ));
            }
            None => {
                return Err(format!(
                    "no prefix of the {} commits ({least} acknowledged) gives {found:?}\nwanted from {:?}\nto {:?}",
                    self.states.len() - 1,
                    self.states[least],
                    self.committed()
                ));
            }
        }
        self.states = vec![found.clone()];
        (self.acked, self.written, self.power_lost, self.in_doubt) = (0, 0, false, false);
        self.synced.clear();
        self.due.clear();
        Ok(())
    }
}

struct Open {
    tx: Transaction<Stacks>,
    commands: Vec<Cmd>,
    inverses: Vec<Cmd>,
    savepoints: Vec<(Savepoint, usize)>,
    past: Vec<Savepoint>,
    /// Keys held, and whether exclusively; 255 stands for all of them, shared.
    held: Vec<(u8, bool)>,
    /// What it saw must be durable up to this many commits.
    saw: usize,
}

const ALL: u8 = 255;

/// One run of a workload on one opened engine.
pub(crate) struct Run<'a> {
    pub(crate) disk: &'a SimDisk,
    pub(crate) oracle: &'a mut Oracle,
    pub(crate) rng: Rng,
    pub(crate) options: Options,
    engine: Engine<Stacks>,
    open: Vec<Open>,
    /// The state with the effects of open transactions.
    live: Stacks,
    tickets: Vec<(usize, Durability, Ticket<u32>)>,
    unit_tickets: Vec<(usize, usize, Durability, Ticket<()>)>,
}

/// Why a run ended before its end.
#[derive(Clone, Debug)]
pub(crate) struct Stopped(pub Error);

impl<'a> Run<'a> {
    /// Opens the store and checks what it recovered.
    pub(crate) fn start(
        disk: &'a SimDisk,
        oracle: &'a mut Oracle,
        seed: u64,
        options: &Options,
    ) -> Result<Run<'a>, Error> {
        let (engine, report) = options.open_on::<Stacks>(Arc::new(disk.clone()))?;
        oracle.log.push(format!("open: {report}"));
        let found = engine.read(Stacks::clone)?;
        if let Err(why) = oracle.recovered(&found) {
            panic!("{why}\nreport: {report:?}\nlog:\n{}", oracle.tail());
        }
        oracle.count("open");
        if report.undone > 0 {
            oracle.count("losers");
        }
        if report.snapshot.is_some() {
            oracle.count("snapshot used");
        }
        Ok(Run {
            disk,
            oracle,
            rng: Rng::new(seed),
            options: options.clone(),
            engine,
            open: Vec::new(),
            live: found,
            tickets: Vec::new(),
            unit_tickets: Vec::new(),
        })
    }

    pub(crate) fn engine(&self) -> &Engine<Stacks> {
        &self.engine
    }

    fn now(&self) -> Duration {
        use seawal::storage::Storage;
        self.disk.monotonic()
    }

    fn fail(&self, what: impl std::fmt::Display) -> ! {
        panic!("{what}\nlog:\n{}", self.oracle.tail())
    }

    fn note(&mut self, what: String) {
        self.oracle.log.push(what);
    }

    fn durability(&mut self) -> Durability {
        match self.rng.below(6) {
            0 => Durability::Os,
            1 => Durability::Interval(INTERVAL),
            _ => Durability::Sync,
        }
    }

    fn command(&mut self) -> Cmd {
        let key = self.rng.below(KEYS) as u8;
        match self.rng.below(8) {
            0 => Cmd::Pop { key },
            1 => Cmd::Move { from: key, to: self.rng.below(KEYS) as u8 },
            _ => {
                let pad = if self.rng.one_in(6) { self.rng.below(5000) } else { self.rng.below(200) } as u16;
                Cmd::Push { key, value: self.oracle.value(), pad }
            }
        }
    }

    /// Whether somebody else than `me` stands in the way.
    fn is_held(&self, me: Option<usize>, keys: &[u8], exclusive: bool) -> bool {
        self.open.iter().enumerate().any(|(at, open)| {
            Some(at) != me
                && open.held.iter().any(|(held, held_exclusive)| {
                    let overlap = *held == ALL || keys.contains(&ALL) || keys.contains(held);
                    overlap && (exclusive || *held_exclusive)
                })
        })
    }

    /// Runs so many actions, or until something fails that is no ordinary answer.
    pub(crate) fn actions(&mut self, count: u64) -> Result<(), Stopped> {
        for _ in 0..count {
            self.action()?;
            if self.open.is_empty() && self.live != *self.oracle.committed() {
                self.fail("the model does not agree with itself");
            }
        }
        Ok(())
    }

    fn action(&mut self) -> Result<(), Stopped> {
        if self.open.len() < 4 {
            return self.begin();
        }
        match self.rng.below(40) {
            0 if self.open.len() < 6 => self.begin(),
            0..=13 => self.tx_execute(),
            14..=15 => self.tx_read(),
            16 => self.tx_savepoint(),
            17 => self.tx_rollback_to(),
            18..=21 => self.tx_commit(),
            22 => self.tx_end_without_commit(),
            23..=25 => self.execute(),
            26..=27 => self.submit(),
            28 => self.wait_ticket(),
            29..=30 => self.read(),
            31 => self.view(),
            32..=35 => self.log_step(),
            36 => self.checkpoint_step(),
            37 => self.time(),
            38 => self.rare(),
            _ => self.whole_thing(),
        }
    }

    fn begin(&mut self) -> Result<(), Stopped> {
        let tx = self.engine.begin().map_err(Stopped)?;
        self.open.push(Open {
            tx,
            commands: vec![],
            inverses: vec![],
            savepoints: vec![],
            past: vec![],
            held: vec![],
            saw: 0,
        });
        Ok(())
    }

    fn pick(&mut self) -> usize {
        self.rng.below(self.open.len() as u64) as usize
    }

    /// Takes the effects of an open transaction out of the model.
    fn forget(&mut self, at: usize, to: usize) {
        while self.open[at].inverses.len() > to {
            let inverse = self.open[at].inverses.pop().unwrap();
            self.open[at].commands.pop();
            self.live.apply(&inverse).unwrap();
        }
    }

    fn is_ordinary(error: &Error) -> bool {
        matches!(
            error,
            Error::Conflict | Error::LockTimeout | Error::Expired | Error::TooLarge { .. } | Error::Full { .. }
        )
    }

    /// Takes an error of a transaction's step: it goes on, or was rolled back, or the run ends.
    fn tx_error(&mut self, at: usize, error: Error, conflict: bool) -> Result<(), Stopped> {
        if !Self::is_ordinary(&error) {
            return Err(Stopped(error));
        }
        match error {
            Error::LockTimeout if !conflict => self.fail("LockTimeout, though nobody holds the lock"),
            Error::Conflict if !conflict => self.fail("Conflict, though nobody holds the lock"),
            Error::Conflict | Error::Expired => {
                self.forget(at, 0);
                self.open.swap_remove(at);
                self.oracle.count("lost transaction");
            }
            Error::Full { .. } => self.oracle.count("full"),
            _ => {}
        }
        Ok(())
    }

    fn tx_execute(&mut self) -> Result<(), Stopped> {
        let at = self.pick();
        let command = self.command();
        let keys = command.keys();
        let conflict = self.is_held(Some(at), &keys, true);
        let result = self.open[at].tx.execute(command.clone());
        self.note(format!("tx {at} {command:?}: {result:?}"));
        let expected = self.live.clone().apply(&command);
        let shown = self.oracle.shown(&keys);
        match result {
            Ok(reply) => {
                if conflict {
                    self.fail("a command got past another transaction's lock");
                }
                match expected {
                    Ok((wanted, inverse)) if wanted == reply => {
                        self.live.apply(&command).unwrap();
                        self.open[at].inverses.push(inverse);
                        self.open[at].commands.push(command);
                    }
                    other => self.fail(format!("wanted {other:?}")),
                }
            }
            Err(ExecuteError::Rejected(empty)) => {
                if conflict {
                    self.fail("a rejection saw another transaction's state");
                }
                if expected != Err(empty) {
                    self.fail(format!("wanted {expected:?}"));
                }
                self.oracle.count("rejected");
            }
            Err(ExecuteError::Failed(error)) => {
                if matches!(error, Error::Full { .. } | Error::TooLarge { .. }) {
                    self.open[at].held.extend(keys.iter().map(|key| (*key, true)));
                }
                return self.tx_error(at, error, conflict);
            }
        }
        let open = &mut self.open[at];
        open.saw = open.saw.max(shown);
        open.held.extend(keys.iter().map(|key| (*key, true)));
        Ok(())
    }

    fn tx_read(&mut self) -> Result<(), Stopped> {
        let at = self.pick();
        let key = self.rng.below(KEYS) as u8;
        let whole = self.rng.one_in(8);
        let wanted_keys = if whole { vec![ALL] } else { vec![key] };
        let conflict = self.is_held(Some(at), &wanted_keys, false);
        let result = if whole {
            self.open[at].tx.read(Stacks::clone)
        } else {
            let footprint = Footprint::key(Access::Shared, &[key]);
            self.open[at].tx.read_within(&footprint, |s| {
                let mut part = Stacks::default();
                if let Some(stack) = s.by_key.get(&key) {
                    part.by_key.insert(key, stack.clone());
                }
                part
            })
        };
        self.note(format!("tx {at} read {wanted_keys:?}: {:?}", result.as_ref().map(|_| ())));
        match result {
            Ok(found) => {
                if conflict {
                    self.fail("a read got past another transaction's exclusive lock");
                }
                let right = if whole { found == self.live } else { found.at(key) == self.live.at(key) };
                if !right {
                    self.fail(format!("a transaction read {found:?}, and not {:?}", self.live));
                }
                let saw = if whole { self.oracle.all_shown() } else { self.oracle.shown(&[key]) };
                let open = &mut self.open[at];
                open.saw = open.saw.max(saw);
                open.held.extend(wanted_keys.iter().map(|key| (*key, false)));
                Ok(())
            }
            Err(error) => self.tx_error(at, error, conflict),
        }
    }

    fn tx_savepoint(&mut self) -> Result<(), Stopped> {
        let at = self.pick();
        match self.open[at].tx.savepoint() {
            Ok(savepoint) => {
                let len = self.open[at].commands.len();
                self.open[at].savepoints.push((savepoint, len));
                self.note(format!("tx {at} savepoint at {len}"));
                Ok(())
            }
            Err(error) => self.tx_error(at, error, false),
        }
    }

    fn tx_rollback_to(&mut self) -> Result<(), Stopped> {
        let at = self.pick();
        if let Some(past) = self.open[at].past.last().copied() {
            match self.open[at].tx.rollback_to(past) {
                Err(Error::UnknownSavepoint | Error::Expired) => {}
                other => self.fail(format!("a savepoint that was rolled past gave {other:?}")),
            }
        }
        if self.open[at].savepoints.is_empty() {
            return Ok(());
        }
        let which = self.rng.below(self.open[at].savepoints.len() as u64) as usize;
        let (savepoint, len) = self.open[at].savepoints[which];
        let result = self.open[at].tx.rollback_to(savepoint);
        self.note(format!("tx {at} rollback to {len}: {result:?}"));
        match result {
            Ok(()) => {
                self.forget(at, len);
                let past = self.open[at].savepoints.split_off(which + 1);
                self.open[at].past.extend(past.into_iter().map(|(s, _)| s));
                self.oracle.count("rollback_to");
                Ok(())
            }
            Err(error) => self.tx_error(at, error, false),
        }
    }

    fn tx_commit(&mut self) -> Result<(), Stopped> {
        let at = self.pick();
        let durability = self.durability();
        let by_ticket = self.rng.one_in(3);
        let Open { tx, commands, inverses, saw, .. } = self.open.swap_remove(at);
        let changes = !commands.is_empty();
        self.note(format!("tx {at} commit {durability:?} ticket {by_ticket} of {}", commands.len()));
        let result = if by_ticket {
            tx.commit_ticket_with(durability).map(Some)
        } else {
            tx.commit_with(durability).map(|()| None)
        };
        let now = self.now();
        match result {
            Ok(ticket) => {
                let position = if changes { self.oracle.commit(&commands, durability) } else { 0 };
                match ticket {
                    Some(ticket) => self.unit_tickets.push((position, saw, durability, ticket)),
                    None => {
                        self.oracle.acknowledge(position, durability, now);
                        self.oracle.ack(saw);
                    }
                }
                self.oracle.count("committed");
                Ok(())
            }
            Err(error) => {
                self.note(format!("  failed: {error}"));
                if Self::is_ordinary(&error) {
                    for inverse in inverses.iter().rev() {
                        self.live.apply(inverse).unwrap();
                    }
                    return Ok(());
                }
                self.oracle.commit(&commands, Durability::Os);
                self.oracle.in_doubt = true;
                Err(Stopped(error))
            }
        }
    }

    fn tx_end_without_commit(&mut self) -> Result<(), Stopped> {
        let at = self.pick();
        self.forget(at, 0);
        let Open { tx, .. } = self.open.swap_remove(at);
        self.oracle.count("rolled back");
        if self.rng.one_in(2) {
            self.note(format!("tx {at} drop"));
            drop(tx);
            Ok(())
        } else {
            self.note(format!("tx {at} rollback"));
            tx.rollback().map_err(Stopped)
        }
    }

    fn execute(&mut self) -> Result<(), Stopped> {
        let (command, durability) = (self.command(), self.durability());
        let conflict = self.is_held(None, &command.keys(), true);
        let expected = self.live.clone().apply(&command);
        let result = self.engine.execute_with(command.clone(), durability);
        self.note(format!("execute {command:?} {durability:?}: {result:?}"));
        let now = self.now();
        let shown = self.oracle.shown(&command.keys());
        match result {
            Ok(reply) => {
                if conflict {
                    self.fail("it got past a lock");
                }
                if !matches!(expected, Ok((wanted, _)) if wanted == reply) {
                    self.fail(format!("wanted {expected:?}"));
                }
                self.live.apply(&command).unwrap();
                let position = self.oracle.commit(&[command], durability);
                self.oracle.ack(shown);
                self.oracle.acknowledge(position, durability, now);
                self.oracle.count("executed");
                Ok(())
            }
            Err(ExecuteError::Rejected(empty)) => {
                if conflict || expected != Err(empty) {
                    self.fail(format!("conflict {conflict}, wanted {expected:?}"));
                }
                self.oracle.ack(shown);
                Ok(())
            }
            Err(ExecuteError::Failed(error)) => self.single_error(error, conflict, &[command]),
        }
    }

    fn single_error(&mut self, error: Error, conflict: bool, commands: &[Cmd]) -> Result<(), Stopped> {
        match error {
            Error::LockTimeout if conflict => Ok(()),
            Error::Full { .. } => {
                self.oracle.count("full");
                Ok(())
            }
            ordinary if Self::is_ordinary(&ordinary) => self.fail(format!("a single command answered {ordinary:?}")),
            error => {
                // where a lock was in the way it was never carried out
                if !conflict && self.live.clone().apply(&commands[0]).is_ok() {
                    self.oracle.commit(commands, Durability::Os);
                    self.oracle.in_doubt = true;
                }
                Err(Stopped(error))
            }
        }
    }

    fn submit(&mut self) -> Result<(), Stopped> {
        let (command, durability) = (self.command(), self.durability());
        let conflict = self.is_held(None, &command.keys(), true);
        let expected = self.live.clone().apply(&command);
        let result = self.engine.submit_with(command.clone(), durability);
        self.note(format!("submit {command:?} {durability:?}: {:?}", result.as_ref().map(|_| ())));
        match result {
            Ok(ticket) => {
                if conflict || expected.is_err() {
                    self.fail(format!("conflict {conflict}, wanted {expected:?}"));
                }
                self.live.apply(&command).unwrap();
                let position = self.oracle.commit(&[command], durability);
                self.tickets.push((position, durability, ticket));
                self.oracle.count("submitted");
                Ok(())
            }
            Err(ExecuteError::Rejected(empty)) => {
                if conflict || expected != Err(empty) {
                    self.fail(format!("conflict {conflict}, wanted {expected:?}"));
                }
                let shown = self.oracle.shown(&command.keys());
                self.oracle.ack(shown);
                Ok(())
            }
            Err(ExecuteError::Failed(error)) => self.single_error(error, conflict, &[command]),
        }
    }

    fn wait_ticket(&mut self) -> Result<(), Stopped> {
        let now = self.now();
        // what is done already counts without being waited for
        for (position, durability, ticket) in &self.tickets {
            if ticket.is_done() {
                self.oracle.acknowledge(*position, *durability, now);
            }
        }
        if self.rng.one_in(2) && !self.tickets.is_empty() {
            let (position, durability, ticket) =
                self.tickets.swap_remove(self.rng.below(self.tickets.len() as u64) as usize);
            let result = ticket.wait();
            self.note(format!("wait for commit {position}: {result:?}"));
            result.map_err(Stopped)?;
            self.oracle.acknowledge(position, durability, now);
        } else if !self.unit_tickets.is_empty() {
            let at = self.rng.below(self.unit_tickets.len() as u64) as usize;
            let (position, saw, durability, ticket) = self.unit_tickets.swap_remove(at);
            let result = ticket.wait();
            self.note(format!("wait for commit {position}: {result:?}"));
            result.map_err(Stopped)?;
            self.oracle.acknowledge(position, durability, now);
            self.oracle.ack(saw);
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), Stopped> {
        let key = self.rng.below(KEYS) as u8;
        let latest = self.rng.one_in(3);
        let level = if latest { ReadLevel::Latest } else { ReadLevel::Hardened };
        let conflict = self.is_held(None, &[key], false);
        let result = self.engine.read_within(&Footprint::key(Access::Shared, &[key]), level, |s| s.at(key));
        self.note(format!("read {key} {level:?}: {:?}", result.as_ref().map(Vec::len)));
        match result {
            Ok(found) => {
                if conflict {
                    self.fail("a read got past an exclusive lock");
                }
                if found != self.oracle.committed().at(key) {
                    self.fail(format!("read {found:?}, not {:?}", self.oracle.committed().at(key)));
                }
                if !latest {
                    let shown = self.oracle.shown(&[key]);
                    self.oracle.ack(shown);
                }
                Ok(())
            }
            Err(Error::LockTimeout) if conflict => Ok(()),
            Err(error) => Err(Stopped(error)),
        }
    }

    fn view(&mut self) -> Result<(), Stopped> {
        let latest = self.rng.one_in(3);
        let view = if latest { self.engine.view_latest() } else { self.engine.view() }.map_err(Stopped)?;
        if *view != *self.oracle.committed() {
            self.fail(format!("a view shows {:?}, and not {:?}", *view, self.oracle.committed()));
        }
        if !latest {
            let shown = self.oracle.all_shown();
            self.oracle.ack(shown);
        }
        self.note(format!("view, latest {latest}"));
        self.oracle.count("view");
        Ok(())
    }

    fn log_step(&mut self) -> Result<(), Stopped> {
        let step = LogStep::ALL[self.rng.below(4) as usize];
        let now = self.now();
        let result = self.engine.step(Step::Log(step));
        self.note(format!("step {step:?}: {result:?}"));
        if let Err(error) = result {
            return if Self::is_ordinary(&error) { Ok(()) } else { Err(Stopped(error)) };
        }
        if step == LogStep::SyncDue {
            let due = std::mem::take(&mut self.oracle.due);
            for (position, at) in due {
                if at <= now {
                    self.oracle.ack(position);
                } else {
                    self.oracle.due.push((position, at));
                }
            }
        }
        Ok(())
    }

    fn checkpoint_step(&mut self) -> Result<(), Stopped> {
        // does nothing where no digests are wanted
        if self.engine.step(Step::Digest).map_err(Stopped)? {
            self.oracle.count("digest step");
        }
        let step = if self.rng.one_in(4) { Step::BeginCheckpoint } else { Step::Checkpoint };
        let result = self.engine.step(step);
        self.note(format!("step {step:?}: {result:?}"));
        match result {
            Ok(_) => Ok(()),
            Err(error) if Self::is_ordinary(&error) || error.is_out_of_space() && !error.is_latched() => Ok(()),
            Err(error) => Err(Stopped(error)),
        }
    }

    fn time(&mut self) -> Result<(), Stopped> {
        if self.rng.one_in(12) {
            self.note("a minute passes".into());
            self.disk.advance(Duration::from_secs(61));
            self.engine.step(Step::Expire).map_err(Stopped)?;
            while !self.open.is_empty() {
                self.forget(0, 0);
                let mut open = self.open.swap_remove(0);
                match open.tx.execute(Cmd::push(0, 0)) {
                    Err(ExecuteError::Failed(Error::Expired)) => {}
                    other => self.fail(format!("an expired transaction answers {other:?}")),
                }
            }
            self.oracle.count("expired");
        } else {
            self.disk.advance(Duration::from_millis(30));
        }
        Ok(())
    }

    fn rare(&mut self) -> Result<(), Stopped> {
        if self.rng.one_in(2) {
            self.note("sync".into());
            self.engine.sync().map_err(Stopped)?;
            let all = self.oracle.states.len() - 1;
            self.oracle.ack(all);
        } else {
            self.note("checkpoint".into());
            match self.engine.checkpoint() {
                Ok(()) => {
                    let all = self.oracle.states.len() - 1;
                    self.oracle.ack(all);
                    self.oracle.count("checkpoint");
                }
                Err(error) if Self::is_ordinary(&error) || error.is_out_of_space() && !error.is_latched() => {
                    self.note(format!("  {error}"));
                }
                Err(error) => return Err(Stopped(error)),
            }
        }
        Ok(())
    }

    /// Closes or drops the engine with transactions open, in some order, and opens it again.
    fn whole_thing(&mut self) -> Result<(), Stopped> {
        if !self.rng.one_in(4) {
            return self.tx_commit();
        }
        let close = self.rng.one_in(2);
        let first = self.rng.one_in(2);
        self.note(format!("reopen: close {close}, transactions first {first}"));
        if first {
            self.open.clear();
        }
        if close {
            let result = self.engine.close();
            self.note(format!("close: {result:?}"));
            match result {
                Ok(()) => {
                    let all = self.oracle.states.len() - 1;
                    self.oracle.ack(all);
                }
                Err(error) if Self::is_ordinary(&error) => {}
                Err(error) => return Err(Stopped(error)),
            }
        }
        self.tickets.clear();
        self.unit_tickets.clear();
        let (options, seed) = (self.options.clone(), self.rng.next());
        self.oracle.count("reopening");
        let mut left_over = std::mem::take(&mut self.open);
        // the old engine has to go before the new one comes
        let scratch = SimDisk::new(0);
        let (placeholder, _) = options.open_on::<Stacks>(Arc::new(scratch)).map_err(Stopped)?;
        drop(std::mem::replace(&mut self.engine, placeholder));
        let mut opened = options.open_on::<Stacks>(Arc::new(self.disk.clone()));
        self.note(format!("opened over {} transactions: {:?}", left_over.len(), opened.as_ref().map(|_| ())));
        if matches!(opened, Err(Error::Locked { .. })) && !left_over.is_empty() {
            self.oracle.count("locked by a left-over transaction");
            // that it may still commit is as good as that it may not; it must only not disturb a new owner
            left_over.clear();
            opened = options.open_on::<Stacks>(Arc::new(self.disk.clone()));
        }
        let (engine, report) = opened.map_err(Stopped)?;
        self.note(format!("open: {report}"));
        for mut open in left_over {
            let result = open.tx.execute(Cmd::push(1, 0));
            self.note(format!("left over: {result:?}"));
            if result.is_ok() && !open.commands.is_empty() {
                self.fail("a transaction of an engine that is gone writes into a store that has another owner");
            }
            if open.tx.commit().is_ok() && !open.commands.is_empty() {
                self.fail("a transaction of an engine that is gone commits into a store that has another owner");
            }
        }
        if report.undone > 0 {
            self.oracle.count("losers");
        }
        if report.snapshot.is_some() {
            self.oracle.count("snapshot used");
        }
        if report.digests > 0 {
            self.oracle.count("digests agree");
        }
        let found = engine.read(Stacks::clone).map_err(Stopped)?;
        if let Err(why) = self.oracle.recovered(&found) {
            self.fail(why);
        }
        self.engine = engine;
        self.live = found;
        self.rng = Rng::new(seed);
        self.oracle.count("reopen");
        Ok(())
    }
}

impl Run<'_> {
    /// After a failure that was injected: either the log is latched, and all that is promised of that holds, or the engine
    /// goes on as if nothing had been. Returns whether it goes on.
    pub(crate) fn after_failure(&mut self) -> bool {
        let fresh = Footprint::key(Access::Shared, &[200]);
        match self.engine.begin() {
            Ok(tx) => drop(tx),
            Err(error) => {
                if !error.is_latched() {
                    self.fail(format!("begin after a failure: {error:?}"));
                }
                self.check_latched(&fresh);
                return false;
            }
        }
        self.open.clear();
        let found = match self.engine.view_latest() {
            Ok(view) => view.into_inner(),
            Err(error) => self.fail(format!("view_latest after a failure: {error:?}")),
        };
        if found != *self.oracle.committed() && self.oracle.in_doubt {
            self.oracle.states.pop();
            let len = self.oracle.states.len() - 1;
            self.oracle.synced.values_mut().for_each(|at| *at = (*at).min(len));
        }
        self.oracle.in_doubt = false;
        if found != *self.oracle.committed() {
            self.fail(format!("after a failure there is {found:?}\nand not {:?}", self.oracle.committed()));
        }
        self.live = found;
        true
    }

    /// Whether a reopening failed half way, so that there is no engine on this disk.
    pub(crate) fn engine_is_placeholder(&self) -> bool {
        self.oracle.counts.get("reopening") != self.oracle.counts.get("reopen")
    }

    /// With space again, everything works at once.
    pub(crate) fn resumes(&mut self) {
        self.open.clear();
        self.live = self.oracle.committed().clone();
        for pad in [10, 5000] {
            let command = Cmd::Push { key: 3, value: self.oracle.value(), pad };
            if let Err(error) = self.engine.execute(command.clone()) {
                self.fail(format!("with space again: {error:?}"));
            }
            self.live.apply(&command).unwrap();
            let at = self.oracle.commit(&[command], Durability::Sync);
            self.oracle.ack(at);
        }
        if let Err(error) = self.engine.checkpoint() {
            self.fail(format!("a checkpoint with space again: {error:?}"));
        }
    }

    fn check_latched(&mut self, fresh: &Footprint) {
        match self.engine.execute(Cmd::push(200, 1)) {
            Err(ExecuteError::Failed(error)) if error.is_latched() => {}
            other => self.fail(format!("a write on a latched log: {other:?}")),
        }
        match self.engine.submit(Cmd::push(200, 1)) {
            Err(ExecuteError::Failed(error)) if error.is_latched() => {}
            other => self.fail(format!("a ticket on a latched log: {:?}", other.map(|_| ()))),
        }
        for at in 0..self.open.len() {
            match self.open[at].tx.execute(Cmd::push(201, 1)) {
                Err(ExecuteError::Failed(error)) if error.is_latched() => {}
                Err(ExecuteError::Failed(Error::Conflict | Error::LockTimeout)) => {}
                other => self.fail(format!("a transaction on a latched log: {other:?}")),
            }
        }
        let mut open = std::mem::take(&mut self.open);
        if let Some(open) = open.pop()
            && !open.commands.is_empty()
        {
            match open.tx.commit() {
                Err(error) if error.is_latched() => {}
                other => self.fail(format!("a commit on a latched log: {other:?}")),
            }
        }
        if let Some(open) = open.pop()
            && let Err(error) = open.tx.rollback()
            && !error.is_latched()
        {
            self.fail(format!("a rollback on a latched log: {error:?}"));
        }
        drop(open);
        if let Err(error) = self.engine.read_within(fresh, ReadLevel::Hardened, |s| s.at(200)) {
            self.fail(format!("a read of hardened state on a latched log: {error:?}"));
        }
        match self.engine.view_latest() {
            Ok(view) if *view == *self.oracle.committed() => {}
            Ok(view) if self.oracle.in_doubt && *view == self.oracle.states[self.oracle.states.len() - 2] => {}
            Ok(view) => self.fail(format!("latched, and transactions rolled back: {:?}", *view)),
            Err(error) if error.is_latched() => {}
            Err(error) => self.fail(format!("a view on a latched log: {error:?}")),
        }
        // what it still shows must be there afterwards
        for key in 0..KEYS as u8 {
            match self.engine.read_within(&Footprint::key(Access::Shared, &[key]), ReadLevel::Hardened, |s| s.at(key)) {
                Ok(_) => {
                    let shown = self.oracle.shown(&[key]);
                    self.oracle.ack(shown);
                }
                Err(error) if error.is_latched() => {}
                Err(error) => self.fail(format!("a read on a latched log: {error:?}")),
            }
        }
        if self.engine.close().is_ok() {
            self.fail("a latched log closes as if nothing had been");
        }
    }
}

/// Runs a workload; what stopped it, if anything did.
pub(crate) fn run(
    disk: &SimDisk,
    oracle: &mut Oracle,
    seed: u64,
    actions: u64,
    options: &Options,
) -> Result<(), Error> {
    let mut run = Run::start(disk, oracle, seed, options)?;
    run.actions(actions).map_err(|stopped| stopped.0)
}
