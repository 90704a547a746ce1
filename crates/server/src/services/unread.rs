//! Messages that this node does not read, because they are too large or are not what the method takes: nothing of them was looked at,
//! and whoever sent one is told so.

use drover_kv::{Error, Reason};
use drover_wire::error_to_status;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::{Code, Status};

/// What the gRPC library says of a request that it cannot make sense of, before any service sees it.
const UNREADABLE: [&str; 4] = [
    "failed to decode Protobuf message",
    "protocol error: received message with",
    "Unexpected EOF decoding stream",
    "Missing request message",
];

/// What to tell instead of what gRPC itself says of a message that was not read; `None` if this is something else.
pub fn refusal(said: &Status) -> Option<Status> {
    // Whatever this node says by itself carries details.
    if !said.details().is_empty() {
        return None;
    }
    let said_of_it = said.message();
    let (reason, what) = match said.code() {
        Code::OutOfRange => (
            Reason::BatchTooLarge,
            "the message is larger than any that keeps to the limits on requests (limits.batch_bytes), and was not read",
        ),
        Code::Internal if UNREADABLE.iter().any(|known| said_of_it.starts_with(known)) => (
            Reason::InvalidArgument,
            "the bytes of the message are not a request of this method, and nothing of it was looked at",
        ),
        _ => return None,
    };
    let message = format!("{what}: {said_of_it}; nothing was changed");
    Some(error_to_status(&Error::definite(reason, message)))
}

/// An answer, with what this module says in place of what gRPC does.
pub fn told(answer: http::Response<Body>) -> http::Response<Body> {
    let said = Status::from_header_map(answer.headers());
    match said.as_ref().and_then(refusal) {
        Some(status) => status.into_http(),
        None => answer,
    }
}

#[cfg(test)]
mod tests {
    use drover_wire::status_to_error;

    use super::*;

    #[test]
    fn a_message_that_was_not_read_is_refused_for_good_and_whatever_else_is_said_stays_as_it_is() {
        let ours = error_to_status(&Error::definite(Reason::Timeout, "late"));
        let table = [
            (Status::out_of_range("found 9 bytes, the limit is: 8 bytes"), Some(Reason::BatchTooLarge)),
            (Status::new(Code::OutOfRange, "x"), Some(Reason::BatchTooLarge)),
            (Status::with_details(Code::OutOfRange, "ours", ours.details().to_vec().into()), None),
            (ours.clone(), None),
            (Status::internal("failed to decode Protobuf message: invalid varint"), Some(Reason::InvalidArgument)),
            (Status::internal("Unexpected EOF decoding stream."), Some(Reason::InvalidArgument)),
            (Status::internal("Missing request message."), Some(Reason::InvalidArgument)),
            (Status::with_details(Code::Internal, "failed to decode Protobuf", ours.details().to_vec().into()), None),
            (Status::unknown("failed to decode Protobuf message: x"), None),
            (Status::internal("a bug"), None),
        ];
        for (said, expect) in table {
            let told = told(said.clone().into_http());
            let error = status_to_error(&Status::from_header_map(told.headers()).unwrap());
            match expect {
                Some(reason) => {
                    assert_eq!((error.reason, error.is_unknown()), (reason, false), "{said:?}");
                    assert!(error.message.contains(said.message()), "{error}");
                }
                None => assert_eq!(error, status_to_error(&said), "{said:?}"),
            }
        }
        assert!(Status::from_header_map(told(http::Response::new(Body::empty())).headers()).is_none());
    }
}
