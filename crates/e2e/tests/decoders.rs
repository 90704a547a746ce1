//! Every decoder on its seeds, on everything that a flipped bit or a cut makes of them, and on random bytes.

use std::path::Path;

use drover_e2e::decoders::ALL;
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
fn every_decoder_has_a_fuzz_target_and_every_target_a_decoder() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
    let mut targets: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    targets.sort();
    let mut decoders: Vec<&str> = ALL.iter().map(|decoder| decoder.name).collect();
    decoders.sort_unstable();
    assert_eq!(targets, decoders);
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
