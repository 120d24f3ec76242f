//! The log on its own, on the simulated disk: acknowledged records survive any crash.

use crate::common::crash_choice;
use seawal::Error;
use seawal::ids::Lsn;
use seawal::io::WritePath;
use seawal::sim::{Crash, Fault, OpKind, Persistence, SimDisk};
use seawal::wal::{Background, Log, LogOptions, LogStep, LogTicket};
use std::sync::Arc;

fn options() -> LogOptions {
    let mut options = LogOptions::default();
    options.background = Background::Manual;
    options.first_segment_bytes = 32 << 10;
    options.segment_bytes = 64 << 10;
    options
}

fn open(disk: &SimDisk) -> seawal::Result<Log> {
    Log::open_on(Arc::new(disk.clone()), options())
}

fn contents(log: &Log) -> Vec<Vec<u8>> {
    log.read_from(Lsn::ZERO).unwrap().map(|r| r.unwrap().1).collect()
}

/// Appends numbered records, some durable at once and some in groups, with background steps between
/// them. Returns how many were acknowledged.
fn run(disk: &SimDisk, from: u32, to: u32) -> u32 {
    let mut acknowledged = from;
    let Ok(log) = open(disk) else { return acknowledged };
    let mut tickets = Vec::new();
    for n in from..to {
        let mut record = n.to_le_bytes().to_vec();
        record.resize(4 + (n as usize * 977) % 9000, n as u8);
        let Ok(ticket) = log.append(&record) else { return acknowledged };
        tickets.push((n, ticket));
        if n % 3 == 0 {
            for (n, ticket) in tickets.drain(..) {
                if ticket.wait().is_err() {
                    return acknowledged;
                }
                acknowledged = n + 1;
            }
        }
        if n % 5 == 0 && log.step(LogStep::ALL[n as usize % 4]).is_err() {
            return acknowledged;
        }
    }
    acknowledged
}

