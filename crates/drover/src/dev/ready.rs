//! Waits until nodes say that they are ready.

use std::time::Duration;

use anyhow::bail;
use drover_keys::NodeId;
use drover_server::config::Address;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

const POLL_INTERVAL: Duration = Duration::from_millis(50);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Completes when all nodes have said that they are ready.
///
/// # Errors
/// If one has not within the bound; says what it said instead.
pub async fn wait_all(nodes: Vec<(NodeId, Address)>, bound: Duration) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + bound;
    for (id, admin) in nodes {
        while let Err(answer) = ask(&admin).await {
            if tokio::time::Instant::now() >= deadline {
                bail!("node {id} is not ready after {bound:?}: http://{admin}/readyz answers: {answer}");
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
    Ok(())
}

/// Makes sure that nobody uses the addresses of a node that is about to be started.
///
/// # Errors
/// With the one that is in use.
pub fn expect_nobody(node: NodeId, addresses: [&Address; 2]) -> anyhow::Result<()> {
    for address in addresses {
        if let Err(error) = std::net::TcpListener::bind(address.as_str()) {
            bail!(
                "node {node} cannot listen on {address}: {error}; stop what uses it, or choose another --base-port; nothing was started"
            );
        }
    }
    Ok(())
}

/// Asks once; what it said instead if the node is not ready.
async fn ask(admin: &Address) -> Result<(), String> {
    match tokio::time::timeout(ANSWER_TIMEOUT, get(admin)).await {
        Ok(Ok((200, _))) => Ok(()),
        Ok(Ok((status, body))) => Err(format!("{status} {body}")),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(_) => Err("nothing in time".to_owned()),
    }
}

async fn get(admin: &Address) -> anyhow::Result<(u16, String)> {
    let client: Client<_, Empty<bytes::Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.get(format!("http://{admin}/readyz").parse()?).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
