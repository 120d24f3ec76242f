//! The commands for files: `inspect` and `verify`. They work on stores of any state machine.

use super::failure::{Failure, Status};
use super::{Dir, output, say};
use seawal::inspect::{self, Detail, Soundness};
use std::io::{self, Write};

/// Prints the manifest copies, snapshots, segments and frames of a store of any state machine.
#[derive(Debug, clap::Args)]
pub(super) struct Inspect {
    #[command(flatten)]
    dir: Dir,
    /// Print the records of the frames too.
    #[arg(long)]
    records: bool,
}

impl Inspect {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let detail = if self.records { Detail::Records } else { Detail::Frames };
        let mut out = Noticing { out: output(), failed: None };
        let written = self.dir.storage().and_then(|storage| inspect::write_text(storage, detail, &mut out));
        let flushed = out.flush();
        if let Some(e) = out.failed {
            return Err(Failure::output(e));
        }
        let damage = written?;
        flushed.map_err(Failure::output)?;
        match damage {
            None => Ok(()),
            Some(error) => Err(error.into()),
        }
    }
}

/// A writer that keeps the error of the output, because the library would wrap it in its own.
struct Noticing<W> {
    out: W,
    failed: Option<io::Error>,
}

impl<W: Write> Noticing<W> {
    fn notice<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|e| {
            let kind = e.kind();
            self.failed.get_or_insert(e);
            kind.into()
        })
    }
}

impl<W: Write> Write for Noticing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes);
        self.notice(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.out.flush();
        self.notice(flushed)
    }
}

/// Checks a store without writing to it.
///
/// Exit status 0: the store is clean. 1: the store opens without loss, but the end of its log is
/// torn or a redundant copy is damaged. 2: the store is damaged and does not open.
///
/// The command checks both copies of the manifest, all snapshots that it names, and all of the log
/// that they need. For key-value stores it also replays the log from each snapshot that recovery
/// may start from.
#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    #[command(flatten)]
    dir: Dir,
}

impl Verify {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let report = self.dir.storage().and_then(inspect::verify)?;
        let status = match report.soundness() {
            Soundness::Clean => None,
            Soundness::TornTail | Soundness::Degraded => Some(Status::Partly),
            _ => Some(Status::Damage),
        };
        // the exit status does not depend on whether the text could be printed
        match (say(&report), status) {
            (Ok(()) | Err(Failure::Quiet), Some(status)) => Err(Failure::Shown(status)),
            (printed, _) => printed,
        }
    }
}
