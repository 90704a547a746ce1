//! Raft's messages to prost and back. What arrives is checked for what openraft takes for granted, so that a confused
//! peer gets an error instead of tripping an assertion.

use drover_rafttypes::{
    CodecError, LogId, TypeConfig, Vote, decode_entry, decode_log_id, decode_vote, encode_entry, encode_log_id,
    encode_vote,
};
use drover_wire::proto::storage::v1 as pb;
use drover_wire::proto::v1;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};

/// Why a message is not one that a peer of this version sends. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    /// A part cannot be decoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The parts do not fit each other.
    #[error("{0}")]
    Inconsistent(&'static str),
    /// The peer answered with an error.
    #[error("the peer answers: {0}")]
    Remote(String),
}

use MessageError::Inconsistent;

/// What an append request covers: its answer is judged by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AppendSpan {
    pub(crate) prev: Option<LogId>,
    pub(crate) last: Option<LogId>,
}

impl AppendSpan {
    pub(crate) fn of(request: &AppendEntriesRequest<TypeConfig>) -> Self {
        let last = request.entries.last().map(|entry| entry.log_id);
        Self { prev: request.prev_log_id, last: last.or(request.prev_log_id) }
    }
}

fn missing<T>(value: Option<T>, what: &'static str) -> Result<T, CodecError> {
    value.ok_or(CodecError::Missing(what))
}

fn vote_of(vote: Option<&pb::Vote>) -> Result<Vote, CodecError> {
    Ok(decode_vote(missing(vote, "vote")?))
}

/// The vote of a leader from a message.
pub(crate) fn leader_vote(vote: Option<&pb::Vote>) -> Result<Vote, MessageError> {
    let vote = vote_of(vote)?;
    if vote.committed { Ok(vote) } else { Err(Inconsistent("the vote is not that of an elected leader")) }
}

/// Splits a request so that the entries of each part have at most about `bytes`, or are one entry.
pub(crate) fn split_append(
    mut request: AppendEntriesRequest<TypeConfig>,
    bytes: usize,
) -> Vec<AppendEntriesRequest<TypeConfig>> {
    let mut parts = Vec::with_capacity(1);
    loop {
        let mut sum = 0;
        let fits = request
            .entries
            .iter()
            .position(|entry| {
                sum += entry_bytes(&entry.payload);
                sum > bytes
            })
            .map_or(request.entries.len(), |at| at.max(1));
        let rest = request.entries.split_off(fits);
        let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        let (vote, leader_commit) = (request.vote, request.leader_commit);
        parts.push(request);
        if rest.is_empty() {
            return parts;
        }
        request = AppendEntriesRequest { vote, prev_log_id: last, entries: rest, leader_commit };
    }
}

fn entry_bytes(payload: &drover_rafttypes::Payload) -> usize {
    match payload {
        openraft::EntryPayload::Normal(command) => command.0.len(),
        openraft::EntryPayload::Blank | openraft::EntryPayload::Membership(_) => 64,
    }
}

