//! A network namespace for each node, joined by a bridge. Everything is called after the process that made it, so that the next
//! run finds and removes what one left behind that was killed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, ensure};

use super::faults::NoiseKind;
use super::queue::{QUEUE, Queue};
use super::{Addresses, Faults, sh};

/// How everything is called: the prefix, and the process.
const PREFIX: &str = "dj";
const BRIDGE: &str = "djb";
const LINK: &str = "djv";
const GRPC_PORT: u16 = 7400;
const ADMIN_PORT: u16 = 7401;

#[derive(Debug)]
pub struct Namespaces {
    pid: u32,
    /// Third number of the addresses.
    subnet: u8,
    nodes: u64,
    iptables: &'static str,
    /// Of each node, once packets were to be held back.
    queues: Mutex<BTreeMap<u64, Queue>>,
}

impl Namespaces {
    pub fn new(nodes: u64) -> Result<Self> {
        ensure!(nodes < 200, "that many nodes have no addresses");
        let iptables = ["iptables-legacy-restore", "iptables-restore"];
        let iptables = iptables.into_iter().find(|name| sh(name, &["--version"]).is_ok());
        let iptables = iptables.ok_or_else(|| anyhow!("there is no iptables"))?;
        let net =
            Namespaces { pid: std::process::id(), subnet: free_subnet()?, nodes, iptables, queues: Mutex::default() };
        // What was made before something fails goes with the drop.
        net.make()?;
        Ok(net)
    }

