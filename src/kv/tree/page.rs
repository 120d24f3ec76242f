//! A packed run of sorted entries: the body of every node.
//!
//! The entries lie one behind the other in one buffer, in the order of their keys, each as
//!
//! ```text
//! key length * 2 + flag   varint, 1 to 5 bytes
//! key
//! value                   up to the start of the next entry
//! ```
//!
//! beside an array of slots, each the entry's start and the head of its key. The head is the four bytes
//! that follow the prefix which all keys share, as a big-endian integer, padded with zeroes. Heads
//! never order two keys wrongly, but may tie: then the keys decide.
//!
//! Invariants: the slots' starts ascend and cover the buffer; the keys ascend strictly; `prefix` bytes are
//! common to all keys (perhaps more are); every head is that of its key.
//!
//! A page does not know what its values mean (the flag is its owner's), nor how large it may become.

use std::cmp::Ordering;

/// An entry's key head and where the entry starts.
#[derive(Clone, Copy, Debug)]
struct Slot {
    head: u32,
    start: u32,
}

/// One entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    /// The owner's flag.
    pub(super) flag: bool,
}

/// Sorted entries.
#[derive(Clone, Debug, Default)]
pub(super) struct Page {
    slots: Vec<Slot>,
    bytes: Vec<u8>,
    prefix: u32,
}

impl Page {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many bytes the entries take.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// How many bytes an entry would take.
    pub(super) fn entry_size(key: &[u8], value: &[u8]) -> usize {
        header_len(key.len()) + key.len() + value.len()
    }

    #[inline]
    fn start(&self, at: usize) -> usize {
        self.slots.get(at).map_or(self.bytes.len(), |s| s.start as usize)
    }

