//! Where everybody comes from: a block of public addresses in a network namespace of its own, or
//! loopback.
//!
//! In the namespace the whole block is local, so every address of it can be bound, and whoever
//! listens on all addresses answers on each. A Netabase dials from a new port and leaves its
//! address to the kernel, which takes the source that the route to the node names. So the route is
//! changed before each honest peer dials.
//!
//! | addresses | whose |
//! | --- | --- |
//! | 11.0.0.1 | the node's |
//! | 11.1.n.1 | of the honest peer, where n is 0, and of the newcomers |
//! | 11.2.0.1 | of the client of the API |
//! | 11.64.0.0/10 | of the strangers, by prefix |
//! | 11.128.0.0/10 | made up by strangers; they answer |
//! | 11.192.0.0/10 | made up by strangers; what is sent there is lost |

use std::convert::Infallible;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// What makes a namespace: root can, and others where they may be root in a namespace of users.
const UNSHARE: [&[&str]; 2] = [&["--net"], &["--map-root-user", "--net"]];

const NODE: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(11, 2, 0, 1);
const STRANGERS: Ipv4Addr = Ipv4Addr::new(11, 64, 0, 0);
const HOSTS: Ipv4Addr = Ipv4Addr::new(11, 128, 0, 0);
const NOWHERE: Ipv4Addr = Ipv4Addr::new(11, 192, 0, 0);
const LOOPBACK_STRANGERS: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);
const LOOPBACK_HOSTS: Ipv4Addr = Ipv4Addr::new(127, 128, 0, 0);
/// The lengths of the prefixes of the strangers and hosts above, as masks.
const HOST_MASK: u32 = (1 << 22) - 1;
const LOOPBACK_MASK: u32 = (1 << 23) - 1;
/// The addresses of a /24 that a host may have.
const HOSTS_PER_PREFIX: u32 = 254;
/// The most /24s that strangers can come from.
pub(super) const MAX_PREFIXES: u32 = (HOST_MASK + 1) / 256;

/// Where the node and everybody else are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ground {
    /// 127/8, which has no prefixes.
    Loopback,
    /// A namespace, where strangers come from so many /24s.
    Namespace { prefixes: u32 },
}

impl Ground {
    /// Returns the address that the node listens on.
    pub(super) fn node(self) -> Ipv4Addr {
        match self {
            Self::Loopback => Ipv4Addr::LOCALHOST,
            Self::Namespace { .. } => NODE,
        }
    }

    /// Returns where an honest peer listens. Each has a prefix of its own, where there are any.
    pub(super) fn peer(self, number: u8) -> Multiaddr {
        let ip = match self {
            Self::Loopback => Ipv4Addr::LOCALHOST,
            Self::Namespace { .. } => peer(number),
        };
        Multiaddr::from(ip).with(Protocol::Tcp(0))
    }

    /// Has the next connections to the node come from an honest peer's address.
    pub(super) async fn come_from(self, number: u8) -> anyhow::Result<()> {
        if let Self::Namespace { .. } = self {
            let route = format!("route replace local {NODE} dev lo src {}", peer(number));
            let status = tokio::process::Command::new("ip").args(route.split(' ')).status().await?;
            ensure!(status.success(), "`ip {route}` ended with {status}");
        }
        Ok(())
    }

    /// Returns where the client of the API comes from.
    pub(super) fn client(self) -> Ipv4Addr {
        match self {
            Self::Loopback => Ipv4Addr::LOCALHOST,
            Self::Namespace { .. } => CLIENT,
        }
    }

    /// Returns where strangers come from: the first addresses of all prefixes, then the second.
    pub(super) fn stranger(self, number: u32) -> Ipv4Addr {
        match self {
            Self::Loopback => Ipv4Addr::from_bits(LOOPBACK_STRANGERS.to_bits() + (number & LOOPBACK_MASK)),
            Self::Namespace { prefixes } => {
                let (prefix, host) = (number % prefixes, number / prefixes % HOSTS_PER_PREFIX + 1);
                Ipv4Addr::from_bits(STRANGERS.to_bits() | (prefix << 8) | host)
            }
        }
    }

    /// Returns an address that strangers make up and that answers.
    pub(super) fn host(self, number: u32) -> Ipv4Addr {
        let hosts = match self {
            Self::Loopback => LOOPBACK_HOSTS,
            Self::Namespace { .. } => HOSTS,
        };
        Ipv4Addr::from_bits(hosts.to_bits() | spread(number))
    }

