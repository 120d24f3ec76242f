//! The program, as a shell sees it: what it writes, what it exits with, and what it leaves on disk.

use seawal::io::{Create, Directory, DiskStorage, LockMode};
use seawal::machine::{BulkMachine, DecodeError};
use seawal::{Engine, StateMachine, inspect, kv::Kv};
use std::collections::{BTreeMap, hash_map::RandomState};
use std::hash::{BuildHasher, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

struct Ran {
    status: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    /// Asserts the exit status. Whatever it is, the errors are one sentence beside warnings.
    fn exits(self, status: i32) -> Ran {
        assert_eq!(self.status, Some(status), "out: {}\nerr: {}", self.out, self.err);
        let errors = self.err.lines().filter(|line| !line.starts_with("seawal: warning: ")).count();
        assert!(!self.err.contains("panicked") && errors <= 1, "{}", self.err);
        self
    }
}

fn program(command: &str, dir: &Path) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_seawal"));
    program.arg(command).arg("--dir").arg(dir);
    program
}

fn run(command: &str, dir: &Path, args: &[&str]) -> Ran {
    let output = program(command, dir).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn run_with_input(command: &str, dir: &Path, args: &[&str], input: &[u8]) -> Ran {
    let mut child = program(command, dir)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn random(below: u64) -> u64 {
    RandomState::new().build_hasher().finish() % below
}

/// A directory with room for a store and a script.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }

    fn script(&self, text: &[u8]) -> String {
        let path = self.0.path().join("script");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn with_store(script: &str) -> Place {
        let place = Place::new();
        let file = place.script(script.as_bytes());
        run("load", &place.store(), &[&file]).exits(0);
        place
    }
}

/// All files and what they hold.
fn bytes_of(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        })
        .collect()
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

const SMALL: &str =
    "put\tb\t2\nput\ta\\tx\t1\\n\\\\\ncommit\tone\nput\tc\t\\xff\\x00\nput\tgone\t\ncommit\ndel\tgone\ncommit\n";
const SMALL_DUMP: &str = "a\\tx\t1\\n\\\\\nb\t2\nc\t\\xff\\x00\n";

#[test]
fn what_is_loaded_is_dumped_and_comes_back_through_another_load() {
    let place = Place::with_store(SMALL);
    let dump = run("dump", &place.store(), &[]).exits(0).out;
    assert_eq!(dump, SMALL_DUMP);
    let script: String = dump.lines().map(|line| format!("put\t{line}\n")).chain(["commit\n".into()]).collect();
    let again = Place::with_store(&script);
    assert_eq!(run("dump", &again.store(), &[]).exits(0).out, SMALL_DUMP);
    let counted = run("dump", &place.store(), &["--table", "seawal.load"]).exits(0).out;
    assert!(counted.starts_with("transactions\t3 "), "{counted}");
}

/// N6: whatever the bytes and tables are, a dumped script makes the same store again.
#[test]
fn a_dumped_script_loads_every_table_and_every_byte() {
    let place = Place::new();
    let mut entries: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
        ("", b"#no comment".to_vec(), b"\r\n\t\\t\xef\xbb\xbf".to_vec()),
        ("", b"\xef\xbb\xbf\xff\xfe".to_vec(), b"ends with CR\r".to_vec()),
        ("#t", b"commit".to_vec(), b" \t ".to_vec()),
        ("t\t\n\\ \r", b"\0".to_vec(), b"".to_vec()),
        ("seawal.load", b"mine".to_vec(), b"put\tx\ty".to_vec()),
        ("seawal.load", b"transactions".to_vec(), b"9 00000000".to_vec()),
    ];
    entries.extend((0..=255u8).map(|byte| ("bytes", vec![byte], vec![byte; 3])));
    entries.extend((0..2500u32).map(|n| ("many", n.to_be_bytes().to_vec(), b"v".to_vec())));
    let store = Engine::<Kv>::open(place.store()).unwrap();
    let commands = entries.iter().map(|(table, key, value)| seawal::kv::KvCommand::put(*table, &**key, &**value));
    store.execute(seawal::kv::KvCommand::batch(commands)).unwrap();
    let state = |store: &Engine<Kv>| -> Vec<(String, Vec<u8>, Vec<u8>)> {
        let view = store.view().unwrap();
        let entries = view.tables().flat_map(|table| {
            view.range::<[u8]>(table, ..).map(move |(key, value)| (table.to_owned(), key.to_vec(), value.to_vec()))
        });
        entries.filter(|(table, key, _)| (&**table, &**key) != ("seawal.load", b"transactions")).collect()
    };
    let expected = state(&store);
    assert_eq!(expected.len(), entries.len() - 1);
    store.close().unwrap();
    let script = run("dump", &place.store(), &["--script"]).exits(0).out;
    for script in [script.clone(), script.replace('\n', "\r\n"), format!("\u{feff}{script}")] {
        let again = Place::new();
        run_with_input("load", &again.store(), &["-"], script.as_bytes()).exits(0);
        let store = Engine::<Kv>::open(again.store()).unwrap();
        assert!(state(&store) == expected);
    }
    let one = run("dump", &place.store(), &["--script", "--table", "#t"]).exits(0).out;
    assert_eq!(one, "table\t#t\nput\tcommit\t \\t \ncommit\n");
}

/// N6: a script that would write where a load counts is refused, not overwritten in silence.
#[test]
fn a_script_cannot_write_the_count_of_the_load() {
    let place = Place::new();
    let err = run_with_input("load", &place.store(), &["-"], b"table\tseawal.load\ndel\ttransactions\ncommit\n");
    let err = err.exits(7).err;
    assert!(err.contains("line 2:") && err.contains("counts"), "{err}");
}

