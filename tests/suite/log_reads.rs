//! Reading a log by LSN: one record, ranges, beside appends and truncation, and after crashes.

use crate::common::crash_choice;
use proptest::prelude::*;
use seawal::sim::{Crash, Fault, OpKind, Persistence, Rng, SimDisk};
use seawal::wal::{Background, Level, Log, LogOptions, LogStep};
use seawal::{Durability, Error, Lsn};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn options() -> LogOptions {
    Log::options().background(Background::Manual).first_segment_bytes(32 << 10).segment_bytes(64 << 10)
}

fn open(disk: &SimDisk) -> seawal::Result<Log> {
    options().open_on(Arc::new(disk.clone()))
}

/// A record that tells its number and has a length of its own.
fn record(n: u32) -> Vec<u8> {
    let mut record = n.to_le_bytes().to_vec();
    record.resize(4 + (n as usize * 977) % 9000, n as u8);
    record
}

fn read_all(log: &Log, level: Level) -> Vec<(Lsn, Vec<u8>)> {
    log.read(.., level).unwrap().map(Result::unwrap).collect()
}

#[test]
fn a_record_is_read_by_its_lsn_with_one_read_of_the_device() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    let mut lsns = Vec::new();
    for n in (0..60).step_by(3) {
        // groups of three and single ones, which the frames differ in
        let (group, ticket) = log.append_group((n..n + 2).map(record)).unwrap();
        lsns.extend(group);
        ticket.wait().unwrap();
        let ticket = log.append(&record(n + 2)).unwrap();
        lsns.push(ticket.lsn());
        ticket.wait().unwrap();
    }
    let check = |log: &Log, disk: &SimDisk| {
        // the files are opened first
        lsns.iter().for_each(|lsn| assert!(log.read_at(*lsn, Level::Durable).unwrap().is_some()));
        disk.enable_trace();
        for (n, lsn) in lsns.iter().enumerate() {
            let before = disk.trace().len();
            assert_eq!(log.read_at(*lsn, Level::Durable).unwrap(), Some(record(n as u32)), "{n}");
            let did = disk.trace()[before..].to_vec();
            let reads = did.iter().filter(|line| line.contains(" ReadDeviceAt ")).count();
            assert!(reads == 1 && did.len() <= 2, "{did:?}");
        }
        for (at, lsn) in lsns.iter().enumerate() {
            let read: Vec<_> = log.read(*lsn..lsns[lsns.len() - 1], Level::Durable).unwrap().collect();
            let wanted = lsns.iter().enumerate().take(lsns.len() - 1).skip(at);
            let read: Vec<_> = read.into_iter().map(Result::unwrap).collect();
            assert_eq!(read, wanted.map(|(n, lsn)| (*lsn, record(n as u32))).collect::<Vec<_>>());
        }
        assert_eq!(read_all(log, Level::Durable).len(), lsns.len());
    };
    check(&log, &disk);
    log.close().unwrap();
    assert!(matches!(log.read_at(lsns[0], Level::Durable), Err(Error::Closed)));
    assert!(matches!(log.read(.., Level::Durable).map(drop), Err(Error::Closed)));
    check(&open(&disk).unwrap(), &disk);
}

