//! One simulated file: its content on the device, in the page cache, and the changes in between.
//!
//! Invariants:
//! - `pending` has, in order, every change that is in `cached` and may or may not be on the device.
//! - Applying all of `pending` to `durable` gives `cached`, unless a sync has failed. Then the cache also
//!   shows lost bytes, which no later sync writes.
//! - `durable` has only zeros past the last page of its length.
//!
//! This module knows nothing of names, space and faults.

use super::content::{Content, Extents, PAGE_BYTES, Page, SECTOR_BYTES, SECTORS_PER_PAGE, chunks, mask_of, sectors_of};
use crate::io::sync::Arc;

/// Changes that a power loss keeps or loses: a length as a whole, sectors one by one.
#[derive(Clone, Debug)]
pub(super) enum Unit {
    /// The sectors of a page in `mask` take their bytes from the page as it was when written.
    Sectors { index: u64, mask: u8, page: Page },
    /// The file is at least this long.
    Grow(u64),
    /// The file is this long, and all later pages are gone.
    Shrink(u64),
}

/// A unit with its position in the order of all changes of the disk. A sector's position is that of
/// its page, plus its index in the page.
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
    /// True if the cache shows bytes that a failed sync has lost.
    diverged: bool,
}

impl Inode {
    fn push(&mut self, seq: &mut u64, unit: Unit) {
        self.pending.push(Pending { seq: *seq, unit });
        *seq += SECTORS_PER_PAGE;
    }

    /// Writes into the page cache.
    pub(super) fn write_cached(&mut self, buf: &[u8], offset: u64, seq: &mut u64) {
        self.cached.write(buf, offset);
        for (index, inside, _, len) in chunks(offset, buf.len()) {
            let page = self.cached.page(index);
            self.push(seq, Unit::Sectors { index, mask: mask_of(inside, len), page });
        }
        self.grow(buf, offset, seq);
    }

    fn grow(&mut self, buf: &[u8], offset: u64, seq: &mut u64) {
        let end = offset + buf.len() as u64;
        if !buf.is_empty() && end > self.cached.len {
            self.cached.len = end;
            self.push(seq, Unit::Grow(end));
        }
    }

    /// Writes whole sectors, bypassing the page cache. Pending changes of these sectors are
    /// superseded.
    pub(super) fn write_device(&mut self, buf: &[u8], offset: u64) {
        self.settle_shrinks();
        let end = offset + buf.len() as u64;
        if self.pending.is_empty() && self.durable.is_same(&self.cached) {
            self.durable.write(buf, offset);
            self.durable.len = self.durable.len.max(end);
            self.cached = self.durable.clone();
            return;
        }
        self.cached.write(buf, offset);
        for (index, inside, from, len) in chunks(offset, buf.len()) {
            if len == PAGE_BYTES {
                self.durable.set_page(index, self.cached.page(index));
            } else {
                self.durable.write(&buf[from..from + len], index * PAGE_BYTES as u64 + inside as u64);
            }
        }
        self.durable.len = self.durable.len.max(end);
        self.cached.len = self.cached.len.max(end);
        self.pending.retain_mut(|p| match &mut p.unit {
            Unit::Sectors { index, mask, .. } => {
                *mask &= !covered(*index, offset, end);
                *mask != 0
            }
            Unit::Grow(_) | Unit::Shrink(_) => true,
        });
    }

    /// A lost write through the page cache: only the length reaches the device.
    pub(super) fn lose_cached(&mut self, buf: &[u8], offset: u64, seq: &mut u64) {
        self.diverged = true;
        self.cached.write(buf, offset);
        self.grow(buf, offset, seq);
    }

    /// A lost direct write: only the length reaches the device.
    pub(super) fn lose_device(&mut self, buf: &[u8], offset: u64) {
        self.settle_shrinks();
        let end = offset + buf.len() as u64;
        self.durable.len = self.durable.len.max(end);
        self.cached.len = self.cached.len.max(end);
    }

    /// A misdirected write stores bytes on the device. The cache does not change.
    pub(super) fn stray(&mut self, bytes: &[u8], offset: u64) {
        let room = self.durable.len.saturating_sub(offset).min(bytes.len() as u64);
        self.diverged = true;
        self.durable.write(&bytes[..room as usize], offset);
    }

    /// A failed direct write: a subset of its sectors reaches the device.
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

    /// A pending cut must be on the device before a durable write, or it would take that write's
    /// bytes with it later; the file system's journal does the same. Later growth is left pending,
    /// and so is what was written, that by which the rest of the last page is cleared included.
    fn settle_shrinks(&mut self) {
        let Some(last) = self.pending.iter().rposition(|p| matches!(p.unit, Unit::Shrink(_))) else { return };
        let later = self.pending.split_off(last + 1);
        let mut kept: Vec<Pending> = Vec::new();
        for p in std::mem::take(&mut self.pending) {
            match p.unit {
                Unit::Sectors { .. } => kept.push(p),
                Unit::Grow(_) => apply(&mut self.durable, &p.unit),
                Unit::Shrink(len) => {
                    apply(&mut self.durable, &p.unit);
                    let pages = len.div_ceil(PAGE_BYTES as u64);
                    kept.retain(|p| !matches!(p.unit, Unit::Sectors { index, .. } if index >= pages));
                }
            }
        }
        kept.extend(later);
        self.pending = kept;
    }

