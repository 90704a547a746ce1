use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use drover_keys::NodeId;
use drover_kv::{Certainty, Error, Reason};
use prost::Message;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// `google.rpc.ErrorInfo.domain` of every error this project makes.
pub const ERROR_DOMAIN: &str = "drover.v1";

/// Longest message that is sent, in bytes. A status travels in HTTP trailers, in which much more does not fit.
const MESSAGE_BYTES: usize = 1_024;

const CERTAINTY: &str = "certainty";
const DEFINITE: &str = "definite";
const UNKNOWN: &str = "unknown";
const LEADER_HINT: &str = "leader_hint";
const RETRY_AFTER_MS: &str = "retry_after_ms";

/// The gRPC code of a reason. Fixed for good: callers without our error details act on it.
pub fn code_of(reason: Reason) -> Code {
    match reason {
        Reason::KeyEmpty
        | Reason::KeyTooLarge
        | Reason::ValueTooLarge
        | Reason::BatchTooLarge
        | Reason::RangeReversed
        | Reason::InvalidArgument
        | Reason::CursorInvalid => Code::InvalidArgument,
        Reason::UnknownGroup | Reason::UnknownNode | Reason::UnknownRoute | Reason::UnknownJob => Code::NotFound,
        Reason::VersionMismatch => Code::Aborted,
        Reason::WrongCluster
        | Reason::WrongNode
        | Reason::IdempotencyExpired
        | Reason::IdempotencySettled
        | Reason::IdempotencyReused
        | Reason::TxnReused
        | Reason::FailedPrecondition => Code::FailedPrecondition,
        Reason::NotLeader
        | Reason::Unavailable
        | Reason::RouteMoved
        | Reason::CutoverPending
        | Reason::StaleRoute
        | Reason::RouteFenced
        | Reason::ShuttingDown
        | Reason::ReplicaStopped => Code::Unavailable,
        Reason::TimestampTooLow | Reason::Locked | Reason::TxnConflict | Reason::TxnAborted => Code::Aborted,
        Reason::SnapshotTooOld | Reason::TimestampInFuture | Reason::TxnTooOld => Code::OutOfRange,
        Reason::Timeout => Code::DeadlineExceeded,
        Reason::TimeoutIndefinite => Code::Unknown,
        Reason::Overloaded | Reason::DiskFull => Code::ResourceExhausted,
        Reason::Internal => Code::Internal,
    }
}

/// The reason of a status that carries none.
fn reason_of(code: Code) -> Reason {
    match code {
        Code::InvalidArgument | Code::OutOfRange => Reason::InvalidArgument,
        Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition | Code::Unimplemented => {
            Reason::FailedPrecondition
        }
        Code::PermissionDenied | Code::Unauthenticated => Reason::FailedPrecondition,
        Code::Unavailable | Code::Cancelled | Code::Aborted => Reason::Unavailable,
        Code::DeadlineExceeded | Code::Unknown => Reason::TimeoutIndefinite,
        Code::ResourceExhausted => Reason::Overloaded,
        Code::Ok | Code::Internal | Code::DataLoss => Reason::Internal,
    }
}

/// An error as a gRPC status with `google.rpc` details: `ErrorInfo` always, `RetryInfo` if a retry time is known. Messages
/// are cut at 1,024 bytes.
pub fn error_to_status(error: &Error) -> Status {
    let certainty = match error.certainty {
        Certainty::Definite => DEFINITE,
        Certainty::Unknown => UNKNOWN,
    };
    let mut metadata = HashMap::from([(CERTAINTY.to_owned(), certainty.to_owned())]);
    if let Some(node) = error.leader_hint {
        metadata.insert(LEADER_HINT.to_owned(), node.to_string());
    }
    if let Some(ms) = error.retry_after_ms {
        metadata.insert(RETRY_AFTER_MS.to_owned(), ms.to_string());
    }
    let mut details = ErrorDetails::with_error_info(error.reason.as_str(), ERROR_DOMAIN, metadata);
    if let Some(ms) = error.retry_after_ms {
        details.set_retry_info(Some(Duration::from_millis(ms)));
    }
    Status::with_error_details(code_of(error.reason), cut(&error.message), details)
}

/// An error from a gRPC status. A status without our details, or with ones that cannot be read, is of unknown
/// certainty.
pub fn status_to_error(status: &Status) -> Error {
    let Some(info) = status.get_details_error_info().filter(|info| info.domain == ERROR_DOMAIN) else {
        return Error::unknown(reason_of(status.code()), status.message());
    };
    let certainty = match info.metadata.get(CERTAINTY).map(String::as_str) {
        Some(DEFINITE) => Certainty::Definite,
        _ => Certainty::Unknown,
    };
    let number = |name: &str| info.metadata.get(name).and_then(|text| text.parse::<u64>().ok());
    Error {
        reason: Reason::parse(&info.reason).unwrap_or_else(|| reason_of(status.code())),
        message: status.message().to_owned(),
        certainty,
        retry_after_ms: number(RETRY_AFTER_MS),
        leader_hint: number(LEADER_HINT).map(NodeId),
        lock: None,
    }
}

/// An error as an encoded `google.rpc.Status`, for errors inside a stream.
pub fn error_to_status_bytes(error: &Error) -> Bytes {
    Bytes::copy_from_slice(error_to_status(error).details())
}

