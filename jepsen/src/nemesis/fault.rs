//! What can break, by name.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// The faults: what each does, and its name.
macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $fault:ident: $name:literal;)+) => {
        /// Something that breaks.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Fault {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $fault,)+
        }

        impl Fault {
            /// All of them.
            pub const ALL: &[Fault] = &[$(Fault::$fault),+];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Fault::$fault => $name,)+
                }
            }
        }
    };
}

faults! {
    /// SIGKILL, and a start afterwards.
    Kill: "kill";
    /// SIGSTOP, and SIGCONT afterwards.
    Pause: "pause";
    /// Any of the partitions below.
    Partition: "partition";
    /// One node hears nobody and is not heard.
    PartitionOne: "partition-one";
    /// The nodes fall into two parts.
    PartitionHalves: "partition-halves";
    /// Each node hears a majority, and no two the same.
    PartitionRing: "partition-ring";
    /// Two parts that only one node joins.
    PartitionBridge: "partition-bridge";
    /// A node is heard and hears nobody, or the other way round.
    PartitionOneway: "partition-oneway";
    /// The leader of a group is alone.
    PartitionLeader: "partition-leader";
    /// The leader of the source of a move and that of its target do not hear each other.
    PartitionMigration: "partition-migration";
    /// A node does not hear those that hold the default group.
    PartitionDefault: "partition-default";
    /// Packets are lost.
    Loss: "loss";
    /// Packets reset their connections.
    Reset: "reset";
    /// Packets come late and out of their order.
    Delay: "delay";
    /// Leadership is handed over.
    Leader: "leader";
    /// A range moves.
    Move: "move";
    /// A move is called off, and tried again.
    Abandon: "abandon";
    /// A move is paused, and goes on.
    JobPause: "job-pause";
    /// A route is divided where the clients work.
    Split: "split";
    /// Clocks are wrong: by an amount, in jumps, too fast.
    Clock: "clock";
    /// Groups get replicas and give others up.
    Membership: "membership";
    /// A node is away until the log behind it is gone, and gets a snapshot.
    Snapshot: "snapshot";
    /// A node ends itself at a step of a transaction (builds with debug assertions).
    CrashTxn: "crash-txn";
    /// A node ends itself at a step of a move (builds with debug assertions).
    CrashMove: "crash-move";
    /// Nodes and their disks lose their power: what was not synced is gone.
    Power: "power";
    /// A disk has no space left.
    DiskFull: "disk-full";
    /// Disks take their time to write, to sync, or both.
    SlowDisk: "slow-disk";
    /// A write fails, half done, or room cannot be set aside; who needed it has to stop.
    WriteError: "write-error";
    /// A sync fails, and what was not synced is lost: the node and its disk lose their power when it has stopped.
    SyncError: "sync-error";
    /// The clocks by which leases are measured run at different rates, within what is promised.
    LeaseClock: "lease-clock";
    /// They run at rates, and jump ahead, beyond that: nothing is promised then.
    LeaseClockBeyond: "lease-clock-beyond";
    /// A node loses its disk, and another one with an empty disk takes its place.
    Replace: "replace";
    /// Bytes of a node's files change, or their ends are gone, while it is down; another node takes its place when it has refused.
    Damage: "damage";
}

impl Fault {
    /// Reads `none`, or names with commas between them. A name that is there twice breaks twice at once.
    ///
    /// # Errors
    /// For a name that nothing has.
    pub fn parse_all(text: &str) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty() && *name != "none") {
            match Fault::ALL.iter().find(|fault| fault.name() == name) {
                Some(fault) => faults.push(*fault),
                None => {
                    let known: Vec<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
                    bail!("there is no nemesis {name}; there are none, {}", known.join(", "))
                }
            }
        }
        Ok(faults)
    }

    /// Whether what clients are promised holds under it.
    pub fn is_covered(self) -> bool {
        self != Fault::LeaseClockBeyond
    }

    /// Whether each node stores on a disk of its own for it.
    pub fn needs_disks(self) -> bool {
        matches!(self, Fault::Power | Fault::DiskFull | Fault::SyncError)
    }

    /// Whether a library lies in front of the nodes' C library for it.
    pub fn needs_preload(self) -> bool {
        matches!(
            self,
            Fault::SlowDisk | Fault::WriteError | Fault::SyncError | Fault::LeaseClock | Fault::LeaseClockBeyond
        )
    }

    /// Whether nodes end themselves for it at points that are armed.
    pub fn crashes_at_points(self) -> bool {
        matches!(self, Fault::CrashTxn | Fault::CrashMove)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_a_wrong_one_is_told() {
        assert_eq!(Fault::parse_all("none").unwrap(), []);
        assert_eq!(Fault::parse_all("kill, move,kill").unwrap(), [Fault::Kill, Fault::Move, Fault::Kill]);
        assert!(Fault::parse_all("kil").unwrap_err().to_string().contains("partition-ring"));
        for fault in Fault::ALL {
            assert_eq!(serde_json::to_value(fault).unwrap(), fault.name());
        }
    }
}
