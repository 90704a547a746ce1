//! Apply: the pure function from a catalog and a command to a catalog, an answer, and rows to write.
//!
//! A command is first judged without touching anything ([`Judge`]); what comes out is a refusal, an answer that needs
//! no change, or a [`Plan`]. Carrying a plan out cannot fail, so a refusal changes nothing.

mod bootstrap;
mod compat;
mod groups;
mod jobs;
mod nodes;
mod routes;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use drover_guards::{self as guards, Guard};
use drover_hlc::PhysicalMs;
use drover_keys::NodeId;

use crate::catalog::{Catalog, Contents};
use crate::row::{AuditEvent, CatalogRow, Meta, RequestRecord};
use crate::{
    CatalogChange, CatalogCommand, CatalogCommandKind as Kind, CatalogRefusal, CatalogReply, CompatOutcome, NodeEntry,
    RouteMap, RowKey, Version, fingerprint,
};

/// Above every id that a command may choose, so that counters never overflow.
const MAX_ID: u64 = 1 << 48;

/// What a judged command comes to.
enum Decision {
    /// It was done before, or there is nothing to do.
    Nothing(CatalogReply),
    /// It is to be carried out.
    Do(Box<Plan>),
}

/// A command that will be carried out.
struct Plan {
    /// The catalog of a new cluster.
    created: Option<Contents>,
    /// The next map, if routes change.
    routes: Option<RouteMap>,
    /// Counters and clock after the command.
    meta: Meta,
    /// Rows that change.
    rows: Vec<CatalogChange>,
    /// For the audit log.
    note: Option<Note>,
    /// Whether somebody could see a difference.
    visible: bool,
    answer: Answer,
}

/// What an audit event says beside time and actor.
struct Note {
    action: &'static str,
    subject: String,
    details: String,
}

/// An answer that may have to wait until the plan was carried out.
enum Answer {
    Ready(CatalogReply),
    Registered(NodeId),
    Heard,
    Compat(CompatOutcome),
}

/// Judges commands by a catalog, at one time.
struct Judge<'a> {
    contents: &'a Contents,
    actor: &'a str,
    now: PhysicalMs,
}

impl Catalog {
    /// Carries out one command of the log: all of it, or nothing. Answers, and tells which rows to write.
    ///
    /// A request whose id is known gets its first answer again.
    ///
    /// # Errors
    /// Why nothing was changed, and what to do.
    pub fn apply(&mut self, command: &CatalogCommand) -> Result<(CatalogReply, Vec<CatalogChange>), CatalogRefusal> {
        let done = match self.decide(command)? {
            Decision::Nothing(reply) => (reply, Vec::new()),
            Decision::Do(plan) => self.carry_out(command, *plan),
        };
        debug_assert_eq!(self.validate(), Ok(()), "after {command:?}");
        Ok(done)
    }

    /// What [`Catalog::apply`] would make of a command now, and whether anything would change: not if it was carried out
    /// before, or there is nothing to do.
    ///
    /// # Errors
    /// What it would be refused for.
    pub fn judge(&self, command: &CatalogCommand) -> Result<(CatalogReply, bool), CatalogRefusal> {
        let (reply, changes) = self.clone().apply(command)?;
        Ok((reply, !changes.is_empty()))
    }

