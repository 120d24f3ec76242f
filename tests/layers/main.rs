//! Holds the layers of the crate: which folder may use which, that there are no circles, and that
//! files, clocks and threads are reached from one place.
//!
//! The table below is the truth about the layers; `docs/architecture.md` explains it. A new edge
//! needs a row with its reason.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod modules;
mod parser_tests;

use modules::{Modules, Names, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;

/// `(user, used, why)`: each edge between folders (and single files) of `src`, the lower layers
/// first.
const EDGES: &[(&str, &str, &str)] = &[
    ("error", "ids", "an error names the LSN where something is wrong"),
    ("format", "ids", "headers and records hold the identifiers"),
    ("io", "error", "files with names answer with the crate's error"),
    ("options", "durability", "the default durability of a commit"),
    ("options", "error", "settings that contradict each other are refused"),
    ("serialize", "error", "errors are serialized as their text"),
    ("meters", "io", "atomics, and the clock that a simulator decides"),
    ("options", "io", "whether a missing directory is created"),
    ("machine", "io", "the machine's own parallel parts take locks and threads from io::sync"),
    ("sim", "error", "a choice that is not there is an invalid argument"),
    ("sim", "io", "the simulated disk implements the traits"),
    ("store", "error", "damage is named with its file and offset"),
    ("store", "format", "the manifest's layout"),
    ("store", "ids", "files are named by segment and LSN"),
    ("store", "io", "everything on disk goes through the traits"),
    ("txn", "durability", "a commit becomes visible by its durability"),
    ("txn", "error", "refused locks and expired transactions"),
    ("txn", "format", "an undo is logged as records"),
    ("txn", "ids", "transactions and LSNs"),
    ("txn", "io", "locks and atomics"),
    ("txn", "machine", "footprints are what is locked, inverses are what is kept"),
    ("wal", "count", "counts in a report have their noun"),
    ("wal", "durability", "each append chooses what its record survives"),
    ("wal", "error", "failed writes and damage"),
    ("wal", "events", "failures are told to subscribers"),
    ("wal", "format", "frames and segment headers"),
    ("wal", "ids", "LSNs, epochs and segments"),
    ("wal", "io", "files, buffers, threads and clocks"),
    ("wal", "options", "sizes and limits"),
    ("wal", "store", "segments are files of the store's directory"),
    ("wal", "varint", "the index of frames keeps differences of LSNs"),
    ("snapshot", "error", "failed writes and damage"),
    ("snapshot", "format", "chunks and headers"),
    ("snapshot", "ids", "a snapshot is named by its LSN"),
    ("snapshot", "io", "files, buffers and threads"),
    ("snapshot", "machine", "the machine writes and reads its state"),
    ("snapshot", "options", "whether the store has threads of its own"),
    ("snapshot", "store", "a snapshot is a file of the store's directory"),
    ("snapshot", "txn", "a snapshot holds the transactions that are open"),
    ("recovery", "error", "damage and what replay cannot do"),
    ("recovery", "format", "records and manifest entries"),
    ("recovery", "ids", "LSNs, epochs and transactions"),
    ("recovery", "io", "files, threads and clocks"),
    ("recovery", "machine", "commands are decoded and redone"),
    ("recovery", "options", "the policy and the progress callback"),
    ("recovery", "snapshot", "the newest whole snapshot is loaded"),
    ("recovery", "store", "the directory is opened and its manifest read"),
    ("recovery", "txn", "open transactions are rebuilt and undone"),
    ("recovery", "wal", "the log is scanned, cut and continued"),
    ("checkpoint", "error", "failed checkpoints and the full log"),
    ("checkpoint", "events", "checkpoints are told to subscribers"),
    ("checkpoint", "meters", "checkpoints and the log's growth are measured"),
    ("checkpoint", "format", "snapshot headers, manifest entries and the records of digests"),
    ("checkpoint", "ids", "a snapshot is named by its LSN"),
    ("checkpoint", "io", "locks, clocks and the storage"),
    ("checkpoint", "machine", "the state that is frozen is a machine"),
    ("checkpoint", "options", "limits and rates"),
    ("checkpoint", "recovery", "a checkpoint by replay is a recovery whose state is saved"),
    ("checkpoint", "snapshot", "it writes one"),
    ("checkpoint", "store", "snapshots that nobody needs are found by their names"),
    ("checkpoint", "txn", "the core lock and the open transactions"),
    ("checkpoint", "wal", "the log is sealed, waited for and recycled"),
    ("engine", "checkpoint", "commits make checkpoints due and are throttled by them"),
    ("engine", "durability", "commits and reads have levels"),
    ("engine", "error", "its calls answer with it"),
    ("engine", "events", "checkpoints and failures are told to subscribers"),
    ("engine", "format", "commands become records"),
    ("engine", "meters", "commits and rollbacks are measured"),
    ("engine", "ids", "LSNs and transactions"),
    ("engine", "io", "threads, locks and the storage"),
    ("engine", "machine", "the state is a machine"),
    ("engine", "options", "a store is opened with them"),
    ("engine", "recovery", "opening a store recovers it"),
    ("engine", "snapshot", "checkpoints and backups write one"),
    ("engine", "store", "a backup is a new store"),
    ("engine", "txn", "transactions, locks and visibility"),
    ("engine", "wal", "commands are appended and waited for"),
    ("kv", "durability", "the store's reads have levels"),
    ("kv", "engine", "the typed store stands on the engine (`kv/store.rs` and `kv/typed` alone)"),
    ("kv", "error", "the typed store's answers"),
    ("kv", "io", "locks, threads and page-aligned memory"),
    ("kv", "machine", "it is a machine"),
    ("format", "varint", "lengths within records and chunks"),
    ("snapshot", "varint", "lengths of the undo lists"),
    ("kv", "varint", "lengths of keys and values"),
    ("error", "count", "sizes and limits are counted in bytes"),
    ("kv", "count", "a rejection counts the bytes of keys and values"),
    ("recovery", "count", "its report counts records and transactions"),
    ("inspect", "count", "its report counts files, frames and records"),
    ("inspect", "error", "findings are made from errors"),
    ("inspect", "format", "records are shown"),
    ("inspect", "ids", "LSNs and segments are shown"),
    ("inspect", "io", "files are read through the traits"),
    ("inspect", "kv", "commands of the built-in machine are shown in words"),
    ("inspect", "machine", "a store is verified with its machine"),
    ("inspect", "options", "recovery is rehearsed read-only"),
    ("inspect", "recovery", "verification rehearses a recovery"),
    ("inspect", "snapshot", "snapshots are checked"),
    ("inspect", "store", "the directory is listed and the manifests read"),
    ("inspect", "txn", "a machine's panic is caught"),
    ("inspect", "wal", "segments are scanned"),
    ("salvage", "count", "its report counts records and transactions"),
    ("salvage", "error", "findings are made from errors"),
    ("salvage", "format", "records are judged"),
    ("salvage", "ids", "LSNs, epochs and segments"),
    ("salvage", "inspect", "findings have the same form"),
    ("salvage", "io", "files are read through the traits"),
    ("salvage", "machine", "what is found is replayed into the machine"),
    ("salvage", "options", "the new store is opened with them"),
    ("salvage", "recovery", "what is found is replayed"),
    ("salvage", "snapshot", "snapshots are loaded"),
    ("salvage", "store", "what is left of a directory is listed"),
    ("salvage", "txn", "open transactions are undone"),
    ("salvage", "wal", "what is left of segments is scanned"),
    ("sim::explore", "durability", "work is done at each level"),
    ("sim::explore", "engine", "whole engines are crashed"),
    ("sim::explore", "error", "which failures are allowed"),
    ("sim::explore", "io", "clocks and threads"),
    ("sim::explore", "kv", "the built-in machine has a way to be explored"),
    ("sim::explore", "machine", "any machine can be explored"),
    ("sim::explore", "options", "engines are opened"),
    ("sim::explore", "sim", "the disk that crashes"),
    ("sim::explore", "store", "faults are aimed at kinds of files"),
    ("sim::explore", "wal", "the log's steps are taken one by one"),
];

/// Hidden modules that give other crates of this repository access to internals. They may import
/// all.
const DOORS: &[&str] = &["fuzzing"];

/// `(path of another crate, where it may be named, why only there)`
const CONFINED: &[(&str, &[&str], &str)] = &[
    ("std::fs", &["src/io/"], "the simulator must see every access to a file"),
    ("rustix::fs", &["src/io/"], "the simulator must see every access to a file"),
    ("memmap2", &["src/io/"], "aligned memory is an AlignedBuf"),
    ("std::time::Instant::now", &["src/io/"], "the storage's clock is a part of what the simulator decides"),
    ("std::time::SystemTime::now", &["src/io/"], "the storage's clock is a part of what the simulator decides"),
    ("std::thread", &["src/io/"], "model checkers replace what io::sync re-exports"),
    ("std::sync", &["src/io/"], "model checkers replace what io::sync re-exports"),
    ("parking_lot", &["src/io/sync/"], "model checkers replace what io::sync re-exports"),
    ("loom", &["src/io/sync/"], "model checkers are named in one place"),
    ("shuttle", &["src/io/sync/"], "model checkers are named in one place"),
];

/// `(path, file or folder, why it is allowed there)`
const CONFINED_EXCEPT: &[(&str, &str, &str)] = &[
    ("std::sync::Arc", "src/", "no thread waits for a reference count, and the model checkers leave it alone"),
    ("std::time::Instant::now", "src/sim/explore/", "an exploration's time limit is real time"),
    ("memmap2", "src/kv/tree/arena.rs", "the tree stands on its own, and asks for memory rather than for I/O"),
    ("shuttle::thread", "src/io/threads.rs", "shuttle's scope gives its threads another type"),
];

/// The crate's modules, and those of the crates that stand on it.
fn read() -> Modules {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut modules = Modules::default();
    modules.read(root, "seawal", Path::new("src/lib.rs"));
    for entry in root.join("crates").read_dir().into_iter().flatten().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        for first in ["src/lib.rs", "src/main.rs"].map(|file| Path::new("crates").join(&name).join(file)) {
            if root.join(&first).exists() {
                modules.read(root, &name, &first);
            }
        }
    }
    modules
}

