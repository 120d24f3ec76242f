//! The examples that keep a store in a directory: each is killed in the middle of its work, and
//! started again. It checks its own invariant when it opens the store, and ends with an error if
//! that does not hold.
//!
//! `cargo test` builds the examples. With a filter by target, `cargo build --examples` does.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails the test")]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The signal that no process can catch.
const SIGKILL: i32 = 9;
/// The number of times that an example may end before the kill reaches it.
const ATTEMPTS: usize = 20;

/// An example and its argument. Cargo places it beside the folder of this test.
fn example(name: &str, dir: &Path) -> Command {
    let deps = std::env::current_exe().unwrap();
    let program = deps.parent().unwrap().with_file_name("examples").join(name);
    assert!(program.exists(), "{} is missing: run `cargo build --examples` first", program.display());
    let mut command = Command::new(program);
    command.arg(dir).stdin(Stdio::null());
    command
}

/// Reads the lines of a child until one begins with `prefix`. Returns whether there was one.
fn hears(lines: &mut impl BufRead, prefix: &str) -> bool {
    lines.lines().map_while(Result::ok).any(|line| line.starts_with(prefix))
}

/// Kills an example once it has printed `line`. Returns whether the kill came before its end.
fn is_killed_after(mut child: Child, line: &str) -> bool {
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let heard = hears(&mut lines, line);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert!(heard && (status.success() || status.signal() == Some(SIGKILL)), "{status}: {rest}");
    status.signal() == Some(SIGKILL)
}

/// Runs an example up to its end. Returns what it printed.
fn run(name: &str, dir: &Path) -> String {
    let output = example(name, dir).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{name} {}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    text
}

/// Kills an example once it has printed a line that begins with `line`, and runs it again. Returns
/// what the second run printed.
fn killed_and_restarted(name: &str, line: &str) -> String {
    for _ in 0..ATTEMPTS {
        let dir = tempfile::tempdir().unwrap();
        let child = example(name, dir.path()).stdout(Stdio::piped()).spawn().unwrap();
        if is_killed_after(child, line) {
            let text = run(name, dir.path());
            // a second end, after a run that was not killed
            run(name, dir.path());
            return text;
        }
    }
    panic!("{name} ended {ATTEMPTS} times before it could be killed");
}

#[test]
fn the_ledger_that_is_killed_has_all_its_money() {
    let text = killed_and_restarted("ledger", "20: ");
    assert!(
        text.contains("opened: ")
            && !text.contains("opened: new")
            && !text.contains("opened: clean")
            && text.contains("\n999: "),
        "{text}"
    );
}

#[test]
fn the_logger_that_is_killed_has_all_its_lines() {
    let text = killed_and_restarted("small_logger", "1500: ");
    assert!(text.contains("it holds 1000 lines") && !text.contains("opened: clean"), "{text}");
}

#[test]
fn the_job_queue_that_is_killed_has_each_job_once() {
    let text = killed_and_restarted("job_queue", "25: ");
    assert!(text.contains("\ndone: 180, dead letters: 20\n") && !text.contains("opened: clean"), "{text}");
}

#[test]
fn the_replicated_log_that_is_killed_has_each_entry_by_its_index() {
    let text = killed_and_restarted("replicated_log", "120: ");
    assert!(
        text.contains("opened: ")
            && !text.contains("opened: new")
            && !text.contains("opened: clean")
            && text.contains("\n399: "),
        "{text}"
    );
}