#[test]
fn an_lsn_without_a_record_is_never_damage_and_never_garbage() {
    let disk = SimDisk::new(2);
    let log = open(&disk).unwrap();
    let mut records = BTreeMap::new();
    for n in 0..40 {
        let ticket = log.append(&record(n)).unwrap();
        records.insert(ticket.lsn(), record(n));
        ticket.wait().unwrap();
    }
    let check = |log: &Log, end: u64| {
        for lsn in (0..end).step_by(32).chain(records.keys().map(|lsn| lsn.get() + 1)) {
            let lsn = Lsn::new(lsn);
            match (log.read_at(lsn, Level::Durable), records.get(&lsn)) {
                (Ok(Some(found)), Some(wanted)) => assert_eq!(found, *wanted),
                (Err(Error::NotARecord { lsn: told }), None) => assert!(told == lsn && lsn >= log.first_lsn()),
                (Err(Error::Truncated { lsn: told, start }), _) => {
                    assert!(told == lsn && start == log.first_lsn() && lsn < start);
                }
                other => panic!("{lsn}: {other:?}"),
            }
        }
        for lsn in [log.end_lsn(), Lsn::new(log.end_lsn().get() + (1 << 40)), Lsn::new(u64::MAX)] {
            for level in [Level::Durable, Level::Written] {
                assert_eq!(log.read_at(lsn, level).unwrap(), None, "{lsn}");
                assert_eq!(log.read(lsn.., level).unwrap().count(), 0);
            }
        }
    };
    let end = log.durable_lsn().get();
    check(&log, end);
    let cut = *records.keys().nth(25).unwrap();
    log.truncate_before(cut).unwrap();
    assert!(log.first_lsn() > Lsn::new(4096) && log.first_lsn() <= cut);
    check(&log, end);
    let error = log.read(Lsn::new(4096).., Level::Durable).map(drop).unwrap_err();
    assert!(matches!(error, Error::Truncated { .. }), "{error}");
    // without a lower bound, what is left is read
    assert_eq!(read_all(&log, Level::Durable).len(), records.range(log.first_lsn()..).count());
    let first = log.first_lsn();
    drop(log);
    let log = open(&disk.crash(Crash::Nothing)).unwrap();
    assert_eq!(log.first_lsn(), first);
    check(&log, end);
}

#[test]
fn what_was_appended_is_read_before_it_is_durable_and_survives_a_kill_then() {
    let disk = SimDisk::new(3);
    let log = open(&disk).unwrap();
    let mut lsns = Vec::new();
    for n in 0..12 {
        let durability = [Durability::Sync, Durability::Os][n as usize % 2];
        lsns.push(log.append_with(&record(n), durability).unwrap().lsn());
    }
    let durable = log.durable_lsn();
    assert!(lsns.iter().all(|lsn| log.read_at(*lsn, Level::Durable).unwrap().is_none()));
    assert_eq!(read_all(&log, Level::Durable), []);
    assert_eq!(log.durable_lsn(), durable, "no read waits for the device");
    for (n, lsn) in lsns.iter().enumerate() {
        assert_eq!(log.read_at(*lsn, Level::Written).unwrap(), Some(record(n as u32)));
    }
    // and so does a range, across what is durable, what is written and what is in memory
    let ticket = log.append_with(&record(12), Durability::Os).unwrap();
    ticket.wait().unwrap();
    lsns.push(ticket.lsn());
    lsns.push(log.append_with(&record(13), Durability::Os).unwrap().lsn());
    let wanted: Vec<_> = lsns.iter().enumerate().map(|(n, lsn)| (*lsn, record(n as u32))).collect();
    assert_eq!(read_all(&log, Level::Written), wanted);
    std::mem::forget(log);
    let log = open(&disk.crash(Crash::KillOnly)).unwrap();
    assert_eq!(read_all(&log, Level::Durable), wanted);
}

/// A log that latched has lost nothing durable, and tells what it could not write.
#[test]
fn a_latched_log_still_reads_what_is_durable() {
    let disk = SimDisk::new(4);
    let log = open(&disk).unwrap();
    let one = log.append(&record(1)).unwrap();
    one.wait().unwrap();
    let two = log.append(&record(2)).unwrap();
    disk.fail_next(OpKind::WriteDurableAt, Fault::Eio, Persistence::ForEver);
    assert!(log.read_at(two.lsn(), Level::Written).unwrap_err().is_latched());
    assert_eq!(log.read_at(two.lsn(), Level::Durable).unwrap(), None);
    assert_eq!(log.read_at(one.lsn(), Level::Durable).unwrap(), Some(record(1)));
}

#[test]
fn a_damaged_record_is_told_and_not_served() {
    let disk = SimDisk::new(5);
    let log = open(&disk).unwrap();
    let tickets: Vec<_> = (1..4)
        .map(|n| {
            let ticket = log.append(&record(n)).unwrap();
            ticket.wait().unwrap();
            ticket
        })
        .collect();
    let segment = disk.file_names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    // the LSN is the offset in the first segment
    disk.flip_bit(&segment, tickets[1].lsn().get() + 10, 3).unwrap();
    let error = log.read_at(tickets[1].lsn(), Level::Durable).unwrap_err();
    assert!(error.is_corrupt() && error.to_string().contains(&segment), "{error}");
    assert_eq!(log.read_at(tickets[2].lsn(), Level::Durable).unwrap(), Some(record(3)));
    let read: Vec<_> = log.read(.., Level::Durable).unwrap().collect();
    assert!(read.last().unwrap().as_ref().is_err_and(Error::is_corrupt), "{read:?}");
}

