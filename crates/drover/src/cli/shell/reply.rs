//! What a line that failed leaves on the screen, and as JSON.

use drover_client::{Certainty, Error};
use serde_json::{Value, json};

use super::super::exit::End;
use super::super::output::Output;
use super::super::{Global, notice, told};

/// Complains on standard error; with `--json` the failure is the line's one object on standard output as well.
///
/// # Errors
/// If the reader of standard output is gone.
pub fn complain(global: &Global, output: &mut Output, error: &anyhow::Error, end: End) -> std::io::Result<()> {
    if global.json {
        output.json(&failure_json(error, end))?;
    }
    // What was printed before stands before it.
    output.flush()?;
    notice(&format!("error: {}", told(error)));
    Ok(())
}

fn failure_json(error: &anyhow::Error, end: End) -> Value {
    let message = told(error);
    let found = error.chain().find_map(|cause| cause.downcast_ref::<Error>());
    let error = match found {
        Some(error) => {
            let certainty = match error.certainty {
                Certainty::Definite => "definite",
                Certainty::Unknown => "unknown",
            };
            json!({ "reason": error.reason.as_str(), "certainty": certainty, "message": message })
        }
        None => json!({ "message": message }),
    };
    json!({ "error": error, "exit_code": end.code() })
}

#[cfg(test)]
mod tests {
    use drover_client::Reason;

    use super::super::super::exit::{UsageError, end_of};
    use super::*;

    #[test]
    fn a_failure_is_one_object_with_the_exit_code_that_it_would_have() {
        let shown = |error: anyhow::Error| failure_json(&error, end_of(&error));
        let unknown = anyhow::Error::from(Error::unknown(Reason::Unavailable, "gone")).context("line 3");
        let expect = json!({
            "error": { "reason": "UNAVAILABLE", "certainty": "unknown", "message": "line 3: UNAVAILABLE: gone" },
            "exit_code": 3,
        });
        assert_eq!(shown(unknown), expect);
        let usage = json!({ "error": { "message": "no" }, "exit_code": 2 });
        assert_eq!(shown(UsageError("no".to_owned()).into()), usage);
    }
}
