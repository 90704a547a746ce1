/// A test that fails when a guard is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Witness {
    /// The test binary: `package::target`, or the package alone for the tests inside its library.
    pub binary: &'static str,
    /// Its full name, as the test binary lists it.
    pub test: &'static str,
}

macro_rules! guards {
    ($($(#[doc = $doc:literal])+ $name:ident: $($binary:literal $test:literal),+;)+) => {
        /// The safety guards. The text says what goes wrong without the guard, the label is that of the hazard in
        /// `docs/hazards.md`; below it stand the tests that fail without the guard.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Guard {
            $(
                $(#[doc = $doc])+
                $(#[doc = concat!("\n- `", $test, "` in `", $binary, "`")])+
                $name,
            )+
        }

        impl Guard {
            /// All of them.
            pub const ALL: &[Guard] = &[$(Guard::$name),+];

            /// What the environment variable calls it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Guard::$name => stringify!($name),)+
                }
            }

            /// The tests that fail when it is out.
            pub const fn witnesses(self) -> &'static [Witness] {
                match self {
                    $(Guard::$name => &[$(Witness { binary: $binary, test: $test }),+],)+
                }
            }

            /// The guard of that name.
            pub fn by_name(name: &str) -> Option<Guard> {
                Guard::ALL.iter().copied().find(|guard| guard.name() == name)
            }
        }
    };
}