    /// The entry at `at`, which must exist.
    #[inline]
    pub(super) fn entry(&self, at: usize) -> Entry<'_> {
        let bytes = &self.bytes[self.slots[at].start as usize..self.start(at + 1)];
        let (header, rest) = split_header(bytes);
        let (key, value) = rest.split_at(header >> 1);
        Entry { key, value, flag: header & 1 != 0 }
    }

    /// The key at `at`, which must exist.
    #[inline]
    pub(super) fn key(&self, at: usize) -> &[u8] {
        let (header, rest) = split_header(&self.bytes[self.slots[at].start as usize..]);
        &rest[..header >> 1]
    }

    pub(super) fn last_key(&self) -> Option<&[u8]> {
        self.len().checked_sub(1).map(|last| self.key(last))
    }

    /// Where `key` is, or would be.
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix as usize;
        if prefix > 0 {
            let common = prefix.min(key.len());
            match key[..common].cmp(&self.key(0)[..common]) {
                Ordering::Less => return Err(0),
                Ordering::Greater => return Err(self.len()),
                Ordering::Equal if key.len() < prefix => return Err(0),
                Ordering::Equal => {}
            }
        }
        self.search_behind_prefix(key)
    }

    /// Where `key` is. It need not look at the prefix first, and so touches less memory than [`search`](Self::search).
    #[inline]
    pub(super) fn find(&self, key: &[u8]) -> Option<usize> {
        if key.len() < self.prefix as usize {
            return None;
        }
        let at = self.search_behind_prefix(key).ok()?;
        (self.key(at) == key).then_some(at)
    }

    /// Where a key with the common prefix is, or would be. The prefix itself is taken for granted.
    #[inline]
    fn search_behind_prefix(&self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix as usize;
        let wanted = head(key, prefix);
        let mut low = self.slots.partition_point(|s| s.head < wanted);
        let ties = self.slots[low..].iter().take(2).filter(|s| s.head == wanted).count();
        let mut high = match ties {
            0 => return Err(low),
            1 => low + 1,
            _ => low + self.slots[low..].partition_point(|s| s.head == wanted),
        };
        let tail = &key[prefix..];
        while low < high {
            let middle = low + (high - low) / 2;
            match self.key(middle)[prefix..].cmp(tail) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Puts an entry in at `at`, where [`search`](Self::search) said that it belongs.
    pub(super) fn insert(&mut self, at: usize, key: &[u8], value: &[u8], flag: bool) {
        self.admit(key);
        let start = self.start(at);
        self.open_gap(start, Self::entry_size(key, value));
        let header_end = write_header(&mut self.bytes, start, key.len(), flag);
        self.bytes[header_end..header_end + key.len()].copy_from_slice(key);
        self.bytes[header_end + key.len()..][..value.len()].copy_from_slice(value);
        make_room(&mut self.slots, 1);
        self.slots.insert(at, Slot { head: head(key, self.prefix as usize), start: start as u32 });
        self.shift(at + 1, Self::entry_size(key, value), 0);
    }

    /// Appends an entry without a head: [`seal`](Self::seal) must follow.
    pub(super) fn push_unsealed(&mut self, key: &[u8], value: &[u8], flag: bool) {
        let start = self.bytes.len();
        self.bytes.resize(start + header_len(key.len()), 0);
        write_header(&mut self.bytes, start, key.len(), flag);
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.slots.push(Slot { head: 0, start: start as u32 });
    }

    /// Forgets all entries and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.bytes.clear();
        self.prefix = 0;
    }

    /// Takes as much for the prefix as the keys have in common, and renews the heads.
    pub(super) fn seal(&mut self) {
        let prefix = match self.last_key() {
            Some(last) => common_prefix(self.key(0), last),
            None => 0,
        };
        self.set_prefix(prefix);
    }

    /// Replaces the value and flag at `at`.
    pub(super) fn replace(&mut self, at: usize, value: &[u8], flag: bool) {
        let Entry { key, value: old, .. } = self.entry(at);
        let (key_len, old_len) = (key.len(), old.len());
        let end = self.start(at + 1);
        let start = end - old_len;
        if value.len() > old_len {
            self.open_gap(end, value.len() - old_len);
        } else {
            self.bytes.copy_within(end.., start + value.len());
            self.bytes.truncate(self.bytes.len() - (old_len - value.len()));
        }
        self.bytes[start..start + value.len()].copy_from_slice(value);
        self.shift(at + 1, value.len(), old_len);
        let entry_start = self.start(at);
        write_header(&mut self.bytes, entry_start, key_len, flag);
        give_back(&mut self.bytes);
    }

    /// Takes the entry at `at` out.
    pub(super) fn remove(&mut self, at: usize) {
        let (start, end) = (self.start(at), self.start(at + 1));
        self.bytes.drain(start..end);
        self.slots.remove(at);
        self.shift(at, 0, end - start);
        give_back(&mut self.bytes);
        give_back(&mut self.slots);
        if self.slots.is_empty() {
            self.prefix = 0;
        }
    }

    /// Splits the entries from `at` on off.
    pub(super) fn split_off(&mut self, at: usize) -> Page {
        let start = self.start(at);
        let mut right = Page { slots: self.slots[at..].to_vec(), bytes: self.bytes[start..].to_vec(), prefix: 0 };
        right.shift(0, 0, start);
        right.seal();
        *self = Page { slots: self.slots[..at].to_vec(), bytes: self.bytes[..start].to_vec(), prefix: 0 };
        self.seal();
        right
    }

    /// Appends the entries of `other`, whose keys are all greater.
    pub(super) fn append(&mut self, other: &Page) {
        let (count, size) = (self.len(), self.size());
        make_room(&mut self.bytes, other.bytes.len());
        self.bytes.extend_from_slice(&other.bytes);
        make_room(&mut self.slots, other.slots.len());
        self.slots.extend_from_slice(&other.slots);
        self.shift(count, size, 0);
        self.seal();
    }

    /// Where to split so that both sides are about as large; both get at least one entry if there are two.
    pub(super) fn middle(&self) -> usize {
        let half = (self.bytes.len() / 2) as u32;
        self.slots.partition_point(|s| s.start <= half).min(self.len().saturating_sub(1)).max(1)
    }

    /// Lets the prefix shrink to what `key` has in common with it.
    fn admit(&mut self, key: &[u8]) {
        if self.slots.is_empty() {
            self.prefix = key.len() as u32;
            return;
        }
        let prefix = self.prefix as usize;
        if prefix > 0 {
            let common = common_prefix(&self.key(0)[..prefix], key);
            if common < prefix {
                self.set_prefix(common);
            }
        }
    }

    fn set_prefix(&mut self, prefix: usize) {
        self.prefix = prefix as u32;
        for at in 0..self.slots.len() {
            self.slots[at].head = head(self.key(at), prefix);
        }
    }

    /// Makes a gap of `len` bytes at `at`, to be overwritten.
    fn open_gap(&mut self, at: usize, len: usize) {
        let old = self.bytes.len();
        make_room(&mut self.bytes, len);
        self.bytes.resize(old + len, 0);
        self.bytes.copy_within(at..old, at + len);
    }

    /// Moves the starts of the slots from `from` on.
    fn shift(&mut self, from: usize, up: usize, down: usize) {
        for slot in &mut self.slots[from..] {
            slot.start = slot.start + up as u32 - down as u32;
        }
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        assert_eq!(self.start(0), 0);
        for at in 0..self.len() {
            let key = self.key(at);
            assert!(self.slots[at].start < self.start(at + 1) as u32);
            assert_eq!(self.slots[at].head, head(key, self.prefix as usize));
            assert_eq!(self.key(0)[..self.prefix as usize], key[..self.prefix as usize]);
            assert!(at == 0 || self.key(at - 1) < key, "keys ascend");
        }
    }
}