    fn make(&self) -> Result<()> {
        let (bridge, subnet) = (format!("{BRIDGE}{}", self.pid), self.subnet);
        sh("ip", &["link", "add", &bridge, "type", "bridge"])?;
        sh("ip", &["addr", "add", &format!("10.213.{subnet}.254/24"), "dev", &bridge])?;
        sh("ip", &["link", "set", &bridge, "up"])?;
        for node in 1..=self.nodes {
            let (space, link) = (self.space(node), format!("{LINK}{}n{node}", self.pid));
            sh("ip", &["netns", "add", &space])?;
            sh("ip", &["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            sh("ip", &["link", "set", &link, "master", &bridge, "up"])?;
            sh("ip", &["-n", &space, "addr", "add", &format!("{}/24", self.address(node)), "dev", "eth0"])?;
            sh("ip", &["-n", &space, "link", "set", "eth0", "up"])?;
            sh("ip", &["-n", &space, "link", "set", "lo", "up"])?;
        }
        self.apply(&Faults::default()).context("iptables in a namespace")
    }

    fn space(&self, node: u64) -> String {
        format!("{PREFIX}{}n{node}", self.pid)
    }

    fn address(&self, node: u64) -> String {
        format!("10.213.{}.{node}", self.subnet)
    }

    pub fn addresses(&self, node: u64) -> Addresses {
        let address = self.address(node);
        let grpc = format!("{address}:{GRPC_PORT}");
        Addresses { listen: grpc.clone(), advertise: grpc, admin: format!("{address}:{ADMIN_PORT}") }
    }

    /// Without `ip netns exec`: that would also give the process mounts of its own, which hold a disk that is unplugged here.
    pub fn command(&self, node: u64, program: &Path) -> Result<Command> {
        let path = format!("/run/netns/{}", self.space(node));
        let space = File::open(&path).context(path)?;
        let mut command = Command::new(program);
        // SAFETY: the closure runs between fork and exec and makes one system call; it neither allocates nor takes locks.
        unsafe {
            command.pre_exec(move || match libc::setns(space.as_raw_fd(), libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        Ok(command)
    }

    fn hold_back(&self, node: u64, most_ms: u32) -> Result<()> {
        let mut queues = self.queues.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if most_ms > 0 && !queues.contains_key(&node) {
            queues.insert(node, Queue::open(&self.space(node))?);
        }
        if let Some(queue) = queues.get(&node) {
            queue.delay(most_ms);
        }
        Ok(())
    }

    /// Replaces the rules of every node.
    pub fn apply(&self, faults: &Faults) -> Result<()> {
        for node in 1..=self.nodes {
            self.hold_back(node, faults.delay_at(node))?;
            let rules = rules(faults, node, |other| self.address(other), self.subnet);
            let mut restore = self.command(node, Path::new(self.iptables))?;
            restore.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
            let mut child = restore.spawn().context(self.iptables)?;
            child.stdin.take().context("a pipe was asked for")?.write_all(rules.as_bytes())?;
            let ended = child.wait_with_output()?;
            let why = String::from_utf8_lossy(&ended.stderr);
            ensure!(ended.status.success(), "{}: {}", self.iptables, why.trim());
        }
        Ok(())
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        remove(self.pid);
    }
}

/// The rules of one node, as `iptables-restore` takes them.
fn rules(faults: &Faults, node: u64, address: impl Fn(u64) -> String, subnet: u8) -> String {
    let mut text = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n".to_owned();
    for other in faults.unheard(node) {
        let _ = writeln!(text, "-A INPUT -s {} -j DROP", address(other));
    }
    for noise in faults.noise_at(node) {
        let probability = f64::from(noise.permille) / 1000.0;
        // Not what comes from the clients, who sit at the bridge.
        let of = format!("-A INPUT -s 10.213.{subnet}.0/25 -m statistic --mode random --probability {probability}");
        let _ = match noise.kind {
            NoiseKind::Loss => writeln!(text, "{of} -j DROP"),
            NoiseKind::Reset => writeln!(text, "{of} -p tcp -j REJECT --reject-with tcp-reset"),
            NoiseKind::Delay { .. } => writeln!(text, "{of} -j NFQUEUE --queue-num {QUEUE} --queue-bypass"),
        };
    }
    text.push_str("COMMIT\n");
    text
}

/// One that no interface has.
fn free_subnet() -> Result<u8> {
    let output = Command::new("ip").args(["-4", "addr"]).output().context("ip cannot be run")?;
    let taken = String::from_utf8_lossy(&output.stdout).into_owned();
    let first = u8::try_from(std::process::id() % 250).unwrap_or(0);
    let mut candidates = (0..250u8).map(|n| ((u16::from(first) + u16::from(n)) % 250) as u8);
    candidates.find(|n| !taken.contains(&format!("10.213.{n}."))).ok_or_else(|| anyhow!("no subnet is free"))
}

/// Removes what a process made. What is not there any more is passed over.
fn remove(pid: u32) {
    for name in listed(&["netns", "list"], &format!("{PREFIX}{pid}n")) {
        let inside = Command::new("ip").args(["netns", "pids", &name]).output();
        let inside = inside.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        for pid in inside.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = sh("ip", &["netns", "delete", &name]);
    }
    for name in listed(&["-o", "link"], &format!("{LINK}{pid}n")) {
        let _ = sh("ip", &["link", "delete", &name]);
    }
    let _ = sh("ip", &["link", "delete", &format!("{BRIDGE}{pid}")]);
}

/// Names that `ip` lists and that begin so.
fn listed(what: &[&str], prefix: &str) -> Vec<String> {
    let output = Command::new("ip").args(what).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    names(&text, prefix)
}

fn names(text: &str, prefix: &str) -> Vec<String> {
    let words = text.split(|c: char| c.is_whitespace() || c == '@' || c == ':');
    let mut found: Vec<String> = words.filter(|word| word.starts_with(prefix)).map(str::to_owned).collect();
    found.sort();
    found.dedup();
    found
}

/// Removes what runs made whose process is gone.
pub fn clean_up_after_others() {
    let mut all = listed(&["netns", "list"], PREFIX);
    all.extend(listed(&["-o", "link"], BRIDGE));
    let mut pids: Vec<u32> = all.iter().filter_map(|name| maker(name)).collect();
    pids.sort_unstable();
    pids.dedup();
    for pid in pids {
        let is_alive = std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name.trim().starts_with("drover-jepsen"));
        if !is_alive {
            remove(pid);
        }
    }
}

/// The process that something is called after.
fn maker(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(BRIDGE).or_else(|| name.strip_prefix(PREFIX))?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let is_whole = rest.len() == digits.len() || rest[digits.len()..].starts_with('n');
    digits.parse().ok().filter(|_| is_whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Noise, halves};

    #[test]
    fn the_rules_of_a_node_name_whom_it_does_not_hear() {
        let mut faults = Faults::default();
        faults.cut("partition", halves(&[1], &[2, 3]));
        faults.disturb("loss", vec![Noise { node: 1, kind: NoiseKind::Loss, permille: 50 }]);
        faults.disturb("reset", vec![Noise { node: 2, kind: NoiseKind::Reset, permille: 5 }]);
        let of = |faults: &Faults, node| rules(faults, node, |n| format!("10.213.9.{n}"), 9);
        let one = of(&faults, 1);
        let lines: Vec<&str> = one.lines().filter(|line| line.starts_with("-A")).collect();
        let expect = [
            "-A INPUT -s 10.213.9.2 -j DROP",
            "-A INPUT -s 10.213.9.3 -j DROP",
            "-A INPUT -s 10.213.9.0/25 -m statistic --mode random --probability 0.05 -j DROP",
        ];
        assert_eq!(lines, expect);
        assert!(of(&faults, 2).contains("--reject-with tcp-reset"));
        faults.disturb("delay", vec![Noise { node: 3, kind: NoiseKind::Delay { most_ms: 90 }, permille: 500 }]);
        assert!(rules(&faults, 3, |n| n.to_string(), 9).contains("0.5 -j NFQUEUE --queue-num 0"));
        assert_eq!((faults.delay_at(3), faults.delay_at(1)), (90, 0));
        faults.heal("delay");
        assert!(!of(&faults, 3).contains("statistic") && of(&faults, 3).contains("10.213.9.1"));
    }

    #[test]
    fn what_is_left_is_found_by_the_process_that_made_it() {
        assert_eq!(names("dj12n1 (id: 0)\ndj12n2\nother\n", "dj12n"), ["dj12n1", "dj12n2"]);
        assert_eq!(names("5: djb7: <UP>\n6: djv7n1@if2: <UP>", "djb"), ["djb7"]);
        let table = [("dj12n3", Some(12)), ("djb77", Some(77)), ("djb", None), ("dj9x", None), ("docker0", None)];
        for (name, pid) in table {
            assert_eq!(maker(name), pid, "{name}");
        }
    }
}
