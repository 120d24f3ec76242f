//! The generator: each function writes one store through the public API and crashes or closes it.

#[cfg(feature = "serde")]
use crate::machines::notes::{Edit, Note, Notes};
use crate::machines::{Ledger, Listed, Transfer, record_lines};
use crate::pack::Files;
use crate::{api, api::options};
use seawal::kv::{Kv, KvCommand};
use seawal::sim::{Crash, Fault, OpKind, Persistence, SimDisk};
use seawal::wal::{Log, LogStep};
use seawal::{Durability, Engine, Options, Step, Transaction};
use std::time::Duration;

/// A generated store with the entries that it must hold.
pub(crate) struct Made {
    pub(crate) name: &'static str,
    pub(crate) machine: &'static str,
    pub(crate) files: Files,
    pub(crate) entries: Vec<String>,
}

/// All stores, by name. The simulated disk is deterministic, so each run gives the same bytes.
pub(crate) fn all() -> Vec<Made> {
    let mut all = vec![
        empty(),
        closed(),
        killed(),
        torn_cut(),
        torn_overwritten(),
        torn_with_a_hole(),
        losers(),
        degraded_snapshot(),
        degraded_manifest(),
        degraded_both(),
        recycled(),
        large(),
        digests(),
        os_killed(),
        os_power_loss(),
        ledger(),
        log_closed(),
        log_killed(),
    ];
    #[cfg(feature = "serde")]
    all.push(notes());
    all.sort_by_key(|made| made.name);
    all
}

/// An open store, and a model: a machine in memory that applies the committed commands.
struct Scene<M: Listed> {
    disk: SimDisk,
    options: Options,
    engine: Engine<M>,
    model: M,
}

impl<M: Listed> Scene<M> {
    fn begin(seed: u64, block_bytes: u32, options: Options) -> Scene<M> {
        let disk = SimDisk::builder().seed(seed).block_bytes(block_bytes).build();
        let (engine, _) = api::open(&disk, &options).unwrap();
        Scene { disk, options, engine, model: M::default() }
    }

    fn commit(&mut self, command: M::Command) -> &mut Self {
        self.commit_with(command, Durability::Sync)
    }

    fn commit_with(&mut self, command: M::Command, durability: Durability) -> &mut Self {
        self.engine.execute_with(command.clone(), durability).unwrap();
        self.model.apply(&command).unwrap();
        self
    }

    fn commits(&mut self, commands: impl IntoIterator<Item = M::Command>) -> &mut Self {
        for command in commands {
            self.commit(command);
        }
        self
    }

    /// Applies to the model what a transaction has committed.
    fn committed(&mut self, commands: &[M::Command]) {
        commands.iter().for_each(|command| drop(self.model.apply(command).unwrap()));
    }

    /// Begins a transaction, executes the commands, and leaves it open.
    fn open(&self, commands: impl IntoIterator<Item = M::Command>) -> Transaction<M> {
        let tx = self.engine.begin().unwrap();
        go_on(&tx, commands);
        tx
    }

    fn checkpoint(&mut self) -> &mut Self {
        self.engine.checkpoint().unwrap();
        self
    }

    /// Writes watermarks until the last commit is proven.
    fn rest(&mut self) -> &mut Self {
        while self.engine.step(Step::Log(LogStep::Watermark)).unwrap() {}
        self
    }

    fn digest(&mut self) -> &mut Self {
        while self.engine.step(Step::Digest).unwrap() {}
        self
    }

    /// Loses power and opens the store again.
    fn reopen(&mut self) -> &mut Self {
        self.disk = self.disk.crash(Crash::Nothing);
        self.engine = api::open(&self.disk, &self.options).unwrap().0;
        self
    }

    fn close_and_reopen(&mut self) -> &mut Self {
        self.engine.close().unwrap();
        self.reopen()
    }

    fn close(self, name: &'static str) -> Made {
        self.engine.close().unwrap();
        self.crash(name, Crash::Nothing)
    }

    fn crash(self, name: &'static str, crash: Crash) -> Made {
        let files = api::files(&self.disk.crash(crash));
        Made { name, machine: M::NAME, files, entries: self.model.entries() }
    }
}

fn go_on<M: Listed>(tx: &Transaction<M>, commands: impl IntoIterator<Item = M::Command>) {
    commands.into_iter().for_each(|command| drop(tx.execute(command).unwrap()));
}

fn put(n: u32) -> KvCommand {
    KvCommand::put(["", "b", "middle"][n as usize % 3], format!("key-{:02}", n % 40), format!("value {n}"))
}

