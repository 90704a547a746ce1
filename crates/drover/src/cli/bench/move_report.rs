use std::time::{Duration, UNIX_EPOCH};

use drover_bench::{Flaws, Latencies, Moved, Seen, at_rank};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::moves::MEGABYTE;
use crate::cli::output::Output;

/// What loading the range came to.
#[derive(Debug, Clone, Copy)]
pub struct Loaded {
    /// Bytes of values.
    pub bytes: u64,
    pub took: Duration,
}

/// What `drover bench move` found.
#[derive(Debug)]
pub struct MoveReport {
    pub loaded: Loaded,
    /// How long was measured without a move, in seconds.
    pub baseline_s: u64,
    pub moves: Vec<Moved>,
    pub seen: Seen,
    /// What reading everything back found.
    pub flaws: Flaws,
    /// How many rows were read back.
    pub rows: u64,
}

fn megabytes_per_second(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / MEGABYTE as f64 / took.as_secs_f64()
}

fn ms(us: u64) -> String {
    format!("{:.2}", us as f64 / 1_000.0)
}

/// Shown for what there is none of.
const NONE: &str = "-";

impl MoveReport {
    /// Whether no client saw an error and every acknowledged write is there.
    pub fn is_good(&self) -> bool {
        self.seen.errors == 0 && self.seen.flaws.is_empty() && self.flaws.is_empty()
    }

    /// What is wrong, for people.
    pub fn complaints(&self) -> impl Iterator<Item = String> {
        let errors = self.seen.errors;
        let first = self.seen.first_error.as_ref().map(|first| format!("{errors} requests failed; the first: {first}"));
        let met = self.seen.flaws.described.iter().map(|flaw| format!("a reader found that {flaw}"));
        first.into_iter().chain(met).chain(self.flaws.described.iter().cloned())
    }

    /// Bytes that a move copied: each row at least once, and as many as were heard of.
    fn copied(&self, moved: &Moved) -> u64 {
        moved.bytes.max(self.loaded.bytes)
    }

    fn copy_rate(&self, moved: &Moved) -> f64 {
        megabytes_per_second(self.copied(moved), moved.backfill)
    }

    /// The rate of the copy in the middle one of the moves.
    fn middle_copy_rate(&self) -> Option<f64> {
        let mut rates: Vec<f64> = self.moves.iter().map(|moved| self.copy_rate(moved)).collect();
        rates.sort_unstable_by(f64::total_cmp);
        rates.get(rates.len().saturating_sub(1) / 2).copied()
    }

    fn load_rate(&self) -> f64 {
        megabytes_per_second(self.loaded.bytes, self.loaded.took)
    }

    fn took_ms(&self) -> Vec<u64> {
        let mut took: Vec<u64> = self.moves.iter().map(|moved| millis(moved.took)).collect();
        took.sort_unstable();
        took
    }

