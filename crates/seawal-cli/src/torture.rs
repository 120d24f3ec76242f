//! `torture`: explores the crash points of the key-value store on a simulated disk.

use super::count::Count;
use super::failure::{Failure, Status};
use super::say;
use seawal::sim::explore::{Explore, Explored, Replay};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

/// The time between two lines of progress.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Crashes the key-value store at every operation of a simulated disk and checks each recovery.
///
/// The command touches no real directory.
#[derive(Debug, clap::Args)]
pub(super) struct Torture {
    /// How long to run, in seconds.
    #[arg(long, value_name = "N", default_value_t = 10)]
    secs: u64,
    /// The first seed; each seed gives another workload. The default is random.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Run only the replay that an earlier failure printed.
    #[arg(long, value_name = "REPLAY", conflicts_with_all = ["secs", "seed"])]
    replay: Option<Replay>,
    /// The number of steps of each workload.
    #[arg(long, value_name = "N", default_value_t = 60)]
    steps: usize,
    /// The number of threads.
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
    /// Make each disk operation fail in turn, instead of crashing there.
    #[arg(long)]
    failures: bool,
}

impl Torture {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let explore = Explore::kv().steps(self.steps).threads(self.threads);
        let began = Instant::now();
        if let Some(replay) = &self.replay {
            let explored = explore.replay(replay).map_err(|failure| self.found(&failure))?;
            say(summary(&explored, began.elapsed()))?;
            return say(format_args!("replay {replay}: {}", verdict(&explored)));
        }
        let first = self.seed.unwrap_or_else(|| RandomState::new().hash_one(std::process::id()) >> 32);
        say(format_args!("seeds from {first}, for {} s", self.secs))?;
        let until = began + Duration::from_secs(self.secs);
        let mut all = Explored::default();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let part = Explore::kv().steps(self.steps).threads(self.threads);
            let part = part.seed(first.wrapping_add(all.seeds)).within(left.min(REPORT_EVERY));
            let explored = if self.failures { part.fail_each_operation() } else { part.run() };
            all.add(explored.map_err(|failure| self.found(&failure))?);
            say(summary(&all, began.elapsed()))?;
        }
        say(verdict(&all))
    }

    /// The report of a failure, with the command that repeats it.
    fn found(&self, failure: &seawal::sim::explore::Failure) -> Failure {
        let steps = if self.steps == 60 { String::new() } else { format!(" --steps {}", self.steps) };
        let text = format!("{failure}\n(seawal torture{steps} --replay {})", failure.replay());
        Failure::new(Status::Other, text)
    }
}

/// A summary of an exploration without a failure.
fn verdict(explored: &Explored) -> String {
    if explored.states == 0 {
        return "nothing was explored; give it more time or more steps".to_owned();
    }
    format!(
        "nothing is wrong: no promise was broken in {}",
        Count(explored.states, "recovered state", "recovered states")
    )
}

fn summary(explored: &Explored, time: Duration) -> String {
    let Explored { seeds, operations, states, within_recovery, .. } = explored;
    let rate = *states as f64 / time.as_secs_f64().max(1e-9);
    let seeds = Count(*seeds, "seed", "seeds");
    let operations = Count(*operations, "operation", "operations");
    let states = Count(*states, "state", "states");
    format!(
        "{seeds}, {operations}, {states} ({within_recovery} of crashes within a recovery), {rate:.0} states a second"
    )
}