fn puts(numbers: std::ops::Range<u32>) -> impl Iterator<Item = KvCommand> {
    numbers.map(put)
}

/// Puts a value of the given length, none of whose bytes is zero.
fn long(key: &str, bytes: usize) -> KvCommand {
    KvCommand::put("long", key, (0..bytes).map(|at| (at % 251) as u8 + 1).collect::<Vec<_>>())
}

/// Covers each kind of command of the built-in machine, and unusual keys and values.
fn every_kind() -> Vec<KvCommand> {
    let nothing = None::<&str>;
    vec![
        KvCommand::put("", "", "the empty key"),
        KvCommand::put("", "empty value", ""),
        KvCommand::put("tables can have names of their own: ü", b"\0\xff\0".to_vec(), b"\0\x01\xff".to_vec()),
        KvCommand::delete("", "key-03"),
        KvCommand::delete("no such table", "no such key"),
        KvCommand::compare_and_set("cas", "made", nothing, Some("1")),
        KvCommand::compare_and_set("cas", "made", Some("1"), Some("2")),
        KvCommand::compare_and_set("cas", "gone", nothing, Some("1")),
        KvCommand::compare_and_set("cas", "gone", Some("1"), nothing),
        KvCommand::batch([]),
        KvCommand::batch([
            KvCommand::put("batch", "a", "1"),
            KvCommand::batch([KvCommand::put("batch", "b", "2"), KvCommand::delete("batch", "a")]),
            KvCommand::compare_and_set("batch", "b", Some("2"), Some("3")),
        ]),
    ]
}

/// Values full of frame magics, at each of the four alignments, so that frames need a mask.
fn like_frames() -> Vec<KvCommand> {
    (0..4).map(|at| KvCommand::put("frames", [at], [&b"...."[..at as usize], &b"SWFR".repeat(140)].concat())).collect()
}

/// A store that was created and closed.
fn empty() -> Made {
    Scene::<Kv>::begin(1, 4096, options()).close("empty")
}

/// Three opens, all closed.
fn closed() -> Made {
    let mut scene = Scene::<Kv>::begin(2, 4096, options());
    scene.commits(puts(0..8)).commits(every_kind()).close_and_reopen();
    scene.commits(like_frames()).close_and_reopen();
    scene.commits(puts(8..12));
    scene.close("closed")
}

/// A snapshot, the log behind it with transactions that ended either way, a crash, and some more
/// log.
fn killed() -> Made {
    let mut scene = Scene::<Kv>::begin(3, 4096, options().segment_bytes(32 << 10));
    scene.commit(KvCommand::batch(puts(0..120))).checkpoint();
    scene.commits(every_kind()).commits(like_frames());
    let commands = [KvCommand::put("tx", "a", "1"), KvCommand::put("tx", "b", "2"), KvCommand::delete("tx", "a")];
    scene.open(commands.clone()).commit().unwrap();
    scene.committed(&commands);
    scene.open([KvCommand::put("tx", "b", "never"), KvCommand::put("tx", "c", "never")]).rollback().unwrap();
    scene.reopen().commits(puts(200..205));
    scene.crash("killed", Crash::Nothing)
}

/// Power is lost in the middle of a frame of several blocks, some of which get onto the device.
fn torn_cut() -> Made {
    let mut scene = Scene::<Kv>::begin(4, 512, options());
    scene.commits(puts(0..6));
    let first = blocks_in_use(&scene.disk).iter().rposition(|used| *used).unwrap() + 1;
    scene.disk.fail_next(OpKind::WriteDurableAt, Fault::Crash, Persistence::Once);
    assert!(scene.engine.execute(long("never", 2500)).is_err());
    // its header is there, and a block behind it is not
    let torn = |crash: &Crash| {
        let blocks = blocks_in_use(&scene.disk.crash(*crash));
        blocks[first] && !blocks[first + 1..first + 5].iter().all(|used| *used)
    };
    let crash = (0..).map(Crash::Seeded).find(torn).unwrap();
    scene.crash("torn-cut", crash)
}

/// The last frame, which nothing proves, has lost a block in its middle.
fn torn_overwritten() -> Made {
    let mut scene = Scene::<Kv>::begin(5, 512, options());
    scene.commits(puts(0..6));
    // the frame will be lost, so the model does not get the command
    scene.engine.execute(long("lost", 2500)).unwrap();
    let mut made = scene.crash("torn-overwritten", Crash::Nothing);
    let (name, bytes) = newest_segment(&made.files);
    let at = (bytes.iter().rposition(|byte| *byte != 0).unwrap() - 1200) / 512 * 512;
    let name = name.to_owned();
    made.files.get_mut(&name).unwrap()[at..at + 512].fill(0);
    made
}

