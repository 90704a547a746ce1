use drover_bench::Latencies;

/// Upper bounds of the lines, in milliseconds.
const BOUNDS_MS: [u64; 10] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000];

/// How long requests took that overlap a move: a line for each bound, with writes and reads beside each other.
pub fn lines(writes: &Latencies, reads: &Latencies) -> Vec<String> {
    let mut lines = vec![format!("{:>14}{:>12}{:>12}", "took", "writes", "reads")];
    let counts = |latencies: &Latencies, from_us: u64, below_us: u64| match below_us {
        below if below <= from_us => 0,
        below => latencies.moving.count_between(from_us, below - 1),
    };
    let mut from = 0;
    for below in BOUNDS_MS {
        let (from_us, below_us) = (from * 1_000, below * 1_000);
        let (writes, reads) = (counts(writes, from_us, below_us), counts(reads, from_us, below_us));
        if writes + reads > 0 {
            lines.push(format!("{:>14}{writes:>12}{reads:>12}", format!("{from} - {below} ms")));
        }
        from = below;
    }
    let above = |latencies: &Latencies| latencies.moving.count_between(from * 1_000, u64::MAX);
    if above(writes) + above(reads) > 0 {
        lines.push(format!("{:>14}{:>12}{:>12}", format!("from {from} ms"), above(writes), above(reads)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_in_one_line_and_empty_lines_are_left_out() {
        let (mut writes, mut reads) = (Latencies::default(), Latencies::default());
        for (us, count) in [(10, 5), (999, 1), (1_000, 2), (3_000_000, 1)] {
            writes.moving.record_n(us, count).unwrap();
        }
        reads.moving.record_n(60_000, 4).unwrap();
        let lines = lines(&writes, &reads);
        let words: Vec<Vec<&str>> = lines[1..].iter().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            words,
            [
                vec!["0", "-", "1", "ms", "6", "0"],
                vec!["1", "-", "2", "ms", "2", "0"],
                vec!["50", "-", "100", "ms", "0", "4"],
                vec!["from", "1000", "ms", "1", "0"],
            ]
        );
    }
}
