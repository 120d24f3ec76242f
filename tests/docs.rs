//! Checks that the documents agree with the sources: names, tags, the decision table, the worked
//! example, links, and the tests that they name.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use seawal::{Background, Options, kv::Kv, sim::SimDisk};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn documents() -> Vec<PathBuf> {
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    docs.chain([root().join("README.md"), root().join("CHANGELOG.md")])
        .filter(|path| path.extension().is_some_and(|ext| ext == "md"))
        .collect()
}

/// The cells of the rows of the table whose first column has this title.
fn table(text: &str, title: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| line.trim().trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect::<Vec<_>>();
    let rows = text.lines().skip_while(|line| !line.starts_with(&format!("| {title} |")));
    let rows: Vec<_> = rows.skip(2).take_while(|line| line.starts_with('|')).map(cells).collect();
    assert!(!rows.is_empty(), "a table that begins with {title}");
    rows
}

/// The lines of the first diagram in a source file.
fn diagram(source: &str) -> Vec<&str> {
    let inside = source.lines().skip_while(|line| *line != "//! ```text").skip(1);
    inside.take_while(|line| *line != "//! ```").map(|line| line.trim_start_matches("//!").trim()).collect()
}

fn number(source: &str, constant: &str) -> String {
    let (_, rest) = source.split_once(constant).unwrap_or_else(|| panic!("{constant}"));
    rest.split_once('=').unwrap().1.split_once(';').unwrap().0.trim().to_owned()
}

/// Everything between backticks, outside of fenced blocks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn sources(dir: &Path, all: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            all.push(fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_kind_of_file_is_listed_and_no_other() {
    let source = read("src/store/layout.rs");
    let drawn: BTreeSet<String> =
        diagram(&source).iter().filter_map(|line| line.split_once("  ")).map(|(name, _)| name.to_owned()).collect();
    let listed = table(&read("docs/format.md"), "name").into_iter().map(|row| row[0].trim_matches('`').to_owned());
    assert_eq!(listed.collect::<BTreeSet<_>>(), drawn);
}

#[test]
fn every_record_is_listed_with_its_tag_and_no_other() {
    let source = read("src/format/record.rs");
    let constants: BTreeMap<String, String> = source
        .lines()
        .filter_map(|line| line.strip_prefix("const ")?.split_once(": u8 = "))
        .map(|(name, tag)| (tag.trim_end_matches(';').to_owned(), name.to_lowercase()))
        .collect();
    let rows = table(&read("docs/format.md"), "tag");
    let listed: BTreeMap<_, _> = rows.iter().map(|row| (row[0].clone(), row[1].to_lowercase())).collect();
    assert_eq!(listed, constants);
    let drawn = diagram(&source).into_iter().map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap().to_lowercase();
        (words.next().unwrap().to_owned(), name)
    });
    assert_eq!(drawn.collect::<BTreeMap<_, _>>(), constants);
}

#[test]
fn versions_magics_and_sizes_are_those_of_the_sources() {
    let text = read("docs/format.md");
    assert_eq!(number(&read("src/format/limits.rs"), "FORMAT_VERSION: u16"), "1");
    assert_eq!(number(&read("src/format/frame.rs"), "const VERSION: u8"), "1");
    assert!(text.contains("format version 1"));
    for file in ["segment", "snapshot", "manifest"] {
        let magic = number(&read(&format!("src/format/{file}.rs")), "const MAGIC: &[u8; 8]");
        let magic = magic.trim_start_matches('b').trim_matches('"');
        assert!(text.contains(&format!("`{magic}`")), "{magic}");
    }
    let magic = number(&read("src/format/frame.rs"), "const MAGIC: &[u8; 4]");
    assert!(text.contains(&format!("`{}`", magic.trim_start_matches('b').trim_matches('"'))), "{magic}");
    assert_eq!(number(&read("src/snapshot/write.rs"), "const CHUNK_BYTES: usize"), "1 << 20");
    assert_eq!(number(&read("src/format/snapshot.rs"), "MAX_CHUNK_BYTES: usize"), "4 << 20");
    assert!(text.contains("at most 1 MiB as written (4 MiB are accepted)"));
    assert_eq!(number(&read("src/format/manifest.rs"), "SNAPSHOTS_KEPT: usize"), "2");
    assert_eq!(number(&read("src/wal/flusher.rs"), "const IDLE: Duration"), "Duration::from_millis(10)");
}

#[test]
fn the_decision_table_is_the_rule_of_the_code() {
    let source = read("src/wal/scan/evidence.rs");
    let (_, rule) = source.split_once("const RULE").unwrap();
    let (rule, _) = rule.split_once("];").unwrap();
    let rule: Vec<Vec<String>> = rule
        .lines()
        .filter_map(|line| line.trim().strip_prefix('(')?.strip_suffix("),"))
        .map(|row| row.replace('"', "").split(", ").map(str::to_owned).collect())
        .collect();
    let word = |cell: &String| {
        let word = match cell.as_str() {
            label if label.starts_with('E') => label,
            "yes" => "true",
            "no" => "false",
            "the end of the segment" => "EndOfSegment",
            "the end of the log" => "EndOfLog",
            "damage" => "Damage",
            other => panic!("{other}"),
        };
        word.to_owned()
    };
    let rows = table(&read("docs/recovery.md"), "row");
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(word).collect()).collect();
    assert_eq!(rows, rule);
    assert_eq!(rows.len(), 8);
}