/// Groups of one to six records, in between single ones; the group's records tell its number.
fn run_groups(disk: &SimDisk, acknowledged: &mut u32) -> seawal::Result<()> {
    let log = open(disk)?;
    for n in 0..18u32 {
        let len = |k: u32| 9 + (n * 1777 + k * 3001) as usize % 6000;
        let records = (0..1 + n % 6).map(|k| [&n.to_le_bytes()[..], &vec![k as u8; len(k)]].concat());
        let durability = [Durability::Sync, Durability::Os][usize::from(n % 4 == 3)];
        let (lsns, ticket) = log.append_group_with(records, durability)?;
        if n % 3 == 1 {
            log.read_at(lsns[0], Level::Written)?;
        }
        ticket.wait()?;
        if durability == Durability::Sync {
            *acknowledged = n + 1;
        }
        if n % 5 == 4 {
            log.truncate_before(lsns[0])?;
        }
        log.step(LogStep::ALL[n as usize % 4])?;
    }
    Ok(())
}

#[test]
fn a_group_is_there_as_a_whole_or_not_at_all_after_a_crash_at_any_operation() {
    let whole = SimDisk::new(6);
    run_groups(&whole, &mut 0).unwrap();
    let operations = whole.op_count();
    assert!(operations > 60, "{operations}");
    let mut cut = 0;
    for op in 0..operations {
        for seed in 0..6 {
            let disk = SimDisk::new(6);
            disk.fail_at(op, Fault::Crash, Persistence::ForEver);
            let mut acknowledged = 0;
            let _ = run_groups(&disk, &mut acknowledged);
            let log = open(&disk.crash(crash_choice(op, seed))).unwrap_or_else(|e| panic!("op {op}, {seed}: {e}"));
            let mut groups = BTreeMap::new();
            for (lsn, bytes) in read_all(&log, Level::Durable) {
                assert_eq!(log.read_at(lsn, Level::Durable).unwrap().as_ref(), Some(&bytes));
                let n = u32::from_le_bytes(bytes[..4].try_into().unwrap());
                groups.entry(n).or_insert_with(Vec::new).push(bytes[4]);
            }
            for (n, found) in &groups {
                assert_eq!(*found, (0..1 + n % 6).map(|k| k as u8).collect::<Vec<_>>(), "op {op}, {seed}, group {n}");
            }
            // what is left is a run of groups, up to the last acknowledged one at least
            let numbers: Vec<u32> = groups.keys().copied().collect();
            assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "op {op}, {seed}: {numbers:?}");
            assert!(numbers.last().map_or(0, |n| n + 1) >= acknowledged, "op {op}, {seed}: {numbers:?}");
            cut += usize::from(numbers.first().is_some_and(|n| *n > 0));
            // it goes on
            let ticket = log.append(b"more").unwrap();
            ticket.wait().unwrap();
            assert_eq!(log.read_at(ticket.lsn(), Level::Durable).unwrap().as_deref(), Some(&b"more"[..]));
        }
    }
    assert!(cut > 0, "no crash came after a truncation");
}

#[test]
fn a_group_that_does_not_fit_a_segment_is_refused_and_an_empty_one_is_nothing() {
    let log = open(&SimDisk::new(7)).unwrap();
    let error = log.append_group(vec![vec![1; 10_000]; 7]).map(drop).unwrap_err();
    let Error::TooLarge { size, limit, .. } = error else { panic!("{error}") };
    assert!(size == 70_000 && limit < 64 << 10, "{limit}");
    let (lsns, ticket) = log.append_group(vec![vec![1; 8_000]; 7]).unwrap();
    ticket.wait().unwrap();
    assert_eq!(lsns.len(), 7);
    let (none, ticket) = log.append_group::<&[u8]>([]).unwrap();
    ticket.wait().unwrap();
    assert_eq!((none.len(), log.stats().records), (0, 7));
    // one write for the group, and small ones are many in one
    assert_eq!(log.stats().frames, 1);
    let (lsns, ticket) = log.append_group((0..5000u16).map(u16::to_le_bytes)).unwrap();
    ticket.wait().unwrap();
    assert_eq!((log.stats().frames, log.read_at(lsns[4999], Level::Durable).unwrap()), (2, Some(vec![135, 19])));
}

