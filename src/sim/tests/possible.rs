//! What a power loss can leave is what some subset of the pending units gives, and nothing else.

use super::*;
use crate::io::Directory;
use crate::sim::rng::Rng;
use std::collections::BTreeMap;

type Files = BTreeMap<String, Vec<u8>>;

fn files(disk: &SimDisk) -> Files {
    disk.file_names().into_iter().map(|name| (name.clone(), disk.read_file(&name).unwrap())).collect()
}

/// A few changes, synced and not.
fn change(disk: &SimDisk, rng: &mut Rng) {
    let names = disk.file_names();
    let name = format!("f{}", rng.below(3));
    if !names.contains(&name) {
        let _ = disk.open(&name, OpenMode::CreateNew).unwrap();
        return;
    }
    let file = disk.open(&name, OpenMode::ReadWrite).unwrap();
    let byte = rng.below(250) as u8 + 1;
    match rng.below(9) {
        0 => file.write_durable_at(&blocks(1, byte)[..512], rng.below(4) * 512).unwrap(),
        1 => file.sync_all().unwrap(),
        2 => disk.sync_dir().unwrap(),
        3 => disk.rename(&name, &format!("f{}", rng.below(3))).unwrap(),
        4 => disk.remove(&name).unwrap(),
        5 | 6 => file.set_len(rng.below(3000)).unwrap(),
        _ => write_all_at(&*file, &vec![byte; 1 + rng.below(700) as usize], rng.below(2000)).unwrap(),
    }
}

/// The same files, but not quite.
fn spoilt(files: &Files, rng: &mut Rng) -> Files {
    let mut files = files.clone();
    let name = files.keys().nth(rng.below(files.len() as u64) as usize).cloned().unwrap_or_default();
    let other = files.values().next_back().cloned().unwrap_or_default();
    let Some(bytes) = files.get_mut(&name) else { return Files::from([("f0".to_owned(), Vec::new())]) };
    match rng.below(5) {
        0 => bytes.push(0),
        1 => drop(bytes.pop()),
        2 if !bytes.is_empty() => {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] = if rng.coin() { 0 } else { bytes[0] };
        }
        3 => *bytes = other,
        _ => drop(files.remove(&name)),
    }
    files
}

#[test]
fn what_a_power_loss_can_leave_is_what_some_subset_gives() {
    let (mut yes, mut no) = (0, 0);
    for seed in 0..80 {
        let (disk, mut rng) = (SimDisk::new(seed), Rng::new(seed));
        for _ in 0..16 {
            change(&disk, &mut rng);
            if disk.pending_units() > 7 {
                for name in disk.file_names() {
                    disk.open(&name, OpenMode::ReadWrite).unwrap().sync_all().unwrap();
                }
                disk.sync_dir().unwrap();
            }
            let possible: BTreeSet<Files> = all_crashes(&disk).iter().map(files).collect();
            for found in &possible {
                assert!(disk.can_leave(found), "seed {seed}: {found:?}");
                let spoilt = spoilt(found, &mut rng);
                let wanted = possible.contains(&spoilt);
                assert_eq!(disk.can_leave(&spoilt), wanted, "seed {seed}: {spoilt:?}");
                *(if wanted { &mut yes } else { &mut no }) += 1;
            }
        }
    }
    assert!(yes > 50 && no > 1000, "{yes} {no}");
}
