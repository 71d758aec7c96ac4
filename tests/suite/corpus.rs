//! Replays the fuzzing corpus: `tests/fuzz` contains the properties and the inputs.

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

/// Inputs must be minimised before they are added.
const LARGEST: usize = 4096;
const MOST: usize = 200;

#[test]
fn each_challenge_of_the_corpus_is_read_or_refused() {
    replay("challenge", fuzz::challenge::run);
}

#[test]
fn each_configuration_of_the_corpus_keeps_its_promises() {
    replay("config", fuzz::config::run);
}

#[test]
fn each_request_of_the_corpus_has_one_reading_or_none() {
    replay("head", fuzz::head::run);
}

#[test]
fn each_offer_of_the_corpus_can_be_paid_or_is_refused() {
    replay("offer", fuzz::offer::run);
}

fn replay(target: &str, run: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!((10..=MOST).contains(&files.len()), "{} inputs", files.len());
    for file in files {
        let input = fs::read(&file).unwrap();
        assert!(input.len() < LARGEST, "{} is too large", file.display());
        assert!(catch_unwind(|| run(&input)).is_ok(), "{} does not hold", file.display());
    }
}
