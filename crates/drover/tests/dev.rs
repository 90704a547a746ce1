//! Starts of `drover dev` that are refused: with the code that says why, and without a trace.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

fn dev(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
    command.arg("dev").arg("--data").arg(data).args(args);
    command
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// The refusal of a start, which prints nothing to standard output.
fn refused(mut command: Command) -> (i32, String) {
    let output = command.output().unwrap();
    assert!(output.stdout.is_empty(), "{output:?}");
    (output.status.code().unwrap(), err(&output).to_owned())
}

/// A port whose number of neighbours above is free as well, with the listener that holds it.
fn taken_port() -> (TcpListener, u16) {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        if port < 60_000 {
            return (listener, port);
        }
    }
}

#[test]
fn wrong_options_are_wrong_usage_and_leave_no_trace() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("some/where");
    let table: [(&[&str], &str); 6] = [
        (&["--split-at", "b,a"], "ascending order"),
        (&["--split-at", "a"], "3 data groups need 2"),
        (&["--split-at", "\\q,r"], "--split-at \\q"),
        (&["--data-groups", "27"], "there are only 26 letters"),
        (&["--base-port", "65535"], "there are not enough ports above it"),
        (&["--nodes", "0"], "0 is not in 1..=99"),
    ];
    for (args, why) in table {
        let (code, told) = refused(dev(&data, args));
        assert_eq!(code, 2, "{args:?}: {told}");
        assert!(told.contains(why), "{args:?}: {told}");
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0, "{args:?}");
    }
    let mut command = dev(&data, &[]);
    command.env("DROVER_RAFT_HEARTBEAT_MS", "often");
    let (code, told) = refused(command);
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("DROVER_RAFT_HEARTBEAT_MS"), "{told}");
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
}

#[test]
fn ports_that_somebody_else_uses_are_named_before_anything_is_started() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    let (listener, port) = taken_port();
    // The health port of node 2.
    let base = (port - 3).to_string();
    let (code, told) = refused(dev(&data, &["--base-port", &base]));
    assert_eq!(code, 5, "{told}");
    let named = format!("node 2 cannot listen on 127.0.0.1:{port}:");
    assert!(told.contains(&named) && told.contains("nothing was started"), "{told}");
    assert!(!data.exists());
    // Nobody was taken for a node.
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);

    // What was there before stays as it was.
    std::fs::create_dir(&data).unwrap();
    let plan =
        format!(r#"{{"cluster_id":"{}","nodes":3,"data_groups":1,"base_port":{base},"split_at":[]}}"#, "05".repeat(16));
    std::fs::write(data.join("plan.json"), &plan).unwrap();
    let (code, told) = refused(dev(&data, &[]));
    assert_eq!(code, 5, "{told}");
    assert!(told.contains(&named), "{told}");
    let (code, told) = refused(dev(&data, &["--nodes", "4"]));
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("--nodes 4 contradicts it (3)"), "{told}");
    let left: Vec<_> = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["plan.json"]);
    assert_eq!(std::fs::read_to_string(data.join("plan.json")).unwrap(), plan);
}
