//! Damage to bytes at rest. Each file of small stores is flipped, cut, zeroed, overwritten,
//! removed, swapped, replaced by an older version and forged, place by place.
//!
//! The place of the damage determines what opening must do: return the exact state, or refuse and
//! change nothing. `verify` must agree. Neither may panic, or allocate much more than for the
//! intact store.

use crate::common::{Cmd, Rng, Stacks, files, open_on, scale, state};
use crate::stores::{Files, Outcome, Store, on_disk, options};
use seawal::inspect::{self, Soundness};
use seawal::sim::{Crash, Fault, Persistence, SimDisk};
use seawal::{Error, RecoveryPolicy};
use std::sync::Arc;

/// The bytes that may be allocated for a damaged store beyond those for the intact one.
const ALLOWANCE: u64 = 1 << 20;

/// How thoroughly a damaged store is tested.
#[derive(Clone, Copy, PartialEq)]
enum Look {
    /// Opens it read-only, and verifies it.
    Read,
    /// Also opens it for writing.
    Close,
}

impl Look {
    /// A close look at one in `n` cases, or at every one in a long run.
    fn one_in(n: u64, rng: &mut Rng) -> Look {
        if scale() > 1 || rng.one_in(n) { Look::Close } else { Look::Read }
    }
}

/// Applies one kind of damage after another to a store, and counts the outcomes.
struct Sweep {
    store: Store,
    intact_bytes: u64,
    cases: usize,
    cuts: usize,
    refusals: usize,
}

fn measured<T>(run: impl FnOnce() -> T) -> (T, u64) {
    let mut answer = None;
    let info = allocation_counter::measure(|| answer = Some(run()));
    (answer.unwrap(), info.bytes_max)
}

fn read_only(disk: &SimDisk) -> seawal::Result<Stacks> {
    let options = options().recovery(RecoveryPolicy::ReadOnly);
    open_on::<Stacks>(disk, &options).map(|(engine, _)| state(&engine))
}

fn verified(disk: &SimDisk) -> seawal::Result<Soundness> {
    inspect::verify_machine::<Stacks>(Arc::new(disk.clone())).map(|report| {
        assert_eq!(report.open_error.is_some(), report.soundness() == Soundness::Damaged, "{report}");
        report.soundness()
    })
}

/// Whether an error reports damage with this file and, if given, this offset.
fn is_refusal(error: &Error, file: &str, offset: Option<u64>) -> bool {
    match error {
        Error::Corrupt { path, offset: found, lsn, .. } => {
            path.ends_with(file) && offset.is_none_or(|wanted| Some(wanted) == *found && lsn.is_some())
        }
        _ => false,
    }
}

impl Sweep {
    fn over(store: Store) -> Sweep {
        let (read, intact_bytes) = measured(|| read_only(&store.disk));
        assert_eq!(&read.unwrap(), store.whole(), "{}", store.name);
        assert_eq!(verified(&store.disk).unwrap(), Soundness::Clean, "{}", store.name);
        Sweep { store, intact_bytes, cases: 0, cuts: 0, refusals: 0 }
    }

    fn agrees(&self, answer: Result<&Stacks, &Error>, outcome: &Outcome, what: &str) {
        let name = self.store.name;
        match (answer, outcome) {
            (Ok(state), Outcome::Opens(wanted)) => assert_eq!(state, wanted, "{name}: {what}"),
            (Err(error), Outcome::Refused(file, offset)) => {
                assert!(is_refusal(error, file, *offset), "{name}: {what}: wanted {file} {offset:?}, not {error:?}");
            }
            (answer, outcome) => panic!("{name}: {what}: wanted {outcome:?}, not {answer:?}"),
        }
    }

