//! A server that keeps everything in one map: enough of `Kv` for the command line to have somebody to talk to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use drover_kv::{Error, Expectation, Limits, Reason, ScanLimits, Update, WriteKind};
use drover_wire::proto::v1::kv_server::{Kv, KvServer};
use drover_wire::proto::v1::session_answer::Answer;
use drover_wire::proto::v1::*;
use drover_wire::{Request as Asked, ScanPageRequest};
use futures::{Stream, StreamExt};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::{Request, Response, Status, Streaming};

/// Rows on one page at most: small, so that scans have many.
const PAGE_ROWS: u64 = 7;

#[derive(Default)]
struct Rows {
    versions: BTreeMap<Bytes, Version>,
    clock: u64,
}

#[derive(Clone, Default)]
pub struct Memory {
    rows: Arc<Mutex<Rows>>,
    /// Keys whose writes get no answer but a lost stream.
    losing: Option<&'static str>,
    /// Told of what is asked of [`SILENT`], which gets no answer at all.
    asked: Option<Sender<()>>,
}

/// A key whose requests are never answered.
pub const SILENT: &str = "silent";

impl Memory {
    /// Starts a server on a port of its own, in a thread of its own.
    pub fn start() -> SocketAddr {
        Self::serve(Memory::default())
    }

    /// As [`start`](Self::start); writes to `key` are lost.
    pub fn start_losing(key: &'static str) -> SocketAddr {
        Self::serve(Memory { losing: Some(key), ..Memory::default() })
    }

    /// As [`start`](Self::start); what is asked of the key [`SILENT`], and every removal of a node, is never answered, but told to
    /// the receiver.
    pub fn start_silent() -> (SocketAddr, Receiver<()>) {
        let (sender, asked) = channel();
        // A transaction has a snapshot.
        let rows = Rows { clock: 1 << 16, ..Rows::default() };
        let memory = Memory { rows: Arc::new(Mutex::new(rows)), losing: None, asked: Some(sender) };
        (Self::serve(memory), asked)
    }

    fn serve(memory: Memory) -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async move {
                let incoming =
                    tonic::transport::server::TcpIncoming::from(tokio::net::TcpListener::from_std(listener).unwrap())
                        .with_nodelay(Some(true));
                tonic::transport::Server::builder()
                    .add_service(SilentCluster(memory.asked.clone()))
                    .add_service(KvServer::new(memory).max_decoding_message_size(64 << 20))
                    .serve_with_incoming(incoming)
                    .await
                    .unwrap();
            });
        });
        address
    }

    /// Whether nobody is to get an answer to this.
    fn is_silent(&self, request: &SessionRequest) -> bool {
        let asks_of_silent = |call: &SessionCall| match Asked::try_from(call.clone()) {
            Ok(Asked::Get { key, .. }) => key == SILENT,
            Ok(Asked::BatchGet { keys, .. }) => keys.iter().any(|key| key == SILENT),
            Ok(Asked::Write { kind, .. }) => kind.record_key() == SILENT,
            Ok(Asked::DeleteRange { interval, .. }) => interval.start() == SILENT,
            Ok(Asked::Commit(commit)) => commit.mutations.iter().any(|mutation| mutation.key == SILENT),
            _ => false,
        };
        let silent = self.asked.is_some() && request.calls.iter().any(asks_of_silent);
        if let (true, Some(asked)) = (silent, &self.asked) {
            asked.send(()).unwrap();
        }
        silent
    }

    fn answer_all(&self, request: SessionRequest) -> Result<SessionResponse, Status> {
        let mut rows = self.rows.lock().unwrap();
        let answers = request.calls.into_iter().map(|call| {
            let id = call.id;
            let asked = Asked::try_from(call).map_err(|error| Status::invalid_argument(error.to_string()))?;
            if let (Asked::Write { kind, .. }, Some(losing)) = (&asked, self.losing)
                && kind.record_key() == losing
            {
                return Err(Status::aborted("lost"));
            }
            let answer =
                rows.answer(asked).unwrap_or_else(|error| Answer::Error(drover_wire::error_to_status_bytes(&error)));
            Ok(SessionAnswer { id, leader_hint: 0, answer: Some(answer) })
        });
        Ok(SessionResponse { answers: answers.collect::<Result<_, Status>>()? })
    }
}

impl Rows {
    fn answer(&mut self, asked: Asked) -> Result<Answer, Error> {
        Ok(match asked {
            Asked::Get { key, .. } => {
                Limits::default().check_key(&key)?;
                Answer::Get(GetResponse { version: self.versions.get(&key).cloned(), read_ts: 0 })
            }
            Asked::BatchGet { keys, .. } => {
                let versions = keys
                    .iter()
                    .map(|key| MaybeVersion { version: self.versions.get(key).cloned() })
                    .collect::<Vec<_>>();
                let found = versions.iter().filter_map(|maybe| maybe.version.as_ref());
                Limits::default().check_answer(found.map(|version| version.value.len()).sum())?;
                Answer::BatchGet(BatchGetResponse { versions, read_ts: self.clock })
            }
            Asked::Write { kind, .. } => self.write(kind),
            Asked::Scan(scan) => Answer::Scan(self.scan(&scan)),
            Asked::DeleteRange { interval, .. } => {
                let keys: Vec<Bytes> =
                    self.versions.keys().filter(|key| interval.contains(key)).take(5).cloned().collect();
                keys.iter().for_each(|key| drop(self.versions.remove(key)));
                let cursor = if keys.len() == 5 { Bytes::from("more") } else { Bytes::new() };
                Answer::DeleteRange(DeleteRangeResponse { deleted: keys.len() as u64, cursor, commit_ts: self.clock })
            }
            Asked::Settle { .. } => {
                let verdict = settle_response::Verdict::Never.into();
                Answer::Settle(SettleResponse { verdict, succeeded: false, commit_ts: 0 })
            }
            Asked::LatestCommitTs { .. } | Asked::Commit(_) => {
                return Err(Error::definite(Reason::FailedPrecondition, "not served"));
            }
        })
    }