/// Of two frames that were in flight together, only the later one gets onto the device.
fn torn_with_a_hole() -> Made {
    let mut scene = Scene::<Kv>::begin(6, 512, options().max_frames_in_flight(2));
    scene.commits(puts(0..6));
    scene.disk.hold_writes();
    let mut crashed = None;
    std::thread::scope(|scope| {
        for held in 1..=2 {
            let engine = &scene.engine;
            scope.spawn(move || engine.execute(put(100 + held)).unwrap());
            while scene.disk.held_writes() < held as usize {
                std::thread::yield_now();
            }
        }
        assert!(scene.disk.complete_write(1));
        crashed = Some(scene.disk.crash(Crash::Nothing));
        scene.disk.release_writes();
    });
    scene.disk = crashed.unwrap();
    scene.crash("torn-with-a-hole", Crash::Nothing)
}

/// Transactions that are open at the crash: in the snapshot, in the log, in both, and partly rolled
/// back.
fn losers() -> Made {
    let mut scene = Scene::<Kv>::begin(7, 512, options());
    scene.commits(puts(0..10));
    let changes = |name: &str, numbers: std::ops::Range<u32>| {
        let name = name.to_owned();
        numbers.map(move |n| KvCommand::put("losers", format!("{name}-{}", n % 3), format!("{n}"))).collect::<Vec<_>>()
    };
    scene.commits(["both", "rolled-back", "undone", "committed"].iter().flat_map(|name| changes(name, 0..2)));
    let in_the_snapshot = scene.open(changes("snapshot", 0..5));
    let both = scene.open(changes("both", 10..13));
    let before = both.savepoint().unwrap();
    go_on(&both, changes("both", 13..16));
    let rolled_back = scene.open(changes("rolled-back", 10..15));
    let undone = scene.open(changes("undone", 10..13));
    let committed = scene.open(changes("committed", 10..13));
    scene.checkpoint().commits(puts(10..14));
    let in_the_log = scene.open(changes("log", 0..4));
    let after = scene.open(changes("after", 0..3));
    let savepoint = after.savepoint().unwrap();
    go_on(&after, changes("after", 3..7));
    after.rollback_to(savepoint).unwrap();
    go_on(&after, changes("after", 7..9));
    // what is undone here stands in the snapshot, and what undoes it in the log
    both.rollback_to(before).unwrap();
    go_on(&both, changes("both", 16..18));
    let nothing_of_it = rolled_back.savepoint().unwrap();
    go_on(&rolled_back, changes("rolled-back", 15..18));
    rolled_back.rollback_to(nothing_of_it).unwrap();
    go_on(&undone, changes("undone", 13..16));
    undone.rollback().unwrap();
    go_on(&committed, changes("committed", 13..15));
    committed.commit().unwrap();
    scene.committed(&changes("committed", 10..15));
    scene.commits(puts(14..17));
    scene.engine.sync().unwrap();
    let made = scene.crash("losers", Crash::Nothing);
    drop((in_the_snapshot, both, rolled_back, in_the_log, after));
    made
}

/// Two snapshots with a log behind the older one.
fn two_snapshots(seed: u64, name: &'static str) -> Made {
    let mut scene = Scene::<Kv>::begin(seed, 512, options());
    scene.commits(puts(0..6)).checkpoint().commits(puts(6..18)).checkpoint().commits(puts(18..24)).rest();
    scene.crash(name, Crash::Nothing)
}

fn damage(made: &mut Made, name: &str, offset: usize) {
    made.files.get_mut(name).unwrap()[offset] ^= 4;
}

fn damage_newest_snapshot(made: &mut Made) {
    let snapshots: Vec<String> = made.files.keys().filter(|name| name.ends_with(".snap")).cloned().collect();
    assert_eq!(snapshots.len(), 2);
    damage(made, &snapshots[1], 600);
}

fn degraded_snapshot() -> Made {
    let mut made = two_snapshots(8, "degraded-snapshot");
    damage_newest_snapshot(&mut made);
    made
}

/// The first copy of the manifest is damaged.
fn degraded_manifest() -> Made {
    let mut made = two_snapshots(9, "degraded-manifest");
    damage(&mut made, "MANIFEST-0", 40);
    made
}

