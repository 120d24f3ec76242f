//! What a crash leaves of a disk.
//!
//! A power loss keeps a subset of the pending units: sectors, lengths and changes of names, each on its own.
//! Units of one file, and changes of names, are applied in their order. A change of a name refers to the
//! file itself: where the creation was lost and a later rename was kept, the file has the new name.

use super::content::{SECTOR_BYTES, SECTORS_PER_PAGE, sectors_of};
use super::disk::SimDisk;
use super::inode::Unit;
use super::rng::{Rng, mix};
use super::state::{Image, InFlight, Ino, apply_entry};
use crate::error::Error;
use crate::io::sync::Arc;
use std::fmt;
use std::str::FromStr;

/// What a crash leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Crash {
    /// Power loss; nothing that was not synced survives.
    Nothing,
    /// Power loss; everything that was written survives, synced or not, but for what a failed sync gave up.
    Everything,
    /// Power loss; a subset of what was not synced survives. The seed also draws how: unit by unit,
    /// pages or files whole or not at all, or all up to some moment.
    Seeded(u64),
    /// The process ends, the machine goes on: the page cache survives, and what was not synced is still
    /// not synced on the new disk.
    KillOnly,
    /// As `Seeded`; besides, one physical block is destroyed, what was durable in it included: one of those that the last
    /// unfinished durable write was about, else one with unsynced sectors, if there are any.
    TornBlock(u64),
    /// Power loss; of what was not synced the first so many changes survive, in the order in which they were made.
    Prefix(u32),
    /// Power loss; all that was not synced survives but this one change, counted from 0.
    AllBut(u32),
    /// Power loss; of what was not synced only this change survives, counted from 0.
    Only(u32),
    /// Power loss; of what was not synced those changes survive whose bit is set, the lowest bit for the first. Those from the 65th
    /// on are lost.
    Subset(u64),
}

/// What one pending unit is about.
#[derive(Clone, Copy, Debug)]
enum About {
    Sector(Ino, u64),
    Length(Ino),
    Names,
}

impl SimDisk {
    /// The disk that is found after a crash at this moment.
    ///
    /// The new disk has the same clock and the same limit of space, no faults, no locks, and counts its operations
    /// from 0; its randomness depends on this disk's and on the choice. This disk stays as it is.
    ///
    /// ```
    /// use seawal::sim::{Crash, SimDisk};
    /// use seawal::io::{Directory, OpenMode};
    ///
    /// let disk = SimDisk::new(7);
    /// let file = disk.open("a", OpenMode::CreateNew)?;
    /// file.write_at(b"synced", 0)?;
    /// file.sync_all()?;
    /// assert!(disk.crash(Crash::Nothing).list()?.is_empty(), "the name was not synced");
    /// disk.sync_dir()?;
    /// file.write_at(b"SYNCED", 0)?;
    /// assert_eq!(disk.crash(Crash::Nothing).read_file("a")?, b"synced");
    /// assert_eq!(disk.crash(Crash::Everything).read_file("a")?, b"SYNCED");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn crash(&self, choice: Crash) -> SimDisk {
        SimDisk::of(after(&self.state.lock().image, choice))
    }

    /// How many changes are written and not synced: sectors, lengths and changes of names. A power loss keeps any
    /// subset of them.
    ///
    /// ```
    /// use seawal::sim::{Crash, SimDisk};
    /// use seawal::io::{Directory, OpenMode};
    ///
    /// let disk = SimDisk::new(7);
    /// let file = disk.open("a", OpenMode::CreateNew)?;
    /// file.write_at(b"x", 0)?;
    /// assert_eq!(disk.pending_units(), 3); // the name, the sector, the length
    /// assert_eq!(disk.crash(Crash::Subset(0b011)).read_file("a")?, b"");
    /// assert_eq!(disk.crash(Crash::Subset(0b101)).read_file("a")?, b"\0");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn pending_units(&self) -> usize {
        pending_units(&self.state.lock().image)
    }

    /// The crashes worth trying at this moment: a kill; where something is being written, a torn block; and power losses, which are all
    /// subsets of the pending units where there are eight or fewer, else none, all, each prefix, each unit
    /// alone, all but each, and sixteen drawn from the seed.
    ///
    /// ```
    /// use seawal::sim::{Crash, SimDisk};
    /// use seawal::io::{Directory, OpenMode};
    ///
    /// let disk = SimDisk::new(7);
    /// let file = disk.open("a", OpenMode::CreateNew)?;
    /// assert_eq!(disk.crash_choices(1), [Crash::KillOnly, Crash::Subset(0), Crash::Subset(1)]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn crash_choices(&self, seed: u64) -> Vec<Crash> {
        crash_choices(&self.state.lock().image, seed)
    }
}

/// How many units may be pending for all their subsets to be tried.
const EXHAUSTED_UNITS: usize = 8;

/// How many subsets are drawn where there are too many.
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

/// What the randomness of the disk after a crash depends on.
fn code(kind: u64, number: u64) -> u64 {
    mix(number ^ mix(kind))
}

/// One word, which [`FromStr`] reads again: for a report of a failure.
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

/// Reads what [`fmt::Display`] writes.
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
    // Independent sectors almost never lose one whole write and keep a later one, so whole pages and
    // whole files are drawn as well.
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

/// The state after a power loss that kept the units for whose position `keep` says so.
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

/// The state after the process ended and the machine did not.
fn kill(image: &Image) -> Image {
    let mut after = restarted(image, 3);
    after.dir = Arc::clone(&image.dir);
    after.durable_dir = Arc::clone(&image.durable_dir);
    after.pending_dir = image.pending_dir.clone();
    after.inodes = image.inodes.clone();
    after.forget_nameless();
    after
}

/// A machine that has just started, without files.
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
