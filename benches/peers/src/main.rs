//! The same work on seawal and on its peers, side by side.
//!
//! Writes `docs/benchmarks/results.md`, the short tables of `docs/benchmarks.md`, and the plots.

mod child;
mod figures;
mod floor;
mod parts;
mod peer;
mod peers;
mod plot;
mod report;
mod targets;
mod work;

use clap::Parser;
use figures::Figures;
use parts::{Effort, Which};
use std::path::PathBuf;
use std::time::Duration;

/// Measures seawal and its peers side by side, and writes the tables and plots of docs/benchmarks.
///
/// Stores are created under TMPDIR, which must be on the disk to measure, and are removed.
#[derive(Debug, Parser)]
#[command(name = "peers", version)]
struct Arguments {
    /// Only these parts; the others keep the figures of their last run.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART")]
    only: Vec<Which>,
    /// Only peers whose names start with one of these.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    peers: Vec<String>,
    /// Shorter and fewer samples, for a first impression.
    #[arg(long)]
    quick: bool,
    /// The number of repetitions of each measurement.
    #[arg(long, value_name = "N")]
    repetitions: Option<usize>,
    /// The length of each sample, in seconds.
    #[arg(long, value_name = "SECS")]
    secs: Option<f64>,
    /// Measures nothing, and writes the document from the existing figures.
    #[arg(long)]
    render: bool,
    /// Also ten million entries, and twenty without --quick. Takes minutes, 8 GiB of memory and 20
    /// GiB of disk.
    #[arg(long)]
    large: bool,
    #[command(flatten)]
    child: child::Child,
    /// The file of the figures, for a run that is not published.
    #[arg(long, value_name = "FILE")]
    figures: Option<PathBuf>,
}

fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    if let Some(task) = arguments.child.child {
        arguments.child.act(task);
        return Ok(());
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let published = arguments.figures.is_none();
    let path = arguments.figures.clone().unwrap_or_else(|| root.join("docs/benchmarks/figures.tsv"));
    let mut figures = Figures::load(&path)?;
    let effort = Effort {
        repetitions: arguments.repetitions.unwrap_or(if arguments.quick { 2 } else { 5 }).max(1),
        time: Duration::from_secs_f64(
            arguments.secs.unwrap_or(if arguments.quick { 0.2 } else { 0.5 }).clamp(0.01, 60.0),
        ),
        peers: arguments.peers.clone(),
        quick: arguments.quick,
        large: arguments.large,
    };
    let all = Which::ALL.into_iter().filter(|which| which.is_in(&effort));
    let chosen: Vec<Which> = if arguments.only.is_empty() { all.collect() } else { arguments.only.clone() };
    for which in chosen.iter().filter(|_| !arguments.render) {
        eprintln!("{}:", which.name());
        let mut part = which.measure(&effort);
        part.about = report::about(&which.taken(&effort));
        println!("{}", report::part(which.name(), &part));
        figures.replace(which.name(), part);
        figures.save(&path)?;
    }
    if published {
        report::write(&root, &figures)?;
    }
    Ok(())
}
