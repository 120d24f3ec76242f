//! The commands for whole stores: `stat`, `checkpoint`, `backup`, `salvage`.

use super::failure::{Failure, Status};
use super::{Dir, say, warn};
use seawal::Error;
use seawal::RecoveryReport;
use seawal::StateMachine;
use seawal::inspect::{self, Survey};
use seawal::io::{Create, DiskStorage, WritePath};
use seawal::kv::Kv;
use seawal::salvage::{Outcome, Reach, salvage};
use seawal::wal::BatchSizes;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Prints statistics of a store of any state machine.
///
/// Entries, tables and recovery are part of it if the machine is the built-in one.
#[derive(Debug, clap::Args)]
pub(super) struct Stat {
    #[command(flatten)]
    dir: Dir,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Stat {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let survey = self.dir.storage().and_then(inspect::survey)?;
        let disk = DiskStorage::open(self.dir.path(), Create::Never)
            .map_err(|e| Failure::io(format_args!("open {}", self.dir.path().display()), &e))?;
        let mut json = file_figures(&survey, disk.write_path());
        if survey.machine.as_ref().is_some_and(|machine| machine.name != Kv::NAME) {
            let checked = self.dir.storage().and_then(inspect::verify)?;
            json["log"]["end"] = checked.log.map(|(_, end)| end.get()).into();
            json["log"]["frames"] = checked.frames.into();
            json["log"]["records"] = checked.records.into();
        } else {
            let (store, report) = self.dir.open_to_read()?;
            add_state_figures(&mut json, &report, &*store.view()?);
        }
        if self.json { say(format_args!("{json:#}")) } else { say(text(&json)) }
    }
}

/// The name of a write path in the output.
pub(super) fn path_name(path: WritePath) -> &'static str {
    match path {
        WritePath::Direct => "direct",
        WritePath::BufferedSync => "buffered, then synced",
    }
}

/// The statistics of how many records the frames of a log hold.
pub(super) fn group_figures(groups: &BatchSizes) -> Value {
    let by_size = groups.by_size().map(|(least, frames)| json!({ "records_at_least": least, "frames": frames }));
    json!({
        "frames": groups.frames(),
        "mean": groups.mean(),
        "most": groups.most(),
        "by_size": by_size.collect::<Vec<_>>(),
    })
}

/// The figures from the files alone, which need no knowledge of the machine.
fn file_figures(survey: &Survey, write_path: WritePath) -> Value {
    let segment_bytes: u64 = survey.segments.iter().map(|segment| segment.file_bytes).fold(0, u64::saturating_add);
    json!({
        "machine": survey.machine.as_ref().map(|machine| json!({ "name": machine.name, "version": machine.version })),
        "store": survey.store.map(|store| store.to_string()),
        "epoch": survey.epoch.map(|epoch| epoch.get()),
        "block_bytes": survey.block_bytes,
        "snapshots": survey.snapshots.iter().map(|snapshot| {
            json!({ "name": snapshot.name(), "lsn": snapshot.lsn.get(), "bytes": snapshot.file_bytes })
        }).collect::<Vec<_>>(),
        "log": json!({
            "start": survey.log_start.map(|lsn| lsn.get()),
            "segments": survey.segments.len(),
            "segment_bytes": segment_bytes,
            "spares": survey.preallocated.0,
            "spare_bytes": survey.preallocated.1,
            "write_path": path_name(write_path),
        }),
    })
}

/// Adds the figures of recovery and of the state.
fn add_state_figures(json: &mut Value, report: &RecoveryReport, view: &Kv) {
    let tables: Vec<Value> = view
        .tables()
        .map(|name| {
            let (mut entries, mut bytes) = (0u64, 0u64);
            for (key, value) in view.range::<[u8]>(name, ..) {
                entries = entries.saturating_add(1);
                bytes = bytes.saturating_add(key.len() as u64).saturating_add(value.len() as u64);
            }
            json!({ "name": name, "entries": entries, "bytes": bytes })
        })
        .collect();
    json["entries"] = view.len().into();
    json["payload_bytes"] = view.payload_bytes().into();
    json["tables"] = tables.into();
    json["log"]["end"] = report.end.get().into();
    json["log"]["groups"] = group_figures(&report.groups);
    json["recovery"] = json!({
        "verdict": report.verdict.to_string(),
        "snapshot": report.snapshot.map(|lsn| lsn.get()),
        "log_bytes": report.log_bytes,
        "records": report.records,
        "redone": report.redone,
        "undone": report.undone,
        "undo_steps": report.undo_steps,
        "seconds": report.phases.total().as_secs_f64(),
    });
    json["warnings"] = json!(report.warnings);
}

