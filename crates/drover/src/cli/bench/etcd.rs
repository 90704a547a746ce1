//! As much of etcd's gRPC API as a comparison needs: `etcdserverpb.KV` `Put`, `Range` and `Txn`, the messages written by hand
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

/// A comparison of a key's revision: result and target have etcd's numbers for `EQUAL` and `MOD`.
#[derive(Clone, PartialEq, prost::Message)]
struct Compare {
    #[prost(int32, tag = "1")]
    result: i32,
    #[prost(int32, tag = "2")]
    target: i32,
    #[prost(bytes = "bytes", tag = "3")]
    key: Bytes,
    /// Of a `oneof`, so it is there even if zero.
    #[prost(int64, optional, tag = "6")]
    mod_revision: Option<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RequestOp {
    #[prost(message, optional, tag = "2")]
    request_put: Option<PutRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    success: Vec<RequestOp>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TxnResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(bool, tag = "2")]
    succeeded: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResponseHeader {
    #[prost(int64, tag = "3")]
    revision: i64,
}

impl TxnRequest {
    /// Puts if the key's last change is of this revision; zero: if there is none.
    fn put_if(key: Bytes, mod_revision: i64, value: Bytes) -> TxnRequest {
        const EQUAL: i32 = 0;
        const MOD: i32 = 2;
        let compare = Compare { result: EQUAL, target: MOD, key: key.clone(), mod_revision: Some(mod_revision) };
        let success = RequestOp { request_put: Some(PutRequest { key, value }) };
        TxnRequest { compare: vec![compare], success: vec![success] }
    }
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

    /// The revision of a key's last change, linearizably; zero if it has no value.
    pub async fn revision(&self, client: usize, key: Bytes) -> anyhow::Result<i64> {
        let request = RangeRequest { key, serializable: false };
        let response: RangeResponse = self.call(client, "/etcdserverpb.KV/Range", request).await?;
        Ok(response.kvs.first().map_or(0, |pair| pair.mod_revision))
    }

    /// Writes a key if its last change is of this revision; the revision of the new change if it was.
    pub async fn put_if_revision(
        &self,
        client: usize,
        key: Bytes,
        revision: i64,
        value: Bytes,
    ) -> anyhow::Result<Option<i64>> {
        let request = TxnRequest::put_if(key, revision, value);
        let response: TxnResponse = self.call(client, "/etcdserverpb.KV/Txn", request).await?;
        let header = response.header.context("etcd's answer has no header")?;
        Ok(response.succeeded.then_some(header.revision))
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
        let txn = TxnRequest::put_if("k".into(), 0, "v".into());
        assert_eq!(txn.encode_to_vec(), b"\x0a\x07\x10\x02\x1a\x01k\x30\x00\x12\x08\x12\x06\x0a\x01k\x12\x01v");
        // Header {cluster_id: 1}, one pair with all of etcd's fields, count 1.
        let answer = b"\x0a\x02\x08\x01\x12\x0e\x0a\x01k\x10\x02\x18\x03\x20\x01\x2a\x01v\x30\x00\x20\x01";
        let decoded = RangeResponse::decode(&answer[..]).unwrap();
        assert_eq!(decoded.count, 1);
        assert_eq!(decoded.kvs, [KeyValue { key: "k".into(), mod_revision: 3, value: "v".into() }]);
        // Header {cluster_id: 1, revision: 300}, succeeded, one answer to a put.
        let answer = b"\x0a\x05\x08\x01\x18\xac\x02\x10\x01\x1a\x02\x12\x00";
        let decoded = TxnResponse::decode(&answer[..]).unwrap();
        assert_eq!(decoded, TxnResponse { header: Some(ResponseHeader { revision: 300 }), succeeded: true });
    }
}
