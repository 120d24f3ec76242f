//! Threads that the system refuses.

use crate::engine::Engine;
use crate::error::Error;
use crate::inspect::{Soundness, storage, verify_machine};
use crate::io::threads::refusal;
use crate::kv::{Kv, KvCommand};
use crate::options::{Options, RecoveryPolicy};
use crate::salvage::{Outcome, Reach, salvage};
use crate::sim::SimDisk;
use std::sync::Arc;

/// S4: `open` panicked at the first thread that was refused, and a checkpoint did too.
#[test]
fn a_refused_thread_is_an_error_of_the_open_or_one_helper_less() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = 0;
    for allowed in 0..12u8 {
        if let Ok(engine) = Engine::<Kv>::open(dir.path()) {
            engine.execute(KvCommand::put("", [allowed], vec![allowed; 3000])).unwrap();
            // without a checkpoint, so that the next open replays
            if allowed % 2 == 0 {
                engine.checkpoint().unwrap();
            }
            let more = KvCommand::put("", [allowed, 1], "more");
            engine.execute(more).unwrap();
        }
        match refusal::after(allowed.into(), || Engine::<Kv>::open(dir.path())) {
            Ok(engine) => {
                opened += 1;
                assert!(engine.get([allowed]).unwrap().is_some(), "{allowed}");
                engine.execute(KvCommand::put("", "new", [allowed])).unwrap();
                refusal::after(0, || engine.checkpoint()).unwrap();
                refusal::after(1, || engine.checkpoint()).unwrap();
                engine.execute(KvCommand::put("", "newer", [allowed])).unwrap();
                refusal::after(1, || engine.checkpoint()).unwrap();
                refusal::after(0, || engine.close()).unwrap();
            }
            Err(Error::Io { operation: "start a thread for", .. }) => {}
            Err(error) => panic!("{allowed}: {error:?}"),
        }
    }
    assert!((1..12).contains(&opened), "{opened}");
    let engine = Engine::<Kv>::open(dir.path()).unwrap();
    assert!((0..12).all(|n| engine.get([n]).unwrap().is_some()));
}

/// S4: what only reads needs no thread. A reader, a check and a backup were refused; a salvage took
/// the refusal for damage.
#[test]
fn a_store_is_read_checked_and_salvaged_without_threads() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::<Kv>::open(dir.path()).unwrap();
    (0..200u8).for_each(|n| _ = engine.execute(KvCommand::put("", [n], vec![n; 3000])).unwrap());
    engine.checkpoint().unwrap();
    (0..200u8).for_each(|n| _ = engine.execute(KvCommand::put("", [n, 1], vec![n; 3000])).unwrap());
    drop(engine);
    let options = Options::new().recovery(RecoveryPolicy::ReadOnly);
    for allowed in 0..4 {
        refusal::after(allowed, || {
            let reader: Engine<Kv> = options.open(dir.path()).unwrap();
            assert_eq!(reader.iter().unwrap().count(), 400);
            reader.backup_to_storage(Arc::new(SimDisk::new(1))).unwrap();
        });
        let report = refusal::after(allowed, || verify_machine::<Kv>(storage(dir.path()).unwrap()).unwrap());
        assert_ne!(report.soundness(), Soundness::Damaged, "{allowed}: {report}");
        let target = Arc::new(SimDisk::new(2));
        let salvaged = || salvage::<Kv>(storage(dir.path()).unwrap(), target, Reach::Proven).unwrap();
        assert_eq!(refusal::after(allowed, salvaged).outcome, Outcome::Whole, "{allowed}");
    }
}
