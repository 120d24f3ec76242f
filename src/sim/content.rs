//! The content of a file, sparse and copy-on-write, and the pages for which it has space.
//!
//! Cloning is cheap until one of the copies is written. Pages that were never written, or were
//! written with zeros completely, take no memory. No byte past `len` is ever read. Truncation
//! clears the bytes past the new end, so that a file that grows again shows zeros there.

use crate::io::sync::{Arc, OnceLock};
use std::collections::BTreeMap;

pub(super) const PAGE_BYTES: usize = 4096;
pub(super) const SECTOR_BYTES: usize = 512;
pub(super) const SECTORS_PER_PAGE: u64 = (PAGE_BYTES / SECTOR_BYTES) as u64;

pub(super) type Page = Arc<[u8; PAGE_BYTES]>;

/// The shared page of zeros.
pub(super) fn zero_page() -> Page {
    static ZERO: OnceLock<Page> = OnceLock::new();
    Arc::clone(ZERO.get_or_init(|| Arc::new([0; PAGE_BYTES])))
}

/// The bytes of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pages: Arc<BTreeMap<u64, Page>>,
    pub(super) len: u64,
}

/// Splits a byte range at page boundaries: page, offset in the page, offset in the range, length.
pub(super) fn chunks(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let inside = (at % PAGE_BYTES as u64) as usize;
        let n = (PAGE_BYTES - inside).min(len - done);
        let chunk = (at / PAGE_BYTES as u64, inside, done, n);
        done += n;
        Some(chunk)
    })
}

/// The sectors of a page that a mask has a bit for.
pub(super) fn sectors_of(mask: u8) -> impl Iterator<Item = usize> {
    (0..PAGE_BYTES / SECTOR_BYTES).filter(move |sector| mask >> sector & 1 == 1)
}

/// The mask for the sectors of a page that these bytes of it touch.
pub(super) fn mask_of(inside: usize, len: usize) -> u8 {
    let (first, last) = (inside / SECTOR_BYTES, (inside + len).div_ceil(SECTOR_BYTES));
    (first..last).fold(0, |mask, sector| mask | 1 << sector)
}

impl Content {
    pub(super) fn page(&self, index: u64) -> Page {
        self.pages.get(&index).map_or_else(zero_page, Arc::clone)
    }

    pub(super) fn set_page(&mut self, index: u64, page: Page) {
        if Arc::ptr_eq(&page, &zero_page()) {
            if self.pages.contains_key(&index) {
                Arc::make_mut(&mut self.pages).remove(&index);
            }
        } else {
            Arc::make_mut(&mut self.pages).insert(index, page);
        }
    }

    /// Reads up to the end of the file, and returns the number of bytes.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        self.read_as_if(self.len, buf, offset)
    }

    /// Reads as if the file had the given length.
    pub(super) fn read_as_if(&self, len: u64, buf: &mut [u8], offset: u64) -> usize {
        let n = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
        for (page, inside, from, len) in chunks(offset, n) {
            match self.pages.get(&page) {
                Some(page) => buf[from..from + len].copy_from_slice(&page[inside..inside + len]),
                None => buf[from..from + len].fill(0),
            }
        }
        n
    }

    /// Writes bytes without a change of the length.
    pub(super) fn write(&mut self, buf: &[u8], offset: u64) {
        for (page, inside, from, len) in chunks(offset, buf.len()) {
            let bytes = &buf[from..from + len];
            if let Ok(whole) = <&[u8; PAGE_BYTES]>::try_from(bytes) {
                let zeros = whole.iter().all(|&b| b == 0);
                self.set_page(page, if zeros { zero_page() } else { Arc::new(*whole) });
            } else {
                let page = Arc::make_mut(&mut self.pages).entry(page).or_insert_with(zero_page);
                Arc::make_mut(page)[inside..inside + len].copy_from_slice(bytes);
            }
        }
    }

    /// Copies the sectors in `mask` from a version of a page.
    pub(super) fn put_sectors(&mut self, index: u64, mask: u8, from: &Page) {
        if mask == u8::MAX {
            self.set_page(index, Arc::clone(from));
            return;
        }
        for sector in sectors_of(mask) {
            let inside = sector * SECTOR_BYTES;
            self.write(&from[inside..inside + SECTOR_BYTES], index * PAGE_BYTES as u64 + inside as u64);
        }
    }

    /// True if both share their bytes and have the same length, so that neither was changed.
    pub(super) fn is_same(&self, other: &Content) -> bool {
        self.len == other.len && Arc::ptr_eq(&self.pages, &other.pages)
    }

    /// Sets the length, and drops all pages past it.
    pub(super) fn cut_pages(&mut self, len: u64) {
        self.len = len;
        let end = len.div_ceil(PAGE_BYTES as u64);
        if self.pages.last_key_value().is_some_and(|(&last, _)| last >= end) {
            Arc::make_mut(&mut self.pages).split_off(&end);
        }
    }

    /// Sets the length, and clears all bytes past it.
    pub(super) fn cut(&mut self, len: u64) {
        self.len = len;
        let Some((&last, _)) = self.pages.last_key_value() else { return };
        let (page, inside) = (len / PAGE_BYTES as u64, (len % PAGE_BYTES as u64) as usize);
        if last < page {
            return;
        }
        if self.pages.get(&page).is_some_and(|page| page[inside..].iter().any(|&b| b != 0)) {
            self.write(&vec![0; PAGE_BYTES - inside], len);
        }
        if last > page {
            Arc::make_mut(&mut self.pages).split_off(&(page + 1));
        }
    }
}

