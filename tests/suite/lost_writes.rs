//! Devices that lose or misdirect a write that they reported as done. The damage must be an error,
//! and never wrong data.

use crate::common::{Cmd, Stacks, manual, open_on, scale, state};
use seawal::io::WritePath;
use seawal::sim::{Crash, Fault, OpKind, Persistence, SimDisk};
use seawal::wal::LogStep;
use seawal::{Engine, Error, Step};
use std::collections::BTreeMap;

fn disk(seed: u64) -> SimDisk {
    let path = if seed % 2 == 1 { WritePath::BufferedSync } else { WritePath::Direct };
    SimDisk::builder().seed(seed).write_path(path).build()
}

/// Commits through several segments, checkpoints and opens, until the engine notices a fault.
/// Acknowledged commits are added to `wanted`.
fn workload(disk: &SimDisk, wanted: &mut Stacks) -> Result<(), Error> {
    for round in 0..3 {
        let (engine, _) = open_on::<Stacks>(disk, &manual())?;
        assert_eq!(state(&engine), *wanted, "round {round}");
        for n in 0..14 {
            commit(&engine, round * 100 + n, wanted)?;
            if n == 9 {
                // a failed checkpoint is reported, and the log continues
                let _ = engine.checkpoint();
            }
        }
        rest(&engine)?;
        match round {
            0 => engine.close()?,
            _ => drop(engine),
        }
    }
    let (engine, _) = open_on::<Stacks>(disk, &manual())?;
    assert_eq!(state(&engine), *wanted, "the last opening");
    for n in 0..6 {
        commit(&engine, 1000 + n, wanted)?;
    }
    rest(&engine)
}

fn commit(engine: &Engine<Stacks>, n: u32, wanted: &mut Stacks) -> Result<(), Error> {
    engine.execute(Cmd::Push { key: (n % 3) as u8, value: n, pad: 3000 }).map_err(|error| match error {
        seawal::ExecuteError::Failed(error) => error,
        seawal::ExecuteError::Rejected(rejection) => panic!("{rejection}"),
    })?;
    wanted.by_key.entry((n % 3) as u8).or_default().push(n);
    Ok(())
}

/// Lets the log become idle, so that a watermark proves all of it durable.
fn rest(engine: &Engine<Stacks>) -> Result<(), Error> {
    for step in [LogStep::Flush, LogStep::Watermark] {
        engine.step(Step::Log(step))?;
    }
    Ok(())
}

/// Runs the workload with one faulty write. Counts how it ended: detected by an open, detected
/// earlier, or without effect.
fn go_wrong(seed: u64, op: u64, fault: Fault, counts: &mut BTreeMap<&'static str, u64>) {
    let described = format!("seed {seed}, op {op}, {fault:?}");
    let disk = disk(seed);
    disk.fail_at(op, fault, Persistence::Once);
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut wanted = Stacks::default();
        let done = workload(&disk, &mut wanted);
        (done, wanted)
    }));
    let (done, wanted) = done.unwrap_or_else(|_| panic!("{described}"));
    let noticed = |error: &Error| {
        let typed = error.is_corrupt() || matches!(error, Error::NotAStore { .. } | Error::UnsupportedVersion { .. });
        assert!(typed, "{described}: {error:?}");
    };
    if let Err(error) = &done {
        noticed(error);
        *counts.entry("noticed on the way").or_default() += 1;
    }
    for crash in [Crash::Nothing, Crash::KillOnly] {
        match open_on::<Stacks>(&disk.crash(crash), &manual()) {
            Ok((engine, _)) => {
                assert_eq!(state(&engine), wanted, "{described}, {crash}, after {done:?}");
                *counts.entry("without consequence").or_default() += 1;
            }
            Err(error) => {
                noticed(&error);
                *counts.entry("noticed at the end").or_default() += 1;
            }
        }
    }
}

#[test]
fn a_lost_or_misdirected_write_is_noticed_or_without_consequence() {
    for fault in [Fault::LostWrite, Fault::MisdirectedWrite] {
        let mut counts = BTreeMap::new();
        for seed in 0..2 * scale() {
            let whole = disk(seed);
            whole.record_crash_points(..);
            workload(&whole, &mut Stacks::default()).unwrap();
            for point in whole.take_crash_points() {
                if matches!(point.kind(), OpKind::WriteAt | OpKind::WriteDurableAt) {
                    go_wrong(seed, point.op(), fault, &mut counts);
                }
            }
        }
        println!("{fault:?}: {counts:?}");
        assert_eq!(counts.len(), 3, "{counts:?}");
    }
}

/// The offsets of the blocks of a file that begin with a frame.
fn frames(bytes: &[u8]) -> Vec<usize> {
    (0..bytes.len()).step_by(4096).filter(|at| bytes[*at..].starts_with(b"SWFR")).collect()
}

#[test]
fn a_frame_written_over_an_earlier_one_is_no_end_of_the_log() {
    for seed in 0..4 {
        let disk = disk(seed);
        let (engine, _) = open_on::<Stacks>(&disk, &manual().first_segment_bytes(32 << 10)).unwrap();
        for value in 0..4 {
            engine.execute(Cmd::push(1, value)).unwrap();
        }
        rest(&engine).unwrap();
        let disk = disk.crash(Crash::Nothing);
        drop(engine);
        let segment = disk.file_names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
        let bytes = disk.read_file(&segment).unwrap();
        let frames = frames(&bytes);
        let [.., record, watermark] = frames.as_slice() else { panic!("{frames:?}") };
        disk.overwrite(&segment, *record as u64, &bytes[*watermark..*watermark + 4096]).unwrap();
        disk.overwrite(&segment, *watermark as u64, &[0; 4096]).unwrap();
        let error = open_on::<Stacks>(&disk, &manual()).map(|_| ()).unwrap_err();
        assert!(error.is_corrupt(), "{error:?}");
    }
}
