//! Segment headers with valid checksums that contradict the neighboring segments.

use crate::common::{Stacks, files, open_on, state};
use crate::layout::{fix_block, u64_at};
use crate::stores::{Files, on_disk, options};
use seawal::sim::{Crash, SimDisk};
use seawal::wal::{Log, LogOptions};
use seawal::{Background, Error};
use std::sync::Arc;

/// Checks that opening is refused because of that segment, and changes nothing.
fn is_damage(disk: &SimDisk, name: &str, reason: &str) {
    let before = files(disk);
    let error = open_on::<Stacks>(disk, &options()).map(|_| ()).unwrap_err();
    let Error::Corrupt { path, reason: found, .. } = &error else { panic!("{error:?}") };
    assert!(path.ends_with(name) && found.contains(reason), "{error:?}");
    let mut now = files(disk);
    now.retain(|name, _| before.contains_key(name));
    assert!(now == before);
}

#[test]
fn a_header_that_goes_back_behind_its_predecessor_is_refused() {
    // segments of several epochs, all of them needed
    let store = crate::stores::cut();
    let [.., before, last] = &store.segments[..] else { panic!("segments") };
    let forged = |change: &dyn Fn(&mut [u8])| {
        let mut files: Files = store.files.clone();
        let header = &mut files.get_mut(&last.name).unwrap()[..last.block];
        change(header);
        fix_block(header);
        on_disk(&files)
    };
    let put = |at: usize, to: u64| move |header: &mut [u8]| header[at..at + 8].copy_from_slice(&to.to_le_bytes());
    assert_eq!(
        forged(&|_| {}).read_file(&last.name).unwrap(),
        store.files[&last.name],
        "it is the forgery that is refused"
    );
    assert!(before.epoch > 0 && before.epoch <= last.epoch);
    is_damage(&forged(&put(40, before.epoch - 1)), &last.name, "goes back");
    is_damage(&forged(&put(56, before.base - last.block as u64)), &last.name, "cannot have ended where");
    is_damage(&forged(&put(56, before.base + (1 << 40))), &last.name, "cannot have ended where");
    is_damage(&forged(&put(24, last.store ^ 1)), &last.name, "another store");
    is_damage(&forged(&put(32, last.id + 1)), &last.name, "another segment");

    // Segments of one epoch, so each begins where its predecessor ended. The predecessor is made
    // longer, and the header claims that it ended in the added part.
    let store = crate::stores::recycled();
    let [.., before, last] = &store.segments[..] else { panic!("segments") };
    let mut files: Files = store.files.clone();
    let longer = files.get_mut(&before.name).unwrap();
    longer.resize(longer.len() + 4 * before.block, 0);
    put(72, longer.len() as u64)(&mut longer[..]);
    fix_block(&mut longer[..before.block]);
    assert_eq!(
        open_on::<Stacks>(&on_disk(&files), &options()).map(|(engine, _)| state(&engine)).unwrap(),
        *store.whole()
    );
    let header = &mut files.get_mut(&last.name).unwrap()[..last.block];
    assert_eq!(u64_at(header, 56), last.base);
    put(56, last.base + last.block as u64)(header);
    fix_block(header);
    is_damage(&on_disk(&files), &last.name, "goes back");
}

#[test]
fn without_a_manifest_two_files_that_claim_to_be_one_segment_are_refused() {
    let store = crate::stores::killed_with_losers();
    let mut files: Files = store.files.clone();
    files.retain(|name, _| !name.starts_with("MANIFEST"));
    assert_eq!(state(&open_on::<Stacks>(&on_disk(&files), &options()).unwrap().0), *store.whole());
    let last = store.last();
    let base = u64_at(&files[&last.name], 48);
    let twin = last.name.replace(&format!("{base:016x}"), &format!("{:016x}", base - last.block as u64));
    assert_ne!(twin, last.name);
    files.insert(twin, files[&last.name].clone());
    is_damage(&on_disk(&files), &last.name, "two files claim to be this segment");
}

#[test]
fn a_manifest_whose_log_starts_behind_all_that_its_segment_can_hold_is_refused() {
    let disk = SimDisk::new(1);
    let mut log_options = LogOptions::default();
    log_options.background = Background::Manual;
    let open = |disk: &SimDisk| Log::open_on(Arc::new(disk.clone()), log_options.clone());
    let log = open(&disk).unwrap();
    log.append(b"one").unwrap().wait().unwrap();
    drop(log);
    let [segment] = &files(&disk).into_keys().filter(|name| name.ends_with(".seg")).collect::<Vec<_>>()[..] else {
        panic!("one segment")
    };
    let bytes = disk.read_file(segment).unwrap();
    let capacity_end = u64_at(&bytes, 48) + u64_at(&bytes, 72) - 4096;
    let starting_at = |start: u64| {
        let forged = disk.crash(Crash::Nothing);
        for name in ["MANIFEST-0", "MANIFEST-1"] {
            let mut bytes = forged.read_file(name).unwrap();
            // the start of the log, the watermark, and the origin
            for at in [40, 48, 72] {
                bytes[at..at + 8].copy_from_slice(&start.to_le_bytes());
            }
            fix_block(&mut bytes[..4096]);
            forged.write_file(name, &bytes);
        }
        forged
    };
    open(&starting_at(capacity_end)).unwrap();
    let error = open(&starting_at(capacity_end + 4096)).map(|_| ()).unwrap_err();
    let Error::Corrupt { path, reason, .. } = &error else { panic!("{error:?}") };
    assert!(path.ends_with(segment) && reason.contains("log_start lies past the end of its segment"), "{error:?}");
}