/// The pages of a file that have space, as disjoint ranges.
#[derive(Clone, Debug, Default)]
pub(super) struct Extents(BTreeMap<u64, u64>);

impl Extents {
    /// The number of pages in `start..end` without space.
    pub(super) fn missing(&self, start: u64, end: u64) -> u64 {
        let held: u64 = self.0.range(..end).map(|(&s, &e)| e.min(end).saturating_sub(s.max(start))).sum();
        end.saturating_sub(start) - held
    }

    pub(super) fn add(&mut self, mut start: u64, mut end: u64) {
        if start >= end {
            return;
        }
        while let Some((&s, &e)) = self.0.range(..=end).next_back().filter(|&(_, &e)| e >= start) {
            self.0.remove(&s);
            (start, end) = (start.min(s), end.max(e));
        }
        self.0.insert(start, end);
    }

    /// Frees the space of all pages from `end` on.
    pub(super) fn cut(&mut self, end: u64) {
        self.0.split_off(&end);
        if let Some((_, last)) = self.0.iter_mut().next_back() {
            *last = end.min(*last);
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|(s, e)| e - s).sum::<u64>() * PAGE_BYTES as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_independent() {
        let mut a = Content { len: 10_000, ..Content::default() };
        a.write(&[1; 5000], 100);
        let b = a.clone();
        a.write(&[2; 10], 4090);
        let mut buf = [0; 20];
        assert_eq!(b.read(&mut buf, 4085), 20);
        assert_eq!(buf, [1; 20]);
        a.read(&mut buf, 4085);
        assert_eq!(buf, [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn whole_pages_of_zeros_take_no_memory() {
        let mut a = Content { len: 1 << 20, ..Content::default() };
        a.write(&vec![3; 8192], 0);
        a.write(&vec![0; 1 << 20], 0);
        assert!(a.pages.is_empty());
    }

    #[test]
    fn cut_clears_what_lies_behind() {
        for len in [0, 1, 4095, 4096, 4097, 8192] {
            let mut a = Content { len: 12_288, ..Content::default() };
            a.write(&[7; 12_288], 0);
            a.cut(len);
            a.len = 12_288;
            let mut buf = [9; 12_288];
            a.read(&mut buf, 0);
            assert!(buf[..len as usize].iter().all(|&b| b == 7), "{len}");
            assert!(buf[len as usize..].iter().all(|&b| b == 0), "{len}");
        }
    }

    #[test]
    fn extents_count_each_page_once() {
        let mut runs = Extents::default();
        for (s, e) in [(10, 20), (30, 40), (15, 32), (0, 1), (1, 2), (5, 5)] {
            runs.add(s, e);
        }
        assert_eq!(runs.0, BTreeMap::from([(0, 2), (10, 40)]));
        assert_eq!(runs.bytes(), 32 * 4096);
        assert_eq!((runs.missing(0, 50), runs.missing(1, 11), runs.missing(12, 13)), (18, 8, 0));
        runs.cut(12);
        assert_eq!(runs.0, BTreeMap::from([(0, 2), (10, 12)]));
        runs.cut(0);
        assert_eq!(runs.bytes(), 0);
    }
}
