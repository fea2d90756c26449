//! Saved peers, in a file beside the database, for the next start.
//!
//! A node that knows a network only through one bootstrap peer would be isolated once that peer is
//! gone. So the node saves the connected peers of its routing table with their addresses, and dials
//! them at the next start, and whenever no peer is connected.
//!
//! The file is text with a line per peer: the time of its last connection, in seconds since the
//! Unix epoch, its id, and its addresses. The file is only a hint: a damaged one is ignored with a
//! warning, and every dialled peer proves its identity.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use libp2p::{Multiaddr, PeerId};

use crate::dht::limits::{MAX_ADDRESSES_PER_PEER, MAX_PEERS_FILE_BYTES, MAX_SAVED_PEERS, SAVE_INTERVAL};
use crate::platform::{self, Instant, JoinHandle, files};

/// The first line of a file.
const HEADER: &str = "netabase peers 1";

/// The saved peers and their file.
#[derive(Debug)]
pub(crate) struct KnownPeers {
    path: Option<Arc<Path>>,
    peers: Peers,
    /// Whether the file lacks a peer or an address.
    is_news: bool,
    saved: Instant,
    /// The running save, one at a time.
    saving: Option<JoinHandle<()>>,
}

/// The saved peers by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Peers(HashMap<PeerId, Known>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    addresses: Vec<Multiaddr>,
    /// The time of its last connection, in seconds since the Unix epoch.
    last: u64,
}

/// Returns the path of the saved peers of the database at `database`.
pub(crate) fn path_beside(database: &Path) -> PathBuf {
    with_ending(database, ".peers")
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(ending);
    path.into()
}

impl KnownPeers {
    /// Loads the file at `path`; a missing or damaged file has no peers.
    pub(crate) fn load(path: Option<Arc<Path>>) -> Self {
        let peers = path.as_deref().map(Peers::load).unwrap_or_default();
        Self { path, peers, is_news: false, saved: platform::now(), saving: None }
    }

    /// Records a connected peer of the routing table.
    pub(crate) fn saw(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, now: SystemTime) {
        self.is_news |= self.peers.saw(peer, addresses, now);
    }

    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.is_news |= self.peers.0.remove(peer).is_some();
    }

    /// Returns the saved addresses of a peer.
    pub(crate) fn addresses(&self, peer: &PeerId) -> &[Multiaddr] {
        self.peers.0.get(peer).map_or(&[], |known| &known.addresses)
    }

    /// Returns the peers and their addresses, the last connected first.
    pub(crate) fn to_dial(&self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        self.peers.to_dial()
    }

    /// Saves the peers on another thread if they have changed, or if the last save was long ago.
    pub(crate) fn save_if_due(&mut self) {
        let is_busy = self.saving.as_ref().is_some_and(|saving| !saving.is_finished());
        if !is_busy && (self.is_news || platform::since(self.saved) >= SAVE_INTERVAL) {
            self.saving = self.save();
        }
    }

    /// Saves the peers and waits for the end of the save.
    pub(crate) async fn save_at_the_end(&mut self) {
        if let Some(saving) = self.saving.take() {
            // The task has logged its error.
            let _ = saving.await;
        }
        if let Some(saving) = self.save() {
            let _ = saving.await;
        }
    }

    fn save(&mut self) -> Option<JoinHandle<()>> {
        let (path, peers) = (self.path.clone()?, self.peers.clone());
        (self.is_news, self.saved) = (false, platform::now());
        Some(platform::blocking(move || {
            if let Err(error) = peers.save(&path) {
                tracing::warn!(%error, path = %path.display(), "cannot save the known peers");
            }
        }))
    }
}

