//! The directory in which a node keeps everything it stores.
//!
//! ```text
//! LOCK            held by the process that uses the directory
//! identity        whose directory this is (see `identity.rs` for its format)
//! raftlog/        the Raft log of all groups
//! groups/<id>/    the store of one replica
//! snapshots/      snapshots on their way in or out
//! peers           what this node remembers of the others
//! nodes           where the nodes of the cluster were when that last changed, one address in a line
//! replicas        which replicas this node holds (see `replicas.rs` for its format)
//! ```
//!
//! # Invariants
//!
//! - One process at a time: the lock is taken before anything is read and held until the [`DataDir`] is dropped.
//! - The identity is written once, before anything else is created, and never changes. A directory of another node, of another
//!   cluster, of a newer format, or with data but without an identity is refused and left as it was.

mod error;
mod identity;
mod lock;
pub(crate) mod replicas;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use drover_keys::{ClusterId, GroupId, NodeId, ReplicaId, StoreId};
use drover_raftlog::LogDir;

pub use error::DataDirError;
pub use identity::{DIRECTORY_FORMAT, Identity, IdentityError};
pub use lock::DirLock;
pub use replicas::{RecordState, ReplicaRecord, ReplicaRecords};

use crate::durable;

const IDENTITY: &str = "identity";
const RAFTLOG: &str = "raftlog";
const GROUPS: &str = "groups";
const SNAPSHOTS: &str = "snapshots";
const PEERS: &str = "peers";
const REPLICAS: &str = "replicas";
const NODES: &str = "nodes";

/// An empty directory that is to become the data directory of a node whose number is not known yet.
#[derive(Debug)]
pub struct NewDataDir {
    root: PathBuf,
    store: StoreId,
    _lock: DirLock,
}

impl NewDataDir {
    /// Makes sure that `root` is empty or absent, and that nobody else uses it.
    ///
    /// # Errors
    /// See [`DataDirError`]; nothing that was there before has been changed.
    pub fn prepare(root: &Path) -> Result<Self, DataDirError> {
        durable::create_dir_all(root).map_err(|source| DataDirError::Io {
            doing: "create",
            path: root.to_owned(),
            source,
        })?;
        let lock = DirLock::acquire(root)?;
        if root.join(IDENTITY).exists() {
            return Err(DataDirError::Taken { root: root.to_owned() });
        }
        refuse_foreign(root)?;
        Ok(Self { root: root.to_owned(), store: StoreId(rand::random()), _lock: lock })
    }

    /// Identity of the directory.
    pub fn store_id(&self) -> StoreId {
        self.store
    }

    /// Makes it the data directory of a node.
    ///
    /// # Errors
    /// If the identity cannot be written; the directory is as before then.
    pub fn claim(self, cluster: ClusterId, node: NodeId) -> Result<(), DataDirError> {
        write_identity(&self.root, cluster, node, self.store).map(drop)
    }
}

/// A data directory that belongs to this node and is used by this process.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    identity: Identity,
    created: bool,
    _lock: DirLock,
}

