//! Applies deliberate defects to the source of seawal, so that `tests/defects.sh` can show which
//! test catches each.
//!
//! A defect names the function that it breaks, for example `Queue::in_block`, and the tokens that
//! it replaces there. It names neither files nor lines, so that moving code leaves it valid.
//! [`defect`] describes the file format.
//!
//! ```text
//! seawal-defects combine TREE DEFECT…  edits TREE so that SEAWAL_DEFECT selects a defect at run time
//! seawal-defects check [TREE]          checks that each defect of TREE applies and its tests exist
//! ```
//!
//! The exit status is 0 on success, 1 if a defect does not apply, and 2 on wrong usage.

mod defect;
mod source;
mod tests_lines;
mod tokens;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use defect::Defect;
use source::Source;
use tests_lines::TestNames;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let faults = match arguments.as_slice() {
        ["combine", tree, defects @ ..] => combine(Path::new(tree), defects).err().into_iter().collect(),
        ["check"] => check(Path::new(".")),
        ["check", tree] => check(Path::new(tree)),
        _ => {
            eprintln!("usage: seawal-defects combine TREE DEFECT…\n       seawal-defects check [TREE]");
            return ExitCode::from(2);
        }
    };
    for fault in &faults {
        eprintln!("{fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The module that the edited functions ask.
const SELECTION: &str = r#"
mod defect {
    pub(crate) fn is_active(name: &str) -> bool {
        static ACTIVE: std::sync::OnceLock<String> = std::sync::OnceLock::new();
        ACTIVE.get_or_init(|| std::env::var("SEAWAL_DEFECT").unwrap_or_default()) == name
    }
}
"#;

/// Edits the tree in place. One build of it serves for all of the defects: the environment variable
/// `SEAWAL_DEFECT` names the one that is active. Nothing is written unless each of them applies.
fn combine(tree: &Path, defects: &[&str]) -> Result<(), String> {
    let read = |path: &&str| Ok((name(Path::new(path)), Defect::read(Path::new(path))?));
    let defects = defects.iter().map(read).collect::<Result<Vec<_>, String>>()?;
    for (file, text) in Source::read(tree)?.combined(&defects)? {
        write(&tree.join(file), &text)?;
    }
    let root = tree.join("src/lib.rs");
    let text = std::fs::read_to_string(&root).map_err(|error| format!("cannot read {}: {error}", root.display()))?;
    write(&root, &(text + SELECTION))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// The name of the defect in this file.
fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// What is wrong with the defects of the tree, one line each.
fn check(tree: &Path) -> Vec<String> {
    let (files, source, tests) = match (defect_files(tree), Source::read(tree), TestNames::read(tree)) {
        (Ok(files), Ok(source), Ok(tests)) => (files, source, tests),
        (files, source, tests) => return [files.err(), source.err(), tests.err()].into_iter().flatten().collect(),
    };
    let mut faults = Vec::new();
    for path in &files {
        let name = name(path);
        match Defect::read(path) {
            Ok(defect) => {
                faults.extend(source.bodies(&defect).err().map(|fault| format!("{name}: {fault}")));
                let unknown = defect.tests.iter().filter(|arguments| !tests.has(arguments));
                faults.extend(unknown.map(|arguments| format!("{name}: no test matches `{arguments}`")));
            }
            Err(fault) => faults.push(format!("{name}: {fault}")),
        }
    }
    if faults.is_empty() {
        println!("{} defects apply", files.len());
    }
    faults
}

fn defect_files(tree: &Path) -> Result<Vec<PathBuf>, String> {
    let folder = tree.join("tests/defects");
    let entries = std::fs::read_dir(&folder).map_err(|error| format!("cannot list {}: {error}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "defect"));
    files.sort();
    if files.is_empty() { Err(format!("{} holds no defects", folder.display())) } else { Ok(files) }
}
