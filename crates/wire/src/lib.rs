//! What goes over the wire and onto disk: the generated code of `proto/` and its conversions. No logic.

/// The generated code.
pub mod proto {
    /// Package `drover.v1`: the services.
    #[allow(clippy::all, clippy::pedantic, missing_docs)]
    pub mod v1 {
        tonic::include_proto!("drover.v1");
    }
    /// Packages of what is stored.
    pub mod storage {
        /// Package `drover.storage.v1`: the log and the state machine.
        #[allow(clippy::all, clippy::pedantic, missing_docs)]
        pub mod v1 {
            tonic::include_proto!("drover.storage.v1");
        }
    }
    /// The encoded `FileDescriptorSet` of all of it, for the reflection service.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
