use drover_guards::{self as guards, Guard};
use drover_hlc::{PhysicalMs, Timestamp};

/// Why no timestamp can be issued right now. Nothing was issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CoreError {
    /// The ceiling is used up; a higher one has to be committed first.
    #[error("all timestamps up to the ceiling are issued")]
    CeilingReached,
    /// More than can be issued at once.
    #[error("{count} timestamps at once are more than the {max} allowed")]
    TooMany { count: u32, max: u32 },
}

/// The decisions of the oracle during one leadership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OracleCore {
    /// Highest timestamp that is or may have been issued.
    last: Timestamp,
    /// Physical halves at or below this may be issued; zero until a ceiling of this term is applied.
    ceiling: PhysicalMs,
}

impl OracleCore {
    /// Most timestamps in one answer.
    pub const MAX_COUNT: u32 = 1 << 16;

    /// The state of a new leader that found `previous` as the last ceiling in the replicated state: everything up to
    /// it may have been issued.
    pub fn new(previous: PhysicalMs) -> Self {
        let issued = if guards::on(Guard::AboveFormerOracle) { previous } else { PhysicalMs::default() };
        Self { last: Timestamp::new(issued, u16::MAX), ceiling: PhysicalMs::default() }
    }

    /// Takes note of a ceiling that is applied in this leader's term.
    pub fn raise_ceiling(&mut self, ceiling: PhysicalMs) {
        self.ceiling = self.ceiling.max(ceiling);
    }

    /// The ceiling to commit next, when the wall clock stands at `now`: `ahead_ms` ahead of it, above the present one,
    /// and at most `max_step_ms` above everything issued so far. The flag tells that the step was cut short.
    pub fn next_ceiling(&self, now: PhysicalMs, ahead_ms: u64, max_step_ms: u64) -> (PhysicalMs, bool) {
        let issued = self.last.physical();
        let base = issued.max(self.ceiling);
        let wanted = now.max(issued).saturating_add_ms(ahead_ms);
        // The first ceiling in the life of a cluster starts from nothing.
        let bound = match base.unix_ms() {
            0 => PhysicalMs::MAX,
            _ => base.saturating_add_ms(max_step_ms.max(ahead_ms)),
        };
        (wanted.min(bound).max(base.saturating_add_ms(1)), wanted > bound)
    }

    /// Whether less than half of `ahead_ms` is left below the ceiling.
    pub fn wants_ceiling(&self, now: PhysicalMs, ahead_ms: u64) -> bool {
        now.max(self.last.physical()).saturating_add_ms(ahead_ms / 2) > self.ceiling
    }

    /// `count` consecutive timestamps above all issued so far, given by the lowest.
    ///
    /// # Errors
    /// If they do not fit below the ceiling.
    pub fn issue(&mut self, now: PhysicalMs, count: u32) -> Result<Timestamp, CoreError> {
        if count == 0 || count > Self::MAX_COUNT {
            return Err(CoreError::TooMany { count, max: Self::MAX_COUNT });
        }
        let above_last = self.last.next().ok_or(CoreError::CeilingReached)?;
        // A clock beyond the ceiling is held at the ceiling until a higher one is committed.
        let held = Timestamp::new(now.min(self.ceiling), 0);
        let first = if guards::on(Guard::AboveLast) { above_last.max(held) } else { held };
        let last = first.checked_add(u64::from(count) - 1).ok_or(CoreError::CeilingReached)?;
        if last.physical() > self.ceiling && guards::on(Guard::BelowCeiling) {
            return Err(CoreError::CeilingReached);
        }
        self.last = last;
        Ok(first)
    }

    /// Highest timestamp that is or may have been issued.
    pub fn last(&self) -> Timestamp {
        self.last
    }