fn names(path: &str) -> Names {
    path.split("::").map(str::to_owned).collect()
}

/// The folder of a module: the first name below the crate, or the name of another crate.
fn folder(path: &Names) -> &str {
    match path.as_slice() {
        // it runs whole engines on the simulated disk, which the rest of `sim` is
        [_, folder, explore, ..] if folder == "sim" && explore == "explore" => "sim::explore",
        [krate, folder, ..] if krate == "seawal" => folder,
        [krate, ..] => krate,
        [] => "",
    }
}

/// True for `lib.rs`, which only re-exports.
fn is_root(path: &Names) -> bool {
    path.len() == 1 && path[0] == "seawal"
}

/// All edges between modules, each with the paths that make it.
fn edges(modules: &Modules) -> BTreeMap<(Names, Names), Vec<String>> {
    let mut edges: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for from in modules.0.keys().filter(|from| !is_root(from) && !DOORS.contains(&folder(from))) {
        for (path, target) in modules.targets(from) {
            let (Target::Item(to) | Target::Module(to) | Target::Outside(_, to)) = target;
            // what another crate may use is what this one makes public, which the compiler checks
            let public = from[0] != "seawal" && to[0] == "seawal";
            if *from != to && !is_root(&to) && !public {
                edges.entry((from.clone(), to)).or_default().push(path.join("::"));
            }
        }
    }
    edges
}

