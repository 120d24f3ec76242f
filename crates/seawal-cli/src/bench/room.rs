//! Whether the disk and the memory are large enough for a measurement.

use super::super::failure::{Failure, Status};
use super::place::Place;
use super::settings::Bench;

/// Fails if the disk or the memory is too small for the measurement.
pub(super) fn check_room(bench: &Bench, place: &Place) -> Result<(), Failure> {
    let state = bench.entries().saturating_mul(bench.entry_bytes().saturating_add(64));
    // on disk the log or two snapshots; in memory the state and the floor's reference
    let needed = state.saturating_mul(3);
    let disk = rustix::fs::statvfs(place.path()).map_err(|e| Failure::io("find out the free space", &e.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let lack = |what: &str, has: u64| {
        let text = format!(
            "{} entries of this size need {needed} bytes of {what}, but only {has} are available; choose a smaller --n or --value",
            bench.entries()
        );
        Err(Failure::new(Status::Other, text))
    };
    if needed > free {
        return lack("disk", free);
    }
    match available_memory() {
        Some(memory) if needed > memory => lack("memory", memory),
        _ => Ok(()),
    }
}

/// The memory that is available for programs, in bytes.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}
