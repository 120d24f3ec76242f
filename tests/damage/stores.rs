//! Small stores in all their states, and the expected outcome of damage, derived from its place
//! alone.
#![allow(dead_code, reason = "each test file uses a part of it")]

use super::common::{Cmd, Stacks, files, manual, open_on};
use super::layout::{Frame, Manifest, Segment};
use seawal::sim::{Crash, Fault, OpKind, Persistence, SimDisk};
use seawal::wal::LogStep;
use seawal::{Engine, Options, Step};
use std::collections::BTreeMap;

pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// Options for the smallest possible segments, in blocks of 512 bytes.
pub(crate) fn options() -> Options {
    manual().segment_bytes(16 << 10).first_segment_bytes(16 << 10)
}

pub(crate) fn disk(seed: u64) -> SimDisk {
    SimDisk::builder().seed(seed).block_bytes(512).build()
}

/// A store at rest, and the state that it must have up to each place in its log.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) name: &'static str,
    pub(crate) disk: SimDisk,
    pub(crate) files: Files,
    /// Log positions, with the state that was committed there.
    history: Vec<(u64, Stacks)>,
    pub(crate) segments: Vec<Segment>,
}

/// The expected outcome of an open.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// The store opens with this state.
    Opens(Stacks),
    /// The open is refused for damage in this file, at this offset if it is certain.
    Refused(String, Option<u64>),
}

/// The history of a store before it is damaged.
struct Scene {
    disk: SimDisk,
    engine: Engine<Stacks>,
    history: Vec<(u64, Stacks)>,
    next: u32,
}

impl Scene {
    fn begin(seed: u64) -> Scene {
        let disk = disk(seed);
        let (engine, _) = open_on::<Stacks>(&disk, &options()).unwrap();
        let mut scene = Scene { disk, engine, history: vec![(0, Stacks::default())], next: 0 };
        scene.note();
        scene
    }

    fn note(&mut self) {
        let state = Stacks::clone(&self.engine.view().unwrap());
        self.history.push((self.engine.stats().log.unwrap().durable.get(), state));
    }

    fn commits(&mut self, count: u32, pad: u16) -> &mut Scene {
        for _ in 0..count {
            let (key, value) = ((self.next % 3) as u8, self.next);
            self.engine.execute(Cmd::Push { key, value, pad }).unwrap();
            self.next += 1;
            self.note();
        }
        self
    }

    fn checkpoint(&mut self) -> &mut Scene {
        self.engine.checkpoint().unwrap();
        self.note();
        self
    }

    /// Lets the log become idle, so that a watermark proves the last commit.
    fn rest(&mut self) -> &mut Scene {
        while self.engine.step(Step::Log(LogStep::Watermark)).unwrap() {}
        self.note();
        self
    }

    /// Begins transactions that never end.
    fn losers(&mut self) -> &mut Scene {
        for key in [10, 11] {
            let tx = self.engine.begin().unwrap();
            tx.execute(Cmd::Push { key, value: 1, pad: 30 }).unwrap();
            tx.execute(Cmd::Push { key, value: 2, pad: 700 }).unwrap();
            self.engine.sync().unwrap();
            std::mem::forget(tx);
            self.note();
        }
        self
    }

    /// Loses power in the middle of a frame of several blocks, so that only a part of it reaches
    /// the device. Then the store opens again.
    fn cut_in_a_frame(mut self) -> Scene {
        self.disk.fail_next(OpKind::WriteDurableAt, Fault::Crash, Persistence::Once);
        assert!(self.engine.execute(Cmd::Push { key: 5, value: 5, pad: 3000 }).is_err());
        let before = Store::new("", &self.disk.crash(Crash::Nothing), self.history.clone());
        let (name, at) = (&before.last().name, before.last().end_offset());
        let torn = (0..).map(|seed| self.disk.crash(Crash::Seeded(seed))).find(|disk| {
            let frame = &disk.read_file(name).unwrap()[at..at + 3584];
            // the frame's first sector survived, and a later one did not
            !frame[..512].iter().all(|b| *b == 0) && frame[512..].chunks(512).any(|b| b.iter().all(|b| *b == 0))
        });
        self.disk = torn.unwrap();
        self.engine = open_on::<Stacks>(&self.disk, &options()).unwrap().0;
        self.note();
        self
    }

    fn killed(self, name: &'static str) -> Store {
        let disk = self.disk.crash(Crash::Nothing);
        std::mem::forget(self.engine);
        Store::new(name, &disk, self.history)
    }

    fn closed(self, name: &'static str) -> Store {
        self.engine.close().unwrap();
        drop(self.engine);
        Store::new(name, &self.disk.crash(Crash::Nothing), self.history)
    }
}

pub(crate) fn closed() -> Store {
    let mut scene = Scene::begin(1);
    scene.commits(12, 20);
    scene.closed("closed")
}

pub(crate) fn killed_with_losers() -> Store {
    let mut scene = Scene::begin(2);
    scene.commits(5, 20).losers().commits(4, 900).rest().commits(2, 20);
    scene.killed("killed with losers")
}

/// A store with recycled segments, and a checkpoint that contains open transactions.
pub(crate) fn recycled() -> Store {
    let mut scene = Scene::begin(3);
    for _ in 0..4 {
        scene.commits(40, 20).checkpoint();
    }
    scene.losers().checkpoint().commits(34, 300).rest().commits(1, 1200);
    scene.killed("recycled")
}

pub(crate) fn two_snapshots() -> Store {
    let mut scene = Scene::begin(4);
    scene.commits(6, 20).checkpoint().commits(28, 20).checkpoint().commits(8, 20).rest();
    scene.killed("two snapshots")
}

