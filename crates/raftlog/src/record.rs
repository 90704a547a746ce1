//! How entries, votes and the window of a log stand on disk.
//!
//! | record | bytes |
//! |---|---|
//! | entry | `1`, then `drover.storage.v1.RaftEntry` |
//! | vote | `1`, then `drover.storage.v1.Vote` |
//! | window | `1`, then a message: three `drover.storage.v1.LogId` purged = 1, last = 2, committed = 3; `uint64` first = 4 |
//!
//! The first byte is the format; a byte that was ever used is never given another meaning.

use bytes::Bytes;
use drover_rafttypes::{
    Entry, LogId, Payload, Vote, decode_entry, decode_log_id, decode_vote, encode_entry, encode_log_id, encode_vote,
};
use drover_wire::proto::storage::v1 as pb;
use prost::Message;

const FORMAT: u8 = 1;

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the record is empty")]
    Empty,
    #[error("format {0} is unknown: a newer version wrote it")]
    Format(u8),
    #[error("{0}")]
    Malformed(String),
}

/// What a group's log consists of, whatever else the engine holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// Everything up to here is gone.
    pub purged: Option<LogId>,
    /// Index of the first entry, if there is one. It follows `purged`; a log without that may start anywhere.
    pub first: u64,
    /// The last entry, or `purged` if there is none.
    pub last: Option<LogId>,
    /// The committed log id that was saved last, never behind the end of the log.
    pub committed: Option<LogId>,
}

impl Window {
    /// Whether it holds no entry.
    pub fn is_empty(&self) -> bool {
        self.last == self.purged
    }

    /// Whether it can be true.
    pub fn validate(&self) -> Result<(), String> {
        let end = self.last.map(|id| id.index);
        if end == Some(u64::MAX) {
            return Err("it ends at the highest index there is".into());
        }
        if self.purged.map(|id| id.index) > end {
            return Err(format!("purged up to {:?}, behind the last entry {end:?}", self.purged));
        }
        let first = self.purged.map_or(self.first, |id| id.index.saturating_add(1));
        if !self.is_empty() && (self.first != first || Some(first) > end) {
            return Err(format!("it starts at {}, after {:?} and before {end:?}", self.first, self.purged));
        }
        if self.committed.map(|id| id.index) > end {
            return Err(format!("committed up to {:?}, behind the last entry {end:?}", self.committed));
        }
        Ok(())
    }
}

#[derive(Clone, PartialEq, Message)]
struct PbWindow {
    #[prost(message, optional, tag = "1")]
    purged: Option<pb::LogId>,
    #[prost(message, optional, tag = "2")]
    last: Option<pb::LogId>,
    #[prost(message, optional, tag = "3")]
    committed: Option<pb::LogId>,
    #[prost(uint64, tag = "4")]
    first: u64,
}

fn encode(message: &impl Message) -> Vec<u8> {
    let mut buf = Vec::with_capacity(1 + message.encoded_len());
    buf.push(FORMAT);
    message.encode_raw(&mut buf);
    buf
}

fn body(mut record: Bytes) -> Result<Bytes, RecordError> {
    match record.first() {
        None => Err(RecordError::Empty),
        Some(&FORMAT) => Ok(record.split_off(1)),
        Some(&other) => Err(RecordError::Format(other)),
    }
}

fn decode<M: Message + Default>(record: Bytes) -> Result<M, RecordError> {
    M::decode(body(record)?).map_err(|e| RecordError::Malformed(e.to_string()))
}

/// The record of a vote.
pub fn vote_to_record(vote: &Vote) -> Vec<u8> {
    encode(&encode_vote(vote))
}

/// The vote in a record.
pub fn vote_from_record(record: Bytes) -> Result<Vote, RecordError> {
    Ok(decode_vote(&decode(record)?))
}

/// The record of a window.
pub fn window_to_record(window: &Window) -> Vec<u8> {
    encode(&PbWindow {
        purged: window.purged.as_ref().map(encode_log_id),
        last: window.last.as_ref().map(encode_log_id),
        committed: window.committed.as_ref().map(encode_log_id),
        first: window.first,
    })
}

/// The window in a record.
pub fn window_from_record(record: Bytes) -> Result<Window, RecordError> {
    let message: PbWindow = decode(record)?;
    let window = Window {
        purged: message.purged.as_ref().map(decode_log_id),
        first: message.first,
        last: message.last.as_ref().map(decode_log_id),
        committed: message.committed.as_ref().map(decode_log_id),
    };
    window.validate().map_err(RecordError::Malformed)?;
    Ok(window)
}

/// The entry in a record. Its command shares the record's memory.
pub fn entry_from_record(record: Bytes) -> Result<Entry, RecordError> {
    decode_entry(decode(record)?).map_err(|e| RecordError::Malformed(e.to_string()))
}

/// Bytes an entry is counted with, in caches, queues and bounded reads: about what its record needs.
pub fn weight(entry: &Entry) -> usize {
    const LOG_ID_AND_TAGS: usize = 32;
    match &entry.payload {
        Payload::Blank => LOG_ID_AND_TAGS,
        Payload::Normal(command) => LOG_ID_AND_TAGS + command.0.len(),
        Payload::Membership(membership) => {
            LOG_ID_AND_TAGS + drover_rafttypes::encode_membership(membership).encoded_len()
        }
    }
}

