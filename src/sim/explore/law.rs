//! Checks that a machine keeps the law in the documentation of [`StateMachine`], on random states
//! and commands.

use super::explorable::Explorable;
use super::failure::{Failure, Replay, Wrong, minimized};
use super::oracle::digest;
use super::settings::Explore;
use super::stop::panic_text;
#[cfg(doc)]
use crate::machine::StateMachine;
use crate::machine::parts::PartCollector;
use crate::machine::{Access, Claim, Extent, Footprint, Parts, bulk};
use crate::sim::rng::{Rng, mix};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The number of commands that lead to the states under test.
const WALK: usize = 40;
/// The number of commands between a command and its inverse.
const BETWEEN: usize = 6;

/// Checks the law with the commands that one seed draws.
pub(super) fn check<M: Explorable>(plan: &Explore<M>, seed: u64) -> Result<(), Box<Failure>> {
    let mut rng = Rng::new(mix(!seed));
    let walk: Vec<M::Command> = (0..WALK).filter_map(|_| plan.source.command(&mut rng)).collect();
    let trial = Trial { plan, seed: rng.next() };
    let broken = |chosen: &[usize]| {
        let commands: Vec<&M::Command> = chosen.iter().filter_map(|at| walk.get(*at)).collect();
        catch_unwind(AssertUnwindSafe(|| trial.walk(&commands)))
            .unwrap_or_else(|panic| Err(panic_text(panic.as_ref())))
            .err()
    };
    let all: Vec<usize> = (0..walk.len()).collect();
    let Some(what) = broken(&all) else { return Ok(()) };
    let fewest = minimized(all, |chosen| broken(chosen).is_some());
    let what = broken(&fewest).unwrap_or(what);
    let lines = fewest.iter().filter_map(|at| walk.get(*at)).map(|command| format!("{command:?}")).collect();
    let wrong = Wrong { what: format!("the machine breaks its law: {what}"), lines, steps_done: 0 };
    Err(wrong.into_failure(walk.len(), fewest.len(), Replay::of_seed(seed)))
}

struct Trial<'a, M: Explorable> {
    plan: &'a Explore<M>,
    seed: u64,
}

impl<M: Explorable> Trial<'_, M> {
    /// Applies the commands in turn, and checks the law in each state on the way.
    fn walk(&self, commands: &[&M::Command]) -> Result<(), String> {
        let mut rng = Rng::new(self.seed);
        let mut state = M::default();
        let mut logged = Vec::new();
        (self.plan.invariant)(&state)
            .map_err(|why| format!("the invariant does not hold of the empty state: {why}"))?;
        for command in commands {
            self.deterministic(&state, command)?;
            codec::<M>(command)?;
            self.inverse(&state, command, &mut rng)?;
            told_alike(&state, command)?;
            if state.apply(command).is_ok() {
                logged.push(encoded::<M>(command));
            }
        }
        faithful(&state, commands)?;
        let mut redone = M::default();
        let slices: Vec<&[u8]> = logged.iter().map(Vec::as_slice).collect();
        for part in slices.chunks(7) {
            bulk::redo(&mut redone, part, M::VERSION)
                .map_err(|fault| format!("redo of what was applied fails: {fault:?}"))?;
            // sometimes, so that both deferred and finished redo are checked
            if part.len() % 2 == 0 || rng.below(3) == 0 {
                bulk::finish_redo(&mut redone);
            }
        }
        bulk::finish_redo(&mut redone);
        if digest(&redone) != digest(&state) {
            return Err("redo gives another state than apply".to_owned());
        }
        Ok(())
    }

    fn deterministic(&self, state: &M, command: &M::Command) -> Result<(), String> {
        let before = digest(state);
        if M::footprint(command) != M::footprint(command) {
            return Err(format!("the footprint of {command:?} is another one each time"));
        }
        let (mut one, mut other) = (state.clone(), state.clone());
        let (first, second) = (one.apply(command), other.apply(command));
        if digest(state) != before {
            return Err(format!("{command:?}, applied to a clone, changed the original: a clone must be independent"));
        }
        let same = match (&first, &second) {
            (Ok((a, x)), Ok((b, y))) => a == b && encoded::<M>(x) == encoded::<M>(y),
            (Err(a), Err(b)) => a == b,
            _ => false,
        };
        if !same || digest(&one) != digest(&other) {
            return Err(format!("{command:?} is not deterministic: {first:?}, and then {second:?}"));
        }
        if first.is_err() && digest(&one) != before {
            return Err(format!("{command:?} was rejected and changed the state"));
        }
        Ok(())
    }

    /// `c, D, c⁻¹` equals `D`, for commands `D` that do not conflict with `c`.
    fn inverse(&self, state: &M, command: &M::Command, rng: &mut Rng) -> Result<(), String> {
        let footprint = M::footprint(command);
        let mut with = state.clone();
        let Ok((_, inverse)) = with.apply(command) else { return Ok(()) };
        for claim in M::footprint(&inverse).claims() {
            if !covers(&footprint, claim) {
                return Err(format!("the inverse {inverse:?} of {command:?} leaves its footprint: {claim:?}"));
            }
        }
        codec::<M>(&inverse)?;
        let mut without = state.clone();
        let mut between = Vec::new();
        for _ in 0..BETWEEN {
            let Some(other) = self.plan.source.command(rng) else { break };
            if M::footprint(&other).conflicts_with(&footprint) {
                continue;
            }
            let (here, there) = (with.apply(&other), without.apply(&other));
            let same = match (&here, &there) {
                (Ok((a, _)), Ok((b, _))) => a == b,
                (Err(a), Err(b)) => a == b,
                _ => false,
            };
            if !same {
                return Err(format!(
                    "{other:?} depends on {command:?}, though their footprints do not conflict: {here:?}, and {there:?} without"
                ));
            }
            between.push(other);
        }
        if let Err(rejection) = with.apply(&inverse) {
            return Err(format!("the inverse {inverse:?} of {command:?} is rejected after {between:?}: {rejection:?}"));
        }
        if digest(&with) != digest(&without) {
            return Err(format!("{command:?}, {between:?}, {inverse:?} leave something that {between:?} alone do not"));
        }
        Ok(())
    }
}