    fn kinds(&self) -> [(&'static str, &Latencies); 2] {
        [("write", &self.seen.writes), ("read", &self.seen.reads)]
    }

    /// How often each of the two was done in a second before the moves, and while one was under way.
    fn per_second(&self, latencies: &Latencies) -> [f64; 2] {
        let moving: f64 = self.moves.iter().map(|moved| moved.took.as_secs_f64()).sum();
        let rate = |count: u64, seconds: f64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        [rate(latencies.baseline.len(), self.baseline_s as f64), rate(latencies.moving.len(), moving)]
    }

    pub fn print(&self, as_json: bool, asked: &Value, output: &mut Output) -> std::io::Result<()> {
        if as_json { output.json(&self.json(asked)) } else { self.table(output) }
    }

    fn table(&self, output: &mut Output) -> std::io::Result<()> {
        let mb = |bytes: u64| format!("{:.1}", bytes as f64 / MEGABYTE as f64);
        let took = self.loaded.took.as_secs_f64();
        output.line(&format!(
            "loaded {} MB in {took:.1} s, {:.1} MB a second\n",
            mb(self.loaded.bytes),
            self.load_rate()
        ))?;
        let pause = |latencies: &Latencies, n| latencies.pause_us(n).map_or(NONE.to_owned(), ms);
        let moves = self.moves.iter().enumerate().map(|(n, moved)| {
            vec![
                (n + 1).to_string(),
                moved.source.to_string(),
                moved.target.to_string(),
                millis(moved.took).to_string(),
                mb(self.copied(moved)),
                format!("{:.1}", self.copy_rate(moved)),
                pause(&self.seen.writes, n),
                pause(&self.seen.reads, n),
            ]
        });
        let head = ["move", "from", "to", "took ms", "copied MB", "MB a second", "write pause ms", "read pause ms"];
        output.table(&head, moves.collect())?;
        output.line("")?;
        self.table_of_pauses(output)?;
        output.line("")?;
        self.table_of_latencies(output)?;
        output.line("")?;
        if let Some(rate) = self.middle_copy_rate() {
            let ratio = rate / self.load_rate();
            output.line(&format!("copied {rate:.1} MB a second, {ratio:.2} times what loading reached"))?;
        }
        output.line(&format!(
            "{} acknowledged writes, {} rows read back: {} missing, {} wrong; {} errors",
            self.seen.acknowledged,
            self.rows,
            self.flaws.missing + self.seen.flaws.missing,
            self.flaws.wrong + self.seen.flaws.wrong,
            self.seen.errors
        ))
    }

    fn table_of_pauses(&self, output: &mut Output) -> std::io::Result<()> {
        let rows = self.kinds().map(|(kind, latencies)| {
            let pauses = latencies.pauses_us();
            let at = |share| at_rank(&pauses, share).map_or(NONE.to_owned(), ms);
            vec![kind.to_owned(), pauses.len().to_string(), at(0.5), at(0.99), at(1.0)]
        });
        output.table(&["pause", "moves", "p50 ms", "p99 ms", "max ms"], rows.into())
    }

    fn table_of_latencies(&self, output: &mut Output) -> std::io::Result<()> {
        let line = |kind: &str, when: &str, latencies: &Histogram<u64>, per_second: f64| {
            let at = |quantile| ms(latencies.value_at_quantile(quantile));
            let (count, per_second) = (latencies.len().to_string(), format!("{per_second:.0}"));
            vec![kind.to_owned(), when.to_owned(), count, per_second, at(0.5), at(0.99), at(0.999), at(1.0)]
        };
        let rows = self.kinds().into_iter().flat_map(|(kind, latencies)| {
            let [before, during] = self.per_second(latencies);
            [line(kind, "before", &latencies.baseline, before), line(kind, "during", &latencies.moving, during)]
        });
        let head = ["request", "when", "count", "per second", "p50 ms", "p99 ms", "p99.9 ms", "max ms"];
        output.table(&head, rows.collect())
    }

    /// One object without nesting but for the single moves: every figure has a name of its own.
    fn json(&self, asked: &Value) -> Value {
        let mut object = asked.as_object().cloned().unwrap_or_default();
        let mut add = |name: &str, value: Value| object.insert(name.to_owned(), value);
        let each: Vec<Value> = self.moves.iter().enumerate().map(|(n, moved)| self.json_move(n, moved)).collect();
        add("each", each.into());
        add("rows", self.rows.into());
        add("load_bytes", self.loaded.bytes.into());
        add("load_ms", millis(self.loaded.took).into());
        add("load_mb_per_second", self.load_rate().into());
        add("copy_mb_per_second", self.middle_copy_rate().into());
        add("copy_to_load", self.middle_copy_rate().map(|rate| rate / self.load_rate()).into());
        let took = self.took_ms();
        add("moves", took.len().into());
        add("total_p50_ms", at_rank(&took, 0.5).into());
        add("total_max_ms", at_rank(&took, 1.0).into());
        for (kind, latencies) in self.kinds() {
            let pauses = latencies.pauses_us();
            for (name, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
                add(&format!("{kind}_pause_{name}_us"), at_rank(&pauses, share).into());
            }
            let per_second = self.per_second(latencies);
            let phases = [("before", &latencies.baseline), ("during", &latencies.moving)];
            for ((when, latencies), per_second) in phases.into_iter().zip(per_second) {
                add(&format!("{kind}_{when}_count"), latencies.len().into());
                add(&format!("{kind}_{when}_per_second"), per_second.into());
                for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
                    add(&format!("{kind}_{when}_{name}_us"), latencies.value_at_quantile(quantile).into());
                }
            }
            let p99 = |latencies: &Histogram<u64>| latencies.value_at_quantile(0.99) as f64;
            let ratio = (!latencies.baseline.is_empty()).then(|| p99(&latencies.moving) / p99(&latencies.baseline));
            add(&format!("{kind}_p99_during_to_before"), ratio.into());
        }
        add("acknowledged", self.seen.acknowledged.into());
        add("missing", (self.flaws.missing + self.seen.flaws.missing).into());
        add("wrong", (self.flaws.wrong + self.seen.flaws.wrong).into());
        add("errors", self.seen.errors.into());
        add("first_error", self.seen.first_error.clone().into());
        Value::Object(object)
    }