/// A store with a torn frame in an older segment, past the end that the next segment records.
pub(crate) fn cut() -> Store {
    let mut scene = Scene::begin(5);
    scene.commits(6, 20);
    let mut scene = scene.cut_in_a_frame();
    scene.commits(6, 20);
    scene.killed("cut")
}

pub(crate) fn all() -> [Store; 5] {
    [closed(), killed_with_losers(), recycled(), two_snapshots(), cut()]
}

/// Copies a store's files to a new disk.
pub(crate) fn on_disk(files: &Files) -> SimDisk {
    let disk = disk(9);
    files.iter().for_each(|(name, bytes)| disk.write_file(name, bytes));
    disk
}

fn segments_of(files: &Files) -> Vec<Segment> {
    files.iter().filter(|(name, _)| name.ends_with(".seg")).map(|(name, bytes)| Segment::read(name, bytes)).collect()
}

impl Store {
    fn new(name: &'static str, disk: &SimDisk, history: Vec<(u64, Stacks)>) -> Store {
        let mut files = files(disk);
        files.remove("LOCK");
        let disk = on_disk(&files);
        Store { name, disk, segments: segments_of(&files), files, history }
    }

    pub(crate) fn last(&self) -> &Segment {
        self.segments.last().unwrap()
    }

    pub(crate) fn whole(&self) -> &Stacks {
        &self.history.last().unwrap().1
    }

    fn state_at(&self, lsn: u64) -> &Stacks {
        &self.history.iter().rfind(|(end, _)| *end <= lsn).unwrap().1
    }

    /// The current manifest.
    pub(crate) fn manifest(&self, after: &Files) -> Option<Manifest> {
        let copies = ["MANIFEST-0", "MANIFEST-1"].iter().filter_map(|name| after.get(*name));
        copies.filter_map(|bytes| Manifest::read(bytes)).max_by_key(|manifest| manifest.counter)
    }

    /// The segments from the one that holds `start`.
    fn needed(&self, start: u64) -> &[Segment] {
        let first = self.segments.iter().rposition(|segment| segment.base <= start).unwrap();
        &self.segments[first..]
    }

    /// The expected outcome of an open with these files instead of the store's own. At least one
    /// copy of the manifest must be whole.
    pub(crate) fn foretell(&self, after: &Files) -> Outcome {
        let manifest = self.manifest(after).unwrap();
        let same = |name: &String| after.contains_key(name) && after.get(name) == self.files.get(name);
        let snapshots: Vec<String> = manifest.snapshots.iter().map(|lsn| format!("{lsn:016x}.snap")).collect();
        let start = match snapshots.iter().position(same) {
            Some(at) => manifest.snapshots[at],
            None if manifest.log_start == manifest.origin => manifest.origin,
            None => return Outcome::Refused(snapshots[0].clone(), None),
        };
        let needed = self.needed(start);
        for segment in needed {
            // a missing segment is found in the directory, so no file is named
            let Some(bytes) = after.get(&segment.name) else { return Outcome::Refused(String::new(), None) };
            let header = &self.files[&segment.name][..segment.block];
            if bytes.len() < segment.file_bytes as usize || !bytes.starts_with(header) {
                return Outcome::Refused(segment.name.clone(), None);
            }
        }
        for (at, segment) in needed.iter().enumerate() {
            let (old, new) = (&self.files[&segment.name], &after[&segment.name]);
            let is_whole = |frame: &&Frame| old[frame.at.clone()] == new[frame.at.clone()];
            let recorded_end = needed.get(at + 1).map(|next| next.previous_end);
            let ours = segment.frames.iter().filter(|f| f.lsn >= start && recorded_end.is_none_or(|end| f.lsn < end));
            let Some(bad) = ours.clone().find(|frame| !is_whole(frame)) else { continue };
            let headers = needed.iter().map(|segment| segment.watermark);
            let later = ours.filter(|frame| frame.lsn > bad.lsn).filter(is_whole).map(|frame| frame.watermark);
            let proven = headers.chain(later).chain([manifest.proven]).max().unwrap() > bad.lsn;
            if recorded_end.is_some() || proven || self.is_misdirected(segment, bad, new) {
                return Outcome::Refused(segment.name.clone(), Some(bad.at.start as u64));
            }
            return Outcome::Opens(self.state_at(bad.lsn).clone());
        }
        Outcome::Opens(self.whole().clone())
    }

    /// Whether a whole frame of the bad one's place or of a later one stands at another block of
    /// the segment. No crash leaves that, so the log went on.
    fn is_misdirected(&self, segment: &Segment, bad: &Frame, bytes: &[u8]) -> bool {
        let later = self.segments.iter().flat_map(|from| from.frames.iter().map(move |frame| (from, frame)));
        let mut later = later.filter(|(_, frame)| frame.epoch == bad.epoch && frame.lsn >= bad.lsn);
        later.any(|(from, frame)| {
            let own = &self.files[&from.name][frame.at.clone()];
            let mut places = (0..bytes.len()).step_by(segment.block).filter(|at| *at >= bad.at.start);
            places.any(|at| (&from.name, frame.at.start) != (&segment.name, at) && bytes[at..].starts_with(own))
        })
    }
}

/// The same store after `times` rounds, each of which adds snapshots, segments and a tail. The
/// bytes of equal rounds are equal.
pub(crate) fn aged(times: u32) -> Store {
    aging(6, times)
}

/// The same history in a store with another identity.
pub(crate) fn aged_elsewhere(times: u32) -> Store {
    aging(7, times)
}

fn aging(seed: u64, times: u32) -> Store {
    let mut scene = Scene::begin(seed);
    scene.commits(5, 20).checkpoint().commits(3, 20);
    for _ in 0..times {
        scene.commits(9, 300).rest().checkpoint().commits(7, 20).rest().commits(2, 600);
    }
    scene.killed("aged")
}