/// Checks that the optional fast paths of a machine agree with the required methods.
fn told_alike<M: Explorable>(state: &M, command: &M::Command) -> Result<(), String> {
    let mut keys = Footprint::none();
    let all = bulk::visit_keys::<M>(command, &mut |key| {
        keys = std::mem::take(&mut keys).and_key(Access::Exclusive, key);
    });
    if all && keys != M::footprint(command) {
        return Err(format!("visit_keys of {command:?} visits other keys than its footprint names"));
    }
    let (mut one, mut other) = (state.clone(), state.clone());
    let same = match (one.apply(command), bulk::apply_without_inverse(&mut other, command)) {
        (Ok((reply, inverse)), Ok((alone, made))) => {
            let told = made.or_else(|| bulk::inverse_of::<M>(command, &alone));
            reply == alone && told.is_some_and(|told| encoded::<M>(&told) == encoded::<M>(&inverse))
        }
        (Err(a), Err(b)) => a == b,
        _ => false,
    };
    if !same || digest(&one) != digest(&other) {
        return Err(format!("apply_without_inverse of {command:?} differs from apply"));
    }
    Ok(())
}

fn encoded<M: Explorable>(command: &M::Command) -> Vec<u8> {
    let mut bytes = Vec::new();
    M::encode(command, &mut bytes);
    bytes
}

/// Checks that decoding gives the command back, and that no bytes make it panic.
fn codec<M: Explorable>(command: &M::Command) -> Result<(), String> {
    let bytes = encoded::<M>(command);
    let mut behind = vec![0x5a];
    M::encode(command, &mut behind);
    if behind.strip_prefix(&[0x5a]) != Some(&bytes[..]) {
        return Err(format!("the encoding of {command:?} depends on what it is written behind, or changes that"));
    }
    if bulk::encoded_len::<M>(command) != bytes.len() {
        return Err(format!("encoded_len of {command:?} is not the length of its encoding"));
    }
    match M::decode(&bytes, M::VERSION) {
        Ok(decoded) if encoded::<M>(&decoded) == bytes => {}
        Ok(decoded) => return Err(format!("{command:?} is decoded as {decoded:?}")),
        Err(error) => return Err(format!("{command:?} cannot be decoded: {error}")),
    }
    for cut in 0..bytes.len().min(64) {
        // any answer is right, but no panic
        let _ = M::decode(&bytes[..cut], M::VERSION);
        let mut flipped = bytes.clone();
        flipped[cut] ^= 1 << (cut % 8);
        let _ = M::decode(&flipped, M::VERSION);
    }
    Ok(())
}

