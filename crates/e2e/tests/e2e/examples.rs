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
    // Of the whole workspace: the client alone has dependencies with fewer features, and they would all be compiled once more.
    let tests = std::env::current_exe().unwrap();
    let profile = tests.parent().and_then(|deps| deps.parent()).unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--workspace", "--examples", "--target-dir"]).arg(profile.parent().unwrap());
    assert!(build.status().await.unwrap().success());
    for name in names {
        let ended = Command::new(profile.join("examples").join(&name)).arg(endpoint).output().await.unwrap();
        let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert!(ended.status.success() && !out.is_empty(), "{name}: {out}{err}");
    }
    cluster.assert_replicas_equal().await.unwrap();
}
