//! Checks the invariant in the states that commands alone lead to, without a store.
//!
//! A machine that breaks its invariant by itself also breaks it after any crash, but the history of
//! that crash says little about the reason. Here the smallest failing case is commands and states.

use super::explorable::Explorable;
use super::failure::{Failure, Replay, Wrong, minimized};
use super::settings::Explore;
use super::work::{Script, Source};
use crate::sim::rng::{Rng, mix};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Applies the transactions that one seed draws, or those in `kept`, one after the other.
pub(super) fn check<M: Explorable>(plan: &Explore<M>, seed: u64, kept: Option<&[usize]>) -> Result<(), Box<Failure>> {
    if plan.disks.is_some() {
        // the workload does not begin with the empty state
        return Ok(());
    }
    let scripts = scripts(plan, seed, kept);
    let all: Vec<usize> = match kept {
        Some(kept) => kept.iter().copied().filter(|at| *at < scripts.len()).collect(),
        None => (0..scripts.len()).collect(),
    };
    let broken = |chosen: &[usize]| {
        let chosen = chosen.iter().filter_map(|at| scripts.get(*at));
        // a panic is left to the exploration, which reports it with its history
        catch_unwind(AssertUnwindSafe(|| walk(plan, chosen))).ok().flatten()
    };
    let Some(first) = broken(&all) else { return Ok(()) };
    let fewest = if kept.is_some() {
        // a replay is minimized already
        all
    } else {
        let mut enough = all;
        enough.truncate(first.steps_done + 1);
        minimized(enough, |chosen| broken(chosen).is_some())
    };
    let wrong = broken(&fewest).unwrap_or(first);
    let left = fewest.len();
    Err(wrong.into_failure(scripts.len(), left, Replay::of_commands(seed, fewest)))
}

/// The transactions of a seed, at least as many as are named.
fn scripts<M: Explorable>(plan: &Explore<M>, seed: u64, kept: Option<&[usize]>) -> Vec<Script<M>> {
    let named = kept.and_then(|kept| kept.iter().max()).map_or(0, |last| last + 1);
    let mut rng = Rng::new(mix(seed ^ mix(1)));
    let count = plan.steps.max(named);
    match &plan.source {
        Source::Commands(draw) => (0..count).map(|_| vec![draw(&mut rng)]).collect(),
        Source::Transactions(draw) => (0..count).map(|_| draw(&mut rng)).collect(),
        Source::Listed(all) => all.clone(),
    }
}

/// Applies transactions to the empty state, until the invariant does not hold.
fn walk<'a, M: Explorable>(plan: &Explore<M>, scripts: impl Iterator<Item = &'a Script<M>>) -> Option<Wrong> {
    let mut state = M::default();
    let mut lines = Vec::new();
    for (steps_done, script) in scripts.enumerate() {
        let mut next = state.clone();
        let mut own = Vec::new();
        let done = script.iter().all(|command| {
            let reply = next.apply(command).map(|(reply, _)| reply);
            own.push(format!("{command:?}: {reply:?}"));
            reply.is_ok()
        });
        if !done {
            // the transaction is rolled back
            continue;
        }
        if script.len() > 1 {
            own.insert(0, "begin".to_owned());
            own.push("commit".to_owned());
        }
        if let Err(why) = (plan.invariant)(&next) {
            lines.push(format!("the state before: {}", plan.shown(&state)));
            lines.extend(own);
            lines.push(format!("the state after: {}", plan.shown(&next)));
            let what = format!("the invariant does not hold after these commands, without any crash: {why}");
            return Some(Wrong { what, lines, steps_done });
        }
        lines.extend(own);
        state = next;
    }
    None
}
