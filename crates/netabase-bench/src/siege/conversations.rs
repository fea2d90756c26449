//! Conversations that begin as the protocols ask for, and do not stay so.
//!
//! Each stranger has one after the other, and each conversation follows from a seed, the stranger's
//! number and that of the conversation. [`grammar`] has valid messages, [`plan`] composes and
//! alters them, and what is here says them. What the node asks meanwhile is answered in the same
//! way.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::io::{AsyncRead, AsyncReadExt};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::attack::crowd;
use super::link::{ACK, DATA, FIN, Frame, PING, RST, SYN, WINDOW, head, run_writer, secure};
use super::target::Target;
use super::wire;
use crate::dice::Dice;

mod grammar;
mod plan;

use grammar::{Protocol, Speaker};
use plan::{Plan, mutate};

/// How long a conversation may take.
const LONGEST: Duration = Duration::from_secs(4);
/// How many of a stranger's conversations are remembered.
const REMEMBERED: usize = 3;
/// How many writes wait for the node to read.
const QUEUE: usize = 16;
/// How many streams of the node are followed, and how much of what is said there is kept.
const MAX_INBOUND: usize = 256;
const MAX_SAID_BYTES: usize = 4096;
const ANSWERED: u64 = 2;

/// The last conversations of each stranger.
#[derive(Default)]
pub(super) struct Log(Mutex<HashMap<usize, VecDeque<String>>>);

impl Log {
    fn note(&self, stranger: usize, conversation: String) {
        let mut log = self.0.lock();
        let last = log.entry(stranger).or_default();
        if last.len() == REMEMBERED {
            last.pop_front();
        }
        last.push_back(conversation);
    }

    /// Prints everything with the seed from which it follows; nothing if nothing was said.
    pub(super) fn print(&self, seed: u64) {
        let log = self.0.lock();
        if log.is_empty() {
            return;
        }
        eprintln!("the last conversations with --seed {seed}:");
        let mut strangers: Vec<_> = log.iter().collect();
        strangers.sort_unstable_by_key(|(stranger, _)| **stranger);
        for conversation in strangers.into_iter().flat_map(|(_, last)| last) {
            eprintln!("{conversation}");
        }
    }
}

/// Has conversations, each as another peer.
pub(super) async fn conversations(target: Arc<Target>, strangers: usize) -> anyhow::Result<()> {
    target.hosts().await?;
    crowd(target, strangers, |target, stranger| async move {
        let hosts = target.hosts().await?;
        for turn in 0.. {
            let number = u64::try_from(stranger)?;
            let plan = Plan::roll(&mut Dice::new(&[target.seed, number, turn]), hosts);
            target.log.note(stranger, format!("stranger {stranger}, conversation {turn}: {plan}"));
            // The node may end it at any time.
            let _ = timeout(LONGEST, converse(&target, plan)).await;
        }
        Ok(())
    })
    .await
}

async fn converse(target: &Arc<Target>, plan: Plan) -> anyhow::Result<()> {
    let Plan { speaker, is_secure, connections, pieces, tamper, reads, linger, answers, .. } = plan;
    let speaker = Arc::new(speaker);
    let (mut links, mut tasks) = (Vec::new(), JoinSet::new());
    for _ in 0..connections {
        let (queue, queued) = mpsc::channel(QUEUE);
        let source = target.source();
        if is_secure {
            let (read, write) = secure(source, target, &speaker.keypair, tamper).await?.split();
            let listener = Listener {
                queue: queue.clone(),
                speaker: Arc::clone(&speaker),
                dice: answers.clone(),
                target: Arc::clone(target),
                inbound: HashMap::new(),
            };
            tasks.spawn(async move {
                let listen = async {
                    // Whoever does not read waits for the end.
                    if reads { listener.run(read).await } else { std::future::pending().await }
                };
                tokio::select! {
                    _ = listen => {}
                    _ = run_writer(queued, write) => {}
                }
            });
        } else {
            let stream = target.connect_from(source, target.tcp).await?;
            tasks.spawn(write_plainly(stream, queued, Arc::clone(target)));
        }
        links.push(queue);
    }
    for piece in pieces {
        if let Some(queue) = links.get(piece.connection) {
            // The other connections go on without it.
            let _ = queue.send(piece.bytes).await;
            target.counts.sent(1);
        }
        if !piece.pause.is_zero() {
            sleep(piece.pause).await;
        }
    }
    sleep(linger).await;
    Ok(())
}

