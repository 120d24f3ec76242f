//! Replays the corpora as ordinary tests.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails the test")]

use std::path::Path;

type Target = fn(&[u8]);

const TARGETS: &[(&str, Target)] = &[
    ("frame", seawal_fuzz::frame),
    ("record", seawal_fuzz::record),
    ("manifest", seawal_fuzz::manifest),
    ("scan", seawal_fuzz::scan),
    ("snapshot", seawal_fuzz::snapshot),
    ("store", seawal_fuzz::store),
    ("history", seawal_fuzz::history),
    ("script", seawal_fuzz::script),
];

/// The limits of one corpus in files, and of all corpora in bytes.
const MAX_FILES: usize = 60;
const MAX_BYTES: u64 = 150 << 10;

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut inputs: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.display().to_string(), std::fs::read(path).unwrap())
        })
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "the corpus of {target} is empty");
    inputs
}

#[test]
fn every_input_of_the_corpora_holds_what_its_target_asserts() {
    for (name, target) in TARGETS {
        for (path, input) in corpus(name) {
            if std::panic::catch_unwind(|| target(&input)).is_err() {
                panic!("the input {path} fails its target");
            }
        }
    }
}

/// A little of what a fuzzer does: histories of the corpus, cut, joined and changed.
/// `SEAWAL_LONG=10` tries ten times as many.
#[test]
fn histories_made_of_those_in_the_corpus_keep_to_the_model() {
    let inputs = corpus("history");
    let long = std::env::var("SEAWAL_LONG").ok().and_then(|times| times.parse::<u64>().ok());
    let mut state = 7u64;
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit.max(1)
    };
    for _ in 0..400 * long.unwrap_or(1).max(1) {
        let (_, first) = &inputs[below(inputs.len())];
        let (_, second) = &inputs[below(inputs.len())];
        let mut input = [&first[..below(first.len())], &second[below(second.len())..]].concat();
        for _ in 0..below(6) {
            let at = below(input.len());
            if let Some(byte) = input.get_mut(at) {
                *byte = below(256) as u8;
            }
        }
        if std::panic::catch_unwind(|| seawal_fuzz::history(&input)).is_err() {
            panic!("this history fails: {input:?}");
        }
    }
}

#[test]
fn the_corpora_stay_small() {
    let mut total = 0;
    for (name, _) in TARGETS {
        let inputs = corpus(name);
        assert!(inputs.len() <= MAX_FILES, "{} inputs for {name}", inputs.len());
        total += inputs.iter().map(|(_, input)| input.len() as u64).sum::<u64>();
    }
    assert!(total <= MAX_BYTES, "{total} bytes of inputs");
}
