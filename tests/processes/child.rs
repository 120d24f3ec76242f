//! Starts this program again as a child process, and reads what it prints.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The environment variable with the name of the child that this process is.
const NAME: &str = "SEAWAL_TEST_CHILD";
const DIR: &str = "SEAWAL_TEST_CHILD_DIR";
const ARGUMENTS: &str = "SEAWAL_TEST_CHILD_ARGUMENTS";

/// The longest time without a line from a child.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the children do. The tests start them by these names.
const CHILDREN: [(&str, fn()); 18] = [
    ("full", crate::full::child_full),
    ("losing", crate::full::child_losing),
    ("that_heals", crate::full::child_that_heals),
    ("with_small_files", crate::full::child_with_small_files),
    ("committers", crate::kills::child_committers),
    ("opener", crate::kills::child_opener),
    ("that_leaves", crate::kills::child_that_leaves),
    ("serial", crate::inject::child_serial),
    ("power_loss", crate::device::child_power_loss),
    ("broken_device", crate::device::child_broken_device),
    ("read_only_media", crate::surroundings::child_read_only_media),
    ("that_is_killed", crate::surroundings::child_that_is_killed),
    ("without_directory_sync", crate::surroundings::child_without_directory_sync),
    ("of_another_user", crate::surroundings::child_of_another_user),
    ("restarts", crate::descriptors::child_restarts),
    ("without_streams", crate::descriptors::child_without_streams),
    ("idle", crate::idle::child_idle),
    ("with_little_memory", crate::memory::child_with_little_memory),
];

/// N10: every child is started through this test, so that none of them is listed as a test.
#[test]
fn a_child_of_an_unknown_name_is_refused() {
    if let Ok(name) = std::env::var(NAME) {
        let child = CHILDREN.iter().find(|(known, _)| *known == name);
        let (_, run) = child.unwrap_or_else(|| panic!("there is no child {name:?}"));
        return run();
    }
    let dir = tempfile::tempdir().unwrap();
    let output = command(&[], "nobody", dir.path(), &[]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("there is no child \"nobody\""), "{text}");
}

/// N10: what only helps tests is neither listed nor ignored.
#[test]
fn no_helper_is_listed_as_a_test() {
    let listed = |arguments: &[&str]| {
        let output = Command::new(std::env::current_exe().unwrap()).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let all = listed(&["--list", "--format", "terse"]);
    assert!(all.contains(": test\n") && !all.contains("::child_"), "{all}");
    assert_eq!(listed(&["--list", "--ignored", "--format", "terse"]), "");
}

/// N10: the harness calls a skipped test "ok", so the test itself says that it was skipped.
#[test]
fn a_skipped_test_says_so_though_the_harness_captures_its_output() {
    let test = "full::a_full_file_system_refuses_without_harm_opens_again_and_again_and_resumes_when_there_is_space";
    let mut command = Command::new(std::env::current_exe().unwrap());
    // nothing can be mounted without any program
    let output = command.args([test, "--exact"]).env("PATH", "/nowhere").output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && told.contains(&format!("skipped: {test}: nothing can be mounted")), "{told}");
}

/// The directory and the numbers that this child was started with.
pub(crate) fn started() -> (PathBuf, Vec<u64>) {
    let dir = std::env::var_os(DIR).unwrap();
    let numbers = std::env::var(ARGUMENTS).unwrap();
    (dir.into(), numbers.split_whitespace().map(|n| n.parse().unwrap()).collect())
}

/// Sends a line to the parent. It is written when this returns.
pub(crate) fn tell(line: &str) {
    std::io::stdout().lock().write_all(format!("@{line}\n").as_bytes()).unwrap();
}

/// The program and arguments that run one of the children, optionally below a wrapper such as
/// strace.
pub(crate) fn command(wrapper: &[&str], name: &str, dir: &Path, numbers: &[u64]) -> Command {
    let this = std::env::current_exe().unwrap();
    let mut command = match wrapper {
        [] => Command::new(this),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(this);
            command
        }
    };
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    let test = "child::a_child_of_an_unknown_name_is_refused";
    command.args([test, "--exact", "--nocapture", "--test-threads=1", "-q"]);
    command.env(NAME, name).env(DIR, dir).env(ARGUMENTS, numbers.join(" ")).env("RUST_BACKTRACE", "0");
    // cargo's library path makes the loader search many directories
    command.env_remove("LD_LIBRARY_PATH");
    command
}

/// A child that is killed when it goes out of scope.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Running {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(line) = line.strip_prefix('@') {
                    let _ = send.send(line.to_owned());
                }
            }
        });
        Running { child, lines }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line, or `None` once the child has ended.
    pub(crate) fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the child hangs"),
        }
    }

    /// Waits for this line, or for the child's end. Returns whether the line came.
    pub(crate) fn hears(&self, wanted: &str) -> bool {
        std::iter::from_fn(|| self.line()).any(|line| line == wanted)
    }

    /// Stops every thread of the child, after its current system call. Returns the lines that it
    /// had sent until then.
    pub(crate) fn freeze(&self) -> Vec<String> {
        let id = self.id();
        assert!(Command::new("kill").args(["-STOP", &id.to_string()]).status().unwrap().success());
        let since = Instant::now();
        while !all_stopped(id) {
            assert!(since.elapsed() < PATIENCE, "the child does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut lines = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(50)) {
            lines.push(line);
        }
        lines
    }

    /// Sends `SIGKILL`. Returns the lines that were not read yet.
    pub(crate) fn kill(mut self) -> Vec<String> {
        let _ = self.child.kill();
        self.child.wait().unwrap();
        self.lines.iter().collect()
    }

    /// Waits for the child's end. Returns its status and its lines.
    pub(crate) fn finish(mut self) -> (ExitStatus, Vec<String>) {
        let lines = std::iter::from_fn(|| self.line()).collect();
        (self.child.wait().unwrap(), lines)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn all_stopped(id: u32) -> bool {
    std::fs::read_dir(format!("/proc/{id}/task")).unwrap().all(|task| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
        // the state follows the name, which is in parentheses
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}
