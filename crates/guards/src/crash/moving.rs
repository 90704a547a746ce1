//! The steps of a move at which a test can end the process.

named! {
    /// A log entry by which a move makes a step, in its source or in its target.
    MoveEntry {
        /// Target: a shard for the copy.
        PrepareImport: "prepare_import";
        /// Source: what is written is listed from here on.
        Arm: "arm";
        /// Target: the first rows.
        FirstChunk: "first_chunk";
        /// Target: further rows of those that were there.
        LaterChunk: "later_chunk";
        /// Target: rows that were written meanwhile, while the source takes writes.
        ListedChunk: "listed_chunk";
        /// Target: the rest; closes the import.
        LastChunk: "last_chunk";
        /// Source: new writes are refused.
        FenceWrites: "fence_writes";
        /// Source: all writes are refused.
        Seal: "seal";
        /// Source: reads are refused.
        FenceReads: "fence_reads";
        /// Either: what an older course has closed is open again.
        Clear: "clear";
        /// Target: it owns the range.
        Activate: "activate";
        /// Source: it gives the range up, and what it held of it.
        Release: "release";
        /// Either: the job is called off; the target drops its copy.
        Retire: "retire";
    }
}

named! {
    /// A log entry of the catalog that takes note of how far a move is.
    JobMark {
        /// The copy begins.
        Begin: "begin";
        /// The source's sum is known.
        Scanned: "scanned";
        /// The range becomes a route of its own.
        Carve: "carve";
        /// Writes are held back.
        Fence: "fence";
        /// Nothing changes any more.
        Sealed: "sealed";
        /// The range is about to change hands.
        CutOver: "cut_over";
        /// The catalog names the target.
        HandOver: "hand_over";
        /// The target serves.
        Activated: "activated";
        /// The job goes to the history.
        Finish: "finish";
        /// Writes are held back no longer.
        Unfence: "unfence";
        /// The copy differs: everything once more.
        StartOver: "start_over";
        /// It does not work for now.
        Fail: "fail";
        /// People want another attempt.
        Retry: "retry";
        /// The job is called off.
        Abandon: "abandon";
        /// The job that was called off goes to the history.
        Abandoned: "abandoned";
    }
}
