//! Crash fuzzing of a custom machine: a queue of jobs with a deliberate bug, which the exploration
//! finds, and the same queue without it.
//!
//! `cargo run --release --example crash_fuzzing`
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use seawal::machine::{Access, DecodeError, Footprint, StateMachine};
use seawal::sim::Rng;
use seawal::sim::explore::{Explore, Look};
use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

/// A user who submits jobs.
type Owner = u8;

/// Jobs by owner and number. With `SHARED_COUNTER`, one counter numbers the jobs of all owners.
/// That is the bug: the footprint of a command names only its owner's jobs.
#[derive(Clone, Default)]
struct Jobs<const SHARED_COUNTER: bool> {
    next: BTreeMap<Owner, u32>,
    jobs: BTreeMap<(Owner, u32), u32>,
}

#[derive(Clone, Debug, PartialEq)]
enum Command {
    /// Replies with the job's number.
    Submit { owner: Owner, work: u32 },
    /// Withdraws the owner's newest job, and frees its number.
    Withdraw { owner: Owner },
}

impl Command {
    fn owner(&self) -> Owner {
        match self {
            Command::Submit { owner, .. } | Command::Withdraw { owner } => *owner,
        }
    }
}

impl<const SHARED_COUNTER: bool> Jobs<SHARED_COUNTER> {
    fn counter(owner: Owner) -> Owner {
        if SHARED_COUNTER { 0 } else { owner }
    }

    fn of(&self, owner: Owner) -> impl DoubleEndedIterator<Item = (u32, u32)> {
        self.jobs.range((owner, 0)..=(owner, u32::MAX)).map(|((_, number), work)| (*number, *work))
    }
}

impl<const SHARED_COUNTER: bool> StateMachine for Jobs<SHARED_COUNTER> {
    const NAME: &'static str = "jobs";
    const VERSION: u32 = 1;
    type Command = Command;
    type Reply = u32;
    type Rejection = &'static str;

    fn apply(&mut self, command: &Command) -> Result<(u32, Command), &'static str> {
        let owner = command.owner();
        match command {
            Command::Submit { work, .. } => {
                let next = self.next.entry(Self::counter(owner)).or_default();
                *next += 1;
                self.jobs.insert((owner, *next), *work);
                Ok((*next, Command::Withdraw { owner }))
            }
            Command::Withdraw { .. } => {
                let (number, work) = self.of(owner).next_back().ok_or("no job is left")?;
                self.jobs.remove(&(owner, number));
                match number - 1 {
                    0 => self.next.remove(&Self::counter(owner)),
                    last => self.next.insert(Self::counter(owner), last),
                };
                Ok((number, Command::Submit { owner, work }))
            }
        }
    }

    fn footprint(command: &Command) -> Footprint {
        Footprint::key(Access::Exclusive, &[command.owner()])
    }

    fn encode(command: &Command, out: &mut Vec<u8>) {
        out.push(command.owner());
        if let Command::Submit { work, .. } = command {
            out.extend_from_slice(&work.to_le_bytes());
        }
    }

    fn decode(bytes: &[u8], _version: u32) -> Result<Command, DecodeError> {
        match *bytes {
            [owner] => Ok(Command::Withdraw { owner }),
            [owner, a, b, c, d] => Ok(Command::Submit { owner, work: u32::from_le_bytes([a, b, c, d]) }),
            _ => Err(DecodeError::new("one byte, or five")),
        }
    }

    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        for ((owner, number), work) in &self.jobs {
            out.write_all(&[*owner])?;
            out.write_all(&number.to_le_bytes())?;
            out.write_all(&work.to_le_bytes())?;
        }
        Ok(())
    }

    fn load(input: &mut dyn BufRead, _version: u32) -> Result<Self, DecodeError> {
        let mut jobs = Self::default();
        while !input.fill_buf()?.is_empty() {
            let (mut owner, mut number, mut work) = ([0], [0; 4], [0; 4]);
            input.read_exact(&mut owner)?;
            input.read_exact(&mut number)?;
            input.read_exact(&mut work)?;
            let (owner, number) = (owner[0], u32::from_le_bytes(number));
            jobs.jobs.insert((owner, number), u32::from_le_bytes(work));
            let next = jobs.next.entry(Self::counter(owner)).or_default();
            *next = number.max(*next);
        }
        Ok(jobs)
    }
}

fn explore<const SHARED_COUNTER: bool>() -> Explore<Jobs<SHARED_COUNTER>> {
    Explore::commands(|rng: &mut Rng| {
        let owner = rng.below(3) as Owner;
        if rng.below(3) == 0 { Command::Withdraw { owner } } else { Command::Submit { owner, work: rng.next() as u32 } }
    })
    .looks(|rng| {
        let owner = rng.below(3) as Owner;
        let show = move |jobs: &Jobs<SHARED_COUNTER>| {
            jobs.of(owner).flat_map(|(number, work)| [number.to_le_bytes(), work.to_le_bytes()].concat()).collect()
        };
        Look::new(&Footprint::key(Access::Shared, &[owner]), show)
    })
    .invariant(|jobs| {
        let gaps = jobs.next.keys().any(|owner| {
            let numbers = jobs.of(*owner).map(|(number, _)| number);
            !SHARED_COUNTER && !numbers.eq(1..=jobs.next[owner])
        });
        if gaps { Err("the numbers of an owner's jobs have gaps".to_owned()) } else { Ok(()) }
    })
    .seeds(3)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let failure = explore::<true>().run().err().ok_or("the bug was not found")?;
    println!("One counter for all owners:\n\n{failure}\n");
    let explored = explore::<false>().run()?;
    println!("A counter for each owner: {} states after crashes, and all of them right", explored.states);
    Ok(())
}