/// The four bytes behind the prefix, as an integer that orders as they do.
#[inline]
fn head(key: &[u8], prefix: usize) -> u32 {
    let tail = key.get(prefix..).unwrap_or_default();
    match tail.first_chunk::<4>() {
        Some(first) => u32::from_be_bytes(*first),
        None => {
            let mut padded = [0; 4];
            padded[..tail.len()].copy_from_slice(tail);
            u32::from_be_bytes(padded)
        }
    }
}

/// How many leading bytes the two have in common.
pub(super) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn header_len(key_len: usize) -> usize {
    let mut rest = key_len << 1 >> 7;
    let mut len = 1;
    while rest > 0 {
        rest >>= 7;
        len += 1;
    }
    len
}

/// Writes an entry's header at `at` and says where it ends.
fn write_header(bytes: &mut [u8], mut at: usize, key_len: usize, flag: bool) -> usize {
    let mut rest = key_len << 1 | usize::from(flag);
    while rest >= 0x80 {
        bytes[at] = rest as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    bytes[at] = rest as u8;
    at + 1
}

/// An entry's header, and what follows it.
#[inline]
fn split_header(bytes: &[u8]) -> (usize, &[u8]) {
    let first = bytes[0];
    if first < 0x80 {
        return (usize::from(first), &bytes[1..]);
    }
    let mut header = usize::from(first & 0x7f);
    let mut at = 1;
    loop {
        let byte = bytes[at];
        header |= usize::from(byte & 0x7f) << (7 * at);
        at += 1;
        if byte < 0x80 {
            return (header, &bytes[at..]);
        }
    }
}

/// Makes room for `more` elements, with an eighth to spare: doubling would leave a quarter of all memory unused.
fn make_room<T>(vec: &mut Vec<T>, more: usize) {
    let needed = vec.len() + more;
    if needed > vec.capacity() {
        vec.reserve_exact(needed + needed / 8 - vec.len());
    }
}

/// Gives memory back once a third of it is unused.
fn give_back<T>(vec: &mut Vec<T>) {
    if vec.len() < vec.capacity() / 3 * 2 {
        vec.shrink_to(vec.len() + vec.len() / 8);
    }
}
