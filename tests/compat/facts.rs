//! Reports as lines of text that do not depend on the wording of messages.

use seawal::RecoveryReport;
use seawal::inspect::{Finding, VerifyReport};
use seawal::wal::{LogReport, Tail};
use std::path::Path;

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| "no file".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn tail_line(tail: Option<&Tail>) -> String {
    let Some(tail) = tail else { return "tail: none".to_owned() };
    let (name, offset, later, torn) = (file_name(&tail.path), tail.offset, tail.later_frames, tail.torn);
    format!("tail: {name} at {offset}, later frames: {later}, torn: {torn}")
}

/// The report of recovery. The count of warnings comes last, because a real file system may add its
/// own.
pub(crate) fn of_recovery(report: &RecoveryReport) -> Vec<String> {
    vec![
        format!("verdict: {}", report.verdict),
        format!("epoch: {}", report.epoch.get()),
        match report.snapshot {
            Some(lsn) => format!("snapshot: LSN {}, {} bytes", lsn.get(), report.snapshot_bytes),
            None => "snapshot: none".to_owned(),
        },
        format!("log: {} bytes, {} records, end at LSN {}", report.log_bytes, report.records, report.end.get()),
        format!("redone: {}", report.redone),
        format!("undone: {} in {} steps", report.undone, report.undo_steps),
        format!("digests: {}", report.digests),
        tail_line(report.tail.as_ref()),
        format!("warnings: {}", report.warnings.len()),
    ]
}

/// The report of opening the log on its own.
pub(crate) fn of_log(report: &LogReport) -> Vec<String> {
    vec![
        format!("log: LSN {} to {}, epoch {}", report.start.get(), report.end.get(), report.epoch.get()),
        tail_line(report.tail.as_ref()),
        format!("warnings: {}", report.warnings.len()),
    ]
}

fn finding_line(finding: &Finding) -> String {
    let place = finding.path.as_deref().map_or_else(|| "no file".to_owned(), file_name);
    let lsn = finding.lsn.map(|lsn| lsn.get());
    format!("verify: {:?} in {place}, offset {:?}, LSN {lsn:?}", finding.severity, finding.offset)
}

pub(crate) fn of_verification(report: &VerifyReport) -> Vec<String> {
    let machine = report.machine.as_ref().map(|machine| (machine.name.as_str(), machine.version));
    let log = report.log.map(|(start, end)| (start.get(), end.get()));
    let mut lines = vec![
        format!("verify: {:?}, depth {:?}, opens: {}", report.soundness(), report.depth, report.open_error.is_none()),
        format!("verify: machine {machine:?}, log {log:?}"),
        format!(
            "verify: {} manifest copies, {} snapshots, {} segments, {} frames, {} records",
            report.manifests, report.snapshots, report.segments, report.frames, report.records
        ),
    ];
    lines.extend(report.findings.iter().map(finding_line));
    lines
}
