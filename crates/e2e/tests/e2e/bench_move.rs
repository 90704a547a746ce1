//! `drover bench move` against a running cluster: what it reports, and how it ends.

use std::process::Output;

use drover_client::{End, Interval};
use drover_testkit::Cluster;
use drover_testkit::cluster::drover_binary;
use serde_json::Value;
use tokio::process::Command;

async fn bench(cluster: &Cluster, options: &str) -> Output {
    let mut command = Command::new(drover_binary().unwrap());
    command.args(["bench", "move"]).args(options.split_whitespace());
    command.env("DROVER_ENDPOINTS", cluster.endpoints().join(",")).kill_on_drop(true);
    command.output().await.unwrap()
}

async fn report(cluster: &Cluster, options: &str) -> Value {
    let ended = bench(cluster, &format!("{options} --json")).await;
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    serde_json::from_slice(&ended.stdout).unwrap()
}

/// How many rows of measurements there are.
async fn left(cluster: &Cluster) -> u64 {
    let rows = Interval::new("bench-move/", End::Key("bench-move0".into())).unwrap();
    cluster.client().await.unwrap().count(rows, None).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_moves_there_and_back_and_the_report_says_what_clients_saw() {
    let cluster = Cluster::builder().data_groups(2).start().await.unwrap();
    let used = report(&cluster, "--megabytes 1 --moves 2 --clients 2 --seconds 1 --warm-up 1ms").await;
    for name in ["errors", "missing", "wrong"] {
        assert_eq!(used[name], 0, "{used}");
    }
    let moves = used["each"].as_array().unwrap();
    let path = |at: usize| (moves[at]["source"].as_u64().unwrap(), moves[at]["target"].as_u64().unwrap());
    assert_eq!((moves.len(), path(0)), (2, (path(1).1, path(1).0)), "{used}");
    for name in ["acknowledged", "write_before_count", "read_during_count", "write_pause_max_us", "read_pause_max_us"] {
        assert!(used[name].as_u64().unwrap() > 0, "{name}: {used}");
    }
    assert_eq!((&used["rows"], left(&cluster).await), (&976.into(), 0));

    let idle = report(&cluster, "--megabytes 1 --moves 1 --clients 0 --keep --max-rate 0").await;
    assert_eq!(
        (&idle["write_pause_max_us"], &idle["acknowledged"], &idle["errors"]),
        (&Value::Null, &0.into(), &0.into())
    );
    assert!(idle["copy_to_load"].as_f64().unwrap() > 0.0, "{idle}");
    assert_eq!(left(&cluster).await, 976);
    cluster.assert_replicas_equal().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_has_no_other_group_is_told_so() {
    let cluster = Cluster::builder().data_groups(1).start().await.unwrap();
    for options in ["", "--to-group 2"] {
        let ended = bench(&cluster, options).await;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(2), "{said}");
        assert!(said.contains("there has to be another group"), "{said}");
    }
    assert_eq!(left(&cluster).await, 0);
}
