//! A simulated device below a real file system, for power loss and refused writes.
//!
//! The device is a file on a tmpfs behind a loop device. A copy of that file is what a power loss
//! leaves. On a full tmpfs, a write into a hole of the file fails, as on a broken disk.

use crate::child::{Running, command, started, tell};
use crate::common::{Cmd, Stacks, state};
use crate::kills::Committers;
use crate::mounts::{Ballast, Mount, dig_holes, make_image, privately};
use crate::workload::{Ended, Model, WITNESS, failed, is_sync, open_with, options, perform};
use seawal::io::{AlignedBuf, Create, Directory, DiskStorage, OpenMode, WritePath};
use seawal::machine::{Access, Footprint};
use seawal::{Engine, Error, ReadLevel};
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn a_power_loss_of_a_real_file_system_takes_nothing_that_was_promised_or_served() {
    privately("power_loss");
}

#[test]
fn a_device_that_refuses_a_write_latches_the_log_and_no_later_open_believes_the_page_cache() {
    privately("broken_device");
}

/// A tmpfs with a file on it that is mounted as a file system.
struct Device {
    mount: Option<Mount>,
    image: PathBuf,
    tmpfs: Mount,
    dir: PathBuf,
}

impl Device {
    /// Creates the device. If that is impossible, it prints why and returns `None`.
    fn new(dir: PathBuf, options: &[&str]) -> Option<Device> {
        let tmpfs = Mount::tmpfs(dir.join("tmpfs"), 64).unwrap();
        let image = tmpfs.at().join("image");
        if !make_image(&image, 16, "ext4", options) {
            tell("skipped: mkfs.ext4 is not there");
            return None;
        }
        let mut device = Device { mount: None, image, tmpfs, dir };
        if !device.attach() {
            tell("skipped: there are no loop devices");
            return None;
        }
        Some(device)
    }

    fn attach(&mut self) -> bool {
        self.mount = Mount::image(&self.image, self.dir.join("mounted"));
        self.mount.is_some()
    }

    /// Unmounts the file system and mounts it again, so that only the device's content is left.
    fn remount(&mut self) {
        self.mount.take().unwrap().unmount();
        assert!(self.attach());
    }

    fn store(&self) -> PathBuf {
        self.mount.as_ref().unwrap().at().join("store")
    }

    /// Runs `look` on what a power loss now would leave. Nothing may be written meanwhile.
    fn after_power_loss<T>(&self, look: impl FnOnce(&Path) -> T) -> T {
        let copy = self.tmpfs.at().join("copy");
        std::fs::copy(&self.image, &copy).unwrap();
        let mount = Mount::image(&copy, self.dir.join("copy")).unwrap();
        let seen = look(&mount.at().join("store"));
        mount.unmount();
        std::fs::remove_file(copy).unwrap();
        seen
    }
}

pub(crate) fn child_power_loss() {
    let (dir, _) = started();
    let Some(device) = Device::new(dir, &[]) else { return };
    let store = device.store();
    let mut committers = Committers::new();
    let mut acknowledged = 0;
    for round in 0..4 {
        let child = committers.start(&store);
        let mut heard = 0;
        while heard < 40 + 37 * round {
            let line = child.line().expect("it commits until it is killed");
            heard += u64::from(committers.hear(&line));
        }
        // nothing is written between the stop and the kill, so a copy is what a power loss leaves
        heard += child.freeze().iter().map(|line| u64::from(committers.hear(line))).sum::<u64>();
        device.after_power_loss(|store| {
            let engine: Engine<Stacks> = options().open(store).unwrap();
            committers.check_after_power_loss(&state(&engine));
        });
        child.kill();
        // state that was recovered from the page cache may be read, so it must survive power loss
        // too
        let opener = Running::start(command(&[], "opener", &store, &[]));
        assert!(opener.hears("open"));
        opener.freeze();
        let kept = device.after_power_loss(|store| state(&options().open(store).unwrap()));
        opener.kill();
        let engine: Engine<Stacks> = options().open(&store).unwrap();
        let served = state(&engine);
        committers.check(&served);
        assert_eq!(kept, served);
        acknowledged += heard;
    }
    tell(&format!("power lost after {acknowledged} acknowledgements"));
}

pub(crate) fn child_broken_device() {
    let (dir, _) = started();
    for (n, (journal, path)) in [
        ("^has_journal", WritePath::Direct),
        ("^has_journal", WritePath::BufferedSync),
        ("has_journal", WritePath::BufferedSync),
        ("has_journal", WritePath::Direct),
    ]
    .into_iter()
    .enumerate()
    {
        let Some(device) = Device::new(dir.join(n.to_string()), &["-O", journal]) else { return };
        let outcome = break_and_mend(device, path);
        tell(&format!("{journal}, {path:?}: {outcome}"));
    }
}

