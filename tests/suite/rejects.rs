//! Logs with a command that the machine rejects in replay: that is damage, reported with its LSN.

use crate::common::{Cmd, Empty, Stacks, files, manual, open_on};
use crate::like_stacks::as_the_stacks;
use seawal::machine::StateMachine;
use seawal::sim::SimDisk;
use seawal::{Background, Durability, Error, Options, RecoveryPolicy};

/// The stacks, except that they reject one command that was accepted before.
#[derive(Clone, Default)]
struct Picky(Stacks);

impl StateMachine for Picky {
    const NAME: &'static str = "stacks";
    const VERSION: u32 = 3;
    as_the_stacks!(commands decode save load);
    fn apply(&mut self, command: &Cmd) -> Result<(u32, Cmd), Empty> {
        if matches!(command, Cmd::Push { value: 4, .. }) { Err(Empty(0)) } else { self.0.apply(command) }
    }
}

/// A disk with a killed store of `commands` commands.
fn killed(options: &Options, commands: u32, pad: u16) -> SimDisk {
    let disk = SimDisk::new(1);
    let (engine, _) = open_on::<Stacks>(&disk, options).unwrap();
    for value in 0..commands {
        engine.execute_with(Cmd::Push { key: 1, value, pad }, Durability::Os).unwrap();
    }
    engine.sync().unwrap();
    drop(engine);
    disk
}

#[test]
fn a_command_that_rejects_in_replay_is_corruption_with_its_lsn() {
    let disk = killed(&manual(), 10, 0);
    let before = files(&disk);
    let error = open_on::<Picky>(&disk, &manual()).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Corrupt { lsn: Some(_), .. }), "{error:?}");
    assert_eq!(files(&disk), before);
}

#[test]
fn a_replay_that_fails_ends_the_reading_ahead_of_it() {
    // several times as much as is replayed at once, and no checkpoint
    let disk = killed(&Options::new().checkpoint_log_bytes(256 << 20), 900, u16::MAX);
    let read_only = |background| Options::new().background(background).recovery(RecoveryPolicy::ReadOnly);
    let before = disk.op_count();
    drop(open_on::<Stacks>(&disk, &read_only(Background::Threads)).unwrap());
    let all = disk.op_count() - before;
    for background in [Background::Manual, Background::Threads] {
        let before = disk.op_count();
        let error = open_on::<Picky>(&disk, &read_only(background)).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::Corrupt { lsn: Some(_), .. }), "{error:?}");
        let some = disk.op_count() - before;
        assert!(some < all, "{background:?}: {some} operations, and {all} for all of it");
    }
}
