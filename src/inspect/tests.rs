use super::*;
use crate::kv::{Kv, KvCommand};
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
