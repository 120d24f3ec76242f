//! Tasks that run in a process of their own, because it is killed or because its memory is
//! measured.

use crate::parts::checkpoint::unbounded;
use crate::parts::reads::{fill, fill_level};
use crate::peer::{Level, Store};
use crate::peers::{self, seawal::Opened};
use crate::work::{directory, new_seed, resident_bytes};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Task {
    /// Fills a store, makes it durable, and exits without closing it.
    Kill,
    /// Fills a store and closes it.
    Close,
    /// Opens a store and reads one entry. Prints the seconds, and exits without closing it.
    Open,
    /// Fills a store in random order. Prints by how many bytes the process grew.
    Memory,
    /// The same with this engine, without checkpoints.
    MemoryAlone,
    /// Opens a store. Prints by how many bytes the process grew.
    MemoryOpened,
    /// Fills a store, then overwrites it from a thread during a checkpoint. Prints the bytes of the
    /// process before it, and their maximum.
    MemoryCheckpoint,
}

#[derive(Debug, clap::Args)]
pub struct Child {
    /// For internal use.
    #[arg(long, hide = true, value_enum)]
    pub child: Option<Task>,
    #[arg(long, hide = true, default_value = "")]
    child_peer: String,
    #[arg(long, hide = true, default_value = ".")]
    child_dir: PathBuf,
    #[arg(long, hide = true, default_value_t = 0)]
    child_entries: u64,
}

/// Runs a task in a process of its own. Returns the numbers that it printed.
pub fn run(task: Task, peer: &str, dir: &Path, entries: u64) -> Vec<f64> {
    use clap::ValueEnum;
    let name = task.to_possible_value().expect("a name").get_name().to_owned();
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command
        .args(["--child", &name, "--child-peer", peer, "--child-entries", &entries.to_string(), "--child-dir"])
        .arg(dir);
    let output = command.output().expect("a process");
    let text = String::from_utf8(output.stdout).expect("text");
    let told: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(!told.is_empty(), "{name} of {peer} failed: {}", String::from_utf8_lossy(&output.stderr));
    told
}

impl Child {
    /// Performs the task.
    pub fn act(&self, task: Task) {
        let peer = peers::all().into_iter().find(|peer| peer.name == self.child_peer).expect("a peer");
        let (dir, entries) = (&self.child_dir, self.child_entries);
        let before = resident_bytes();
        let began = Instant::now();
        let level = if task == Task::Kill || task == Task::Close { fill_level(&peer) } else { Level::Buffered };
        let level = if peer.supports(level) { level } else { Level::Durable };
        let store: Box<dyn Store> = match task {
            Task::MemoryAlone => Box::new(Opened(unbounded(level).open(dir).expect("a store"))),
            _ => (peer.open)(dir, level),
        };
        match task {
            Task::Kill => {
                fill(&peer, &*store, entries);
                println!("{entries}");
                die(&*store);
            }
            Task::Close => {
                fill(&peer, &*store, entries);
                store.close();
                println!("{entries}");
            }
            Task::Open => {
                if peer.reads {
                    assert!(store.session().get(entries / 2).is_some(), "an entry is missing");
                }
                println!("{}", began.elapsed().as_secs_f64());
                die(&*store);
            }
            Task::Memory | Task::MemoryAlone => {
                let before = store.resident_bytes().unwrap_or(before);
                let mut session = store.session();
                let seed = new_seed();
                (0..entries).step_by(100).for_each(|first| session.batch(first, 100, seed));
                println!("{}", store.resident_bytes().unwrap_or_else(resident_bytes) as f64 - before as f64);
                die(&*store);
            }
            Task::MemoryOpened => {
                let before = store.resident_bytes().unwrap_or(before);
                println!("{}", resident_bytes() as f64 - before as f64);
                die(&*store);
            }
            Task::MemoryCheckpoint => {
                fill(&peer, &*store, entries);
                drop(store);
                checkpoint_under_load(entries);
            }
        }
    }
}

/// Exits as after a kill: nothing is closed, dropped or flushed.
fn die(store: &dyn Store) -> ! {
    store.kill();
    use std::io::Write;
    let _ = std::io::stdout().flush();
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).expect("a kill");
    unreachable!("a killed process goes on")
}

/// This engine's memory before a checkpoint, and its peak while all entries are overwritten during
/// one.
fn checkpoint_under_load(entries: u64) {
    let dir = directory();
    let options = peers::seawal::options(Level::Buffered).checkpoint_log_bytes(1 << 40).max_log_bytes(1 << 40);
    let engine: seawal::Engine<seawal::kv::Kv> = options.open(dir.path()).expect("a store");
    for n in 0..entries {
        engine.execute(peers::seawal::put(n, n)).expect("a commit");
    }
    let before = resident_bytes();
    let (stop, most) = (AtomicBool::new(false), std::sync::atomic::AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                engine.execute(peers::seawal::put(n % entries, n + 1)).expect("a commit");
                n += 1;
                if n % 1000 == 0 {
                    most.fetch_max(resident_bytes(), Ordering::Relaxed);
                }
            }
        });
        std::thread::sleep(std::time::Duration::from_millis(20));
        engine.checkpoint().expect("a checkpoint");
        stop.store(true, Ordering::Relaxed);
    });
    println!("{before} {}", most.into_inner());
}