#[test]
fn durability_is_chosen_for_each_append() {
    let disk = SimDisk::new(8);
    let log = options().durability(Durability::Os).open_on(Arc::new(disk.clone())).unwrap();
    log.append(b"os").unwrap().wait().unwrap();
    assert!(read_all(&log, Level::Durable).is_empty());
    log.append_with(b"interval", Durability::Interval(std::time::Duration::ZERO)).unwrap().wait().unwrap();
    assert!(read_all(&log, Level::Durable).is_empty());
    assert!(log.step(LogStep::SyncDue).unwrap());
    assert_eq!(read_all(&log, Level::Durable).len(), 2);
    log.append_with(b"os", Durability::Os).unwrap().wait().unwrap();
    log.append_with(b"sync", Durability::Sync).unwrap().wait().unwrap();
    log.append(b"lost").unwrap().wait().unwrap();
    std::mem::forget(log);
    let log = open(&disk.crash(Crash::Nothing)).unwrap();
    let found: Vec<_> = read_all(&log, Level::Durable).into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(found, [&b"os"[..], b"interval", b"os", b"sync"]);
}

#[test]
fn a_log_of_limited_size_is_full_until_it_is_truncated() {
    let disk = SimDisk::new(9);
    let log = options().max_log_bytes(200 << 10).open_on(Arc::new(disk.clone())).unwrap();
    let fill = || {
        let mut last = log.end_lsn();
        loop {
            match log.append(&[7; 5000]) {
                Ok(ticket) => {
                    ticket.wait().unwrap();
                    last = ticket.lsn();
                }
                Err(error) => {
                    assert!(error.is_full() && error.to_string().contains("max_log_bytes"), "{error}");
                    return last;
                }
            }
        }
    };
    for _ in 0..5 {
        let last = fill();
        let span = log.end_lsn().since(log.first_lsn());
        assert!((190 << 10..=200 << 10).contains(&span), "{span}");
        assert!(log.stats().segment_bytes <= (200 + 64 + 64) << 10, "{}", log.stats().segment_bytes);
        assert!(log.append_group([[0; 5000], [0; 5000]]).is_err_and(|error| error.is_full()));
        log.truncate_before(last).unwrap();
    }
}

#[test]
fn a_newer_version_reads_the_older_records_and_keeps_the_older_program_out() {
    let disk = SimDisk::new(10);
    let version = |disk: &SimDisk, version: u32, oldest: u32| {
        options().version(version).oldest_version(oldest).open_on(Arc::new(disk.clone()))
    };
    let first = {
        let log = version(&disk, 1, 1).unwrap();
        let ticket = log.append(b"v1").unwrap();
        ticket.wait().unwrap();
        log.close().unwrap();
        ticket.lsn()
    };
    // no upgrade without a rule
    let error = options().version(2).open_on(Arc::new(disk.clone())).map(drop).unwrap_err();
    assert!(matches!(error, Error::UnsupportedVersion { found: 1, supported: 2, .. }), "{error}");
    let second = {
        let log = version(&disk, 2, 1).unwrap();
        assert_eq!(log.recovery_report().version, 1);
        let ticket = log.append(b"v2").unwrap();
        assert_eq!((log.version_at(first), log.version_at(ticket.lsn())), (Some(1), Some(2)));
        ticket.wait().unwrap();
        ticket.lsn()
    };
    for kept in 0..2 {
        let disk = disk.crash(Crash::Nothing);
        // the segments tell it, too
        for name in ["MANIFEST-0", "MANIFEST-1"].iter().take(2 * kept) {
            disk.remove_file(name).unwrap();
        }
        let error = version(&disk, 1, 1).map(drop).unwrap_err();
        assert!(matches!(error, Error::UnsupportedVersion { found: 2, supported: 1, .. }), "{error}");
        // a program that has forgotten the first version cannot read its records
        let error = version(&disk, 3, 2).map(drop).unwrap_err();
        assert!(matches!(error, Error::UnsupportedVersion { found: 1, supported: 3, .. }), "{error}");
        let error = options().name("other").open_on(Arc::new(disk.clone())).map(drop).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("\"log\"") && text.contains("\"other\""), "{text}");
        let log = version(&disk, 3, 1).unwrap();
        assert_eq!((log.version_at(first), log.version_at(second)), (Some(1), Some(2)));
        assert_eq!((log.version_at(log.end_lsn()), log.version_at(Lsn::ZERO)), (None, None));
    }
}

