//! Commands on files: `inspect` and `verify`, for the stores of any machine.

use super::failure::{Failure, Status};
use super::{Dir, output, say};
use crate::inspect::{self, Detail, Soundness};
use std::io::{self, Write};

/// Writes manifest copies, snapshots, segments and frames as text, for the store of any machine.
#[derive(Debug, clap::Args)]
pub(super) struct Inspect {
    #[command(flatten)]
    dir: Dir,
    /// Write the frames' records too.
    #[arg(long)]
    records: bool,
}

impl Inspect {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let detail = if self.records { Detail::Records } else { Detail::Frames };
        let mut out = Noticing { out: output(), failed: None };
        let written =
            inspect::storage(self.dir.path()).and_then(|storage| inspect::write_text(storage, detail, &mut out));
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

/// Keeps the output's own error, which the library's would hide.
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

/// Checks a store and writes nothing to it. Exit status 0: clean; 1: it opens and nothing is missing, but its tail is torn, or
/// something whole stands in for what is damaged; 2: damage that keeps it from opening.
///
/// Checked are the manifest's copies, all snapshots that it names, all the log that they need, that records can be read, and, for
/// the built-in machine, that replay works from each state that recovery may begin from.
#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    #[command(flatten)]
    dir: Dir,
}

impl Verify {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let report = inspect::storage(self.dir.path()).and_then(inspect::verify)?;
        let status = match report.soundness() {
            Soundness::Clean => None,
            Soundness::TornTail | Soundness::Degraded => Some(Status::Partly),
            Soundness::Damaged => Some(Status::Damage),
        };
        // the verdict counts whether anybody reads the text or not
        match (say(&report), status) {
            (Ok(()) | Err(Failure::Quiet), Some(status)) => Err(Failure::Shown(status)),
            (told, _) => told,
        }
    }
}
