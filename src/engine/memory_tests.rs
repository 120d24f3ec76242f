//! Every buffer in turn is one for which there is no memory.

use crate::engine::{Engine, ExecuteError};
use crate::error::Error;
use crate::io::failing;
use crate::io::sync::Arc;
use crate::kv::{Kv, KvCommand};
use crate::options::Background;
use crate::options::Options;
use crate::sim::{Crash, SimDisk};
use std::time::Duration;

fn open(disk: &SimDisk) -> crate::Result<Engine<Kv>> {
    let options = Options::new()
        .first_segment_bytes(16 << 10)
        .segment_bytes(32 << 10)
        .background(Background::Manual)
        .lock_timeout(Duration::ZERO);
    options.open_on::<Kv>(Arc::new(disk.clone()))
}

fn put(n: u8) -> KvCommand {
    KvCommand::put("", [n], vec![n; 3000])
}

/// Opens, commits, rotates, checkpoints and closes. What was acknowledged, and how often something
/// was refused.
fn work(disk: &SimDisk) -> (Vec<u8>, usize) {
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    let mut hear = |error: &Error| {
        let is_typed =
            matches!(error, Error::Full { .. } | Error::Io { .. } | Error::Latched { .. } | Error::Delayed { .. });
        assert!(is_typed, "{error:?}");
        refused += 1;
        error.is_latched()
    };
    // an open that was refused for want of memory may be tried again at once
    let engine = match open(disk) {
        Ok(engine) => engine,
        Err(error) => {
            hear(&error);
            open(disk).unwrap()
        }
    };
    for n in 0..12 {
        match engine.execute(put(n)) {
            Ok(_) => acknowledged.push(n),
            Err(ExecuteError::Failed(error)) => {
                if !hear(&error) {
                    engine.execute(put(n)).unwrap();
                    acknowledged.push(n);
                }
            }
            Err(ExecuteError::Rejected(rejection)) => panic!("{rejection:?}"),
        }
        if n == 5
            && let Err(error) = engine.checkpoint()
            && !hear(&error)
        {
            engine.checkpoint().unwrap();
        }
    }
    if let Err(error) = engine.close() {
        hear(&error);
    }
    (acknowledged, refused)
}

#[test]
fn memory_that_cannot_be_had_for_any_buffer_is_an_error_and_loses_nothing() {
    let mut refusals = 0;
    for nth in 0.. {
        let disk = SimDisk::new(1);
        failing::at(nth);
        let (acknowledged, refused) = work(&disk);
        if !failing::stop() {
            assert!(nth > 10 && refusals > 10, "{nth} {refusals}");
            return;
        }
        refusals += refused;
        let engine = open(&disk.crash(Crash::Nothing)).unwrap();
        for n in acknowledged {
            assert_eq!(
                engine.read(|kv| kv.get("", [n]).map(<[u8]>::to_vec)).unwrap(),
                Some(vec![n; 3000]),
                "{nth}, {n}"
            );
        }
    }
}