pub(crate) fn encode_append(request: &AppendEntriesRequest<TypeConfig>) -> v1::AppendRequest {
    v1::AppendRequest {
        vote: Some(encode_vote(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(encode_log_id),
        entries: request.entries.iter().map(encode_entry).collect(),
        leader_commit: request.leader_commit.as_ref().map(encode_log_id),
    }
}

pub(crate) fn decode_append(request: v1::AppendRequest) -> Result<AppendEntriesRequest<TypeConfig>, MessageError> {
    let vote = leader_vote(request.vote.as_ref())?;
    let prev_log_id = request.prev_log_id.as_ref().map(decode_log_id);
    let entries: Vec<_> = request.entries.into_iter().map(decode_entry).collect::<Result<_, _>>()?;
    let mut before = prev_log_id;
    for entry in &entries {
        let id = entry.log_id;
        let index = before.map_or(Some(0), |b| b.index.checked_add(1));
        if index != Some(id.index) {
            return Err(Inconsistent("the entries do not follow each other"));
        }
        if before.is_some_and(|b| b.leader_id > id.leader_id) || *id.leader_id > vote.leader_id.term {
            return Err(Inconsistent("the terms of the entries fall, or exceed the leader's"));
        }
        before = Some(id);
    }
    let leader_commit = request.leader_commit.as_ref().map(decode_log_id);
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

fn append_response(kind: v1::append_response::Kind) -> v1::AppendResponse {
    v1::AppendResponse { kind: kind.into(), ..Default::default() }
}

pub(crate) fn append_failed(error: impl std::fmt::Display) -> v1::AppendResponse {
    v1::AppendResponse { error: error.to_string(), ..append_response(v1::append_response::Kind::Failed) }
}

pub(crate) fn encode_stream_result(result: &StreamAppendResult<TypeConfig>) -> v1::AppendResponse {
    use v1::append_response::Kind;
    match result {
        Ok(log_id) => {
            v1::AppendResponse { log_id: log_id.as_ref().map(encode_log_id), ..append_response(Kind::Success) }
        }
        Err(StreamAppendError::Conflict(log_id)) => {
            v1::AppendResponse { log_id: Some(encode_log_id(log_id)), ..append_response(Kind::Conflict) }
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            v1::AppendResponse { vote: Some(encode_vote(vote)), ..append_response(Kind::HigherVote) }
        }
    }
}

pub(crate) fn encode_append_response(response: &AppendEntriesResponse<TypeConfig>) -> v1::AppendResponse {
    use v1::append_response::Kind;
    match response {
        AppendEntriesResponse::Success => append_response(Kind::Success),
        AppendEntriesResponse::PartialSuccess(log_id) => {
            v1::AppendResponse { log_id: log_id.as_ref().map(encode_log_id), ..append_response(Kind::PartialSuccess) }
        }
        AppendEntriesResponse::Conflict => append_response(Kind::Conflict),
        AppendEntriesResponse::HigherVote(vote) => {
            v1::AppendResponse { vote: Some(encode_vote(vote)), ..append_response(Kind::HigherVote) }
        }
    }
}

/// The answer to a request of a stream.
pub(crate) fn decode_stream_result(
    response: &v1::AppendResponse,
    span: AppendSpan,
) -> Result<StreamAppendResult<TypeConfig>, MessageError> {
    use v1::append_response::Kind;
    match response.kind() {
        Kind::Success | Kind::PartialSuccess => {
            let log_id = response.log_id.as_ref().map(decode_log_id);
            if log_id > span.last {
                return Err(Inconsistent("the peer acknowledges more than it was sent"));
            }
            Ok(Ok(log_id))
        }
        Kind::Conflict => match span.prev {
            Some(prev) => Ok(Err(StreamAppendError::Conflict(prev))),
            None => Err(Inconsistent("the peer refuses a request that fits every log")),
        },
        Kind::HigherVote => Ok(Err(StreamAppendError::HigherVote(vote_of(response.vote.as_ref())?))),
        Kind::Failed => Err(MessageError::Remote(response.error.clone())),
        Kind::Unspecified => Err(Inconsistent("the answer has no kind")),
    }
}

/// The answer to a single append.
pub(crate) fn decode_append_response(
    response: &v1::AppendResponse,
    span: AppendSpan,
) -> Result<AppendEntriesResponse<TypeConfig>, MessageError> {
    match (response.kind(), decode_stream_result(response, span)?) {
        (v1::append_response::Kind::PartialSuccess, Ok(log_id)) => Ok(AppendEntriesResponse::PartialSuccess(log_id)),
        (_, result) => Ok(result.into()),
    }
}

pub(crate) fn encode_vote_request(request: &VoteRequest<TypeConfig>) -> v1::VoteRequest {
    v1::VoteRequest {
        vote: Some(encode_vote(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(encode_log_id),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn decode_vote_request(request: &v1::VoteRequest) -> Result<VoteRequest<TypeConfig>, MessageError> {
    let vote = vote_of(request.vote.as_ref())?;
    if vote.committed {
        return Err(Inconsistent("a candidate's vote cannot be that of an elected leader"));
    }
    let mut decoded = VoteRequest::new(vote, request.last_log_id.as_ref().map(decode_log_id));
    decoded.leadership_transfer = request.leadership_transfer;
    Ok(decoded)
}

pub(crate) fn encode_vote_response(response: &VoteResponse<TypeConfig>) -> v1::VoteResponse {
    v1::VoteResponse {
        vote: Some(encode_vote(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(encode_log_id),
    }
}

pub(crate) fn decode_vote_response(response: &v1::VoteResponse) -> Result<VoteResponse<TypeConfig>, MessageError> {
    let last_log_id = response.last_log_id.as_ref().map(decode_log_id);
    Ok(VoteResponse::new(vote_of(response.vote.as_ref())?, last_log_id, response.granted))
}

pub(crate) fn encode_transfer(request: &TransferLeaderRequest<TypeConfig>) -> v1::TransferRequest {
    v1::TransferRequest {
        from_leader: Some(encode_vote(request.from_leader())),
        to_node: *request.to_node_id(),
        last_log_id: request.last_log_id().map(encode_log_id),
    }
}

pub(crate) fn decode_transfer(
    request: &v1::TransferRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, MessageError> {
    let from = leader_vote(request.from_leader.as_ref())?;
    Ok(TransferLeaderRequest::new(from, request.to_node, request.last_log_id.as_ref().map(decode_log_id)))
}

pub(crate) fn encode_transfer_response(response: &TransferLeaderResponse<TypeConfig>) -> v1::TransferResponse {
    use v1::transfer_response::Kind;
    let (kind, vote, log_id) = match response {
        Ok(()) => (Kind::Accepted, None, None),
        Err(TransferLeaderError::VoteChanged { actual, .. }) => (Kind::VoteChanged, Some(actual), None),
        Err(TransferLeaderError::LogNotFlushed { actual, .. }) => (Kind::LogNotFlushed, None, actual.as_ref()),
    };
    v1::TransferResponse { kind: kind.into(), vote: vote.map(encode_vote), log_id: log_id.map(encode_log_id) }
}

pub(crate) fn decode_transfer_response(
    response: &v1::TransferResponse,
    request: &TransferLeaderRequest<TypeConfig>,
) -> Result<TransferLeaderResponse<TypeConfig>, MessageError> {
    use v1::transfer_response::Kind;
    Ok(match response.kind() {
        Kind::Accepted => Ok(()),
        Kind::VoteChanged => Err(TransferLeaderError::VoteChanged {
            expected: *request.from_leader(),
            actual: vote_of(response.vote.as_ref())?,
        }),
        Kind::LogNotFlushed => Err(TransferLeaderError::LogNotFlushed {
            expected: request.last_log_id().copied(),
            actual: response.log_id.as_ref().map(decode_log_id),
        }),
        Kind::Unspecified => return Err(Inconsistent("the answer has no kind")),
    })
}

#[cfg(test)]
mod tests {
    use drover_rafttypes::{CommandBytes, Entry, Payload};
    use openraft::impls::leader_id_std::LeaderId;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn log_id(term: u64, index: u64) -> LogId {
        decode_log_id(&pb::LogId { term, index })
    }

    fn vote(term: u64, committed: bool) -> Vote {
        Vote { leader_id: LeaderId { term, voted_for: 7 }, committed }
    }

    fn request(prev: Option<(u64, u64)>, entries: &[(u64, u64, usize)]) -> AppendEntriesRequest<TypeConfig> {
        let entry = |(term, index, bytes): &(u64, u64, usize)| Entry {
            log_id: log_id(*term, *index),
            payload: Payload::Normal(CommandBytes(vec![1; *bytes].into())),
        };
        AppendEntriesRequest {
            vote: vote(5, true),
            prev_log_id: prev.map(|(term, index)| log_id(term, index)),
            entries: entries.iter().map(entry).collect(),
            leader_commit: Some(log_id(3, 1)),
        }
    }

    #[test]
    fn an_append_that_raft_would_choke_on_is_refused() {
        let good = request(Some((2, 4)), &[(2, 5, 1), (3, 6, 1)]);
        assert!(decode_append(encode_append(&good)).is_ok());
        let mut candidate = good.clone();
        candidate.vote = vote(5, false);
        let table = [
            candidate,
            request(Some((2, 4)), &[(2, 6, 1)]),
            request(Some((2, 4)), &[(2, 5, 1), (2, 5, 1)]),
            request(Some((2, 4)), &[(1, 5, 1)]),
            request(Some((2, 4)), &[(6, 5, 1)]),
            request(None, &[(1, 1, 1)]),
            request(Some((2, u64::MAX)), &[(2, 0, 1)]),
        ];
        for bad in table {
            assert!(matches!(decode_append(encode_append(&bad)), Err(Inconsistent(_))), "{bad}");
        }
        assert!(matches!(decode_append(v1::AppendRequest::default()), Err(MessageError::Codec(_))));
    }

    #[test]
    fn an_answer_that_does_not_fit_its_request_is_not_believed() {
        let span = AppendSpan { prev: Some(log_id(1, 4)), last: Some(log_id(1, 6)) };
        let first = AppendSpan { prev: None, last: None };
        let success = |log_id| encode_stream_result(&Ok(log_id));
        let conflict = encode_stream_result(&Err(StreamAppendError::Conflict(log_id(9, 9))));
        assert_eq!(decode_stream_result(&success(span.last), span), Ok(Ok(span.last)));
        assert!(decode_stream_result(&success(Some(log_id(1, 7))), span).is_err());
        assert_eq!(
            decode_stream_result(&conflict, span),
            Ok(Err(StreamAppendError::Conflict(log_id(1, 4)))),
            "the conflict is where this node asked, whatever the peer says"
        );
        assert!(decode_stream_result(&conflict, first).is_err());
        assert!(decode_stream_result(&v1::AppendResponse::default(), span).is_err());
        let failed = decode_stream_result(&append_failed("stopped"), span);
        assert_eq!(failed, Err(MessageError::Remote("stopped".into())));
    }

    #[test]
    fn votes_and_transfers_round_trip() {
        let mut ask = VoteRequest::new(vote(4, false), Some(log_id(3, 8)));
        ask.leadership_transfer = true;
        assert_eq!(decode_vote_request(&encode_vote_request(&ask)), Ok(ask));
        let elected = VoteRequest::new(vote(4, true), None);
        assert!(decode_vote_request(&encode_vote_request(&elected)).is_err());
        let answer = VoteResponse::new(vote(4, true), Some(log_id(1, 1)), true);
        assert_eq!(decode_vote_response(&encode_vote_response(&answer)), Ok(answer));
        let transfer = TransferLeaderRequest::new(vote(4, true), 3, Some(log_id(4, 4)));
        assert_eq!(decode_transfer(&encode_transfer(&transfer)), Ok(transfer.clone()));
        let answers: [TransferLeaderResponse<TypeConfig>; 3] = [
            Ok(()),
            Err(TransferLeaderError::VoteChanged { expected: vote(4, true), actual: vote(5, false) }),
            Err(TransferLeaderError::LogNotFlushed { expected: Some(log_id(4, 4)), actual: None }),
        ];
        for answer in answers {
            assert_eq!(decode_transfer_response(&encode_transfer_response(&answer), &transfer), Ok(answer));
        }
        assert!(decode_transfer_response(&v1::TransferResponse::default(), &transfer).is_err());
    }

    proptest! {
        #[test]
        fn a_split_request_is_the_same_log_in_smaller_parts(
            sizes in prop::collection::vec(0usize..300, 0..30), bytes in 0usize..1_000,
        ) {
            let entries: Vec<_> = sizes.iter().enumerate().map(|(n, size)| (2, 5 + n as u64, *size)).collect();
            let whole = request(Some((2, 4)), &entries);
            let parts = split_append(whole.clone(), bytes);
            let mut prev = whole.prev_log_id;
            let mut ids = Vec::new();
            for part in &parts {
                prop_assert_eq!(part.prev_log_id, prev);
                prop_assert_eq!((part.vote, part.leader_commit), (whole.vote, whole.leader_commit));
                let sum: usize = part.entries.iter().map(|e| entry_bytes(&e.payload)).sum();
                prop_assert!(part.entries.len() == 1 || sum <= bytes);
                prop_assert!(parts.len() == 1 || !part.entries.is_empty());
                ids.extend(part.entries.iter().map(|e| e.log_id));
                prev = AppendSpan::of(part).last;
                prop_assert!(decode_append(encode_append(part)).is_ok());
            }
            prop_assert_eq!(ids, whole.entries.iter().map(|e| e.log_id).collect::<Vec<_>>());
        }

        #[test]
        fn appends_round_trip(
            prev in prop::option::of((0u64..5, 0u64..u64::MAX - 20)),
            commit in prop::option::of(any::<(u64, u64)>()),
            sizes in prop::collection::vec(0usize..50, 0..8),
        ) {
            let first = prev.map_or(0, |(_, index)| index + 1);
            let entries: Vec<_> = (first..).zip(&sizes).map(|(index, bytes)| (5, index, *bytes)).collect();
            let leader_commit = commit.map(|(term, index)| log_id(term, index));
            let sent = AppendEntriesRequest { leader_commit, ..request(prev, &entries) };
            let bytes = encode_append(&sent).encode_to_vec();
            let read = decode_append(v1::AppendRequest::decode(&bytes[..]).unwrap()).unwrap();
            prop_assert_eq!((read.vote, read.prev_log_id), (sent.vote, sent.prev_log_id));
            prop_assert_eq!((read.entries, read.leader_commit), (sent.entries, sent.leader_commit));
        }

        #[test]
        fn votes_and_transfers_of_every_term_round_trip(
            (term, node, to) in any::<(u64, u64, u64)>(),
            last in prop::option::of(any::<(u64, u64)>()),
            (leadership_transfer, granted) in any::<(bool, bool)>(),
        ) {
            let last = last.map(|(term, index)| log_id(term, index));
            let vote = |committed| Vote { leader_id: LeaderId { term, voted_for: node }, committed };
            let mut ask = VoteRequest::new(vote(false), last);
            ask.leadership_transfer = leadership_transfer;
            let bytes = encode_vote_request(&ask).encode_to_vec();
            prop_assert_eq!(decode_vote_request(&v1::VoteRequest::decode(&bytes[..]).unwrap()), Ok(ask));
            let answer = VoteResponse::new(vote(granted), last, granted);
            let bytes = encode_vote_response(&answer).encode_to_vec();
            prop_assert_eq!(decode_vote_response(&v1::VoteResponse::decode(&bytes[..]).unwrap()), Ok(answer));
            let transfer = TransferLeaderRequest::new(vote(true), to, last);
            let bytes = encode_transfer(&transfer).encode_to_vec();
            prop_assert_eq!(decode_transfer(&v1::TransferRequest::decode(&bytes[..]).unwrap()), Ok(transfer));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(request) = v1::AppendRequest::decode(&bytes[..]) {
                let _ = decode_append(request);
            }
            if let Ok(response) = v1::AppendResponse::decode(&bytes[..]) {
                let _ = decode_append_response(&response, AppendSpan { prev: None, last: None });
            }
            if let Ok(request) = v1::VoteRequest::decode(&bytes[..]) {
                let _ = decode_vote_request(&request);
            }
            if let Ok(request) = v1::TransferRequest::decode(&bytes[..]) {
                let _ = decode_transfer(&request);
            }
        }
    }
}
