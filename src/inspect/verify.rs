//! Verifies a store: both copies of the manifest, every snapshot, and the log that recovery may
//! need. Also verifies that replay from each snapshot ends in the same state.
//!
//! Verification uses recovery's own scanner, evidence rule and replay. A store that it finds clean,
//! torn or degraded therefore opens, and a store that does not open is found damaged. In addition
//! it reports damage that recovery works around, such as one damaged copy of the manifest.

use super::{attach, machine_of};
use crate::count::Count;
use crate::error::{Error, Result};
use crate::format::record::Record;
use crate::ids::{Lsn, MachineTag};
use crate::io::Storage;
use crate::io::sync::Arc;
use crate::kv::Kv;
use crate::machine::StateMachine;
use crate::options::Options;
use crate::options::RecoveryPolicy;
use crate::recovery::candidates::{self, Candidate};
use crate::recovery::replay::Fault;
use crate::recovery::{check_shape, recover, rehearse, torn_tail};
use crate::store::layout as names;
use crate::store::manifest_file::read_each;
use crate::store::open_dir::StoreDir;
use crate::wal::Tail;
use crate::wal::scan::{Chunk, Scanner, records_of};
use std::fmt;
use std::io;
use std::path::PathBuf;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Severity {
    /// Information; nothing is wrong.
    Note,
    /// The last write was interrupted. Opening the store cuts it, and no acknowledged commit is
    /// lost.
    TornTail,
    /// Durable data is damaged, but a whole copy replaces it: the store opens and nothing is
    /// missing. Open it and take a checkpoint, because further damage may not be replaceable.
    Degraded,
    /// Durable data is damaged, and nothing replaces it.
    Damage,
}

/// One finding.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// The severity.
    pub severity: Severity,
    /// What was found and where, as a sentence.
    pub text: String,
    /// The file, if the finding concerns one.
    pub path: Option<PathBuf>,
    /// The offset in the file, in bytes.
    pub offset: Option<u64>,
    /// The LSN at that offset, if it is known.
    pub lsn: Option<Lsn>,
}

/// The overall result of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Soundness {
    /// The store is intact.
    Clean,
    /// The store is intact, except for a last write that was interrupted.
    TornTail,
    /// Durable data is damaged, but a whole copy replaces it, and nothing is missing.
    Degraded,
    /// Durable data is damaged, and nothing replaces it.
    Damaged,
}

/// The depth of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Depth {
    /// Frames, records and snapshot chunks were verified. Commands were not replayed, because their
    /// machine was not given.
    Frames,
    /// In addition, each snapshot was loaded, and the log after it was replayed.
    Replayed,
}

/// The result of a verification.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The machine that the store belongs to, if it is known.
    pub machine: Option<MachineTag>,
    /// The depth of the verification.
    pub depth: Depth,
    /// The findings.
    pub findings: Vec<Finding>,
    /// The number of intact copies of the manifest.
    pub manifests: usize,
    /// The number of intact snapshots.
    pub snapshots: usize,
    /// The number of segments that were read.
    pub segments: usize,
    /// The number of intact frames.
    pub frames: u64,
    /// The number of records in those frames.
    pub records: u64,
    /// The first LSN of the log, and the end of its readable part.
    pub log: Option<(Lsn, Lsn)>,
    /// The error that opening the store would return; `None` if it opens. With [`Depth::Frames`],
    /// this is a forecast from frames alone.
    pub open_error: Option<Error>,
}

impl VerifyReport {
    fn new(machine: Option<MachineTag>, depth: Depth) -> Self {
        VerifyReport {
            machine,
            depth,
            findings: Vec::new(),
            manifests: 0,
            snapshots: 0,
            segments: 0,
            frames: 0,
            records: 0,
            log: None,
            open_error: None,
        }
    }

