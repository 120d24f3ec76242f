//! The auto traits of the public types. A private field can take them away, and no compiler says
//! so.

use crate::common::{Cmd, Stacks, manual, open_on, state};
use seawal::sim::SimDisk;
use std::any::type_name;
use std::panic::{RefUnwindSafe, UnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

fn all<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>() -> &'static str {
    type_name::<T>()
}

/// These hold closures of the caller, which a panic may leave in any state.
fn not_unwind_safe<T: Send + Sync + Unpin>() -> &'static str {
    type_name::<T>()
}

/// One thread at a time reads through these.
fn not_sync<T: Send + Unpin + UnwindSafe + RefUnwindSafe>() -> &'static str {
    type_name::<T>()
}

/// One thread at a time runs the closures of the caller in these.
fn send_alone<T: Send + Unpin>() -> &'static str {
    type_name::<T>()
}

/// Calls a function with each of these types.
macro_rules! each {
    ($of:ident: $($module:path { $($ty:ident $(<$arg:tt $(::$path:ident)*>)?),* $(,)? })*) => {
        [$({
            use $module::*;
            vec![$($of::<$ty $(<$arg $(::$path)*>)?>()),*]
        }),*].concat()
    };
}

fn types() -> Vec<&'static str> {
    use seawal::kv::Kv;
    use seawal::kv::KvReply as Reply;
    let whole = each! { all:
        seawal {
            Background, Durability, Engine<Kv>, Error, ExecuteError<seawal::kv::KvRejection>, Lsn, ReadLevel, RecoveryPolicy,
            RecoveryReport, Savepoint, Stats, Step, Ticket<Reply>, Transaction<Kv>, View<Kv>,
        }
        seawal::ids { Epoch, MachineTag, SegmentId, StoreId, TxnId }
        seawal::inspect {
            BackupReport, Depth, Detail, Finding, SegmentFigures, Severity, SnapshotFigures, Soundness, Survey, VerifyReport,
        }
        seawal::io { AlignedBuf, Create, DiskStorage, LockMode, OpenMode, WritePath }
        seawal::kv { KvCommand, KvIter, KvRange<'static>, KvRejection, KvReply, KvTables<'static>, RawTable, TableInfo }
        seawal::machine { Access, Bulk<Kv>, Claim, DecodeError, Digest, Extent, Footprint, RedoFault, SnapshotSource }
        seawal::recovery { Phase, Phases, Progress, Verdict }
        seawal::salvage { Base, Behind, Gap, Outcome, Reach, SalvageReport }
        seawal::sim { Crash, CrashPoint, Fault, OpKind, Persistence, Rng, SimDisk, SimDiskBuilder }
        seawal::sim::explore { Explored, Failure, KilledStore, Replay }
        seawal::wal { BatchSizes, Level, Log, LogOptions, LogReport, LogStats, LogStep, LogTicket, Tail }
    };
    let typed = [
        all::<seawal::Table<str, [u8]>>(),
        all::<seawal::kv::TableHandle<seawal::Store, str, [u8]>>(),
        all::<seawal::kv::TableHandle<&'static seawal::Transaction<Kv>, str, [u8]>>(),
        all::<seawal::kv::TableIter<str, [u8]>>(),
    ];
    let partly = [
        each! { all: seawal::kv { Kv } },
        each! { not_unwind_safe: seawal { Options } seawal::sim::explore { Explore<Kv>, Look<Kv> } },
        each! { not_sync: seawal::wal { Records } },
        each! { send_alone: seawal::machine { Parts<'static> } },
    ];
    [whole, typed.to_vec(), partly.concat()].concat()
}

/// The names of the types in a folder of sources. The lint `unreachable_pub` keeps `pub` from types
/// that are not public.
fn public_types(folder: &Path, found: &mut Vec<String>) {
    for entry in folder.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            public_types(&entry, found);
        } else if !entry.ends_with("fuzzing.rs") {
            for line in std::fs::read_to_string(&entry).unwrap().lines() {
                let ty = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum "));
                found.extend(ty.map(|ty| ty.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned()));
            }
        }
    }
}

#[test]
fn every_public_type_has_the_auto_traits_that_it_is_to_have() {
    let asserted = types();
    let name_of = |path: &str| path.split('<').next().unwrap().rsplit("::").next().unwrap().to_owned();
    let asserted: Vec<String> = asserted.into_iter().map(name_of).collect();
    let mut public = Vec::new();
    public_types(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut public);
    assert!(public.len() > 70, "{public:?}");
    let missing: Vec<_> = public.iter().filter(|name| !asserted.contains(name)).collect();
    assert!(missing.is_empty(), "these are not asserted above: {missing:?}");
}

#[test]
fn an_engine_goes_on_after_a_panic_in_a_closure_that_took_it_along() {
    let disk = SimDisk::new(1);
    let (engine, _) = open_on::<Stacks>(&disk, &manual()).unwrap();
    engine.execute(Cmd::push(1, 1)).unwrap();
    catch_unwind(|| engine.read(|_| panic!("as asked"))).unwrap_err();
    let in_transaction = catch_unwind(|| {
        engine.transact(|tx| {
            tx.execute(Cmd::push(1, 2))?;
            if tx.execute(Cmd::push(1, 2)).is_ok() {
                panic!("as asked");
            }
            Ok::<(), seawal::ExecuteError<_>>(())
        })
    });
    assert!(in_transaction.is_err());
    assert_eq!(engine.stats().open_transactions, 0);
    engine.execute(Cmd::push(1, 3)).unwrap();
    assert_eq!(state(&engine).at(1), [1, 3]);
    let storage = Arc::new(disk.crash(seawal::sim::Crash::Nothing));
    assert_eq!(state(&manual().open_on(storage).unwrap()).at(1), [1, 3]);
}