    fn put(&mut self, key: Bytes, value: Bytes) -> u64 {
        self.clock += 1 << 16;
        self.versions.insert(key, Version { value, commit_ts: self.clock, expire_at: 0 });
        self.clock
    }

    fn write(&mut self, kind: WriteKind) -> Answer {
        match kind {
            WriteKind::Put { key, value, .. } => Answer::Put(PutResponse { commit_ts: self.put(key, value) }),
            WriteKind::Delete { key } => {
                self.clock += 1 << 16;
                self.versions.remove(&key);
                Answer::Delete(DeleteResponse { commit_ts: self.clock })
            }
            WriteKind::CompareAndSet { key, expect, update } => {
                let current = self.versions.get(&key).cloned();
                let holds = match (&expect, &current) {
                    (Expectation::Absent, current) => current.is_none(),
                    (Expectation::Present, current) => current.is_some(),
                    (Expectation::Value(value), current) => current.as_ref().is_some_and(|c| c.value == value),
                    (Expectation::Version(at), current) => current.as_ref().is_some_and(|c| c.commit_ts == at.raw()),
                };
                let commit_ts = match update {
                    _ if !holds => 0,
                    Update::Put { value, .. } => self.put(key, value),
                    Update::Delete => {
                        self.versions.remove(&key);
                        self.clock
                    }
                };
                let current = if holds { None } else { current };
                Answer::CompareAndSet(CompareAndSetResponse { succeeded: holds, commit_ts, current })
            }
            WriteKind::DeleteRange { .. } | WriteKind::Settle { .. } | WriteKind::Txn(_) => {
                unreachable!("decoded as other requests")
            }
        }
    }

    /// One page; the cursor is the last key of the page before.
    fn scan(&self, scan: &ScanPageRequest) -> ScanResponse {
        let ScanLimits { rows, .. } = scan.limits;
        let limit = if rows == 0 { PAGE_ROWS } else { rows.min(PAGE_ROWS) };
        let inside = |(key, _): &(&Bytes, &Version)| scan.interval.contains(key);
        let found: Vec<(&Bytes, &Version)> = match (&scan.cursor, scan.reverse) {
            (None, false) => self.versions.iter().filter(inside).take(limit as usize).collect(),
            (None, true) => self.versions.iter().rev().filter(inside).take(limit as usize).collect(),
            (Some(last), false) => {
                let rest = self.versions.range((Bound::Excluded(last.clone()), Bound::Unbounded));
                rest.filter(inside).take(limit as usize).collect()
            }
            (Some(last), true) => {
                self.versions.range(..last.clone()).rev().filter(inside).take(limit as usize).collect()
            }
        };
        let count = found.len() as u64;
        let cursor = if count == limit { found[found.len() - 1].0.clone() } else { Bytes::new() };
        let shown = if scan.count_only { Vec::new() } else { found };
        let entries = shown.into_iter().map(|(key, version)| {
            let value = if scan.keys_only { Bytes::new() } else { version.value.clone() };
            KeyValue { key: key.clone(), version: Some(Version { value, ..version.clone() }) }
        });
        ScanResponse { entries: entries.collect(), count, cursor, read_ts: self.clock }
    }
}

/// `Cluster`, which serves nothing, and does not even say so to those that want a node removed.
#[derive(Clone)]
struct SilentCluster(Option<Sender<()>>);

impl NamedService for SilentCluster {
    const NAME: &'static str = "drover.v1.Cluster";
}

impl Service<http::Request<Body>> for SilentCluster {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let asked = self.0.clone().filter(|_| request.uri().path().ends_with("/RemoveNode"));
        Box::pin(async move {
            if let Some(asked) = asked {
                asked.send(()).unwrap();
                std::future::pending::<()>().await;
            }
            Ok(Status::unimplemented("there is no cluster").into_http())
        })
    }
}

/// The whole of `Kv`, of which only sessions are served.
macro_rules! serve_sessions_only {
    ($($name:ident: $request:ty => $response:ty),* $(,)?) => {
        #[tonic::async_trait]
        impl Kv for Memory {
            type SessionStream = Pin<Box<dyn Stream<Item = Result<SessionResponse, Status>> + Send>>;

            async fn session(
                &self,
                request: Request<Streaming<SessionRequest>>,
            ) -> Result<Response<Self::SessionStream>, Status> {
                let this = self.clone();
                let answers = request.into_inner().filter_map(move |request| {
                    let answer = match request {
                        Ok(request) if this.is_silent(&request) => None,
                        request => Some(request.and_then(|request| this.answer_all(request))),
                    };
                    std::future::ready(answer)
                });
                Ok(Response::new(Box::pin(answers)))
            }

            $(async fn $name(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                Err(Status::unimplemented("the client uses sessions"))
            })*
        }
    };
}

serve_sessions_only! {
    get: GetRequest => GetResponse,
    batch_get: BatchGetRequest => BatchGetResponse,
    put: PutRequest => PutResponse,
    delete: DeleteRequest => DeleteResponse,
    compare_and_set: CompareAndSetRequest => CompareAndSetResponse,
    scan: ScanRequest => ScanResponse,
    delete_range: DeleteRangeRequest => DeleteRangeResponse,
    latest_commit_ts: LatestCommitTsRequest => LatestCommitTsResponse,
    settle: SettleRequest => SettleResponse,
}
