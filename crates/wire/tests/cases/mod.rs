//! One value for each case of `golden.txt`.

mod cluster;
mod compat;
mod distribution;
mod group;
mod internal;
mod jobs;
mod kv;
mod moving;
mod topology;
mod txn;

use std::fmt::Debug;

use prost::Message;

/// Looks at bytes, and panics if they are not right.
type Check = Box<dyn Fn(&[u8])>;

/// A message, its bytes, and what has to come of them.
pub struct Case {
    /// The message, a slash, and what is special about this one.
    pub name: &'static str,
    /// What this build writes.
    pub bytes: Vec<u8>,
    /// Reads bytes, and panics unless they are this value.
    pub read: Check,
}

/// All of them.
pub fn all() -> Vec<Case> {
    let files = [
        kv::cases(),
        internal::cases(),
        group::cases(),
        moving::cases(),
        distribution::cases(),
        jobs::cases(),
        topology::cases(),
        cluster::cases(),
        compat::cases(),
        txn::cases(),
    ];
    files.into_iter().flatten().collect()
}

fn case<M: Message + Default + PartialEq + Debug + 'static>(name: &'static str, message: M) -> Case {
    let bytes = message.encode_to_vec();
    Case { name, bytes, read: Box::new(move |bytes| assert_eq!(M::decode(bytes).as_ref(), Ok(&message), "{name}")) }
}
