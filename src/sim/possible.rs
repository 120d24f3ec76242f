//! Decides whether a power loss can leave given files, to compare the simulated disk with a real
//! one.
//!
//! All combinations of name changes are tried, each resulting set of names once. Sectors are
//! independent, so each is checked alone; only lengths are combined. Faults and torn blocks are not
//! considered.

use super::content::{PAGE_BYTES, SECTOR_BYTES, SECTORS_PER_PAGE, sectors_of};
use super::disk::SimDisk;
use super::image::{Image, Names, apply_entry};
use super::inode::{Inode, Unit};
use std::collections::{BTreeMap, BTreeSet};

/// The maximum number of length changes of one file whose subsets are all tried.
const COMBINED_LENGTHS: usize = 16;

impl SimDisk {
    /// True if a power loss at this moment can leave exactly these files, that is, if some
    /// [`Crash`](super::Crash) other than a torn block does.
    ///
    /// ```
    /// use seawal::sim::SimDisk;
    /// use seawal::io::{Directory, OpenMode};
    /// use std::collections::BTreeMap;
    ///
    /// let disk = SimDisk::new(7);
    /// let file = disk.open("a", OpenMode::CreateNew)?;
    /// disk.sync_dir()?;
    /// file.write_at(b"x", 0)?;
    /// let can_leave = |bytes: &[u8]| disk.can_leave(&BTreeMap::from([("a".to_owned(), bytes.to_vec())]));
    /// assert!(can_leave(b"") && can_leave(b"\0") && can_leave(b"x"));
    /// assert!(!can_leave(b"y") && !disk.can_leave(&BTreeMap::new()));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn can_leave(&self, files: &BTreeMap<String, Vec<u8>>) -> bool {
        let state = self.state.lock();
        let image = &*state.image.with_held_pending();
        possible_names(image).iter().any(|names| {
            names.len() == files.len()
                && names.iter().all(|(name, ino)| {
                    files.get(&**name).is_some_and(|bytes| image.look(*ino, |inode| can_hold(inode, bytes)))
                })
        })
    }
}

/// All sets of names that a power loss can leave.
fn possible_names(image: &Image) -> BTreeSet<Names> {
    let mut possible = BTreeSet::from([Names::clone(&image.durable_dir)]);
    for (_, change) in &image.pending_dir {
        let changed = possible.iter().map(|names| {
            let mut names = names.clone();
            apply_entry(&mut names, change);
            names
        });
        let changed: Vec<Names> = changed.collect();
        possible.extend(changed);
    }
    possible
}

fn can_hold(inode: &Inode, bytes: &[u8]) -> bool {
    let lengths: Vec<(usize, &Unit)> = inode
        .pending
        .iter()
        .map(|p| &p.unit)
        .enumerate()
        .filter(|(_, unit)| !matches!(unit, Unit::Sectors { .. }))
        .collect();
    if lengths.iter().all(|(_, unit)| matches!(unit, Unit::Grow(_))) {
        // only the longest of the kept lengths has an effect
        let one = |at: usize| can_hold_with(inode, bytes, |kept| kept == at);
        return one(usize::MAX) || lengths.iter().any(|(at, _)| one(*at));
    }
    let combined = &lengths[..lengths.len().min(COMBINED_LENGTHS)];
    (0..1u32 << combined.len()).any(|mask| {
        let kept = |at| combined.iter().enumerate().any(|(bit, (unit, _))| *unit == at && mask >> bit & 1 == 1);
        can_hold_with(inode, bytes, kept)
    })
}

/// True if the file can have this content when exactly these changes of its length were kept.
fn can_hold_with(inode: &Inode, bytes: &[u8], kept: impl Fn(usize) -> bool) -> bool {
    let mut len = inode.durable.len;
    let mut cuts = Vec::new();
    for (at, p) in inode.pending.iter().enumerate().filter(|(at, _)| kept(*at)) {
        match p.unit {
            Unit::Grow(to) => len = len.max(to),
            Unit::Shrink(to) => {
                len = to;
                cuts.push((at, to.next_multiple_of(PAGE_BYTES as u64)));
            }
            Unit::Sectors { .. } => {}
        }
    }
    len == bytes.len() as u64
        && bytes.chunks(SECTOR_BYTES).zip(0..).all(|(found, sector)| sector_can_hold(inode, sector, found, &cuts))
}

/// True if a sector can have this content: its durable version or any later one, truncated since.
fn sector_can_hold(inode: &Inode, sector: u64, found: &[u8], cuts: &[(usize, u64)]) -> bool {
    let start = sector * SECTOR_BYTES as u64;
    let (index, inside) = (sector / SECTORS_PER_PAGE, (sector % SECTORS_PER_PAGE) as usize);
    let shows = |version: &[u8; PAGE_BYTES], since: Option<usize>| {
        let cut = cuts.iter().filter(|(at, _)| since.is_none_or(|since| *at > since)).map(|(_, to)| *to).min();
        let held = cut.map_or(SECTOR_BYTES as u64, |to| to.saturating_sub(start)).min(found.len() as u64) as usize;
        let version = &version[inside * SECTOR_BYTES..][..SECTOR_BYTES];
        found[..held] == version[..held] && found[held..].iter().all(|b| *b == 0)
    };
    shows(&inode.durable.page(index), None)
        || inode.pending.iter().enumerate().any(|(at, p)| match &p.unit {
            Unit::Sectors { index: i, mask, page } => {
                *i == index && sectors_of(*mask).any(|s| s == inside) && shows(page, Some(at))
            }
            Unit::Grow(_) | Unit::Shrink(_) => false,
        })
}
