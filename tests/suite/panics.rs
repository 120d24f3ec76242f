//! A machine that panics, in any of its methods. The operation fails or the engine stops, no
//! command is half applied, and reopening recovers.

use crate::common::{Cmd, Stacks, files, manual, open_on};
use seawal::machine::{Bulk, BulkMachine, DecodeError, Footprint, StateMachine};
use seawal::sim::{Crash, SimDisk};
use seawal::{Engine, Error, ExecuteError, Step};
use std::cell::Cell;
use std::io::{self, BufRead, Write};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Nowhere,
    Apply,
    Inverse,
    Footprint,
    Encode,
    EncodedLen,
    Decode,
    Save,
    Load,
    Digest,
    Clone,
}

thread_local!(static PLACE: Cell<Place> = const { Cell::new(Place::Nowhere) });

/// Panics if the machine is to panic in this place.
fn reach(place: Place) {
    if PLACE.get() == place {
        panic!("as asked, in {place:?}");
    }
}

/// Runs `run` with a machine that panics in this place.
fn panicking<T>(place: Place, run: impl FnOnce() -> T) -> T {
    PLACE.set(place);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    PLACE.set(Place::Nowhere);
    result.unwrap_or_else(|_| panic!("the panic in {place:?} came through, or something was not as it should be"))
}

#[derive(Default, Debug)]
struct Touchy(Stacks);

impl Clone for Touchy {
    fn clone(&self) -> Self {
        reach(Place::Clone);
        Touchy(self.0.clone())
    }
}

impl StateMachine for Touchy {
    const NAME: &'static str = "stacks";
    const VERSION: u32 = 3;
    const BULK: Option<Bulk<Self>> = Some(Bulk::of());
    type Command = Cmd;
    type Reply = u32;
    type Rejection = crate::common::Empty;

    fn apply(&mut self, command: &Cmd) -> Result<(u32, Cmd), crate::common::Empty> {
        let applied = self.0.apply(command)?;
        // the command is applied, but its result is not returned
        reach(Place::Apply);
        if matches!(command, Cmd::Pop { .. }) {
            reach(Place::Inverse);
        }
        Ok(applied)
    }

    fn footprint(command: &Cmd) -> Footprint {
        reach(Place::Footprint);
        Stacks::footprint(command)
    }

    fn encode(command: &Cmd, out: &mut Vec<u8>) {
        Stacks::encode(command, out);
        reach(Place::Encode);
    }

    fn decode(bytes: &[u8], version: u32) -> Result<Cmd, DecodeError> {
        reach(Place::Decode);
        Stacks::decode(bytes, version)
    }

    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        self.0.save(out)?;
        reach(Place::Save);
        Ok(())
    }

    fn load(input: &mut dyn BufRead, version: u32) -> Result<Self, DecodeError> {
        reach(Place::Load);
        Stacks::load(input, version).map(Touchy)
    }
}

impl BulkMachine for Touchy {
    fn encoded_len(command: &Cmd) -> usize {
        reach(Place::EncodedLen);
        let mut bytes = Vec::new();
        Stacks::encode(command, &mut bytes);
        bytes.len()
    }

    fn digest(&self) -> io::Result<u64> {
        reach(Place::Digest);
        Ok(0)
    }
}

fn open(disk: &SimDisk) -> Engine<Touchy> {
    open_on::<Touchy>(disk, &manual().digest_every(1)).unwrap().0
}

fn at(engine: &Engine<Touchy>, key: u8) -> Vec<u32> {
    engine.read(|s| s.0.at(key)).unwrap()
}

fn error<T: std::fmt::Debug>(result: Result<T, ExecuteError<crate::common::Empty>>) -> Error {
    match result.unwrap_err() {
        ExecuteError::Failed(error) => error,
        ExecuteError::Rejected(empty) => panic!("{empty}"),
    }
}