#[test]
fn the_report_says_how_the_log_was_found() {
    let disk = SimDisk::new(11);
    let log = open(&disk).unwrap();
    assert!(log.recovery_report().created && log.recovery_report().to_string().starts_with("new; 0 records"));
    let (_, ticket) = log.append_group(["one", "two"]).unwrap();
    ticket.wait().unwrap();
    log.append(b"three").unwrap().wait().unwrap();
    drop(log);
    let log = open(&disk).unwrap();
    let report = log.recovery_report();
    assert!(!report.created && !report.closed && report.tail.is_none(), "{report}");
    assert!(report.records == 3 && report.to_string().starts_with("interrupted; 3 records in"), "{report}");
    log.close().unwrap();
    let log = open(&disk).unwrap();
    assert!(log.recovery_report().closed && log.recovery_report().to_string().starts_with("clean; 3 records in"));
    let ticket = log.append(&record(8)).unwrap();
    disk.fail_next(OpKind::WriteDurableAt, Fault::Crash, Persistence::ForEver);
    assert!(ticket.wait().is_err());
    let torn = (0..20).any(|seed| {
        let log = open(&disk.crash(Crash::Seeded(seed))).unwrap();
        log.recovery_report().tail.is_some() && log.recovery_report().to_string().starts_with("torn tail; 3 records")
    });
    assert!(torn);
}

#[test]
fn handles_are_clones_and_the_last_one_unlocks_the_directory() {
    let disk = SimDisk::new(12);
    let log = open(&disk).unwrap();
    let other = log.clone();
    let ticket = other.append(b"one").unwrap();
    drop(log);
    ticket.wait().unwrap();
    assert!(open(&disk).map(drop).unwrap_err().is_locked());
    let reading = other.read(.., Level::Durable).unwrap();
    drop(other);
    let log = open(&disk).unwrap();
    // a reader does not keep the log open, and does not read what another owner may change
    assert!(matches!(reading.last(), Some(Err(Error::Closed)) | Some(Ok(_))));
    assert_eq!(read_all(&log, Level::Durable).len(), 1);
}

