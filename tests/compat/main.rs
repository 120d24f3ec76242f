//! Compatibility: this version opens the stores that earlier versions wrote, and finds the same
//! contents.
//!
//! `tests/compat/` has a folder for each version, with three text files for each store:
//!
//! - `NAME.store` holds its files, packed as `pack.rs` says;
//! - `NAME.entries` holds its contents, written down from the committed commands and not from what
//!   was recovered;
//! - `NAME.facts` holds the reports of the version that wrote it: verdict, redo and undo counts,
//!   torn tail, the findings of `inspect::verify`, and each record of the log.
//!
//! The files of a released version never change. A new version adds its own folder; only files that
//! are missing are written:
//!
//! ```text
//! cargo test --all-features --test compat -- --ignored generate
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails the test")]

mod api;
mod facts;
mod machines;
mod pack;
mod scenes;

use machines::{Ledger, Listed, record_lines};
use pack::Files;
use seawal::kv::Kv;
use seawal::recovery::Verdict;
use seawal::sim::{Crash, SimDisk};
use seawal::{Engine, RecoveryReport, StateMachine};
use std::fs;
use std::path::{Path, PathBuf};

/// The stores of the first version. The list makes sure that none of them gets lost.
const STORES: [&str; 19] = [
    "closed",
    "degraded-both",
    "degraded-manifest",
    "degraded-snapshot",
    "digests",
    "empty",
    "killed",
    "large",
    "ledger",
    "log-closed",
    "log-killed",
    "losers",
    "notes",
    "os-killed",
    "os-power-loss",
    "recycled",
    "torn-cut",
    "torn-overwritten",
    "torn-with-a-hole",
];

/// A store as it was recorded.
struct Fixture {
    /// The name and the version, for messages.
    title: String,
    files: Files,
    entries: Vec<String>,
    facts: Vec<String>,
}

