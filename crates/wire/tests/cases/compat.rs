//! The version of the cluster, and how it is held back.

use drover_wire::proto::v1::compat_response::Outcome;
use drover_wire::proto::v1::*;

use super::{Case, case};

pub fn cases() -> Vec<Case> {
    let version = |minor| Some(SoftwareVersion { major: 1, minor });
    let node = CompatNode {
        node_id: 1,
        version: version(4),
        live: true,
        serving_since_unix_ms: 300,
        capabilities: vec!["split".into()],
    };
    let frozen = CompatResponse {
        outcome: Outcome::Frozen.into(),
        cluster_version: version(2),
        high_water: version(3),
        freeze: Some(CompatFreeze { version: version(2), by: "me".into(), at_unix_ms: 400 }),
        nodes: vec![node],
    };
    let only = |outcome: Outcome| CompatResponse { outcome: outcome.into(), ..CompatResponse::default() };
    vec![
        case(
            "CompatRequest/all",
            CompatRequest { request_id: vec![8; 16].into(), actor: "me".into(), timeout_ms: 300 },
        ),
        case("CompatResponse/frozen", frozen),
        case("CompatResponse/read", only(Outcome::Read)),
        case("CompatResponse/already_frozen", only(Outcome::AlreadyFrozen)),
        case("CompatResponse/unfrozen", only(Outcome::Unfrozen)),
        case("CompatResponse/nothing_frozen", only(Outcome::NothingFrozen)),
    ]
}
