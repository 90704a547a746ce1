//! Which jobs a page of a listing shows, and where the next one begins. Pure.
//!
//! ```text
//! token = version (1) | number of the last job that was looked at (8, BE)
//! ```

use std::collections::BTreeSet;

use bytes::Bytes;
use drover_catalog::job::{JobPhase, SplitJob};
use drover_keys::{GroupId, JobId};
use drover_kv::{Error, Reason};
use drover_wire::decode_phase;
use drover_wire::proto::v1::{self, list_split_jobs_request::Which};

const TOKEN_VERSION: u8 = 1;

/// Which jobs somebody wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFilter {
    /// Whether they have ended; `None`: either.
    ended: Option<bool>,
    /// Empty: all.
    phases: BTreeSet<JobPhase>,
    source: Option<GroupId>,
    target: Option<GroupId>,
}

impl JobFilter {
    /// What a request asks for.
    ///
    /// # Errors
    /// [`Reason::InvalidArgument`] for a phase or a choice that this build does not know.
    pub fn of(request: &v1::ListSplitJobsRequest) -> Result<Self, Error> {
        let ended = match Which::try_from(request.which) {
            Ok(Which::Unspecified) => None,
            Ok(Which::Live) => Some(false),
            Ok(Which::Ended) => Some(true),
            Err(_) => {
                let message = format!("{} does not say which jobs; nothing was changed", request.which);
                return Err(Error::definite(Reason::InvalidArgument, message));
            }
        };
        let phases = request.phases.iter().map(|phase| decode_phase(*phase)).collect::<Result<_, _>>()?;
        let group = |id: u64| (id != 0).then_some(GroupId(id));
        Ok(Self { ended, phases, source: group(request.source_group), target: group(request.target_group) })
    }

    /// Whether it is one of them.
    pub fn matches(&self, job: &SplitJob) -> bool {
        self.ended.is_none_or(|ended| ended == job.phase.has_ended())
            && (self.phases.is_empty() || self.phases.contains(&job.phase))
            && self.source.is_none_or(|group| group == job.source)
            && self.target.is_none_or(|group| group == job.target)
    }
}

/// The token of what comes behind this job.
pub fn encode_token(last: JobId) -> Bytes {
    [&[TOKEN_VERSION][..], &last.0.to_be_bytes()].concat().into()
}

/// The newest job that a page may show; `None`: there is none.
///
/// # Errors
/// [`Reason::CursorInvalid`] if no page has given this token out.
pub fn decode_token(token: &[u8]) -> Result<Option<JobId>, Error> {
    if token.is_empty() {
        return Ok(Some(JobId(u64::MAX)));
    }
    let last = token.split_first().filter(|(version, _)| **version == TOKEN_VERSION);
    match last.and_then(|(_, last)| Some(u64::from_be_bytes(last.try_into().ok()?))) {
        Some(last) => Ok(last.checked_sub(1).map(JobId)),
        None => {
            let message =
                "the page token was not given out by this cluster; nothing was changed, begin with the first page";
            Err(Error::definite(Reason::CursorInvalid, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use drover_catalog::job::{JobOptions, NewJob};
    use drover_hlc::PhysicalMs;
    use drover_keys::{Interval, RouteId, ShardId};
    use drover_wire::proto::v1::ListSplitJobsRequest;
    use drover_wire::proto::v1::split_job::Phase;
    use proptest::prelude::*;

    use super::*;

    fn job(phase: JobPhase, source: u64, target: u64) -> SplitJob {
        let begun = SplitJob::begun(NewJob {
            id: JobId(5),
            interval: Interval::all(),
            from_route: RouteId(1),
            source: GroupId(source),
            target: GroupId(target),
            shard: ShardId(9),
            options: JobOptions::default(),
            actor: "a".to_owned(),
            now: PhysicalMs::default(),
        });
        SplitJob { phase, ..begun }
    }

    #[test]
    fn a_listing_shows_the_jobs_that_were_asked_for() {
        let planned = job(JobPhase::Planned, 2, 3);
        let failed = job(JobPhase::Failed, 3, 2);
        let done = job(JobPhase::Done, 2, 4);
        let all = ListSplitJobsRequest::default;
        let which = |which: Which| ListSplitJobsRequest { which: which.into(), ..all() };
        let table = [
            (all(), [true, true, true]),
            (which(Which::Live), [true, true, false]),
            (which(Which::Ended), [false, false, true]),
            (
                ListSplitJobsRequest { phases: vec![Phase::Failed.into(), Phase::Done.into()], ..all() },
                [false, true, true],
            ),
            (ListSplitJobsRequest { source_group: 2, ..all() }, [true, false, true]),
            (ListSplitJobsRequest { target_group: 2, ..all() }, [false, true, false]),
            (ListSplitJobsRequest { source_group: 2, target_group: 4, ..which(Which::Live) }, [false, false, false]),
        ];
        for (request, expect) in table {
            let filter = JobFilter::of(&request).unwrap();
            assert_eq!([&planned, &failed, &done].map(|job| filter.matches(job)), expect, "{request:?}");
        }
        let unknown = [
            ListSplitJobsRequest { which: 9, ..all() },
            ListSplitJobsRequest { phases: vec![0], ..all() },
            ListSplitJobsRequest { phases: vec![99], ..all() },
        ];
        for request in unknown {
            assert_eq!(JobFilter::of(&request).unwrap_err().reason, Reason::InvalidArgument, "{request:?}");
        }
    }

    #[test]
    fn a_token_leads_behind_the_last_job_and_nothing_else_is_a_token() {
        assert_eq!(&encode_token(JobId(0x0102))[..], [1, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(decode_token(&[]), Ok(Some(JobId(u64::MAX))));
        assert_eq!(decode_token(&encode_token(JobId(7))), Ok(Some(JobId(6))));
        assert_eq!(decode_token(&encode_token(JobId(0))), Ok(None));
        for bad in [&[1][..], &[2, 0, 0, 0, 0, 0, 0, 0, 1], &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0], b"nonsense"] {
            assert_eq!(decode_token(bad).unwrap_err().reason, Reason::CursorInvalid, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn the_token_of_a_job_leads_to_the_one_before(job: u64) {
            prop_assert_eq!(decode_token(&encode_token(JobId(job))), Ok(job.checked_sub(1).map(JobId)));
        }

        #[test]
        fn whatever_is_read_as_a_token_is_the_token_of_that_job(token in proptest::collection::vec(0u8..3, 8..11)) {
            if let Ok(before) = decode_token(&token) {
                let last = before.map_or(0, |before| before.0 + 1);
                prop_assert_eq!(&encode_token(JobId(last))[..], &token[..]);
            }
        }
    }
}