impl DataDir {
    /// Opens the data directory of a node, or makes one if `root` is absent or empty.
    ///
    /// # Errors
    /// See [`DataDirError`]; nothing that was there before has been changed.
    pub fn open(root: &Path, cluster: ClusterId, node: NodeId) -> Result<Self, DataDirError> {
        let failed =
            |doing: &'static str| move |source: io::Error| DataDirError::Io { doing, path: root.to_owned(), source };
        durable::create_dir_all(root).map_err(failed("create"))?;
        let lock = DirLock::acquire(root)?;
        let (identity, created) = match read_identity(root)? {
            Some(identity) => (identity, false),
            None => (create_identity(root, cluster, node)?, true),
        };
        identity.check_owner(cluster, node).map_err(|error| DataDirError::identity(root, error))?;
        for dir in [RAFTLOG, GROUPS, SNAPSHOTS] {
            durable::create_dir_all(&root.join(dir)).map_err(failed("create folders in"))?;
        }
        Ok(Self { root: root.to_owned(), identity, created, _lock: lock })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whose it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Identity of this directory, random, different after the directory was lost.
    pub fn store_id(&self) -> StoreId {
        self.identity.store
    }

    /// Whether the directory was made by this process: the node has no history of its own, and cannot have voted.
    pub fn created(&self) -> bool {
        self.created
    }

    /// The Raft log of all groups.
    pub fn raftlog(&self) -> PathBuf {
        self.root.join(RAFTLOG)
    }

    /// The store of one replica.
    pub fn group(&self, group: GroupId) -> PathBuf {
        self.root.join(GROUPS).join(group.to_string())
    }

    /// The groups that have a store here, in ascending order.
    ///
    /// # Errors
    /// If the directory cannot be listed, or holds something that is not the store of a group.
    pub fn groups(&self) -> Result<Vec<GroupId>, DataDirError> {
        let path = self.root.join(GROUPS);
        let failed = |source| DataDirError::Io { doing: "list", path: path.clone(), source };
        let mut groups = Vec::new();
        for entry in fs::read_dir(&path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let group = name.to_str().and_then(|name| name.parse().ok().filter(|id: &GroupId| id.to_string() == name));
            groups.push(group.ok_or_else(|| DataDirError::Foreign { path: path.join(&name) })?);
        }
        groups.sort_unstable();
        Ok(groups)
    }

    /// Snapshots on their way in or out.
    pub fn snapshots(&self) -> PathBuf {
        self.root.join(SNAPSHOTS)
    }

    /// Makes sure that a log which was there is not gone: a replica that has forgotten its votes and entries would vote again, and
    /// be counted for what it no longer has. The replicas are noted behind the first opening of the log, so where they are noted
    /// there must be one.
    ///
    /// # Errors
    /// [`DataDirError::LogLost`].
    pub fn expect_log(&self, log: LogDir) -> Result<(), DataDirError> {
        let path = self.root.join(REPLICAS);
        let noted = path.try_exists().map_err(|source| DataDirError::Io { doing: "look for", path, source })?;
        match log {
            LogDir::Nothing if noted => Err(DataDirError::LogLost { path: self.raftlog() }),
            LogDir::Nothing | LogDir::Unused | LogDir::Used => Ok(()),
        }
    }

    /// Which replicas this node holds. A directory that is new is given `founding`, those that the cluster is created with. `log` is
    /// how the log was found before it was opened.
    ///
    /// # Errors
    /// If the file is damaged or missing, or cannot be read or written.
    pub fn replicas(
        &self,
        founding: impl IntoIterator<Item = (GroupId, ReplicaId)>,
        log: LogDir,
    ) -> Result<ReplicaRecords, DataDirError> {
        let used = log == LogDir::Used || !self.groups()?.is_empty();
        ReplicaRecords::open(self.root.join(REPLICAS), founding, used)
    }

    /// Where the nodes of the cluster were when that was last noted. Hints, to be tried: nothing if they cannot be read.
    pub fn known_nodes(&self) -> Vec<String> {
        parse_nodes(&fs::read(self.root.join(NODES)).unwrap_or_default())
    }

    /// Notes where the nodes of the cluster are.
    ///
    /// # Errors
    /// If the file cannot be written; then the older hints are left.
    pub fn note_nodes(&self, addresses: &[String]) -> Result<(), DataDirError> {
        let path = self.root.join(NODES);
        durable::write(&path, render_nodes(addresses).as_bytes()).map_err(|source| DataDirError::Io {
            doing: "write",
            path,
            source,
        })
    }

    /// Removes what is left of a replica, durably. Nothing in it is open.
    ///
    /// # Errors
    /// If the operating system refuses; then a part may be left.
    pub fn remove_group(&self, group: GroupId) -> Result<(), DataDirError> {
        for path in [self.group(group), self.snapshots().join(group.to_string())] {
            let failed = |source| DataDirError::Io { doing: "remove", path: path.clone(), source };
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                Ok(()) | Err(_) => {}
            }
            durable::sync_dir(path.parent().unwrap_or(&self.root)).map_err(failed)?;
        }
        Ok(())
    }

    /// What this node remembers of the others.
    pub fn peers(&self) -> PathBuf {
        self.root.join(PEERS)
    }
}