/// N6: the format stands where one looks for it.
#[test]
fn the_help_of_load_shows_the_format_of_a_script() {
    for flag in ["-h", "--help"] {
        let help = Command::new(env!("CARGO_BIN_EXE_seawal")).args(["load", flag]).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        for part in ["put<TAB>KEY<TAB>VALUE", "del<TAB>KEY", "table<TAB>NAME", "commit", "# TEXT", "\\xHH", "CR LF"] {
            assert!(help.contains(part), "{part}: {help}");
        }
    }
}

/// U10: a script from another system is loaded as it was meant.
#[test]
fn a_script_with_carriage_returns_and_a_byte_order_mark_loads_like_one_without() {
    let place = Place::new();
    let script = format!("\u{feff}# fruit\r\n\r\n{}", SMALL.replace('\n', "\r\n"));
    let file = place.script(script.as_bytes());
    run("load", &place.store(), &[&file]).exits(0);
    assert_eq!(run("dump", &place.store(), &[]).exits(0).out, SMALL_DUMP);
    // and is the same script
    run("load", &place.store(), &["--resume", &place.script(SMALL.as_bytes())]).exits(0);
}

#[test]
fn gzip_is_known_by_its_first_bytes_in_files_and_on_the_standard_input() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(SMALL.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let place = Place::new();
    let file = place.script(&gzip);
    run("load", &place.store(), &[&file]).exits(0);
    assert_eq!(run("dump", &place.store(), &[]).exits(0).out, SMALL_DUMP);
    for input in [&gzip[..], SMALL.as_bytes()] {
        let place = Place::new();
        run_with_input("load", &place.store(), &["-"], input).exits(0);
        assert_eq!(run("dump", &place.store(), &[]).exits(0).out, SMALL_DUMP);
    }
    let place = Place::new();
    let cut = place.script(&gzip[..gzip.len() - 9]);
    assert!(run("load", &place.store(), &[&cut]).exits(3).err.contains("reading the input failed"));
}

#[test]
fn every_durability_loads() {
    for durability in ["sync", "os", "interval=5"] {
        let place = Place::new();
        let file = place.script(SMALL.as_bytes());
        run("load", &place.store(), &["--durability", durability, "--in-flight", "1", &file]).exits(0);
        assert_eq!(run("dump", &place.store(), &[]).exits(0).out, SMALL_DUMP);
    }
    let place = Place::new();
    let file = place.script(SMALL.as_bytes());
    let refused = run("load", &place.store(), &["--durability", "interval=soon", &file]);
    assert_eq!(refused.status, Some(64));
    assert!(!place.store().exists());
}

#[test]
fn a_store_that_has_counted_takes_only_the_same_script_and_only_when_told_to_resume() {
    let place = Place::with_store(SMALL);
    let file = place.script(SMALL.as_bytes());
    assert!(run("load", &place.store(), &[&file]).exits(7).err.contains("--resume"));
    run("load", &place.store(), &["--resume", &file]).exits(0);
    let longer = place.script(format!("{SMALL}put\td\t4\ncommit\n").as_bytes());
    let out = run("load", &place.store(), &["--resume", &longer]).exits(0).out;
    assert!(out.starts_with("loaded 1 transaction with 1 operation after 3"), "{out}");
    let other = place.script(longer_than(4).as_bytes());
    assert!(run("load", &place.store(), &["--resume", &other]).exits(7).err.contains("does not begin with"));
    let shorter = place.script(b"commit\n");
    assert!(run("load", &place.store(), &["--resume", &shorter]).exits(7).err.contains("has 1 transaction, but"));
    assert_eq!(run("dump", &place.store(), &[]).exits(0).out, format!("{SMALL_DUMP}d\t4\n"));
    // forgetting the count makes room for another script
    run("del", &place.store(), &["--table", "seawal.load", "transactions"]).exits(0);
    run("load", &place.store(), &[&shorter]).exits(0);
}

fn longer_than(transactions: usize) -> String {
    "put\tother\t1\ncommit\n".repeat(transactions + 1)
}

#[test]
fn a_bad_script_is_named_with_its_line_and_all_before_its_transaction_is_kept() {
    for (script, line) in [
        ("put\ta\t1\ncommit\nput\tb\t2\nput\tc\ncommit\n", 4),
        ("put\ta\t1\ncommit\nput\tb\t2\nfrob\n", 4),
        ("put\ta\t1\ncommit\nput\tb\\q\t2\ncommit\n", 3),
        ("put\ta\t1\ncommit\nput\tb\t2\nput\tc\t3\n", 4),
        (&format!("put\ta\t1\ncommit\nput\tb\t2\nput\t{}\t3\ncommit\n", "k".repeat(70_000)), 4),
    ] {
        let place = Place::new();
        let file = place.script(script.as_bytes());
        let err = run("load", &place.store(), &[&file]).exits(7).err;
        assert!(err.contains(&file) && err.contains(&format!("line {line}:")), "{err}");
        assert_eq!(run("dump", &place.store(), &[]).exits(0).out, "a\t1\n");
        run("verify", &place.store(), &[]).exits(0);
    }
    let place = Place::new();
    run("load", &place.store(), &["no/such/file"]).exits(3);
    assert!(!place.store().exists(), "nothing is created for a script that is not there");
}

