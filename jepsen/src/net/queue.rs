//! Holds packets back: the kernel hands them to a queue in user space (NFQUEUE), which lets each go on after a time of its own, so
//! that they come late and out of their order. One thread for each namespace, which lives inside of it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rand::Rng;

/// The number of the queue.
pub const QUEUE: u16 = 0;
/// Packets that wait at most; more are lost.
const LONGEST: u32 = 20_000;
/// Longest wait for a packet, so that a stop is noticed.
const LOOK_MS: i32 = 20;

const SUBSYSTEM: u16 = 3 << 8;
const PACKET: u16 = SUBSYSTEM;
const VERDICT: u16 = SUBSYSTEM | 1;
const CONFIG: u16 = SUBSYSTEM | 2;
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;

/// The queue of one namespace. Dropping it ends its thread.
#[derive(Debug)]
pub struct Queue {
    most_ms: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
}

impl Queue {
    /// Opens the queue inside of a namespace.
    pub fn open(namespace: &str) -> Result<Queue> {
        let queue = Queue { most_ms: Arc::default(), stop: Arc::default() };
        let (most_ms, stop) = (Arc::clone(&queue.most_ms), Arc::clone(&queue.stop));
        let path = format!("/run/netns/{namespace}");
        let (opened, answer) = channel();
        std::thread::spawn(move || match enter(&path).and_then(|()| Socket::open()) {
            Ok(socket) => {
                let _ = opened.send(Ok(()));
                socket.pass(&most_ms, &stop);
            }
            Err(error) => drop(opened.send(Err(error))),
        });
        answer.recv().context("the thread of a queue ended")??;
        Ok(queue)
    }

    /// Packets wait up to so long from now on.
    pub fn delay(&self, most_ms: u32) {
        self.most_ms.store(most_ms, Ordering::Relaxed);
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Takes this thread into a namespace.
fn enter(path: &str) -> Result<()> {
    let file = File::open(path).with_context(|| path.to_owned())?;
    // SAFETY: setns takes a descriptor that is open and a flag; it changes this thread alone.
    let done = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()).with_context(|| path.to_owned()) }
}

struct Socket(OwnedFd);

impl Socket {
    fn open() -> Result<Socket> {
        // SAFETY: no pointers.
        let fd =
            unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_NETFILTER) };
        if fd < 0 {
            return Err(io::Error::last_os_error()).context("a netlink socket");
        }
        // SAFETY: the descriptor was just opened and belongs to nobody else.
        let socket = Socket(unsafe { OwnedFd::from_raw_fd(fd) });
        // Bind the queue, ask for no more than the packets' numbers, and say how many may wait.
        socket.configure(1, &[1, 0, 0, 0])?;
        socket.configure(2, &[0, 0, 0, 0, 1])?;
        socket.configure(3, &LONGEST.to_be_bytes())?;
        Ok(socket)
    }

    fn configure(&self, attribute: u16, value: &[u8]) -> Result<()> {
        self.send(&message(CONFIG, REQUEST | ACKNOWLEDGE, attribute, value)).context("the configuration of a queue")?;
        let mut buffer = [0; 4096];
        let read = self.receive(&mut buffer).context("the answer of a queue")?;
        match parse(&buffer[..read]).first() {
            Some(Told::Error(0)) => Ok(()),
            Some(Told::Error(code)) => Err(anyhow!("a queue: {}", io::Error::from_raw_os_error(-code))),
            _ => bail!("a queue gives no answer"),
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and the length are those of one slice.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the pointer and the length are those of one slice, which is borrowed for writing.
        let read = unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }

    /// Whether there is something to read.
    fn wait(&self, ms: i32) -> bool {
        let mut look = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one element, which lives as long as the call.
        unsafe { libc::poll(&raw mut look, 1, ms) > 0 }
    }

    fn pass(&self, most_ms: &AtomicU32, stop: &AtomicBool) {
        let mut waiting: BinaryHeap<Reverse<(Instant, u32)>> = BinaryHeap::new();
        let mut buffer = vec![0; 1 << 16];
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            while let Some(Reverse((due, packet))) = waiting.peek().copied()
                && due <= now
            {
                waiting.pop();
                let verdict = [ACCEPT.to_be_bytes(), packet.to_be_bytes()].concat();
                // One that cannot be let go on is lost.
                let _ = self.send(&message(VERDICT, REQUEST, 2, &verdict));
            }
            let next = waiting.peek().map_or(LOOK_MS, |Reverse((due, _))| {
                i32::try_from(due.saturating_duration_since(now).as_millis()).unwrap_or(LOOK_MS).clamp(1, LOOK_MS)
            });
            // More than the socket holds is lost, too.
            if self.wait(next)
                && let Ok(read) = self.receive(&mut buffer)
            {
                let most = most_ms.load(Ordering::Relaxed);
                for told in parse(&buffer[..read]) {
                    if let Told::Packet(packet) = told {
                        let wait = Duration::from_micros(rand::rng().random_range(0..=u64::from(most) * 1000));
                        waiting.push(Reverse((Instant::now() + wait, packet)));
                    }
                }
            }
        }
    }
}

