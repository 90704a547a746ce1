//! Which jobs a page of a listing shows, and where the next one begins. Pure.
//!
//! ```text
//! token = version (1) | xxh3-64 of which jobs are listed (8, BE) | number of the last job that was shown (8, BE)
//! ```
//!
//! What is hashed: `ended (1): 0 either, 1 live, 2 ended | source (8, BE) | target (8, BE) | phases (4 each, BE), ascending`; a group
//! that may be any is zero.

use std::collections::BTreeSet;

use bytes::Bytes;
use drover_catalog::job::{JobPhase, SplitJob};
use drover_keys::{GroupId, JobId};
use drover_kv::{Error, Reason};
use drover_wire::proto::v1::{self, list_split_jobs_request::Which};
use drover_wire::{decode_phase, encode_phase};
use xxhash_rust::xxh3::xxh3_64;

const TOKEN_VERSION: u8 = 2;
/// Version, which jobs, and the last one.
const TOKEN_BYTES: usize = 17;

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

    fn fingerprint(&self) -> u64 {
        let group = |group: Option<GroupId>| group.map_or(0, |group| group.0).to_be_bytes();
        let ended = match self.ended {
            None => 0,
            Some(false) => 1,
            Some(true) => 2,
        };
        let mut phases: Vec<i32> = self.phases.iter().map(|phase| encode_phase(*phase).into()).collect();
        phases.sort_unstable();
        let mut out = vec![ended];
        out.extend(group(self.source));
        out.extend(group(self.target));
        out.extend(phases.into_iter().flat_map(i32::to_be_bytes));
        xxh3_64(&out)
    }

    /// Whether it is one of them.
    pub fn matches(&self, job: &SplitJob) -> bool {
        self.ended.is_none_or(|ended| ended == job.phase.has_ended())
            && (self.phases.is_empty() || self.phases.contains(&job.phase))
            && self.source.is_none_or(|group| group == job.source)
            && self.target.is_none_or(|group| group == job.target)
    }
}

/// The token of what comes behind this job in a listing of these.
pub fn encode_token(filter: &JobFilter, last: JobId) -> Bytes {
    [&[TOKEN_VERSION][..], &filter.fingerprint().to_be_bytes(), &last.0.to_be_bytes()].concat().into()
}

/// The newest job that a page may show of a listing of these; `None`: there is none.
///
/// # Errors
/// [`Reason::CursorInvalid`] if no page of such a listing has given this token out.
pub fn decode_token(filter: &JobFilter, token: &[u8]) -> Result<Option<JobId>, Error> {
    if token.is_empty() {
        return Ok(Some(JobId(u64::MAX)));
    }
    let refused = |why| {
        let message = format!("{why}; nothing was changed, begin with the first page");
        Err(Error::definite(Reason::CursorInvalid, message))
    };
    let Some([TOKEN_VERSION, rest @ ..]) = token.first_chunk::<TOKEN_BYTES>().filter(|_| token.len() == TOKEN_BYTES)
    else {
        return refused("the page token was not given out by this cluster, or by another version of it");
    };
    let [asked, last] =
        [&rest[..8], &rest[8..]].map(|field| u64::from_be_bytes(field.try_into().expect("eight bytes")));
    match asked == filter.fingerprint() {
        true => Ok(last.checked_sub(1).map(JobId)),
        false => refused("the page token is of a listing of other jobs: all pages ask for the same ones"),
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

    fn any_listing() -> impl Strategy<Value = JobFilter> {
        let phases = proptest::collection::vec(1i32..=10, 0..4);
        (0i32..3, phases, 0u64..3, 0u64..3).prop_map(|(which, phases, source_group, target_group)| {
            JobFilter::of(&ListSplitJobsRequest { which, phases, source_group, target_group, ..Default::default() })
                .unwrap()
        })
    }

    #[test]
    fn a_token_leads_behind_the_last_job_and_nothing_else_is_a_token() {
        let all = JobFilter::of(&ListSplitJobsRequest::default()).unwrap();
        let token = encode_token(&all, JobId(0x0102));
        let hash = xxh3_64(&[0; 17]).to_be_bytes();
        assert_eq!(token, [&[2][..], &hash, &[0, 0, 0, 0, 0, 0, 1, 2]].concat());
        assert_eq!(decode_token(&all, &[]), Ok(Some(JobId(u64::MAX))));
        assert_eq!(decode_token(&all, &encode_token(&all, JobId(7))), Ok(Some(JobId(6))));
        assert_eq!(decode_token(&all, &encode_token(&all, JobId(0))), Ok(None));
        let longer = [&token[..], &[0]].concat();
        let older = [1, 0, 0, 0, 0, 0, 0, 0, 1];
        for bad in [&token[..1], &token[..16], &longer, &older, b"nonsense"] {
            assert_eq!(decode_token(&all, bad).unwrap_err().reason, Reason::CursorInvalid, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_token_leads_to_the_job_before_in_the_same_listing_and_nowhere_in_another(
            job: u64,
            (listing, other) in (any_listing(), any_listing()),
        ) {
            let token = encode_token(&listing, JobId(job));
            prop_assert_eq!(decode_token(&listing, &token), Ok(job.checked_sub(1).map(JobId)));
            let elsewhere = decode_token(&other, &token).map_err(|error| error.reason);
            match listing == other {
                true => prop_assert_eq!(elsewhere, Ok(job.checked_sub(1).map(JobId))),
                false => prop_assert_eq!(elsewhere, Err(Reason::CursorInvalid)),
            }
        }

        #[test]
        fn whatever_is_read_as_a_token_is_the_token_of_that_job(
            listing in any_listing(),
            (version, last) in (0u8..4, any::<u64>()),
            len in 0usize..19,
        ) {
            let hash = listing.fingerprint().to_be_bytes();
            let mut token = [&[version][..], &hash, &last.to_be_bytes(), &[0; 2]].concat();
            token.truncate(len);
            if let Ok(before) = decode_token(&listing, &token)
                && !token.is_empty()
            {
                let last = before.map_or(0, |before| before.0 + 1);
                prop_assert_eq!(&encode_token(&listing, JobId(last))[..], &token[..]);
            }
        }
    }
}