/// A script that overwrites and removes, and what stands at its end.
fn long_script(transactions: usize) -> (String, String) {
    let (mut script, mut model) = (String::new(), BTreeMap::new());
    for n in 0..transactions {
        for k in 0..3 {
            let key = format!("key {:04}", (n * 31 + k * 7) % 900);
            if (n + k) % 5 == 0 {
                script.push_str(&format!("del\t{key}\n"));
                model.remove(&key);
            } else {
                script.push_str(&format!("put\t{key}\t{n} {k}\n"));
                model.insert(key, format!("{n} {k}"));
            }
        }
        script.push_str(&format!("commit\t{n}\n"));
    }
    (script, model.iter().map(|(key, value)| format!("{key}\t{value}\n")).collect())
}

#[test]
fn a_load_that_is_killed_again_and_again_goes_on_where_it_was() {
    let (script, expected) = long_script(4000);
    let place = Place::new();
    let file = place.script(script.as_bytes());
    let mut kills = 0;
    for round in 0.. {
        let mut child = program("load", &place.store())
            .args(["--resume", "--in-flight", "4", &file])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        if kills < 8 {
            std::thread::sleep(Duration::from_millis(20 + random(120)));
            child.kill().unwrap();
        }
        let output = child.wait_with_output().unwrap();
        if output.status.code().is_some() {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            break;
        }
        kills += 1;
        let verified = run("verify", &place.store(), &[]);
        assert!(matches!(verified.status, Some(0 | 1 | 4)), "round {round}: {}", verified.out);
    }
    assert!(kills > 0, "the load was too fast to be killed");
    assert_eq!(run("dump", &place.store(), &[]).exits(0).out, expected);
    run("verify", &place.store(), &[]).exits(0);
}

