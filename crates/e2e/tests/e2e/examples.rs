//! The examples of the client run, and say that they have done what they show.

use drover_testkit::Cluster;
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn every_example_runs_to_its_end() {
    let cluster = Cluster::builder().data_groups(3).start().await.unwrap();
    let endpoint = &cluster.endpoints()[0];
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../client/examples");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert!(names.len() >= 6, "{names:?}");
    for name in names {
        let mut command = Command::new(env!("CARGO"));
        command.args(["run", "--quiet", "--package", "drover-client", "--example", &name, "--", endpoint]);
        let ended = command.output().await.unwrap();
        let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert!(ended.status.success() && !out.is_empty(), "{name}: {out}{err}");
    }
    cluster.assert_replicas_equal().await.unwrap();
}