    fn decide(&self, command: &CatalogCommand) -> Result<Decision, CatalogRefusal> {
        command.check()?;
        let Some(contents) = &self.contents else {
            return match &command.kind {
                Kind::Bootstrap(bootstrap) => Ok(bootstrap::create(bootstrap, command.now)),
                _ => Err(CatalogRefusal::NotBootstrapped),
            };
        };
        if !command.kind.is_heartbeat()
            && let Some(record) = contents.recorded(command.request_id)
        {
            return match record.fingerprint == fingerprint::of_command(command) {
                true => Ok(Decision::Nothing(record.reply.clone())),
                false => Err(CatalogRefusal::RequestReused { request: command.request_id }),
            };
        }
        let now = contents.meta.clock.max(command.now);
        let judge = Judge { contents, actor: &command.actor, now };
        if let Some(required) = command.kind.required_version() {
            judge.check_cluster_version(required)?;
        }
        if let Some(capability) = command.kind.required_capability() {
            judge.check_capability(capability)?;
        }
        match &command.kind {
            Kind::Bootstrap(bootstrap) => judge.bootstrap_again(bootstrap),
            Kind::SplitRange { expected_version, route, key } => judge.split(*expected_version, *route, key),
            Kind::RegisterNode(node) => judge.register(node),
            Kind::Heartbeat(heartbeat) => judge.heartbeat(heartbeat),
            Kind::DrainNode { node, on } => judge.drain(*node, *on),
            Kind::RemoveNode { node } => judge.remove_node(*node),
            Kind::AddReplica { group, node } => judge.add_replica(*group, *node),
            Kind::RemoveReplicas { group, nodes } => judge.remove_replicas(*group, nodes),
            Kind::PromoteReplica { group, node, replica } => judge.promote(*group, *node, *replica),
            Kind::DropReplica { group, node, replica } => judge.drop_replica(*group, *node, *replica),
            Kind::Freeze => judge.freeze(),
            Kind::Unfreeze => judge.unfreeze(),
            Kind::ReadCompat => judge.read_compat(),
            Kind::StartJob(start) => judge.start_job(start),
            Kind::JobEvent { job, epoch, event } => judge.job_event(*job, *epoch, event),
        }
    }

    /// Cannot fail: everything was judged before.
    fn carry_out(&mut self, command: &CatalogCommand, plan: Plan) -> (CatalogReply, Vec<CatalogChange>) {
        let Plan { created, routes, meta, rows, note, visible, answer } = plan;
        if created.is_some() {
            self.contents = created;
        }
        let contents = self.contents.as_mut().expect("a plan is made for a cluster, or creates one");
        contents.meta = meta;
        if let Some(routes) = routes {
            contents.routes = routes;
        }
        rows.iter().for_each(|row| contents.absorb(row));
        let mut changes = rows;
        let advanced = contents.advance_cluster_version();
        if visible || advanced {
            contents.meta.revision += 1;
        }
        let reply = contents.answer(answer);
        if let Some(note) = note {
            changes.extend(contents.record_audit(&command.actor, note));
        }
        if !command.kind.is_heartbeat() {
            changes.extend(contents.record_answer(command, reply.clone()));
        }
        changes.extend(contents.trim());
        changes.push(CatalogChange::Put(CatalogRow::Meta(Box::new(contents.meta.clone()))));
        (reply, changes)
    }
}

impl Contents {
    fn answer(&self, answer: Answer) -> CatalogReply {
        let (cluster_version, high_water) = (self.meta.cluster_version, self.meta.high_water);
        match answer {
            Answer::Ready(reply) => reply,
            Answer::Registered(node) => CatalogReply::Registered { node, cluster_version, high_water },
            Answer::Heard => CatalogReply::Heard { cluster_version, high_water },
            Answer::Compat(outcome) => CatalogReply::Compat { outcome, state: self.compat() },
        }
    }

    fn record_audit(&mut self, actor: &str, note: Note) -> Option<CatalogChange> {
        let Note { action, subject, details } = note;
        let (seq, at) = (self.meta.next_audit, self.meta.clock);
        self.meta.next_audit += 1;
        let event = AuditEvent { seq, at, actor: actor.to_owned(), action: action.to_owned(), subject, details };
        self.keep(CatalogRow::Audit(Arc::new(event)))
    }

    fn record_answer(&mut self, command: &CatalogCommand, reply: CatalogReply) -> Option<CatalogChange> {
        let (seq, id) = (self.meta.next_request, command.request_id);
        self.meta.next_request += 1;
        let record = RequestRecord { seq, id, fingerprint: fingerprint::of_command(command), reply };
        self.keep(CatalogRow::Request(Arc::new(record)))
    }

    fn keep(&mut self, row: CatalogRow) -> Option<CatalogChange> {
        let change = CatalogChange::Put(row);
        self.absorb(&change);
        Some(change)
    }