    /// Tests a disk that holds the store with `after` as its files.
    fn look(&mut self, disk: &SimDisk, after: &Files, look: Look, what: &dyn Fn() -> String) {
        let outcome = self.store.foretell(after);
        self.cases += 1;
        match &outcome {
            Outcome::Opens(state) => self.cuts += usize::from(state != self.store.whole()),
            Outcome::Refused(..) => self.refusals += 1,
        }
        let (read, bytes) = measured(|| read_only(disk));
        self.agrees(read.as_ref(), &outcome, &what());
        assert!(bytes < self.intact_bytes + ALLOWANCE, "{}: {}: {bytes} bytes", self.store.name, what());
        let soundness = verified(disk).unwrap_or_else(|e| panic!("{}: {e:?}", what()));
        let refused = matches!(outcome, Outcome::Refused(..));
        assert_eq!(soundness == Soundness::Damaged, refused, "{}: {}: {soundness:?}", self.store.name, what());
        if look == Look::Read {
            return;
        }
        let copy = disk.crash(Crash::Nothing);
        let opened = open_on::<Stacks>(&copy, &options());
        let answer = opened.map(|(engine, _)| {
            let found = state(&engine);
            engine.execute(Cmd::push(99, 1)).unwrap();
            found
        });
        self.agrees(answer.as_ref(), &outcome, &what());
        if refused {
            let mut now = files(&copy);
            now.remove("LOCK");
            assert!(now == *after, "{}: {}: the files have changed", self.store.name, what());
        } else {
            let Outcome::Opens(mut wanted) = outcome else { return };
            // the cut is permanent: the store opens again, with the command executed since
            wanted.by_key.insert(99, vec![1]);
            let (engine, _) = open_on::<Stacks>(&copy.crash(Crash::Nothing), &options()).unwrap();
            assert_eq!(state(&engine), wanted, "{}: {}", self.store.name, what());
        }
    }

    /// Tests the store with other bytes in one file.
    fn replace(&mut self, name: &str, bytes: Vec<u8>, look: Look, what: &dyn Fn() -> String) {
        let mut after = self.store.files.clone();
        after.insert(name.to_owned(), bytes);
        let disk = self.store.disk.crash(Crash::Nothing);
        disk.write_file(name, &after[name]);
        self.look(&disk, &after, look, what);
    }

    /// The files that an open may read, with their bytes.
    fn targets(&self) -> Vec<(String, Vec<u8>)> {
        let read = self.store.files.iter().filter(|(name, _)| !name.starts_with("spare"));
        read.map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        let Sweep { store, cases, cuts, refusals, .. } = self;
        println!("{}: {cases} times damaged, {refusals} times refused, {cuts} times cut", store.name);
    }
}

/// Whether a normal run flips this byte: all of every header, a part of the contents, few of the
/// zeros.
fn is_taken(bytes: &[u8], at: usize) -> bool {
    scale() > 1
        || at % 512 < 64 && bytes[at / 512 * 512] != 0
        || at % 53 == 3 && bytes[at] != 0
        || at.is_multiple_of(431)
}

fn flip_every_byte(store: Store) -> Sweep {
    let mut sweep = Sweep::over(store);
    let mut rng = Rng::new(7);
    for (name, bytes) in sweep.targets() {
        let disk = sweep.store.disk.crash(Crash::Nothing);
        let mut after = sweep.store.files.clone();
        for at in (0..bytes.len()).filter(|at| is_taken(&bytes, *at)) {
            let bit = rng.below(8) as u32;
            disk.flip_bit(&name, at as u64, bit).unwrap();
            after.get_mut(&name).unwrap()[at] ^= 1 << bit;
            let look = Look::one_in(16, &mut rng);
            sweep.look(&disk, &after, look, &|| format!("bit {bit} of byte {at} of {name} flipped"));
            disk.flip_bit(&name, at as u64, bit).unwrap();
            after.get_mut(&name).unwrap()[at] ^= 1 << bit;
        }
    }
    sweep
}

#[test]
fn every_flipped_byte_of_a_closed_store_is_refused_or_does_no_harm() {
    let sweep = flip_every_byte(crate::stores::closed());
    // The manifest has the log's end, and the snapshot has the whole state. Damage to one copy
    // loses nothing.
    assert!(sweep.cuts == 0 && sweep.cases > 100, "{} {}", sweep.cuts, sweep.cases);
}