fn check(log: &Log, at_least: u32, at_most: u32) {
    let found = contents(log);
    assert!(found.len() as u32 >= at_least, "{} records of {at_least} acknowledged", found.len());
    assert!(found.len() as u32 <= at_most);
    for (n, record) in found.iter().enumerate() {
        assert_eq!(record[..4], (n as u32).to_le_bytes());
        assert_eq!(record.len(), 4 + (n * 977) % 9000);
    }
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash_at_any_operation() {
    let whole = SimDisk::new(1);
    run(&whole, 0, 40);
    let operations = whole.op_count();
    assert!(operations > 60, "{operations}");
    for op in 0..operations {
        for seed in 0..6 {
            let disk = SimDisk::new(1);
            disk.fail_at(op, Fault::Crash, Persistence::ForEver);
            let acknowledged = run(&disk, 0, 40);
            let crash = crash_choice(op, seed);
            let disk = disk.crash(crash);
            let log = open(&disk).unwrap_or_else(|e| panic!("op {op}, crash {crash:?}: {e}"));
            check(&log, acknowledged, 40);
            // the log accepts more records, which survive another crash
            let before = contents(&log).len() as u32;
            drop(log);
            let after = run(&disk, before, before + 7);
            let disk = disk.crash(Crash::Seeded(seed));
            let log = open(&disk).unwrap_or_else(|e| panic!("second open, op {op}, crash {crash:?}: {e}"));
            check(&log, after, before + 7);
        }
    }
}

/// A kill leaves names that no sync of the directory has covered. Recovery relies on them, so it
/// must make them durable before it acknowledges anything.
#[test]
fn a_power_loss_during_the_recovery_from_a_kill_takes_nothing_acknowledged() {
    let whole = SimDisk::new(1);
    run(&whole, 0, 40);
    for op in 0..whole.op_count() {
        let disk = SimDisk::new(1);
        disk.fail_at(op, Fault::Crash, Persistence::ForEver);
        let acknowledged = run(&disk, 0, 40);
        let killed = disk.crash(Crash::KillOnly);
        let recovery = killed.crash(Crash::KillOnly);
        recovery.record_crash_points(..);
        let log = open(&recovery).unwrap_or_else(|e| panic!("op {op}: {e}"));
        for step in LogStep::ALL {
            log.step(step).unwrap();
        }
        log.close().unwrap();
        for point in recovery.take_crash_points() {
            let at = format!("op {op}, then {:?} at {}", point.kind(), point.op());
            let log = open(&point.crash(Crash::Nothing)).unwrap_or_else(|e| panic!("{at}: {e}"));
            check(&log, acknowledged, 40);
        }
    }
}

#[test]
fn a_failed_write_latches_and_nothing_acknowledged_is_lost() {
    let whole = SimDisk::new(1);
    run(&whole, 0, 40);
    for op in 0..whole.op_count() {
        for (fault, persistence) in [
            (Fault::Eio, Persistence::Once),
            (Fault::Eio, Persistence::ForEver),
            (Fault::NoSpace, Persistence::Once),
            (Fault::ShortWrite, Persistence::Once),
            (Fault::Interrupted, Persistence::Once),
        ] {
            let disk = SimDisk::new(1);
            disk.fail_at(op, fault, persistence);
            let acknowledged = run(&disk, 0, 40);
            let disk = disk.crash(Crash::Seeded(op));
            let log = open(&disk).unwrap_or_else(|e| panic!("op {op}, {fault:?}: {e}"));
            check(&log, acknowledged, 40);
        }
    }
}

#[test]
fn a_record_counts_as_durable_only_once_its_write_has_returned() {
    let disk = SimDisk::new(6);
    let log = open(&disk).unwrap();
    let ticket = log.append(b"record").unwrap();
    let before = log.durable_lsn();
    disk.fail_next(OpKind::WriteDurableAt, Fault::Eio, Persistence::Once);
    assert!(log.step(LogStep::Flush).is_err());
    assert_eq!(log.durable_lsn(), before);
    assert!(ticket.wait().is_err());
}

#[test]
fn truncation_gives_space_back_and_keeps_the_rest() {
    let disk = SimDisk::new(3);
    let log = open(&disk).unwrap();
    let mut lsns = Vec::new();
    for n in 0..200u32 {
        log.append(&[n as u8; 3000]).unwrap().wait().unwrap();
        lsns.push(log.durable_lsn());
    }
    let before = log.stats().segments;
    assert!(before > 5);
    log.truncate_before(lsns[150]).unwrap();
    assert!(log.stats().segments < before);
    let left = contents(&log);
    assert!(left.len() >= 49 && left.len() < 100, "{}", left.len());
    assert_eq!(left.last().unwrap()[0], 199);
    log.close().unwrap();
    let log = open(&disk).unwrap();
    assert_eq!(contents(&log), left);
    assert!(log.recovery_report().tail.is_none());
}

#[test]
fn truncation_is_not_held_up_by_segments_that_somebody_else_has_removed() {
    // deleted segments are reused up to the limit of preallocated ones, and removed beyond that
    for max_preallocated_segments in [Some(0), Some(8)] {
        let disk = SimDisk::new(4);
        let mut options = options();
        options.max_preallocated_segments = max_preallocated_segments;
        let log = Log::open_on(Arc::new(disk.clone()), options).unwrap();
        for n in 0..100u8 {
            log.append(&[n; 3000]).unwrap().wait().unwrap();
        }
        let segments = || disk.file_names().into_iter().filter(|name| name.ends_with(".seg")).collect::<Vec<_>>();
        let before = segments();
        assert!(before.len() > 5);
        let gone = before[..before.len() - 2].iter().step_by(2);
        gone.clone().for_each(|name| disk.remove_file(name).unwrap());
        log.truncate_before(log.durable_lsn()).unwrap();
        assert_eq!(segments(), before[before.len() - 1..], "{max_preallocated_segments:?} spares");
        let bytes = disk.read_file(&before[before.len() - 1]).unwrap().len() as u64;
        let stats = log.stats();
        assert_eq!((stats.segments, stats.segment_bytes), (1, bytes));
        // a segment that was removed is not reused
        assert!((0..100).all(|n| log.append(&[n; 3000]).unwrap().wait().is_ok()));
        log.close().unwrap();
        let log = open(&disk).unwrap();
        assert_eq!(contents(&log).last().unwrap()[..], [99; 3000]);
    }
}

#[test]
fn a_crash_at_any_operation_of_a_truncation_leaves_every_record_that_was_to_be_kept() {
    let disk = SimDisk::new(5);
    let log = open(&disk).unwrap();
    let mut lsns = Vec::new();
    for n in 0..100u8 {
        log.append(&[n; 3000]).unwrap().wait().unwrap();
        lsns.push(log.durable_lsn());
    }
    disk.record_crash_points(disk.op_count()..);
    log.truncate_before(lsns[80]).unwrap();
    let points = disk.take_crash_points();
    assert!(points.iter().any(|point| point.kind() == OpKind::Rename), "nothing was used again");
    for point in points {
        for crash in point.crash_choices(point.op()) {
            let at = format!("op {}, {:?}, crash {crash:?}", point.op(), point.kind());
            let log = open(&point.crash(crash)).unwrap_or_else(|e| panic!("{at}: {e}"));
            let found: Vec<u8> = contents(&log).iter().map(|record| record[0]).collect();
            assert!(found.len() >= 19, "{at}: {found:?}");
            assert_eq!(found, (100 - found.len() as u8..100).collect::<Vec<_>>(), "{at}");
        }
    }
}

#[test]
fn a_log_that_is_refused_is_left_as_it_is() {
    let disk = SimDisk::new(4);
    run(&disk, 0, 30);
    let disk = disk.crash(Crash::Nothing);
    let files = |disk: &SimDisk| -> Vec<_> {
        disk.file_names().into_iter().map(|name| (disk.read_file(&name).unwrap(), name)).collect()
    };
    let refused = |disk: &SimDisk, options: LogOptions| {
        let before = files(disk);
        let error = Log::open_on(Arc::new(disk.clone()), options).map(|_| ()).unwrap_err();
        assert_eq!(files(disk), before, "{error:?}");
        error
    };
    let manifests = ["MANIFEST-0", "MANIFEST-1"];
    for kept in 0..2 {
        let disk = disk.crash(Crash::Nothing);
        for name in &manifests[kept..] {
            disk.remove_file(name).unwrap();
        }
        // a store with another owner
        let mut others = options();
        others.name = "another".into();
        let error = refused(&disk, others);
        assert!(matches!(error, Error::OtherMachine { .. }), "{error:?}");
        let mut newer = options();
        newer.version += 1;
        let error = refused(&disk, newer);
        assert!(matches!(error, Error::UnsupportedVersion { .. }), "{error:?}");
        // damage in the middle of the log
        let rotten = disk.crash(Crash::Nothing);
        let segment = rotten.file_names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
        rotten.flip_bit(&segment, 4096 + 60, 0).unwrap();
        let error = refused(&rotten, options());
        assert!(error.is_corrupt(), "{error:?}");
        let log = open(&disk).unwrap();
        check(&log, 28, 30);
        drop(log);
        let log = open(&disk.crash(Crash::Nothing)).unwrap();
        check(&log, 28, 30);
    }
}

#[test]
fn one_seed_gives_one_trace_of_operations() {
    let trace = |seed| {
        let disk = SimDisk::new(seed);
        run(&disk, 0, 60);
        disk.trace_hash()
    };
    assert_eq!(trace(5), trace(5));
    assert_ne!(trace(5), trace(6));
}

#[test]
fn records_of_any_length_around_the_ends_of_blocks_and_segments_come_back() {
    // A block without the header, several blocks, and as much as a segment holds, each with a few
    // bytes more or less. Also empty records.
    let blocks = [4096, 2 * 4096, 3 * 4096, 7 * 4096, 15 * 4096u32];
    let around = blocks.into_iter().flat_map(|end| end - 120..end + 3);
    let lengths: Vec<u32> = [0, 1].into_iter().chain(around).collect();
    let mut too_large = 0;
    for chunk in lengths.chunks(12) {
        let disk = SimDisk::new(5);
        let log = open(&disk).unwrap();
        let mut kept = Vec::new();
        for &len in chunk {
            let record = vec![len as u8; len as usize];
            match log.append(&record) {
                Ok(ticket) => {
                    ticket.wait().unwrap();
                    kept.push(record);
                }
                Err(Error::TooLarge { size, limit, .. }) => {
                    assert!(size > limit && len > 14 * 4096, "{len}: {size} and {limit}");
                    too_large += 1;
                }
                Err(error) => panic!("{len}: {error:?}"),
            }
        }
        drop(log);
        let log = open(&disk.crash(Crash::Nothing)).unwrap();
        assert_eq!(contents(&log), kept, "{chunk:?}");
        log.append(b"more").unwrap().wait().unwrap();
    }
    assert!(too_large > 0 && too_large < 123, "{too_large}");
}

#[test]
fn the_stats_say_what_a_group_held() {
    let log = open(&SimDisk::new(5)).unwrap();
    for group in [1, 5, 2] {
        let tickets: Vec<_> = (0..group).map(|n: u8| log.append(&[n]).unwrap()).collect();
        tickets.into_iter().for_each(|ticket| ticket.wait().unwrap());
    }
    let groups = log.stats().batch_sizes;
    assert_eq!((groups.frames(), groups.records(), groups.most()), (3, 8, 5));
    assert_eq!(groups.by_size().collect::<Vec<_>>(), [(1, 1), (2, 1), (4, 1)]);
}

#[test]
fn the_stats_say_which_path_writes_take_and_count_what_takes_it() {
    for (path, direct) in [(WritePath::Direct, true), (WritePath::BufferedSync, false)] {
        let log = open(&SimDisk::builder().seed(5).write_path(path).build()).unwrap();
        let before = log.stats();
        (0..10u8).for_each(|n| log.append(&[n]).unwrap().wait().unwrap());
        let stats = log.stats();
        assert_eq!((before.write_path, stats.write_path), (Some(path), Some(path)));
        let written = (stats.direct_writes - before.direct_writes, stats.syncs - before.syncs);
        assert_eq!(written, if direct { (10, 0) } else { (0, 10) }, "{path:?}");
    }
}

#[test]
fn records_are_read_from_the_middle_of_a_group_and_only_up_to_what_was_durable() {
    let disk = SimDisk::new(6);
    let log = open(&disk).unwrap();
    let tickets: Vec<_> = (0..4u8).map(|n| log.append(&[n]).unwrap()).collect();
    tickets.into_iter().for_each(|ticket| ticket.wait().unwrap());
    assert_eq!(log.stats().batch_sizes.most(), 4, "all in one frame");
    let all: Vec<_> = log.read_from(Lsn::ZERO).unwrap().map(Result::unwrap).collect();
    for (at, (lsn, _)) in all.iter().enumerate() {
        let read: Vec<_> = log.read_from(*lsn).unwrap().map(Result::unwrap).collect();
        assert_eq!(read, all[at..]);
    }
    // a reader does not see later records, and returns nothing after its end
    let mut reading = log.read_from(Lsn::ZERO).unwrap();
    log.append(b"later").unwrap().wait().unwrap();
    assert_eq!(reading.by_ref().count(), 4);
    assert!(reading.next().is_none());
    // no record lies before the first one, and a second close has no effect
    log.truncate_before(Lsn::ZERO).unwrap();
    assert_eq!(contents(&log).len(), 5);
    log.close().unwrap();
    log.close().unwrap();
}

#[test]
fn a_name_that_no_header_can_hold_is_refused_and_nothing_is_written() {
    let disk = SimDisk::new(7);
    let mut options = options();
    options.name = "n".repeat(300);
    let error = Log::open_on(Arc::new(disk.clone()), options).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { .. }), "{error:?}");
    assert!(disk.file_names().iter().all(|name| name == "LOCK"), "{:?}", disk.file_names());
    open(&disk).unwrap();
}

