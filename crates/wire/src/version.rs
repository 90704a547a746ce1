use drover_hlc::Timestamp;
use drover_kv::Versioned;

use crate::proto::v1;

/// A timestamp from a field in which zero means "not given".
pub(crate) fn optional_ts(raw: u64) -> Option<Timestamp> {
    (raw != 0).then(|| Timestamp::from_raw(raw))
}

/// A timestamp for a field in which zero means "not given".
pub(crate) fn raw_ts(ts: Option<Timestamp>) -> u64 {
    ts.map_or(0, Timestamp::raw)
}

/// A visible version from its message.
pub fn decode_version(version: v1::Version) -> Versioned {
    Versioned {
        value: version.value,
        commit_ts: Timestamp::from_raw(version.commit_ts),
        expire_at: optional_ts(version.expire_at),
    }
}

/// A visible version as a message.
pub fn encode_version(version: Versioned) -> v1::Version {
    v1::Version { value: version.value, commit_ts: version.commit_ts.raw(), expire_at: raw_ts(version.expire_at) }
}