#[test]
fn a_panic_before_anything_changed_fails_that_command_alone() {
    for place in [Place::Footprint, Place::Encode] {
        let disk = SimDisk::new(1);
        let engine = open(&disk);
        engine.execute(Cmd::push(1, 1)).unwrap();
        let tx = engine.begin().unwrap();
        tx.execute(Cmd::push(2, 1)).unwrap();
        assert!(matches!(panicking(place, || error(engine.execute(Cmd::push(1, 2)))), Error::Poisoned), "{place:?}");
        assert!(matches!(panicking(place, || error(tx.execute(Cmd::push(2, 2)))), Error::Poisoned), "{place:?}");
        tx.execute(Cmd::push(2, 3)).unwrap();
        tx.commit().unwrap();
        engine.execute(Cmd::push(1, 3)).unwrap();
        drop(engine);
        let engine = open(&disk.crash(Crash::Nothing));
        assert_eq!((at(&engine, 1), at(&engine, 2)), (vec![1, 3], vec![1, 3]), "{place:?}");
    }
}

#[test]
fn a_panic_while_the_state_changes_stops_the_engine_and_leaves_no_half() {
    for place in [Place::Apply, Place::EncodedLen, Place::Inverse] {
        let disk = SimDisk::new(2);
        let engine = open(&disk);
        engine.execute(Cmd::push(1, 1)).unwrap();
        let tx = engine.begin().unwrap();
        tx.execute(Cmd::push(2, 1)).unwrap();
        engine.sync().unwrap();
        // only the last place may see the rollback, which would stop the engine by itself
        let mut tx = Some(tx);
        panicking(place, || match (place, &mut tx) {
            (Place::Apply, _) => assert!(matches!(error(engine.execute(Cmd::push(1, 2))), Error::Poisoned)),
            (Place::EncodedLen, Some(tx)) => assert!(matches!(error(tx.execute(Cmd::push(2, 2))), Error::Poisoned)),
            (_, tx) => *tx = None,
        });
        assert!(matches!(engine.read(|_| ()), Err(Error::Poisoned)), "{place:?}");
        assert!(matches!(error(engine.execute(Cmd::push(1, 3))), Error::Poisoned), "{place:?}");
        assert!(engine.checkpoint().is_err() && engine.view().is_err() && engine.close().is_err(), "{place:?}");
        drop(engine);
        let engine = open(&disk.crash(Crash::KillOnly));
        assert_eq!((at(&engine, 1), at(&engine, 2)), (vec![1], vec![]), "{place:?}");
    }
}

#[test]
fn a_panic_over_a_frozen_copy_fails_what_it_was_for_and_nothing_else() {
    for place in [Place::Save, Place::Digest, Place::Clone] {
        let disk = SimDisk::new(3);
        let engine = open(&disk);
        engine.execute(Cmd::push(1, 1)).unwrap();
        panicking(place, || {
            // a checkpoint without its digest succeeds
            assert_eq!(engine.checkpoint().is_err(), place != Place::Digest, "{place:?}");
            while matches!(engine.step(Step::Digest), Ok(true)) {}
        });
        engine.execute(Cmd::push(1, 2)).unwrap();
        engine.checkpoint().unwrap();
        assert_eq!(at(&engine, 1), [1, 2]);
        drop(engine);
        assert_eq!(at(&open(&disk.crash(Crash::Nothing)), 1), [1, 2], "{place:?}");
    }
}

#[test]
fn a_panic_in_recovery_is_an_error_and_changes_nothing() {
    let disk = SimDisk::new(4);
    let engine = open(&disk);
    engine.execute(Cmd::push(1, 1)).unwrap();
    engine.checkpoint().unwrap();
    engine.execute(Cmd::push(1, 2)).unwrap();
    let tx = engine.begin().unwrap();
    tx.execute(Cmd::push(2, 1)).unwrap();
    while engine.step(Step::Digest).unwrap() {}
    engine.sync().unwrap();
    std::mem::forget((tx, engine));
    let disk = disk.crash(Crash::Nothing);
    let before = files(&disk);
    for place in [Place::Load, Place::Decode, Place::Apply, Place::Digest, Place::Clone] {
        let error = panicking(place, || open_on::<Touchy>(&disk, &manual()).map(|_| ()).unwrap_err());
        assert!(matches!(error, Error::Poisoned), "{place:?}: {error:?}");
        assert_eq!(files(&disk), before, "{place:?}");
    }
    // after the cut nothing is lost either, because the undo is tried again
    let error = panicking(Place::Inverse, || open_on::<Touchy>(&disk, &manual()).map(|_| ()).unwrap_err());
    assert!(matches!(error, Error::Poisoned), "{error:?}");
    let engine = open(&disk.crash(Crash::Nothing));
    assert_eq!((at(&engine, 1), at(&engine, 2)), (vec![1, 2], vec![]));
}