    /// The overall result, which is that of the worst finding.
    pub fn soundness(&self) -> Soundness {
        match self.findings.iter().map(|finding| finding.severity).max() {
            None | Some(Severity::Note) => Soundness::Clean,
            Some(Severity::TornTail) => Soundness::TornTail,
            Some(Severity::Degraded) => Soundness::Degraded,
            Some(Severity::Damage) => Soundness::Damaged,
        }
    }

    fn note(&mut self, text: impl Into<String>) {
        let finding = Finding { severity: Severity::Note, text: text.into(), path: None, offset: None, lsn: None };
        self.findings.push(finding);
    }

    /// Records an error that reports damage, and returns any other error.
    fn damage(&mut self, error: Error) -> Result<()> {
        self.find(Severity::Degraded, error)
    }

    fn find(&mut self, severity: Severity, error: Error) -> Result<()> {
        let (path, offset, lsn) = match &error {
            Error::Corrupt { path, offset, lsn, .. } => (Some(path.clone()), *offset, *lsn),
            Error::UnsupportedVersion { path, .. } => (Some(path.clone()), None, None),
            Error::Unreadable { path, offset, lsn, .. } | Error::Diverged { path, offset, lsn, .. } => {
                (Some(path.clone()), Some(*offset), Some(*lsn))
            }
            Error::Poisoned => (None, None, None),
            _ => return Err(error),
        };
        let text = match error {
            Error::Poisoned => "the machine panics when the log is replayed".to_owned(),
            error => error.finding().to_string(),
        };
        // several checks may find the same damage
        if !self.findings.iter().any(|finding| finding.text == text) {
            self.findings.push(Finding { severity, text, path, offset, lsn });
        }
        Ok(())
    }

    /// Records that the store does not open, and why.
    ///
    /// # Errors
    /// Returns errors that do not report damage.
    fn refuse(&mut self, error: Error) -> Result<()> {
        if let Error::UnsupportedVersion { .. } | Error::Unreadable { .. } = error {
            return Err(error);
        }
        self.find(Severity::Damage, error.clone())?;
        for finding in self.findings.iter_mut().filter(|finding| finding.severity == Severity::Degraded) {
            finding.severity = Severity::Damage;
        }
        self.open_error = Some(error);
        Ok(())
    }

    fn torn(&mut self, tail: &Tail, end: Lsn) {
        let text = format!(
            "{} has a torn tail at offset {} (LSN {end}): {}; whole frames behind it: {}",
            tail.path.display(),
            tail.offset,
            tail.reason,
            tail.later_frames
        );
        let (path, offset) = (Some(tail.path.clone()), Some(tail.offset));
        self.findings.push(Finding { severity: Severity::TornTail, text, path, offset, lsn: Some(end) });
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let severity = match finding.severity {
                Severity::Note => "note",
                Severity::TornTail => "torn tail",
                Severity::Degraded => "degraded",
                Severity::Damage => "damage",
            };
            writeln!(f, "{severity}: {}", finding.text)?;
        }
        let manifests = Count(self.manifests as u64, "manifest copy", "manifest copies");
        let snapshots = Count(self.snapshots as u64, "snapshot", "snapshots");
        let segments = Count(self.segments as u64, "segment", "segments");
        let (frames, records) = (Count(self.frames, "frame", "frames"), Count(self.records, "record", "records"));
        write!(f, "checked: {manifests}, {snapshots}, {segments} with {frames} and {records}")?;
        if let Some((start, end)) = self.log {
            write!(f, ", LSN {start} to {end}")?;
        }
        writeln!(f)?;
        match (self.depth, &self.machine) {
            (Depth::Replayed, _) => writeln!(f, "replayed: from every state that recovery may begin from")?,
            (Depth::Frames, Some(machine)) => writeln!(
                f,
                "not replayed: frames, records and chunks only, as the store is of the machine \"{}\" version {}",
                machine.name, machine.version
            )?,
            (Depth::Frames, None) => writeln!(f, "not replayed: whose store it is cannot be told")?,
        }
        if let Some(error) = &self.open_error {
            writeln!(f, "it does not open: {}", error.finding())?;
        }
        f.write_str(match (self.soundness(), &self.open_error) {
            (Soundness::Clean, _) => "clean",
            (Soundness::TornTail, _) => "torn tail, nothing else: opening cuts it, and nothing acknowledged is missing",
            (Soundness::Degraded, _) => {
                "degraded: it opens, and nothing is missing, as something whole stands in for what is damaged"
            }
            (Soundness::Damaged, None) => "damaged, but it opens",
            (Soundness::Damaged, Some(_)) => "damaged; `seawal salvage` copies what is intact into a new store",
        })
    }
}

