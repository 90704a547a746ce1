use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};

/// Below the range from which Linux takes the local ports of outgoing connections, so that no connection of another
/// test can take a port between two starts of the node that owns it.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// A port was not to be had.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// All are taken.
    #[error("no free port between {} and {}", RANGE.start, RANGE.end)]
    None,
    /// The folder of locks cannot be used.
    #[error("locking ports in {folder}: {source}")]
    Lock {
        /// Which folder.
        folder: String,
        /// Why.
        source: std::io::Error,
    },
}

/// A TCP port on loopback that no other test takes for as long as this value lives, in this process or another.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Takes a port that nobody listens on.
    ///
    /// # Errors
    /// If there is none.
    pub fn take() -> Result<Self, PortError> {
        let folder = std::env::temp_dir().join("drover-test-ports");
        let failed = |source| PortError::Lock { folder: folder.display().to_string(), source };
        std::fs::create_dir_all(&folder).map_err(failed)?;
        // Tests start in different places, so that they seldom meet.
        let size = RANGE.end - RANGE.start;
        let first = rand::random_range(0..size);
        for step in 0..size {
            let number = RANGE.start + (first + step) % size;
            let lock = File::create(folder.join(number.to_string())).map_err(failed)?;
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        Err(PortError::None)
    }

    /// The number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_are_held_differ_and_none_of_them_is_listened_on() {
        let ports: Vec<Port> = (0..50).map(|_| Port::take().unwrap()).collect();
        let numbers: std::collections::HashSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), ports.len());
        let listener = TcpListener::bind(ports[0].address()).unwrap();
        let taken = ports[0].number();
        drop(ports);
        // Whoever looks now must not get the one that is listened on, lock or no lock.
        assert!((0..200).all(|_| Port::take().unwrap().number() != taken));
        drop(listener);
    }
}