#[test]
fn entries_are_put_read_scanned_and_removed() {
    let place = Place::new();
    let store = place.store();
    for key in ["a1", "a2", "b\\t", "c"] {
        run("put", &store, &[key, "v\\xfe", "--table", "t"]).exits(0);
    }
    let keys = |args: &[&str]| {
        let out = run("scan", &store, &[&["--table", "t"], args].concat()).exits(0).out;
        out.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(keys(&[]), "a1 a2 b\\t c");
    assert_eq!(keys(&["--prefix", "a"]), "a1 a2");
    assert_eq!(keys(&["--from", "a2", "--to", "c"]), "a2 b\\t");
    assert_eq!(keys(&["--reverse", "--limit", "2"]), "c b\\t");
    assert_eq!(keys(&["--from", "c", "--to", "a"]), "");
    assert_eq!(run("get", &store, &["--table", "t", "b\\t"]).exits(0).out, "v\\xfe\n");
    let raw = program("get", &store).args(["--table", "t", "--raw", "c"]).output().unwrap();
    assert_eq!(raw.stdout, b"v\xfe");
    assert!(run("get", &store, &["c"]).exits(1).err.contains("no such key"));
    run("del", &store, &["--table", "t", "c"]).exits(0);
    run("get", &store, &["--table", "t", "c"]).exits(1);
    run("put", &store, &["bad\\escape", "v"]).exits(64);
    run("checkpoint", &store, &[]).exits(0);
    let backup = place.0.path().join("backup");
    run("backup", &store, &["--to", backup.to_str().unwrap()]).exits(0);
    run("verify", &backup, &[]).exits(0);
    assert_eq!(
        run("dump", &backup, &["--table", "t"]).exits(0).out,
        run("dump", &store, &["--table", "t"]).exits(0).out
    );
    run("backup", &store, &["--to", backup.to_str().unwrap()]).exits(3);
    let figures: serde_json::Value = serde_json::from_str(&run("stat", &store, &["--json"]).exits(0).out).unwrap();
    assert_eq!((figures["entries"].as_u64(), figures["tables"][0]["name"].as_str()), (Some(3), Some("t")));
    assert!(run("stat", &store, &[]).exits(0).out.contains("machine.name: \"kv\""));
}

#[test]
fn stat_says_which_path_writes_take_and_what_groups_the_log_holds() {
    let place = interrupted_store();
    let out = run("stat", &place.store(), &["--json"]).exits(0).out;
    let figures: serde_json::Value = serde_json::from_str(&out).unwrap();
    let log = &figures["log"];
    assert!(["direct", "buffered, then synced"].contains(&log["write_path"].as_str().unwrap()), "{out}");
    // one commit after the other, each in a frame of its own
    let groups = &log["groups"];
    assert_eq!(groups["frames"], figures["recovery"]["records"], "{out}");
    assert_eq!((groups["mean"].as_f64(), groups["most"].as_u64()), (Some(1.0), Some(1)), "{out}");
    assert_eq!(groups["by_size"][0]["records_at_least"].as_u64(), Some(1), "{out}");
    assert!(run("stat", &place.store(), &[]).exits(0).out.contains("log.groups.most: 1\n"));
}

/// A store left as a kill leaves it, with snapshots and a log behind them.
fn interrupted_store() -> Place {
    let place = Place::with_store(&long_script(300).0);
    let store = Engine::<Kv>::open(place.store()).unwrap();
    store.checkpoint().unwrap();
    (0..9).for_each(|n| assert!(store.insert(format!("late {n}"), vec![n; 3000]).is_ok()));
    // an idle log proves its last frames
    std::thread::sleep(Duration::from_millis(100));
    let files = bytes_of(&place.store());
    // this ends the log cleanly, which a kill does not
    drop(store);
    std::fs::remove_dir_all(place.store()).unwrap();
    std::fs::create_dir(place.store()).unwrap();
    files.into_iter().for_each(|(name, bytes)| std::fs::write(place.store().join(name), bytes).unwrap());
    place
}

/// The newest segment, and where in it the log ends.
fn log_end(dir: &Path) -> (PathBuf, usize) {
    let report = inspect::verify(inspect::storage(dir).unwrap()).unwrap();
    let survey = inspect::survey(inspect::storage(dir).unwrap()).unwrap();
    let segment = survey.segments.last().unwrap();
    let offset = report.log.unwrap().1.since(segment.base) + u64::from(survey.block_bytes.unwrap());
    (dir.join(&segment.name), offset as usize)
}

#[test]
fn verify_tells_clean_from_torn_from_damaged() {
    let place = interrupted_store();
    let store = place.store();
    let out = run("verify", &store, &[]).exits(0).out;
    assert!(out.ends_with("clean\n") && out.contains("replayed"), "{out}");

    let (segment, end) = log_end(&store);
    let name = segment.file_name().unwrap().to_str().unwrap().to_owned();
    let whole = std::fs::read(&segment).unwrap();
    change(&segment, |bytes| bytes[end..end + 700].fill(0xab));
    let out = run("verify", &store, &[]).exits(1).out;
    assert!(out.contains("torn tail") && out.contains(&name) && out.contains(&format!("offset {end}")), "{out}");
    assert!(run("inspect", &store, &[]).exits(0).out.contains("torn"));

    change(&segment, |bytes| bytes[4096 + 100] ^= 1);
    let out = run("verify", &store, &[]).exits(2).out;
    assert!(out.contains(&name) && out.contains("offset 4096") && out.contains("LSN"), "{out}");
    assert!(out.contains("it does not open"), "{out}");
    let err = run("dump", &store, &[]).exits(2).err;
    assert!(err.contains(&name), "{err}");
    assert!(run("inspect", &store, &["--records"]).exits(2).out.contains("DAMAGE"));
    let before = bytes_of(&store);
    run("put", &store, &["k", "v"]).exits(2);
    let after: BTreeMap<_, _> = bytes_of(&store).into_iter().filter(|(name, _)| name != "LOCK").collect();
    assert_eq!(after, before.into_iter().filter(|(name, _)| name != "LOCK").collect());

    std::fs::write(&segment, whole).unwrap();
    run("verify", &store, &[]).exits(0);
}

#[test]
fn a_damaged_snapshot_degrades_a_store_until_no_other_stands_in() {
    let place = interrupted_store();
    let store = place.store();
    let dump = run("dump", &store, &[]).exits(0).out;
    let snapshots = inspect::survey(inspect::storage(&store).unwrap()).unwrap().snapshots;
    assert_eq!(snapshots.len(), 2);
    for (at, opens, status) in [(0, true, 1), (1, false, 2)] {
        let name = snapshots[at].name();
        change(&store.join(&name), |bytes| bytes[700] ^= 0x10);
        let out = run("verify", &store, &[]).exits(status).out;
        assert!(out.contains(&name) && out.contains("offset 512"), "{out}");
        assert_eq!(out.contains("degraded: it opens"), opens, "{out}");
        let dumped = run("dump", &store, &[]);
        if opens { assert_eq!(dumped.exits(0).out, dump) } else { drop(dumped.exits(2)) }
    }
}

#[test]
fn a_damaged_manifest_copy_degrades_a_store_as_the_other_stands_in() {
    let place = interrupted_store();
    let store = place.store();
    let dump = run("dump", &store, &[]).exits(0).out;
    change(&store.join("MANIFEST-1"), |bytes| bytes[30] ^= 0x10);
    assert!(run("verify", &store, &[]).exits(1).out.contains("MANIFEST-1"));
    assert_eq!(run("dump", &store, &[]).exits(0).out, dump);
    std::fs::remove_file(store.join("MANIFEST-1")).unwrap();
    assert!(run("verify", &store, &[]).exits(1).out.contains("missing"));
}

#[test]
fn commands_that_only_read_change_nothing() {
    let place = interrupted_store();
    let store = place.store();
    let (segment, end) = log_end(&store);
    change(&segment, |bytes| bytes[end..end + 700].fill(0xab));
    std::fs::write(store.join("00000000deadbeef.snap.tmp"), "unfinished").unwrap();
    let before = bytes_of(&store);
    for (command, args, status) in [
        ("dump", &[][..], 0),
        ("get", &["late 3"], 0),
        ("scan", &["--prefix", "late"], 0),
        ("stat", &["--json"], 0),
        ("inspect", &["--records"], 0),
        ("verify", &[], 1),
        ("backup", &["--to", place.0.path().join("copy").to_str().unwrap()], 0),
    ] {
        run(command, &store, args).exits(status);
        assert!(bytes_of(&store) == before, "{command} changed the store");
    }
}

/// Commands that need the lock of a store, with their arguments.
fn commands_on_a_store(script: &str) -> [(&'static str, Vec<&str>); 7] {
    [
        ("put", vec!["k", "v"]),
        ("dump", vec![]),
        ("verify", vec![]),
        ("inspect", vec![]),
        ("stat", vec![]),
        ("checkpoint", vec![]),
        ("load", vec!["--resume", script]),
    ]
}

#[test]
fn a_store_that_is_in_use_is_left_alone() {
    let place = Place::with_store(SMALL);
    let open = Engine::<Kv>::open(place.store()).unwrap();
    let file = place.script(SMALL.as_bytes());
    for (command, args) in commands_on_a_store(&file) {
        let err = run(command, &place.store(), &args).exits(5).err;
        assert!(err.contains("in use") && err.contains(&std::process::id().to_string()), "{err}");
    }
    drop(open);
    run("verify", &place.store(), &[]).exits(0);
}

/// S7: with `--wait`, a command that meets an owner or a reader runs once that has ended.
#[test]
fn a_command_waits_for_a_store_that_is_in_use() {
    let place = Place::with_store(SMALL);
    let file = place.script(SMALL.as_bytes());
    for (command, args) in commands_on_a_store(&file) {
        let open = Engine::<Kv>::open(place.store()).unwrap();
        let err = run(command, &place.store(), &[&["--wait", "0.05"], &args[..]].concat()).exits(5).err;
        assert!(err.contains("--wait"), "{err}");
        let end = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(150));
            open.close().unwrap();
        });
        run(command, &place.store(), &[&["--wait", "60"], &args[..]].concat()).exits(0);
        end.join().unwrap();
    }
    for wrong in ["soon", "-1", "NaN"] {
        assert_eq!(run("dump", &place.store(), &["--wait", wrong]).status, Some(64), "{wrong}");
    }
}

