//! Crashes: the states that a power loss or a kill can leave.
//!
//! A power loss keeps any subset of the pending units: sectors, file lengths and name changes. The
//! kept units are applied in their original order. A name change refers to the file itself, not to
//! its old name: if a file's creation was lost and its rename was kept, the file has the new name.

use super::content::{SECTOR_BYTES, SECTORS_PER_PAGE, sectors_of};
use super::image::{Image, InFlight, Ino, apply_entry};
use super::inode::Unit;
use super::rng::{Rng, mix};
use crate::error::Error;
use crate::io::sync::Arc;
use std::fmt;
use std::str::FromStr;

/// A choice of what survives a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Crash {
    /// Power loss. Only synced data survives.
    Nothing,
    /// Power loss. All written data survives, synced or not, except what a failed sync has lost.
    Everything,
    /// Power loss. A random subset of the unsynced units survives. The seed also decides whether it
    /// is chosen by unit, by page, by file, or as a prefix.
    Seeded(u64),
    /// A kill of the process. The page cache survives, and unsynced data is still unsynced on the
    /// new disk.
    KillOnly,
    /// Like `Seeded`, and one physical block is destroyed, including durable data in it. It is a
    /// block of the last unfinished durable write, or else one with unsynced sectors, if there is
    /// any.
    TornBlock(u64),
    /// Power loss. This number of unsynced units survives, the oldest ones.
    Prefix(u32),
    /// Power loss. All unsynced units survive except this one, counted from 0.
    AllBut(u32),
    /// Power loss. Of the unsynced units only this one survives, counted from 0.
    Only(u32),
    /// Power loss. The unsynced units whose bit is set survive; the lowest bit stands for the first
    /// unit. Units from the 65th on are lost.
    Subset(u64),
}

/// What a pending unit changes.
#[derive(Clone, Copy, Debug)]
enum About {
    Sector(Ino, u64),
    Length(Ino),
    Names,
}

/// The maximum number of pending units for which all subsets are tried: 256 crashes.
const EXHAUSTED_UNITS: usize = 8;

/// The number of random subsets if there are more pending units.
const DRAWN_SUBSETS: usize = 16;

pub(super) fn crash_choices(image: &Image, seed: u64) -> Vec<Crash> {
    let image = &*image.with_held_pending();
    let (mut rng, units) = (Rng::new(seed), units(image));
    let mut choices = vec![Crash::KillOnly];
    if image.in_flight.is_some() || units.iter().any(|(_, about)| matches!(about, About::Sector(..))) {
        choices.push(Crash::TornBlock(rng.next()));
    }
    if units.len() <= EXHAUSTED_UNITS {
        choices.extend((0..1 << units.len()).map(Crash::Subset));
        return choices;
    }
    let count = u32::try_from(units.len()).unwrap_or(u32::MAX);
    choices.extend([Crash::Nothing, Crash::Everything]);
    choices.extend((1..count).map(Crash::Prefix));
    choices.extend((0..count).flat_map(|unit| [Crash::Only(unit), Crash::AllBut(unit)]));
    choices.extend(std::iter::repeat_with(|| Crash::Seeded(rng.next())).take(DRAWN_SUBSETS));
    choices
}

/// The disk after a crash.
pub(super) fn after(image: &Image, choice: Crash) -> Image {
    let image = &*image.with_held_pending();
    match choice {
        Crash::Nothing => power_loss(image, 1, |_| false),
        Crash::Everything => power_loss(image, 2, |_| true),
        Crash::KillOnly => kill(image),
        Crash::Seeded(seed) => seeded(image, seed),
        Crash::TornBlock(seed) => {
            let mut after = seeded(image, seed);
            destroy_block(image, &mut after, Rng::new(seed).fork(3));
            after
        }
        Crash::Prefix(count) => power_loss(image, code(5, count.into()), |at| at < count as usize),
        Crash::AllBut(unit) => power_loss(image, code(6, unit.into()), |at| at != unit as usize),
        Crash::Only(unit) => power_loss(image, code(7, unit.into()), |at| at == unit as usize),
        Crash::Subset(mask) => power_loss(image, code(8, mask), |at| at < 64 && mask >> at & 1 == 1),
    }
}

/// The seed of the disk after a crash.
fn code(kind: u64, number: u64) -> u64 {
    mix(number ^ mix(kind))
}

/// Writes one word, which [`FromStr`] parses, so that a failure report can be replayed.
impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Crash::Nothing => f.write_str("nothing"),
            Crash::Everything => f.write_str("everything"),
            Crash::KillOnly => f.write_str("kill"),
            Crash::Seeded(seed) => write!(f, "seeded-{seed}"),
            Crash::TornBlock(seed) => write!(f, "torn-{seed}"),
            Crash::Prefix(count) => write!(f, "prefix-{count}"),
            Crash::AllBut(unit) => write!(f, "allbut-{unit}"),
            Crash::Only(unit) => write!(f, "only-{unit}"),
            Crash::Subset(mask) => write!(f, "subset-{mask}"),
        }
    }
}

/// Parses what [`fmt::Display`] writes.
///
/// ```
/// use seawal::sim::Crash;
/// assert_eq!("allbut-3".parse::<Crash>()?, Crash::AllBut(3));
/// assert_eq!(Crash::Subset(5).to_string(), "subset-5");
/// # Ok::<(), seawal::Error>(())
/// ```
impl FromStr for Crash {
    type Err = Error;

