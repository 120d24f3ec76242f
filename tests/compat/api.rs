//! The calls that open, check and read a store, kept in one place so that a renamed function is a
//! change here alone.

use crate::pack::Files;
use seawal::ids::Lsn;
use seawal::inspect::VerifyReport;
use seawal::sim::SimDisk;
use seawal::wal::{Log, LogOptions, LogReport};
use seawal::{Background, Engine, Options, RecoveryPolicy, RecoveryReport, Result, StateMachine};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The smallest segments, and no background threads: the disk then sees the same operations each
/// time.
pub(crate) fn options() -> Options {
    Options::new()
        .background(Background::Manual)
        .lock_timeout(Duration::ZERO)
        .first_segment_bytes(16 << 10)
        .segment_bytes(16 << 10)
        .max_log_bytes(8 << 20)
}

pub(crate) fn log_options(name: &str, version: u32) -> LogOptions {
    let mut options = LogOptions::default();
    options.name = name.into();
    options.version = version;
    options.background = Background::Manual;
    options.first_segment_bytes = 16 << 10;
    options.segment_bytes = 16 << 10;
    options
}

pub(crate) fn open<M: StateMachine>(disk: &SimDisk, options: &Options) -> Result<(Engine<M>, RecoveryReport)> {
    with_report(options.open_on::<M>(Arc::new(disk.clone()))?)
}

fn with_report<M: StateMachine>(engine: Engine<M>) -> Result<(Engine<M>, RecoveryReport)> {
    let report = engine.recovery_report().clone();
    Ok((engine, report))
}

pub(crate) fn open_read_only<M: StateMachine>(disk: &SimDisk) -> Result<(Engine<M>, RecoveryReport)> {
    open(disk, &options().recovery(RecoveryPolicy::ReadOnly))
}

/// Opens a directory of the real file system, with background threads and the default sizes.
pub(crate) fn open_directory<M: StateMachine>(dir: &Path) -> Result<(Engine<M>, RecoveryReport)> {
    with_report(Options::new().open::<M>(dir)?)
}

pub(crate) fn state<M: StateMachine>(engine: &Engine<M>) -> M {
    engine.read(M::clone).unwrap()
}

pub(crate) fn open_log(disk: &SimDisk, options: LogOptions) -> Result<(Log, LogReport)> {
    let log = Log::open_on(Arc::new(disk.clone()), options)?;
    let report = log.recovery_report().clone();
    Ok((log, report))
}

/// The options of the stores that hold a log without an engine.
pub(crate) fn journal_options() -> LogOptions {
    log_options("journal", 5)
}

/// The records of a log from its start on, with their LSNs.
pub(crate) fn records(log: &Log) -> Vec<(u64, Vec<u8>)> {
    log.read_from(Lsn::ZERO).unwrap().map(|record| record.map(|(lsn, bytes)| (lsn.get(), bytes)).unwrap()).collect()
}

pub(crate) fn verify(disk: &SimDisk) -> Result<VerifyReport> {
    seawal::inspect::verify(Arc::new(disk.clone()))
}

pub(crate) fn verify_machine<M: StateMachine>(disk: &SimDisk) -> Result<VerifyReport> {
    seawal::inspect::verify_machine::<M>(Arc::new(disk.clone()))
}

/// A disk that holds these files and nothing else.
pub(crate) fn disk_of(files: &Files) -> SimDisk {
    let disk = SimDisk::builder().seed(9).block_bytes(512).build();
    files.iter().for_each(|(name, bytes)| disk.write_file(name, bytes));
    disk
}

/// All files but `LOCK`, whose text names a process.
pub(crate) fn files(disk: &SimDisk) -> Files {
    let names = disk.file_names().into_iter().filter(|name| name != "LOCK");
    names.map(|name| (name.clone(), disk.read_file(&name).unwrap())).collect()
}