#[test]
fn every_flipped_byte_of_a_store_with_losers_is_refused_or_foretold() {
    let sweep = flip_every_byte(crate::stores::killed_with_losers());
    assert!(sweep.cuts > 20 && sweep.refusals > 100, "{} {}", sweep.cuts, sweep.refusals);
}

#[test]
fn every_flipped_byte_of_recycled_segments_is_refused_or_foretold() {
    let sweep = flip_every_byte(crate::stores::recycled());
    assert!(sweep.cuts > 20 && sweep.refusals > 100, "{} {}", sweep.cuts, sweep.refusals);
}

#[test]
fn every_flipped_byte_of_a_store_with_two_snapshots_is_refused_or_foretold() {
    let sweep = flip_every_byte(crate::stores::two_snapshots());
    // the last frame is a watermark, which holds no data that could be lost
    assert!(sweep.cuts == 0 && sweep.refusals > 50, "{} {}", sweep.cuts, sweep.refusals);
}

#[test]
fn every_flipped_byte_behind_a_cut_is_refused_or_foretold() {
    let sweep = flip_every_byte(crate::stores::cut());
    assert!(sweep.cuts > 20 && sweep.refusals > 50, "{} {}", sweep.cuts, sweep.refusals);
}

#[test]
fn a_file_cut_short_anywhere_is_refused_or_does_no_harm() {
    for store in crate::stores::all() {
        let mut sweep = Sweep::over(store);
        let mut rng = Rng::new(8);
        for (name, bytes) in sweep.targets() {
            let near = |len: &usize| matches!(len % 512, 0 | 1 | 511) && ((len / 512).is_multiple_of(3) || *len < 2048);
            let lens = (0..bytes.len()).filter(|len| scale() > 1 || near(len));
            for len in lens {
                let look = Look::one_in(8, &mut rng);
                sweep.replace(&name, bytes[..len].to_vec(), look, &|| format!("{name} cut to {len} bytes"));
            }
        }
        assert!(sweep.refusals > 0, "{}", sweep.store.name);
    }
}

/// Overwrites ranges of blocks with zeros and then with garbage: 512 bytes, 4096, and random
/// lengths.
fn overwrite(store: Store) {
    let mut sweep = Sweep::over(store);
    let mut rng = Rng::new(9);
    for (name, bytes) in sweep.targets() {
        let sectors = bytes.len().div_ceil(512);
        let in_use = |n: &usize| bytes[n * 512..].iter().take(512).any(|b| *b != 0);
        let each = (0..sectors).filter(in_use).map(|n| (n, 1));
        let blocks = (0..sectors).step_by(8).map(|n| (n, 8));
        let ranges: Vec<_> = (0..4 * scale()).map(|_| rng.below(sectors as u64) as usize).collect();
        let ranges = ranges.into_iter().map(|from| (from, 1 + sectors * 37 % (sectors - from)));
        for (from, count) in each.chain(blocks).chain(ranges) {
            for garbage in [false, true] {
                let mut broken = bytes.clone();
                let end = ((from + count) * 512).min(bytes.len());
                broken[from * 512..end].fill_with(|| if garbage { rng.next() as u8 } else { 0 });
                let look = Look::one_in(5, &mut rng);
                let with = if garbage { "garbage" } else { "zeros" };
                sweep.replace(&name, broken, look, &|| format!("{with} over {count} sectors of {name} from {from}"));
            }
        }
    }
    assert!(sweep.refusals > 0, "{}", sweep.store.name);
}

#[test]
fn zeros_and_garbage_over_any_sectors_are_refused_or_foretold() {
    std::thread::scope(|scope| {
        for stores in [vec![crate::stores::recycled()], vec![crate::stores::closed(), crate::stores::two_snapshots()]] {
            scope.spawn(|| stores.into_iter().for_each(overwrite));
        }
        overwrite(crate::stores::killed_with_losers());
        overwrite(crate::stores::cut());
    });
}

