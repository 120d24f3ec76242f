//! The simulated disk, as programs and tests use it.
//!
//! One mutex guards the whole disk. It is held for one operation at a time, never across a
//! callback. In a single-threaded program, the same calls with the same seed give the same results
//! and trace.

use super::fault::{Fault, OpKind, Persistence, When};
use super::image::{Config, EntryChange, Image, Ino, Names, down, eio, no_space};
use super::inode::Inode;
use super::state::{Locks, State, open_kind};
use super::trace::Op;
use super::write::sync_error;
use crate::io::sync::{Arc, Mutex};
use crate::io::{Clock, Directory, DirectoryLock, File, LockMode, OpenMode, WritePath};
use rustix::io::Errno;
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::PathBuf;
use std::time::Duration;

/// The alignment of direct I/O, whatever the block size.
const DIRECT_ALIGN: usize = super::content::SECTOR_BYTES;

/// The wall-clock time at which the simulated clock starts.
const WALL_CLOCK_START_MICROS: u64 = 1_700_000_000_000_000;

/// A deterministic disk in memory, which crashes and fails on demand.
///
/// A clone is another handle to the same disk. [`SimDisk::crash`] returns a new disk.
///
/// ```
/// use seawal::sim::{Crash, Fault, OpKind, Persistence, SimDisk};
/// use seawal::io::{Directory, OpenMode};
///
/// let disk = SimDisk::new(1);
/// let file = disk.open("a", OpenMode::CreateNew)?;
/// disk.sync_dir()?;
/// file.write_at(b"hello", 0)?;
/// disk.fail_next(OpKind::SyncData, Fault::Eio, Persistence::Once);
/// file.sync_data().unwrap_err();
/// file.sync_data()?; // succeeds, as on ext4, although the bytes are lost:
/// assert_eq!(disk.read_file("a")?, b"hello");
/// assert_eq!(disk.crash(Crash::Everything).read_file("a")?, b"");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SimDisk {
    pub(super) state: Arc<Mutex<State>>,
}

// no code of the caller runs while its state is changed
impl UnwindSafe for SimDisk {}
impl RefUnwindSafe for SimDisk {}

/// Builds a [`SimDisk`] with other properties than the default ones.
///
/// ```
/// use seawal::sim::SimDisk;
/// use seawal::io::{Directory, WritePath};
/// let disk = SimDisk::builder().seed(3).block_bytes(512).write_path(WritePath::BufferedSync).build();
/// assert_eq!(disk.block_bytes(), 512);
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct SimDiskBuilder {
    seed: u64,
    config: Config,
}

impl SimDiskBuilder {
    /// The seed of all of the disk's decisions. Default: 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The size of a physical block, in bytes, rounded up to a power of two of at least 512.
    /// Default: 4096.
    pub fn block_bytes(mut self, bytes: u32) -> Self {
        self.config.block_bytes = bytes.clamp(512, 1 << 20).next_power_of_two();
        self
    }

    /// How durable writes reach the device. Default: [`WritePath::Direct`].
    pub fn write_path(mut self, path: WritePath) -> Self {
        self.config.write_path = path;
        self
    }

    /// A warning that [`Directory::warnings`](crate::io::Directory::warnings) returns. Default:
    /// none.
    pub fn warning(mut self, warning: &'static str) -> Self {
        self.config.warning = Some(warning);
        self
    }

    /// Builds the disk.
    pub fn build(self) -> SimDisk {
        SimDisk::of(Image::new(self.seed, self.config))
    }
}

