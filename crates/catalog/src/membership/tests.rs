use drover_keys::{GroupId, ReplicaId};
use proptest::prelude::*;

use super::*;
use crate::ReplicaRole;
use crate::apply::tests::{V1, World, nodes, register};

const GROUP: GroupId = GroupId(2);
const MAX_LAG: u64 = 10;

/// Group 2 of these nodes; the replica on node n is replica n.
fn descriptor(replicas: &[(u64, ReplicaState)]) -> GroupDescriptor {
    let replica = |&(n, state): &(u64, ReplicaState)| {
        let role = if state == ReplicaState::Joining { ReplicaRole::Learner } else { ReplicaRole::Voter };
        (NodeId(n), Replica { id: ReplicaId(n), role, state })
    };
    GroupDescriptor { id: GROUP, replicas: replicas.iter().map(replica).collect(), next_replica: ReplicaId(9) }
}

fn raft(voters: &[&[u64]], learners: &[(u64, Option<u64>)]) -> RaftMembership {
    RaftMembership {
        voters: voters.iter().map(|set| set.iter().copied().map(NodeId).collect()).collect(),
        learners: learners.iter().map(|(n, lag)| (NodeId(*n), *lag)).collect(),
    }
}

#[test]
fn every_difference_has_a_step() {
    use MembershipStep as Step;
    use ReplicaState::{Active, Joining, Leaving};
    let (group, promoted, dropped) = (GROUP, ReplicaId(4), ReplicaId(3));
    let promote = Step::Command(CatalogCommandKind::PromoteReplica { group, node: NodeId(4), replica: promoted });
    let drop = Step::Command(CatalogCommandKind::DropReplica { group, node: NodeId(3), replica: dropped });
    let wait = |lag| Step::WaitForLearner { node: NodeId(4), lag };
    let three = [(1, Active), (2, Active), (3, Active)];
    let joins = [(1, Active), (2, Active), (3, Active), (4, Joining)];
    let leaves = [(1, Active), (2, Active), (3, Leaving)];
    let two_leave = [(1, Active), (2, Active), (3, Leaving), (4, Leaving), (5, Active)];
    type Row<'a> = (&'a [(u64, ReplicaState)], RaftMembership, MembershipStep);
    let table: Vec<Row<'_>> = vec![
        (&three, raft(&[&[1, 2, 3]], &[]), Step::None),
        (&three, raft(&[], &[]), Step::None),
        // A change of voters that somebody began is finished, whatever it was.
        (&three, raft(&[&[1, 2, 3], &[1, 2]], &[]), Step::LeaveJoint),
        (&joins, raft(&[&[1, 2, 3], &[1, 2, 3, 4]], &[(5, None)]), Step::LeaveJoint),
        // Joining.
        (&joins, raft(&[&[1, 2, 3]], &[]), Step::AddLearner(NodeId(4))),
        (&joins, raft(&[&[1, 2, 3]], &[(4, None)]), wait(None)),
        (&joins, raft(&[&[1, 2, 3]], &[(4, Some(11))]), wait(Some(11))),
        (&joins, raft(&[&[1, 2, 3]], &[(4, Some(10))]), Step::ChangeVoters(nodes([1, 2, 3, 4]))),
        (&joins, raft(&[&[1, 2, 3, 4]], &[]), promote),
        // Leaving, one voter at a time.
        (&leaves, raft(&[&[1, 2, 3]], &[]), Step::ChangeVoters(nodes([1, 2]))),
        (&leaves, raft(&[&[1, 2]], &[(3, Some(0))]), Step::RemoveLearner(NodeId(3))),
        (&leaves, raft(&[&[1, 2]], &[]), drop),
        (&two_leave, raft(&[&[1, 2, 3, 4, 5]], &[]), Step::ChangeVoters(nodes([1, 2, 4, 5]))),
        (&two_leave, raft(&[&[1, 2, 4, 5]], &[(3, None)]), Step::RemoveLearner(NodeId(3))),
        (
            &[(1, Active), (3, Leaving)],
            raft(&[&[3]], &[(1, None)]),
            Step::WaitForLearner { node: NodeId(1), lag: None },
        ),
        // Members that the catalog does not know.
        (&three, raft(&[&[1, 2, 3, 7]], &[]), Step::ChangeVoters(nodes([1, 2, 3]))),
        (&three, raft(&[&[1, 2, 3]], &[(7, Some(0))]), Step::RemoveLearner(NodeId(7))),
        // Replicas that Raft has lost, before anything is taken away.
        (&leaves, raft(&[&[1, 3]], &[]), Step::AddLearner(NodeId(2))),
        (&leaves, raft(&[&[1, 3]], &[(2, Some(0))]), Step::ChangeVoters(nodes([1, 2, 3]))),
        // Waiting for one holds nobody else up.
        (&joins, raft(&[&[1, 2, 3]], &[(4, None), (7, None)]), Step::RemoveLearner(NodeId(7))),
    ];
    for (replicas, observed, expect) in table {
        let step = next_membership_step(&descriptor(replicas), &observed, MAX_LAG);
        assert_eq!(step, expect, "{replicas:?} {observed:?}");
    }
}

