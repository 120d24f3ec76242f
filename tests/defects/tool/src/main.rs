//! Applies deliberate defects to the source of seawal, so that `tests/defects.sh` can show which
//! test catches each.
//!
//! A defect names the item that it breaks, for example `Queue::in_block`, and the tokens that it
//! replaces there. It names neither files nor lines, so that moving code leaves it valid.
//! [`defect`] describes the file format.
//!
//! ```text
//! seawal-defects apply DEFECT TREE   edits TREE in place and prints the files that it changed
//! seawal-defects check [TREE]        checks that each defect of TREE applies and its tests exist
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
        ["apply", defect, tree] => apply(Path::new(defect), Path::new(tree)).err().into_iter().collect(),
        ["check"] => check(Path::new(".")),
        ["check", tree] => check(Path::new(tree)),
        _ => {
            eprintln!("usage: seawal-defects apply DEFECT TREE\n       seawal-defects check [TREE]");
            return ExitCode::from(2);
        }
    };
    for fault in &faults {
        eprintln!("{fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Edits the tree in place. Nothing is written unless the complete defect applies.
fn apply(defect: &Path, tree: &Path) -> Result<(), String> {
    let defect = Defect::read(defect)?;
    let source = Source::read(tree)?;
    for (file, text) in source.edited(&defect)? {
        let path = tree.join(&file);
        std::fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}

/// What is wrong with the defects of the tree, one line each.
fn check(tree: &Path) -> Vec<String> {
    let (files, source, tests) = match (defect_files(tree), Source::read(tree), TestNames::read(tree)) {
        (Ok(files), Ok(source), Ok(tests)) => (files, source, tests),
        (files, source, tests) => return [files.err(), source.err(), tests.err()].into_iter().flatten().collect(),
    };
    let mut faults = Vec::new();
    for path in &files {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        match Defect::read(path) {
            Ok(defect) => {
                faults.extend(source.edited(&defect).err().map(|fault| format!("{name}: {fault}")));
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