impl SimDisk {
    /// An empty disk with blocks of 4096 bytes, direct writes and unlimited space.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::builder().seed(seed).build()
    }

    /// A disk after power-on, with these files.
    pub(super) fn of(image: Image) -> SimDisk {
        SimDisk { state: Arc::new(Mutex::new(State::new(image))) }
    }

    /// Configures a disk with other properties.
    pub fn builder() -> SimDiskBuilder {
        SimDiskBuilder { seed: 0, config: Config { block_bytes: 4096, write_path: WritePath::Direct, warning: None } }
    }

    /// Plans a fault for the operation with this index (see [`SimDisk::op_count`]); with
    /// [`Persistence::ForEver`], also for all later operations. If several faults are planned for one
    /// operation, the one planned first takes effect.
    pub fn fail_at(&self, op_index: u64, fault: Fault, persistence: Persistence) {
        self.state.lock().plan.add(When::At(op_index), fault, persistence);
    }

    /// Plans a fault for the next operation of a kind; with [`Persistence::ForEver`], for all of
    /// them.
    pub fn fail_next(&self, kind: OpKind, fault: Fault, persistence: Persistence) {
        self.state.lock().plan.add(When::Next(kind), fault, persistence);
    }

    /// Removes all planned faults. After [`Fault::Crash`] the disk stays down.
    pub fn clear_faults(&self) {
        self.state.lock().plan.clear();
    }

    /// The number of operations so far, which is the index of the next one.
    pub fn op_count(&self) -> u64 {
        self.state.lock().ops
    }

    /// True after [`Fault::Crash`] has taken effect.
    pub fn is_down(&self) -> bool {
        self.state.lock().image.down
    }

    /// The number of files that are open now. A file that is open twice counts twice.
    pub fn open_files(&self) -> usize {
        self.state.lock().image.handles.values().sum()
    }

    /// The largest number of files that were open at once since the last call.
    pub fn take_most_open_files(&self) -> usize {
        let image = &mut self.state.lock().image;
        let open = image.handles.values().sum();
        std::mem::replace(&mut image.most_open, open).max(open)
    }

    /// Limits the free space, in bytes; `None` lifts the limit. Space is counted in pages of 4096
    /// bytes, and removing or truncating a file frees its pages.
    pub fn set_free_bytes(&self, free: Option<u64>) {
        let image = &mut self.state.lock().image;
        image.capacity = free.map(|free| image.used_bytes().saturating_add(free));
    }

    /// The free space, in bytes. This call does not count as an operation.
    pub fn free_bytes(&self) -> u64 {
        self.state.lock().image.free_bytes()
    }

    /// Advances the clock. That of a disk that is [down](SimDisk::is_down) stands still.
    pub fn advance(&self, by: Duration) {
        let image = &mut self.state.lock().image;
        if !image.down {
            image.clock = image.clock.saturating_add(by);
        }
    }

    /// A hash of all operations so far: their names, offsets, lengths, bytes and faults. Equal
    /// hashes mean equal runs.
    pub fn trace_hash(&self) -> u64 {
        self.state.lock().trace.hash()
    }

    /// Starts to keep the last thousand operations as text.
    pub fn enable_trace(&self) {
        self.state.lock().trace.enable();
    }

    /// The operations since [`SimDisk::enable_trace`], one per line: index, kind, name, offset,
    /// length, fault.
    pub fn trace(&self) -> Vec<String> {
        self.state.lock().trace.lines()
    }

    /// The names of all files. This call does not count as an operation.
    pub fn file_names(&self) -> Vec<String> {
        self.state.lock().image.names()
    }

    /// The first operation that a fault affected, and its file.
    pub(super) fn struck(&self) -> Option<(OpKind, String)> {
        self.state.lock().struck.clone()
    }

    /// The names, each with its inode.
    pub(super) fn names(&self) -> Arc<Names> {
        Arc::clone(&self.state.lock().image.dir)
    }

    /// A file's content in the page cache. This call does not count as an operation.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`].
    pub fn read_file(&self, name: &str) -> io::Result<Vec<u8>> {
        let image = &self.state.lock().image;
        Ok(image.look(image.lookup(name)?, |inode| {
            let mut bytes = vec![0; usize::try_from(inode.cached.len).unwrap_or(usize::MAX)];
            inode.cached.read(&mut bytes, 0);
            bytes
        }))
    }

    /// Creates or replaces a file with this content, durably, name included. This call does not
    /// count as an operation.
    pub fn write_file(&self, name: &str, bytes: &[u8]) {
        let image = &mut self.state.lock().image;
        image.sync_name(name);
        let ino = match image.dir.get(name) {
            Some(&ino) => ino,
            None => {
                let ino = image.next_ino;
                image.next_ino += 1;
                Arc::make_mut(&mut image.dir).insert(name.into(), ino);
                ino
            }
        };
        Arc::make_mut(&mut image.durable_dir).insert(name.into(), ino);
        let inode = image.inode(ino);
        inode.durable.cut(0);
        inode.settle();
        inode.overwrite(bytes, 0);
        image.claim(ino, 0, bytes.len() as u64);
    }

    /// Flips one bit of a file, durably. This call does not count as an operation.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`], and [`io::ErrorKind::InvalidInput`] past the end of the file.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u32) -> io::Result<()> {
        self.edit(name, |inode| {
            let mut byte = [0];
            if inode.cached.read(&mut byte, offset) == 0 {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "the offset lies past the end of the file"));
            }
            byte[0] ^= 1u8.rotate_left(bit);
            inode.overwrite(&byte, offset);
            Ok(())
        })
    }

    /// Overwrites bytes of a file, durably. This call does not count as an operation.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`].
    pub fn overwrite(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.edit(name, |inode| {
            inode.overwrite(bytes, offset);
            Ok(())
        })
    }

    /// Sets a file's length, durably; unsynced content becomes durable too. This call does not
    /// count as an operation.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`].
    pub fn truncate_file(&self, name: &str, len: u64) -> io::Result<()> {
        self.edit(name, |inode| {
            inode.sync();
            inode.durable.cut(len);
            inode.settle();
            Ok(())
        })
    }

    /// Removes a file, durably. This call does not count as an operation.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`].
    pub fn remove_file(&self, name: &str) -> io::Result<()> {
        let image = &mut self.state.lock().image;
        image.lookup(name)?;
        image.sync_name(name);
        Arc::make_mut(&mut image.dir).remove(name);
        Arc::make_mut(&mut image.durable_dir).remove(name);
        image.forget_nameless();
        Ok(())
    }

    /// Voids every lock on the disk, as if the directory had been replaced under its owner. The
    /// next [`DirectoryLock::check`] of such a lock fails. This call does not count as an
    /// operation.
    ///
    /// ```
    /// use seawal::io::{Directory, LockMode};
    /// use seawal::sim::SimDisk;
    ///
    /// let disk = SimDisk::new(1);
    /// let lock = disk.lock(LockMode::Exclusive)?;
    /// disk.void_locks();
    /// assert!(lock.check().is_err());
    /// let _next = disk.lock(LockMode::Exclusive)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn void_locks(&self) {
        let locks = &mut self.state.lock().locks;
        *locks = Locks { losses: locks.losses + 1, ..Locks::default() };
    }

    fn edit<T>(&self, name: &str, change: impl FnOnce(&mut Inode) -> io::Result<T>) -> io::Result<T> {
        let image = &mut self.state.lock().image;
        let ino = image.lookup(name)?;
        change(image.inode(ino))
    }
}

