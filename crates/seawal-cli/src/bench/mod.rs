//! `bench`: measures the engine on the user's own disk, next to the limit of that disk.
//!
//! The floor is that limit: the same work without the engine. Floor and store are measured in
//! alternating short slices of one run, so that a disk whose speed drifts changes both alike and
//! the ratio stays meaningful.

mod checkpoint;
mod commit;
mod data;
mod figures;
mod floor;
mod latencies;
mod place;
mod read;
mod recover;
mod room;
mod settings;
mod turns;

pub(super) use settings::Bench;

use super::failure::Failure;
use super::say;
use super::upkeep::path_name;
use figures::{Figures, line};
use place::{Place, open_disk};
use room::check_room;
use seawal::Durability;
use serde_json::Value;
use settings::What;
use std::path::Path;

/// Measures in a directory that is removed afterwards, and prints the figures.
pub(super) fn run(bench: &Bench) -> Result<(), Failure> {
    let place = Place::new(bench.dir.as_deref())?;
    let measured = measure(bench, &place);
    let removed = place.remove();
    let figures = measured.and_then(|figures| removed.map(|()| figures))?;
    if bench.json {
        return say(figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Value>());
    }
    say(figures.iter().map(|(name, value)| line(name, value)).collect::<Vec<_>>().join("\n"))
}

fn measure(bench: &Bench, place: &Place) -> Result<Figures, Failure> {
    check_room(bench, place)?;
    let mut figures = about(bench, place.path())?;
    let more = match bench.what {
        What::Commit => commit::measure(bench, place),
        What::Recover => recover::measure(bench, place),
        What::Read => read::measure(bench, place),
        What::Checkpoint => checkpoint::measure(bench, place),
    };
    figures.extend(more?);
    Ok(figures)
}

/// The settings of the measurement and the properties of the disk.
fn about(bench: &Bench, dir: &Path) -> Result<Figures, Failure> {
    let disk = open_disk(dir)?;
    let durability = match bench.durability {
        Durability::Sync => "sync".into(),
        Durability::Interval(time) => format!("interval={}", time.as_millis()),
        Durability::Os => "os".into(),
        other => format!("{other:?}").to_lowercase(),
    };
    let what = format!("{:?}", bench.what).to_lowercase();
    Ok(Vec::from([
        ("what", what.into()),
        ("threads", bench.threads.into()),
        ("n", bench.entries().into()),
        ("value_bytes", bench.value.into()),
        ("durability", durability.into()),
        ("write_path", path_name(disk.write_path()).into()),
        ("warnings", seawal::io::Directory::warnings(&disk).into()),
    ]))
}