    /// Returns an address that strangers make up and that never answers.
    pub(super) fn nowhere(self, number: u32) -> Ipv4Addr {
        match self {
            // Documentation is the only use of that network (RFC 5737).
            Self::Loopback => {
                let [.., low] = number.to_be_bytes();
                Ipv4Addr::new(203, 0, 113, low)
            }
            Self::Namespace { .. } => Ipv4Addr::from_bits(NOWHERE.to_bits() | spread(number)),
        }
    }
}

/// Takes following numbers to far places, so that they have other prefixes.
fn spread(number: u32) -> u32 {
    /// Odd, so that no two numbers come to one place.
    const FACTOR: u32 = 0x9e37_79b1;
    number.wrapping_mul(FACTOR) & HOST_MASK
}

fn peer(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(11, 1, number, 1)
}

/// Fails unless a network namespace can be made here. The error says what to do.
pub fn ensure_namespaces() -> anyhow::Result<()> {
    namespace().map(drop)
}

/// Returns the beginning of a command in a namespace of its own.
fn namespace() -> anyhow::Result<Command> {
    let mut reasons = Vec::new();
    for options in UNSHARE {
        let mut unshare = Command::new("unshare");
        unshare.args(options);
        let attempt = Command::new("unshare").args(options).args(["ip", "link", "set", "lo", "up"]).output();
        match attempt {
            Ok(output) if output.status.success() => return Ok(unshare),
            Ok(output) => reasons.push(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => reasons.push(format!("unshare: {error}")),
        }
    }
    reasons.dedup();
    bail!(
        "cannot make a network namespace ({}): `siege` needs `unshare` of util-linux, `ip` of iproute2, and root \
         or user namespaces; provide them, or use --loopback, which exercises no limits by prefix",
        reasons.join("; ")
    )
}

/// Replaces this process by the same command in a network namespace.
#[cfg(unix)]
pub(super) fn confine(flag: &str) -> anyhow::Result<Infallible> {
    use std::os::unix::process::CommandExt as _;

    let mut command = namespace()?;
    command.arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).arg(flag);
    Err(command.exec()).context("cannot start `unshare`")
}

#[cfg(not(unix))]
pub(super) fn confine(_: &str) -> anyhow::Result<Infallible> {
    namespace()?;
    bail!("this system has no network namespaces")
}

/// Makes the block of this process's namespace, which is new.
pub(super) fn lay_out() -> anyhow::Result<()> {
    /// The lines above the interfaces.
    const HEADS: usize = 2;
    let interfaces = std::fs::read_to_string("/proc/self/net/dev")?;
    let others = interfaces.lines().skip(HEADS).filter(|line| !line.trim_start().starts_with("lo:"));
    ensure!(others.count() == 0, "this network namespace is in use; leave out --confined");
    let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn()?;
    let mut input = ip.stdin.take().context("`ip` reads nothing")?;
    input.write_all(layout().as_bytes())?;
    drop(input);
    let status = ip.wait()?;
    ensure!(
        status.success(),
        "cannot set up the network namespace: `ip` ended with {status}; use --loopback"
    );
    Ok(())
}

fn layout() -> String {
    // A route that is not local and leads to loopback loses what is sent there.
    format!(
        "link set lo up\n\
         route add local 11.0.0.0/9 dev lo\n\
         route add local {HOSTS}/10 dev lo\n\
         route add {NOWHERE}/10 dev lo src {NODE}\n"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn strangers_are_spread_over_their_prefixes() {
        let ground = Ground::Namespace { prefixes: 50 };
        let strangers: HashSet<_> = (0..200).map(|number| ground.stranger(number).octets()).collect();
        let prefixes: HashSet<_> = strangers.iter().map(|[a, b, c, _]| [*a, *b, *c]).collect();
        assert_eq!((strangers.len(), prefixes.len()), (200, 50));
        assert_eq!(ground.stranger(MAX_PREFIXES * 300).octets()[..2], [11, 64]);
    }

    #[test]
    fn made_up_addresses_have_other_prefixes() {
        let ground = Ground::Namespace { prefixes: 50 };
        let hosts: HashSet<_> = (0..16_000).map(|number| ground.host(number)).collect();
        let prefixes: HashSet<_> = (0..64).map(|number| ground.host(number).to_bits() >> 8).collect();
        assert_eq!((hosts.len(), prefixes.len()), (16_000, 64));
        assert!(hosts.iter().all(|host| (128..192).contains(&host.octets()[1])));
        assert!((0..64).all(|number| ground.nowhere(number).octets()[1] >= 192));
    }
}
