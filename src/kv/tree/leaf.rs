//! Leaves: the entries themselves, each leaf one allocation.
//!
//! ```text
//! data:  word 0 | word 1 | … | word n-1 |   free   | entry n-1 | … | entry 1 | entry 0
//! word:  key head (32 bits) | distance of the entry's first byte from the end of `data` (16) | key length and flags (16)
//! entry: key, value
//! ```
//!
//! A search reads the words, which lie beside the header, and then one entry: two cache misses at most.
//! Keys and values that are long lie outside, one [`Arc`] each, so that neither a shift nor a copy of
//! the leaf touches them; the word then has a flag, and the entry holds the index in `large`.
//!
//! Invariants: the distances ascend; the keys ascend strictly; `prefix` bytes are common to all keys; heads are those
//! of the keys behind the prefix; each index into `large` occurs once; words and entries fit into
//! `data`, whose size is one of [`Leaf::zeroed`]'s.

mod memory;
mod stretch;

pub(super) use memory::{CLASSES, class_of};
pub(super) use stretch::Stretch;

use super::head::{common_prefix, equal_heads, head, search_ties, separator};
use super::spares::LeafPool;
use memory::{build, fill};
use std::cmp::Ordering;
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;

/// The longest value that is kept within the leaf.
pub(super) const INLINE_VALUE: usize = 1024;
/// The longest key that is kept within the leaf.
pub(super) const INLINE_KEY: usize = 512;
/// A leaf whose words and entries take more is split, if it has two.
pub(super) const LEAF_BYTES: usize = 4096;

pub(super) const WORD: usize = 8;
/// What memory is fetched in.
pub(super) const LINE: usize = 64;
/// How much is fetched ahead of the front, and of the entries once they are walked.
const TOUCHED: usize = 128;
const TOUCHED_ENTRIES: usize = LEAF_BYTES / 4 * 3;
const LARGE_KEY: u16 = 1 << 15;
const LARGE_VALUE: u16 = 1 << 14;
const INDEX: usize = 4;

/// Sorted entries.
#[derive(Debug)]
pub(super) struct Leaf<D: ?Sized = [u8]> {
    large: Vec<Arc<[u8]>>,
    prefix: u32,
    len: u16,
    /// How many bytes the entries take.
    used: u16,
    data: D,
}

/// A word, taken apart.
#[derive(Clone, Copy)]
struct Word {
    head: u32,
    from_end: u16,
    key: u16,
}

impl Word {
    #[inline]
    fn new(word: u64) -> Self {
        Word { head: (word >> 32) as u32, from_end: (word >> 16) as u16, key: word as u16 }
    }

    fn bytes(self) -> [u8; WORD] {
        (u64::from(self.head) << 32 | u64::from(self.from_end) << 16 | u64::from(self.key)).to_le_bytes()
    }

    #[inline]
    fn key_len(self) -> usize {
        usize::from(self.key & !(LARGE_KEY | LARGE_VALUE))
    }
}

impl Leaf {
    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// How many bytes the words and entries take.
    pub(super) fn size(&self) -> usize {
        usize::from(self.len) * WORD + usize::from(self.used)
    }

    /// How many bytes an entry and its word take.
    pub(super) fn size_of(key: &[u8], value: &[u8]) -> usize {
        let key = if key.len() > INLINE_KEY { INDEX } else { key.len() };
        let value = if value.len() > INLINE_VALUE { INDEX } else { value.len() };
        WORD + key + value
    }

    /// How many bytes the entry at `at`, which must exist, and its word take.
    pub(super) fn size_at(&self, at: usize) -> usize {
        WORD + usize::from(self.word(at).from_end) - self.end_of(at)
    }

    #[inline]
    fn words(&self) -> &[[u8; WORD]] {
        &self.data.as_chunks().0[..usize::from(self.len)]
    }

    #[inline]
    fn word(&self, at: usize) -> Word {
        Word::new(u64::from_le_bytes(self.words()[at]))
    }

