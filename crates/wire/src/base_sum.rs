use drover_catalog::job::BaseSum;

use crate::proto::storage::v1 as pb;

/// A sum as a message.
pub fn encode_base_sum(base: &BaseSum) -> pb::JobBaseSum {
    let sum = pb::RowSum { hash_high: (base.hash >> 64) as u64, hash_low: base.hash as u64, rows: base.rows };
    pb::JobBaseSum { armed_at: base.armed_at, sum: Some(sum) }
}

/// A sum from its message.
pub fn decode_base_sum(base: &pb::JobBaseSum) -> BaseSum {
    let sum = base.sum.unwrap_or_default();
    let hash = u128::from(sum.hash_high) << 64 | u128::from(sum.hash_low);
    BaseSum { armed_at: base.armed_at, hash, rows: sum.rows }
}