/// The newest snapshot and the second copy of the manifest are damaged.
fn degraded_both() -> Made {
    let mut made = two_snapshots(10, "degraded-both");
    damage_newest_snapshot(&mut made);
    damage(&mut made, "MANIFEST-1", 40);
    made
}

/// Several segments, some of which were recycled and have stale frames behind their ends.
fn recycled() -> Made {
    let mut scene = Scene::<Kv>::begin(11, 512, options());
    // mostly zeros, which take no room in a fixture
    let wide = |n: u32| KvCommand::put("wide", format!("{}", n % 30), format!("value {n}{:\0>1400}", "."));
    for round in 0..4 {
        scene.commits((round * 30..round * 30 + 30).map(wide)).checkpoint();
    }
    scene.commits((120..150).map(wide)).rest();
    let enough = |files: &Files| is_recycled(files) && files.keys().filter(|name| name.ends_with(".seg")).count() > 3;
    let mut more = (150..300).map(wide);
    while !enough(&api::files(&scene.disk)) {
        scene.commit(more.next().unwrap());
    }
    let made = scene.crash("recycled", Crash::Nothing);
    assert!(enough(&made.files));
    made
}

fn is_recycled(files: &Files) -> bool {
    files.iter().any(|(name, bytes)| name.ends_with(".seg") && has_stale_frames(name, bytes))
}

/// Looks for frames with an LSN below the segment's base LSN, which the file name holds.
fn has_stale_frames(name: &str, bytes: &[u8]) -> bool {
    let base = u64::from_str_radix(&name["00000001-".len()..][..16], 16).unwrap();
    let lsn = |block: &[u8]| u64::from_le_bytes(block[32..40].try_into().unwrap());
    bytes.chunks(512).any(|block| block.starts_with(b"SWFR") && lsn(block) < base)
}

/// A snapshot of several chunks and parts, and records of many blocks.
fn large() -> Made {
    let mut scene = Scene::<Kv>::begin(12, 4096, options().segment_bytes(1 << 20).max_log_bytes(16 << 20));
    let zeros = |n: u32| KvCommand::put("zeros", format!("{n}"), vec![0; 300_000 + n as usize]);
    scene.commits((0..9).map(zeros)).checkpoint().commits((7..10).map(zeros)).rest();
    scene.crash("large", Crash::Nothing)
}

/// Digests before and behind the snapshot.
fn digests() -> Made {
    let mut scene = Scene::<Kv>::begin(13, 512, options().digest_every(4));
    for n in 0..40 {
        scene.commit(put(n)).digest();
        if n == 17 {
            scene.checkpoint();
        }
    }
    scene.engine.sync().unwrap();
    scene.crash("digests", Crash::Nothing)
}

/// Mixes commits of all durabilities. Frames of `Os` and `Interval` commits share blocks.
fn mixed(scene: &mut Scene<Kv>) {
    let interval = Durability::Interval(Duration::from_millis(50));
    for n in 0..36 {
        let durability = match n % 9 {
            8 => Durability::Sync,
            4 | 6 => interval,
            _ => Durability::Os,
        };
        scene.commit_with(put(n), durability);
        if n % 14 == 13 {
            scene.disk.advance(Duration::from_millis(60));
            while scene.engine.step(Step::Log(LogStep::SyncDue)).unwrap() {}
        }
    }
    scene.commit(put(36));
}

/// The process is killed; the operating system has all that was handed to it.
fn os_killed() -> Made {
    let mut scene = Scene::<Kv>::begin(14, 4096, options());
    mixed(&mut scene);
    for n in 37..44 {
        scene.commit_with(put(n), Durability::Os);
    }
    scene.crash("os-killed", Crash::KillOnly)
}

/// Power is lost; what was only handed to the operating system is lost with it.
fn os_power_loss() -> Made {
    let mut scene = Scene::<Kv>::begin(15, 4096, options());
    mixed(&mut scene);
    for n in 37..44 {
        // power loss takes these commits, so the model does not get them
        scene.engine.execute_with(put(n), Durability::Os).unwrap();
    }
    scene.crash("os-power-loss", Crash::Nothing)
}

/// A machine with encodings of its own: a snapshot, the log behind it, and a loser in both.
fn ledger() -> Made {
    let mut scene = Scene::<Ledger>::begin(16, 512, options());
    let transfer = |from, to, amount| Transfer { from, to, amount };
    scene.commits((1..9).map(|n| transfer(0, n, 1000 * i64::from(n))));
    let loser = scene.open([transfer(1, 2, 300), transfer(2, 1, 20)]);
    scene.checkpoint();
    go_on(&loser, [transfer(1, 2, 400), transfer(2, 1, 5)]);
    scene.commits((3..8).map(|n| transfer(n, n + 1, 250))).commit(transfer(3, 0, 2750));
    assert!(scene.engine.execute(transfer(4, 5, 1 << 40)).is_err());
    scene.engine.sync().unwrap();
    let made = scene.crash("ledger", Crash::Nothing);
    drop(loser);
    made
}