impl Peers {
    /// Loads a file; a missing or damaged file has no peers.
    fn load(path: &Path) -> Self {
        let text = match read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "cannot read the saved peers");
                return Self::default();
            }
        };
        Self::parse(&text).unwrap_or_else(|| {
            tracing::warn!(path = %path.display(), "the file of saved peers is damaged and is ignored");
            Self::default()
        })
    }

    /// Replaces the file at `path` atomically. Blocks on the disk.
    fn save(&self, path: &Path) -> io::Result<()> {
        let new = with_ending(path, ".new");
        let write = || {
            let mut file = files::create(&new)?;
            file.write_all(self.to_text().as_bytes())?;
            file.sync_all()?;
            files::rename(&new, path)
        };
        write().inspect_err(|_| {
            // A part of the file is useless, and takes space that may be scarce.
            let _ = files::remove(&new);
        })
    }

    /// Replaces a peer; returns whether its addresses have changed.
    fn saw(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, now: SystemTime) -> bool {
        let last = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let is_news = self.0.get(&peer).is_none_or(|known| known.addresses != addresses);
        self.0.insert(peer, Known { addresses, last });
        while self.0.len() > MAX_SAVED_PEERS {
            let oldest = self.0.iter().min_by_key(|(_, known)| known.last).map(|(peer, _)| *peer);
            oldest.and_then(|oldest| self.0.remove(&oldest));
        }
        is_news
    }

    fn to_dial(&self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let mut peers: Vec<_> = self.0.iter().collect();
        peers.sort_by_key(|(_, known)| std::cmp::Reverse(known.last));
        peers.into_iter().map(|(peer, known)| (*peer, known.addresses.clone())).collect()
    }

    fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for (peer, Known { addresses, last }) in &self.0 {
            // Writing to a string does not fail.
            let _ = write!(text, "{last} {peer}");
            for address in addresses {
                let _ = write!(text, " {address}");
            }
            text.push('\n');
        }
        text
    }

    fn parse(text: &str) -> Option<Self> {
        // A line without an end was truncated.
        let lines = text.strip_prefix(HEADER)?.strip_prefix('\n')?;
        if !lines.is_empty() && !lines.ends_with('\n') {
            return None;
        }
        let peers: Option<HashMap<_, _>> = lines.lines().take(MAX_SAVED_PEERS).map(parse_line).collect();
        peers.map(Self)
    }
}

fn parse_line(line: &str) -> Option<(PeerId, Known)> {
    let mut words = line.split(' ');
    let last = words.next()?.parse().ok()?;
    let peer = words.next()?.parse().ok()?;
    let addresses: Result<Vec<Multiaddr>, _> = words.take(MAX_ADDRESSES_PER_PEER).map(str::parse).collect();
    Some((peer, Known { addresses: addresses.ok()?, last }))
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    files::open(path)?.take(MAX_PEERS_FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn known(count: u64) -> (Peers, Vec<PeerId>) {
        let mut known = Peers::default();
        let peers: Vec<PeerId> = (0..count).map(|_| PeerId::random()).collect();
        for (seconds, peer) in (1..).zip(&peers) {
            let address = format!("/ip4/192.0.2.1/tcp/{seconds}").parse().unwrap();
            known.saw(*peer, vec![address], UNIX_EPOCH + Duration::from_secs(seconds));
        }
        (known, peers)
    }

    #[test]
    fn saved_peers_are_known_at_the_next_start_the_last_seen_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = path_beside(&directory.path().join("notes.redb"));
        assert_eq!(Peers::load(&path), Peers::default());
        let (known, peers) = known(3);
        known.save(&path).unwrap();
        known.save(&path).unwrap();
        let loaded = Peers::load(&path);
        assert_eq!(loaded, known);
        let order: Vec<PeerId> = loaded.to_dial().into_iter().map(|(peer, _)| peer).collect();
        assert_eq!(order, [peers[2], peers[1], peers[0]]);
        assert!(path.ends_with("notes.redb.peers"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{mode:o}");
        }
    }

    #[test]
    fn the_peers_seen_last_are_kept() {
        let (known, peers) = known(100);
        let kept = known.to_dial();
        assert_eq!(kept.len(), MAX_SAVED_PEERS);
        assert_eq!((kept[0].0, kept[MAX_SAVED_PEERS - 1].0), (peers[99], peers[36]));
    }

    #[test]
    fn a_damaged_file_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peers");
        let (known, _) = known(3);
        let good = known.to_text();
        let damaged = [&good[1..], &good[..good.len() - 3], &good.replace("/tcp/", "/tpc/"), "", "\u{0}\n"];
        for text in damaged {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Peers::load(&path), Peers::default(), "{text}");
        }
        std::fs::write(&path, [0xff; 100]).unwrap();
        assert_eq!(Peers::load(&path), Peers::default());
    }
}