async fn write_plainly(
    mut stream: tokio::net::TcpStream,
    mut queued: mpsc::Receiver<Vec<u8>>,
    target: Arc<Target>,
) {
    while let Some(bytes) = queued.recv().await {
        if tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes).await.is_err() {
            return;
        }
        target.counts.wrote(bytes.len());
    }
}

/// What hears what the node says on a connection, and answers on the streams that the node opens.
struct Listener {
    queue: mpsc::Sender<Vec<u8>>,
    speaker: Arc<Speaker>,
    dice: Dice,
    target: Arc<Target>,
    inbound: HashMap<u32, Inbound>,
}

/// A stream that the node has opened.
#[derive(Default)]
struct Inbound {
    said: Vec<u8>,
    protocol: Option<Protocol>,
    answers: u64,
}

impl Listener {
    async fn run(mut self, mut read: impl AsyncRead + Unpin) -> anyhow::Result<()> {
        let mut agreed = vec![0; wire::opening(wire::YAMUX).len()];
        read.read_exact(&mut agreed).await?;
        while agreed == wire::opening(wire::YAMUX) {
            let Frame { kind, flags, stream, length, body } = Frame::read(&mut read).await?;
            if kind == PING && flags & SYN != 0 {
                self.say(head(PING, ACK, 0, length).into());
            } else if stream != 0 && stream.is_multiple_of(2) {
                self.on_inbound(stream, flags, &body);
            } else if length > 0 && kind == DATA {
                self.say(head(WINDOW, 0, stream, length).into());
            }
        }
        // The node speaks no yamux with it.
        let mut buffer = [0; 1024];
        while read.read(&mut buffer).await? > 0 {}
        Ok(())
    }

    /// What there is no room for is not said: the node does not read.
    fn say(&self, bytes: Vec<u8>) {
        if self.queue.try_send(bytes).is_ok() {
            self.target.counts.sent(1);
        }
    }

    fn on_inbound(&mut self, id: u32, flags: u16, body: &[u8]) {
        if flags & SYN != 0 && self.inbound.len() < MAX_INBOUND {
            self.inbound.insert(id, Inbound::default());
            self.say(head(WINDOW, ACK, id, 0).into());
        }
        let Some(inbound) = self.inbound.get_mut(&id) else { return };
        let answer = inbound.feed(body, &self.speaker, &mut self.dice);
        if flags & (FIN | RST) != 0 {
            self.inbound.remove(&id);
        }
        if !answer.is_empty() {
            let flags = if self.dice.one_in(3) { FIN } else { 0 };
            self.say([head(DATA, flags, id, answer.len()).as_slice(), &answer].concat());
        }
    }
}

impl Inbound {
    /// Takes what the node has said, and returns an answer.
    fn feed(&mut self, body: &[u8], speaker: &Speaker, dice: &mut Dice) -> Vec<u8> {
        let room = MAX_SAID_BYTES.saturating_sub(self.said.len());
        self.said.extend(body.iter().take(room));
        let mut answer = Vec::new();
        if self.protocol.is_none() {
            let Some((name, rest)) = wire::line(&self.said).and_then(|(_, rest)| wire::line(rest)) else {
                return answer;
            };
            let Some(protocol) = Protocol::of(name) else { return answer };
            answer = wire::opening(name);
            (self.said, self.protocol) = (rest.to_vec(), Some(protocol));
        }
        let Some(protocol) = self.protocol else { return answer };
        if self.answers < ANSWERED && (!self.said.is_empty() || protocol == Protocol::Identify) {
            let mut message = protocol.answer(speaker, &self.said, dice);
            if dice.one_in(2) {
                mutate(&mut message, dice);
            }
            answer.extend(message);
            self.answers += 1;
            self.said.clear();
        }
        answer
    }
}