/// A catalog, a Raft group, and a driver between them.
struct Sim {
    world: World,
    raft: RaftMembership,
    told: Vec<CatalogCommandKind>,
}

#[derive(Debug, Clone)]
enum Event {
    Add(u64),
    Remove(Vec<u64>),
    /// The driver looks and acts.
    Step,
    /// It does so twice.
    StepTwice,
    /// It dies in the middle of a change of voters.
    Crash,
    /// What somebody told the catalog long ago arrives once more.
    Late(prop::sample::Index),
    /// A learner gets the log.
    CatchUp(u64),
    /// A learner falls behind.
    FallBehind(u64),
}

fn any_event() -> impl Strategy<Value = Event> {
    let node = 1u64..7;
    prop_oneof![
        3 => node.clone().prop_map(Event::Add),
        3 => proptest::collection::vec(node.clone(), 1..3).prop_map(Event::Remove),
        10 => Just(Event::Step),
        3 => Just(Event::StepTwice),
        3 => Just(Event::Crash),
        2 => any::<prop::sample::Index>().prop_map(Event::Late),
        3 => node.clone().prop_map(Event::CatchUp),
        1 => node.prop_map(Event::FallBehind),
    ]
}

impl Sim {
    fn new() -> Self {
        let mut world = World::settled();
        (5..=6).for_each(|n| drop(world.run(register(n, V1)).unwrap()));
        Self { world, raft: raft(&[&[1, 2, 3]], &[]), told: Vec::new() }
    }

    fn descriptor(&self) -> GroupDescriptor {
        self.world.catalog.group(GROUP).unwrap().clone()
    }

    fn step(&self) -> MembershipStep {
        next_membership_step(&self.descriptor(), &self.raft, MAX_LAG)
    }

    fn happen(&mut self, event: Event) {
        let group = GROUP;
        match event {
            Event::Add(n) => drop(self.world.run(CatalogCommandKind::AddReplica { group, node: NodeId(n) })),
            Event::Remove(ids) => {
                let nodes = ids.into_iter().map(NodeId).collect();
                drop(self.world.run(CatalogCommandKind::RemoveReplicas { group, nodes }));
            }
            Event::Step => self.act(self.step(), false),
            Event::StepTwice => {
                let step = self.step();
                self.act(step.clone(), false);
                if !matches!(step, MembershipStep::ChangeVoters(_)) || self.raft.voters.len() == 1 {
                    self.act_again(step);
                }
            }
            Event::Crash => self.act(self.step(), true),
            Event::Late(_) if self.told.is_empty() => {}
            Event::Late(index) => {
                let before = self.world.catalog.group(GROUP).cloned();
                let kind = index.get(&self.told).clone();
                let _ = self.world.run(kind.clone());
                assert_eq!(self.world.catalog.group(GROUP).cloned(), before, "{kind:?} came late");
            }
            Event::CatchUp(n) => self.set_lag(n, Some(MAX_LAG)),
            Event::FallBehind(n) => self.set_lag(n, Some(MAX_LAG + 1)),
        }
    }

    fn set_lag(&mut self, n: u64, lag: Option<u64>) {
        self.raft.learners.entry(NodeId(n)).and_modify(|have| *have = lag);
    }

    /// Takes a step; dies in its middle if it has one.
    fn act(&mut self, step: MembershipStep, dies: bool) {
        match step {
            MembershipStep::ChangeVoters(next) => {
                self.check_voters(&next);
                self.raft.voters.push(next);
                if !dies {
                    self.leave_joint();
                }
            }
            MembershipStep::LeaveJoint => self.leave_joint(),
            step => self.act_again(step),
        }
    }