#[test]
fn a_reader_under_which_durable_records_vanish_is_told() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap();
    for n in 0..6u32 {
        log.append(&n.to_le_bytes()).unwrap().wait().unwrap();
    }
    let reading = log.read_from(Lsn::ZERO).unwrap();
    let segment = disk.file_names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    let bytes = disk.read_file(&segment).unwrap();
    // no other frame proves that the last frame was durable
    let kept = 6 * 4096;
    disk.overwrite(&segment, kept, &vec![0; bytes.len() - kept as usize]).unwrap();
    let read: Vec<_> = reading.collect();
    assert!(matches!(read.last(), Some(Err(Error::Corrupt { .. }))), "{} records and then the end", read.len());
}

/// A waker that owns a ticket, like the waker of a task that waits for several tickets.
struct Owner {
    _ticket: LogTicket,
}

impl std::task::Wake for Owner {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_waker_that_owns_a_ticket_is_let_go_of_without_a_lock_that_the_ticket_needs() {
    let (finished_out, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let log = open(&SimDisk::new(1)).unwrap();
        let noop = std::task::Waker::noop();
        let polled = |waker: &std::task::Waker| {
            let mut ticket = log.append(b"a record").unwrap();
            let cx = &mut std::task::Context::from_waker(waker);
            assert!(std::pin::Pin::new(&mut ticket).poll(cx).is_pending());
            ticket
        };
        let owning = || std::task::Waker::from(Arc::new(Owner { _ticket: polled(noop) }));
        // first a ticket that is polled by another task, then one that is dropped
        let mut ticket = polled(&owning());
        assert!(std::pin::Pin::new(&mut ticket).poll(&mut std::task::Context::from_waker(noop)).is_pending());
        let dropped = polled(&owning());
        drop(dropped);
        ticket.wait().unwrap();
        finished_out.send(()).unwrap();
    });
    finished.recv_timeout(std::time::Duration::from_secs(20)).expect("a ticket waits for itself");
}