/// Commits, breaks the device, checks that the log latches, repairs the device, and checks that
/// everything acknowledged is there.
fn break_and_mend(mut device: Device, path: WritePath) -> String {
    let store = device.store();
    let engine = open_with(&options(), &store, path).unwrap();
    let mut model = Model::new(0);
    engine.execute(Cmd::push(WITNESS, 1)).unwrap();
    let answer = |ended| match ended {
        Ended::Acknowledged => Ok(()),
        Ended::Promised(wait) => wait(),
    };
    for n in 0..30 {
        perform(&engine, 0, n).and_then(answer).unwrap();
        model.apply(n);
    }
    engine.sync().unwrap();
    // wait for preallocated segments, and for the watermark of an idle log
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(Command::new("sync").status().unwrap().success());
    assert!(dig_holes(&device.image), "a tmpfs takes holes");
    let ballast = Ballast::load(device.tmpfs.at(), 0);

    // a frame is written over zeros, which are holes now
    let (mut may, mut certain, mut error) = (Vec::new(), 0, None);
    // the first one is written directly to the device, if that is possible
    for n in 35..200 {
        match perform(&engine, 0, n).and_then(answer) {
            Ok(()) => {
                assert!(error.is_none(), "{n} was acknowledged after {error:?}");
                may.push(n);
                // commits with a lower durability are lost with the device
                certain = if is_sync(n) { may.len() } else { certain };
            }
            Err(e) => {
                assert!(e.is_latched(), "{e:?}");
                may.push(n);
                error = Some(e);
                if n > 45 {
                    break;
                }
            }
        }
    }
    let error = error.expect("the device refuses writes").to_string();
    let witness = |engine: &Engine<Stacks>| {
        engine.read_within(&Footprint::key(Access::Shared, &[WITNESS]), ReadLevel::Hardened, |s| s.at(WITNESS)).unwrap()
    };
    assert_eq!(witness(&engine), [1], "what has hardened stays readable");
    let refused = engine.execute(Cmd::push(WITNESS, 2)).map_err(failed).unwrap_err();
    assert!(refused.is_latched(), "{refused:?}");
    assert!(engine.sync().unwrap_err().is_latched());
    assert!(engine.checkpoint().unwrap_err().is_latched());
    assert!(engine.close().is_err());
    drop(engine);
    let cache = ask_cache(&store);

    // while the device is broken, an open may fail; if it succeeds, the state must be right
    let broken = match open_with(&options(), &store, path) {
        Ok(engine) => {
            let _ = state_if_hardened(&engine).map(|found| model.clone().catch_up(&found, &may, certain));
            "opened"
        }
        Err(error) => {
            assert!(matches!(error, Error::Io { .. } | Error::Full { .. } | Error::Latched { .. }), "{error:?}");
            "did not open"
        }
    };
    drop(ballast);
    // the device works again, and the page cache may still show bytes that never reached it
    let (mended, served) = match open_with(&options(), &store, path) {
        Ok(engine) => {
            let found = state(&engine);
            model.catch_up(&found, &may, certain);
            // the last of these is durable, and covers the others
            for n in 300..310 {
                perform(&engine, 0, n).and_then(answer).unwrap();
                model.apply(n);
            }
            ("opened", Some(state(&engine)))
        }
        // the file system has become read-only
        Err(error) => {
            assert!(matches!(error, Error::Io { .. }), "{error:?}");
            ("did not open", None)
        }
    };
    if let Some(served) = &served {
        (may, certain) = (Vec::new(), 0);
        device.remount();
        let engine: Engine<Stacks> = options().open(device.store()).unwrap();
        assert_eq!(state(&engine), *served, "what was served is on the device");
        drop(engine);
    }
    device.remount();
    let engine: Engine<Stacks> = options().open(device.store()).unwrap();
    assert_eq!(witness(&engine), [1]);
    let found = state(&engine);
    model.catch_up(&found, &may, certain);
    engine.execute(Cmd::push(WITNESS, 2)).unwrap();
    engine.close().unwrap();
    drop(engine);
    device.mount.take().unwrap().unmount();
    format!("{error}; {cache}; {broken} on the broken device, {mended} on the mended one")
}

/// Reports how the kernel treats segments after a failed sync: another sync of them, and reads
/// through the page cache.
fn ask_cache(store: &Path) -> String {
    let Ok(storage) = DiskStorage::open(store, Create::Never) else { return "the directory does not open".into() };
    let (mut refused, mut differ) = (0, 0);
    for name in storage.list().unwrap().iter().filter(|name| name.ends_with(".seg")) {
        let Ok(file) = storage.open(name, OpenMode::ReadWrite) else { continue };
        refused += u32::from(file.sync_data().is_err());
        let mut cached = AlignedBuf::zeroed(file.len().unwrap() as usize).unwrap();
        let mut device = AlignedBuf::zeroed(cached.len()).unwrap();
        let whole = file.read_at(&mut cached, 0).is_ok() && file.read_device_at(&mut device, 0).is_ok();
        differ += u32::from(whole && cached[..] != device[..]);
    }
    format!("then {refused} syncs failed again, {differ} segments read otherwise than the device has them")
}

fn state_if_hardened(engine: &Engine<Stacks>) -> Option<Stacks> {
    engine.read(Stacks::clone).ok()
}
