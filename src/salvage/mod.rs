//! Salvage: copies what is intact in a damaged store into a new store.
//!
//! A store whose durable data is damaged does not open, and opening it changes nothing on disk.
//! [`salvage`] reads such a store without writing to it, and builds a new one. It begins with the
//! newest intact snapshot, or with the empty state if the log goes back to it. It replays the log
//! up to the first damage, and undoes the transactions that are open there. The new store therefore
//! has a state that the damaged store had after one of its commits. The report says what is
//! missing, and what follows the damage.
//!
//! A store that opens is copied with the state that it opens with. Blocks that the device cannot
//! read count as damage.
//!
//! The log after the first damage does not continue the state, because commits before it are
//! missing.
//! [`Reach::Beyond`] applies its complete transactions all the same, and the report counts them. A
//! snapshot with a damaged chunk is never used in part, because a part of a state never existed.
//!
//! Requires the feature `salvage`.
//!
//! ```
//! use seawal::salvage::{Outcome, Reach, salvage};
//! use seawal::{Engine, inspect, io, kv::Kv};
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
//! let target = io::DiskStorage::open(&rescued, io::Create::IfMissing)?;
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

use crate::error::{Error, Result, lacks_resources};
use crate::ids::MachineTag;
use crate::io::sync::Arc;
use crate::io::{Directory, Storage};
use crate::machine::StateMachine;
use crate::options::Options;
use crate::options::RecoveryPolicy;
use crate::recovery::{Recovered, recover};
use crate::snapshot;
use crate::store::create::NewStore;
use crate::store::layout as names;
use crate::store::open_dir::StoreDir;
use inventory::Inventory;
use names::FileName;
use source::Source;
use std::time::Duration;

/// Copies what is intact of the store in `source` into a new store in `target`, which must be
/// empty.
///
/// Nothing is written to `source`, and a shared lock keeps it from being opened for writing
/// meanwhile. When this returns `Ok` and the outcome is not [`Outcome::Nothing`], the new store is
/// complete and survives power loss. It is in the same condition as after a close, and has its own
/// identifier. When it fails or the process is killed, `target` does not open as a store, and
/// another salvage may write to it. The whole state is held in memory meanwhile, as in an open
/// store.
///
/// # Errors
/// - [`Error::NotAStore`] if `source` has no store; [`Error::OtherMachine`] if it has one of another machine.
/// - [`Error::Locked`] if one of the two is in use.
/// - [`Error::InvalidArgument`] if `target` has a store already.
/// - [`Error::UnsupportedVersion`] if a newer program wrote the store; use that program.
/// - [`Error::Corrupt`] if nothing intact says which machine the store belongs to.
/// - [`Error::Poisoned`] if the machine panics; [`Error::Full`]; I/O errors.
pub fn salvage<M: StateMachine>(
    source: Arc<dyn Storage>,
    target: Arc<dyn Storage>,
    reach: Reach,
) -> Result<SalvageReport> {
    let source = Arc::new(Source::new(source));
    let (store_dir, lost) = StoreDir::for_salvage(source.clone())?;
    if store_dir.is_new() && lost.is_none() {
        let path = store_dir.storage.path("");
        return Err(Error::NotAStore { path, reason: "the directory has neither a manifest nor a segment".into() });
    }
    // locked after the source, so that salvaging a store into itself fails
    let target = NewStore::claim(target, Duration::ZERO)?;
    let mut report = SalvageReport::new(reach);
    let options = Options::new().recovery(RecoveryPolicy::ReadOnly);
    let state = match recover::<M>(source.clone(), &options) {
        Ok(recovered) => Some(take_whole(recovered, &store_dir, &mut report)),
        Err(error @ (Error::Locked { .. } | Error::UnsupportedVersion { .. } | Error::Full { .. })) => {
            return Err(error);
        }
        // it says nothing about the store
        Err(Error::Io { operation, path, offset, source }) if lacks_resources(&source) => {
            return Err(Error::Io { operation, path, offset, source });
        }
        Err(_) => {
            let inventory = Inventory::take::<M>((store_dir, lost), &mut report)?;
            let gathered = gather::gather::<M>(&inventory, reach, &mut report)?;
            report.outcome = if gathered.is_some() { Outcome::Partial } else { Outcome::Nothing };
            gathered.map(|gathered| gathered.tell(&mut report))
        }
    };
    tell_unreadable(&source, &mut report);
    if let Some(state) = state {
        snapshot::write_as_store(target, state, M::shape(&[]), snapshot::Help::None)?;
    }
    Ok(report)
}

/// The store opens, so the state that it opens with is copied.
fn take_whole<M: StateMachine>(recovered: Recovered<M>, store_dir: &StoreDir, report: &mut SalvageReport) -> M {
    let found = recovered.report;
    report.outcome = Outcome::Whole;
    report.machine = Some(MachineTag { name: M::NAME.into(), version: M::VERSION });
    let origin = store_dir.manifest.as_ref().map(|m| m.origin);
    let origin = origin.or_else(|| store_dir.segments.first().map(|s| s.base)).unwrap_or_default();
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

/// Reports blocks that the device could not read. Within the log, their content is unknown.
fn tell_unreadable(source: &Source, report: &mut SalvageReport) {
    for ((name, offset), text) in source.unreadable() {
        let path = source.path(&name);
        report.damage(&Error::io_at("read", path, offset, std::io::Error::other(text)));
        if matches!(names::parse(&name), FileName::Segment { .. }) && report.outcome == Outcome::Whole {
            report.outcome = Outcome::Partial;
        }
    }
}