impl Directory for SimDisk {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        check_name(name)?;
        let op = Op { offset: mode as u64, ..Op::new(open_kind(mode), name) };
        let ino = self.state.lock().simple(&op, |image| {
            let ino = match mode {
                OpenMode::CreateNew => image.create(name)?,
                OpenMode::Read | OpenMode::ReadWrite => image.lookup(name)?,
            };
            *image.handles.entry(ino).or_default() += 1;
            image.most_open = image.most_open.max(image.handles.values().sum());
            Ok(ino)
        })?;
        let (state, name) = (Arc::clone(&self.state), Arc::from(name));
        Ok(Arc::new(SimFile { state, ino, name, writable: mode != OpenMode::Read }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.state.lock().simple(&Op::new(OpKind::List, ""), |image| Ok(image.names()))
    }

    fn is_named(&self, name: &str, file: &dyn File) -> io::Result<bool> {
        let found = self.state.lock().image.dir.get(name).copied();
        Ok(found.is_some() && found == file.identity()?.map(|(_, ino)| ino))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        let op = Op { data: to.as_bytes(), ..Op::new(OpKind::Rename, from) };
        self.state.lock().simple(&op, |image| {
            let ino = image.lookup(from)?;
            if from != to {
                image.change_entry(EntryChange::Rename { to: to.into(), ino });
            }
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.state.lock().simple(&Op::new(OpKind::Remove, name), |image| {
            let ino = image.lookup(name)?;
            image.change_entry(EntryChange::Remove { name: name.into(), ino });
            Ok(())
        })
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.state.lock().perform(&Op::new(OpKind::SyncDir, ""), |image, fault| match fault {
            None | Some(Fault::ShortWrite) => {
                image.sync_dir();
                Ok(())
            }
            Some(Fault::Crash) => Err(image.stop()),
            // name changes are in a journal, which is never marked clean, so they stay pending
            Some(fault) => Err(sync_error(fault)),
        })
    }

    fn lock(&self, mode: LockMode) -> io::Result<Box<dyn DirectoryLock>> {
        let op = Op { offset: mode as u64, ..Op::new(OpKind::Lock, "") };
        let mut state = self.state.lock();
        state.simple(&op, |_| Ok(()))?;
        let refused = match mode {
            LockMode::Shared if state.locks.owned => Some("another handle of this simulated disk"),
            LockMode::Exclusive if state.locks.owned => Some("another handle of this simulated disk"),
            LockMode::Exclusive if state.locks.readers > 0 => Some("a reader"),
            LockMode::Shared | LockMode::Exclusive => None,
        };
        if let Some(holder) = refused {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, holder));
        }
        match mode {
            LockMode::Shared => state.locks.readers += 1,
            LockMode::Exclusive => state.locks.owned = true,
        }
        let losses = state.locks.losses;
        drop(state);
        Ok(Box::new(SimLock { state: Arc::clone(&self.state), mode, losses }))
    }

    fn block_bytes(&self) -> u32 {
        self.state.lock().image.config.block_bytes
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/sim").join(name)
    }

    fn warnings(&self) -> Vec<String> {
        self.state.lock().image.config.warning.map(str::to_owned).into_iter().collect()
    }
}

impl Clock for SimDisk {
    /// The simulated clock advances by 1 µs per operation, and by [`SimDisk::advance`].
    fn monotonic(&self) -> Duration {
        self.state.lock().image.clock
    }

