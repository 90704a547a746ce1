//! What the fuzz targets run of this crate's private decoders. No part of the API.

use bytes::Bytes;
use drover_rafttypes::{CommandBytes, Entry, Payload, Vote, decode_log_id, decode_vote};
use drover_wire::proto::storage::v1 as pb;

use crate::engine::{mark, torn};
use crate::record::{
    Records, Window, entry_from_record, vote_from_record, vote_to_record, window_from_record, window_to_record,
};

/// Whether the bytes are a record of any kind.
///
/// # Panics
/// If one that was read does not survive being written and read again.
pub fn record(bytes: &[u8]) -> bool {
    let bytes = Bytes::copy_from_slice(bytes);
    let entry = entry_from_record(bytes.clone()).is_ok_and(|entry| {
        let records = Records::encode(std::slice::from_ref(&entry));
        let again: Vec<_> = records.iter().map(|(index, record)| (index, entry_from_record(record))).collect();
        assert_eq!(again, [(entry.log_id.index, Ok(entry))]);
        true
    });
    let vote = vote_from_record(bytes.clone()).is_ok_and(|vote| {
        assert_eq!(vote_from_record(vote_to_record(&vote).into()), Ok(vote));
        true
    });
    let window = window_from_record(bytes).is_ok_and(|window| {
        assert_eq!(window_from_record(window_to_record(&window).into()), Ok(window));
        true
    });
    entry || vote || window
}

/// Records of every kind.
pub fn records() -> Vec<Vec<u8>> {
    let log_id = decode_log_id(&pb::LogId { term: 2, index: 300 });
    let entry = Entry { log_id, payload: Payload::Normal(CommandBytes("ab".into())) };
    let vote: Vote = decode_vote(&pb::Vote { term: 7, node_id: 3, committed: true });
    let window = Window { purged: None, first: 300, last: Some(log_id), committed: Some(log_id) };
    let entries = Records::encode(&[entry]);
    let entries = entries.iter().map(|(_, record)| record.to_vec());
    entries.chain([vote_to_record(&vote), window_to_record(&window)]).collect()
}

/// Whether the bytes are a note of how far the log is durable.
pub fn mark(bytes: &[u8]) -> bool {
    mark::is_mark(bytes)
}

/// Such a note.
pub fn marks() -> Vec<Vec<u8>> {
    vec![mark::example()]
}

/// Whether the end of a log file passes for whole or torn, and not for damaged. It is also read with the right checksums in its
/// batches: hardly any other bytes would come past them.
///
/// # Panics
/// If the damage is not where a message could point to, or not the first.
pub fn tail(bytes: &[u8]) -> bool {
    let mut sealed = bytes.to_vec();
    torn::seal(&mut sealed, FILE_NUMBER);
    undamaged(&sealed);
    undamaged(bytes)
}

fn undamaged(bytes: &[u8]) -> bool {
    let first = torn::end_of_whole(bytes, FILE_NUMBER);
    match torn::check(bytes, FILE_NUMBER) {
        Ok(()) => true,
        Err(damage) => {
            assert!(damage.offset < damage.next_whole && damage.next_whole < bytes.len(), "{damage:?}");
            assert_eq!(first, Some(damage.offset));
            false
        }
    }
}

/// A log file with two batches, and one whose second batch is torn.
pub fn tails() -> Vec<Vec<u8>> {
    let whole = torn::file_of(&[b"first", b"second"], FILE_NUMBER);
    let torn = whole[..whole.len() - 3].to_vec();
    vec![whole, torn]
}

/// The number of the file, which is part of its checksums.
const FILE_NUMBER: u32 = 1;