#[test]
fn reads_work_beside_appends_and_truncation_from_any_thread() {
    let disk = SimDisk::new(13);
    let log = options().background(Background::Threads).open_on(Arc::new(disk)).unwrap();
    let (last, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
    std::thread::scope(|scope| {
        let writer = {
            let (log, last, done) = (log.clone(), last.clone(), done.clone());
            scope.spawn(move || {
                for n in 0..1500u32 {
                    let durability = [Durability::Sync, Durability::Os][n as usize % 2];
                    let ticket = log.append_with(&record(n), durability).unwrap();
                    last.store(ticket.lsn().get(), Ordering::Release);
                    if n % 7 == 0 {
                        ticket.wait().unwrap();
                    }
                    if n % 50 == 49 {
                        log.truncate_before(log.durable_lsn()).unwrap();
                    }
                }
                done.store(true, Ordering::Release);
            })
        };
        for thread in 0..3u64 {
            let (log, last, done) = (log.clone(), last.clone(), done.clone());
            scope.spawn(move || {
                let mut rng = Rng::new(thread);
                while !done.load(Ordering::Acquire) {
                    let lsn = Lsn::new(last.load(Ordering::Acquire));
                    let level = [Level::Durable, Level::Written][rng.below(2) as usize];
                    match log.read_at(lsn, level) {
                        Ok(Some(bytes)) => assert_eq!(bytes, record(number(&bytes))),
                        Ok(None) => assert!(level == Level::Durable || lsn == Lsn::ZERO, "{lsn}"),
                        Err(Error::Truncated { .. }) => {}
                        Err(error) => panic!("{lsn}: {error}"),
                    }
                    let mut before = None;
                    for read in log.read(.., level).unwrap().take(rng.below(200) as usize) {
                        let (lsn, bytes) = read.unwrap();
                        let n = number(&bytes);
                        assert_eq!(bytes, record(n));
                        assert!(before.is_none_or(|before| before + 1 == n), "{before:?} and {n} at {lsn}");
                        before = Some(n);
                    }
                }
            });
        }
        writer.join().unwrap();
    });
    log.close().unwrap();
}

#[derive(Clone, Debug)]
enum Op {
    Append(u16, Durability),
    Group(Vec<u16>, Durability),
    Wait,
    ReadAt(prop::sample::Index, bool),
    ReadNear(prop::sample::Index, u8, bool),
    Range(prop::sample::Index, prop::sample::Index, bool),
    Truncate(prop::sample::Index),
    Step(u8),
    Reopen(bool),
    Crash(u64, bool),
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![
        3 => Just(Durability::Sync),
        2 => Just(Durability::Os),
        1 => Just(Durability::Interval(std::time::Duration::from_millis(5))),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let index = || any::<prop::sample::Index>();
    prop_oneof![
        6 => (0..7000u16, durability()).prop_map(|(len, durability)| Op::Append(len, durability)),
        3 => (prop::collection::vec(0..3000u16, 0..6), durability()).prop_map(|(lens, d)| Op::Group(lens, d)),
        3 => Just(Op::Wait),
        4 => (index(), any::<bool>()).prop_map(|(at, written)| Op::ReadAt(at, written)),
        2 => (index(), any::<u8>(), any::<bool>()).prop_map(|(at, by, written)| Op::ReadNear(at, by, written)),
        2 => (index(), index(), any::<bool>()).prop_map(|(a, b, written)| Op::Range(a, b, written)),
        2 => index().prop_map(Op::Truncate),
        2 => (0..4u8).prop_map(Op::Step),
        1 => any::<bool>().prop_map(Op::Reopen),
        1 => (any::<u64>(), any::<bool>()).prop_map(|(seed, kill)| Op::Crash(seed, kill)),
    ]
}

/// The records that were appended, in order, and how many of them must survive.
#[derive(Default)]
struct Model {
    records: Vec<(Lsn, Vec<u8>)>,
    next: u32,
    /// The number of records that survive power loss, and a kill.
    durable: usize,
    written: usize,
}

impl Model {
    fn make(&mut self, len: u16) -> Vec<u8> {
        self.next += 1;
        [&self.next.to_le_bytes()[..], &vec![self.next as u8; usize::from(len)]].concat()
    }

    fn lsn(&self, at: prop::sample::Index) -> Option<Lsn> {
        (!self.records.is_empty()).then(|| self.records[at.index(self.records.len())].0)
    }

    fn wanted(&self, lsn: Lsn) -> Option<Vec<u8>> {
        self.records.binary_search_by_key(&lsn, |(lsn, _)| *lsn).ok().map(|at| self.records[at].1.clone())
    }

    /// After a crash, a prefix is left that holds at least `least` records.
    fn check_recovered(&mut self, log: &Log, least: usize) {
        let found = read_all(log, Level::Durable);
        let first = self.records.partition_point(|(lsn, _)| *lsn < log.first_lsn());
        let end = first + found.len();
        assert!(found.is_empty() || end <= self.records.len(), "more records than were appended");
        assert!(end >= least.min(self.records.len()), "{end} records are left of {least}");
        assert_eq!(found[..], self.records[first..end.min(self.records.len())]);
        self.records.truncate(end);
        (self.durable, self.written) = (end, end);
    }

    fn level(written: bool) -> Level {
        if written { Level::Written } else { Level::Durable }
    }
}

fn run_model(ops: Vec<Op>) {
    let mut disk = SimDisk::new(14);
    let mut log = open(&disk).unwrap();
    let mut model = Model::default();
    let mut tickets = Vec::new();
    for op in ops {
        match op {
            Op::Append(len, durability) => {
                let record = model.make(len);
                let ticket = log.append_with(&record, durability).unwrap();
                model.records.push((ticket.lsn(), record));
                tickets.push((ticket, model.records.len(), durability));
            }
            Op::Group(lens, durability) => {
                let records: Vec<_> = lens.iter().map(|len| model.make(*len)).collect();
                let (lsns, ticket) = log.append_group_with(&records, durability).unwrap();
                model.records.extend(lsns.into_iter().zip(records));
                tickets.push((ticket, model.records.len(), durability));
            }
            Op::Wait => {
                for (ticket, count, durability) in tickets.drain(..) {
                    ticket.wait().unwrap();
                    model.written = model.written.max(count);
                    if durability == Durability::Sync {
                        model.durable = model.durable.max(count);
                    }
                }
            }
            Op::ReadAt(at, written) => {
                let Some(lsn) = model.lsn(at) else { continue };
                match log.read_at(lsn, Model::level(written)) {
                    Ok(Some(found)) => assert_eq!(Some(found), model.wanted(lsn)),
                    Ok(None) => assert!(!written && lsn >= log.durable_lsn()),
                    Err(Error::Truncated { .. }) => assert!(lsn < log.first_lsn()),
                    Err(error) => panic!("{lsn}: {error}"),
                }
                if written && lsn >= log.first_lsn() {
                    let at = model.records.partition_point(|(other, _)| *other <= lsn);
                    model.written = model.written.max(at);
                }
            }
            Op::ReadNear(at, by, written) => {
                let Some(lsn) = model.lsn(at).map(|lsn| lsn.plus(u64::from(by))) else { continue };
                // the read may end a frame, whose padding then counts
                let end = log.end_lsn();
                match log.read_at(lsn, Model::level(written)) {
                    Ok(Some(found)) => assert_eq!(Some(found), model.wanted(lsn)),
                    Ok(None) => assert!(lsn >= end || !written),
                    Err(Error::NotARecord { .. }) => assert_eq!(model.wanted(lsn), None),
                    Err(Error::Truncated { .. }) => assert!(lsn < log.first_lsn()),
                    Err(error) => panic!("{lsn}: {error}"),
                }
            }
            Op::Range(a, b, written) => {
                let (Some(a), Some(b)) = (model.lsn(a), model.lsn(b)) else { continue };
                let (from, to) = (a.min(b).max(log.first_lsn()), a.max(b));
                let found = log.read(from..to, Model::level(written)).unwrap();
                let found: Vec<_> = found.map(Result::unwrap).collect();
                let upto = if written { to } else { to.min(log.durable_lsn()) };
                let wanted = model.records.iter().filter(|(lsn, _)| *lsn >= from && *lsn < upto);
                assert_eq!(found, wanted.cloned().collect::<Vec<_>>());
            }
            Op::Truncate(at) => {
                let Some(lsn) = model.lsn(at) else { continue };
                log.truncate_before(lsn).unwrap();
                assert!(log.first_lsn() <= lsn.max(log.durable_lsn()));
            }
            Op::Step(step) => drop(log.step(LogStep::ALL[usize::from(step)]).unwrap()),
            Op::Reopen(close) => {
                tickets.clear();
                if close {
                    log.close().unwrap();
                    model.durable = model.records.len();
                }
                drop(log);
                log = open(&disk).unwrap();
                let least = model.written.max(model.durable);
                model.check_recovered(&log, least);
            }
            Op::Crash(seed, kill) => {
                tickets.clear();
                std::mem::forget(log);
                disk = disk.crash(if kill { Crash::KillOnly } else { Crash::Seeded(seed) });
                log = open(&disk).unwrap();
                let least = if kill { model.written.max(model.durable) } else { model.durable };
                model.check_recovered(&log, least);
            }
        }
    }
    log.close().unwrap();
    let log = open(&disk).unwrap();
    let all = model.records.len();
    model.check_recovered(&log, all);
    assert!(log.recovery_report().closed);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150 * crate::common::scale() as u32,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_log_is_a_list_of_records_through_reopens_and_kills(ops in prop::collection::vec(op(), 1..60)) {
        run_model(ops);
    }
}
