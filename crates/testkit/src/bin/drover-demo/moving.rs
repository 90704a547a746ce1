//! The second half of the demonstration: half of a group's records, with pages that make it the largest part of the data, moves to
//! another group while clients write and read it, and the node that drives the move is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use drover_bench::{Clients, Flaws, MoveTerms, Moved, Rows, Seen, Stage, Traffic, load, move_range, verify};
use drover_client::Client;
use drover_keys::{GroupId, Interval, NodeId};
use drover_testkit::Cluster;
use drover_testkit::cluster::PATIENCE;
use drover_testkit::wait::wait_until;
use indicatif::ProgressBar;

use crate::story::{Records, spinner};

/// Size of a page.
const PAGE_BYTES: usize = 4_096;
/// Half of the clients write, half of them read.
const CLIENTS: Clients = Clients { writers: 4, readers: 4, keys: 1 };
const WARM_UP: Duration = Duration::from_secs(1);
const BASELINE: Duration = Duration::from_secs(3);

/// What moves.
#[derive(Debug)]
pub struct Half {
    /// The upper half of the records of a route.
    pub interval: Interval,
    /// Pages come behind its first key, and before the next.
    pub pages: Bytes,
    /// Who has it.
    pub source: GroupId,
    /// Who gets it.
    pub target: GroupId,
}

impl Half {
    /// The upper half of the records of this route, by number.
    pub fn of(route: &Interval, source: GroupId, target: GroupId, records: &Records) -> Result<Half> {
        let mut keys: Vec<&Bytes> = records.iter().map(|(key, _)| key).filter(|key| route.contains(key)).collect();
        keys.sort_unstable();
        let first = *keys.get(keys.len() / 2).context("the route holds no records")?;
        let pages = [&first[..], b"/page/"].concat().into();
        Ok(Half { interval: Interval::new(first.clone(), route.end().clone())?, pages, source, target })
    }
}

/// What the move came to.
#[derive(Debug)]
pub struct MoveOutcome {
    /// The move.
    pub moved: Moved,
    /// Bytes of the pages.
    pub page_bytes: u64,
    /// The node that led the default group, and so drove the move.
    pub killed: NodeId,
    /// Bytes that had been copied by then.
    pub killed_after_bytes: u64,
    /// What clients saw.
    pub seen: Seen,
    /// What reading the pages back found.
    pub flaws: Flaws,
}

/// Moves a half under traffic and kills the leader of the default group when a quarter is copied.
pub async fn move_half(cluster: &Cluster, client: &Client, half: &Half, megabytes: u64) -> Result<MoveOutcome> {
    let prefix = half.pages.clone();
    let rows = Rows::new(megabytes * 1_000_000 / PAGE_BYTES as u64, PAGE_BYTES, move |n| {
        [&prefix[..], format!("{n:08}").as_bytes()].concat().into()
    });
    let bar = ProgressBar::new(rows.bytes()).with_message("loading pages");
    let shown = bar.clone();
    load(client, &rows, move |bytes| shown.inc(bytes)).await.map_err(|error| anyhow!("loading pages: {error}"))?;
    bar.finish_and_clear();

    let killed = lone_leader(cluster, half).await?;
    let stage = Stage::default();
    let traffic = Traffic::start(client, &rows, CLIENTS, &stage);
    let bar = spinner("eight clients write and read the pages");
    tokio::time::sleep(WARM_UP).await;
    stage.advance();
    tokio::time::sleep(BASELINE).await;
    stage.advance();
    bar.set_message("the range moves");
    let copied = Arc::new(AtomicU64::new(0));
    let moving = async {
        stage.advance();
        let moved = move_range(client, &half.interval, half.target, MoveTerms::default(), "demo", |status| {
            let bytes = status.progress.as_ref().map_or(0, |progress| progress.bytes_copied);
            copied.fetch_max(bytes, Ordering::SeqCst);
        });
        let moved = moved.await;
        stage.advance();
        anyhow::Ok(moved?)
    };
    let killing = kill_and_restart(cluster, killed, &copied, rows.bytes() / 4);
    let (moved, killed_after_bytes) = tokio::try_join!(moving, killing)?;
    ensure!(killed_after_bytes < rows.bytes(), "the copy was over before node {killed} was killed");
    let seen = traffic.end().await?;
    bar.finish_with_message("the range was moved");
    cluster.wait_ready(PATIENCE).await?;
    let flaws = verify(client, &rows, || {}).await.map_err(|error| anyhow!("reading pages back: {error}"))?;
    Ok(MoveOutcome { moved, page_bytes: rows.bytes(), killed, killed_after_bytes, seen, flaws })
}

/// Lets a node lead the default group that leads neither source nor target: clients then see what the move costs them, and not
/// an election of the groups that serve them, which the first half shows.
async fn lone_leader(cluster: &Cluster, half: &Half) -> Result<NodeId> {
    let busy = [cluster.leader(half.source, PATIENCE).await?, cluster.leader(half.target, PATIENCE).await?];
    let lone = cluster.node_ids().into_iter().find(|node| !busy.contains(node)).context("every node leads")?;
    cluster.lead(GroupId::DEFAULT, lone, PATIENCE).await?;
    Ok(lone)
}

/// Kills the node when so many bytes are copied, and starts it again when another leads; how many were copied.
async fn kill_and_restart(cluster: &Cluster, node: NodeId, copied: &AtomicU64, bytes: u64) -> Result<u64> {
    wait_until("a quarter to be copied", PATIENCE, async || match copied.load(Ordering::SeqCst) {
        now if now >= bytes => Ok(()),
        now => Err(format!("{now} bytes")),
    })
    .await?;
    cluster.node(node).kill()?;
    let killed_after = copied.load(Ordering::SeqCst);
    cluster.leader(GroupId::DEFAULT, PATIENCE).await?;
    cluster.node(node).start()?;
    Ok(killed_after)
}

#[cfg(test)]
mod tests {
    use drover_keys::End;

    use super::*;

    #[test]
    fn the_upper_half_of_a_route_moves_and_the_pages_lie_in_it() {
        let records: Records = ["0041", "0042", "0043", "0044", "0045"].map(|key| (key.into(), Bytes::new())).into();
        let route = Interval::new("0042", End::Unbounded).unwrap();
        let half = Half::of(&route, GroupId(2), GroupId(3), &records).unwrap();
        assert_eq!((half.interval.start(), half.interval.end()), (&Bytes::from("0044"), &End::Unbounded));
        assert!(half.interval.contains(&half.pages) && half.pages < "0045");
        assert!(Half::of(&Interval::new("1", End::Unbounded).unwrap(), GroupId(2), GroupId(3), &records).is_err());
    }
}
