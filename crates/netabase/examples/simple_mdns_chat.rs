//! A chat on the local network. Run it in two terminals, or on two machines of one network:
//!
//! ```text
//! cargo run -p netabase --example simple_mdns_chat -- ada
//! cargo run -p netabase --example simple_mdns_chat -- grace
//! ```
//!
//! The arguments are a name, a room (default: general) and a database (default:
//! `chat-<name>.redb`). Type a line to send it; `/peers` lists who is connected, `/quit` or the end
//! of the input ends the program.
//!
//! Each member writes the messages of a room under its own name, numbered from one, and keeps a log
//! record with the last number. Members announce themselves as providers of the room, so whoever
//! joins finds the members, reads their logs, and fetches what it has missed: from the members, or
//! from anybody who holds copies while they are away.
#![allow(clippy::disallowed_methods, reason = "an example uses clocks and tasks directly")]
#![allow(missing_docs, clippy::print_stdout, reason = "an example explains itself, and prints")]

use std::collections::HashSet;
use std::io;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use netabase::changes::ChangeKind;
use netabase::{Netabase, NetabaseSwarmEvent, PeerId, RecordEvent, netabase_definition_module};
use tokio::sync::mpsc;

/// How many messages of each member are fetched when joining.
const HISTORY: u64 = 50;
/// How often members that appeared in the meantime are looked for.
const REFRESH: Duration = Duration::from_secs(2);

#[netabase_definition_module(ChatDefinition, ChatKeys)]
pub mod chat {
    use netabase::NetabaseModel;
    use serde::{Deserialize, Serialize};

    /// Announced by its members; holds nothing else.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Room {
        #[primary_key]
        pub name: String,
    }

    /// How many messages a member has sent to a room.
    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Log {
        #[primary_key]
        pub room: String,
        #[primary_key]
        pub member: String,
        pub messages: u64,
    }

    #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[netabase(ChatDefinition)]
    pub struct Message {
        #[primary_key]
        pub to: String,
        #[primary_key]
        pub member: String,
        #[primary_key]
        pub number: u64,
        #[secondary_key]
        pub room: String,
        pub name: String,
        pub text: String,
        pub sent: std::time::SystemTime,
    }
}
use chat::*;

/// One person in one room.
struct Chat {
    netabase: Netabase<ChatDefinition>,
    name: String,
    room: String,
    /// The messages sent so far.
    sent: u64,
    shown: HashSet<(String, u64)>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().context("usage: simple_mdns_chat NAME [ROOM] [DATABASE]")?;
    let room = arguments.next().unwrap_or_else(|| "general".into());
    let path = arguments.next().unwrap_or_else(|| format!("chat-{name}.redb"));
    let netabase = Netabase::new_with_path(path)?;
    Chat::join(netabase, name, room).await?.run().await
}

impl Chat {
    async fn join(netabase: Netabase<ChatDefinition>, name: String, room: String) -> Result<Self> {
        netabase.start_swarm().await?;
        let own_log = LogPrimaryKey(room.clone(), netabase.local_peer_id().to_string());
        let sent = netabase.store().open_tree::<Log>()?.get(&own_log)?.map_or(0, |log| log.messages);
        println!("{name} is in {room}; type to talk, /peers to see who is there, /quit to leave");
        Ok(Self { netabase, name, room, sent, shown: HashSet::new() })
    }

    async fn run(mut self) -> Result<()> {
        let mut events = self.netabase.subscribe_to_broadcasts();
        let mut lines = typed();
        let mut refresh = tokio::time::interval(REFRESH);
        self.show_stored()?;
        loop {
            tokio::select! {
                line = lines.recv() => match line.transpose()?.as_deref().map(str::trim) {
                    None | Some("/quit") => break,
                    Some("") => {}
                    Some("/peers") => self.show_peers().await?,
                    Some(text) => self.send(text).await?,
                },
                event = events.recv() => match event {
                    Ok(NetabaseSwarmEvent::Record(record)) => self.on_record(&record),
                    Ok(_) => {}
                    // What was missed is in the store.
                    Err(_) => self.show_stored()?,
                },
                _ = refresh.tick() => self.fetch_history().await?,
            }
        }
        println!("{} has left", self.name);
        Ok(self.netabase.stop_swarm().await?)
    }

    async fn send(&mut self, text: &str) -> Result<()> {
        self.sent += 1;
        let member = self.netabase.local_peer_id().to_string();
        let message = Message {
            to: self.room.clone(),
            member: member.clone(),
            number: self.sent,
            room: self.room.clone(),
            name: self.name.clone(),
            text: text.into(),
            sent: SystemTime::now(),
        };
        self.netabase.put_record(message).await?;
        self.netabase.put_record(Log { room: self.room.clone(), member, messages: self.sent }).await?;
        Ok(())
    }

    /// Shows messages as they are stored, whoever wrote them.
    fn on_record(&mut self, record: &RecordEvent) {
        if let (ChangeKind::Stored, Some(Ok(message))) = (record.kind(), record.model::<Message>()) {
            self.show(&message);
        }
    }

    fn show(&mut self, message: &Message) {
        if message.room == self.room && self.shown.insert((message.member.clone(), message.number)) {
            println!("[{}] {}: {}", message.room, message.name, message.text);
        }
    }

    /// Shows what is here already, in the order in which it was sent.
    fn show_stored(&mut self) -> Result<()> {
        let messages = self.netabase.store().open_tree::<Message>()?;
        let mut messages = messages.find(MessageRoomSecondaryKey(self.room.clone()))?;
        messages.sort_by_key(|message| message.sent);
        for message in messages {
            self.show(&message);
        }
        Ok(())
    }

    /// Announces us, finds the members and fetches what they said while we were away.
    async fn fetch_history(&mut self) -> Result<()> {
        if self.netabase.connected_peers().await?.is_empty() {
            return Ok(());
        }
        let room = RoomPrimaryKey(self.room.clone());
        self.netabase.start_providing(room.clone()).await?;
        for member in self.netabase.get_providers(room).await? {
            self.fetch_messages(member).await?;
        }
        self.show_stored()
    }

    async fn fetch_messages(&mut self, member: PeerId) -> Result<()> {
        let member = member.to_string();
        let log = self.netabase.get_record(LogPrimaryKey(self.room.clone(), member.clone())).await?;
        let last = log.map_or(0, |log| log.messages);
        for number in last.saturating_sub(HISTORY) + 1..=last {
            if !self.shown.contains(&(member.clone(), number)) {
                let key = MessagePrimaryKey(self.room.clone(), member.clone(), number);
                self.netabase.get_record(key).await?;
            }
        }
        Ok(())
    }

    async fn show_peers(&self) -> Result<()> {
        let peers = self.netabase.connected_peers().await?;
        println!("{} peers are connected", peers.len());
        for peer in peers {
            println!("  {peer}");
        }
        Ok(())
    }
}

/// Reads lines in a thread of their own: a runtime that ends would wait for a line of tokio's.
fn typed() -> mpsc::Receiver<io::Result<String>> {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || io::stdin().lines().try_for_each(|line| sender.blocking_send(line)));
    lines
}