#[test]
fn blocks_of_other_places_and_of_other_times_are_refused_or_foretold() {
    for store in crate::stores::all() {
        let mut sweep = Sweep::over(store);
        let mut rng = Rng::new(10);
        let targets = sweep.targets();
        for _ in 0..250 * scale() {
            let (name, bytes) = &targets[rng.below(targets.len() as u64) as usize];
            let (from, source) = &targets[rng.below(targets.len() as u64) as usize];
            let blocks = |bytes: &[u8]| (bytes.len() / 512) as u64;
            if blocks(bytes) == 0 || blocks(source) == 0 {
                continue;
            }
            // a misdirected write: another place received these bytes, and this place kept its old
            // ones
            let (at, from_at) = (rng.below(blocks(bytes)) as usize * 512, rng.below(blocks(source)) as usize * 512);
            let count = (1 + rng.below(4) as usize) * 512;
            let block = &source[from_at..][..count.min(source.len() - from_at).min(bytes.len() - at)];
            let mut broken = bytes.clone();
            broken[at..at + block.len()].copy_from_slice(block);
            let look = Look::one_in(4, &mut rng);
            sweep.replace(name, broken, look, &|| format!("{name} at {at} holds {from} at {from_at}"));
        }
        assert!(sweep.refusals > 3, "{}", sweep.store.name);
    }
}

#[test]
fn a_write_that_was_lost_is_refused_or_foretold() {
    // each block of each file of the newer store gets the content that the older store had at rest
    let (mut refusals, mut cuts) = (0, 0);
    for (older, newer) in
        [(crate::stores::aged(0), crate::stores::aged(1)), (crate::stores::aged(1), crate::stores::aged(2))]
    {
        let mut sweep = Sweep::over(newer);
        for (name, bytes) in sweep.targets() {
            let Some(before) = older.files.get(&name).filter(|before| before.len() == bytes.len()) else { continue };
            let changed = |n: &usize| bytes[n * 512..][..512] != before[n * 512..][..512];
            for n in (0..bytes.len() / 512).filter(changed) {
                let mut broken = bytes.clone();
                broken[n * 512..][..512].copy_from_slice(&before[n * 512..][..512]);
                sweep.replace(&name, broken, Look::Close, &|| format!("the write to sector {n} of {name} was lost"));
            }
            sweep.replace(&name, before.clone(), Look::Close, &|| format!("all writes to {name} were lost"));
        }
        (refusals, cuts) = (refusals + sweep.refusals, cuts + sweep.cuts);
    }
    assert!(refusals > 5 && cuts > 0, "{refusals} {cuts}");
}

#[test]
fn a_file_that_is_missing_is_missed_where_it_is_needed() {
    for store in crate::stores::all() {
        let mut sweep = Sweep::over(store);
        for name in sweep.store.files.clone().into_keys() {
            let mut after = sweep.store.files.clone();
            after.remove(&name);
            sweep.look(&on_disk(&after), &after, Look::Close, &|| format!("{name} is missing"));
        }
        assert!(sweep.refusals > 0, "{}", sweep.store.name);
    }
}

#[test]
fn files_that_changed_places_are_refused_where_they_are_needed() {
    for store in crate::stores::all() {
        let mut sweep = Sweep::over(store);
        let names: Vec<String> = sweep.store.files.keys().cloned().collect();
        for (n, one) in names.iter().enumerate() {
            for other in &names[n + 1..] {
                let files = &sweep.store.files;
                let kind =
                    |name: &str| name.rsplit(['.', '-']).next().map(|end| (end.len(), end == "seg" || end == "snap"));
                if kind(one) != kind(other) {
                    continue;
                }
                let mut after = files.clone();
                after.insert(one.clone(), files[other].clone());
                let copied = after.clone();
                sweep.look(&on_disk(&copied), &copied, Look::Close, &|| format!("{one} holds {other}"));
                after.insert(other.clone(), sweep.store.files[one].clone());
                sweep.look(&on_disk(&after), &after, Look::Close, &|| format!("{one} and {other} changed places"));
            }
        }
        assert!(sweep.cases > 0, "{}", sweep.store.name);
    }
}