/// Checks that `load` of `save` behaves as the original, and that no bytes make it panic.
fn faithful<M: Explorable>(state: &M, commands: &[&M::Command]) -> Result<(), String> {
    let mut saved = Vec::new();
    state.save(&mut saved).map_err(|error| format!("save fails: {error}"))?;
    let mut frozen = PartCollector::default();
    bulk::save_parts(state.clone(), &mut frozen).map_err(|error| format!("save_parts fails: {error}"))?;
    let parts = frozen.into_parts();
    if parts.concat() != saved {
        return Err("save_parts writes other bytes than save".to_owned());
    }
    let mut loaded = M::load(&mut saved.as_slice(), M::VERSION).map_err(|error| format!("load of save: {error}"))?;
    let mut original = state.clone();
    for command in commands {
        let (here, there) = (original.apply(command), loaded.apply(command));
        let same = match (&here, &there) {
            (Ok((a, x)), Ok((b, y))) => a == b && encoded::<M>(x) == encoded::<M>(y),
            (Err(a), Err(b)) => a == b,
            _ => false,
        };
        if !same {
            return Err(format!("after load of save {command:?} answers {there:?}, and not {here:?}"));
        }
    }
    if digest(&original) != digest(&loaded) {
        return Err("after load of save the same commands lead elsewhere".to_owned());
    }
    let in_parts =
        bulk::load_parts::<M>(Parts::of(&parts), M::VERSION).map_err(|error| format!("load_parts of save: {error}"))?;
    if digest(&in_parts) != digest(state) {
        return Err("load_parts makes another state than the one that was saved".to_owned());
    }
    for part in 0..parts.len() {
        let mut damaged = parts.clone();
        damaged.remove(part);
        let _ = bulk::load_parts::<M>(Parts::of(&damaged), M::VERSION);
    }
    for cut in (0..saved.len()).step_by(1 + saved.len() / 32) {
        let _ = M::load(&mut &saved[..cut], M::VERSION);
        let mut flipped = saved.clone();
        flipped[cut] ^= 1 << (cut % 8);
        let _ = M::load(&mut flipped.as_slice(), M::VERSION);
    }
    if !M::supports(M::VERSION) {
        return Err("it does not support its own version".to_owned());
    }
    Ok(())
}

/// Whether one of the footprint's claims covers all of another claim.
fn covers(footprint: &Footprint, inner: &Claim) -> bool {
    let after_start = |outer: &Bound<Box<[u8]>>, inner: &Bound<Box<[u8]>>| match (outer, inner) {
        (Bound::Unbounded, _) => true,
        (_, Bound::Unbounded) => false,
        (Bound::Excluded(o), Bound::Included(i)) => o < i,
        (Bound::Included(o) | Bound::Excluded(o), Bound::Included(i) | Bound::Excluded(i)) => o <= i,
    };
    let before_end = |outer: &Bound<Box<[u8]>>, inner: &Bound<Box<[u8]>>| match (outer, inner) {
        (Bound::Unbounded, _) => true,
        (_, Bound::Unbounded) => false,
        (Bound::Excluded(o), Bound::Included(i)) => o > i,
        (Bound::Included(o) | Bound::Excluded(o), Bound::Included(i) | Bound::Excluded(i)) => o >= i,
    };
    footprint.claims().iter().any(|outer| {
        let allowed = outer.access == Access::Exclusive || inner.access == Access::Shared;
        allowed
            && match (&outer.extent, &inner.extent) {
                (Extent::Everything, _) => true,
                (_, Extent::Everything) => false,
                (Extent::Range(start, end), Extent::Range(s, e)) => after_start(start, s) && before_end(end, e),
                (Extent::Key(_), Extent::Range(..)) => false,
                (outer, key) => outer.overlaps(key),
            }
    })
}