#[test]
fn what_is_no_store_is_said_to_be_none() {
    let place = Place::new();
    let (missing, empty) = (place.0.path().join("missing"), place.0.path().join("empty"));
    std::fs::create_dir(&empty).unwrap();
    std::fs::write(empty.join("notes.txt"), "mine").unwrap();
    let file = PathBuf::from(place.script(b"text"));
    for dir in [&missing, &empty, &file] {
        for command in ["dump", "stat", "inspect", "verify", "checkpoint"] {
            run(command, dir, &[]).exits(4);
        }
        run("get", dir, &["k"]).exits(4);
        run("del", dir, &["k"]).exits(4);
    }
    assert!(!missing.exists());
    assert_eq!(bytes_of(&empty).keys().collect::<Vec<_>>(), ["notes.txt"], "no lock file is left either");
    // another machine's store: looked at, not replayed, not opened
    let log = place.0.path().join("log");
    let opened = seawal::wal::Log::open(&log, seawal::wal::LogOptions::default()).unwrap();
    opened.append(b"a record").unwrap().wait().unwrap();
    opened.close().unwrap();
    let out = run("verify", &log, &[]).exits(0).out;
    assert!(out.contains("not replayed") && out.contains("\"log\""), "{out}");
    assert!(run("inspect", &log, &["--records"]).exits(0).out.contains("61207265636f7264"));
    run("dump", &log, &[]).exits(4);
}

/// A machine that the program does not know.
#[derive(Clone, Default)]
struct Ledger(u64);

impl BulkMachine for Ledger {}

impl StateMachine for Ledger {
    const NAME: &'static str = "ledger";
    const VERSION: u32 = 1;
    type Command = i64;
    type Reply = ();
    type Rejection = ();

    fn apply(&mut self, add: &i64) -> Result<((), i64), ()> {
        self.0 = self.0.checked_add_signed(*add).ok_or(())?;
        Ok(((), -add))
    }
    fn encode(add: &i64, out: &mut Vec<u8>) {
        out.extend_from_slice(&add.to_le_bytes());
    }
    fn decode(bytes: &[u8], _version: u32) -> Result<i64, DecodeError> {
        bytes.try_into().map(i64::from_le_bytes).map_err(|_| DecodeError::new("eight bytes"))
    }
    fn save(&self, out: &mut dyn Write) -> std::io::Result<()> {
        out.write_all(&self.0.to_le_bytes())
    }
    fn load(input: &mut dyn std::io::BufRead, _version: u32) -> Result<Self, DecodeError> {
        let mut bytes = [0; 8];
        input.read_exact(&mut bytes)?;
        Ok(Ledger(u64::from_le_bytes(bytes)))
    }
}

/// N4: the store of another machine is a store, and what needs no machine works on it.
#[test]
fn what_needs_no_machine_works_on_the_store_of_any() {
    let place = Place::new();
    let dir = place.store();
    let store = Engine::<Ledger>::open(&dir).unwrap();
    store.checkpoint().unwrap();
    (1..=9).for_each(|n| store.execute(n).unwrap());
    store.close().unwrap();
    let before = bytes_of(&dir);
    let stat: serde_json::Value = serde_json::from_str(&run("stat", &dir, &["--json"]).exits(0).out).unwrap();
    assert_eq!((stat["machine"]["name"].as_str(), stat["machine"]["version"].as_u64()), (Some("ledger"), Some(1)));
    assert!(stat["log"]["records"].as_u64().is_some() && stat["log"]["end"].as_u64().is_some(), "{stat}");
    assert!(stat["snapshots"].as_array().is_some_and(|snapshots| !snapshots.is_empty()), "{stat}");
    assert!(run("stat", &dir, &[]).exits(0).out.contains("machine.name: \"ledger\"\n"));
    assert!(run("inspect", &dir, &["--records"]).exits(0).out.contains("machine \"ledger\" version 1"));
    assert!(run("verify", &dir, &[]).exits(0).out.ends_with("clean\n"));
    let salvaged = place.0.path().join("salvaged");
    for (command, args) in [
        ("dump", &[][..]),
        ("scan", &[]),
        ("get", &["k"]),
        ("put", &["k", "v"]),
        ("checkpoint", &[]),
        ("salvage", &["--to", salvaged.to_str().unwrap()]),
    ] {
        let err = run(command, &dir, args).exits(4).err;
        assert!(err.contains("is a store of the machine \"ledger\" version 1"), "{err}");
        assert!(err.contains("verify") && err.contains("backup") && !err.contains("not a store"), "{err}");
        if command == "salvage" {
            assert!(err.contains("salvage replays its commands, which takes that machine"), "{err}");
            assert!(!salvaged.exists(), "it is refused before anything is created");
        }
    }
    let copy = place.0.path().join("copy");
    let back_up = || run("backup", &dir, &["--to", copy.to_str().unwrap()]);
    assert_eq!(back_up().exits(0).err, "");
    run("verify", &copy, &[]).exits(0);
    let opened = Engine::<Ledger>::open(&copy).unwrap();
    assert_eq!(opened.read(|ledger| ledger.0).unwrap(), 45);
    let err = back_up().exits(5).err;
    assert!(err.contains("copy is in use"), "{err}");
    opened.close().unwrap();
    drop(opened);
    assert!(back_up().exits(3).err.contains("holds a store already"));
    std::fs::remove_file(dir.join("MANIFEST-1")).unwrap();
    std::fs::remove_dir_all(&copy).unwrap();
    assert!(back_up().exits(0).err.contains("warning: "));
    std::fs::write(dir.join("MANIFEST-1"), &before["MANIFEST-1"]).unwrap();
    let after = bytes_of(&dir).into_iter().filter(|(name, _)| name != "LOCK");
    assert!(after.eq(before.into_iter().filter(|(name, _)| name != "LOCK")));
}