    fn set_word(&mut self, at: usize, word: Word) {
        self.data[at * WORD..(at + 1) * WORD].copy_from_slice(&word.bytes());
    }

    /// Distance of the end of entry `at` from the end of the data.
    #[inline]
    fn end_of(&self, at: usize) -> usize {
        if at == 0 { 0 } else { usize::from(self.word(at - 1).from_end) }
    }

    /// The entry's bytes: key and value, or the indices for them.
    #[inline]
    fn parts(&self, at: usize, word: Word) -> (&[u8], &[u8]) {
        let size = self.data.len();
        let entry = &self.data[size - usize::from(word.from_end)..size - self.end_of(at)];
        entry.split_at(word.key_len())
    }

    #[inline]
    fn resolve<'a>(&'a self, part: &'a [u8], is_large: bool) -> &'a [u8] {
        if is_large { &self.large[index_of(part)] } else { part }
    }

    /// The key at `at`, which must exist.
    #[inline]
    pub(super) fn key(&self, at: usize) -> &[u8] {
        let word = self.word(at);
        let start = self.data.len() - usize::from(word.from_end);
        self.resolve(&self.data[start..start + word.key_len()], word.key & LARGE_KEY != 0)
    }

    /// The value at `at`, which must exist.
    #[inline]
    pub(super) fn value(&self, at: usize) -> &[u8] {
        let word = self.word(at);
        self.resolve(self.parts(at, word).1, word.key & LARGE_VALUE != 0)
    }

    /// The key and the value at `at`, which must exist.
    #[inline]
    pub(super) fn item(&self, at: usize) -> (&[u8], &[u8]) {
        let word = self.word(at);
        let (key, value) = self.parts(at, word);
        (self.resolve(key, word.key & LARGE_KEY != 0), self.resolve(value, word.key & LARGE_VALUE != 0))
    }

    /// Reads the last byte. The words say where an entry lies, and where that is on another page than they are, this has the
    /// page's address looked up at once and not only then.
    #[inline]
    fn touch_end(&self) {
        black_box(self.data.last().copied());
    }

    /// Reads from the lines where header and words lie, and the last byte, beside which the first entries lie. It asks for nothing that
    /// is in the leaf, its length included, so that all are fetched at once while the processor goes on.
    pub(super) fn touch(&self) {
        read_lines(&self.data[..TOUCHED.min(self.data.len())]);
        self.touch_end();
    }

    /// Reads from the lines of the entries, the first of them at least. So all are on their way at once. Where each comes when its
    /// entry does, few are: what is done with a few entries fills the processor's window.
    pub(super) fn touch_entries(&self) {
        read_lines(&self.data[self.data.len().saturating_sub(TOUCHED_ENTRIES)..]);
    }

    /// Reads from every line that is in use, so that all are on their way at once: for those who will look at each entry.
    pub(super) fn touch_all(&self) {
        read_lines(&self.data[..self.len() * WORD]);
        read_lines(&self.data[self.data.len() - usize::from(self.used)..]);
    }

    pub(super) fn last_key(&self) -> Option<&[u8]> {
        self.len().checked_sub(1).map(|last| self.key(last))
    }

