//! A failure of an exploration: the broken promise, a minimized history, and how to replay it.

use super::explorable::Explorable;
use super::explored::Explored;
use super::limits::Limits;
use super::settings::Explore;
use super::work::Step;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// The limit on the time for minimizing a failing history, in real time.
const MINIMISE_FOR: Duration = Duration::from_secs(20);

/// The largest step number that a replay may contain.
const MAX_STEPS: usize = 1 << 20;

/// A broken promise that an exploration found.
#[derive(Clone, Debug)]
pub struct Failure {
    what: String,
    history: Vec<String>,
    /// The number of steps before and after minimization.
    drawn: usize,
    left: usize,
    replay: Replay,
}

impl Failure {
    /// The broken promise, in a sentence.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The minimized history that led to it, crashes included.
    pub fn history(&self) -> &[String] {
        &self.history
    }

    /// Reproduces the failure with [`Explore::replay`].
    pub fn replay(&self) -> &Replay {
        &self.replay
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.what)?;
        let Failure { drawn, left, replay, .. } = self;
        let seed = replay.seed;
        match left {
            0 => writeln!(f, "with seed {seed}; none of its {drawn} steps is needed, only what follows:")?,
            1 => writeln!(f, "with seed {seed}; 1 of {drawn} steps is enough for it:")?,
            _ => writeln!(f, "with seed {seed}; {left} of {drawn} steps are enough for it:")?,
        }
        for line in &self.history {
            writeln!(f, "  {line}")?;
        }
        write!(f, "to see it again, with these settings: explore.replay(&\"{replay}\".parse().unwrap()).unwrap();")
    }
}

impl std::error::Error for Failure {}

/// What an exploration does to the operations of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Crashes,
    Failures,
    /// Nothing: commands are applied to the machine, without a store.
    Commands,
}

/// A seed, and the steps of its workload that are carried out.
///
/// Its text is the seed. If only some steps are carried out, a colon and their numbers follow. An
/// `f` before the seed means that operations are made to fail, as by
/// [`Explore::fail_each_operation`]. A `c` means that the commands are applied without a store, because
/// they break the invariant by themselves.
///
/// ```
/// use seawal::sim::explore::Replay;
/// let replay: Replay = "17:0,3-5,9".parse()?;
/// assert_eq!(replay.to_string(), "17:0,3-5,9");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    seed: u64,
    kept: Option<Vec<usize>>,
    way: Way,
}

impl Replay {
    /// All of a seed's crashes.
    pub(super) fn of_seed(seed: u64) -> Replay {
        Replay { seed, kept: None, way: Way::Crashes }
    }

    /// Some of the transactions of a seed, without a store.
    pub(super) fn of_commands(seed: u64, kept: Vec<usize>) -> Replay {
        Replay { seed, kept: Some(kept), way: Way::Commands }
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn steps(&self) -> Option<&[usize]> {
        self.kept.as_deref()
    }

    pub(super) fn way(&self) -> Way {
        self.way
    }
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.way {
            Way::Crashes => "",
            Way::Failures => "f",
            Way::Commands => "c",
        })?;
        write!(f, "{}", self.seed)?;
        let Some(kept) = &self.kept else { return Ok(()) };
        let mut between = ":";
        for run in kept.chunk_by(|a, b| a + 1 == *b) {
            match run {
                [one] => write!(f, "{between}{one}")?,
                [first, .., last] => write!(f, "{between}{first}-{last}")?,
                [] => {}
            }
            between = ",";
        }
        if kept.is_empty() { f.write_str(":") } else { Ok(()) }
    }
}

impl FromStr for Replay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let no_replay = || {
            format!(
                "{text:?} is no replay: a seed, then perhaps a colon and numbers of steps that ascend, as in 17:0,3-5"
            )
        };
        let (way, rest) = match text.split_at_checked(1) {
            Some(("f", rest)) => (Way::Failures, rest),
            Some(("c", rest)) => (Way::Commands, rest),
            _ => (Way::Crashes, text),
        };
        let (seed, steps) = rest.split_once(':').map_or((rest, None), |(seed, steps)| (seed, Some(steps)));
        let number = |s: &str| -> Result<u64, String> {
            // a sign is no part of a number here
            if s.starts_with('+') { Err(no_replay()) } else { s.parse().map_err(|_| no_replay()) }
        };
        let mut kept = steps.map(|_| Vec::new());
        for part in steps.filter(|steps| !steps.is_empty()).iter().flat_map(|steps| steps.split(',')) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)? as usize, number(last)? as usize);
            let kept = kept.get_or_insert_default();
            if first > last || last > MAX_STEPS || kept.last().is_some_and(|before| *before >= first) {
                return Err(no_replay());
            }
            kept.extend(first..=last);
        }
        Ok(Replay { seed: number(seed)?, kept, way })
    }
}

/// A broken promise, and the lines of the history that led to it.
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) lines: Vec<String>,
    /// The number of steps that were carried out before.
    pub(super) steps_done: usize,
}

impl Wrong {
    pub(super) fn into_failure(self, drawn: usize, left: usize, replay: Replay) -> Box<Failure> {
        Box::new(Failure { what: self.what, history: self.lines, drawn, left, replay })
    }
}

/// Whether a run keeps the lines of its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Telling {
    Silent,
    Told,
}

/// Explores one seed. A failure is minimized, and then run again to keep its lines.
pub(super) fn find<M: Explorable>(
    plan: &Explore<M>,
    seed: u64,
    kept: Option<&[usize]>,
    way: Way,
    explore: impl Fn(&[Step<M>], Telling, &Limits) -> Result<Explored, Wrong>,
    limits: &Limits,
) -> Result<Explored, Box<Failure>> {
    let steps = plan.draw_steps(seed, kept);
    let all: Vec<usize> = match kept {
        Some(kept) => kept.iter().copied().filter(|at| *at < steps.len()).collect(),
        None => (0..steps.len()).collect(),
    };
    let chosen = |kept: &[usize]| kept.iter().map(|at| steps[*at].clone()).collect::<Vec<_>>();
    let wrong = match explore(&chosen(&all), Telling::Silent, limits) {
        Ok(explored) => return Ok(explored),
        Err(wrong) => wrong,
    };
    let fewest = if kept.is_some() {
        // a replay is minimized already
        all
    } else {
        let mut enough = all;
        enough.truncate(wrong.steps_done + 1);
        minimized(enough, |kept| explore(&chosen(kept), Telling::Silent, &Limits::none()).is_err())
    };
    let told = explore(&chosen(&fewest), Telling::Told, &Limits::none()).err().unwrap_or(wrong);
    Err(told.into_failure(steps.len(), fewest.len(), Replay { seed, kept: Some(fewest), way }))
}

/// Removes steps that the failure does not need: halves, then quarters, down to single steps
/// (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", TSE 2002).
pub(super) fn minimized<T: Copy>(mut all: Vec<T>, fails: impl Fn(&[T]) -> bool) -> Vec<T> {
    let until = Instant::now() + MINIMISE_FOR;
    let mut chunk = all.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        let mut shrunk = false;
        while at < all.len() && Instant::now() < until {
            let end = all.len().min(at + chunk);
            let fewer: Vec<T> = all[..at].iter().chain(&all[end..]).copied().collect();
            if fails(&fewer) {
                all = fewer;
                shrunk = true;
            } else {
                at = end;
            }
        }
        // single steps are tried again as long as one was removed
        chunk = if chunk > 1 { chunk / 2 } else { usize::from(shrunk && Instant::now() < until) };
    }
    all
}