    fn wall_clock_micros(&self) -> u64 {
        WALL_CLOCK_START_MICROS + u64::try_from(self.monotonic().as_micros()).unwrap_or(u64::MAX / 2)
    }

    fn random(&self) -> u64 {
        self.state.lock().image.rng.next()
    }
}

/// Held until dropped.
struct SimLock {
    state: Arc<Mutex<State>>,
    mode: LockMode,
    /// The count of losses when it was granted.
    losses: u64,
}

impl DirectoryLock for SimLock {
    fn check(&self) -> io::Result<()> {
        if self.state.lock().locks.losses == self.losses {
            return Ok(());
        }
        Err(io::Error::other("the simulated directory was replaced; close this store and open it again"))
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let locks = &mut self.state.lock().locks;
        if locks.losses != self.losses {
            return;
        }
        match self.mode {
            LockMode::Shared => locks.readers = locks.readers.saturating_sub(1),
            LockMode::Exclusive => locks.owned = false,
        }
    }
}

/// One open file.
struct SimFile {
    state: Arc<Mutex<State>>,
    ino: Ino,
    /// The name at the time of opening, for the trace.
    name: Arc<str>,
    writable: bool,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.state.lock().image.close(self.ino);
    }
}

impl SimFile {
    fn op(&self, kind: OpKind) -> Op<'_> {
        Op::new(kind, &self.name)
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(Errno::BADF.into()) }
    }

    fn sync(&self, kind: OpKind) -> io::Result<()> {
        let ino = self.ino;
        self.state.lock().perform(&self.op(kind), |image, fault| match fault {
            None | Some(Fault::ShortWrite) => {
                if image.look(ino, |inode| !inode.pending.is_empty()) {
                    image.inode(ino).sync();
                }
                image.finish_in_flight(ino);
                Ok(())
            }
            Some(Fault::Crash) => Err(image.stop()),
            Some(fault) => {
                image.inode(ino).fail_sync();
                Err(sync_error(fault))
            }
        })
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let op = Op { offset, len: buf.len() as u64, ..self.op(OpKind::ReadAt) };
        self.state.lock().perform(&op, |image, fault| {
            let part = match fault {
                Some(Fault::ShortWrite) => part_of(image, buf.len()),
                Some(Fault::Eio) => return Err(eio()),
                Some(Fault::Interrupted) => return Err(Errno::INTR.into()),
                Some(Fault::Crash) => return Err(image.stop()),
                None | Some(Fault::NoSpace | Fault::LostWrite | Fault::MisdirectedWrite) => buf.len(),
            };
            Ok(image.look(self.ino, |inode| inode.cached.read(&mut buf[..part], offset)))
        })
    }

    fn read_device_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        check_aligned(buf, offset)?;
        let op = Op { offset, len: buf.len() as u64, ..self.op(OpKind::ReadDeviceAt) };
        self.state.lock().perform(&op, |image, fault| match fault {
            Some(Fault::Eio) => Err(eio()),
            Some(Fault::Interrupted) => Err(Errno::INTR.into()),
            Some(Fault::Crash) => Err(image.stop()),
            None | Some(_) => Ok(image.look(self.ino, |inode| inode.read_device(buf, offset))),
        })
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.check_writable()?;
        check_range(offset, buf.len())?;
        let op = Op { offset, len: buf.len() as u64, data: buf, ..self.op(OpKind::WriteAt) };
        self.state.lock().perform(&op, |image, fault| {
            let part = match fault {
                None | Some(Fault::LostWrite | Fault::MisdirectedWrite) => buf.len(),
                Some(Fault::ShortWrite) => part_of(image, buf.len()),
                Some(Fault::Crash) => image.fault_rng.below(buf.len() as u64 + 1) as usize,
                Some(Fault::Eio) => return Err(eio()),
                Some(Fault::NoSpace) => return Err(no_space()),
                Some(Fault::Interrupted) => return Err(Errno::INTR.into()),
            };
            let room = image.claim(self.ino, offset, part as u64) as usize;
            let (inode, seq) = image.inode_and_seq(self.ino);
            match fault {
                Some(Fault::LostWrite | Fault::MisdirectedWrite) => inode.lose_cached(&buf[..room], offset, seq),
                _ => inode.write_cached(&buf[..room], offset, seq),
            }
            match fault {
                Some(Fault::Crash) => return Err(image.stop()),
                Some(Fault::MisdirectedWrite) => image.stray(self.ino, &buf[..room], offset),
                _ => {}
            }
            if room == 0 && part > 0 { Err(no_space()) } else { Ok(room) }
        })
    }

    fn write_durable_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        check_aligned(buf, offset)?;
        check_range(offset, buf.len())?;
        let op = Op { offset, len: buf.len() as u64, data: buf, ..self.op(OpKind::WriteDurableAt) };
        let mut state = self.state.lock();
        let held = state.perform(&op, |image, fault| match fault {
            None if image.holds => image.hold(self.ino, buf, offset).map(Some),
            fault => image.write_through(self.ino, buf, offset, fault).map(|()| None),
        })?;
        let Some(number) = held else { return Ok(()) };
        let completed = Arc::clone(&state.completed);
        while state.image.held.iter().any(|write| write.number == number) {
            if state.image.down {
                return Err(down());
            }
            completed.wait(&mut state);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(OpKind::SyncData)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(OpKind::SyncAll)
    }

    fn len(&self) -> io::Result<u64> {
        self.state.lock().simple(&self.op(OpKind::Len), |image| Ok(image.look(self.ino, |inode| inode.cached.len)))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.state.lock().simple(&Op { len, ..self.op(OpKind::SetLen) }, |image| {
            let (inode, seq) = image.inode_and_seq(self.ino);
            inode.set_len(len, seq);
            Ok(())
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.state.lock().simple(&Op { len, ..self.op(OpKind::Allocate) }, |image| {
            let extents = image.inode(self.ino).extents.clone();
            if image.claim(self.ino, 0, len) < len {
                image.inode(self.ino).extents = extents;
                return Err(no_space());
            }
            let (inode, seq) = image.inode_and_seq(self.ino);
            inode.set_len(len.max(inode.cached.len), seq);
            Ok(())
        })
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(self.state.lock().image.dir.values().any(|ino| *ino == self.ino))
    }

    fn identity(&self) -> io::Result<Option<(u64, u64)>> {
        Ok(Some((0, self.ino)))
    }

    fn write_path(&self) -> WritePath {
        self.state.lock().image.config.write_path
    }
}

/// The length of a short transfer: at least one byte and, if possible, not all.
fn part_of(image: &mut Image, len: usize) -> usize {
    if len <= 1 { len } else { 1 + image.fault_rng.below(len as u64 - 1) as usize }
}

fn check_name(name: &str) -> io::Result<()> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is not a plain file name")));
    }
    Ok(())
}

fn check_range(offset: u64, len: usize) -> io::Result<()> {
    if offset.checked_add(len as u64).is_some_and(|end| i64::try_from(end).is_ok()) {
        return Ok(());
    }
    Err(Errno::FBIG.into())
}

/// Refuses unaligned calls, so that tests find them. The real disk serves them slowly.
fn check_aligned(buf: &[u8], offset: u64) -> io::Result<()> {
    let aligned = buf.len().is_multiple_of(DIRECT_ALIGN)
        && offset.is_multiple_of(DIRECT_ALIGN as u64)
        && buf.as_ptr().addr().is_multiple_of(DIRECT_ALIGN);
    if aligned {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "a call around the page cache is not aligned to 512 bytes"))
}