/// The strongly connected components of more than one node.
fn circles<T: Ord + Clone + Debug>(edges: &BTreeSet<(T, T)>) -> Vec<BTreeSet<T>> {
    let nodes: BTreeSet<_> = edges.iter().flat_map(|(from, to)| [from, to]).collect();
    let reach: BTreeMap<&T, BTreeSet<&T>> = nodes.iter().map(|node| (*node, reachable(edges, node))).collect();
    let with = |node: &T| -> BTreeSet<T> {
        nodes
            .iter()
            .filter(|other| reach[node].contains(*other) && reach[*other].contains(node))
            .copied()
            .cloned()
            .collect()
    };
    let found: BTreeSet<_> = nodes.iter().map(|node| with(node)).filter(|circle| !circle.is_empty()).collect();
    found.into_iter().collect()
}

fn reachable<'a, T: Ord>(edges: &'a BTreeSet<(T, T)>, from: &T) -> BTreeSet<&'a T> {
    let mut found = BTreeSet::new();
    let mut left: Vec<&T> = edges.iter().filter(|(node, _)| node == from).map(|(_, to)| to).collect();
    while let Some(node) = left.pop() {
        if found.insert(node) {
            left.extend(edges.iter().filter(|(from, _)| from == node).map(|(_, to)| to));
        }
    }
    found
}