/// The records of consecutive entries, in one allocation.
#[derive(Debug, Clone)]
pub struct Records {
    first: u64,
    buf: Bytes,
    ends: Vec<usize>,
}

impl Records {
    /// Encodes `entries`, whose indexes are consecutive.
    pub fn encode(entries: &[Entry]) -> Self {
        let mut buf = Vec::with_capacity(entries.iter().map(weight).sum());
        let ends = entries
            .iter()
            .map(|entry| {
                buf.push(FORMAT);
                encode_entry(entry).encode_raw(&mut buf);
                buf.len()
            })
            .collect();
        Self { first: entries.first().map_or(0, |e| e.log_id.index), buf: buf.into(), ends }
    }

    /// Indexes and records.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Bytes)> + '_ {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let spans = starts.zip(&self.ends).map(|(start, end)| self.buf.slice(start..*end));
        (self.first..).zip(spans)
    }

    /// Index of the first record.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Bytes of all records.
    pub fn bytes(&self) -> usize {
        self.buf.len()
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.ends.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use drover_rafttypes::{CommandBytes, Membership, Node};
    use openraft::impls::leader_id_std::LeaderId;
    use proptest::prelude::*;

    use super::*;

    fn log_id(term: u64, index: u64) -> LogId {
        decode_log_id(&pb::LogId { term, index })
    }

    fn membership() -> Membership {
        let nodes: BTreeMap<u64, Node> = [(1, Node::new("a:1", drover_keys::ReplicaId(1)))].into();
        Membership::new(vec![[1].into()], nodes).unwrap()
    }

    #[test]
    fn the_bytes_on_disk_are_these() {
        let entry = Entry { log_id: log_id(2, 300), payload: Payload::Normal(CommandBytes("ab".into())) };
        let records = Records::encode(&[entry]);
        let golden = [1, 0x0a, 5, 8, 2, 16, 0xac, 2, 0x1a, 2, b'a', b'b'];
        assert_eq!(records.iter().collect::<Vec<_>>(), [(300, Bytes::copy_from_slice(&golden))]);

        let vote = Vote { leader_id: LeaderId { term: 7, voted_for: 3 }, committed: true };
        assert_eq!(vote_to_record(&vote), [1, 8, 7, 16, 3, 24, 1]);

        let window =
            Window { purged: Some(log_id(1, 4)), first: 5, last: Some(log_id(2, 9)), committed: Some(log_id(2, 8)) };
        let golden = [1, 0x0a, 4, 8, 1, 16, 4, 0x12, 4, 8, 2, 16, 9, 0x1a, 4, 8, 2, 16, 8, 0x20, 5];
        assert_eq!(window_to_record(&window), golden);
        assert_eq!(window_to_record(&Window::default()), [1]);
    }

    #[test]
    fn an_unknown_format_byte_is_refused_by_name() {
        assert_eq!(vote_from_record(Bytes::from_static(&[9, 8, 7])), Err(RecordError::Format(9)));
        assert_eq!(window_from_record(Bytes::new()), Err(RecordError::Empty));
    }

    #[test]
    fn a_window_that_ends_before_it_starts_is_refused() {
        let (purged, last) = (Some(log_id(1, 4)), Some(log_id(1, 9)));
        let bad = [
            Window { purged, first: 5, last: Some(log_id(1, 3)), committed: None },
            Window { purged, first: 6, last, committed: None },
            Window { purged: None, first: 10, last, committed: None },
            Window { purged, first: 5, last, committed: Some(log_id(1, 10)) },
            Window { committed: Some(log_id(1, 0)), ..Window::default() },
            Window { last: Some(log_id(1, u64::MAX)), ..Window::default() },
        ];
        for window in bad {
            assert!(window_from_record(window_to_record(&window).into()).is_err(), "{window:?}");
        }
    }

    proptest! {
        #[test]
        fn entries_round_trip(
            term in any::<u64>(),
            first in 0..u64::MAX - 8,
            commands in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
        ) {
            let mut entries: Vec<Entry> = commands
                .into_iter()
                .zip(first..)
                .map(|(c, i)| Entry { log_id: log_id(term, i), payload: Payload::Normal(CommandBytes(c.into())) })
                .collect();
            let next = first + entries.len() as u64;
            entries.push(Entry { log_id: log_id(term, next), payload: Payload::Membership(membership()) });
            entries.push(Entry { log_id: log_id(term, next + 1), payload: Payload::Blank });
            let records = Records::encode(&entries);
            prop_assert_eq!(records.len(), entries.len());
            prop_assert!(records.bytes() <= entries.iter().map(weight).sum::<usize>());
            for (entry, (index, record)) in entries.iter().zip(records.iter()) {
                prop_assert_eq!(index, entry.log_id.index);
                prop_assert_eq!(&entry_from_record(record).unwrap(), entry);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..80), known in any::<bool>()) {
            if known && let Some(first) = bytes.first_mut() {
                *first = FORMAT;
            }
            let bytes = Bytes::from(bytes);
            let _ = entry_from_record(bytes.clone());
            let _ = vote_from_record(bytes.clone());
            let _ = window_from_record(bytes);
        }
    }
}