    /// The ceiling that is in force.
    pub fn ceiling(&self) -> PhysicalMs {
        self.ceiling
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AHEAD_MS: u64 = 3_000;
    const STEP_MS: u64 = 60_000;

    fn ms(n: u64) -> PhysicalMs {
        PhysicalMs::new(n).unwrap()
    }

    #[test]
    fn nothing_is_issued_before_a_ceiling_of_this_term() {
        let mut core = OracleCore::new(ms(1_000));
        assert_eq!(core.issue(ms(5_000), 1), Err(CoreError::CeilingReached));
        core.raise_ceiling(ms(8_000));
        assert_eq!(core.issue(ms(5_000), 1), Ok(Timestamp::new(ms(5_000), 0)));
    }

    #[test]
    fn a_new_leader_starts_above_the_ceiling_it_found_even_if_its_clock_is_behind() {
        let mut core = OracleCore::new(ms(9_000));
        let (ceiling, cut) = core.next_ceiling(ms(2_000), AHEAD_MS, STEP_MS);
        assert!(ceiling > ms(9_000) && !cut);
        core.raise_ceiling(ceiling);
        assert_eq!(core.issue(ms(2_000), 3), Ok(Timestamp::new(ms(9_001), 0)));
        assert_eq!(core.issue(ms(2_000), 1), Ok(Timestamp::new(ms(9_001), 3)));
    }

    #[test]
    fn a_clock_that_jumps_ahead_moves_the_ceiling_by_one_step() {
        let mut core = OracleCore::new(ms(1_000));
        core.raise_ceiling(ms(4_000));
        let (ceiling, cut) = core.next_ceiling(ms(10_000_000), AHEAD_MS, STEP_MS);
        assert_eq!((ceiling, cut), (ms(64_000), true));
        assert_eq!(core.issue(ms(10_000_000), 1).unwrap().physical(), ms(4_000), "held at the ceiling");
    }

    #[test]
    fn the_first_ceiling_of_a_cluster_is_not_bounded_by_a_step() {
        let now = ms(1_700_000_000_000);
        assert_eq!(
            OracleCore::new(ms(0)).next_ceiling(now, AHEAD_MS, STEP_MS),
            (now.saturating_add_ms(AHEAD_MS), false)
        );
    }

    #[test]
    fn counts_outside_the_limit_are_refused() {
        let mut core = OracleCore::new(ms(1));
        core.raise_ceiling(ms(1_000_000));
        for count in [0, OracleCore::MAX_COUNT + 1] {
            assert!(matches!(core.issue(ms(5), count), Err(CoreError::TooMany { .. })));
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Clock(u64),
        Issue(u32),
        Renew,
        /// The leader is lost with all it had in memory; a ceiling it proposed may or may not have been committed.
        NewLeader {
            proposal_survives: bool,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            prop_oneof![0u64..20_000, Just(50_000_000)].prop_map(Step::Clock),
            (1u32..70_000).prop_map(Step::Issue),
            Just(Step::Renew),
            any::<bool>().prop_map(|proposal_survives| Step::NewLeader { proposal_survives }),
        ]
    }

    proptest! {
        #[test]
        fn timestamps_rise_over_leaders_and_clock_jumps_and_stay_below_a_committed_ceiling(
            steps in proptest::collection::vec(step(), 1..200),
        ) {
            let mut now = ms(10_000);
            let mut committed = ms(0);
            let mut core = OracleCore::new(committed);
            let mut highest = Timestamp::ZERO;
            for step in steps {
                match step {
                    Step::Clock(at) => now = ms(at),
                    Step::Renew => {
                        let (ceiling, _) = core.next_ceiling(now, AHEAD_MS, STEP_MS);
                        prop_assert!(ceiling > committed);
                        committed = ceiling;
                        core.raise_ceiling(ceiling);
                    }
                    Step::Issue(count) => {
                        if let Ok(first) = core.issue(now, count) {
                            let last = first.checked_add(u64::from(count) - 1).unwrap();
                            prop_assert!(first > highest);
                            prop_assert!(last.physical() <= committed);
                            highest = last;
                        }
                    }
                    Step::NewLeader { proposal_survives } => {
                        if proposal_survives {
                            committed = core.next_ceiling(now, AHEAD_MS, STEP_MS).0;
                        }
                        core = OracleCore::new(committed);
                    }
                }
            }
        }
    }
}