#[test]
fn foreign_files_are_named_and_do_no_harm() {
    let place = Place::with_store(SMALL);
    std::fs::write(place.store().join("notes.txt"), "mine").unwrap();
    std::fs::create_dir(place.store().join("subdirectory")).unwrap();
    let out = run("verify", &place.store(), &[]).exits(0).out;
    assert!(out.contains("notes.txt") && out.ends_with("clean\n"), "{out}");
    run("put", &place.store(), &["k", "v"]).exits(0);
    assert_eq!(std::fs::read(place.store().join("notes.txt")).unwrap(), b"mine");
}

#[test]
fn whatever_the_files_hold_there_is_one_sentence_and_no_panic() {
    let place = interrupted_store();
    let whole = bytes_of(&place.store());
    for (name, bytes) in whole.iter().filter(|(name, bytes)| !name.starts_with("spare") && !bytes.is_empty()) {
        for round in 0..3 {
            let broken = match round {
                0 => bytes[..random(bytes.len() as u64) as usize].to_vec(),
                1 => bytes.iter().enumerate().map(|(at, byte)| if at % 97 == 13 { !byte } else { *byte }).collect(),
                _ => (0..bytes.len()).map(|at| (at * 131 % 251) as u8).collect(),
            };
            std::fs::write(place.store().join(name), broken).unwrap();
            for command in ["verify", "dump", "inspect", "stat"] {
                let ran = run(command, &place.store(), &[]);
                let known = matches!(ran.status, Some(0..=4 | 6));
                assert!(known && ran.err.lines().count() <= 1, "{command}, {name}: {:?} {}", ran.status, ran.err);
                assert!(!ran.err.contains("internal error"), "{command}, {name}: {}", ran.err);
            }
        }
        std::fs::write(place.store().join(name), bytes).unwrap();
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let place = Place::with_store(&long_script(3000).0);
    for command in ["dump", "scan", "inspect"] {
        let mut child = program(command, &place.store()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""), "{command}");
    }
}

/// S7: `--wait` covers the directory that a command writes, too.
#[test]
fn a_command_waits_for_a_target_that_is_in_use() {
    let place = Place::with_store(SMALL);
    let ledgers = place.0.path().join("ledgers");
    Engine::<Ledger>::open(&ledgers).unwrap().close().unwrap();
    for (command, source) in [("backup", place.store()), ("salvage", place.store()), ("backup", ledgers)] {
        let target = tempfile::tempdir().unwrap();
        let to = ["--to", target.path().to_str().unwrap()];
        let lock = DiskStorage::open(target.path(), Create::Never).unwrap().lock(LockMode::Exclusive).unwrap();
        let err = run(command, &source, &[&["--wait", "0.05"], &to[..]].concat()).exits(5).err;
        assert!(err.contains(to[1]) && err.contains("--wait"), "{err}");
        let end = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(150));
            drop(lock);
        });
        run(command, &source, &[&["--wait", "60"], &to[..]].concat()).exits(0);
        end.join().unwrap();
        run("verify", target.path(), &[]).exits(0);
    }
}

#[test]
fn arguments_that_make_no_sense_have_a_status_of_their_own() {
    let program = || Command::new(env!("CARGO_BIN_EXE_seawal"));
    assert_eq!(program().arg("frobnicate").output().unwrap().status.code(), Some(64));
    assert_eq!(program().arg("dump").output().unwrap().status.code(), Some(64));
    let help = program().arg("--help").output().unwrap();
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().contains("Exit status"));
}

