//! As much of etcd's gRPC API as a comparison needs: `etcdserverpb.KV` `Put` and `Range`, the messages written by hand
//! after `rpc.proto` and `kv.proto` of etcd 3.5 (fields that are not used are left out).

use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// With `serializable` false, which is also its absence, the read is linearizable.
#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bool, tag = "7")]
    serializable: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
    #[prost(int64, tag = "4")]
    count: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(int64, tag = "3")]
    mod_revision: i64,
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
}

/// Connections to an etcd cluster, one to each endpoint. Clients are spread evenly over them.
#[derive(Clone)]
pub struct Etcd {
    channels: Vec<Channel>,
    timeout: Duration,
}

impl Etcd {
    pub async fn connect(endpoints: &[String], timeout: Duration) -> anyhow::Result<Etcd> {
        let mut channels = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let address = format!("http://{}", endpoint.trim_start_matches("http://"));
            let channel = Endpoint::from_shared(address)?
                .connect_timeout(timeout)
                .tcp_nodelay(true)
                .connect()
                .await
                .with_context(|| format!("cannot connect to {endpoint}"))?;
            channels.push(channel);
        }
        Ok(Etcd { channels, timeout })
    }

    async fn call<Q, A>(&self, client: usize, path: &'static str, request: Q) -> anyhow::Result<A>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::new(self.channels[client % self.channels.len()].clone());
        grpc.ready().await.map_err(|error| anyhow!("etcd cannot be reached: {error}"))?;
        let path = PathAndQuery::from_static(path);
        let call = grpc.unary(tonic::Request::new(request), path, ProstCodec::<Q, A>::default());
        let response = tokio::time::timeout(self.timeout, call).await.context("etcd did not answer in time")??;
        Ok(response.into_inner())
    }

    pub async fn put(&self, client: usize, key: Bytes, value: Bytes) -> anyhow::Result<()> {
        let _: PutResponse = self.call(client, "/etcdserverpb.KV/Put", PutRequest { key, value }).await?;
        Ok(())
    }

    /// Whether the key has a value.
    pub async fn get(&self, client: usize, key: Bytes) -> anyhow::Result<bool> {
        let request = RangeRequest { key, serializable: false };
        let response: RangeResponse = self.call(client, "/etcdserverpb.KV/Range", request).await?;
        Ok(!response.kvs.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn golden_bytes_of_the_messages() {
        let put = PutRequest { key: "k".into(), value: "v".into() };
        assert_eq!(put.encode_to_vec(), b"\x0a\x01k\x12\x01v");
        let range = RangeRequest { key: "k".into(), serializable: false };
        assert_eq!(range.encode_to_vec(), b"\x0a\x01k");
        // Header {cluster_id: 1}, one pair with all of etcd's fields, count 1.
        let answer = b"\x0a\x02\x08\x01\x12\x0e\x0a\x01k\x10\x02\x18\x03\x20\x01\x2a\x01v\x30\x00\x20\x01";
        let decoded = RangeResponse::decode(&answer[..]).unwrap();
        assert_eq!(decoded.count, 1);
        assert_eq!(decoded.kvs, [KeyValue { key: "k".into(), mod_revision: 3, value: "v".into() }]);
    }
}
