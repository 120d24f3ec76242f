//! `seawal bench`, as a shell sees it: its figures, what it leaves behind, and what it refuses.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn bench(here: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_seawal")).arg("bench").args(args).current_dir(here).output().unwrap()
}

fn figures(here: &Path, args: &[&str]) -> Value {
    let output = bench(here, &[args, &["--json"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap()
}

/// Each of the figures, which must be there and above nothing.
fn positive<const N: usize>(figures: &Value, names: [&str; N]) -> [f64; N] {
    names.map(|name| {
        let figure = figures[name].as_f64().unwrap_or_else(|| panic!("{name} is missing: {figures}"));
        assert!(figure > 0.0, "{name}: {figures}");
        figure
    })
}

fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

#[test]
fn every_measurement_tells_rate_floor_and_ratio_and_leaves_nothing_behind() {
    let place = tempfile::tempdir().unwrap();
    for args in [
        &["commit", "--threads", "3", "--n", "500"][..],
        &["commit", "--durability", "os", "--value", "0"],
        &["commit", "--durability", "interval=5", "--value", "5000"],
        &["read", "--n", "2000", "--threads", "2"],
        &["checkpoint", "--n", "2000"],
        &["recover", "--n", "2050"],
    ] {
        let told = figures(place.path(), &[args, &["--secs", "1"]].concat());
        let [rate, floor, ratio] = positive(&told, ["rate", "floor", "ratio"]);
        assert!((rate / floor / ratio - 1.0).abs() < 0.01, "{told}");
        if args[0] == "recover" {
            let [secs, snapshot_secs, ..] = positive(&told, ["secs", "snapshot_secs", "snapshot_rate", "log_bytes"]);
            assert!(secs < 60.0 && snapshot_secs < 60.0, "{told}");
            // what the log holds are batches of a hundred
            assert_eq!((told["records"].as_u64(), told["entries"].as_u64()), (Some(21), Some(2050)), "{told}");
        } else {
            let [p50, p99, p999] = positive(&told, ["p50_us", "p99_us", "p999_us"]);
            assert!(p50 <= p99 && p99 <= p999, "{told}");
        }
        assert_eq!(entries(place.path()), 0, "{args:?} left something");
    }
}

#[test]
fn a_directory_that_is_named_is_left_as_it_was_found() {
    let place = tempfile::tempdir().unwrap();
    let quick = |dir: &Path| {
        let args = ["commit", "--secs", "1", "--n", "10", "--dir", dir.to_str().unwrap()];
        let output = bench(place.path(), &args);
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (new, empty, full) = (place.path().join("new"), place.path().join("empty"), place.path().join("full"));
    std::fs::create_dir(&empty).unwrap();
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("notes.txt"), "mine").unwrap();
    let (status, out, _) = quick(&new);
    assert!(status == Some(0) && out.contains("ratio") && out.contains("p999_us"), "{out}");
    assert!(!new.exists());
    assert_eq!((quick(&empty).0, entries(&empty)), (Some(0), 0));
    let (status, _, err) = quick(&full);
    assert!(status == Some(64) && err.contains("is not empty") && err.lines().count() == 1, "{err}");
    assert_eq!((std::fs::read(full.join("notes.txt")).unwrap(), entries(&full)), (b"mine".to_vec(), 1));
    let (status, _, err) = quick(&full.join("notes.txt"));
    assert!(status == Some(3) && err.lines().count() == 1, "{err}");
    let (status, _, err) = quick(&place.path().join("no/such"));
    assert!(status == Some(3) && err.lines().count() == 1, "{err}");
    assert_eq!(entries(place.path()), 2);
}

#[test]
fn what_cannot_be_measured_is_refused_in_one_sentence() {
    let place = tempfile::tempdir().unwrap();
    for args in [
        &[][..],
        &["fly"],
        &["commit", "--threads", "0"],
        &["commit", "--threads", "100000"],
        &["commit", "--secs", "0"],
        &["commit", "--value", "-1"],
        &["commit", "--value", "99999999999"],
        &["read", "--n", "0"],
        &["read", "--n", "18446744073709551616"],
        &["commit", "--durability", "perhaps"],
    ] {
        assert_eq!(bench(place.path(), args).status.code(), Some(64), "{args:?}");
    }
    // more than any disk or memory holds
    let output = bench(place.path(), &["read", "--n", "1000000000", "--value", "1048576"]);
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(3) && err.contains(" bytes of ") && err.lines().count() == 1, "{err}");
    assert_eq!(entries(place.path()), 0);
}