#[test]
fn the_demo_proves_its_point_and_cleans_up() {
    let place = Place::new();
    let demo = |args: &[&str]| {
        let mut demo = Command::new(env!("CARGO_BIN_EXE_seawal"));
        let output = demo.arg("demo").args(args).env("TMPDIR", place.0.path()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    assert!(demo(&["--rounds", "2"]).contains("proved: in 2 kills none of"));
    assert_eq!(std::fs::read_dir(place.0.path()).unwrap().count(), 0);
    let store = place.store();
    // and goes on with the books of an earlier one
    for _ in 0..2 {
        demo(&["--rounds", "1", "--dir", store.to_str().unwrap()]);
    }
    run("verify", &store, &[]).exits(0);
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let place = Place::new();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_seawal"));
    let mut demo = demo.arg("demo").env("TMPDIR", place.0.path()).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(200 + random(600)));
    demo.kill().unwrap();
    demo.wait().unwrap();
    for _ in 0..100 {
        if std::fs::read_dir(place.0.path()).unwrap().count() == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the demo's directory is still there");
}

#[test]
fn salvage_copies_what_opens_and_tells_what_is_missing_from_what_does_not() {
    let script: String = (0..300).map(|n| format!("put\tkey {n:03}\tvalue {n}\ncommit\n")).collect();
    let place = Place::new();
    let file = place.script(script.as_bytes());
    run("load", &place.store(), &[&file, "--in-flight", "1"]).exits(0);
    let copy = place.0.path().join("copy");
    let out = run("salvage", &place.store(), &["--to", copy.to_str().unwrap()]).exits(0).out;
    assert!(out.ends_with("whole: the store opens as it is, and all of it was copied\n"), "{out}");
    let dump = run("dump", &place.store(), &[]).exits(0).out;
    assert_eq!(run("dump", &copy, &[]).exits(0).out, dump);

    // without its snapshots, and with a hole in the log
    let is = |name: &str, end: &str| name.ends_with(end);
    let names: Vec<String> = bytes_of(&place.store()).into_keys().collect();
    for name in names.iter().filter(|name| is(name, ".snap")) {
        std::fs::remove_file(place.store().join(name)).unwrap();
    }
    let segment = place.store().join(names.iter().find(|name| is(name, ".seg")).unwrap());
    change(&segment, |bytes| bytes[100 * 4096..101 * 4096].fill(7));
    let damaged = bytes_of(&place.store());
    run("dump", &place.store(), &[]).exits(2);
    let part = place.0.path().join("part");
    let out = run("salvage", &place.store(), &["--to", part.to_str().unwrap()]).exits(1).out;
    assert!(out.contains("is damaged at offset 409600 (LSN 409600)") && out.contains("missing: LSN "), "{out}");
    let kept = run("dump", &part, &[]).exits(0).out;
    assert!(!kept.is_empty() && kept != dump && dump.starts_with(&kept), "{kept}");
    run("verify", &part, &[]).exits(0);
    run("salvage", &place.store(), &["--to", part.to_str().unwrap()]).exits(3);
    let beyond = place.0.path().join("beyond");
    let out = run("salvage", &place.store(), &["--beyond", "--to", beyond.to_str().unwrap()]).exits(1).out;
    assert!(out.contains("; carried out: ") && out.contains("which nothing proves"), "{out}");
    assert_eq!(run("dump", &beyond, &[]).exits(0).out.lines().count(), 299, "one transaction lay in the hole");

    // with nothing to begin from
    change(&segment, |bytes| bytes[..2 * 4096].fill(7));
    let nothing = place.0.path().join("nothing");
    let out = run("salvage", &place.store(), &["--to", nothing.to_str().unwrap()]).exits(2).out;
    assert!(out.ends_with("nothing is left that a state can begin from; no store was written\n"), "{out}");
    run("verify", &nothing, &[]).exits(4);
    change(&segment, |bytes| *bytes = damaged[segment.file_name().unwrap().to_str().unwrap()].clone());
    assert_eq!(bytes_of(&place.store()), damaged);
    run("salvage", &place.0.path().join("nowhere"), &["--to", nothing.to_str().unwrap()]).exits(4);
}

fn torture(args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_seawal")).arg("torture").args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn torture_explores_for_as_long_as_asked_and_says_how_fast() {
    for more in [&["--seed", "7"][..], &["--failures", "--threads", "1"]] {
        let out = torture(&[&["--secs", "1", "--steps", "20"], more].concat()).exits(0).out;
        let mut lines = out.lines().rev();
        let (verdict, last) = (lines.next().unwrap(), lines.next().unwrap());
        assert!(out.starts_with("seeds from ") && last.ends_with(" states a second"), "{out}");
        assert!(!last.contains(" 0 states"), "{out}");
        // N7: an end without a finding is told as one
        assert!(verdict.starts_with("nothing is wrong: no promise was broken in "), "{out}");
    }
    let out = torture(&["--secs", "0"]).exits(0).out;
    assert!(out.contains("nothing was explored"), "{out}");
}

/// N7: each message is true of its object, and damage says what to do about it.
#[test]
fn a_missing_segment_is_told_of_the_directory_without_an_offset_and_with_what_to_do() {
    let place = interrupted_store();
    let store = place.store();
    let (segment, _) = log_end(&store);
    std::fs::remove_file(segment).unwrap();
    let err = run("dump", &store, &[]).exits(2).err;
    assert!(err.contains("is missing") && !err.contains("offset"), "{err}");
    assert!(err.contains("`seawal verify`") && err.contains("`seawal salvage`"), "{err}");
    let out = run("verify", &store, &[]).exits(2).out;
    assert!(out.contains("is missing") && !out.contains("offset"), "{out}");
    assert!(
        !out.contains("`seawal verify`") && out.ends_with("`seawal salvage` copies what is intact into a new store\n"),
        "{out}"
    );
}

/// N7: every report of a store with one of each thing counts in the singular.
#[test]
fn one_of_a_kind_is_told_in_the_singular() {
    let place = Place::new();
    let store = place.store();
    let loaded = run_with_input("load", &store, &["-"], b"put\ta\t1\ncommit\n").exits(0).out;
    assert!(loaded.starts_with("loaded 1 transaction with 1 operation in"), "{loaded}");
    let copy = place.0.path().join("copy");
    let salvaged = run("salvage", &store, &["--to", copy.to_str().unwrap()]).exits(0).out;
    for out in [loaded, salvaged, run("verify", &store, &[]).exits(0).out, run("inspect", &store, &[]).exits(0).out] {
        for wrong in ["transactions", "operations", "snapshots", "segments", "frames", "records", "copies"] {
            let one = |text: &str| text.ends_with(" 1") || text == "1";
            assert!(!out.split(wrong).any(|text| one(text.trim_end_matches(' '))), "{wrong}: {out}");
        }
    }
}

/// N7: whatever command one asks for help, the exit statuses are there.
#[test]
fn the_help_of_every_command_lists_the_exit_statuses() {
    for command in ["load", "dump", "get", "put", "stat", "backup", "inspect", "verify", "salvage", "torture"] {
        for flag in ["-h", "--help"] {
            let help = Command::new(env!("CARGO_BIN_EXE_seawal")).args([command, flag]).output().unwrap();
            let help = String::from_utf8(help.stdout).unwrap();
            assert!(help.contains("Exit status:") && help.contains("the arguments are invalid"), "{command}: {help}");
        }
    }
}

#[test]
fn torture_replays_a_seed_or_steps_of_it_and_refuses_what_is_no_replay() {
    for replay in ["5", "5:0-3,7", "f5:1", "5:"] {
        let out = torture(&["--steps", "4", "--replay", replay]).exits(0).out;
        let verdict = format!("replay {replay}: nothing");
        assert!(out.starts_with("1 seed, ") && out.lines().last().unwrap().starts_with(&verdict), "{out}");
    }
    for args in [&["--replay", "5:3-1"][..], &["--replay", "five"], &["--replay", "5", "--seed", "3"]] {
        let ran = torture(args);
        assert_eq!((ran.status, ran.out.as_str()), (Some(64), ""), "{args:?}: {}", ran.err);
    }
    assert!(torture(&["--replay", "five"]).err.contains("\"five\" is no replay"));
}

/// N2: `get`, `put` and `stat` printed no warning.
#[test]
fn every_command_that_opens_a_degraded_store_says_so_on_stderr() {
    let place = Place::with_store("put\tkey\tvalue\ncommit\n");
    std::fs::remove_file(place.store().join("MANIFEST-0")).unwrap();
    for (command, args) in [("get", &["key"][..]), ("stat", &[]), ("scan", &[]), ("put", &["key", "other"])] {
        let ran = run(command, &place.store(), args).exits(0);
        assert!(ran.err.contains("seawal: warning: ") && ran.err.contains("MANIFEST-0"), "{command}: {}", ran.err);
        assert!(!ran.out.contains("warning: "), "{command}: {}", ran.out);
    }
}

/// S8: what stands in the place of a store's directory, or above it, is named.
#[test]
fn what_is_no_directory_is_named_by_a_command_that_would_create_one() {
    let place = Place::new();
    let (file, link) = (PathBuf::from(place.script(b"text")), place.0.path().join("link"));
    std::os::unix::fs::symlink("/nothing/here", &link).unwrap();
    for (at, kind) in [(&file, "a regular file"), (&link, "a link that leads nowhere")] {
        for dir in [at.clone(), at.join("store"), at.join("above/store")] {
            let ran = run("put", &dir, &["k", "v"]);
            assert!(matches!(ran.status, Some(3 | 4)), "{:?}", ran.status);
            assert!(ran.err.contains(kind) && ran.err.contains(at.to_str().unwrap()), "{}", ran.err);
        }
    }
}

/// S8: a target that is the source is refused, by whatever path.
#[test]
fn a_store_is_not_copied_into_itself() {
    let place = Place::with_store(SMALL);
    let link = place.0.path().join("link");
    std::os::unix::fs::symlink(place.store(), &link).unwrap();
    for to in [place.store(), link, place.store().join("../store")] {
        for command in ["backup", "salvage"] {
            let err = run(command, &place.store(), &["--to", to.to_str().unwrap()]).exits(64).err;
            assert!(err.contains("is the directory of --dir"), "{err}");
        }
    }
}

/// S9: no umask keeps the owner of a new store from it. Permissions that do are named.
#[test]
fn a_store_that_any_umask_creates_can_be_used_by_its_owner() {
    const USER: u32 = 65534;
    let root = tempfile::tempdir().unwrap();
    let (home, copy) = (root.path().join("home"), root.path().join("seawal"));
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir(&home).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_seawal"), &copy).unwrap();
    // the permissions bind every user but root
    let is_root = std::fs::metadata(&home).unwrap().uid() == 0;
    if is_root && std::os::unix::fs::chown(&home, Some(USER), Some(USER)).is_err() {
        return;
    }
    let run = |umask: &str, arguments: &[&str], dir: &Path| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask $0 && exec \"$@\"", umask]).arg(&copy).args(arguments).arg("--dir").arg(dir);
        if is_root {
            shell.uid(USER).gid(USER);
        }
        let output = shell.current_dir("/").output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for umask in ["0177", "0777", "0022"] {
        let dir = home.join(format!("{umask}/above/store"));
        for value in ["1", "2"] {
            assert_eq!(run(umask, &["put", "k", value], &dir), (Some(0), String::new()), "{umask}");
        }
        assert_eq!(run(umask, &["checkpoint"], &dir), (Some(0), String::new()), "{umask}");
        assert_eq!(std::fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        for entry in dir.read_dir().unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().mode() & 0o777, 0o600, "{entry:?}");
        }
    }
    let dir = home.join("0022/above/store");
    std::fs::set_permissions(dir.join("LOCK"), std::fs::Permissions::from_mode(0o000)).unwrap();
    let (status, err) = run("0022", &["put", "k", "v"], &dir);
    assert!(status == Some(3) && err.contains("chmod u+rw LOCK") && !err.contains("belongs"), "{err}");
}
