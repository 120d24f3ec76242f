//! The documents say what the sources say: names, tags, the decision table, links, and the tests they appeal to.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

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
    let source = read("src/format/names.rs");
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
    assert_eq!(number(&read("src/format/mod.rs"), "FORMAT_VERSION: u16"), "1");
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
    assert_eq!(number(&read("src/wal/background.rs"), "const IDLE: Duration"), "Duration::from_millis(10)");
}

#[test]
fn the_decision_table_is_the_rule_of_the_code() {
    let source = read("src/wal/evidence.rs");
    let (_, rule) = source.split_once("const RULE").unwrap();
    let (rule, _) = rule.split_once("];").unwrap();
    let rule: Vec<Vec<String>> = rule
        .lines()
        .filter_map(|line| line.trim().strip_prefix('(')?.strip_suffix("),"))
        .map(|row| row.split(", ").map(str::to_owned).collect())
        .collect();
    let word = |cell: &String| match cell.as_str() {
        "yes" => "true",
        "no" => "false",
        "the end of the segment" => "EndOfSegment",
        "the end of the log" => "EndOfLog",
        "damage" => "Damage",
        other => panic!("{other}"),
    };
    let rows = table(&read("docs/recovery.md"), "recorded");
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|c| word(c).to_owned()).collect()).collect();
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
    let numbers: Vec<String> = rows.iter().map(|row| row[0].clone()).collect();
    assert!(numbers.into_iter().eq((1..=43).map(|n: u32| n.to_string())));
    for row in rows {
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

#[test]
fn documents_are_short() {
    for document in documents() {
        // the tables of a measurement are as long as they are
        let (mut lines, mut generated) = (0, false);
        for line in fs::read_to_string(&document).unwrap().lines() {
            generated = (generated || line.starts_with("<!-- generated: ")) && line != "<!-- end -->";
            lines += u32::from(!generated);
        }
        assert!(lines <= 150, "{} has {lines} lines", document.display());
    }
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
