use super::*;
use crate::Engine;
use crate::format::names::MANIFESTS;
use crate::format::segment::put_checksum;
use crate::kv::Kv;
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
        // the watermark that an idle log gets comes before the snapshot then, and nothing comes behind it
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
    assert_eq!(report.soundness(), Soundness::Damaged, "{report}");
    // the log goes back to the beginning and stands in for it
    assert!(report.open_error.is_none(), "{report}");
    let store = Engine::<Kv>::open(dir.path()).unwrap();
    assert_eq!(store.get("key").unwrap().as_deref(), Some(&b"ours"[..]));
}