    /// Drops what the logs hold above their bounds. A command adds at most one entry to each.
    fn trim(&mut self) -> Vec<CatalogChange> {
        let settings = self.meta.settings;
        let over = |have: usize, bound: u32| have > bound as usize;
        let deltas = self.deltas.front().filter(|_| over(self.deltas.len(), settings.delta_log));
        let audit = self.audit.front().filter(|_| over(self.audit.len(), settings.audit_log));
        let requests = self.requests.front().filter(|_| over(self.requests.len(), settings.request_log));
        let keys = [
            deltas.map(|delta| RowKey::Delta(delta.version)),
            audit.map(|event| RowKey::Audit(event.seq)),
            requests.map(|record| RowKey::Request(record.seq)),
        ];
        let changes: Vec<_> = keys.into_iter().flatten().map(CatalogChange::Delete).collect();
        changes.iter().for_each(|change| self.absorb(change));
        changes
    }
}

impl Judge<'_> {
    /// A plan that changes no more than the clock yet.
    fn plan(&self, answer: Answer, note: Option<Note>) -> Plan {
        Plan {
            created: None,
            routes: None,
            meta: Meta { clock: self.now, ..self.contents.meta.clone() },
            rows: Vec::new(),
            note,
            visible: true,
            answer,
        }
    }

    /// Refuses what nodes may not understand to which the cluster version allows the cluster to go back. A freeze keeps the
    /// version where it is, whatever all nodes can do meanwhile.
    fn check_cluster_version(&self, required: Version) -> Result<(), CatalogRefusal> {
        match self.contents.at_least(required) || !guards::on(Guard::ClusterVersionReached) {
            true => Ok(()),
            false => Err(CatalogRefusal::ClusterVersionTooLow { required, have: self.contents.meta.cluster_version }),
        }
    }

    /// Refuses if a node has not said that it can do this which is live, or holds a replica: one that is silent comes back
    /// to a log in which the command stands already.
    /// Of all nodes that are live or hold a replica.
    fn check_capability(&self, capability: &'static str) -> Result<(), CatalogRefusal> {
        let holders = self.contents.groups.values().flat_map(|group| group.replicas.keys().copied());
        let live = self.contents.live(self.now).map(|(node, _)| node.id);
        self.check_capability_of(live.chain(holders), capability)
    }

    fn check_capability_of(
        &self,
        nodes: impl Iterator<Item = NodeId>,
        capability: &'static str,
    ) -> Result<(), CatalogRefusal> {
        let has = |node: &NodeEntry| node.presence.as_ref().is_some_and(|p| p.capabilities.contains(capability));
        let lacks = |id: &NodeId| !self.contents.nodes.get(id).is_some_and(has);
        let nodes: BTreeSet<NodeId> = nodes.filter(lacks).collect();
        match nodes.is_empty() || !guards::on(Guard::AllAreCapable) {
            true => Ok(()),
            false => Err(CatalogRefusal::CapabilityMissing { capability, nodes }),
        }
    }

    fn node(&self, id: NodeId) -> Result<&NodeEntry, CatalogRefusal> {
        match self.contents.nodes.get(&id) {
            Some(entry) => Ok(entry),
            None if self.contents.removed.contains_key(&id) => Err(CatalogRefusal::NodeRemoved { node: id }),
            None => Err(CatalogRefusal::UnknownNode { node: id }),
        }
    }
}

impl Plan {
    fn put(mut self, row: CatalogRow) -> Self {
        self.rows.push(CatalogChange::Put(row));
        self
    }

    fn decided(self) -> Result<Decision, CatalogRefusal> {
        Ok(Decision::Do(Box::new(self)))
    }
}

/// A key for people, and not all of a long one.
fn brief(key: &[u8]) -> String {
    const SHOWN: usize = 64;
    let dots = if key.len() > SHOWN { "…" } else { "" };
    format!("{:?}{dots}", drover_keys::escape(&key[..key.len().min(SHOWN)]))
}
