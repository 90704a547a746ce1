//! Every decoder on its seeds, on everything that a flipped bit or a cut makes of them, and on random bytes.

use std::path::Path;

use drover_e2e::decoders::{ALL, named};
use proptest::prelude::*;

#[test]
fn every_decoder_accepts_its_seeds_and_survives_each_cut_and_each_flipped_bit_of_them() {
    for decoder in ALL {
        let seeds = (decoder.seeds)();
        assert!(!seeds.is_empty(), "{} has no seeds", decoder.name);
        for seed in seeds {
            assert!((decoder.run)(&seed), "{} refuses its seed {seed:?}", decoder.name);
            for cut in 0..seed.len() {
                (decoder.run)(&seed[..cut]);
                for bit in 0..8 {
                    let mut bytes = seed.clone();
                    bytes[cut] ^= 1 << bit;
                    (decoder.run)(&bytes);
                }
            }
        }
    }
}

#[test]
fn no_input_that_a_fuzzer_found_breaks_its_decoder_again() {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/found");
    let mut inputs = 0;
    for folder in std::fs::read_dir(found).unwrap() {
        let folder = folder.unwrap();
        let decoder = named(folder.file_name().to_str().unwrap());
        for input in std::fs::read_dir(folder.path()).unwrap() {
            (decoder.run)(&std::fs::read(input.unwrap().path()).unwrap());
            inputs += 1;
        }
    }
    assert!(inputs > 0);
}

#[test]
fn every_decoder_has_a_fuzz_target_and_every_target_a_decoder() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let mut files: Vec<String> = std::fs::read_dir(fuzz.join("fuzz_targets"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    let manifest: toml::Table = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap().parse().unwrap();
    let mut built: Vec<&str> =
        manifest["bin"].as_array().unwrap().iter().map(|target| target["name"].as_str().unwrap()).collect();
    built.sort_unstable();
    let mut decoders: Vec<&str> = ALL.iter().map(|decoder| decoder.name).collect();
    decoders.sort_unstable();
    assert_eq!(files, decoders);
    assert_eq!(built, decoders);
}

#[test]
fn the_documentation_says_of_every_decoder_what_it_covers() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/fuzzing.md");
    let text = std::fs::read_to_string(docs).unwrap();
    let covered = text.split("\n## ").find(|section| section.starts_with("What is covered\n")).unwrap();
    for decoder in ALL {
        assert!(covered.contains(&format!("`{}`", decoder.name)), "{} is not in docs/fuzzing.md", decoder.name);
    }
}

/// A seed with several places overwritten, doubled or removed.
fn mutated() -> impl Strategy<Value = (usize, Vec<u8>)> {
    let edits = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..12);
    (0..ALL.len(), any::<prop::sample::Index>(), edits).prop_map(|(decoder, seed, edits)| {
        let seeds = (ALL[decoder].seeds)();
        let mut bytes = seed.get(&seeds).clone();
        for (place, byte, kind) in edits {
            if bytes.is_empty() {
                bytes.push(byte);
                continue;
            }
            let at = place.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                _ => bytes.extend_from_within(at..),
            }
            bytes.truncate(4096);
        }
        (decoder, bytes)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn no_mutation_of_a_seed_breaks_its_decoder((decoder, bytes) in mutated()) {
        (ALL[decoder].run)(&bytes);
    }

    #[test]
    fn no_random_bytes_break_any_decoder(bytes: Vec<u8>) {
        for decoder in ALL {
            (decoder.run)(&bytes);
        }
    }
}