/// Whether the sources have a test of that name.
fn is_test() -> impl Fn(&str) -> bool {
    let mut all = Vec::new();
    for dir in ["src", "tests", "crates", "fuzz"] {
        sources(&root().join(dir), &mut all);
    }
    move |name| all.iter().any(|source| source.contains(&format!("fn {name}(")))
}

#[test]
fn every_fault_is_proven_by_tests_that_exist() {
    let is_test = is_test();
    let rows = table(&read("docs/testing.md"), "#");
    // a fault with several tests goes on in rows without a number
    let numbers: Vec<String> = rows.iter().map(|row| row[0].clone()).filter(|number| !number.is_empty()).collect();
    assert!(numbers.into_iter().eq((1..=43).map(|n: u32| n.to_string())));
    for row in rows {
        let tests = quoted(&row[3]);
        assert!(!tests.is_empty() && tests.iter().all(|name| is_test(name)), "{row:?}");
    }
}

#[test]
fn every_situation_around_a_store_is_proven_by_tests_that_exist() {
    let is_test = is_test();
    for row in table(&read("docs/testing.md"), "row") {
        let tests = quoted(&row[3]);
        assert!(!tests.is_empty() && tests.iter().all(|name| is_test(name)), "{row:?}");
    }
}

#[test]
fn every_invariant_appeals_to_tests_and_places_that_exist() {
    let is_test = is_test();
    let is_place = |name: &str| root().join(name).exists() || root().join("src").join(name).exists();
    let text = read("docs/invariants.md");
    let mut tests = 0;
    for name in quoted(&text).into_iter().filter(|name| name.contains(['_', '/']) && !name.contains(' ')) {
        assert!(is_place(name) || is_test(name), "{name} is neither a file nor a test");
        tests += usize::from(is_test(name));
    }
    assert!(tests > 20, "{tests}");
}

#[test]
fn every_link_leads_to_a_file() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
            if !target.starts_with("https://") {
                let path = document.parent().unwrap().join(target.split('#').next().unwrap());
                assert!(path.exists(), "{}: {target}", document.display());
            }
        }
    }
}

/// The lines of a document that are prose: neither in a table nor in a fenced block.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence && !line.starts_with('|')
    })
}

#[test]
fn documents_are_short_and_narrow() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let lines = prose(&text).count();
        assert!(lines <= 200, "{} has {lines} lines", document.display());
        for line in prose(&text) {
            assert!(line.chars().count() <= 100, "{}: {line}", document.display());
        }
    }
}

/// The bytes of the worked example: in each line, what stands between the offset and the bar.
fn worked_example(text: &str) -> Vec<u8> {
    let (_, section) = text.split_once("## A frame byte by byte").unwrap();
    let (_, block) = section.split_once("```text\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let mut bytes = Vec::new();
    for (fields, _) in block.lines().skip(1).map(|line| line.split_once('|').unwrap()) {
        let mut fields = fields.split_whitespace();
        assert_eq!(fields.next().unwrap().parse(), Ok(bytes.len()), "the offset of a field");
        bytes.extend(fields.map(|byte| u8::from_str_radix(byte, 16).unwrap()));
    }
    bytes
}

#[test]
fn the_worked_example_is_what_a_store_writes() {
    let disk = SimDisk::new(1);
    let options = Options::new().background(Background::Manual);
    let store = options.open_on::<Kv>(Arc::new(disk.clone())).unwrap();
    store.insert("apple", "red").unwrap();
    let names = disk.file_names();
    let segment = disk.read_file(names.iter().find(|name| name.ends_with(".seg")).unwrap()).unwrap();
    let frame = &segment[4096..8192];

    let mut example = worked_example(&read("docs/format.md"));
    assert_eq!(example, frame[..example.len()], "a store writes now: {:02x?}", &frame[..example.len()]);
    example.resize(frame.len(), 0);
    assert_eq!(example, frame, "the rest is zeros");
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&example[..8]);
    checksum.update(&example[12..]);
    assert_eq!(example[8..12], checksum.finalize().to_le_bytes());

    drop(store);
    let store = options.open_on::<Kv>(Arc::new(disk)).unwrap();
    assert_eq!(store.get("apple").unwrap().as_deref(), Some(&b"red"[..]), "the frame is read back");
}

#[test]
fn default_features_bring_fifteen_crates_at_the_most() {
    let mut tree = std::process::Command::new(env!("CARGO"));
    let output = tree
        .args(["tree", "-p", "seawal", "-e", "normal", "--prefix", "none", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let crates: BTreeSet<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    assert!(crates.len() > 5 && crates.len() <= 15, "{crates:?}");
}

/// N9: the command of the README documents every feature, and each item names the feature that it
/// needs.
#[test]
fn the_readme_documents_all_features_and_each_item_names_its_own() {
    let readme = read("README.md");
    let commands = quoted(&readme).into_iter().filter(|code| code.starts_with("cargo doc"));
    let commands: Vec<&str> = commands.collect();
    assert!(!commands.is_empty() && commands.iter().all(|command| command.contains("--all-features")), "{commands:?}");
    for (feature, file) in [
        ("serde", "src/machine/serde.rs"),
        ("sim", "src/sim/mod.rs"),
        ("inspect", "src/inspect/mod.rs"),
        ("salvage", "src/salvage/mod.rs"),
    ] {
        assert!(read(file).contains(&format!("Requires the feature `{feature}`.")), "{file}");
    }
    let manifest = read("Cargo.toml");
    let (_, metadata) = manifest.split_once("[package.metadata.docs.rs]").unwrap();
    assert!(metadata.trim_start().starts_with("all-features = true"));
}