guards! {
    // Gates of apply, and of reads.

    /// H2: a group would serve and change keys that it does not own.
    OwnerGate:
        "drover-fsm::apply" "the_first_gate_that_objects_answers",
        "drover-fsm::reads" "h2_every_read_is_judged_by_owner_and_route_version_on_all_it_touches",
        "drover-model::move_model" "a_move_under_writers_readers_and_a_transaction_keeps_every_promise",
        "drover-model::move_model" "scans_and_writes_over_the_bound_of_the_range_keep_every_promise";
    /// H6: a request that was routed by an older map, under which another group owned the key, would slip past.
    ComposedGate:
        "drover-fsm::apply" "a_request_routed_by_a_map_from_before_the_ownership_is_stale",
        "drover-fsm::moving" "h27_a_range_moves_away_and_back_and_late_steps_of_the_first_move_do_nothing",
        "drover-fsm::reads" "a_read_routed_by_a_map_from_before_the_ownership_is_stale",
        "drover-model::move_model" "a_move_away_and_back_keeps_every_promise";
    /// H6: so would one that does not say by which map it was routed.
    AbsentVersion:
        "drover-fsm::apply" "the_first_gate_that_objects_answers",
        "drover-fsm::reads" "h2_every_read_is_judged_by_owner_and_route_version_on_all_it_touches",
        "drover-raftgroup::reads_and_writes" "h6_a_request_that_was_routed_by_no_map_is_refused",
        "drover-model::move_model" "a_move_under_writers_readers_and_a_transaction_keeps_every_promise";
    /// H21: a range delete would be judged by the key at which it begins, and reach into a range that moves.
    WholeFootprint:
        "drover-fsm::moving" "h21_a_range_delete_is_judged_by_all_that_it_reaches_into";
    /// H44: a write that is sent again would be applied again.
    IdempotencyGate:
        "drover-fsm::apply" "a_retry_gets_the_first_answer_and_changes_nothing",
        "drover-raftgroup::reads_and_writes" "h44_a_retry_gets_the_first_answer_also_after_a_restart_and_a_settled_key_never_applies";
    /// H20: a retry whose first attempt has an outcome here would be refused for its route.
    AnswersBeforeRouting:
        "drover-fsm::apply" "the_first_gate_that_objects_answers";
    /// H3: a commit could land at or below what was served before the range came here.
    FloorOfOwnership:
        "drover-fsm::apply" "h3_a_write_at_or_below_the_floor_of_the_ownership_is_refused",
        "drover-model::move_model" "a_move_under_writers_readers_and_a_transaction_keeps_every_promise";
    /// H38: a commit could land where snapshots are refused and versions are collected.
    FloorOfSafePoint:
        "drover-fsm::apply" "a_write_under_the_safe_point_is_refused";
    /// H39: a commit could land below a compare that should have seen it.
    FloorOfReads:
        "drover-fsm::apply" "a_compare_raises_the_read_floor_of_the_whole_group_even_if_it_fails",
        "drover-fsm::apply" "a_range_delete_is_judged_on_all_of_its_interval";
    /// H8: a commit could land below a newer version of its key, and never be seen.
    FloorOfNewestVersion:
        "drover-fsm::apply" "h8_a_blind_write_below_younger_versions_of_other_keys_is_judged_by_its_own_key";
    /// H8: the newest version would not be looked up where it can be in the way.
    MaxCommitTs:
        "drover-fsm::apply" "h8_a_blind_write_below_younger_versions_of_other_keys_is_judged_by_its_own_key";
    /// H48: what was decided would not become a version, because something younger was served since it was locked.
    SettlingIsExempt:
        "drover-fsm::txn" "h48_a_lock_becomes_a_version_below_every_floor";
    /// H40: writes and reads would pass over the lock of a transaction that may have committed.
    LockGate:
        "drover-fsm::apply" "a_lock_blocks_every_write_to_its_key_and_range_deletes_over_it",
        "drover-fsm" "read::tests::h40_a_lock_blocks_every_read_that_could_see_what_becomes_of_it",
        "drover-coordinator::locks" "a_refresh_waits_for_the_lock_of_a_later_transaction_and_sees_what_it_commits",
        "drover-model::move_model" "a_move_under_writers_readers_and_a_transaction_keeps_every_promise";
    /// H39: a compare-and-set would write whatever the value is.
    CompareGate:
        "drover-fsm::apply" "the_first_gate_that_objects_answers";
    /// H39: a write could come below a compare that failed, and make its answer wrong.
    FailedCompareIsRead:
        "drover-fsm::apply" "a_compare_raises_the_read_floor_of_the_whole_group_even_if_it_fails";
    /// H44: a write that was settled as never applied would be applied when its late proposal arrives.
    SettlePoisons:
        "drover-fsm::apply" "a_late_proposal_after_a_settle_never_applies",
        "drover-raftgroup::reads_and_writes" "h44_a_retry_gets_the_first_answer_also_after_a_restart_and_a_settled_key_never_applies";
    /// H44: a write would be applied after the time until which its outcome is remembered.
    NotAfter:
        "drover-fsm::apply" "a_refusal_before_the_conditions_is_no_outcome";
    /// H42: a write whose record was removed would be applied a second time.
    ForgottenRecords:
        "drover-fsm::apply" "records_go_only_at_or_below_the_horizon_and_what_they_answered_is_refused_then";
    /// H42: records would be removed while a retry may still ask for them.
    RecordsKept:
        "drover-fsm::apply" "records_go_only_at_or_below_the_horizon_and_what_they_answered_is_refused_then";

    // Apply and the state machine.

    /// H28: what a leader checked in memory would be taken for checked in a later term.
    AdmittedTerm:
        "drover-fsm::apply" "an_entry_of_another_term_than_it_was_admitted_in_does_nothing",
        "drover-fsm::txn" "h28_a_step_that_was_admitted_in_another_term_does_nothing";
    /// H35: a bootstrap grant that comes late would give back what the group has given away.
    GrantOnce:
        "drover-fsm" "apply::control::tests::a_grant_is_applied_once_even_if_everything_was_given_away";
    /// H29: a late ceiling would take back what a successor of the oracle starts above.
    CeilingRises:
        "drover-fsm" "apply::control::tests::a_ceiling_only_rises_and_keeps_the_term_that_raised_it";
    /// H38: a safe point would go back below what is collected; the horizon of records likewise.
    MarksRise:
        "drover-fsm" "apply::control::tests::horizons_only_rise_each_for_itself",
        "drover-fsm::apply" "records_go_only_at_or_below_the_horizon_and_what_they_answered_is_refused_then";
    /// H30: entries would be applied twice, or never, after a restart.
    AppliedIdInBatch:
        "drover-fsm::driver" "h30_what_was_not_flushed_is_forgotten_and_the_log_id_says_so";
    /// H24: the digest of a replica would depend on how it cut the log into batches.
    DigestEndsBatch:
        "drover-fsm::driver" "h24_a_digest_shows_the_state_at_its_entry_and_nothing_later";
    /// H30: an older snapshot would take a replica back.
    SnapshotNotBack:
        "drover-fsm::driver" "a_snapshot_that_is_not_what_it_says_changes_nothing",
        "drover-fsm" "machine::tests::a_snapshot_that_is_not_as_announced_or_older_is_refused";
    /// H30: a snapshot that ends elsewhere than the leader believes would leave a gap.
    SnapshotAsAnnounced:
        "drover-fsm::driver" "a_snapshot_that_is_not_what_it_says_changes_nothing",
        "drover-fsm" "machine::tests::a_snapshot_that_is_not_as_announced_or_older_is_refused";
    /// H30: the log would be purged in front of what a restart still needs.
    PurgeBehindFlush:
        "drover-fsm::driver" "the_snapshot_builder_reports_what_is_flushed";
    /// H37: a read would judge by one state and see the data of another.
    OneView:
        "drover-fsm" "cell::tests::h37_no_view_is_taken_while_a_batch_that_differs_for_readers_is_written";
    /// H36: a snapshot read would miss history that was left behind when the range came here.
    HistoryStart:
        "drover-fsm" "read::tests::h36_a_snapshot_from_before_the_history_of_the_range_is_refused",
        "drover-model::move_model" "a_move_under_garbage_collection_keeps_every_promise";
    /// H38: a snapshot read would miss what is collected while it reads.
    SafePointAfterRead:
        "drover-fsm" "read::tests::h38_a_read_that_garbage_collection_overtook_is_refused";
    /// H19: a snapshot read that took its time would miss what was collected before the range was given up.
    OwnerAfterRead:
        "drover-fsm" "read::tests::h19_a_snapshot_read_that_the_release_overtook_is_routed_anew";
    /// H19: what is cleared up would be gone from under a read that has begun.
    SnapshotsHeld:
        "drover-mvcc::moving" "h19_what_was_cleared_up_is_there_for_a_read_that_has_begun";
    /// H38: versions would be collected by a safe point that a crash forgets, and replay would miss them.
    CollectBehindFlush:
        "drover-mvcc" "store::tests::collection_waits_for_a_flush_that_covers_the_safe_point_whatever_rocksdb_flushes_by_itself";
    /// H16: versions would be collected in an interval that was pinned, or given away, a moment ago.
    PinsAtOnce:
        "drover-mvcc" "gc::tests::a_rule_acts_after_a_flush_that_began_after_it_and_a_pin_at_once";
    /// H9: a tombstone would be collected before what it hides, and the old value come back.
    TombstonesStay:
        "drover-mvcc" "gc::tests::a_tombstone_goes_only_where_nothing_older_can_hide",
        "drover-mvcc" "gc::tests::reads_at_or_above_the_safe_point_survive_any_sequence_of_compactions";

    // The leader: pending writes, order, leases.

    /// H28: a write could get a timestamp below that of a read which was served before its key was registered.
    RegisterFirst:
        "drover-raftgroup::reads_and_writes" "h28_a_snapshot_read_waits_while_a_pending_write_may_come_below_it",
        "drover-raftgroup::reads_and_writes" "h40_a_latest_read_waits_for_the_write_that_was_pending_when_it_arrived",
        "drover-raftgroup::transactions" "h28_a_refresh_waits_for_a_write_that_may_come_below_the_commit_timestamp",
        "drover-raftgroup::transactions" "h40_a_latest_read_waits_for_the_transaction_that_was_pending_when_it_arrived";
    /// H40: a read would overtake a pending write that a younger snapshot sees below it.
    ReadsWait:
        "drover-raftgroup::reads_and_writes" "h28_a_snapshot_read_waits_while_a_pending_write_may_come_below_it",
        "drover-raftgroup::reads_and_writes" "h40_a_latest_read_waits_for_the_write_that_was_pending_when_it_arrived",
        "drover-raftgroup::reads_and_writes" "a_scan_waits_for_pending_writes_of_its_interval_only",
        "drover-raftgroup::transactions" "h28_a_refresh_waits_for_a_write_that_may_come_below_the_commit_timestamp",
        "drover-raftgroup::transactions" "h40_a_latest_read_waits_for_the_transaction_that_was_pending_when_it_arrived";
    /// H50: a latest read that waited would see a younger write and not say as of when.
    FreshAfterWait:
        "drover-raftgroup::reads_and_writes" "h50_a_latest_read_that_waited_is_made_at_a_fresh_timestamp";
    /// H52: readers would wait for ever for a write that never came to the log.
    UnproposedIsRemoved:
        "drover-raftgroup::reads_and_writes" "h52_a_write_that_times_out_before_it_is_proposed_never_applies_and_blocks_nobody";
    /// H28: readers would pass over a write that may still be applied.
    PendingWhileUnknown:
        "drover-raftgroup::leases" "h52_the_keys_of_a_write_whose_outcome_is_unknown_stay_pending";
    /// H39: an entry would stand in the log behind one with a younger timestamp.
    LogInTimestampOrder:
        "drover-raftgroup::reads_and_writes" "h39_entries_stand_in_the_log_in_timestamp_order_even_if_the_answers_do_not_come_so",
        "drover-raftgroup::transactions" "h39_what_a_transaction_has_read_is_not_written_below_it_in_front_of_it_or_behind";
    /// H28: an entry would be appended in another leadership than its keys were registered in.
    BoundToLeadership:
        "drover-raftgroup::reads_and_writes" "h28_a_proposal_of_another_leadership_is_not_appended";
    /// H2: a proof of a later leadership would be taken for one of the leadership whose pending writes were looked at.
    ProofOfThisTerm:
        "drover-raftgroup::reads_and_writes" "h28_a_proof_of_another_leadership_does_not_count";
    /// H43: a leader would trust its lease as long as the voters do, whose clocks may run faster.
    LeaseMargin:
        "drover-raftgroup" "options::tests::a_leader_trusts_less_than_the_voters_promised_and_nothing_after_a_suspension",
        "drover-raftgroup::leases" "h43_an_isolated_leader_stops_serving_before_its_voters_are_free";
    /// H43: a leader would trust its lease for longer than a voter with other settings promises.
    LeaseTermsFit:
        "drover-transport" "handshake::tests::a_leader_on_either_node_trusts_for_less_time_than_voters_on_the_other_promise";
    /// H43: a leader whose machine was suspended would trust a lease that the voters have forgotten.
    SuspendWatch:
        "drover-raftgroup" "options::tests::a_leader_trusts_less_than_the_voters_promised_and_nothing_after_a_suspension",
        "drover-raftgroup::leases" "h43_a_read_after_a_suspension_asks_a_quorum_although_the_lease_is_fresh";
    /// H43: a voter that restarts would vote inside the lease that it gave and forgot.
    SilentAfterRestart:
        "drover-raftgroup::leases" "h43_a_voter_that_restarts_does_not_break_the_lease_it_gave";
    /// H43: a leader that restarts would go on in its term, without the pending writes of that term.
    NoLeaderResume:
        "drover-raftgroup::leases" "h43_a_leader_that_restarts_wins_a_new_term_before_it_leads";
    /// H43: a leader that restarts would take its stored vote for a leadership.
    StoredVoteLeadsNothing:
        "drover-raftgroup::leases" "h43_a_leader_that_restarts_wins_a_new_term_before_it_leads";
    /// H43: a replica that lost its votes would vote a second time in a term.
    VotesNotLost:
        "drover-raftgroup::reads_and_writes" "a_replica_that_lost_its_log_and_votes_does_not_open";
    /// H43: so would a node that comes back with an empty disk under its old id.
    WipedPeerRefused:
        "drover-transport::nodes" "handshake::a_peer_whose_data_directory_was_replaced_is_refused_when_it_calls_and_when_it_is_called";

    // Members of groups.

    /// H1: a map would be made of routes that overlap, or leave keys to nobody.
    RoutesTile:
        "drover-catalog" "routes::map::tests::h1_only_routes_that_tile_the_key_space_are_a_map";
    /// H1: so would the next one, of a change that does not fit.
    DeltaFits:
        "drover-catalog" "routes::map::tests::a_delta_that_does_not_fit_is_refused_and_the_map_stays";
    /// H25: a leader that knows an old catalog would add replicas that are gone and remove those that came since.
    MembersByTheCatalog:
        "drover-raftgroup::members" "h25_a_leader_that_knows_an_old_catalog_does_what_the_present_one_says";
    /// H43: a replica that has little of the log would vote, and a majority could consist of such.
    CaughtUpBeforeVote:
        "drover-catalog" "membership::tests::every_difference_has_a_step";
    /// H25: a replica would be removed because of a catalog from before it was there.
    DestroyOnlyDropped:
        "drover-catalog" "topology::tests::every_difference_has_a_step",
        "drover-catalog" "topology::tests::old_topologies_do_no_harm";
    /// H43: a replica that was destroyed would be opened again because of a topology from before that, and stand up for a
    /// leader of that time.
    GoneStaysGone:
        "drover-catalog" "topology::tests::every_difference_has_a_step",
        "drover-catalog" "topology::tests::old_topologies_do_no_harm";
    /// H43: a voter whose data is gone would be opened again, empty, and vote a second time in a term.
    VotersNotReopened:
        "drover-catalog" "topology::tests::every_difference_has_a_step";
    /// H25: a group would be left that can never agree on anything.
    QuorumStays:
        "drover-catalog" "apply::tests::groups::a_group_is_not_left_without_a_live_majority";

    // Versions of the software.

    /// H23: a node would be let in whose build does not understand what stands in the logs.
    HighWaterMark:
        "drover-catalog" "apply::tests::compat::a_node_that_is_not_heard_holds_nobody_up_and_is_refused_when_it_comes_back_too_old";
    /// H23: a command would stand in a log whose replicas include a build that cannot take part in it.
    AllAreCapable:
        "drover-catalog" "apply::tests::groups::h46_replicas_change_only_when_all_nodes_can_take_part_that_are_live_or_hold_one",
        "drover-catalog" "apply::tests::groups::h23_what_a_node_can_do_that_never_registered_is_not_known",
        "drover-catalog" "apply::tests::groups::while_a_range_moves_its_groups_take_no_replica_on_a_node_that_cannot_move_ranges";
    /// H23: a command would stand in the log to which a frozen cluster may be rolled back to builds that do not know it.
    ClusterVersionReached:
        "drover-catalog" "apply::tests::compat::a_command_of_a_later_version_waits_until_the_cluster_cannot_go_back_behind_it",
        "drover-catalog" "apply::tests::jobs::a_move_needs_a_cluster_that_cannot_go_back_behind_moves";

    // The oracle.

    /// H29: timestamps would be issued that no ceiling covers, and a successor would issue them again.
    BelowCeiling:
        "drover-oracle" "core::tests::nothing_is_issued_before_a_ceiling_of_this_term",
        "drover-oracle" "core::tests::timestamps_rise_over_leaders_and_clock_jumps_and_stay_below_a_committed_ceiling";
    /// H29: a ceiling would count before it is applied in the oracle's own term.
    CeilingCommitted:
        "drover-oracle::leadership" "h29_a_ceiling_counts_once_it_is_committed";
    /// H29: a successor would issue what its predecessor may have issued.
    AboveFormerOracle:
        "drover-oracle" "core::tests::a_new_leader_starts_above_the_ceiling_it_found_even_if_its_clock_is_behind",
        "drover-oracle" "core::tests::timestamps_rise_over_leaders_and_clock_jumps_and_stay_below_a_committed_ceiling";
    /// H29: a timestamp would be issued twice.
    AboveLast:
        "drover-oracle" "core::tests::a_new_leader_starts_above_the_ceiling_it_found_even_if_its_clock_is_behind",
        "drover-oracle" "core::tests::timestamps_rise_over_leaders_and_clock_jumps_and_stay_below_a_committed_ceiling";
    /// H29: an oracle that was deposed would go on issuing.
    OracleProvesLeadership:
        "drover-oracle::leadership" "h29_a_deposed_oracle_issues_nothing";
    /// H28: a node would hand out timestamps that are older than what was read since they were issued.
    TimestampsNotKept:
        "drover-oracle" "client::tests::a_timestamp_is_above_all_that_were_issued_before_it_was_asked_for",
        "drover-coordinator::txn" "a_commit_takes_no_timestamp_that_was_issued_before_it_asked_for_one";

    // The log.

    /// H30: entries that were truncated would come back after a restart.
    TruncatedStaysGone:
        "drover-raftlog::crash" "a_truncated_tail_does_not_come_back",
        "drover-raftlog::crash" "a_log_truncated_to_nothing_stays_empty";
    /// H43: a vote would become durable before what was appended in front of it.
    VotesInOrder:
        "drover-raftlog" "writer_tests::votes_and_entries_are_written_in_the_order_in_which_they_came";
    /// H30: entries would be reported durable that a crash takes away.
    ReportedWhenDurable:
        "drover-raftlog" "writer_tests::an_append_is_not_reported_while_it_is_being_written",
        "drover-raftlog" "writer_tests::a_failed_write_stops_the_store_and_loses_nothing_that_was_durable";
    /// H30: a newest file that was cut off, or whose last batch was damaged, would pass for a crash, and what was acknowledged be
    /// forgotten.
    LogEndNoted:
        "drover-raftlog::damage" "a_file_cut_off_is_refused_unless_nothing_is_missing",
        "drover-raftlog::damage" "raft_engine_refuses_flipped_bytes_wherever_they_lie",
        "drover-raftlog::damage" "a_rewritten_file_cut_off_or_damaged_is_refused_unless_nothing_is_missing";
    /// H30: after a crash the committed id would name an entry that the log does not have.
    CommittedWithinLog:
        "drover-raftlog" "writer_tests::committed_rides_on_the_next_append_once_the_written_log_reaches_it";

    // Coordinator and client.

    /// H3: a client could read at a timestamp that was not issued yet, and read it differently later.
    ReadTimestampIssued:
        "drover-coordinator" "coordinator::tests::a_read_timestamp_that_was_not_issued_is_refused";
    /// H3: so could one that made up a cursor.
    CursorChecked:
        "drover-coordinator" "coordinator::tests::a_cursor_whose_snapshot_was_not_issued_is_refused";
    /// H44: a definite refusal would be reported although an earlier attempt may have been applied.
    UnknownSticks:
        "drover-coordinator" "retry::tests::every_kind_of_failure_meets_every_kind_of_operation",
        "drover-coordinator::parking" "h44_a_full_queue_refuses_and_what_was_unknown_before_stays_unknown";
    /// H44: a write without idempotency key would be sent again after an attempt that may have been applied.
    BlindWriteOnce:
        "drover-coordinator" "retry::tests::every_kind_of_failure_meets_every_kind_of_operation";
    /// H44: as `UnknownSticks`, in the client.
    ClientUnknownSticks:
        "drover-client" "retry::tests::after_an_unknown_attempt_no_reason_but_an_answer_from_apply_makes_a_write_definite",
        "drover-client::calls" "what_was_lost_stays_unknown_although_later_attempts_are_refused",
        "drover-client::calls" "what_was_lost_stays_unknown_until_the_deadline_although_later_attempts_are_turned_away",
        "drover-client::calls" "what_one_node_may_still_carry_out_stays_unknown_although_the_next_one_refuses";
    /// H44: as `BlindWriteOnce`, in the client.
    ClientBlindWriteOnce:
        "drover-client::calls" "a_blind_write_is_not_sent_again_after_it_was_lost_but_is_after_a_refusal";

    // Transactions.

    /// H41: a coordinator would go on with an attempt that was rolled back, or resolve the locks of another one.
    TxnAttempts:
        "drover-fsm" "gate::txn::tests::a_recorded_outcome_is_the_answer_to_every_attempt_it_covers",
        "drover-fsm" "gate::txn::tests::a_lock_stands_in_the_way_of_others_and_of_lower_attempts",
        "drover-fsm::txn" "h41_a_higher_attempt_takes_the_place_of_the_lower_one_for_good";
    /// H51: a transaction would be validated against versions that may have been collected.
    TxnSnapshotKept:
        "drover-fsm" "gate::txn::tests::a_transaction_must_be_above_the_horizon_and_its_snapshot_kept";
    /// H42: a prepare or a commit whose record was removed would apply a second time.
    TxnHorizon:
        "drover-fsm" "gate::txn::tests::a_transaction_must_be_above_the_horizon_and_its_snapshot_kept",
        "drover-fsm::txn" "h42_records_stay_until_the_horizon_has_passed_and_all_is_resolved";
    /// H49: what a transaction has read would be validated on what this group has given up, and others write to.
    ReadsInFootprint:
        "drover-fsm::moving" "h49_what_was_read_is_not_validated_where_reads_are_over";
    /// H47: a transaction would commit on a value that has expired since it was read.
    TxnExpiryCounts:
        "drover-fsm" "gate::txn::tests::h47_a_younger_version_and_an_expiry_in_between_are_changes",
        "drover-coordinator::txn" "a_value_that_has_expired_since_it_was_read_is_a_change_in_one_group_and_in_several";
    /// H39: what a transaction has read could have changed.
    TxnReadsValidated:
        "drover-fsm::txn" "what_was_read_and_has_changed_is_a_conflict";
    /// H41: a transaction whose coordinator works on it would be rolled back under its feet.
    TxnLockLives:
        "drover-fsm" "gate::txn::tests::only_an_expired_lock_is_rolled_back_unasked",
        "drover-fsm::txn" "a_rollback_waits_until_the_lock_has_expired";
    /// H41: a primary that is prepared after the rollback would let half of the transaction be committed.
    TxnRollbackRecord:
        "drover-fsm::txn" "a_prepare_of_the_primary_after_a_rollback_is_refused";
    /// H42: a prepare that comes after the rollback would lock the key again.
    TxnRollbackMarker:
        "drover-fsm::txn" "a_prepare_that_comes_after_the_resolution_locks_nothing";
    /// H42: a prepare that comes after the commit would not be told from a new one.
    TxnSuccessMarker:
        "drover-fsm::txn" "a_prepare_that_comes_after_the_resolution_locks_nothing";
    /// H42: the outcome of a transaction would be gone while locks wait for it.
    TxnRecordsKept:
        "drover-fsm::txn" "h42_records_stay_until_the_horizon_has_passed_and_all_is_resolved";
    /// H51: a transaction that has prepared would lose the snapshot that it is validated against.
    SafePointBehindLocks:
        "drover-fsm::txn" "h51_the_safe_point_stays_behind_the_snapshots_of_transactions_with_locks",
        "drover-model::move_model" "a_move_under_garbage_collection_keeps_every_promise";
    /// H28: what a transaction has read could have changed before its commit timestamp.
    TxnRefresh:
        "drover-coordinator::txn" "a_read_that_changed_before_the_commit_timestamp_is_a_conflict";
    /// H28: a change between the refresh and the commit timestamp would go unnoticed.
    TxnRefreshAtCommitTimestamp:
        "drover-coordinator::txn" "a_change_between_refresh_and_commit_timestamp_is_noticed";
    /// H28: a snapshot that was read before the locks stood would change.
    TxnTimestampAfterPrepares:
        "drover-coordinator::txn" "a_snapshot_that_was_read_while_locks_were_set_stays_as_it_was";
    /// H42: a transaction would be acknowledged that is lost with its coordinator.
    TxnAnswerAfterDecision:
        "drover-coordinator::txn" "nobody_is_answered_before_the_decision_is_in_the_log";
    /// H42: a superseded attempt would declare the locks of the one that was committed resolved.
    TxnFinishOfTheAttempt:
        "drover-fsm::txn" "only_the_attempt_that_was_committed_declares_its_locks_resolved";

    // Ranges that move.

    /// H13: what is written while a range is copied would be missing from the copy.
    TrackWrites:
        "drover-fsm::moving" "h13_whatever_is_written_while_a_range_is_copied_arrives",
        "drover-fsm::moving_job" "h26_a_step_of_a_deposed_driver_does_nothing_behind_a_change_of_course",
        "drover-model::move_model" "a_move_under_writers_readers_and_a_transaction_keeps_every_promise";
    /// H16: what is still to be copied would be collected or removed.
    MovingIsPinned:
        "drover-fsm::moving" "h16_nothing_is_collected_or_removed_while_a_range_is_copied",
        "drover-model::move_model" "a_move_under_garbage_collection_keeps_every_promise";
    /// H9: a delete would stay behind, and the older value come back at the target.
    TombstonesTravel:
        "drover-mvcc::moving" "h9_deletes_and_expiries_travel_and_hide_at_the_target_what_they_hid_at_the_source";
    /// H5: of a key with more versions than a portion holds, the rest would be left out.
    CursorNamesVersion:
        "drover-mvcc::moving" "h5_a_key_with_many_versions_is_cut_anywhere";
    /// H15: a portion would look at a whole interval in which there is little to copy.
    ScanBudget:
        "drover-mvcc::moving" "h15_a_portion_without_rows_still_makes_progress";
    /// H15: a portion that found nothing would be asked for again, for ever.
    ProgressWithoutRows:
        "drover-mvcc::moving" "h15_a_portion_without_rows_still_makes_progress";
    /// H27: a range that comes back would be put among rows that are there already.
    FreshShard:
        "drover-fsm::moving" "what_cannot_move_is_refused",
        "drover-fsm::moving" "h27_a_range_moves_away_and_back_and_late_steps_of_the_first_move_do_nothing";
    /// H12: a transaction that has prepared would write behind the copy.
    SealAfterDrain:
        "drover-fsm" "moving::source::tests::a_range_is_closed_in_order_and_each_step_may_be_made_twice",
        "drover-fsm::moving" "h12_a_range_is_sealed_when_the_last_prepared_transaction_is_resolved",
        "drover-model::move_model" "a_copy_from_a_replica_that_lags_keeps_every_promise";
    /// H11: what is written behind the fence would be missing from the copy.
    WriteFenceGate:
        "drover-fsm" "gate::fence::tests::a_fence_holds_back_new_writes_and_a_sealed_range_all",
        "drover-fsm::moving" "h11_behind_the_fence_nothing_new_is_written",
        "drover-model::move_model" "a_move_under_writers_readers_and_a_transaction_keeps_every_promise";
    /// H2: the former owner would serve what the new one has changed.
    ReadFence:
        "drover-fsm" "gate::owner::tests::what_is_given_up_or_not_here_yet_is_refused_and_what_is_gone_has_a_hint",
        "drover-fsm::moving_job" "h17_a_job_that_is_called_off_leaves_all_as_it_was_in_every_phase",
        "drover-model::move_model" "a_move_under_writers_readers_and_a_transaction_keeps_every_promise";
    /// H26: a deposed migrator or a late message would lift a fence that somebody relies on, or set one again.
    MoveEpochs:
        "drover-fsm" "moving::source::tests::a_step_of_an_older_course_is_refused",
        "drover-fsm" "moving::import::tests::a_closed_import_takes_nothing_until_a_later_course_opens_it_and_a_different_one_never_again",
        "drover-model::move_model" "changes_of_course_and_late_messages_keep_every_promise",
        "drover-model::move_model" "two_migrators_at_once_keep_every_promise";
    /// H35: a late step of a job that is over would fence, pin or grant again.
    RetiredJobs:
        "drover-fsm::moving" "h35_a_job_that_is_over_refuses_every_step",
        "drover-model::move_model" "a_move_that_is_called_off_and_begun_anew_keeps_every_promise";
    /// H14: a chunk that comes twice, or too early, would leave a gap.
    ChunkContinues:
        "drover-fsm" "moving::import::tests::h14_a_chunk_is_taken_exactly_if_it_continues_its_stream",
        "drover-model::move_model" "a_copy_whose_messages_come_again_keeps_every_promise";
    /// H14: a chunk that comes late would change what was found equal.
    ImportClosed:
        "drover-fsm" "moving::import::tests::a_closed_import_takes_nothing_until_a_later_course_opens_it_and_a_different_one_never_again",
        "drover-model::move_model" "a_portion_with_a_row_too_many_keeps_every_promise";
    /// H33: a copy that differs would be served.
    CopyIsEqual:
        "drover-fsm::moving" "h33_a_copy_that_differs_is_never_activated",
        "drover-model::move_model" "a_copy_that_loses_rows_keeps_every_promise";
    /// H35: a range would be owned whose copy is not whole.
    ActivateClosed:
        "drover-fsm::moving" "only_a_closed_import_is_activated",
        "drover-model::move_model" "a_copy_that_is_wrongly_believed_to_be_closed_is_not_served";
    /// H2: a range would be given up, with its rows, that is still served.
    ReleaseFenced:
        "drover-fsm::moving" "only_a_range_that_serves_nobody_is_released";
    /// H26: whoever drives a job by an older course would change the new one.
    JobEpochs:
        "drover-catalog" "job::course::tests::who_follows_an_older_course_changes_nothing",
        "drover-model::move_model" "changes_of_course_and_late_messages_keep_every_promise",
        "drover-model::move_model" "two_migrators_at_once_keep_every_promise";
    /// H18: a job whose range was handed over would be called off, and both groups would serve it, or none.
    ForwardAfterHandover:
        "drover-catalog" "job::course::tests::every_event_meets_every_phase",
        "drover-catalog" "job::course::tests::h18_once_the_target_is_named_a_job_goes_forward_whoever_asks",
        "drover-fsm::moving_job" "h17_a_job_that_is_called_off_leaves_all_as_it_was_in_every_phase",
        "drover-model::move_model" "changes_of_course_and_late_messages_keep_every_promise";
    /// H17: a job that is called off would end with fences, pins or a copy left behind.
    AbandonedClearsUp:
        "drover-fsm::moving_job" "h17_a_job_that_is_called_off_leaves_all_as_it_was_in_every_phase",
        "drover-model::move_model" "changes_of_course_and_late_messages_keep_every_promise";
    /// H31: any number of jobs could be begun.
    LiveJobsBounded:
        "drover-catalog" "apply::tests::jobs::h31_jobs_under_way_are_bounded_and_so_are_those_that_have_ended";
    /// H31: every job that ever ended would be kept.
    JobHistoryBounded:
        "drover-catalog" "apply::tests::jobs::h31_jobs_under_way_are_bounded_and_so_are_those_that_have_ended";
    /// H26: two jobs would move one range.
    JobsDisjoint:
        "drover-catalog" "apply::tests::jobs::what_cannot_be_moved_is_refused",
        "drover-model::move_model" "jobs_that_are_asked_for_at_once_keep_every_promise";
    /// H20: a key whose record was removed before the move would be settled as if it had never been used.
    RecordHorizonMoves:
        "drover-fsm::moving" "h20_what_may_have_been_forgotten_at_the_source_is_not_settled_at_the_target",
        "drover-model::move_model" "a_move_under_garbage_collection_keeps_every_promise";
    /// H26: a replica that lags would pass for sealed by the seal of an older course, and what came between would be lost.
    SealOfThisCourse:
        "drover-fsm::moving" "h26_a_replica_that_knows_an_older_seal_does_not_pass_for_sealed",
        "drover-model::move_model" "a_copy_from_a_replica_that_lags_keeps_every_promise";
    /// H45: two transactions that hold locks would wait for two fences, which wait for those locks.
    HolderNeverParks:
        "drover-coordinator::txn" "h45_who_holds_locks_waits_for_no_fence",
        "drover-coordinator::parking" "h45_a_transaction_of_two_groups_that_meets_a_fence_is_committed_when_the_range_has_moved";
    /// H34: writers that outrun the copy of their range would do so for ever.
    WritersTakeTurns:
        "drover-raftgroup" "throttle::tests::new_writes_and_prepares_of_the_range_take_turns_and_nothing_else_does",
        "drover-raftgroup::slow_writers" "only_writers_of_the_range_are_slowed_down_and_none_is_refused",
        "drover-migrator::moves" "h34_a_copy_that_its_writers_outrun_has_them_slowed_down_and_catches_up";
}