    /// Steps that may be taken twice in a row, and what Raft makes of the others then.
    fn act_again(&mut self, step: MembershipStep) {
        match step {
            MembershipStep::None | MembershipStep::WaitForLearner { .. } | MembershipStep::LeaveJoint => {}
            MembershipStep::AddLearner(node) if self.raft.voters.iter().any(|set| set.contains(&node)) => {}
            MembershipStep::AddLearner(node) => drop(self.raft.learners.entry(node).or_insert(None)),
            MembershipStep::RemoveLearner(node) => drop(self.raft.learners.remove(&node)),
            MembershipStep::ChangeVoters(voters) => assert_eq!(self.raft.voters, [voters]),
            MembershipStep::Command(kind) => {
                self.world.run(kind.clone()).unwrap();
                self.told.push(kind);
            }
        }
    }

    /// A voter that loses its vote stays as a learner, as Raft does if it is not told otherwise.
    fn leave_joint(&mut self) {
        let (old, new) = (self.raft.voters[0].clone(), self.raft.voters.last().unwrap().clone());
        self.raft.learners.extend(old.difference(&new).map(|node| (*node, Some(0))));
        self.raft.learners.retain(|node, _| !new.contains(node));
        self.raft.voters = vec![new];
    }

    /// What must hold of every change of voters.
    fn check_voters(&self, next: &BTreeSet<NodeId>) {
        assert_eq!(self.raft.voters.len(), 1, "no second change before the first has ended");
        let now = &self.raft.voters[0];
        assert_eq!(now.symmetric_difference(next).count(), 1, "{now:?} to {next:?}");
        for node in next.difference(now) {
            assert!(self.raft.learners[node].is_some_and(|lag| lag <= MAX_LAG), "{node} votes before it has the log");
        }
        let descriptor = self.descriptor();
        for node in now.difference(next) {
            let state = descriptor.replicas.get(node).map(|replica| replica.state);
            assert!(matches!(state, None | Some(ReplicaState::Leaving)), "{node} was to stay");
        }
    }

    /// Nobody asks for anything more, and learners get the log.
    fn settle(&mut self) {
        for _ in 0..100 {
            match self.step() {
                MembershipStep::None => return,
                MembershipStep::WaitForLearner { node, .. } => self.set_lag(node.0, Some(0)),
                step => self.act(step, false),
            }
        }
        panic!("no end: {:?} {:?}", self.descriptor(), self.raft);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_members_become_the_replicas_whatever_crashes_or_is_repeated(
        events in proptest::collection::vec(any_event(), 0..80),
    ) {
        let mut sim = Sim::new();
        for event in events {
            sim.happen(event);
        }
        sim.settle();
        let descriptor = sim.descriptor();
        prop_assert_eq!(descriptor.in_change(), None);
        prop_assert_eq!(&sim.raft.voters, &[descriptor.active()]);
        prop_assert!(sim.raft.learners.is_empty());
    }

    #[test]
    fn any_members_become_the_replicas(
        voters in proptest::collection::btree_set(1u64..7, 1..5),
        learners in proptest::collection::btree_map(1u64..7, proptest::option::of(0u64..20), 0..3),
        joint in proptest::option::of(proptest::collection::btree_set(1u64..7, 1..5)),
        change in proptest::option::of(any_event()),
    ) {
        let mut sim = Sim::new();
        let set = |ids: BTreeSet<u64>| -> BTreeSet<NodeId> { ids.into_iter().map(NodeId).collect() };
        sim.raft.voters = [Some(voters), joint].into_iter().flatten().map(set).collect();
        let votes = |node: &NodeId| sim.raft.voters.iter().any(|set| set.contains(node));
        let learners = learners.into_iter().map(|(n, lag)| (NodeId(n), lag));
        sim.raft.learners = learners.filter(|(node, _)| !votes(node)).collect();
        if let Some(Event::Add(n)) = change {
            sim.happen(Event::Add(n));
        }
        sim.settle();
        prop_assert_eq!(&sim.raft.voters, &[sim.descriptor().active()]);
        prop_assert!(sim.raft.learners.is_empty());
    }
}