#[test]
fn folders_use_only_what_the_table_allows() {
    let modules = read();
    let mut found: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for ((from, to), paths) in edges(&modules) {
        let (of, on) = (folder(&from).to_owned(), folder(&to).to_owned());
        if of != on {
            found.entry((of, on)).or_default().push(format!(
                "{}: {}",
                modules.0[&from].file.display(),
                paths.join(", ")
            ));
        }
    }
    let allowed: BTreeSet<_> = EDGES.iter().map(|(from, to, _)| (*from, *to)).collect();
    assert_eq!(allowed.len(), EDGES.len(), "a row stands in the table twice");
    let mut faults = Vec::new();
    for ((from, to), places) in &found {
        let edge = (from.as_str(), to.as_str());
        let places = places.join("\n    ");
        if !allowed.contains(&edge) {
            faults.push(format!("{from} -> {to} is not in the table\n    {places}"));
        }
    }
    for (from, to) in allowed {
        if !found.contains_key(&(from.to_owned(), to.to_owned())) {
            faults.push(format!("{from} -> {to} is in the table, and nothing needs it"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_folders_go_in_a_circle() {
    let edges = edges(&read());
    let folders = edges.keys().map(|(from, to)| (folder(from), folder(to)));
    let folders = folders.filter(|(from, to)| from != to).collect();
    assert_eq!(circles(&folders), Vec::<BTreeSet<_>>::new(), "folders in a circle");
}

#[test]
fn no_files_go_in_a_circle() {
    let modules = read();
    let edges = edges(&modules);
    let file = |path: &Names| modules.0[path].file.clone();
    let files: BTreeSet<_> = edges.keys().map(|(from, to)| (file(from), file(to))).filter(|(a, b)| a != b).collect();
    let mut faults = Vec::new();
    for circle in circles(&files) {
        let within = |path: &Names| circle.contains(&file(path));
        let edges = edges.iter().filter(|((from, to), _)| within(from) && within(to) && file(from) != file(to));
        let edges = edges.map(|((from, to), paths)| {
            format!("    {} -> {}: {}", file(from).display(), file(to).display(), paths.join(", "))
        });
        faults.push(format!("{} files go in a circle\n{}", circle.len(), edges.collect::<Vec<_>>().join("\n")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn files_clocks_and_threads_are_reached_from_one_place() {
    let modules = read();
    let mut faults = Vec::new();
    let mut exceptions: BTreeSet<_> = CONFINED_EXCEPT.iter().map(|(path, file, _)| (*path, *file)).collect();
    for (from, module) in modules.0.iter().filter(|(from, _)| from[0] == "seawal" && !DOORS.contains(&folder(from))) {
        for target in modules.targets(from).into_values() {
            let Target::Outside(path, by) = target else { continue };
            if by != *from {
                continue;
            }
            for (confined, places, why) in CONFINED {
                if !path.starts_with(&names(confined)) || places.iter().any(|place| module.file.starts_with(place)) {
                    continue;
                }
                let applies = |(of, file): &(&str, &str)| path.starts_with(&names(of)) && module.file.starts_with(file);
                let path = path.join("::");
                match CONFINED_EXCEPT.iter().map(|(of, file, _)| (*of, *file)).find(applies) {
                    Some(exception) => drop(exceptions.remove(&exception)),
                    None => faults.push(format!("{path} in {}: {why}", module.file.display())),
                }
            }
        }
    }
    for (path, file) in exceptions {
        faults.push(format!("{path} is excepted for {file}, which does not name it"));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
