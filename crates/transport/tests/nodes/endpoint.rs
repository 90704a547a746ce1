//! A Raft of which the tests know what it was asked, and decide what it answers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use drover_rafttypes::{LogId, TypeConfig, Vote};
use drover_transport::{EndpointError, RaftEndpoint, Snapshot};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use openraft::impls::leader_id_std::LeaderId;
use openraft::raft::*;
use openraft::vote::RaftLeaderId;

pub fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: LeaderId { term, voted_for: 0 }.to_committed(), index }
}

pub fn leader_vote(term: u64) -> Vote {
    Vote { leader_id: LeaderId { term, voted_for: 1 }, committed: true }
}

/// How requests of a replication stream are answered.
#[derive(Clone, Copy)]
pub enum Appends {
    /// Not before this many have arrived.
    AfterAll(usize),
    /// The first few succeed, then the log does not match.
    ConflictAfter(usize),
    Never,
}

pub struct Recorder {
    pub asked: Mutex<Vec<String>>,
    /// Files of the snapshots that were installed.
    pub installed: Mutex<Vec<BTreeMap<String, Vec<u8>>>>,
    pub appends: Appends,
}

impl Recorder {
    pub fn new(appends: Appends) -> Self {
        Self { asked: Mutex::default(), installed: Mutex::default(), appends }
    }

    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }
}

type AppendResult = Result<StreamAppendResult<TypeConfig>, EndpointError>;

fn last(request: &AppendEntriesRequest<TypeConfig>) -> Option<LogId> {
    request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id)
}

#[tonic::async_trait]
impl RaftEndpoint for Recorder {
    fn stream_append(
        &self,
        mut requests: BoxStream<'static, AppendEntriesRequest<TypeConfig>>,
    ) -> BoxStream<'static, AppendResult> {
        match self.appends {
            Appends::Never => stream::pending().boxed(),
            Appends::ConflictAfter(n) => {
                let answer = move |(at, request): (usize, AppendEntriesRequest<TypeConfig>)| {
                    let conflict = || StreamAppendError::Conflict(request.prev_log_id.unwrap());
                    Ok(if at < n { Ok(last(&request)) } else { Err(conflict()) })
                };
                requests.enumerate().map(answer).boxed()
            }
            Appends::AfterAll(n) => {
                let all = async move {
                    let mut answers: Vec<AppendResult> = Vec::new();
                    while answers.len() < n {
                        let Some(request) = requests.next().await else { break };
                        answers.push(Ok(Ok(last(&request))));
                    }
                    stream::iter(answers)
                };
                stream::once(all).flatten().boxed()
            }
        }
    }

    async fn append(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> Result<AppendEntriesResponse<TypeConfig>, EndpointError> {
        self.note(format!("append {:?}", request.prev_log_id.map(|id| id.index)));
        Ok(AppendEntriesResponse::Success)
    }

    async fn vote(&self, request: VoteRequest<TypeConfig>) -> Result<VoteResponse<TypeConfig>, EndpointError> {
        self.note(format!("vote {} {}", request.vote.leader_id.term, request.leadership_transfer));
        Ok(VoteResponse::new(request.vote, None, true))
    }

    async fn pre_vote(&self, request: VoteRequest<TypeConfig>) -> Result<VoteResponse<TypeConfig>, EndpointError> {
        self.note(format!("pre-vote {}", request.vote.leader_id.term));
        Ok(VoteResponse::new(leader_vote(9), Some(log_id(9, 9)), false))
    }

    async fn transfer_leader(
        &self,
        request: TransferLeaderRequest<TypeConfig>,
    ) -> Result<TransferLeaderResponse<TypeConfig>, EndpointError> {
        self.note(format!("transfer to {}", request.to_node_id()));
        Err(EndpointError("stopped".into()))
    }

    async fn install_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, EndpointError> {
        let mut files = BTreeMap::new();
        collect(snapshot.snapshot.path(), Path::new(""), &mut files);
        self.installed.lock().unwrap().push(files);
        Ok(SnapshotResponse::new(vote))
    }
}

pub fn collect(root: &Path, below: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            collect(root, &name, files);
        } else {
            files.insert(name.to_str().unwrap().to_owned(), std::fs::read(entry.path()).unwrap());
        }
    }
}
