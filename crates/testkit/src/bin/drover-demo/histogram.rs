use drover_bench::Latencies;

/// Upper bounds of the lines, in milliseconds.
const BOUNDS_MS: [u64; 10] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000];

/// How long requests took that overlap a move: a line for each bound, with writes and reads beside each other.
pub fn lines(writes: &Latencies, reads: &Latencies) -> Vec<String> {
    let line = |took: &str, writes: &str, reads: &str| format!("{took:>14}{writes:>12}{reads:>12}");
    let mut lines = vec![line("took", "writes", "reads")];
    let mut add = |took: String, [writes, reads]: [u64; 2]| {
        if writes + reads > 0 {
            lines.push(line(&took, &writes.to_string(), &reads.to_string()));
        }
    };
    let (mut from, mut counted) = (0, [0; 2]);
    for below in BOUNDS_MS {
        // Differences of what lies below, so that nothing counts twice where the histogram does not tell a bound apart.
        let all = [writes, reads].map(|latencies| latencies.moving.count_between(0, below * 1_000 - 1));
        add(format!("{from} - {below} ms"), [all[0] - counted[0], all[1] - counted[1]]);
        (from, counted) = (below, all);
    }
    let all = [writes, reads].map(|latencies| latencies.moving.len());
    add(format!("from {from} ms"), [all[0] - counted[0], all[1] - counted[1]]);
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
        // Not told apart from 50 ms.
        reads.moving.record(49_999).unwrap();
        let lines = lines(&writes, &reads);
        let words: Vec<Vec<&str>> = lines[1..].iter().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            words,
            [
                vec!["0", "-", "1", "ms", "6", "0"],
                vec!["1", "-", "2", "ms", "2", "0"],
                vec!["20", "-", "50", "ms", "0", "1"],
                vec!["50", "-", "100", "ms", "0", "4"],
                vec!["from", "1000", "ms", "1", "0"],
            ]
        );
    }
}