#[test]
fn a_copy_of_a_segment_under_another_name_never_counts() {
    for store in crate::stores::all() {
        let last = store.last();
        for segment in &store.segments {
            // as the next segment, as a later one, and as a second file with its own number
            let names = [
                format!("{:08}-{:016x}.seg", last.id + 1, last.base + 4096),
                format!("{:08}-{:016x}.seg", last.id + 7, last.base + 4096),
                format!("{:08}-{:016x}.seg", last.id, last.base + 512),
            ];
            for name in names {
                let mut after = store.files.clone();
                after.insert(name.clone(), store.files[&segment.name].clone());
                let disk = on_disk(&after);
                let error = open_on::<Stacks>(&disk, &options()).map(|(_, report)| report).unwrap_err();
                assert!(error.is_corrupt(), "{}: {} as {name}: {error:?}", store.name, segment.name);
                assert_eq!(verified(&disk).unwrap(), Soundness::Damaged);
            }
        }
    }
}

#[test]
fn a_file_of_another_store_of_the_same_machine_never_counts() {
    // the same history, with the same bytes except for the store's identity
    for (ours, theirs) in [
        (crate::stores::aged(2), crate::stores::aged_elsewhere(2)),
        (crate::stores::aged(2), crate::stores::aged_elsewhere(1)),
    ] {
        let mut sweep = Sweep::over(ours);
        for (name, bytes) in theirs.files.iter().filter(|(name, _)| !name.starts_with("spare")) {
            if name.starts_with("MANIFEST") {
                let mut after = sweep.store.files.clone();
                after.insert(name.clone(), bytes.clone());
                let disk = on_disk(&after);
                let counts = sweep.store.manifest(&after).unwrap().store != sweep.store.last().store;
                let opened = read_only(&disk);
                assert_eq!(opened.is_err(), counts, "{name}: {opened:?}");
                assert_eq!(verified(&disk).unwrap() == Soundness::Damaged, counts, "{name}");
                assert!(opened.is_err_and(|error| error.is_corrupt()) || !counts);
            } else if sweep.store.files.contains_key(name) {
                sweep.replace(name, bytes.clone(), Look::Close, &|| format!("{name} is of another store"));
            }
        }
        assert!(sweep.cases > 0);
    }
}

#[test]
fn without_any_manifest_the_segments_speak_for_themselves() {
    for store in crate::stores::all() {
        let mut after = store.files.clone();
        after.retain(|name, _| !name.starts_with("MANIFEST"));
        let damaged = store.files.iter().map(|(name, bytes)| {
            let garbage = if name.starts_with("MANIFEST") { vec![0xa5; 4096] } else { bytes.clone() };
            (name.clone(), garbage)
        });
        for files in [after, damaged.collect()] {
            let disk = on_disk(&files);
            assert_ne!(verified(&disk).unwrap(), Soundness::Damaged, "{}", store.name);
            let (engine, report) = open_on::<Stacks>(&disk, &options()).unwrap();
            assert_eq!(&state(&engine), store.whole(), "{}: {report:?}", store.name);
            assert!(!report.warnings.is_empty());
        }
    }
}

#[test]
fn a_read_error_in_recovery_is_that_and_never_the_end_of_the_log() {
    for store in crate::stores::all() {
        let disk = store.disk.crash(Crash::Nothing);
        disk.enable_trace();
        read_only(&disk).unwrap();
        let reads: Vec<u64> =
            (0u64..).zip(disk.trace()).filter(|(_, line)| line.contains("Read")).map(|(n, _)| n).collect();
        assert!(reads.len() > 3, "{:?}", disk.trace());
        for n in reads {
            let disk = store.disk.crash(Crash::Nothing);
            disk.fail_at(n, Fault::Eio, Persistence::Once);
            let answer = read_only(&disk);
            assert!(matches!(answer, Err(Error::Io { .. })), "{}: read {n}: {answer:?}", store.name);
            assert_eq!(&read_only(&disk).unwrap(), store.whole());
        }
    }
}
