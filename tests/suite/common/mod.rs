//! Shared by the integration tests: a machine whose commands are not idempotent, small options, and
//! random numbers.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use seawal::machine::{Access, DecodeError, Footprint, StateMachine};
use seawal::sim::explore::{Explore, Look};
use seawal::sim::{Crash, Rng as SimRng, SimDisk};
use seawal::{Background, Engine, Options, RecoveryReport};
use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::time::Duration;

/// The factor by which explorations are longer than usual, from `SEAWAL_LONG`.
pub(crate) fn scale() -> u64 {
    std::env::var("SEAWAL_LONG").ok().and_then(|s| s.parse().ok()).unwrap_or(1).max(1)
}

/// Reports that a test was skipped, and why. The message is shown even if the harness captures
/// output.
pub(crate) fn skipped(why: &str) {
    let thread = std::thread::current();
    let _ = writeln!(io::stderr(), "skipped: {}: {why}", thread.name().unwrap_or("a test"));
}

/// Splitmix64.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        let mut rng = Rng(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ 0x5ea3);
        rng.next();
        rng
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next() % n }
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Stacks by key. A command that is applied twice, or in another order, changes the result.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Stacks {
    pub(crate) by_key: BTreeMap<u8, Vec<u32>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Cmd {
    /// Pushes a value. The logged command has `pad` more bytes.
    Push { key: u8, value: u32, pad: u16 },
    /// Pops a value. Rejected if the stack is empty.
    Pop { key: u8 },
    /// Moves the top of one stack to another.
    Move { from: u8, to: u8 },
    /// Panics.
    Panic,
}

impl Cmd {
    pub(crate) fn push(key: u8, value: u32) -> Cmd {
        Cmd::Push { key, value, pad: 0 }
    }

    pub(crate) fn keys(&self) -> Vec<u8> {
        match self {
            Cmd::Push { key, .. } | Cmd::Pop { key } => vec![*key],
            Cmd::Move { from, to } if from == to => vec![*from],
            Cmd::Move { from, to } => vec![*from, *to],
            Cmd::Panic => vec![],
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Empty(pub u8);

impl std::fmt::Display for Empty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stack {} is empty", self.0)
    }
}

impl Stacks {
    pub(crate) fn at(&self, key: u8) -> Vec<u32> {
        self.by_key.get(&key).cloned().unwrap_or_default()
    }

    fn push(&mut self, key: u8, value: u32) -> u32 {
        let stack = self.by_key.entry(key).or_default();
        stack.push(value);
        stack.len() as u32
    }

    fn pop(&mut self, key: u8) -> Result<u32, Empty> {
        let stack = self.by_key.get_mut(&key).ok_or(Empty(key))?;
        let value = stack.pop().ok_or(Empty(key))?;
        if stack.is_empty() {
            self.by_key.remove(&key);
        }
        Ok(value)
    }
}

impl StateMachine for Stacks {
    const NAME: &'static str = "stacks";
    const VERSION: u32 = 3;
    type Command = Cmd;
    type Reply = u32;
    type Rejection = Empty;

    fn apply(&mut self, command: &Cmd) -> Result<(u32, Cmd), Empty> {
        match *command {
            Cmd::Push { key, value, .. } => Ok((self.push(key, value), Cmd::Pop { key })),
            Cmd::Pop { key } => {
                let value = self.pop(key)?;
                Ok((value, Cmd::push(key, value)))
            }
            Cmd::Move { from, to } => {
                let value = self.pop(from)?;
                self.push(to, value);
                Ok((value, Cmd::Move { from: to, to: from }))
            }
            Cmd::Panic => panic!("as asked"),
        }
    }

    fn footprint(command: &Cmd) -> Footprint {
        command.keys().iter().fold(Footprint::none(), |all, key| all.and_key(Access::Exclusive, &[*key]))
    }

    fn encode(command: &Cmd, out: &mut Vec<u8>) {
        match command {
            Cmd::Push { key, value, pad } => {
                out.extend_from_slice(&[0, *key]);
                out.extend_from_slice(&value.to_le_bytes());
                out.extend(std::iter::repeat_n(*key ^ 0xa5, usize::from(*pad)));
            }
            Cmd::Pop { key } => out.extend_from_slice(&[1, *key]),
            Cmd::Move { from, to } => out.extend_from_slice(&[2, *from, *to]),
            Cmd::Panic => out.push(3),
        }
    }

    fn decode(bytes: &[u8], _version: u32) -> Result<Cmd, DecodeError> {
        match bytes {
            [0, key, a, b, c, d, pad @ ..] if pad.iter().all(|p| *p == *key ^ 0xa5) => {
                Ok(Cmd::Push { key: *key, value: u32::from_le_bytes([*a, *b, *c, *d]), pad: pad.len() as u16 })
            }
            [1, key] => Ok(Cmd::Pop { key: *key }),
            [2, from, to] => Ok(Cmd::Move { from: *from, to: *to }),
            [3] => Ok(Cmd::Panic),
            _ => Err(DecodeError::new("a command of the stacks")),
        }
    }

    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        for (key, stack) in &self.by_key {
            out.write_all(&[*key])?;
            out.write_all(&(stack.len() as u32).to_le_bytes())?;
            for value in stack {
                out.write_all(&value.to_le_bytes())?;
            }
        }
        Ok(())
    }

    fn load(input: &mut dyn BufRead, _version: u32) -> Result<Self, DecodeError> {
        let mut stacks = Stacks::default();
        let mut word = [0; 4];
        while !input.fill_buf()?.is_empty() {
            let mut key = [0];
            input.read_exact(&mut key)?;
            input.read_exact(&mut word)?;
            let mut stack = Vec::new();
            for _ in 0..u32::from_le_bytes(word) {
                input.read_exact(&mut word)?;
                stack.push(u32::from_le_bytes(word));
            }
            stacks.by_key.insert(key[0], stack);
        }
        Ok(stacks)
    }
}

/// Small segments, no lock waits, no background threads.
pub(crate) fn manual() -> Options {
    Options::new()
        .background(Background::Manual)
        .lock_timeout(Duration::ZERO)
        .first_segment_bytes(16 << 10)
        .segment_bytes(32 << 10)
        .max_log_bytes(2 << 20)
        .checkpoint_log_bytes(48 << 10)
}

pub(crate) fn open_on<M: StateMachine>(
    disk: &SimDisk,
    options: &Options,
) -> seawal::Result<(Engine<M>, RecoveryReport)> {
    let engine = options.open_on::<M>(Arc::new(disk.clone()))?;
    let report = engine.recovery_report().clone();
    Ok((engine, report))
}

pub(crate) fn open(disk: &SimDisk) -> (Engine<Stacks>, RecoveryReport) {
    open_on::<Stacks>(disk, &manual()).unwrap()
}

pub(crate) fn state(engine: &Engine<Stacks>) -> Stacks {
    engine.read(Stacks::clone).unwrap()
}

/// One of several ways to crash at an operation: the plain ones first, then seeded ones.
pub(crate) fn crash_choice(op: u64, seed: u64) -> Crash {
    match seed {
        0 => Crash::Nothing,
        1 => Crash::Everything,
        2 => Crash::KillOnly,
        3 => Crash::TornBlock(op),
        seed => Crash::Seeded(op * 10 + seed),
    }
}

/// All files with their contents.
pub(crate) fn files(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    disk.file_names().into_iter().map(|name| (name.clone(), disk.read_file(&name).unwrap())).collect()
}

/// The names of the files with this suffix, sorted.
pub(crate) fn names(disk: &SimDisk, suffix: &str) -> Vec<String> {
    disk.file_names().into_iter().filter(|name| name.ends_with(suffix)).collect()
}

/// Runs a future to completion on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut cx = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        std::thread::park_timeout(Duration::from_secs(10));
    }
}

/// Explores the stacks with all of their commands.
pub(crate) fn stacks() -> Explore<Stacks> {
    const KEYS: u64 = 8;
    let key = |rng: &mut SimRng| rng.below(KEYS) as u8;
    Explore::commands(move |rng| match rng.below(8) {
        0 => Cmd::Pop { key: key(rng) },
        1 => Cmd::Move { from: key(rng), to: key(rng) },
        _ => {
            let pad = if rng.below(6) == 0 { rng.below(5000) } else { rng.below(200) };
            Cmd::Push { key: key(rng), value: rng.next() as u32, pad: pad as u16 }
        }
    })
    .looks(move |rng| {
        let key = key(rng);
        let show = move |s: &Stacks| s.at(key).iter().flat_map(|value| value.to_le_bytes()).collect();
        Look::new(&Footprint::key(Access::Shared, &[key]), show)
    })
}
