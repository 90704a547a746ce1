//! Opens the ports of the node.

use std::io;
use std::net::SocketAddr;

use drover_seams::net;
use tokio::net::TcpListener;

/// Why a port is not open. Nothing was started on it.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process has it.
    #[error(
        "cannot listen on {address} ({setting}): the port is in use by another process; stop it or choose another port"
    )]
    InUse {
        /// The address.
        address: SocketAddr,
        /// The setting that asks for it.
        setting: &'static str,
    },
    /// The address is not one of this machine's.
    #[error(
        "cannot listen on {address} ({setting}): this machine has no such address; choose one of its own, or 0.0.0.0 for all"
    )]
    NotOurs {
        /// The address.
        address: SocketAddr,
        /// The setting that asks for it.
        setting: &'static str,
    },
    /// The operating system refused.
    #[error("cannot listen on {address} ({setting}): {source}")]
    Io {
        /// The address.
        address: SocketAddr,
        /// The setting that asks for it.
        setting: &'static str,
        /// What the operating system says.
        source: io::Error,
    },
}

/// Opens a port. `setting` is the path of the setting that holds `address`.
///
/// # Errors
/// If the port is taken, the address is foreign, or the operating system refuses.
pub async fn listen(setting: &'static str, address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { address, setting },
        io::ErrorKind::AddrNotAvailable => ListenError::NotOurs { address, setting },
        _ => ListenError::Io { address, setting, source },
    })
}

/// What comes to a port that is open.
pub enum Incoming {
    /// Over TCP.
    Tcp(TcpListener),
    /// Over the network of a simulation.
    Simulated(net::Incoming),
}

/// As [`listen`], on the network of the simulation if this process simulates.
///
/// # Errors
/// As [`listen`].
pub async fn listen_for_nodes(setting: &'static str, address: SocketAddr) -> Result<Incoming, ListenError> {
    match drover_seams::simulated() {
        None => listen(setting, address).await.map(Incoming::Tcp),
        Some(network) => {
            let incoming = network.listen(address).await;
            incoming.map(Incoming::Simulated).map_err(|source| ListenError::Io { address, setting, source })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_and_a_foreign_address_are_named_with_their_setting() {
        let taken = listen("node.admin_listen", "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = listen("node.grpc_listen", address).await.unwrap_err();
        assert!(matches!(error, ListenError::InUse { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&address.to_string()) && text.contains("node.grpc_listen"), "{text}");
        // 192.0.2.0/24 is set aside for documentation.
        let error = listen("node.grpc_listen", "192.0.2.1:0".parse().unwrap()).await.unwrap_err();
        assert!(matches!(error, ListenError::NotOurs { .. }), "{error}");
    }
}