impl Fixture {
    fn read(folder: &Path, name: &str) -> Fixture {
        let text = |extension: &str| {
            let path = folder.join(format!("{name}.{extension}"));
            fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        let lines = |extension| text(extension).lines().map(str::to_owned).collect();
        let title = format!("{} of {}", name, folder.file_name().unwrap().display());
        Fixture { title, files: pack::unpack(&text("store")), entries: lines("entries"), facts: lines("facts") }
    }

    /// The machine's name, from the first line of the facts.
    fn machine(&self) -> &str {
        self.facts[0].strip_prefix("machine: ").expect("the first of the facts names the machine")
    }

    fn disk(&self) -> SimDisk {
        api::disk_of(&self.files)
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat")
}

fn names_in(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter_map(|name| name.strip_suffix(".store").map(str::to_owned)).collect();
    names.sort();
    names
}

fn fixtures() -> Vec<Fixture> {
    let folders = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    folders.flat_map(|folder| names_in(&folder).into_iter().map(move |name| Fixture::read(&folder, &name))).collect()
}

/// A check of one engine's store, generic over its machine.
trait Check {
    fn check<M: Listed>(&self, fixture: &Fixture);
}

fn each_engine_store(check: &impl Check) {
    let mut checked = 0;
    for fixture in fixtures() {
        match fixture.machine() {
            "kv" => check.check::<Kv>(&fixture),
            "ledger" => check.check::<Ledger>(&fixture),
            #[cfg(feature = "serde")]
            "notes" => check.check::<machines::notes::Notes>(&fixture),
            #[cfg(not(feature = "serde"))]
            "notes" => continue,
            "journal" => continue,
            other => panic!("{}: no machine is called {other}", fixture.title),
        }
        checked += 1;
    }
    assert!(checked >= 16, "{checked}");
}

#[track_caller]
fn assert_lines(title: &str, what: &str, found: &[String], wanted: &[String]) {
    let differs = found.iter().zip(wanted).position(|(found, wanted)| found != wanted);
    let at = differs.unwrap_or(found.len().min(wanted.len()));
    assert!(
        found == wanted,
        "{title}: line {} of the {what} is {:?}, not {:?}",
        at + 1,
        found.get(at).map_or("missing", String::as_str),
        wanted.get(at).map_or("missing", String::as_str)
    );
}

fn opened<M: Listed>(fixture: &Fixture, disk: &SimDisk) -> (Engine<M>, RecoveryReport) {
    api::open(disk, &api::options()).unwrap_or_else(|e| panic!("{}: {e}", fixture.title))
}

/// What the present code reports about a store, in the lines of a `.facts` file.
fn facts_of<M: Listed>(files: &Files) -> Vec<String> {
    let disk = || api::disk_of(files);
    let mut lines = vec![format!("machine: {}", M::NAME)];
    lines.extend(facts::of_recovery(&api::open::<M>(&disk(), &api::options()).unwrap().1));
    lines.extend(facts::of_verification(&api::verify(&disk()).unwrap()));
    if M::NAME != Kv::NAME {
        // with the machine at hand, the check replays the commands too
        lines.extend(facts::of_verification(&api::verify_machine::<M>(&disk()).unwrap()));
    }
    let (log, report) = api::open_log(&disk(), api::log_options(M::NAME, M::VERSION)).unwrap();
    lines.extend(facts::of_log(&report));
    lines.extend(record_lines(&api::records(&log)).iter().map(|line| format!("record: {line}")));
    lines
}

fn facts_of_log(files: &Files) -> Vec<String> {
    let disk = || api::disk_of(files);
    let (_, report) = api::open_log(&disk(), api::journal_options()).unwrap();
    let mut lines = vec!["machine: journal".to_owned()];
    lines.extend(facts::of_log(&report));
    lines.extend(facts::of_verification(&api::verify(&disk()).unwrap()));
    lines
}

/// Compares reports and contents: opened read-only, opened for writing, opened after a power loss
/// right after recovery, and reopened after a clean close.
struct Recovers;

impl Check for Recovers {
    fn check<M: Listed>(&self, fixture: &Fixture) {
        let title = &fixture.title;
        let entries = |when: &str, engine: &Engine<M>, wanted: &[String]| {
            assert_lines(title, &format!("entries, {when}"), &api::state(engine).entries(), wanted);
        };
        let disk = fixture.disk();
        {
            let (engine, _) = api::open_read_only::<M>(&disk).unwrap_or_else(|e| panic!("{title}, to read: {e}"));
            entries("opened to read", &engine, &fixture.entries);
        }
        assert!(api::files(&disk) == fixture.files, "{title}: a reader has changed files");
        assert_lines(title, "facts", &facts_of::<M>(&fixture.files), &fixture.facts);

        let (engine, first) = opened::<M>(fixture, &disk);
        entries("opened", &engine, &fixture.entries);
        let disk = disk.crash(Crash::Nothing);
        let (engine, second) = opened::<M>(fixture, &disk);
        entries("opened after a crash", &engine, &fixture.entries);
        assert_eq!((second.undone, &second.tail), (0, &None), "{title}: {second:?}");
        assert_eq!(second.epoch.get(), first.epoch.get() + 1, "{title}");
        engine.execute(M::addition()).unwrap();
        let mut with_addition = M::default();
        with_addition.apply(&M::addition()).unwrap();
        let addition = with_addition.entries().remove(0);
        assert!(!fixture.entries.contains(&addition), "{title}");
        engine.close().unwrap();
        let (engine, third) = opened::<M>(fixture, &disk.crash(Crash::Nothing));
        assert_eq!((third.verdict, third.warnings.len()), (Verdict::Clean, 0), "{title}: {third:?}");
        let found = api::state(&engine).entries();
        let rest: Vec<String> = found.iter().filter(|entry| **entry != addition).cloned().collect();
        assert_eq!(found.len(), rest.len() + 1, "{title}: the addition is there once");
        assert_lines(title, "entries, closed", &rest, &fixture.entries);
    }
}

#[test]
fn every_store_recovers_to_what_it_held() {
    each_engine_store(&Recovers);
}

/// The same on a real file system, with background threads and the default segment sizes.
struct RecoversInADirectory;

impl Check for RecoversInADirectory {
    fn check<M: Listed>(&self, fixture: &Fixture) {
        let title = &fixture.title;
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in &fixture.files {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        let (engine, report) = api::open_directory::<M>(dir.path()).unwrap_or_else(|e| panic!("{title}: {e}"));
        assert_lines(title, "entries", &api::state(&engine).entries(), &fixture.entries);
        let reported = facts::of_recovery(&report);
        // the last line counts warnings, and the file system may add its own
        let (_, reported) = reported.split_last().unwrap();
        assert_lines(title, "facts", reported, &fixture.facts[1..=reported.len()]);
        drop(engine);
        let (engine, report) = api::open_directory::<M>(dir.path()).unwrap_or_else(|e| panic!("{title}: {e}"));
        assert_eq!(report.undone, 0, "{title}: {report:?}");
        assert_lines(title, "entries", &api::state(&engine).entries(), &fixture.entries);
    }
}

#[test]
fn every_store_recovers_in_a_real_directory() {
    each_engine_store(&RecoversInADirectory);
}

#[test]
fn every_log_has_the_records_that_it_had() {
    let mut checked = 0;
    for fixture in fixtures().into_iter().filter(|fixture| fixture.machine() == "journal") {
        let title = &fixture.title;
        let mut found = facts_of_log(&fixture.files);
        if !fixture.facts.iter().any(|line| line.starts_with("verify")) {
            // 0.1.0 mistook a truncated log for a store whose snapshot is missing, so its answer
            // was not recorded
            let verified = found.split_off(fixture.facts.len());
            assert!(verified[0].starts_with("verify: Clean"), "{title}: {verified:?}");
        }
        assert_lines(title, "facts", &found, &fixture.facts);
        let mut disk = fixture.disk();
        for round in 0..3 {
            let (log, _) = api::open_log(&disk, api::journal_options()).unwrap();
            let mut records = api::records(&log);
            // each round before has appended one record
            for n in (0..round).rev() {
                assert_eq!(records.pop().map(|(_, record)| record), Some(vec![n; 700]), "{title}");
            }
            assert_lines(title, "records", &record_lines(&records), &fixture.entries);
            log.append(&[round; 700]).unwrap().wait().unwrap();
            if round == 1 {
                log.close().unwrap();
            }
            disk = disk.crash(Crash::Nothing);
        }
        checked += 1;
    }
    assert!(checked >= 2, "{checked}");
}

#[test]
fn no_store_of_the_first_version_is_missing() {
    assert_eq!(names_in(&root().join("0.1.0")), STORES);
}

/// Guards the checks themselves: a flipped bit in a proven frame is refused, and a changed entry
/// fails the comparison.
#[test]
fn a_changed_bit_is_found() {
    let killed = Fixture::read(&root().join("0.1.0"), "killed");
    let segment = killed.files.keys().find(|name| name.ends_with(".seg")).unwrap();
    let disk = killed.disk();
    // in the first frame behind the snapshot
    disk.flip_bit(segment, 8192 + 70, 3).unwrap();
    let error = api::open::<Kv>(&disk, &api::options()).map(|_| ()).unwrap_err();
    assert!(error.is_corrupt(), "{error}");
    assert!(api::verify(&disk).unwrap().open_error.is_some());

    let mut entries = killed.entries.clone();
    entries[5].push('x');
    let outcome = std::panic::catch_unwind(|| assert_lines("killed", "entries", &entries, &killed.entries));
    assert!(outcome.is_err());
}

/// Writes the stores of this version that do not exist yet. Existing ones are never overwritten.
#[test]
#[ignore = "writes fixtures into the source tree"]
#[cfg(feature = "serde")]
fn generate() {
    let folder = root().join(env!("CARGO_PKG_VERSION"));
    fs::create_dir_all(&folder).unwrap();
    for made in scenes::all() {
        let path = |extension: &str| folder.join(format!("{}.{extension}", made.name));
        if path("store").exists() {
            continue;
        }
        let facts = match made.machine {
            "kv" => facts_of::<Kv>(&made.files),
            "ledger" => facts_of::<Ledger>(&made.files),
            "notes" => facts_of::<machines::notes::Notes>(&made.files),
            _ => facts_of_log(&made.files),
        };
        let text = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        fs::write(path("entries"), text(&made.entries)).unwrap();
        fs::write(path("facts"), text(&facts)).unwrap();
        fs::write(path("store"), pack::pack(&made.files)).unwrap();
    }
}

/// Compares what the present code writes, byte for byte. It serves refactorings that must not touch
/// the formats. A change in the order of file operations changes time stamps and random ids, and
/// fails this test without being a defect.
#[test]
#[ignore = "fails after any change in the order of file operations; for refactorings"]
fn this_code_writes_the_same_bytes() {
    let folder = root().join(env!("CARGO_PKG_VERSION"));
    for made in scenes::all() {
        let (found, wanted) =
            (pack::pack(&made.files), fs::read_to_string(folder.join(format!("{}.store", made.name))));
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_lines(made.name, "files", &lines(&found), &lines(&wanted.unwrap()));
        let entries = fs::read_to_string(folder.join(format!("{}.entries", made.name))).unwrap();
        assert_lines(made.name, "entries", &made.entries, &lines(&entries));
    }
}
