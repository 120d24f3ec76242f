//! The targets: what each figure is compared with, and whether it is met.

use crate::figures::{Figures, Part};
use crate::parts::{checkpoint, commit, growth, reads, recovery, segments, space, young};
use crate::peer::OURS;
use crate::report::short;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// The goal of a row, for the ratio of this engine's figure to the compared one.
#[derive(Clone, Copy)]
enum Goal {
    /// At least this ratio.
    AtLeast(f64),
    /// At most this ratio.
    AtMost(f64),
}

impl Goal {
    fn is_met(self, ratio: f64) -> bool {
        match self {
            Goal::AtLeast(least) => ratio >= least,
            Goal::AtMost(most) => ratio <= most,
        }
    }
}

/// What a figure is compared with.
enum Against {
    /// Nothing: the goal is for the figure itself.
    Itself,
    BestPeer,
    /// A subject of the same row, or of the same part.
    Named(&'static str),
}

struct Target {
    what: &'static str,
    aim: &'static str,
    part: &'static str,
    row: String,
    /// The subject of this engine.
    ours: &'static str,
    goal: Goal,
    against: Against,
    /// The limit of the figure, in the same row.
    limit: Option<&'static str>,
    /// This share of the limit is enough, too.
    enough: Option<f64>,
    /// Whether peers can have this figure at all.
    peers: bool,
    /// Whether only a run with `--large` measures it.
    large: bool,
    /// The table of `docs/benchmarks.md` that shows this row, if one does.
    shown_in: Option<&'static str>,
}

const NO_PEERS: [&str; 5] = [commit::FLOOR, commit::WAKE_UPS, growth::DEVICE, checkpoint::QUIET, ""];
const VIEW: &str = "seawal, a view held";
const HELD: &str = "LMDB, a transaction held";

fn best(part: &Part, target: &Target) -> Option<(String, f64)> {
    let counts = |name: &str| {
        let held = name == HELD;
        target.peers && !name.starts_with(OURS) && !NO_PEERS.contains(&name) && held == (target.ours == VIEW)
    };
    let peers =
        part.row(&target.row).filter(|(name, _)| counts(name)).map(|(name, figure)| (name.to_owned(), figure.median));
    let less_is_better = matches!(target.goal, Goal::AtMost(_));
    peers.reduce(|a, b| if (b.1 > a.1) != less_is_better { b } else { a })
}

#[rustfmt::skip]
fn targets() -> Vec<Target> {
    use Against::{BestPeer, Itself, Named};
    use Goal::{AtLeast, AtMost};
    let t = |what, aim, part, row: String, goal, against, limit, peers| {
        Target { what, aim, part, row, ours: OURS, goal, against, limit, enough: None, peers, large: false, shown_in: None }
    };
    let floor = Some(commit::FLOOR);
    let device = Some(growth::DEVICE);
    let view = |target: Target| Target { ours: VIEW, ..target };
    let or_of_limit = |target: Target| Target { enough: Some(0.8), ..target };
    let large = |target: Target| Target { large: true, ..target };
    let shown = |table, target: Target| Target { shown_in: Some(table), ..target };
    vec![
        shown("commit", t("durable, 1 thread", "0.95 of the floor, and no peer ahead", "commit", commit::row(1), AtLeast(0.95), Named(commit::FLOOR), floor, true)),
        shown("commit", t("durable, 8 threads", "2 × the best peer", "commit", commit::row(8), AtLeast(2.0), BestPeer, floor, true)),
        shown("commit", t("durable, 64 threads", "2 × the best peer, aiming at 3", "commit", commit::row(64), AtLeast(2.0), BestPeer, Some(commit::WAKE_UPS), true)),
        t("durable, 1,024 tickets outstanding, 100,000 keys", "1,000,000 a second", "commit", commit::tickets_row(100_000), AtLeast(1e6), Itself, None, false),
        shown("commit", t("durable, 1,024 tickets outstanding, a million keys", "600,000 a second", "commit", commit::tickets_row(1_000_000), AtLeast(6e5), Itself, None, false)),
        shown("commit", t("`Os`, 1 thread", "1.3 × the best peer", "buffered", commit::SINGLE.into(), AtLeast(1.3), BestPeer, None, true)),
        shown("commit", t("`Os`, in batches of 100, entries", "1,000,000 entries a second", "buffered", commit::BATCHED.into(), AtLeast(1e6), Itself, None, true)),
        shown("commit", t("p99 latency at 8 threads, µs, lower is better", "2 × the device's own p99 at the most", "commit", commit::latency_row("p99"), AtMost(2.0), Named(commit::FLOOR), floor, true)),
        t("p99.9 latency at 8 threads with a new segment for each MiB, µs", "2 × that within one segment, at the most", "segments", segments::row("p99.9"), AtMost(2.0), Named(segments::ONE), Some(segments::ONE), false),
        t("p99 latency of 1 thread on a new store, µs", "the best log", "young", young::row(1, "p99"), AtMost(1.0), BestPeer, None, true),
        t("durable, 8 threads, on a new store", "2 × the best log", "young", young::rate_row(8), AtLeast(2.0), BestPeer, None, true),
        shown("open", t("log replay of a million, records a second", "3,000,000", "growth", growth::replay_row(1_000_000), AtLeast(3e6), Itself, device, false)),
        large(t("log replay of ten million", "3,000,000: linear", "growth", growth::replay_row(10_000_000), AtLeast(3e6), Itself, device, false)),
        large(t("log replay of twenty million", "3,000,000: linear", "growth", growth::replay_row(20_000_000), AtLeast(3e6), Itself, device, false)),
        shown("open", t("replay of single durable commits, bytes a second", "0.8 of the disk", "growth", growth::SINGLES_ROW.into(), AtLeast(0.8), Named(growth::DEVICE), device, false)),
        t("opening a million after a kill, seconds", "a fifth of Redis's, which replays too", "recovery", recovery::KILLED.into(), AtMost(0.2), Named("Redis"), None, true),
        t("opening a million after a kill, seconds", "a tenth of raft-engine's", "recovery", recovery::KILLED.into(), AtMost(0.1), Named("raft-engine"), None, true),
        shown("open", or_of_limit(t("snapshot load of a million, entries a second", "8,000,000, or 0.8 of the disk", "growth", growth::load_row(1_000_000), AtLeast(8e6), Itself, device, false))),
        or_of_limit(large(t("snapshot load of ten million, entries a second", "8,000,000, or 0.8 of the disk", "growth", growth::load_row(10_000_000), AtLeast(8e6), Itself, device, false))),
        shown("checkpoint", t("unpaced checkpoint, bytes a second", "0.8 of the disk", "checkpoint", checkpoint::RATE.into(), AtLeast(0.8), Named(commit::FLOOR), floor, false)),
        shown("checkpoint", t("p99.9 commit latency during a paced checkpoint, µs", "1.5 × that without, at the most", "checkpoint", checkpoint::latency_row("p99.9"), AtMost(1.5), Named(checkpoint::QUIET), Some(checkpoint::QUIET), false)),
        shown("checkpoint", t("freeze of a million entries holds the lock, µs", "under 100", "checkpoint", checkpoint::freeze_row(checkpoint::ENTRIES), AtMost(100.0), Itself, None, false)),
        shown("checkpoint", large(t("freeze of ten million entries holds the lock, µs", "under 100", "checkpoint", checkpoint::freeze_row(checkpoint::LARGE), AtMost(100.0), Itself, None, false))),
        shown("read", t("point reads of a million, 1 thread", "1.5 × LMDB", "reads", reads::point_row(1), AtLeast(1.5), Named("LMDB"), None, true)),
        shown("read", t("point reads of a million, 2 threads", "1.5 × LMDB", "reads", reads::point_row(2), AtLeast(1.5), Named("LMDB"), None, true)),
        shown("read", view(t("point reads of a view of a million, 1 thread", "1.5 × LMDB with a transaction held", "reads", reads::point_row(1), AtLeast(1.5), Named(HELD), None, true))),
        view(t("point reads of a view of a million, 2 threads", "1.5 × LMDB with a transaction held", "reads", reads::point_row(2), AtLeast(1.5), Named(HELD), None, true)),
        shown("read", large(t("point reads of ten million, 1 thread", "1.5 × LMDB", "reads-large", reads::point_row(1), AtLeast(1.5), Named("LMDB"), None, true))),
        large(t("point reads of ten million, 2 threads", "1.5 × LMDB", "reads-large", reads::point_row(2), AtLeast(1.5), Named("LMDB"), None, true)),
        shown("read", t("scans of 100, 1 thread", "2 × the best peer", "reads", reads::scan_row(1), AtLeast(2.0), BestPeer, None, true)),
        t("scans of 100, 2 threads", "2 × the best peer", "reads", reads::scan_row(2), AtLeast(2.0), BestPeer, None, true),
        shown("memory", t("bytes per entry, a million inserted", "150 (116 are data)", "space", space::inserted_row(1_000_000), AtMost(150.0), Itself, None, true)),
        shown("memory", large(t("bytes per entry, ten million inserted", "150", "space", space::inserted_row(10_000_000), AtMost(150.0), Itself, None, true))),
        shown("memory", large(t("bytes per entry, ten million inserted during checkpoints", "200: a third more", "space", space::beside_row(10_000_000), AtMost(200.0), Itself, None, false))),
        t("bytes per entry, a million recovered", "150", "space", space::recovered_row(1_000_000), AtMost(150.0), Itself, None, false),
        shown("memory", large(t("bytes per entry, ten million recovered", "150", "space", space::recovered_row(10_000_000), AtMost(150.0), Itself, None, false))),
        shown("memory", t("peak memory in a checkpoint under load, relative to before", "4/3 of that before", "space", space::CHECKPOINT.into(), AtMost(4.0 / 3.0), Itself, None, false)),
        shown("memory", t("log bytes per byte of payload", "1.25", "space", space::LOG.into(), AtMost(1.25), Itself, None, true)),
        shown("checkpoint", t("taking a view, ns", "under 1,000", "checkpoint", checkpoint::VIEW.into(), AtMost(1000.0), Itself, None, false)),
    ]
}

fn command(target: &Target) -> String {
    let large = if target.large { " --large" } else { "" };
    format!("`peers --only {}{large}`", target.part)
}

/// The verdict on a row, with its ratio.
fn verdict(part: &Part, target: &Target, ours: f64, best: Option<&(String, f64)>) -> String {
    let (name, ratio) = match target.against {
        Against::Itself => (None, ours),
        Against::BestPeer => match best {
            Some((name, figure)) => (Some(name.clone()), ours / figure),
            None => return "nobody to compare with".into(),
        },
        Against::Named(name) => match part.get(&target.row, name) {
            Some(figure) => (Some(name.to_owned()), ours / figure.median),
            None => return "nobody to compare with".into(),
        },
    };
    let of_limit = target.limit.and_then(|name| Some((name, ours / part.get(&target.row, name)?.median)));
    if let (false, Some(enough), Some((name, ratio))) = (target.goal.is_met(ratio), target.enough, of_limit)
        && ratio >= enough
    {
        return format!("met, {ratio:.2} × {name}");
    }
    let met = if target.goal.is_met(ratio) { "met" } else { "**short**" };
    let of = name.map_or(String::new(), |name| format!(", {ratio:.2} × {name}"));
    let ahead = best.filter(|(_, figure)| match target.goal {
        Goal::AtLeast(_) => *figure > ours,
        Goal::AtMost(_) => *figure < ours,
    });
    let ahead = ahead.map_or(String::new(), |(name, _)| format!("; **{name} is ahead**"));
    format!("{met}{of}{ahead}")
}

/// A short table for `docs/benchmarks.md`: each figure, the best peer and the limit, with the ratio
/// of our figure to each.
pub fn short_table(figures: &Figures, name: &str) -> String {
    let mut text = String::from("| | seawal | best peer | floor or limit |\n| --- | --- | --- | --- |\n");
    for target in targets().iter().filter(|target| target.shown_in == Some(name)) {
        let Some(part) = figures.part(target.part) else { continue };
        let Some(ours) = part.get(&target.row, target.ours).map(|figure| figure.median) else { continue };
        let beside = |other: Option<(String, f64)>| {
            other.map_or("–".into(), |(name, figure)| format!("{} {name}, {:.2} ×", short(figure), ours / figure))
        };
        let peer = beside(best(part, target));
        let limit = target.limit.and_then(|name| Some((name.to_owned(), part.get(&target.row, name)?.median)));
        let _ = writeln!(text, "| {} | {} | {peer} | {} |", target.what, short(ours), beside(limit));
    }
    text
}

/// The table of all targets, for `docs/benchmarks/results.md`.
pub fn table(figures: &Figures, root: &Path) -> String {
    let mut text = String::from(
        "| what | target | this engine | best peer | floor or limit | | measured by |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for target in targets() {
        let part = figures.part(target.part);
        let ours = part.and_then(|part| part.get(&target.row, target.ours));
        let (Target { what, aim, .. }, command) = (&target, command(&target));
        let Some((part, ours)) = part.zip(ours) else {
            let _ = writeln!(text, "| {what} | {aim} | not measured | | | | {command} |");
            continue;
        };
        let best = best(part, &target);
        let peer = best.as_ref().map_or("–".into(), |(name, figure)| format!("{}, {name}", short(*figure)));
        let limit = target.limit.and_then(|name| Some((name, part.get(&target.row, name)?.median)));
        let limit = limit.map_or("–".into(), |(name, figure)| format!("{}, {name}", short(figure)));
        let verdict = verdict(part, &target, ours.median, best.as_ref());
        let ours = short(ours.median);
        let _ = writeln!(text, "| {what} | {aim} | {ours} | {peer} | {limit} | {verdict} | {command} |");
    }
    if let Some(crates) = crates(root) {
        let met = if crates <= 15 { "met" } else { "**short**" };
        let measured = "`cargo tree -e normal --prefix none \\| sort -u \\| wc -l`";
        let _ = writeln!(
            text,
            "| crates in the whole tree, default features | 15 at the most | {crates} | – | – | {met} | {measured} |"
        );
    }
    text
}

/// The number of crates that the default features bring, including this one.
fn crates(root: &Path) -> Option<usize> {
    let mut tree = Command::new("cargo");
    let output = tree.args(["tree", "-e", "normal", "--prefix", "none"]).current_dir(root).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let names: std::collections::BTreeSet<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    (!names.is_empty()).then_some(names.len())
}