/// Verifies a store. A store of the built-in machine is verified by replay, a store of another
/// machine by its frames, records and snapshot chunks.
///
/// Nothing is written. Damage is a finding in the report, not an error.
///
/// # Errors
/// [`Error::NotAStore`]; [`Error::Locked`]; [`Error::UnsupportedVersion`]; [`Error::Unreadable`] if the
/// machine cannot decode what is whole; I/O errors.
pub fn verify(storage: Arc<dyn Storage>) -> Result<VerifyReport> {
    examine::<Kv>(storage, |machine| machine.name == Kv::NAME)
}

/// Verifies a store of the machine `M`, including replay.
///
/// # Errors
/// The errors of [`verify`], and [`Error::OtherMachine`] if the store belongs to another machine.
pub fn verify_machine<M: StateMachine>(storage: Arc<dyn Storage>) -> Result<VerifyReport> {
    examine::<M>(storage, |_| true)
}

fn examine<M: StateMachine>(storage: Arc<dyn Storage>, replays: impl Fn(&MachineTag) -> bool) -> Result<VerifyReport> {
    let store_dir = match attach(storage.clone()) {
        Ok(store_dir) => store_dir,
        Err(error) if error.is_corrupt() => {
            let mut report = VerifyReport::new(None, Depth::Frames);
            report.refuse(error)?;
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    let machine = machine_of(&store_dir);
    let replays = machine.as_ref().is_some_and(replays);
    let depth = if replays { Depth::Replayed } else { Depth::Frames };
    let mut report = VerifyReport::new(machine, depth);
    check_manifests(&store_dir, &mut report)?;
    check_strays(&store_dir, &mut report);
    let whole = check_snapshots(&store_dir, &mut report)?;
    let candidates = match candidates::list(&store_dir) {
        Ok(candidates) if candidates.is_empty() && !replays => Vec::from_iter(start_of_bare_log(&store_dir)),
        Ok(candidates) => candidates,
        Err(error) => {
            report.refuse(error)?;
            return Ok(report);
        }
    };
    let usable: Vec<Candidate> =
        candidates.iter().copied().filter(|c| c.entry().is_none_or(|entry| whole.contains(&entry.lsn))).collect();
    check_log::<M>(&store_dir, &candidates, replays, &mut report)?;
    if replays {
        check_shape::<M>(&store_dir)?;
        check_replay::<M>(&store_dir, &usable, &mut report)?;
    } else {
        foretell(&store_dir, usable.first(), &mut report)?;
    }
    Ok(report)
}

/// Where the records of a log begin that stands alone and was truncated. It has no snapshots, and
/// an engine truncates its log only below a snapshot.
pub(super) fn start_of_bare_log(store_dir: &StoreDir) -> Option<Candidate> {
    let manifest = store_dir.manifest.as_ref()?;
    let is_bare = manifest.snapshots.is_empty() && store_dir.snapshots.is_empty() && manifest.origin != Lsn::ZERO;
    is_bare.then_some(Candidate::Origin(manifest.log_start))
}

fn check_manifests(store_dir: &StoreDir, report: &mut VerifyReport) -> Result<()> {
    let storage = &*store_dir.storage;
    let present = storage.list().map_err(|e| Error::io("list", storage.path(""), e))?;
    let copies = read_each(storage, &present)?;
    for name in names::MANIFESTS {
        match copies.iter().find(|(copy, _)| *copy == name) {
            Some((_, Ok(_))) => report.manifests = report.manifests.saturating_add(1),
            Some((_, Err(error))) => report.damage(error.clone())?,
            // the copies are written one after the other, before the first segment
            None if store_dir.segments.is_empty() => {
                report.note(format!("{} is not there yet", storage.path(name).display()));
            }
            None => report.damage(Error::corrupt_as_a_whole(
                storage.path(name),
                None,
                "the copy of the manifest is missing",
            ))?,
        }
    }
    Ok(())
}

fn check_strays(store_dir: &StoreDir, report: &mut VerifyReport) {
    for name in &store_dir.foreign {
        report.note(format!("{} is not a file of this store", store_dir.storage.path(name).display()));
    }
    if let Some(manifest) = &store_dir.manifest {
        for lsn in store_dir.snapshots.iter().filter(|lsn| !manifest.snapshots.iter().any(|s| s.lsn == **lsn)) {
            let path = store_dir.storage.path(&names::snapshot(*lsn));
            report.note(format!("{} is not in use and was not checked", path.display()));
        }
    }
}

/// Verifies the snapshots that the manifest names. Returns the intact ones.
fn check_snapshots(store_dir: &StoreDir, report: &mut VerifyReport) -> Result<Vec<Lsn>> {
    let mut whole = Vec::new();
    let storage = &*store_dir.storage;
    let named = match &store_dir.manifest {
        Some(manifest) => manifest.snapshots.iter().map(|s| (s.lsn, Some(s.file_bytes))).collect(),
        None => store_dir.snapshots.iter().map(|lsn| (*lsn, None)).collect::<Vec<_>>(),
    };
    for (lsn, stated_bytes) in named {
        let damage = |reason: String| Error::corrupt_as_a_whole(storage.path(&names::snapshot(lsn)), Some(lsn), reason);
        let (header, file_bytes) = match crate::snapshot::check(storage, lsn) {
            Ok(found) => found,
            Err(error) => {
                report.damage(error)?;
                continue;
            }
        };
        report.snapshots = report.snapshots.saturating_add(1);
        whole.push(lsn);
        if let Some(stated) = stated_bytes.filter(|stated| *stated != file_bytes) {
            report.damage(damage(format!("the snapshot was {stated} bytes long and is {file_bytes} now")))?;
        }
        if store_dir.manifest.as_ref().is_some_and(|manifest| manifest.store != header.store) {
            report.damage(damage("the snapshot belongs to another store".into()))?;
        }
    }
    Ok(whole)
}

/// Reads the log from the oldest snapshot that recovery may use.
fn check_log<M: StateMachine>(
    store_dir: &StoreDir,
    candidates: &[Candidate],
    decodes: bool,
    report: &mut VerifyReport,
) -> Result<()> {
    let Some(start) = candidates.iter().map(Candidate::start).min() else { return Ok(()) };
    report.segments = store_dir.segments.iter().filter(|segment| segment.base >= start).count();
    if store_dir.segments.iter().any(|segment| segment.base < start) {
        report.segments = report.segments.saturating_add(1);
    }
    let mut opaque = 0u64;
    let mut scan = || -> Result<()> {
        let mut scanner = Scanner::new(store_dir, start)?;
        report.log = Some((start, start));
        while let Some(chunk) = scanner.next_chunk()? {
            let path = || store_dir.storage.path(&chunk.segment().name);
            for frame in chunk.frames() {
                report.frames = report.frames.saturating_add(1);
                report.log = Some((start, frame.end()));
            }
            for record in records_of(&chunk) {
                let damage =
                    |lsn, why: Fault| why.into_error::<M>(path(), chunk.offset_of(lsn), lsn, chunk.machine_version);
                let (lsn, bytes) = record.map_err(|(lsn, reason)| damage(lsn, reason.into()))?;
                report.records = report.records.saturating_add(1);
                match check_record::<M>(lsn, bytes, &chunk, decodes) {
                    Ok(true) => {}
                    Ok(false) => opaque = opaque.saturating_add(1),
                    Err(fault) => return Err(damage(lsn, fault)),
                }
            }
            scanner.reuse(chunk);
        }
        let end = scanner.take_end()?;
        report.log = Some((start, end.end));
        if let (_, Some(tail)) = torn_tail(store_dir, &end) {
            report.torn(&tail, end.end);
        }
        Ok(())
    };
    match scan() {
        Ok(()) => {}
        Err(error) => report.damage(error)?,
    }
    if opaque > 0 {
        let records = Count(opaque, "record belongs", "records belong");
        report.note(format!("{records} to a log on its own and not to an engine"));
    }
    Ok(())
}

/// Decodes a record, and its command if the machine is known.
fn check_record<M: StateMachine>(lsn: Lsn, bytes: &[u8], chunk: &Chunk, decodes: bool) -> Result<bool, Fault> {
    match Record::decode(lsn, bytes) {
        None if decodes => Err("the record is of no known kind".into()),
        None => Ok(false),
        Some(Record::Update { command, .. } | Record::Execute { command, .. }) if decodes => {
            let decoded = crate::txn::guarded(|| M::decode(command, chunk.machine_version).map(|_| ()));
            match decoded {
                Ok(Ok(())) => Ok(true),
                Ok(Err(e)) => Err(Fault::Unreadable(e)),
                Err(_) => Err("the machine panics when it reads the command".into()),
            }
        }
        Some(_) => Ok(true),
    }
}

/// Recovers the store read-only, once from each possible starting state. All must end in the same
/// state.
fn check_replay<M: StateMachine>(store_dir: &StoreDir, usable: &[Candidate], report: &mut VerifyReport) -> Result<()> {
    let options = Options::new().recovery(RecoveryPolicy::ReadOnly);
    let (used, end) = match recover::<M>(store_dir.storage.clone(), &options) {
        Ok(recovered) => (recovered.report.snapshot, digest(&recovered.state)),
        Err(error) => return report.refuse(error),
    };
    for candidate in usable.iter().filter(|candidate| candidate.entry().map(|entry| entry.lsn) != used) {
        let other = match rehearse::<M>(store_dir, *candidate) {
            Ok(state) => digest(&state),
            Err(error) => {
                report.damage(error)?;
                continue;
            }
        };
        if other != end {
            let reason = "replaying the log from this snapshot gives another state than from the newest snapshot";
            let path = match candidate.entry() {
                Some(entry) => store_dir.storage.path(&names::snapshot(entry.lsn)),
                None => store_dir.storage.path(""),
            };
            // nothing proves which of the two is right
            report.find(Severity::Damage, Error::corrupt_as_a_whole(path, Some(candidate.start()), reason))?;
        }
    }
    Ok(())
}

/// Predicts from frames alone whether the store opens: it needs an intact starting state and an
/// intact log after it.
fn foretell(store_dir: &StoreDir, best: Option<&Candidate>, report: &mut VerifyReport) -> Result<()> {
    let Some(best) = best else {
        let first = report.findings.iter().find(|finding| finding.severity >= Severity::Degraded);
        let reason = first.map_or(
            "no intact snapshot is left, and the log does not go back to the empty state".to_owned(),
            |finding| finding.text.clone(),
        );
        return report.refuse(Error::corrupt_as_a_whole(store_dir.storage.path(""), None, reason));
    };
    let read = || -> Result<()> {
        let mut scanner = Scanner::new(store_dir, best.start())?;
        while let Some(chunk) = scanner.next_chunk()? {
            scanner.reuse(chunk);
        }
        Ok(())
    };
    read().or_else(|error| report.refuse(error))
}

/// A digest of a state's encoding, equal for equal states.
fn digest<M: StateMachine>(state: &M) -> (u64, u32) {
    struct Sum(u64, crc32fast::Hasher);
    impl io::Write for Sum {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len() as u64);
            self.1.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut sum = Sum(0, crc32fast::Hasher::new());
    // writing to the checksum never fails
    let _ = state.save(&mut sum);
    (sum.0, sum.1.finalize())
}
