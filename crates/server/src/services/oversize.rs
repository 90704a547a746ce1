//! Messages that are larger than this node reads: nothing of them was looked at, and whoever sent one is told so.

use drover_kv::{Error, Reason};
use drover_wire::error_to_status;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::{Code, Status};

/// What to tell instead of what gRPC itself says of a message that is too large to be read; `None` if this is something else.
pub fn refusal(said: &Status) -> Option<Status> {
    // Whatever this node says by itself carries details.
    let unread = said.code() == Code::OutOfRange && said.details().is_empty();
    let message = format!(
        "the message is larger than any that keeps to the limits on requests (limits.batch_bytes), and was not read: {}; nothing \
         was changed",
        said.message()
    );
    unread.then(|| error_to_status(&Error::definite(Reason::BatchTooLarge, message)))
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
            (ours, None),
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