/// A netlink message for the queue with one attribute.
fn message(kind: u16, flags: u16, attribute: u16, value: &[u8]) -> Vec<u8> {
    let padded = value.len().next_multiple_of(4);
    let length = u32::try_from(16 + 4 + 4 + padded).unwrap_or(0);
    let mut bytes = Vec::new();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence and port: nobody asks.
    bytes.extend([0; 8]);
    // Any family, version 0, the queue.
    bytes.extend([0, 0]);
    bytes.extend(QUEUE.to_be_bytes());
    bytes.extend(u16::try_from(4 + value.len()).unwrap_or(0).to_ne_bytes());
    bytes.extend(attribute.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(16 + 4 + 4 + padded, 0);
    bytes
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Packet(u32),
    Error(i32),
}

/// What the kernel tells in some messages.
fn parse(mut bytes: &[u8]) -> Vec<Told> {
    let mut told = Vec::new();
    let u16_at = |bytes: &[u8], at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    while let Some(length) = bytes.get(..4).and_then(|b| Some(u32::from_ne_bytes(b.try_into().ok()?) as usize)) {
        let Some(one) = bytes.get(..length).filter(|_| length >= 16) else { break };
        match u16_at(one, 4) {
            Some(ERROR) => {
                let code = one.get(16..20).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
                told.push(Told::Error(code));
            }
            Some(PACKET) => {
                let mut at = 20;
                while let (Some(size), Some(kind)) = (u16_at(one, at), u16_at(one, at + 2)) {
                    if kind & 0x3fff == 1 {
                        let number = one.get(at + 4..at + 8).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
                        told.extend(number.map(Told::Packet));
                    }
                    at += usize::from(size.max(4)).next_multiple_of(4);
                }
            }
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_laid_out_as_the_kernel_reads_them() {
        let bytes = message(CONFIG, REQUEST, 2, &[0, 0, 0, 0, 1]);
        assert_eq!(bytes.len(), 32);
        assert_eq!(bytes[..4], 32u32.to_ne_bytes());
        assert_eq!(bytes[20..24], [9u16.to_ne_bytes(), 2u16.to_ne_bytes()].concat());
        assert_eq!(bytes[24..], [0, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn packets_and_errors_are_told_apart_and_what_is_cut_short_is_passed_over() {
        let packet = message(PACKET, 0, 1, &[0, 0, 0, 7, 8, 0, 1]);
        let mut error = message(ERROR, 0, 0, &[]);
        error[16..20].copy_from_slice(&(-1i32).to_ne_bytes());
        let both = [packet.clone(), error].concat();
        assert_eq!(parse(&both), [Told::Packet(7), Told::Error(-1)]);
        assert_eq!(parse(&packet[..packet.len() - 1]), []);
        assert_eq!(parse(&[0; 20]), []);
    }
}