/// The same for derived encodings.
#[cfg(feature = "serde")]
fn notes() -> Made {
    let mut scene = Scene::<Notes>::begin(17, 512, options());
    let note = |number: u32, text: &str| {
        let weight = (!number.is_multiple_of(3)).then_some(f64::from(number) / 8.0);
        let tags = (0..number % 4).map(|n| (['a', 'é', '✓'][n as usize % 3], n as i16 - 1)).collect();
        Edit::Write { number: number << 7, note: Note { text: format!("{text} {number}"), weight, tags } }
    };
    scene.commits((0..9).map(|n| note(n, "first")));
    let loser = scene.open([note(1, "never"), Edit::Erase { number: 2 << 7 }]);
    scene.checkpoint();
    go_on(&loser, [note(1, "never again"), note(20, "never")]);
    scene.commits((3..6).map(|n| note(n, "second"))).commit(Edit::Erase { number: 6 << 7 });
    scene.engine.sync().unwrap();
    let made = scene.crash("notes", Crash::Nothing);
    drop(loser);
    made
}

/// A log without an engine.
struct LogScene {
    disk: SimDisk,
    log: Log,
    appended: Vec<Vec<u8>>,
}

impl LogScene {
    fn begin(seed: u64) -> LogScene {
        let disk = SimDisk::builder().seed(seed).block_bytes(512).build();
        let (log, _) = api::open_log(&disk, api::journal_options()).unwrap();
        LogScene { disk, log, appended: Vec::new() }
    }

    /// Appends records of zero to 1,500 bytes. Every third record shares a frame with the next one.
    fn append(&mut self, count: usize) -> &mut Self {
        for n in (self.appended.len()..).take(count) {
            let bytes = if n % 13 == 5 { 1500 } else { n * n * 3 % 90 };
            let record: Vec<u8> = (0..bytes).map(|at| (at * n % 255) as u8).collect();
            let ticket = self.log.append(&record).unwrap();
            if n % 3 != 1 {
                ticket.wait().unwrap();
            }
            self.appended.push(record);
        }
        self.log.sync().unwrap();
        self
    }

    fn reopen(&mut self) -> &mut Self {
        self.disk = self.disk.crash(Crash::Nothing);
        self.log = api::open_log(&self.disk, api::journal_options()).unwrap().0;
        self
    }

    /// Loses power. The log must hold the last `kept` of the appended records.
    fn crash(&self, name: &'static str, kept: usize) -> Made {
        let found = api::records(&self.log);
        assert!(found.iter().map(|(_, record)| record).eq(&self.appended[self.appended.len() - kept..]));
        let files = api::files(&self.disk.crash(Crash::Nothing));
        Made { name, machine: "journal", files, entries: record_lines(&found) }
    }
}

/// Two opens, both closed, and all records from the first on.
fn log_closed() -> Made {
    let mut scene = LogScene::begin(18);
    scene.append(30).log.close().unwrap();
    scene.reopen().append(8).log.close().unwrap();
    scene.crash("log-closed", 38)
}

/// A truncated log with recycled segments, killed twice.
fn log_killed() -> Made {
    let mut scene = LogScene::begin(19);
    for _ in 0..3 {
        let end = scene.append(30).log.durable_lsn();
        scene.append(4).log.truncate_before(end).unwrap();
    }
    scene.reopen().append(8);
    let kept = api::records(&scene.log).len();
    // truncation gives up whole segments, so some records below its LSN stay
    assert!((12..110).contains(&kept), "{kept}");
    let made = scene.crash("log-killed", kept);
    assert!(is_recycled(&made.files));
    made
}

/// Tells for each 512-byte block of the newest segment whether it holds a byte other than zero.
fn blocks_in_use(disk: &SimDisk) -> Vec<bool> {
    newest_segment(&api::files(disk)).1.chunks(512).map(|block| block.iter().any(|byte| *byte != 0)).collect()
}

fn newest_segment(files: &Files) -> (&str, &[u8]) {
    let (name, bytes) = files.iter().rfind(|(name, _)| name.ends_with(".seg")).unwrap();
    (name, bytes)
}
