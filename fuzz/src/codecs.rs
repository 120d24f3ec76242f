//! The targets that need no disk: frames, records with their commands, and headers.

use crate::directory::Flags;
use seawal::fuzzing;
use seawal::kv::{Kv, KvCommand};
use seawal::machine::{BulkMachine, StateMachine};

/// A frame, its records, and the commands in them.
pub fn frame(data: &[u8]) {
    let Some((flags, bytes)) = Flags::split(data) else { return };
    for command in fuzzing::frame(bytes.to_vec(), flags.block_bytes(), flags.repairs_checksums()) {
        check_command(&command);
    }
}

/// A record and its command: eight bytes of LSN, then the record.
pub fn record(data: &[u8]) {
    let Some((lsn, bytes)) = data.split_first_chunk() else { return };
    if let Some(command) = fuzzing::record(u64::from_le_bytes(*lsn), bytes) {
        check_command(&command);
    }
}

/// A manifest copy. The same bytes are also read as every other header.
pub fn manifest(data: &[u8]) {
    if let Some((flags, bytes)) = Flags::split(data) {
        fuzzing::headers(bytes.to_vec(), flags.block_bytes(), flags.repairs_checksums());
    }
}

fn check_command(bytes: &[u8]) {
    let decoded: Result<KvCommand, _> = Kv::decode(bytes, Kv::VERSION);
    let mut one_by_one = Kv::default();
    let mut at_once = Kv::default();
    let redone = at_once.redo(&[bytes], Kv::VERSION);
    at_once.finish_redo();
    let Ok(command) = decoded else {
        // a command that is rejected early is not read to its end, and is damage all the same
        assert!(redone.is_err(), "redoing accepts what decoding does not");
        return;
    };
    let mut again = Vec::new();
    Kv::encode(&command, &mut again);
    assert_eq!(again, bytes, "a command has one encoding");
    assert_eq!(Kv::encoded_len(&command), bytes.len());
    let _ = Kv::footprint(&command);
    let applied = one_by_one.apply(&command);
    assert_eq!(applied.is_ok(), redone.is_ok(), "redoing accepts what applying accepts");
    if let Ok((_, inverse)) = applied {
        assert_eq!(saved(&one_by_one), saved(&at_once), "redoing does what applying does");
        assert!(one_by_one.apply(&inverse).is_ok(), "an inverse never rejects");
    }
    assert_eq!(
        saved(&one_by_one),
        saved(&Kv::default()),
        "an inverse restores the state, and a rejection changes nothing"
    );
}

/// The encoded state of a machine.
pub(crate) fn saved(kv: &Kv) -> Vec<u8> {
    let mut bytes = Vec::new();
    kv.save(&mut bytes).unwrap();
    bytes
}
