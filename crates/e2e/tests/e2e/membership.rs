//! What the catalog knows of nodes, groups and versions, and what it refuses.

use drover_client::{Client, CompatAction, CompatOutcome, NodeId, Reason, ReplicaState};
use drover_testkit::Cluster;
use drover_testkit::cluster::PATIENCE;
use drover_testkit::wait::wait_until;

const ME: &str = "test";

/// Waits until every node has registered and is live.
async fn all_live(client: &Client, count: usize) {
    wait_until("all nodes to be registered", PATIENCE, || async {
        let nodes = client.nodes().await.map_err(|error| error.to_string())?;
        let live = nodes.iter().filter(|node| node.live).count();
        if live == count { Ok(()) } else { Err(format!("{live} are live")) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_register_and_the_catalog_tells_nodes_groups_and_who_did_what() {
    let cluster = Cluster::builder().start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    all_live(&client, 3).await;
    let nodes = client.nodes().await.unwrap();
    for (node, id) in nodes.iter().zip(cluster.node_ids()) {
        assert_eq!((node.node_id, &node.grpc_address), (id.0, &cluster.node(id).grpc_address()));
        assert!(node.version.is_some() && !node.capabilities.is_empty() && !node.draining);
        assert!(node.groups.contains(&1));
    }
    for group in client.groups().await.unwrap() {
        assert_eq!(group.replicas.len(), 3);
        assert!(group.replicas.iter().all(|replica| replica.votes && replica.state() == ReplicaState::Active));
    }

    assert!(client.drain_node(NodeId(2), true, ME).await.unwrap());
    assert!(!client.drain_node(NodeId(2), true, ME).await.unwrap(), "it drains already");
    assert!(client.nodes().await.unwrap()[1].draining);
    assert!(client.drain_node(NodeId(2), false, ME).await.unwrap());
    for (node, reason) in [(NodeId(2), Reason::FailedPrecondition), (NodeId(9), Reason::UnknownNode)] {
        let error = client.remove_node(node, ME).await.unwrap_err();
        assert_eq!((error.reason, error.is_unknown()), (reason, false), "{error}");
    }
    assert_eq!(client.drain_node(NodeId(9), true, ME).await.unwrap_err().reason, Reason::UnknownNode);

    let events = client.audit_events(100).await.unwrap();
    assert!(events.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
    assert_eq!(events.iter().filter(|event| event.actor == ME).count(), 3, "{events:?}");
    assert!(events.iter().any(|event| event.actor == "bootstrap"), "{events:?}");
    assert_eq!(client.audit_events(1).await.unwrap(), events[events.len() - 1..]);
    assert_eq!(client.nodes().await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_of_the_cluster_is_frozen_and_let_go_as_a_whole_and_every_look_at_it_is_noted() {
    let cluster = Cluster::builder().start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    let early = client.compat(CompatAction::Freeze, ME).await;
    if let Err(error) = early {
        assert_eq!(error.reason, Reason::FailedPrecondition, "nothing is known yet that could be frozen: {error}");
    }
    client.compat(CompatAction::Unfreeze, ME).await.unwrap();
    let known = wait_until("the cluster's version", PATIENCE, || async {
        let state = client.compat(CompatAction::Show, ME).await.map_err(|error| error.to_string())?;
        state.cluster_version.ok_or("not known yet".to_owned())
    })
    .await
    .unwrap();
    let run = async |action| client.compat(action, ME).await.unwrap();
    for (action, outcome, frozen) in [
        (CompatAction::Unfreeze, CompatOutcome::NothingFrozen, false),
        (CompatAction::Freeze, CompatOutcome::Frozen, true),
        (CompatAction::Freeze, CompatOutcome::AlreadyFrozen, true),
        (CompatAction::Show, CompatOutcome::Read, true),
        (CompatAction::Unfreeze, CompatOutcome::Unfrozen, false),
        (CompatAction::Unfreeze, CompatOutcome::NothingFrozen, false),
    ] {
        let state = run(action).await;
        assert_eq!((state.outcome(), state.freeze.is_some()), (outcome, frozen), "{action:?}");
        assert_eq!(state.cluster_version.as_ref(), Some(&known));
        assert_eq!(state.high_water.as_ref(), Some(&known));
        assert_eq!(state.nodes.len(), 3);
        assert!(state.nodes.iter().all(|node| node.live && !node.capabilities.is_empty()));
        if let Some(freeze) = state.freeze {
            assert_eq!((freeze.by.as_str(), freeze.version.as_ref()), (ME, Some(&known)));
        }
    }
    let events = client.audit_events(6).await.unwrap();
    assert_eq!(events.iter().filter(|event| event.actor == ME).count(), 6, "{events:?}");
}
