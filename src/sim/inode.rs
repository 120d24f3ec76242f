//! One simulated file: what the device holds, what the page cache shows, and what lies between.
//!
//! Invariants:
//! - `pending` holds, in order, every change that is in `cached` and may or may not be on the device;
//! - applying all of `pending` to `durable` gives `cached`, unless a sync has failed: then the cache shows
//!   bytes that were given up, which no later sync writes;
//! - `durable` holds nothing but zeros past its length.
//!
//! It knows nothing of names, space and faults.

use super::content::{Content, Extents, PAGE_BYTES, Page, SECTOR_BYTES, SECTORS_PER_PAGE, chunks};
use crate::sync::Arc;

/// The smallest change that a power loss keeps or loses as one.
#[derive(Clone, Debug)]
pub(super) enum Unit {
    /// A sector takes its bytes from a page as it was when written.
    Sector { sector: u64, page: Page },
    /// The file is at least this long.
    Grow(u64),
    /// The file is this long, and what lay behind is gone.
    Shrink(u64),
}

/// A unit with its place in the order of all changes of the disk.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) seq: u64,
    pub(super) unit: Unit,
}

/// One file, whatever its name.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) durable: Content,
    pub(super) cached: Content,
    pub(super) pending: Vec<Pending>,
    pub(super) extents: Extents,
    /// Open handles, which keep a removed file alive.
    pub(super) handles: usize,
}

impl Inode {
    fn push(&mut self, seq: &mut u64, unit: Unit) {
        self.pending.push(Pending { seq: *seq, unit });
        *seq += 1;
    }

    /// Writes into the page cache.
    pub(super) fn write_cached(&mut self, buf: &[u8], offset: u64, seq: &mut u64) {
        self.cached.write(buf, offset);
        for (index, inside, _, len) in chunks(offset, buf.len()) {
            let page = self.cached.page(index);
            for sector in inside / SECTOR_BYTES..(inside + len).div_ceil(SECTOR_BYTES) {
                let sector = index * SECTORS_PER_PAGE + sector as u64;
                self.push(seq, Unit::Sector { sector, page: Arc::clone(&page) });
            }
        }
        let end = offset + buf.len() as u64;
        if !buf.is_empty() && end > self.cached.len {
            self.cached.len = end;
            self.push(seq, Unit::Grow(end));
        }
    }

    /// Writes around the page cache, whole sectors. What was pending for them is overtaken.
    pub(super) fn write_device(&mut self, buf: &[u8], offset: u64) {
        self.settle_shrinks();
        self.cached.write(buf, offset);
        for (index, inside, from, len) in chunks(offset, buf.len()) {
            if len == PAGE_BYTES {
                self.durable.set_page(index, self.cached.page(index));
            } else {
                self.durable.write(&buf[from..from + len], index * PAGE_BYTES as u64 + inside as u64);
            }
        }
        let end = offset + buf.len() as u64;
        self.durable.len = self.durable.len.max(end);
        self.cached.len = self.cached.len.max(end);
        let (first, last) = (offset / SECTOR_BYTES as u64, end / SECTOR_BYTES as u64);
        self.pending.retain(|p| !matches!(&p.unit, Unit::Sector { sector, .. } if (first..last).contains(sector)));
    }

    /// A write around the page cache that failed on the way: some sectors arrived.
    pub(super) fn write_device_partly(
        &mut self,
        buf: &[u8],
        offset: u64,
        mut arrived: impl FnMut() -> bool,
        grown: bool,
    ) {
        self.settle_shrinks();
        let (durable_len, cached_len) = (self.durable.len, self.cached.len);
        for (i, sector) in buf.chunks(SECTOR_BYTES).enumerate() {
            if arrived() {
                self.write_device(sector, offset + (i * SECTOR_BYTES) as u64);
            }
        }
        let end = if grown { offset + buf.len() as u64 } else { 0 };
        self.durable.cut(durable_len.max(end));
        self.cached.cut(cached_len.max(end));
    }

    /// A pending cut must be on the device before a durable write, or it would take that write's bytes
    /// with it later; the file system's journal does the same. Growth is left pending.
    fn settle_shrinks(&mut self) {
        if let Some(last) = self.pending.iter().rposition(|p| matches!(p.unit, Unit::Shrink(_))) {
            let settled: Vec<Pending> = self.pending.drain(..=last).collect();
            self.make_durable(&settled);
        }
    }

    /// Makes everything pending durable.
    pub(super) fn sync(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.make_durable(&pending);
    }