    /// Where `key` is, or would be.
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        self.touch_end();
        let prefix = self.prefix as usize;
        let equal = self.equal_heads(key);
        if prefix > 0 {
            // all keys have the prefix: the one beside the place is looked at, as it is what the caller will want
            let beside = self.key(equal.0.min(self.len() - 1));
            match key[..prefix.min(key.len())].cmp(&beside[..prefix]) {
                Ordering::Less => return Err(0),
                Ordering::Greater => return Err(self.len()),
                Ordering::Equal => {}
            }
        }
        self.search_among(equal, key)
    }

    /// The value of `key`. It need not look at the prefix first, and so touches less memory than [`search`](Self::search).
    #[inline]
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.touch_end();
        if key.len() < self.prefix as usize {
            return None;
        }
        let at = self.search_among(self.equal_heads(key), key).ok()?;
        let (found, value) = self.item(at);
        (found == key).then_some(value)
    }

    /// The entries whose heads are that of `key`.
    #[inline]
    fn equal_heads(&self, key: &[u8]) -> (usize, usize) {
        equal_heads(self.words(), u64::from_le_bytes, head(key, self.prefix as usize))
    }

    /// Where a key with the common prefix is, or would be, among entries of the same head. The prefix itself is taken for granted.
    #[inline]
    fn search_among(&self, equal: (usize, usize), key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix as usize;
        search_ties(equal, |at| &self.key(at)[prefix..], &key[prefix..])
    }

    /// Gives `key` a value. Returns what `seen` makes of the previous one, and the right half if the leaf had to be split.
    pub(super) fn insert<R>(
        this: &mut Arc<Leaf>,
        key: &[u8],
        value: &[u8],
        spares: &LeafPool,
        seen: impl FnOnce(&[u8]) -> R,
    ) -> (Option<R>, Option<Arc<Leaf>>) {
        let (at, previous) = match this.search(key) {
            Ok(at) => {
                let previous = seen(this.value(at));
                spares.note_replaced(Self::shared_value(this, at));
                let (old, new) = (this.size_at(at), Self::size_of(key, value));
                let size = this.size() + new.saturating_sub(old);
                Self::with_room(this, size, spares, |leaf| leaf.replace(at, value));
                (at, Some(previous))
            }
            Err(at) => {
                let size = this.size() + Self::size_of(key, value);
                Self::with_room(this, size, spares, |leaf| leaf.insert_at(at, key, value));
                (at, None)
            }
        };
        (previous, Self::split(this, at, spares))
    }

    /// Removes `key`. Returns what `seen` makes of its value.
    pub(super) fn remove<R>(
        this: &mut Arc<Leaf>,
        key: &[u8],
        spares: &LeafPool,
        seen: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        let at = this.search(key).ok()?;
        let previous = seen(this.value(at));
        spares.note_replaced(Self::shared_value(this, at));
        let size = this.size();
        Self::with_room(this, size, spares, |leaf| leaf.remove_at(at));
        if this.size() < this.data.len() / 3 * 2 {
            Self::renew(this, this.size(), spares);
        }
        Some(previous)
    }

    /// Changes the leaf in place if nobody else holds it and it has `size` bytes, else a copy that has.
    fn with_room(this: &mut Arc<Leaf>, size: usize, spares: &LeafPool, change: impl FnOnce(&mut Leaf)) {
        match Arc::get_mut(this) {
            Some(leaf) if leaf.data.len() >= size => return change(leaf),
            Some(_) => {}
            None => spares.note_replaced(this.size()),
        }
        Self::renew(this, size, spares);
        if let Some(leaf) = Arc::get_mut(this) {
            change(leaf);
        }
    }

    /// Puts a copy with at least `size` bytes of space in its place.
    fn renew(this: &mut Arc<Leaf>, size: usize, spares: &LeafPool) {
        let copy = this.copy_into(spares.place(size));
        spares.give(std::mem::replace(this, copy));
    }

    /// A copy with at least `size` bytes of space.
    fn copy(&self, size: usize) -> Arc<Leaf> {
        self.copy_into(Self::zeroed(size))
    }

    /// A copy in the place of a leaf that nobody else holds and that is large enough.
    fn copy_into(&self, place: Arc<Leaf>) -> Arc<Leaf> {
        fill(place, |copy| {
            copy.large.clone_from(&self.large);
            (copy.prefix, copy.len, copy.used) = (self.prefix, self.len, self.used);
            let (words, used) = (self.len() * WORD, usize::from(self.used));
            copy.data[..words].copy_from_slice(&self.data[..words]);
            let (from, to) = (self.data.len() - used, copy.data.len() - used);
            copy.data[to..].copy_from_slice(&self.data[from..]);
        })
    }

    /// The entries of a range, in a leaf of the size that they need.
    fn copy_entries(&self, range: Range<usize>, spares: &LeafPool) -> Arc<Leaf> {
        let size = range.len() * WORD + usize::from(self.word(range.end - 1).from_end) - self.end_of(range.start);
        fill(spares.place(size), |copy| {
            copy.push_entries(self, range);
            copy.seal();
        })
    }

    /// Splits the leaf if it is too large. The entry at `changed` was the last to come.
    fn split(this: &mut Arc<Leaf>, changed: usize, spares: &LeafPool) -> Option<Arc<Leaf>> {
        let len = this.len();
        if this.size() <= LEAF_BYTES || len < 2 {
            return None;
        }
        // Keys that arrive in order leave full leaves behind them.
        let at = if changed + 1 == len { changed } else { this.middle() };
        let [left, right] = [0..at, at..len].map(|range| this.copy_entries(range, spares));
        spares.give(std::mem::replace(this, left));
        Some(right)
    }

    /// Where to split so that both sides are about as large and neither is empty.
    fn middle(&self) -> usize {
        let half = self.size() / 2;
        let before = (0..self.len()).take_while(|&at| self.end_of(at) + at * WORD < half).count();
        before.clamp(1, self.len() - 1)
    }

    /// The entries of both leaves; all keys of the second are greater.
    pub(super) fn merge(left: &Leaf, right: &Leaf) -> Arc<Leaf> {
        build(left.size() + right.size(), |both| {
            both.push_entries(left, 0..left.len());
            both.push_entries(right, 0..right.len());
            both.seal();
        })
    }

    /// The shortest key above this leaf and not above `right`.
    pub(super) fn separator_before(&self, right: &Leaf) -> Vec<u8> {
        separator(self.last_key().unwrap_or_default(), right.key(0))
    }

    /// A finished copy of a leaf that was filled by [`push_unsealed`](Self::push_unsealed), of the size it needs.
    pub(super) fn finished(&self) -> Arc<Leaf> {
        let mut leaf = self.copy(self.size());
        if let Some(leaf) = Arc::get_mut(&mut leaf) {
            leaf.seal();
        }
        leaf
    }

    /// Forgets all entries. Returns how many bytes of what lies outside nobody else held.
    pub(super) fn clear(&mut self) -> usize {
        (self.prefix, self.len, self.used) = (0, 0, 0);
        let alone = |part: Arc<[u8]>| if Arc::strong_count(&part) == 1 { part.len() } else { 0 };
        std::mem::take(&mut self.large).into_iter().map(alone).sum()
    }

    /// Appends an entry without a head. There must be room, and [`seal`](Self::seal) must follow.
    pub(super) fn push_unsealed(&mut self, key: &[u8], value: &[u8]) {
        self.put(self.len(), 0, key, value);
    }

    /// Appends entries of another leaf, without heads.
    pub(super) fn push_entries(&mut self, from: &Leaf, range: Range<usize>) {
        if from.large.is_empty() {
            return self.push_block(from, range);
        }
        for at in range {
            let word = from.word(at);
            let (mut key, mut value) = from.parts(at, word);
            let (key_index, value_index);
            if word.key & LARGE_KEY != 0 {
                key_index = self.adopt(&from.large[index_of(key)]);
                key = &key_index;
            }
            if word.key & LARGE_VALUE != 0 {
                value_index = self.adopt(&from.large[index_of(value)]);
                value = &value_index;
            }
            self.put_parts(self.len(), Word { head: 0, ..word }, key, value);
        }
    }

    /// Appends entries that have no large part, all at once: they lie one behind the other in both leaves.
    fn push_block(&mut self, from: &Leaf, range: Range<usize>) {
        let Some(last) = range.clone().next_back() else { return };
        let (low, high) = (from.end_of(range.start), usize::from(from.word(last).from_end));
        let (used, len) = (usize::from(self.used), self.len());
        let (size, from_size) = (self.data.len(), from.data.len());
        self.data[size - used - (high - low)..size - used]
            .copy_from_slice(&from.data[from_size - high..from_size - low]);
        let words = &mut self.data.as_chunks_mut().0[len..len + range.len()];
        for (bytes, &word) in words.iter_mut().zip(&from.words()[range]) {
            let word = Word::new(u64::from_le_bytes(word));
            *bytes = Word { head: 0, from_end: (usize::from(word.from_end) - low + used) as u16, ..word }.bytes();
        }
        self.len += words.len() as u16;
        self.used += (high - low) as u16;
    }

    /// Puts a part among the large ones. Returns what the entry holds instead.
    fn adopt(&mut self, part: &Arc<[u8]>) -> [u8; INDEX] {
        self.large.push(Arc::clone(part));
        (self.large.len() as u32 - 1).to_le_bytes()
    }

    fn insert_at(&mut self, at: usize, key: &[u8], value: &[u8]) {
        if self.len == 0 {
            self.prefix = key.len() as u32;
        } else {
            let common = common_prefix(&self.key(0)[..self.prefix as usize], key);
            if common < self.prefix as usize {
                self.renew_heads(common);
            }
        }
        self.put(at, head(key, self.prefix as usize), key, value);
    }

    fn put(&mut self, at: usize, head: u32, key: &[u8], value: &[u8]) {
        let (mut flags, key_index, value_index) = (0, self.stow(key, INLINE_KEY), self.stow(value, INLINE_VALUE));
        let key = match &key_index {
            Some(index) => {
                flags |= LARGE_KEY;
                index
            }
            None => key,
        };
        let value = match &value_index {
            Some(index) => {
                flags |= LARGE_VALUE;
                index
            }
            None => value,
        };
        self.put_parts(at, Word { head, from_end: 0, key: key.len() as u16 | flags }, key, value);
    }

    /// Puts a long key or value among the large ones. Returns what the entry holds instead.
    fn stow(&mut self, part: &[u8], limit: usize) -> Option<[u8; INDEX]> {
        (part.len() > limit).then(|| self.adopt(&Arc::from(part)))
    }

    /// Puts an entry in at `at`. The word's distance is filled in here.
    fn put_parts(&mut self, at: usize, word: Word, key: &[u8], value: &[u8]) {
        let (size, end, added) = (self.data.len(), self.end_of(at), key.len() + value.len());
        let top = size - usize::from(self.used);
        self.data.copy_within(top..size - end, top - added);
        let start = size - end - added;
        self.data[start..start + key.len()].copy_from_slice(key);
        self.data[start + key.len()..size - end].copy_from_slice(value);
        self.data.copy_within(at * WORD..self.len() * WORD, (at + 1) * WORD);
        self.len += 1;
        self.used += added as u16;
        self.set_word(at, Word { from_end: (end + added) as u16, ..word });
        self.shift(at + 1, added as u16, 0);
    }

    /// Replaces the value at `at`.
    fn replace(&mut self, at: usize, value: &[u8]) {
        self.discard(at, LARGE_VALUE);
        let word = self.word(at);
        let index = self.stow(value, INLINE_VALUE);
        let (value, flag) = match &index {
            Some(index) => (&index[..], LARGE_VALUE),
            None => (value, 0),
        };
        let (old, new) = (self.parts(at, word).1.len(), value.len());
        let (size, end) = (self.data.len(), self.end_of(at));
        if old != new {
            // The key, and all entries behind this one, lie before the value.
            let top = size - usize::from(self.used);
            self.data.copy_within(top..size - end - old, top + old - new);
            self.used = self.used + new as u16 - old as u16;
            self.shift(at, new as u16, old as u16);
        }
        self.data[size - end - new..size - end].copy_from_slice(value);
        let word = self.word(at);
        self.set_word(at, Word { key: word.key & !LARGE_VALUE | flag, ..word });
    }

    fn remove_at(&mut self, at: usize) {
        let word = self.word(at);
        self.discard(at, LARGE_KEY);
        self.discard(at, LARGE_VALUE);
        let (size, end) = (self.data.len(), self.end_of(at));
        let removed = usize::from(word.from_end) - end;
        let top = size - usize::from(self.used);
        self.data.copy_within(top..size - usize::from(word.from_end), top + removed);
        self.data.copy_within((at + 1) * WORD..self.len() * WORD, at * WORD);
        self.len -= 1;
        self.used -= removed as u16;
        self.shift(at, 0, removed as u16);
        if self.len == 0 {
            self.prefix = 0;
        }
    }

    /// Where the key or the value of the entry at `at` starts, if it is a large one.
    fn place_of(&self, at: usize, flag: u16) -> Option<usize> {
        let word = self.word(at);
        let start = self.data.len() - usize::from(word.from_end);
        (word.key & flag != 0).then(|| if flag == LARGE_KEY { start } else { start + word.key_len() })
    }

    /// Drops the entry's large key or value, if it has one, of which the entry must not make use any more.
    fn discard(&mut self, at: usize, flag: u16) {
        let Some(place) = self.place_of(at, flag) else { return };
        let index = index_of(&self.data[place..]);
        self.data[place..place + INDEX].fill(u8::MAX);
        self.large.swap_remove(index);
        // The last part has taken the index, so what named the last is changed.
        let last = self.large.len();
        if index == last {
            return;
        }
        let places = (0..self.len()).flat_map(|at| [self.place_of(at, LARGE_KEY), self.place_of(at, LARGE_VALUE)]);
        let moved = places.flatten().find(|&place| index_of(&self.data[place..]) == last);
        if let Some(place) = moved {
            self.data[place..place + INDEX].copy_from_slice(&(index as u32).to_le_bytes());
        }
    }

    /// Takes as much for the prefix as the keys have in common, and renews the heads.
    pub(super) fn seal(&mut self) {
        let prefix = self.last_key().map_or(0, |last| common_prefix(self.key(0), last));
        self.renew_heads(prefix);
    }

    fn renew_heads(&mut self, prefix: usize) {
        self.prefix = prefix as u32;
        for at in 0..self.len() {
            let head = head(self.key(at), prefix);
            self.set_word(at, Word { head, ..self.word(at) });
        }
    }

    /// Changes the distances of the entries from `from` on.
    fn shift(&mut self, from: usize, more: u16, less: u16) {
        let len = self.len();
        for bytes in &mut self.data.as_chunks_mut().0[from..len] {
            let word = Word::new(u64::from_le_bytes(*bytes));
            *bytes = Word { from_end: word.from_end + more - less, ..word }.bytes();
        }
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        assert!(self.size() <= self.data.len());
        let mut named = Vec::new();
        for at in 0..self.len() {
            let (word, key, prefix) = (self.word(at), self.key(at), self.prefix as usize);
            let parts = self.parts(at, word);
            assert_eq!(word.head, head(key, prefix));
            assert_eq!(self.key(0)[..prefix], key[..prefix]);
            assert_eq!(word.key & LARGE_KEY != 0, key.len() > INLINE_KEY);
            assert_eq!(word.key & LARGE_VALUE != 0, self.value(at).len() > INLINE_VALUE);
            named.extend((word.key & LARGE_KEY != 0).then(|| index_of(parts.0)));
            named.extend((word.key & LARGE_VALUE != 0).then(|| index_of(parts.1)));
            assert!(at == 0 || self.key(at - 1) < key, "keys ascend");
        }
        assert_eq!(usize::from(self.used), if self.len == 0 { 0 } else { self.end_of(self.len()) });
        named.sort_unstable();
        assert_eq!(named, (0..self.large.len()).collect::<Vec<_>>(), "each large part is named once");
    }
}

/// Reads from each memory line.
#[inline]
fn read_lines(bytes: &[u8]) {
    let read = bytes.as_chunks::<LINE>().0.iter().fold(0, |all, line| all | line[0]);
    black_box(read | bytes.last().copied().unwrap_or_default());
}

/// The index that stands for a large part.
fn index_of(part: &[u8]) -> usize {
    part.first_chunk().map_or(usize::MAX, |bytes| u32::from_le_bytes(*bytes) as usize)
}
