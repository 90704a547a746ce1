use drover_catalog::CatalogRefusal;
use drover_catalog::job::JobRefusal;
use drover_kv::{Error, Reason};

/// What a caller is told of a refusal of the catalog: all are definite, nothing was changed and nothing will be.
pub fn catalog_refusal_to_error(refusal: &CatalogRefusal) -> Error {
    Error::definite(reason(refusal), refusal.to_string())
}

fn reason(refusal: &CatalogRefusal) -> Reason {
    match refusal {
        CatalogRefusal::NotBootstrapped => Reason::Unavailable,
        CatalogRefusal::BadBootstrap { .. }
        | CatalogRefusal::Actor { .. }
        | CatalogRefusal::KeyOutside { .. }
        | CatalogRefusal::KeyAtBoundary { .. }
        | CatalogRefusal::IntervalOutside { .. }
        | CatalogRefusal::BadJobOptions { .. }
        | CatalogRefusal::LongReason { .. }
        | CatalogRefusal::Job(JobRefusal::NoEpoch { .. })
        | CatalogRefusal::BadNode { .. }
        | CatalogRefusal::Capabilities { .. }
        | CatalogRefusal::NothingToRemove { .. } => Reason::InvalidArgument,
        CatalogRefusal::RequestReused { .. } => Reason::IdempotencyReused,
        CatalogRefusal::StaleVersion { .. } | CatalogRefusal::Job(JobRefusal::OtherEpoch { .. }) => {
            Reason::VersionMismatch
        }
        CatalogRefusal::Job(JobRefusal::Unknown { .. }) => Reason::UnknownJob,
        CatalogRefusal::UnknownRoute { .. } => Reason::UnknownRoute,
        CatalogRefusal::KeyTooLarge { .. } => Reason::KeyTooLarge,
        CatalogRefusal::UnknownNode { .. } | CatalogRefusal::NodeRemoved { .. } => Reason::UnknownNode,
        CatalogRefusal::UnknownGroup { .. } => Reason::UnknownGroup,
        CatalogRefusal::OtherStore { .. } | CatalogRefusal::StoreTaken { .. } | CatalogRefusal::AddressTaken { .. } => {
            Reason::WrongNode
        }
        CatalogRefusal::AlreadyBootstrapped
        | CatalogRefusal::RouteInMove { .. }
        | CatalogRefusal::RangeInMove { .. }
        | CatalogRefusal::SameGroup { .. }
        | CatalogRefusal::TooManyJobs { .. }
        | CatalogRefusal::NoQuorum { .. }
        | CatalogRefusal::Job(JobRefusal::WrongPhase { .. } | JobRefusal::Route { .. })
        | CatalogRefusal::NotRegistered { .. }
        | CatalogRefusal::VersionTooLow { .. }
        | CatalogRefusal::NodeInUse { .. }
        | CatalogRefusal::ChangeUnderWay { .. }
        | CatalogRefusal::NodeNotLive { .. }
        | CatalogRefusal::NodeDraining { .. }
        | CatalogRefusal::AlreadyReplica { .. }
        | CatalogRefusal::NotAReplica { .. }
        | CatalogRefusal::LastReplica { .. }
        | CatalogRefusal::Majority { .. }
        | CatalogRefusal::NoQuorumLeft { .. }
        | CatalogRefusal::CapabilityMissing { .. }
        | CatalogRefusal::ClusterVersionTooLow { .. }
        | CatalogRefusal::WrongReplica { .. }
        | CatalogRefusal::NoClusterVersion => Reason::FailedPrecondition,
    }
}