/// The same figures as text: on each line the path in the JSON, and the value.
fn text(figures: &Value) -> String {
    let mut lines = Vec::new();
    put_lines(String::new(), figures, &mut lines);
    lines.join("\n")
}

fn put_lines(path: String, value: &Value, lines: &mut Vec<String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| put_lines(below(name), value, lines)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, value)| put_lines(below(&i.to_string()), value, lines));
        }
        value => lines.push(format!("{path}: {value}")),
    }
}

/// Writes a snapshot, from which recovery then starts, and deletes the log before it.
#[derive(Debug, clap::Args)]
pub(super) struct Checkpoint {
    #[command(flatten)]
    dir: Dir,
}

impl Checkpoint {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let store = self.dir.open_to_write(Create::Never)?;
        store.checkpoint()?;
        let newest = store.stats().snapshots.first().copied().unwrap_or_default();
        store.close()?;
        say(format_args!("checkpoint at LSN {newest}"))
    }
}

/// Copies a store of any state machine into a new store in another directory.
///
/// The original is only read. For the built-in machine the new store holds a snapshot of the
/// committed state. For another machine it holds copies of the files that recovery needs: the
/// newest intact snapshot and the log after it.
#[derive(Debug, clap::Args)]
pub(super) struct Backup {
    #[command(flatten)]
    dir: Dir,
    /// The directory of the new store.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

impl Backup {
    pub(super) fn run(&self) -> Result<(), Failure> {
        self.dir.check_target(&self.to)?;
        match self.dir.open_to_read() {
            Ok((store, _)) => Ok(store.backup_to(&self.to)?),
            Err(Error::OtherMachine { .. }) => {
                let source = self.dir.storage()?;
                let report = inspect::backup(source, self.dir.target(&self.to)?)?;
                report.warnings.iter().for_each(|warning| warn(warning));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Recovers as much as possible from a damaged key-value store into a new store in another
/// directory.
///
/// Exit status 0: nothing is missing. 1: some data is missing. 2: no usable state is left, and
/// nothing was written.
///
/// The damaged store is only read. The new store holds the state after the last commit before the
/// first damage. The report says what is missing and what was found after the damage.
#[derive(Debug, clap::Args)]
pub(super) struct Salvage {
    #[command(flatten)]
    dir: Dir,
    /// The directory of the new store.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Also apply the complete transactions found after the damage, as far as the machine accepts
    /// them. The result need not be a state that the store ever had.
    #[arg(long)]
    beyond: bool,
}

impl Salvage {
    pub(super) fn run(&self) -> Result<(), Failure> {
        self.dir.check_target(&self.to)?;
        let source = self.dir.storage()?;
        // before the target's directory is created; what else is wrong, salvage itself reports
        if let Ok(Survey { machine: Some(machine), .. }) = inspect::survey(source.clone())
            && machine.name != Kv::NAME
        {
            return Err(of_another_machine(self.dir.path(), &machine.name, machine.version));
        }
        let target = self.dir.target(&self.to)?;
        let reach = if self.beyond { Reach::Beyond } else { Reach::Proven };
        let report = salvage::<Kv>(source, target, reach).map_err(|error| match error {
            Error::OtherMachine { path, found, version, .. } => of_another_machine(&path, &found, version),
            error => error.into(),
        })?;
        let status = match report.outcome {
            Outcome::Whole => None,
            Outcome::Partial => Some(Status::Partly),
            _ => Some(Status::Damage),
        };
        // the exit status does not depend on whether the text could be printed
        match (say(&report), status) {
            (Ok(()) | Err(Failure::Quiet), Some(status)) => Err(Failure::Shown(status)),
            (printed, _) => printed,
        }
    }
}

/// The failure of a salvage of a store whose commands this program cannot replay.
fn of_another_machine(path: &Path, found: &str, version: u32) -> Failure {
    let text = format!(
        "{} is a store of the machine \"{found}\" version {version}; salvage replays its commands, which takes that \
         machine, so call seawal::salvage in a program that has it; backup copies the store if verify finds that it \
         opens",
        path.display()
    );
    Failure::new(Status::NotAStore, text)
}