#[test]
fn records_of_some_mebibytes_are_read_once() {
    let disk = SimDisk::new(3);
    let mut options = options();
    (options.segment_bytes, options.first_segment_bytes) = (64 << 20, 64 << 20);
    let log = Log::open_on(Arc::new(disk.clone()), options.clone()).unwrap();
    (0..12u8).for_each(|n| log.append(&vec![n; 3 << 20]).unwrap().wait().unwrap());
    drop(log);
    let disk = disk.crash(Crash::Nothing);
    disk.enable_trace();
    let log = Log::open_on(Arc::new(disk.clone()), options).unwrap();
    let report = log.recovery_report();
    let read = |line: &String| {
        let bytes = line.contains(" ReadDeviceAt ").then(|| line.rsplit('+').next().unwrap().parse::<u64>().unwrap());
        bytes.unwrap_or(0)
    };
    let bytes: u64 = disk.trace().iter().map(read).sum();
    assert_eq!(log.read_from(report.start).unwrap().count(), 12);
    // The read covers the log, the search for its end, and the log's first part again. It must not
    // read two thirds more of each.
    let written = report.end.get() - report.start.get();
    let behind = (64 << 20) - written;
    assert!(bytes < written + behind + (12 << 20), "{bytes} for {written}");
}

#[test]
fn a_log_that_was_opened_on_a_full_disk_without_a_segment_of_its_own_is_read_whole() {
    let mut disk = SimDisk::new(21);
    let log = open(&disk).unwrap();
    log.append(b"one").unwrap().wait().unwrap();
    drop(log);
    for _ in 0..8 {
        // each open takes a preallocated segment or replaces the last one, until there is none
        disk = disk.crash(Crash::Nothing);
        disk.set_free_bytes(Some(0));
        let log = open(&disk).unwrap();
        assert_eq!(contents(&log), [b"one"]);
        std::mem::forget(log);
    }
}

/// The only segment that a truncation leaves may hold no frame. The next open replaces it, and took
/// another number for that: the open after it read the empty file as the newest segment.
#[test]
fn an_unused_segment_that_is_all_that_a_truncation_leaves_is_replaced_under_its_own_number() {
    let disk = SimDisk::new(14);
    let log = open(&disk).unwrap();
    log.append(b"one").unwrap().wait().unwrap();
    drop(log);
    let log = open(&disk).unwrap();
    log.truncate_before(log.durable_lsn()).unwrap();
    std::mem::forget(log);
    let mut disk = disk.crash(Crash::Nothing);
    for n in 0..3u8 {
        let log = open(&disk).unwrap();
        assert_eq!(contents(&log), (0..n).map(|n| vec![n]).collect::<Vec<_>>());
        log.append(&[n]).unwrap().wait().unwrap();
        drop(log);
        disk = disk.crash(Crash::Nothing);
    }
}
