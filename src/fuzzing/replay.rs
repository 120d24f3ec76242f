//! The corpora of `fuzz/corpus`, replayed.

use std::path::Path;

type Target = fn(&[u8]);

const TARGETS: &[(&str, Target)] = &[
    ("frame", super::frame),
    ("record", super::record),
    ("manifest", super::manifest),
    ("scan", super::scan),
    ("snapshot", super::snapshot),
    ("store", super::store),
    ("history", super::history),
    #[cfg(feature = "cli")]
    ("script", super::script),
];

/// What one corpus, and all of them, may take.
const MOST_FILES: usize = 60;
const MOST_BYTES: u64 = 150 << 10;

fn corpus(target: &str) -> Option<Vec<(String, Vec<u8>)>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs: Vec<_> = std::fs::read_dir(dir)
        .ok()?
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.display().to_string(), std::fs::read(path).unwrap())
        })
        .collect();
    inputs.sort();
    Some(inputs)
}

#[test]
fn every_input_of_the_corpora_holds_what_its_target_asserts() {
    for (name, target) in TARGETS {
        let Some(inputs) = corpus(name) else {
            // a published crate comes without them
            assert!(!Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").exists(), "no corpus for {name}");
            continue;
        };
        for (path, input) in inputs {
            if std::panic::catch_unwind(|| target(&input)).is_err() {
                panic!("the input {path} fails its target");
            }
        }
    }
}

#[test]
fn the_corpora_stay_small() {
    let mut total = 0;
    for (name, _) in TARGETS {
        let Some(inputs) = corpus(name) else { continue };
        assert!(inputs.len() <= MOST_FILES, "{} inputs for {name}", inputs.len());
        total += inputs.iter().map(|(_, input)| input.len() as u64).sum::<u64>();
    }
    assert!(total <= MOST_BYTES, "{total} bytes of inputs");
}
