//! The store's own threads: whatever one of them meets, it goes on, and says so.

use seawal::Options;
use seawal::machine::{DecodeError, StateMachine};
use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Waits until something holds.
fn until(what: &str, holds: impl Fn() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < Duration::from_secs(60), "it never happens: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_own_thread() -> bool {
    std::thread::current().name().is_some_and(|name| name.starts_with("seawal"))
}

/// A sum. Dropping a copy of it on a thread of the store panics, on demand.
#[derive(Clone, Default)]
struct Sum {
    sum: u64,
    _touchy: Touchy,
}

#[derive(Clone, Default)]
struct Touchy;

static PANICS: AtomicBool = AtomicBool::new(false);
static PANICKED: AtomicU64 = AtomicU64::new(0);

impl Drop for Touchy {
    fn drop(&mut self) {
        if is_own_thread() && !std::thread::panicking() && PANICS.load(Ordering::Relaxed) {
            PANICKED.fetch_add(1, Ordering::Relaxed);
            panic!("as asked");
        }
    }
}

impl StateMachine for Sum {
    const NAME: &'static str = "sum";
    const VERSION: u32 = 1;
    type Command = u64;
    type Reply = u64;
    type Rejection = std::convert::Infallible;

    fn apply(&mut self, command: &u64) -> Result<(u64, u64), Self::Rejection> {
        self.sum = self.sum.wrapping_add(*command);
        Ok((self.sum, command.wrapping_neg()))
    }

    fn encode(command: &u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&command.to_le_bytes());
    }

    fn decode(bytes: &[u8], _version: u32) -> Result<u64, DecodeError> {
        bytes.try_into().map(u64::from_le_bytes).map_err(|_| DecodeError::new("a number has eight bytes"))
    }

    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.sum.to_le_bytes())
    }

    fn load(input: &mut dyn BufRead, _version: u32) -> Result<Self, DecodeError> {
        let mut bytes = [0; 8];
        input.read_exact(&mut bytes)?;
        Ok(Sum { sum: u64::from_le_bytes(bytes), ..Sum::default() })
    }
}

/// S4: a panic in a user's `Drop` ended the maintenance thread, and no checkpoint ever followed.
#[test]
fn a_panic_in_a_drop_on_the_maintenance_thread_is_shown_and_the_thread_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().digest_every(20).checkpoint_log_bytes(64 << 10);
    let engine = options.open::<Sum>(dir.path()).unwrap();
    PANICS.store(true, Ordering::Relaxed);
    let commit = || (0..100).for_each(|_| drop(engine.submit(1).unwrap()));
    until("the drop panics", || {
        commit();
        PANICKED.load(Ordering::Relaxed) > 0
    });
    until("it is shown", || engine.stats().background_error.is_some() || engine.stats().checkpoint_error.is_some());
    PANICS.store(false, Ordering::Relaxed);
    let digests = engine.stats().digests;
    until("it goes on", || {
        commit();
        engine.stats().digests > digests && engine.stats().checkpoints > 0
    });
    until("it is over", || engine.stats().background_error.is_none() && engine.stats().checkpoint_error.is_none());
    engine.close().unwrap();
}
