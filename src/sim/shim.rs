#![allow(missing_docs)]
use super::{Crash, CrashPoint, OpKind, SimDisk};
fn choices(seed: u64) -> Vec<Crash> { vec![Crash::Nothing, Crash::Everything, Crash::KillOnly, Crash::Seeded(seed), Crash::Seeded(seed^1), Crash::TornBlock(seed)] }
impl CrashPoint {
    pub fn crash_choices(&self, seed: u64) -> Vec<Crash> { choices(seed) }
}
impl SimDisk {
    pub fn crash_choices(&self, seed: u64) -> Vec<Crash> { choices(seed) }
}
impl std::fmt::Display for Crash { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "{self:?}") } }
impl std::fmt::Display for OpKind { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "{self:?}") } }
