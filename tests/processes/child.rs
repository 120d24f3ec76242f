//! Starts this program again as a child process, and reads what it prints.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The environment variable with the child's directory. Without it, a `child_` test does nothing.
const DIR: &str = "SEAWAL_TEST_CHILD_DIR";
const ARGUMENTS: &str = "SEAWAL_TEST_CHILD_ARGUMENTS";

/// The longest time without a line from a child.
const PATIENCE: Duration = Duration::from_secs(60);

/// The directory and the numbers that a child was started with. `None` if this process is not a
/// child.
pub(crate) fn started() -> Option<(PathBuf, Vec<u64>)> {
    let dir = std::env::var_os(DIR)?;
    let numbers = std::env::var(ARGUMENTS).unwrap();
    Some((dir.into(), numbers.split_whitespace().map(|n| n.parse().unwrap()).collect()))
}

/// Sends a line to the parent. It is written when this returns.
pub(crate) fn tell(line: &str) {
    std::io::stdout().lock().write_all(format!("@{line}\n").as_bytes()).unwrap();
}

/// The program and arguments that run one of the `child_` tests, optionally below a wrapper such as
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
    command.args([name, "--exact", "--ignored", "--nocapture", "--test-threads=1", "-q"]);
    command.env(DIR, dir).env(ARGUMENTS, numbers.join(" ")).env("RUST_BACKTRACE", "0");
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