    /// Makes all pending changes durable.
    pub(super) fn sync(&mut self) {
        if self.diverged {
            let pending = std::mem::take(&mut self.pending);
            self.make_durable(&pending);
        } else {
            self.durable = self.cached.clone();
            self.pending.clear();
        }
    }

    /// A failed sync: its pages are marked clean, but the device does not have them.
    pub(super) fn fail_sync(&mut self) {
        self.diverged |= !self.pending.is_empty();
        self.pending.clear();
    }

    fn make_durable(&mut self, units: &[Pending]) {
        let mut written_to = 0;
        for p in units {
            if let Unit::Sectors { index, mask, .. } = &p.unit {
                let sectors = u64::from(u8::BITS - mask.leading_zeros());
                written_to = written_to.max(index * PAGE_BYTES as u64 + sectors * SECTOR_BYTES as u64);
            }
            apply(&mut self.durable, &p.unit);
        }
        // a page that reaches the device extends the file there, up to the length in the cache
        self.durable.len = self.durable.len.max(written_to.min(self.cached.len));
    }

    pub(super) fn set_len(&mut self, len: u64, seq: &mut u64) {
        if len > self.cached.len {
            self.cached.len = len;
            self.push(seq, Unit::Grow(len));
        } else if len < self.cached.len {
            let (index, inside) = (len / PAGE_BYTES as u64, (len % PAGE_BYTES as u64) as usize);
            let cleared = (self.cached.len - len).min((PAGE_BYTES - inside) as u64) as usize;
            self.cached.cut(len);
            if inside > 0 {
                // The rest of the last page is cleared by a write of its own, which may outlive the
                // cut (seen on xfs).
                let unit = Unit::Sectors { index, mask: mask_of(inside, cleared), page: self.cached.page(index) };
                self.push(seq, unit);
            }
            self.extents.cut(len.div_ceil(PAGE_BYTES as u64));
            self.push(seq, Unit::Shrink(len));
        }
    }

    /// The result of a direct read. Dirty pages are written to the device first. They stay pending,
    /// because the device may have them in a volatile cache.
    pub(super) fn read_device(&self, buf: &mut [u8], offset: u64) -> usize {
        let n = self.durable.read_as_if(self.cached.len, buf, offset);
        let end = offset + n as u64;
        for p in &self.pending {
            match &p.unit {
                Unit::Sectors { index, mask, page } => {
                    for sector in sectors_of(mask & covered(*index, offset, end)) {
                        let at = (index * PAGE_BYTES as u64 + (sector * SECTOR_BYTES) as u64 - offset) as usize;
                        let until = (at + SECTOR_BYTES).min(n);
                        let inside = sector * SECTOR_BYTES;
                        buf[at..until].copy_from_slice(&page[inside..inside + until - at]);
                    }
                }
                Unit::Shrink(len) if *len < end => buf[len.saturating_sub(offset) as usize..n].fill(0),
                Unit::Shrink(_) | Unit::Grow(_) => {}
            }
        }
        n
    }

    /// The file after a power loss that kept these units; `None` if it does not change.
    pub(super) fn after_power_loss(&self, kept: impl Fn(u64) -> bool) -> Option<Inode> {
        if self.pending.is_empty() && self.durable.is_same(&self.cached) {
            return None;
        }
        let mut durable = self.durable.clone();
        for p in &self.pending {
            match &p.unit {
                Unit::Sectors { index, mask, page } => {
                    let kept = sectors_of(*mask).filter(|at| kept(p.seq + *at as u64));
                    durable.put_sectors(*index, kept.fold(0, |mask, at| mask | 1 << at), page);
                }
                unit if kept(p.seq) => apply(&mut durable, unit),
                _ => {}
            }
        }
        let mut inode = Inode { durable, extents: self.extents.clone(), ..Inode::default() };
        inode.settle();
        Some(inode)
    }

    /// Resets the cache to the device's content, and clears all bytes past the file's end.
    pub(super) fn settle(&mut self) {
        self.durable.cut(self.durable.len);
        self.extents.cut(self.durable.len.div_ceil(PAGE_BYTES as u64));
        self.cached = self.durable.clone();
        self.pending.clear();
        self.diverged = false;
    }

    /// Changes bytes on the device, in the cache and in pending changes.
    pub(super) fn overwrite(&mut self, bytes: &[u8], offset: u64) {
        let end = offset + bytes.len() as u64;
        for content in [&mut self.durable, &mut self.cached] {
            content.write(bytes, offset);
            content.len = content.len.max(end);
        }
        for p in &mut self.pending {
            let Unit::Sectors { index: written, page, .. } = &mut p.unit else { continue };
            for (index, inside, from, len) in chunks(offset, bytes.len()) {
                if index == *written {
                    Arc::make_mut(page)[inside..inside + len].copy_from_slice(&bytes[from..from + len]);
                }
            }
        }
    }
}

fn apply(content: &mut Content, unit: &Unit) {
    match unit {
        Unit::Sectors { index, mask, page } => content.put_sectors(*index, *mask, page),
        Unit::Grow(len) => content.len = content.len.max(*len),
        Unit::Shrink(len) => content.cut_pages(*len),
    }
}

/// The mask of the sectors of a page that a range of a file touches.
fn covered(index: u64, start: u64, end: u64) -> u8 {
    let page = index * PAGE_BYTES as u64;
    let (from, to) = (start.max(page), end.min(page + PAGE_BYTES as u64));
    if from >= to { 0 } else { mask_of((from - page) as usize, (to - from) as usize) }
}
