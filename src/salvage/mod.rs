//! Everything that a damaged store still proves, as a new store.
//!
//! A store whose durable data is damaged does not open, and nothing on disk is changed then. [`salvage`] reads it, writes nothing to it,
//! and makes a new store of what is left: from the newest snapshot that is whole, or the empty state where the log goes back to it,
//! along the log up to the first damage. Transactions that have not ended there are undone. So what the new store holds is what the
//! damaged one held after one of its commits. The report says what is missing and what stands behind the damage.
//!
//! A store that opens is salvaged to what it opens with. What the device cannot read counts as damage.
//!
//! What stands behind the first damage is no continuation: commits that it rests on are missing. [`Reach::Beyond`] makes
//! something of it all the same, and the report counts how much. Snapshots with a damaged chunk are never used in part: a part of a
//! state is not a state that ever was.
//!
//! Requires the feature `salvage`.
//!
//! ```
//! use seawal::salvage::{Outcome, Reach, salvage};
//! use seawal::{Engine, inspect, kv::Kv, storage};
//! use std::sync::Arc;
//!
//! let dir = tempfile::tempdir()?;
//! let (damaged, rescued) = (dir.path().join("damaged"), dir.path().join("rescued"));
//! let store = Engine::<Kv>::open(&damaged)?;
//! store.insert("key", "value")?;
//! store.close()?;
//! std::fs::write(damaged.join("MANIFEST-0"), "gone")?;
//! std::fs::write(damaged.join("MANIFEST-1"), "gone too")?;
//!
//! let target = storage::DiskStorage::open(&rescued, storage::Create::IfMissing)?;
//! let report = salvage::<Kv>(inspect::storage(&damaged)?, Arc::new(target), Reach::Proven)?;
//! assert_eq!(report.outcome, Outcome::Whole, "{report}");
//! assert_eq!(Engine::<Kv>::open(&rescued)?.get("key")?.as_deref(), Some(&b"value"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::unwrap_used, clippy::expect_used)]

mod behind;
mod gather;
mod inventory;
mod report;
mod source;
mod walk;

pub use crate::inspect::{Finding, Severity};
pub use report::{Base, Behind, Gap, Outcome, Reach, SalvageReport};

use crate::engine::backup::NewStore;
use crate::error::{Error, Result};
use crate::format::{MachineTag, names};
use crate::machine::StateMachine;
use crate::options::Options;
use crate::recovery::{Recovered, RecoveryPolicy, recover};
use crate::storage::Storage;
use crate::sync::Arc;
use crate::wal::attach::Attached;
use inventory::Inventory;
use names::FileName;
use source::Source;

/// Writes what can be proven of the store in `source` as a new store into `target`, which holds none yet.
///
/// Nothing is written to `source`; a shared lock keeps it from being opened meanwhile. When this returns `Ok` and the outcome is not
/// [`Outcome::Nothing`], the new store is complete, as after a close, has an identity of its own, and survives power loss. When it
/// fails or is cut off, `target` does not open as a store, and may be given to another salvage.
/// The state is held in memory, as an open store holds it.
///
/// # Errors
/// [`Error::NotAStore`] where no store is or another machine's; [`Error::Locked`] where one is in use; [`Error::InvalidArgument`]
/// where `target` holds a store; [`Error::UnsupportedVersion`]: what a newer program wrote is not damage, and is for that program;
/// [`Error::Corrupt`] where not even whose store it is can be told; [`Error::Poisoned`] where the machine panics; [`Error::Full`] and I/O
/// errors.
pub fn salvage<M: StateMachine>(
    source: Arc<dyn Storage>,
    target: Arc<dyn Storage>,
    reach: Reach,
) -> Result<SalvageReport> {
    let source = Arc::new(Source::new(source));
    let (attached, lost) = Attached::for_salvage(source.clone())?;
    if attached.is_new() && lost.is_none() {
        let path = attached.storage.path("");
        return Err(Error::NotAStore { path, reason: "it holds neither a manifest nor a segment".into() });
    }
    // after the source's lock, so that a store is not salvaged into itself
    let target = NewStore::claim(target)?;
    let mut report = SalvageReport::new(reach);
    let options = Options::new().recovery(RecoveryPolicy::ReadOnly);
    let state = match recover::<M>(source.clone(), &options) {
        Ok(recovered) => Some(take_whole(recovered, &attached, &mut report)),
        Err(error @ (Error::Locked { .. } | Error::UnsupportedVersion { .. } | Error::Full { .. })) => {
            return Err(error);
        }
        Err(_) => {
            let inventory = Inventory::take::<M>((attached, lost), &mut report)?;
            let gathered = gather::gather::<M>(&inventory, reach, &mut report)?;
            report.outcome = if gathered.is_some() { Outcome::Partial } else { Outcome::Nothing };
            gathered.map(|gathered| gathered.tell(&mut report))
        }
    };
    tell_unreadable(&source, &mut report);
    if let Some(state) = state {
        target.write(state, crate::snapshot::Help::None)?;
    }
    Ok(report)
}

/// The store opens as it is: what opening it gives is what it holds.
fn take_whole<M: StateMachine>(recovered: Recovered<M>, attached: &Attached, report: &mut SalvageReport) -> M {
    let found = recovered.report;
    report.outcome = Outcome::Whole;
    report.machine = Some(MachineTag { name: M::NAME.into(), version: M::VERSION });
    let origin = attached.manifest.as_ref().map(|m| m.origin);
    let origin = origin.or_else(|| attached.segments.first().map(|s| s.base)).unwrap_or_default();
    report.base = Some(found.snapshot.map_or(Base::Origin(origin), Base::Snapshot));
    report.end = Some(found.end);
    (report.records, report.transactions, report.undone) = (found.records, found.redone, found.undone);
    found.warnings.into_iter().for_each(|warning| report.note(warning));
    if let Some(tail) = &found.tail {
        let path = tail.path.display();
        report.note(format!("{path} has a torn tail at offset {} (LSN {}): {}", tail.offset, found.end, tail.reason));
    }
    recovered.state
}

/// Tells what the device could not read. Where that is in the log, nobody knows what stood there.
fn tell_unreadable(source: &Source, report: &mut SalvageReport) {
    for ((name, offset), text) in source.unreadable() {
        let path = source.path(&name);
        report.damage(&Error::io_at("read", path, offset, std::io::Error::other(text)));
        if matches!(names::parse(&name), FileName::Segment { .. }) && report.outcome == Outcome::Whole {
            report.outcome = Outcome::Partial;
        }
    }
}