/// An error from an encoded `google.rpc.Status`. Bytes that are none give an internal error of unknown certainty.
pub fn status_bytes_to_error(bytes: &Bytes) -> Error {
    match tonic_types::Status::decode(bytes.clone()) {
        Ok(status) => {
            let code = Code::from_i32(status.code);
            status_to_error(&Status::with_details(code, status.message, bytes.clone()))
        }
        Err(error) => Error::unknown(Reason::Internal, format!("the peer sent an error that cannot be read: {error}")),
    }
}

fn cut(message: &str) -> &str {
    &message[..message.floor_char_boundary(MESSAGE_BYTES)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::strategies;

    #[test]
    fn each_reason_has_its_code_for_good() {
        let table = [
            ("KEY_EMPTY", Code::InvalidArgument),
            ("KEY_TOO_LARGE", Code::InvalidArgument),
            ("VALUE_TOO_LARGE", Code::InvalidArgument),
            ("BATCH_TOO_LARGE", Code::InvalidArgument),
            ("RANGE_REVERSED", Code::InvalidArgument),
            ("INVALID_ARGUMENT", Code::InvalidArgument),
            ("CURSOR_INVALID", Code::InvalidArgument),
            ("UNKNOWN_GROUP", Code::NotFound),
            ("UNKNOWN_NODE", Code::NotFound),
            ("UNKNOWN_ROUTE", Code::NotFound),
            ("UNKNOWN_JOB", Code::NotFound),
            ("VERSION_MISMATCH", Code::Aborted),
            ("WRONG_CLUSTER", Code::FailedPrecondition),
            ("WRONG_NODE", Code::FailedPrecondition),
            ("NOT_LEADER", Code::Unavailable),
            ("UNAVAILABLE", Code::Unavailable),
            ("ROUTE_MOVED", Code::Unavailable),
            ("CUTOVER_PENDING", Code::Unavailable),
            ("STALE_ROUTE", Code::Unavailable),
            ("ROUTE_FENCED", Code::Unavailable),
            ("TIMESTAMP_TOO_LOW", Code::Aborted),
            ("SNAPSHOT_TOO_OLD", Code::OutOfRange),
            ("TIMESTAMP_IN_FUTURE", Code::OutOfRange),
            ("LOCKED", Code::Aborted),
            ("TXN_CONFLICT", Code::Aborted),
            ("TXN_ABORTED", Code::Aborted),
            ("TXN_TOO_OLD", Code::OutOfRange),
            ("TXN_REUSED", Code::FailedPrecondition),
            ("TIMEOUT", Code::DeadlineExceeded),
            ("TIMEOUT_INDEFINITE", Code::Unknown),
            ("IDEMPOTENCY_EXPIRED", Code::FailedPrecondition),
            ("IDEMPOTENCY_SETTLED", Code::FailedPrecondition),
            ("IDEMPOTENCY_REUSED", Code::FailedPrecondition),
            ("OVERLOADED", Code::ResourceExhausted),
            ("DISK_FULL", Code::ResourceExhausted),
            ("SHUTTING_DOWN", Code::Unavailable),
            ("REPLICA_STOPPED", Code::Unavailable),
            ("FAILED_PRECONDITION", Code::FailedPrecondition),
            ("INTERNAL", Code::Internal),
        ];
        let listed: Vec<Reason> = table.iter().filter_map(|(name, _)| Reason::parse(name)).collect();
        assert_eq!(listed, Reason::ALL, "a reason is missing here, or the order differs");
        for (name, code) in table {
            assert_eq!(code_of(Reason::parse(name).unwrap()), code, "{name}");
        }
    }

    #[test]
    fn the_details_are_those_that_other_grpc_libraries_read() {
        let error = Error::unknown(Reason::NotLeader, "no").retry_after_ms(25).leader_hint(Some(NodeId(3)));
        let details = error_to_status(&error).get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("NOT_LEADER", "drover.v1"));
        let expect = [("certainty", "unknown"), ("leader_hint", "3"), ("retry_after_ms", "25")];
        assert_eq!(info.metadata, expect.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_millis(25)));
    }

    #[test]
    fn a_foreign_status_is_never_taken_for_a_definite_error() {
        for code in (0..17).map(Code::from_i32) {
            assert!(status_to_error(&Status::new(code, "from a proxy")).is_unknown(), "{code:?}");
        }
        let metadata = HashMap::from([("certainty".to_owned(), "definite".to_owned())]);
        let foreign = ErrorDetails::with_error_info("TIMEOUT", "example.com", metadata.clone());
        assert!(status_to_error(&Status::with_error_details(Code::Aborted, "", foreign)).is_unknown());
        let newer = ErrorDetails::with_error_info("REASON_OF_THE_FUTURE", ERROR_DOMAIN, metadata);
        let error = status_to_error(&Status::with_error_details(Code::Unavailable, "", newer));
        assert_eq!((error.reason, error.is_unknown()), (Reason::Unavailable, false));
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let error = Error::definite(Reason::Internal, "é".repeat(5_000));
        let back = status_to_error(&error_to_status(&error));
        assert_eq!(back.message, "é".repeat(512));
    }

    proptest! {
        #[test]
        fn errors_round_trip_as_status_and_as_bytes(error in strategies::error()) {
            prop_assert_eq!(&status_to_error(&error_to_status(&error)), &error);
            prop_assert_eq!(&status_bytes_to_error(&error_to_status_bytes(&error)), &error);
        }

        #[test]
        fn arbitrary_bytes_decode_to_an_error_without_panic(bytes: Vec<u8>) {
            let _ = status_bytes_to_error(&bytes.clone().into());
            let _ = status_to_error(&Status::with_details(Code::Internal, "", bytes.into()));
        }
    }
}
