//! Reads the log in groups and replays them. With threads, reading and replay overlap.

use crate::error::{Error, Result};
use crate::io::Storage;
use crate::io::read_ahead::hold_readers;
use crate::io::sync::{Arc, Mutex, mpsc};
use crate::machine::StateMachine;
use crate::options::Phase;
use crate::recovery::replay::Replay;
use crate::recovery::report::{ProgressReporter, RecoveryReport};
use crate::snapshot::Help;
use crate::wal::scan::{Chunk, ScanEnd, Scanner};

/// The most log that is replayed at once. Recovery holds at most three groups, beside what the
/// machine makes of them: one is replayed, one waits, and one is read.
const GROUP_BYTES: u64 = 32 << 20;
/// The least that bounds a group, because each group costs a merge of what it changes.
const LEAST_GROUP_BYTES: u64 = 1 << 20;
/// The size of the first groups, so that replay starts early while the state is small.
const FIRST_GROUP_BYTES: u64 = 8 << 20;

/// The error for a thread that ended without its result.
const UNREAD: Error = Error::Internal { what: "it read the log" };

/// A replay, and where it reports to.
pub(super) struct Redo<'a, M: StateMachine> {
    pub(super) replay: &'a mut Replay<M>,
    pub(super) report: &'a mut RecoveryReport,
    pub(super) reporter: &'a ProgressReporter<'a>,
}

impl<M: StateMachine> Redo<'_, M> {
    /// Reads and replays the log up to its end.
    pub(super) fn run(mut self, scanner: Scanner, help: Help) -> Result<ScanEnd> {
        let most = self.replay.redo_memory_bytes.clamp(LEAST_GROUP_BYTES, GROUP_BYTES);
        let scanner = Mutex::new(Some(scanner));
        if help == Help::Threads
            && let Some(end) = self.run_with_threads(&scanner, most)?
        {
            return Ok(end);
        }
        // without threads, or if the system refuses them
        let mut scanner = scanner.lock().take().ok_or(UNREAD)?;
        let mut groups = BatchSizes::new(&scanner, &mut self);
        let mut read = 0;
        loop {
            let group = next_group(&mut scanner, &mut read, most)?;
            if group.is_empty() {
                groups.redo.replay.finish()?;
                return scanner.take_end();
            }
            groups.replay(&group)?;
            group.into_iter().for_each(|chunk| scanner.reuse(chunk));
        }
    }

    /// One thread reads, one checks what was read, and the caller decodes and applies a group while
    /// the next one is read. Returns `None` if the system refuses the threads; then the scanner is
    /// still there, and nothing was read.
    fn run_with_threads(&mut self, scanner: &Mutex<Option<Scanner>>, most: u64) -> Result<Option<ScanEnd>> {
        let (fetcher, mut groups) = {
            let mut scanner = scanner.lock();
            let scanner = scanner.as_mut().ok_or(UNREAD)?;
            (scanner.start_ahead(), BatchSizes::new(scanner, self))
        };
        let (groups_out, groups_in) = mpsc::sync_channel::<Vec<Chunk>>(1);
        let (used_out, used_in) = mpsc::channel::<Chunk>();
        let (ends_out, ends_in) = mpsc::channel::<Result<ScanEnd>>();
        let read = move || {
            // this thread drops it, which ends the fetcher
            let Some(scanner) = scanner.lock().take() else { return };
            // a receiver that is gone has failed, and its own error is returned
            let _ = ends_out.send(read_groups(scanner, most, groups_out, used_in));
        };
        let work = || {
            let mut result = Ok(());
            for group in &groups_in {
                result = groups.replay(&group);
                if result.is_err() {
                    break;
                }
                group.into_iter().for_each(|chunk| drop(used_out.send(chunk)));
            }
            drop((groups_in, used_out));
            let end = ends_in.recv().unwrap_or(Err(UNREAD));
            result.and(end).and_then(|end| groups.redo.replay.finish().map(|()| end))
        };
        hold_readers(fetcher, read, work)?.transpose()
    }
}

/// The replay of one group after the other.
struct BatchSizes<'r, 'a, M: StateMachine> {
    redo: &'r mut Redo<'a, M>,
    storage: Arc<dyn Storage>,
    /// The size of the whole log in bytes, or more.
    total: u64,
}

impl<'r, 'a, M: StateMachine> BatchSizes<'r, 'a, M> {
    fn new(scanner: &Scanner, redo: &'r mut Redo<'a, M>) -> Self {
        BatchSizes { redo, storage: scanner.storage().clone(), total: scanner.bytes_ahead() }
    }

    fn replay(&mut self, group: &[Chunk]) -> Result<()> {
        let Redo { replay, report, reporter } = &mut *self.redo;
        replay.chunks(group, |chunk| self.storage.path(&chunk.segment().name), report)?;
        let bytes = group.iter().map(Chunk::bytes).fold(0, u64::saturating_add);
        debug_assert!(bytes > 0, "a group holds frames");
        report.log_bytes = report.log_bytes.saturating_add(bytes);
        debug_assert!(report.log_bytes <= self.total, "no more is read than lies ahead");
        reporter.report(Phase::Redo, report.log_bytes, self.total)
    }
}

/// Reads the whole log in groups, and returns where it ended. It reuses the memory of used chunks.
fn read_groups(
    mut scanner: Scanner,
    most: u64,
    groups: mpsc::SyncSender<Vec<Chunk>>,
    used: mpsc::Receiver<Chunk>,
) -> Result<ScanEnd> {
    let mut read = 0;
    loop {
        let group = next_group(&mut scanner, &mut read, most)?;
        if group.is_empty() {
            return scanner.take_end();
        }
        if groups.send(group).is_err() {
            // the replay has failed, and its own error is returned
            return Err(Error::Closed);
        }
        used.try_iter().for_each(|chunk| scanner.reuse(chunk));
    }
}

/// The size of the next group after `read` bytes of log: a third of that, within the bounds.
fn group_bytes(read: u64, most: u64) -> u64 {
    (read / 3).clamp(FIRST_GROUP_BYTES.min(most), most)
}

/// Reads the next group. It ends early where the log seems to end, so that the group is replayed
/// while the tail is searched. The group is empty once the log has ended.
fn next_group(scanner: &mut Scanner, total: &mut u64, most: u64) -> Result<Vec<Chunk>> {
    let (mut group, mut bytes) = (Vec::new(), 0u64);
    let wanted = group_bytes(*total, most);
    while bytes < wanted {
        let Some(mut chunk) = scanner.next_chunk()? else { break };
        bytes = bytes.saturating_add(chunk.bytes());
        scanner.pack(&mut chunk);
        group.push(chunk);
        if scanner.is_at_fault() {
            break;
        }
    }
    *total = total.saturating_add(bytes);
    Ok(group)
}