    fn json_move(&self, n: usize, moved: &Moved) -> Value {
        let began = moved.began.duration_since(UNIX_EPOCH).unwrap_or_default();
        json!({
            "job": moved.job.0,
            "source": moved.source.0,
            "target": moved.target.0,
            "began_unix_ms": millis(began),
            "took_ms": millis(moved.took),
            "backfill_ms": millis(moved.backfill),
            "bytes_copied": self.copied(moved),
            "fences": moved.fences,
            "write_longest_us": self.seen.writes.pause_us(n),
            "read_longest_us": self.seen.reads.pause_us(n),
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use drover_client::{GroupId, JobId};

    use super::*;
    use crate::cli::output::tests::Captured;

    fn report() -> MoveReport {
        let moved = |n, bytes, ms| Moved {
            job: JobId(n),
            source: GroupId(2),
            target: GroupId(3),
            began: SystemTime::UNIX_EPOCH,
            took: Duration::from_millis(ms + 50),
            backfill: Duration::from_millis(ms),
            bytes,
            fences: 1,
        };
        MoveReport {
            loaded: Loaded { bytes: 10 * MEGABYTE, took: Duration::from_millis(200) },
            baseline_s: 10,
            // Of the first move nothing was heard of its last bytes.
            moves: vec![moved(1, 9 * MEGABYTE, 400), moved(2, 12 * MEGABYTE, 100), moved(3, 12 * MEGABYTE, 200)],
            seen: Seen { acknowledged: 7, ..Seen::default() },
            flaws: Flaws::default(),
            rows: 100,
        }
    }

    #[test]
    fn the_rate_of_the_copy_is_that_of_the_middle_move_and_each_row_counts() {
        let report = report();
        assert_eq!(report.middle_copy_rate(), Some(60.0));
        assert_eq!(report.copy_rate(&report.moves[0]), 25.0);
        let json = report.json(&json!({ "megabytes": 10 }));
        assert_eq!((&json["megabytes"], &json["copy_to_load"]), (&10.into(), &json!(1.2)));
        assert_eq!((&json["each"][0]["bytes_copied"], &json["total_p50_ms"]), (&10_000_000.into(), &250.into()));
        assert_eq!((&json["write_pause_p99_us"], &json["write_p99_during_to_before"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn an_error_or_a_missing_write_is_no_good_result() {
        let good = report();
        assert!(good.is_good() && good.complaints().next().is_none());
        let mut failed = report();
        (failed.seen.errors, failed.seen.first_error) = (2, Some("a write: too late".to_owned()));
        assert!(!failed.is_good());
        assert_eq!(failed.complaints().collect::<Vec<_>>(), ["2 requests failed; the first: a write: too late"]);
        let mut lost = report();
        lost.flaws = Flaws { missing: 1, wrong: 0, described: vec!["k has no value".to_owned()] };
        assert!(!lost.is_good());
        let mut stale = report();
        stale.seen.flaws = lost.flaws.clone();
        assert!(!stale.is_good());
        assert_eq!(stale.complaints().collect::<Vec<_>>(), ["a reader found that k has no value"]);
    }

    #[test]
    fn people_get_tables_and_dashes_for_what_nobody_saw() {
        let captured = Captured::default();
        let mut output = Output::to(captured.clone());
        report().print(false, &Value::Null, &mut output).unwrap();
        output.flush().unwrap();
        let text = captured.text();
        assert!(text.starts_with("loaded 10.0 MB in 0.2 s, 50.0 MB a second\n"), "{text}");
        assert!(text.contains("1     2     3   450      10.0       25.0         -               -"), "{text}");
        assert!(text.contains("copied 60.0 MB a second, 1.20 times what loading reached"), "{text}");
        assert!(text.ends_with("7 acknowledged writes, 100 rows read back: 0 missing, 0 wrong; 0 errors\n"), "{text}");
    }
}