    /// What a failed sync leaves: pages marked clean that the device never got.
    pub(super) fn fail_sync(&mut self) {
        self.pending.clear();
    }

    fn make_durable(&mut self, units: &[Pending]) {
        let mut written_to = 0;
        let mut rest = units;
        while let Some((first, tail)) = rest.split_first() {
            rest = tail;
            if let Unit::Sector { sector, page } = &first.unit {
                written_to = written_to.max((sector + 1) * SECTOR_BYTES as u64);
                if let Some(after) = whole_page(*sector, page, tail) {
                    self.durable.set_page(sector / SECTORS_PER_PAGE, Arc::clone(page));
                    written_to = written_to.max((sector + SECTORS_PER_PAGE) * SECTOR_BYTES as u64);
                    rest = after;
                    continue;
                }
            }
            apply(&mut self.durable, &first.unit);
        }
        // A page that reached the device takes the file's length along, up to what the cache believes.
        self.durable.len = self.durable.len.max(written_to.min(self.cached.len));
    }

    pub(super) fn set_len(&mut self, len: u64, seq: &mut u64) {
        if len > self.cached.len {
            self.cached.len = len;
            self.push(seq, Unit::Grow(len));
        } else if len < self.cached.len {
            self.cached.cut(len);
            self.extents.cut(len.div_ceil(PAGE_BYTES as u64));
            self.push(seq, Unit::Shrink(len));
        }
    }

    /// What a read around the page cache returns: the device's bytes, dirty pages having been handed to the
    /// device first. They stay pending, for the device may hold them in a cache that loses power too.
    pub(super) fn read_device(&self, buf: &mut [u8], offset: u64) -> usize {
        let mut view = self.durable.clone();
        view.len = self.cached.len;
        let end = offset + buf.len() as u64;
        let sectors = offset / SECTOR_BYTES as u64..end.div_ceil(SECTOR_BYTES as u64);
        for p in &self.pending {
            match &p.unit {
                Unit::Sector { sector, page } if sectors.contains(sector) => view.put_sector(*sector, page),
                Unit::Shrink(len) => {
                    view.cut(*len);
                    view.len = self.cached.len;
                }
                _ => {}
            }
        }
        view.read(buf, offset)
    }

    /// The file after a power loss that kept these units.
    pub(super) fn after_power_loss(&self, kept: impl Fn(u64) -> bool) -> Inode {
        let mut durable = self.durable.clone();
        for p in self.pending.iter().filter(|p| kept(p.seq)) {
            apply(&mut durable, &p.unit);
        }
        let mut inode = Inode { durable, extents: self.extents.clone(), ..Inode::default() };
        inode.settle();
        inode
    }

    /// Makes the cache show what the device holds, and clears what lies past the file's end.
    pub(super) fn settle(&mut self) {
        self.durable.cut(self.durable.len);
        self.extents.cut(self.durable.len.div_ceil(PAGE_BYTES as u64));
        self.cached = self.durable.clone();
        self.pending.clear();
    }

    /// Puts bytes everywhere: on the device, in the cache and in what is pending.
    pub(super) fn overwrite(&mut self, bytes: &[u8], offset: u64) {
        let end = offset + bytes.len() as u64;
        for content in [&mut self.durable, &mut self.cached] {
            content.write(bytes, offset);
            content.len = content.len.max(end);
        }
        for p in &mut self.pending {
            let Unit::Sector { sector, page } = &mut p.unit else { continue };
            for (index, inside, from, len) in chunks(offset, bytes.len()) {
                if index == *sector / SECTORS_PER_PAGE {
                    Arc::make_mut(page)[inside..inside + len].copy_from_slice(&bytes[from..from + len]);
                }
            }
        }
    }
}

fn apply(content: &mut Content, unit: &Unit) {
    match unit {
        Unit::Sector { sector, page } => content.put_sector(*sector, page),
        Unit::Grow(len) => content.len = content.len.max(*len),
        Unit::Shrink(len) => content.cut(*len),
    }
}

/// Where a unit and those after it write all sectors of one page at once, those behind them.
fn whole_page<'a>(sector: u64, page: &Page, tail: &'a [Pending]) -> Option<&'a [Pending]> {
    let (others, after) = tail.split_at_checked(SECTORS_PER_PAGE as usize - 1)?;
    let same = |(i, p): (u64, &Pending)| matches!(&p.unit, Unit::Sector { sector: s, page: q } if *s == sector + i && Arc::ptr_eq(page, q));
    (sector.is_multiple_of(SECTORS_PER_PAGE) && (1..).zip(others).all(same)).then_some(after)
}
