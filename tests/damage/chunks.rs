//! Snapshots whose chunks are whole, but in an order that is not allowed.

use crate::common::{Stacks, files, open_on, state};
use crate::layout::{chunks_of, with_chunks};
use crate::stores::{Store, on_disk, options};
use seawal::Error;
use seawal::inspect::{self, Soundness};
use seawal::salvage::{Outcome, Reach, salvage};
use seawal::sim::SimDisk;
use std::sync::Arc;

type Chunk = (u8, Vec<u8>);

/// The store with changed chunks in its newest snapshot, or in both. Also returns the newest one's
/// name.
fn forged(store: &Store, both: bool, change: &dyn Fn(&[Chunk; 3]) -> Vec<Chunk>) -> (SimDisk, String) {
    let snapshots = store.manifest(&store.files).unwrap().snapshots;
    let names: Vec<String> = snapshots.iter().map(|lsn| format!("{lsn:016x}.snap")).collect();
    let mut files = store.files.clone();
    for name in names.iter().take(if both { 2 } else { 1 }) {
        let bytes = files.get_mut(name).unwrap();
        let chunks: [Chunk; 3] = chunks_of(bytes).try_into().unwrap();
        assert_eq!(chunks.each_ref().map(|(kind, _)| *kind), [4, 2, 3], "{name}");
        assert_eq!(with_chunks(bytes, &chunks), *bytes, "{name}: what is not changed is forged as it was");
        *bytes = with_chunks(bytes, &change(&chunks));
    }
    (on_disk(&files), names[0].clone())
}

/// A chunk cut in two. The second half has the kind `second`.
fn halves((kind, content): &Chunk, second: u8) -> [Chunk; 2] {
    let (first, rest) = content.split_at(content.len() / 2);
    [(*kind, first.to_vec()), (second, rest.to_vec())]
}

#[test]
fn a_snapshot_whose_chunks_are_out_of_their_order_is_damage_to_everyone() {
    type Case = (&'static str, &'static dyn Fn(&[Chunk; 3]) -> Vec<Chunk>);
    let cases: [Case; 8] = [
        ("transactions before the state", &|[s, t, e]| vec![t.clone(), s.clone(), e.clone()]),
        ("state behind the transactions", &|[s, t, e]| vec![s.clone(), t.clone(), (1, s.1.clone()), e.clone()]),
        ("a part behind the transactions", &|[s, t, e]| vec![s.clone(), t.clone(), s.clone(), e.clone()]),
        ("nothing behind the transactions, as state", &|[s, t, e]| vec![s.clone(), t.clone(), (1, vec![]), e.clone()]),
        ("state between transactions", &|[s, t, e]| {
            let [first, second] = halves(t, 2);
            vec![s.clone(), first, (1, vec![]), second, e.clone()]
        }),
        ("no transactions", &|[s, _, e]| vec![s.clone(), e.clone()]),
        ("an end behind the end", &|[s, t, e]| vec![s.clone(), t.clone(), e.clone(), e.clone()]),
        ("state behind the end", &|[s, t, e]| vec![s.clone(), t.clone(), e.clone(), (1, vec![])]),
    ];
    let store = crate::stores::recycled();
    for (what, change) in cases {
        let (disk, newest) = forged(&store, true, change);
        let is_that = |error: &Error| {
            let named = matches!(error, Error::Corrupt { path, .. } if path.ends_with(&newest));
            assert!(named, "{what}: {error:?}");
        };
        let before = files(&disk);
        is_that(&open_on::<Stacks>(&disk, &options()).map(|_| ()).unwrap_err());
        assert_eq!(inspect::verify(Arc::new(disk.clone())).unwrap().soundness(), Soundness::Damaged, "{what}");
        let mut text = Vec::new();
        inspect::write_text(Arc::new(disk.clone()), inspect::Detail::Frames, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.lines().any(|line| line.contains(&newest) && !line.contains("whole")), "{what}: {text}");
        let report = salvage::<Stacks>(Arc::new(disk.clone()), Arc::new(SimDisk::new(1)), Reach::Proven).unwrap();
        assert!(report.to_string().contains(&newest), "{what}: {report}");
        assert_eq!((report.base, report.outcome), (None, Outcome::Nothing), "{what}: {report}");
        let mut after = files(&disk);
        after.remove("LOCK");
        assert!(after == before, "{what}");

        // recovery falls back to the older snapshot
        let (disk, newest) = forged(&store, false, change);
        let (engine, report) = open_on::<Stacks>(&disk, &options()).unwrap();
        assert_eq!(&state(&engine), store.whole(), "{what}: {report:?}");
        assert!(report.warnings.iter().any(|warning| warning.contains(&newest)), "{what}: {report:?}");
    }
}

#[test]
fn chunks_in_their_order_are_read_however_they_are_cut() {
    let store = crate::stores::recycled();
    let (disk, _) = forged(&store, true, &|[s, t, e]| {
        let ([a, b], [c, d]) = (halves(s, 1), halves(t, 2));
        vec![a, b, c, (2, vec![]), d, e.clone()]
    });
    // only the length differs from that in the manifest
    assert_eq!(inspect::verify(Arc::new(disk.clone())).unwrap().soundness(), Soundness::Degraded);
    let (engine, report) = open_on::<Stacks>(&disk, &options()).unwrap();
    assert_eq!(&state(&engine), store.whole(), "{report:?}");
    assert!(report.snapshot.is_some() && report.undone == 2 && report.warnings.is_empty(), "{report:?}");
}