    fn from_str(text: &str) -> Result<Crash, Error> {
        let (word, number) = text.split_once('-').map_or((text, None), |(word, number)| (word, number.parse().ok()));
        let small = number.and_then(|number: u64| u32::try_from(number).ok());
        let crash = match word {
            "nothing" if word == text => Some(Crash::Nothing),
            "everything" if word == text => Some(Crash::Everything),
            "kill" if word == text => Some(Crash::KillOnly),
            "seeded" => number.map(Crash::Seeded),
            "torn" => number.map(Crash::TornBlock),
            "prefix" => small.map(Crash::Prefix),
            "allbut" => small.map(Crash::AllBut),
            "only" => small.map(Crash::Only),
            "subset" => number.map(Crash::Subset),
            _ => None,
        };
        crash.ok_or_else(|| Error::invalid(format!("{text:?} is not a crash")))
    }
}

pub(super) fn pending_units(image: &Image) -> usize {
    units(&image.with_held_pending()).len()
}

/// All pending units in the order in which they were written.
fn units(image: &Image) -> Vec<(u64, About)> {
    let files = image.inodes.iter().flat_map(|(&ino, inode)| {
        inode.pending.iter().flat_map(move |p| {
            let (mask, index) = match p.unit {
                Unit::Sectors { mask, index, .. } => (mask, Some(index)),
                Unit::Grow(_) | Unit::Shrink(_) => (1, None),
            };
            sectors_of(mask).map(move |at| {
                let about =
                    index.map_or(About::Length(ino), |index| About::Sector(ino, index * SECTORS_PER_PAGE + at as u64));
                (p.seq + at as u64, about)
            })
        })
    });
    let mut all: Vec<_> = files.chain(image.pending_dir.iter().map(|(seq, _)| (*seq, About::Names))).collect();
    all.sort_unstable_by_key(|&(seq, _)| seq);
    all
}

fn seeded(image: &Image, seed: u64) -> Image {
    let all = units(image);
    let mut rng = Rng::new(seed);
    // Choosing sectors independently almost never loses a whole write and keeps a later one, so
    // whole pages and whole files are chosen as well.
    let (manner, sixteenths, salt) = (rng.below(4), rng.below(17), rng.next());
    let moment = rng.below(all.len() as u64 + 1) as usize;
    let keep = |at: usize| {
        let (seq, about) = all[at];
        let group = match (manner, about) {
            (3, _) => return at < moment,
            (1, About::Sector(ino, sector)) => mix(ino) ^ (sector / 8),
            (2, About::Sector(ino, _) | About::Length(ino)) => mix(ino),
            _ => mix(!seq),
        };
        mix(salt ^ mix(group)) % 16 < sixteenths
    };
    power_loss(image, mix(seed) ^ 4, keep)
}

/// The state after a power loss that kept the units for which `keep` returns true.
fn power_loss(image: &Image, code: u64, keep: impl Fn(usize) -> bool) -> Image {
    let all = units(image);
    let kept: Vec<u64> = (0..all.len()).filter(|&at| keep(at)).map(|at| all[at].0).collect();
    let is_kept = |seq: u64| kept.binary_search(&seq).is_ok();
    let mut after = restarted(image, code);
    after.dir = Arc::clone(&image.durable_dir);
    for (_, change) in image.pending_dir.iter().filter(|(seq, _)| is_kept(*seq)) {
        apply_entry(Arc::make_mut(&mut after.dir), change);
    }
    after.durable_dir = Arc::clone(&after.dir);
    let settled = |ino| {
        let inode = image.inodes.get(ino).cloned().unwrap_or_default();
        inode.after_power_loss(is_kept).map_or(inode, Arc::new)
    };
    after.inodes = after.dir.values().map(|ino| (*ino, settled(ino))).collect();
    after
}

/// The state after a kill of the process.
fn kill(image: &Image) -> Image {
    let mut after = restarted(image, 3);
    after.dir = Arc::clone(&image.dir);
    after.durable_dir = Arc::clone(&image.durable_dir);
    after.pending_dir = image.pending_dir.clone();
    after.inodes = image.inodes.clone();
    after.forget_nameless();
    after
}

/// A disk after power-on, without files.
fn restarted(image: &Image, code: u64) -> Image {
    let mut drawn = image.rng.fork(code);
    let mut after = Image::new(drawn.next(), image.config);
    after.next_ino = image.next_ino;
    after.seq = image.seq;
    after.capacity = image.capacity;
    after.clock = image.clock;
    after
}

/// Fills one physical block with garbage.
fn destroy_block(before: &Image, after: &mut Image, mut rng: Rng) {
    let block = u64::from(before.config.block_bytes);
    let target = match before.in_flight {
        Some(InFlight { ino, offset, len }) => {
            let (first, last) = (offset / block, (offset + len).div_ceil(block));
            Some((ino, first + rng.below(last - first)))
        }
        None => {
            let sectors = units(before).into_iter().filter_map(|(_, about)| match about {
                About::Sector(ino, sector) => Some((ino, sector * SECTOR_BYTES as u64 / block)),
                _ => None,
            });
            let sectors: Vec<_> = sectors.collect();
            sectors.get(rng.below(sectors.len() as u64) as usize).copied()
        }
    };
    let Some((inode, number)) = target.and_then(|(ino, number)| Some((after.inodes.get_mut(&ino)?, number))) else {
        return;
    };
    let inode = Arc::make_mut(inode);
    let garbage: Vec<u8> = std::iter::repeat_with(|| rng.next().to_le_bytes()).flatten().take(block as usize).collect();
    inode.durable.write(&garbage, number * block);
    inode.settle();
}
