use super::*;
use crate::format::segment::put_checksum;
use crate::kv::Kv;
use crate::store::layout::MANIFESTS;
use crate::{Engine, Options};
use std::time::Duration;

fn check(dir: &Path) -> VerifyReport {
    verify(storage(dir).unwrap()).unwrap()
}

#[test]
fn a_log_that_goes_on_right_behind_a_snapshot_can_be_read_from_the_older_snapshot_too() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..3 {
        let store = Engine::<Kv>::open(dir.path()).unwrap();
        store.insert(format!("key {n}"), "value").unwrap();
        // wait for the watermark of an idle log, so that it comes before the snapshot and nothing
        // comes after it
        std::thread::sleep(Duration::from_millis(60));
        if n < 2 {
            store.close().unwrap();
        }
        drop(store);
        let report = check(dir.path());
        assert_eq!(report.soundness(), Soundness::Clean, "after open {n}: {report}");
    }
}

fn closed_store(dir: &Path, value: &str) {
    let store = Engine::<Kv>::open(dir).unwrap();
    store.insert("key", value).unwrap();
    store.close().unwrap();
}

#[test]
fn a_manifest_copy_of_a_later_version_is_not_stepped_around() {
    for name in MANIFESTS {
        let dir = tempfile::tempdir().unwrap();
        closed_store(dir.path(), "value");
        let path = dir.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[8] = 2;
        put_checksum(&mut bytes, 12).unwrap();
        std::fs::write(&path, bytes).unwrap();
        let opened = Engine::<Kv>::open(dir.path()).map(|_| ());
        assert!(matches!(opened, Err(Error::UnsupportedVersion { found: 2, .. })), "{opened:?}");
        let verified = verify(storage(dir.path()).unwrap());
        assert!(matches!(verified, Err(Error::UnsupportedVersion { found: 2, .. })), "{verified:?}");
    }
}

#[test]
fn a_snapshot_of_another_store_is_refused() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    closed_store(dir.path(), "ours");
    closed_store(other.path(), "theirs");
    let snapshots = |dir: &Path| survey(storage(dir).unwrap()).unwrap().snapshots;
    let (ours, theirs) = (snapshots(dir.path()), snapshots(other.path()));
    assert_eq!(ours[0].name(), theirs[0].name());
    std::fs::copy(other.path().join(theirs[0].name()), dir.path().join(ours[0].name())).unwrap();
    let report = check(dir.path());
    assert_eq!(report.soundness(), Soundness::Degraded, "{report}");
    // the log goes back to the beginning and replaces the snapshot
    assert!(report.open_error.is_none(), "{report}");
    let store = Engine::<Kv>::open(dir.path()).unwrap();
    assert_eq!(store.get("key").unwrap().as_deref(), Some(&b"ours"[..]));
}

#[test]
fn an_older_state_stands_in_for_a_snapshot_of_another_machine() {
    let dir = tempfile::tempdir().unwrap();
    closed_store(dir.path(), "value");
    let name = survey(storage(dir.path()).unwrap()).unwrap().snapshots[0].name();
    let path = dir.path().join(name);
    let mut bytes = std::fs::read(&path).unwrap();
    // the machine's name follows its length, which is at 53
    bytes[53] ^= 1;
    put_checksum(&mut bytes[..512], 12).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let report = check(dir.path());
    assert_eq!(report.soundness(), Soundness::Degraded, "{report}");
    assert!(report.open_error.is_none(), "{report}");
    let store = Engine::<Kv>::open(dir.path()).unwrap();
    assert_eq!(store.get("key").unwrap().as_deref(), Some(&b"value"[..]));
}

fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// A store with two snapshots and a log after them, as a kill leaves it.
fn interrupted_store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options::new().first_segment_bytes(32 << 10).segment_bytes(32 << 10);
    for n in 0..2 {
        let store = options().open::<Kv>(dir.path()).unwrap();
        (0..8).for_each(|k| assert!(store.insert(format!("key {n} {k}"), vec![k; 900]).is_ok()));
        store.close().unwrap();
    }
    let store = options().open::<Kv>(dir.path()).unwrap();
    (0..18).for_each(|k| assert!(store.insert(format!("last {k}"), vec![k; 900]).is_ok()));
    let tx = store.begin().unwrap();
    tx.insert("never", "committed").unwrap();
    store.insert("after", "it").unwrap();
    // An idle log writes a watermark. After that, damage to the last frame is not taken for a torn
    // tail.
    std::thread::sleep(Duration::from_millis(100));
    std::mem::forget(tx);
    let copy = copy_of(dir.path());
    drop(store);
    copy
}

#[test]
fn verify_says_of_any_flipped_byte_what_opening_does() {
    let whole = interrupted_store();
    let entries = |dir: &Path| -> Vec<_> { Engine::<Kv>::open(dir).unwrap().iter().unwrap().collect() };
    let expected = entries(copy_of(whole.path()).path());
    assert_eq!(check(whole.path()).soundness(), Soundness::Clean, "{}", check(whole.path()));
    let mut seen = [0; 4];
    // the watermark frame that ends the log: nothing after it proves that it was completed
    let (last, last_frame) = {
        let survey = survey(storage(whole.path()).unwrap()).unwrap();
        let (segment, end) = (survey.segments.last().unwrap(), check(whole.path()).log.unwrap().1);
        (segment.name.clone(), end.since(segment.base) as usize)
    };
    for entry in std::fs::read_dir(whole.path()).unwrap() {
        let name = entry.unwrap().file_name();
        let len = std::fs::metadata(whole.path().join(&name)).unwrap().len() as usize;
        let step = (len / 6).max(1) | 1;
        let torn = (name == *last).then_some(last_frame + 20);
        for at in (0..len).step_by(step).chain(torn) {
            let copy = copy_of(whole.path());
            let path = copy.path().join(&name);
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[at] ^= 0x55;
            std::fs::write(&path, bytes).unwrap();
            let verified = verify(storage(copy.path()).unwrap());
            let opened = Engine::<Kv>::open(copy.path());
            let place = format!("{name:?} at {at}");
            match (verified, opened) {
                (Ok(report), Ok(store)) => {
                    seen[report.soundness() as usize] += 1;
                    assert!(report.open_error.is_none(), "{place}: {report}");
                    assert_ne!(report.soundness(), Soundness::Damaged, "{place}: {report}");
                    assert!(store.iter().unwrap().eq(expected.iter().cloned()), "{place}: {report}");
                }
                (Ok(report), Err(error)) => {
                    seen[3] += 1;
                    assert_eq!(report.soundness(), Soundness::Damaged, "{place}: {error}; {report}");
                    assert!(report.open_error.is_some(), "{place}: {error}; {report}");
                }
                (Err(error), opened) => assert!(opened.is_err(), "{place}: {error}"),
            }
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0 && seen[2] > 0 && seen[3] > 10, "{seen:?}");
}

#[test]
fn the_text_shows_every_record_and_goes_on_behind_damage() {
    let whole = interrupted_store();
    let text = |dir: &Path| {
        let mut out = Vec::new();
        let damage = write_text(storage(dir).unwrap(), Detail::Records, &mut out).unwrap();
        (damage, String::from_utf8(out).unwrap())
    };
    let (damage, shown) = text(whole.path());
    assert!(damage.is_none());
    assert!(shown.contains("put \"\" \"last 7\"") && shown.contains("put \"\" \"never\" = \"committed\""), "{shown}");
    // the first frame of the second-newest segment
    let survey = survey(storage(whole.path()).unwrap()).unwrap();
    let segment = &survey.segments[survey.segments.len() - 2];
    let path = whole.path().join(&segment.name);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096 + 60] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (damage, shown) = text(whole.path());
    assert!(damage.is_some_and(|error| error.is_corrupt()));
    assert!(shown.contains("DAMAGE") && shown.contains("\"after\" = \"it\""), "{shown}");
}