/// The addresses in a `nodes` file; none if it is no text.
pub(crate) fn parse_nodes(bytes: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The content of a `nodes` file.
pub(crate) fn render_nodes(addresses: &[String]) -> String {
    addresses.iter().map(|address| format!("{address}\n")).collect()
}

fn read_identity(root: &Path) -> Result<Option<Identity>, DataDirError> {
    let path = root.join(IDENTITY);
    match fs::read(&path) {
        Ok(bytes) => Identity::decode(&bytes).map(Some).map_err(|error| DataDirError::identity(root, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataDirError::Io { doing: "read", path, source }),
    }
}

/// Makes an empty directory the data directory of a node.
fn create_identity(root: &Path, cluster: ClusterId, node: NodeId) -> Result<Identity, DataDirError> {
    refuse_foreign(root)?;
    write_identity(root, cluster, node, StoreId(rand::random()))
}

fn write_identity(root: &Path, cluster: ClusterId, node: NodeId, store: StoreId) -> Result<Identity, DataDirError> {
    let path = root.join(IDENTITY);
    let identity = Identity { format: DIRECTORY_FORMAT, cluster, node, store };
    match durable::write(&path, &identity.encode()) {
        Ok(()) => Ok(identity),
        Err(source) => Err(DataDirError::Io { doing: "write", path, source }),
    }
}

/// Refuses a directory without identity in which there is anything that was not made by a first start.
fn refuse_foreign(root: &Path) -> Result<(), DataDirError> {
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| DataDirError::Io { doing, path, source }
    };
    // A first start that was interrupted leaves at most the temporary file; file systems make `lost+found`.
    let ours = [DirLock::FILE, "identity.tmp", "lost+found"];
    for entry in fs::read_dir(root).map_err(failed("list", root))? {
        let name = entry.map_err(failed("list", root))?.file_name();
        if !ours.iter().any(|ours| name == *ours) {
            return Err(DataDirError::NoIdentity { root: root.to_owned(), found: name.to_string_lossy().into_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLUSTER: ClusterId = ClusterId([7; 16]);
    const NODE: NodeId = NodeId(3);

    fn open(root: &Path) -> Result<DataDir, DataDirError> {
        DataDir::open(root, CLUSTER, NODE)
    }

    fn listing(root: &Path) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap_or_default()))
            .filter(|(name, _)| name != DirLock::FILE)
            .collect();
        files.sort();
        files
    }

    #[test]
    fn a_directory_keeps_its_identity_over_restarts_and_a_new_one_gets_another() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("deep/below");
        let first = open(&root).unwrap();
        assert!(first.created());
        let identity = first.identity().clone();
        assert_eq!((identity.cluster, identity.node), (CLUSTER, NODE));
        assert!([first.raftlog(), first.snapshots()].iter().all(|dir| dir.is_dir()));
        drop(first);
        let again = open(&root).unwrap();
        assert!(!again.created());
        assert_eq!(*again.identity(), identity);
        assert_ne!(open(&temp.path().join("other")).unwrap().store_id(), identity.store);
    }

    #[test]
    fn the_addresses_of_nodes_are_hints_that_may_be_missing_or_damaged() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open(temp.path()).unwrap();
        assert_eq!(dir.known_nodes(), [""; 0]);
        dir.note_nodes(&["a:1".to_owned(), "b:2".to_owned()]).unwrap();
        assert_eq!(dir.known_nodes(), ["a:1", "b:2"]);
        fs::write(temp.path().join(NODES), [0xff, 0xfe]).unwrap();
        assert_eq!(dir.known_nodes(), [""; 0]);
    }

    proptest! {
        #[test]
        fn the_addresses_of_nodes_come_back(addresses in proptest::collection::vec("[!-~]{1,24}", 0..6)) {
            prop_assert_eq!(parse_nodes(render_nodes(&addresses).as_bytes()), addresses);
        }

        #[test]
        fn whatever_is_read_as_addresses_of_nodes_is_written_so_that_it_comes_back(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b' '), Just(b'a')], 0..40),
        ) {
            let addresses = parse_nodes(&bytes);
            prop_assert_eq!(parse_nodes(render_nodes(&addresses).as_bytes()), addresses);
        }
    }

    #[test]
    fn golden_bytes_of_the_addresses_of_nodes() {
        let addresses = ["127.0.0.1:7400".to_owned(), "b.example:2".to_owned()];
        assert_eq!(render_nodes(&addresses), "127.0.0.1:7400\nb.example:2\n");
        assert_eq!(parse_nodes(b"127.0.0.1:7400\nb.example:2\n"), addresses);
        // As an editor may leave it.
        assert_eq!(parse_nodes(b"127.0.0.1:7400 \r\n\n b.example:2"), addresses);
    }

    #[test]
    fn a_directory_is_prepared_for_a_node_without_a_number_only_if_it_is_empty() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("new");
        let prepared = NewDataDir::prepare(&root).unwrap();
        assert!(matches!(open(&root), Err(DataDirError::InUse { .. })));
        let store = prepared.store_id();
        prepared.claim(CLUSTER, NODE).unwrap();
        assert_eq!(open(&root).unwrap().store_id(), store);
        assert!(matches!(NewDataDir::prepare(&root), Err(DataDirError::Taken { .. })));
        fs::write(temp.path().join("thesis.tex"), "x").unwrap();
        assert!(matches!(NewDataDir::prepare(temp.path()), Err(DataDirError::NoIdentity { .. })));
    }

    #[test]
    fn a_directory_in_use_is_refused_and_free_again_when_its_user_is_gone() {
        let temp = tempfile::tempdir().unwrap();
        let held = open(temp.path()).unwrap();
        let error = open(temp.path()).unwrap_err();
        assert!(matches!(error, DataDirError::InUse { .. }), "{error}");
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(held);
        open(temp.path()).unwrap();
    }

    #[test]
    fn directories_of_others_are_refused_and_left_as_they_were() {
        let temp = tempfile::tempdir().unwrap();
        drop(open(temp.path()).unwrap());
        let before = listing(temp.path());
        let error = DataDir::open(temp.path(), CLUSTER, NodeId(4)).unwrap_err().to_string();
        assert!(error.contains("node 3") && error.contains("node 4"), "{error}");
        let error = DataDir::open(temp.path(), ClusterId([8; 16]), NODE).unwrap_err().to_string();
        assert!(error.contains(&CLUSTER.to_string()) && error.contains("cluster"), "{error}");
        assert_eq!(listing(temp.path()), before);
    }

    #[test]
    fn a_directory_of_a_newer_format_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let identity = Identity { format: DIRECTORY_FORMAT + 1, cluster: CLUSTER, node: NODE, store: StoreId([1; 16]) };
        fs::write(temp.path().join(IDENTITY), identity.encode()).unwrap();
        let before = listing(temp.path());
        let error = open(temp.path()).unwrap_err().to_string();
        assert!(error.contains("newer"), "{error}");
        assert_eq!(listing(temp.path()), before);
    }

    #[test]
    fn a_damaged_identity_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        drop(open(temp.path()).unwrap());
        let path = temp.path().join(IDENTITY);
        let mut bytes = fs::read(&path).unwrap();
        bytes[20] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = open(temp.path()).unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
    }

    #[test]
    fn a_directory_with_files_of_someone_else_is_not_taken() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("thesis.tex"), "x").unwrap();
        let error = open(temp.path()).unwrap_err();
        assert!(matches!(error, DataDirError::NoIdentity { .. }), "{error}");
        assert!(!temp.path().join(IDENTITY).exists());
    }

    #[test]
    fn a_first_start_that_was_interrupted_is_taken_up_again() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(durable::temporary_name(&temp.path().join(IDENTITY)), "half").unwrap();
        assert!(open(temp.path()).unwrap().created());
    }

    #[test]
    fn where_replicas_are_noted_there_must_be_a_log_and_where_a_log_was_used_replicas() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open(temp.path()).unwrap();
        let all = [LogDir::Nothing, LogDir::Unused, LogDir::Used];
        assert_eq!(all.map(|log| dir.expect_log(log).is_ok()), [true; 3], "nothing is noted yet");
        assert!(dir.replicas([], LogDir::Used).is_err());
        // A first start that ended between the two.
        dir.replicas([], LogDir::Unused).unwrap();
        assert_eq!(all.map(|log| dir.expect_log(log).is_ok()), [false, true, true]);
        assert_eq!(all.map(|log| dir.replicas([], log).is_ok()), [true; 3]);
    }

    #[test]
    fn stores_of_groups_are_listed_in_order_and_strangers_among_them_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let dir = open(temp.path()).unwrap();
        for group in [10, 2] {
            fs::create_dir(dir.group(GroupId(group))).unwrap();
        }
        assert_eq!(dir.groups().unwrap(), [GroupId(2), GroupId(10)]);
        for stranger in ["lost", "02", "+3"] {
            let path = temp.path().join(GROUPS).join(stranger);
            fs::create_dir(&path).unwrap();
            assert!(matches!(dir.groups(), Err(DataDirError::Foreign { .. })), "{stranger}");
            fs::remove_dir(path).unwrap();
        }
    }
}
