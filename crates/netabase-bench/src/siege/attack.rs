//! What strangers do. Each attack goes on until it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use libp2p::identity::ed25519;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use super::link::{Link, Sent, Stranger};
use super::target::Target;
use super::wire::Control;
use super::{LARGE_BYTES, LARGE_ID, initial, wire};
use crate::node::model::key;

/// How long a stranger waits until it comes again.
const PAUSE: Duration = Duration::from_millis(100);
/// How many concurrent streams a stranger has.
const STREAMS: usize = 32;
/// How many streams are opened and reset with one write.
const RESETS: u32 = 256;
/// How many different first packets of QUIC there are, and how often a port sends one.
const INITIALS: usize = 1024;
const INITIAL_INTERVAL: Duration = Duration::from_millis(100);
/// How many addresses a stranger claims, and how many it pushes.
const CLAIMED: u32 = 16;
const PUSHED: u32 = 100;
/// How long a stranger that claims addresses stays after it was asked for them.
const STAY: Duration = Duration::from_millis(100);
/// The keys of a get: one less than the most that are allowed.
const ABSENT_KEYS: u64 = 1023;
/// The first of the ids that no record has, and how many gets of other ones there are.
pub(super) const ABSENT_ID: u64 = 1 << 50;
const ABSENT_GETS: u64 = 8;
/// How many pings are sent with one write or on one stream, and their length on a stream.
const PINGS: usize = 1024;
const PING_BYTES: usize = 32;
/// How often a stranger says all of gossip on a stream, how many other topics and ids it names, and
/// how long it stays.
const GOSSIP_ROUNDS: u64 = 1024;
const GOSSIP_TOPICS: u64 = 1024;
const GOSSIP_IDS: u64 = 64;
const GOSSIP_TIME: Duration = Duration::from_secs(5);
/// The first id of the records that strangers hand over, how many a request has, the most bytes of
/// text of each, and how many requests of a stranger are under way.
const GIVEN_ID: u64 = 1 << 51;
const RECORDS: u64 = 256;
const GIVEN_BYTES: usize = 100;
const GIVES: usize = 4;
/// How often a slow stranger sends or reads a byte.
const SLOW_INTERVAL: Duration = Duration::from_secs(1);
/// How many of a stranger's streams wait for answers that it does not read.
const UNREAD: usize = 8;

/// Opens TCP connections and says nothing.
pub(super) async fn sockets(target: Arc<Target>, strangers: usize) -> anyhow::Result<()> {
    crowd(target, strangers, |target, _| async move {
        let mut stream = target.connect(target.tcp).await?;
        until_closed(&mut stream).await
    })
    .await
}

/// Sends the first packet of a QUIC connection from each of many ports, again and again.
pub(super) async fn initials(target: Arc<Target>, strangers: usize) -> anyhow::Result<()> {
    let packets: Arc<[Vec<u8>]> = initial::packets(INITIALS).await?.into();
    crowd(target, strangers, move |target, stranger| {
        let packets = Arc::clone(&packets);
        async move {
            let socket = UdpSocket::bind((target.source(), 0)).await?;
            let mut ticks = interval(INITIAL_INTERVAL);
            for packet in packets.iter().cycle().skip(stranger * 3) {
                ticks.tick().await;
                let bytes = socket.send_to(packet, target.quic).await?;
                target.counts.sent(1);
                target.counts.wrote(bytes);
            }
            Ok(())
        }
    })
    .await
}

/// Asks for a large record without reading it, and keeps back the last byte of one.
pub(super) async fn kad(target: Arc<Target>, strangers: usize) -> anyhow::Result<()> {
    let key = key(LARGE_ID)?;
    let get = on_protocol(wire::KAD, wire::get_value(key.as_bytes()));
    let put = on_protocol(wire::KAD, wire::cut_put_value(key.as_bytes(), LARGE_BYTES));
    crowd(target, strangers, move |target, _| {
        let (get, put) = (Arc::clone(&get), Arc::clone(&put));
        async move {
            let link = Link::open(&target, &Stranger::client()).await?;
            let unread = |bytes: &Arc<[u8]>| Sent { bytes: Arc::clone(bytes), closes: false, reads: false };
            tokio::select! {
                ended = flood(&link, STREAMS / 2, |_| unread(&get)) => ended,
                ended = flood(&link, STREAMS / 2, |_| unread(&put)) => ended,
                () = link.closed() => Ok(()),
            }
        }
    })
    .await
}

/// Opens streams and resets them, as fast as the node takes them.
pub(super) async fn streams(target: Arc<Target>, strangers: usize) -> anyhow::Result<()> {
    crowd(target, strangers, |target, _| async move {
        let link = Link::open(&target, &Stranger::client()).await?;
        loop {
            link.open_and_reset(RESETS).await?;
        }
    })
    .await
}

/// Has each of many peers connect once, claim made-up addresses, and leave.
pub(super) async fn routes(target: Arc<Target>, strangers: usize) -> anyhow::Result<()> {
    let hosts = target.hosts().await?;
    let mut tasks = JoinSet::new();
    for stranger in 0..u32::try_from(strangers)? {
        let addresses = hosts.made_up(stranger * CLAIMED, CLAIMED);
        let target = Arc::clone(&target);
        tasks.spawn(async move {
            // The node may refuse it for a while.
            while claim(&target, &Stranger::holder(addresses.clone())).await.is_err() {
                sleep(PAUSE).await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    std::future::pending().await
}

async fn claim(target: &Arc<Target>, stranger: &Stranger) -> anyhow::Result<()> {
    let link = Link::open(target, stranger).await?;
    tokio::select! {
        () = link.identified() => sleep(STAY).await,
        () = link.closed() => anyhow::bail!("the node has closed the connection"),
    }
    Ok(())
}

/// Asks costly questions of the record protocol, and leaves long answers unread.
pub(super) async fn lookups(target: Arc<Target>, strangers: usize) -> anyhow::Result<()> {
    let on_record = |message| on_protocol(wire::RECORD, message);
    let mut questions = vec![on_record(wire::compare())];
    for get in 0..ABSENT_GETS {
        let first = ABSENT_ID + get * ABSENT_KEYS;
        let keys = (first..first + ABSENT_KEYS).map(|id| anyhow::Ok(key(id)?.as_bytes().to_vec()));
        questions.push(on_record(wire::get(&keys.collect::<Result<Vec<_>, _>>()?)));
    }
    let questions: Arc<[Arc<[u8]>]> = questions.into();
    let large = on_record(wire::get(&[key(LARGE_ID)?.as_bytes().to_vec()]));
    crowd(target, strangers, move |target, _| {
        let (questions, large) = (Arc::clone(&questions), Arc::clone(&large));
        async move {
            let link = Link::open(&target, &Stranger::client()).await?;
            let ask = |turn: usize| {
                // Every other question is the comparison.
                let question = if turn.is_multiple_of(2) { 0 } else { 1 + turn / 2 % (questions.len() - 1) };
                let bytes = questions.get(question).unwrap_or(&large);
                Sent { bytes: Arc::clone(bytes), closes: true, reads: true }
            };
            let leave = |_| Sent { bytes: Arc::clone(&large), closes: true, reads: false };
            tokio::select! {
                ended = flood(&link, STREAMS - UNREAD, ask) => ended,
                ended = flood(&link, UNREAD, leave) => ended,
                () = link.closed() => Ok(()),
            }
        }
    })
    .await
}

/// Pushes new addresses, as fast as the node takes them.
pub(super) async fn identify(target: Arc<Target>, strangers: usize) -> anyhow::Result<()> {
    target.hosts().await?;
    crowd(target, strangers, |target, stranger| async move {
        let hosts = target.hosts().await?;
        // Behind those of `routes`, and apart from those of the others.
        let first = (u32::try_from(stranger)? + 1) << 16;
        let stranger = Stranger::holder(hosts.made_up(first, CLAIMED));
        let link = Link::open(&target, &stranger).await?;
        let push = |turn: usize| {
            let turn = u32::try_from(turn).unwrap_or_default();
            let message =
                stranger.identify(&hosts.made_up(first.wrapping_add(turn.wrapping_mul(PUSHED)), PUSHED));
            let bytes = [wire::opening(wire::IDENTIFY_PUSH), message].concat().into();
            Sent { bytes, closes: true, reads: true }
        };
        tokio::select! {
            ended = flood(&link, STREAMS, push) => ended,
            () = link.closed() => Ok(()),
        }
    })
    .await
}

/// Opens connections to the API: half of them say nothing, the others begin a request.
pub(super) async fn api(target: Arc<Target>, strangers: usize) -> anyhow::Result<()> {
    const HALF_REQUEST: &[u8] = b"GET /v1/models/Message/records/1 HTTP/1.1\r\nhost: 127.0.0.1\r\n";
    crowd(target, strangers, |target, stranger| async move {
        let mut stream = target.connect(target.api).await?;
        if stranger.is_multiple_of(2) {
            stream.write_all(HALF_REQUEST).await?;
            target.counts.sent(1);
            target.counts.wrote(HALF_REQUEST.len());
        }
        until_closed(&mut stream).await
    })
    .await
}

/// Pings on many streams, and by yamux.
pub(super) async fn ping(target: Arc<Target>, strangers: usize) -> anyhow::Result<()> {
    let pings: Arc<[u8]> = [wire::opening(wire::PING), vec![0x5a; PINGS * PING_BYTES]].concat().into();
    crowd(target, strangers, move |target, stranger| {
        let pings = Arc::clone(&pings);
        async move {
            let link = Link::open(&target, &Stranger::client()).await?;
            if stranger.is_multiple_of(2) {
                loop {
                    link.ping(PINGS).await?;
                }
            }
            let ping = |_| Sent { bytes: Arc::clone(&pings), closes: true, reads: true };
            tokio::select! {
                ended = flood(&link, STREAMS, ping) => ended,
                () = link.closed() => Ok(()),
            }
        }
    })
    .await
}

/// Subscribes, publishes and says of meshes what is not so, as fast as the node takes it.
pub(super) async fn gossip(target: Arc<Target>, strangers: usize) -> anyhow::Result<()> {
    let opening = wire::opening(&wire::protocol(wire::LIVE));
    let said: Vec<u8> = (0..GOSSIP_ROUNDS).flat_map(gossip_round).collect();
    let said: Arc<[u8]> = [opening, said].concat().into();
    crowd(target, strangers, move |target, _| {
        let said = Arc::clone(&said);
        async move {
            let link = Link::open(&target, &Stranger::follower()).await?;
            // The node takes few streams of this protocol.
            let say = || Sent { bytes: Arc::clone(&said), closes: false, reads: true };
            link.send(say(), None).await?;
            link.send(say(), None).await?;
            tokio::select! {
                () = sleep(GOSSIP_TIME) => Ok(()),
                () = link.closed() => Ok(()),
            }
        }
    })
    .await
}

fn gossip_round(round: u64) -> Vec<u8> {
    let id = |number: u64| *wire::derive("siege", &[&number.to_be_bytes()]).first_chunk().unwrap_or(&[0; 16]);
    let topic = wire::topic();
    let other = wire::hex(&id(round % GOSSIP_TOPICS));
    let ids: Vec<[u8; 16]> = (0..GOSSIP_IDS).map(|number| id((round << 16) + number)).collect();
    let (key, mut records) = (wire::message_key(ABSENT_ID + round), vec![1]);
    // Nobody has signed it.
    wire::put_record(&(key, vec![1; 200]), &mut records);
    [
        wire::subscribe(&other, true),
        wire::subscribe(&topic, true),
        wire::control(Control::Graft, &topic, &[]),
        wire::publish(&topic, &records),
        wire::control(Control::Have, &topic, &ids),
        wire::control(Control::Want, &topic, &ids),
        wire::control(Control::DontWant, &topic, &ids),
        wire::control(Control::Prune, &topic, &[]),
        wire::subscribe(&other, false),
    ]
    .concat()
}

/// Hands over records: new ones of one author, and ones that nobody has signed.
pub(super) async fn give(target: Arc<Target>, strangers: usize) -> anyhow::Result<()> {
    let author = Arc::new(ed25519::Keypair::generate());
    let forged = records(&author, 0, |envelope| {
        envelope.iter_mut().rev().take(1).for_each(|last| *last = !*last);
    });
    let forged: Arc<[u8]> = on_protocol(wire::RECORD, wire::hand_over(wire::PUT, &forged));
    let next = Arc::new(AtomicU64::new(1));
    crowd(target, strangers, move |target, stranger| {
        let (author, forged, next) = (Arc::clone(&author), Arc::clone(&forged), Arc::clone(&next));
        async move {
            let link = Link::open(&target, &Stranger::client()).await?;
            let valid = || records(&author, next.fetch_add(1, Ordering::Relaxed), |_| {});
            let hand_over = |_| {
                let bytes = match stranger % 4 {
                    0 => on_protocol(wire::RECORD, wire::hand_over(wire::PUT, &valid())),
                    1 => on_protocol(wire::SYNC, wire::hand_over(&wire::give(), &valid())),
                    _ => Arc::clone(&forged),
                };
                Sent { bytes, closes: true, reads: true }
            };
            tokio::select! {
                ended = flood(&link, GIVES, hand_over) => ended,
                () = link.closed() => Ok(()),
            }
        }
    })
    .await
}

/// Signs as many new records as a put may have, each of which is altered then.
fn records(author: &ed25519::Keypair, turn: u64, alter: fn(&mut Vec<u8>)) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (first, timestamp) = (GIVEN_ID + turn * RECORDS, wire::now());
    let record = |id| {
        let (key, payload) = (wire::message_key(id), wire::payload(id, "given", &"x".repeat(GIVEN_BYTES)));
        let mut envelope = wire::envelope(author, &key, timestamp, Some(&payload));
        alter(&mut envelope);
        (key, envelope)
    };
    (first..first + RECORDS).map(record).collect()
}

/// Stays connected, and claims to hold records at addresses that lead nowhere; says nothing.
pub(super) async fn squat(target: Arc<Target>, strangers: usize) -> anyhow::Result<()> {
    target.hosts().await?;
    crowd(target, strangers, |target, _| async move {
        let source = target.source();
        let stranger = Stranger::holder(target.hosts().await?.of(source));
        Link::open_from(source, &target, &stranger).await?.closed().await;
        Ok(())
    })
    .await
}

/// Sends and reads a byte a second, and cuts handshakes.
pub(super) async fn slow(target: Arc<Target>, strangers: usize) -> anyhow::Result<()> {
    let large = on_protocol(wire::RECORD, wire::get(&[key(LARGE_ID)?.as_bytes().to_vec()]));
    let head = [&[0], wire::u32_len(LARGE_BYTES).as_slice(), wire::PUT].concat();
    let begun = on_protocol(wire::RECORD, head);
    let cuts = Arc::new(AtomicUsize::new(0));
    crowd(target, strangers, move |target, stranger| {
        let (large, begun, cuts) = (Arc::clone(&large), Arc::clone(&begun), Arc::clone(&cuts));
        async move {
            if stranger.is_multiple_of(3) {
                return cut_handshake(&target, cuts.fetch_add(1, Ordering::Relaxed)).await;
            }
            let link = Link::open(&target, &Stranger::client()).await?;
            let reads = stranger % 3 == 1;
            let bytes = if reads { large } else { begun };
            let mut streams = Vec::new();
            for _ in 0..STREAMS {
                let sent = Sent { bytes: Arc::clone(&bytes), closes: false, reads: false };
                streams.push(link.send(sent, None).await?);
            }
            let mut ticks = interval(SLOW_INTERVAL);
            loop {
                ticks.tick().await;
                for stream in &streams {
                    if reads { link.grant(*stream, 1).await? } else { link.add(*stream, &[0]).await? }
                }
            }
        }
    })
    .await
}

/// Sends a handshake up to a byte, and waits until the node has enough of it.
async fn cut_handshake(target: &Target, turn: usize) -> anyhow::Result<()> {
    let handshake = wire::handshake();
    let begun = handshake.get(..turn % handshake.len()).unwrap_or_default();
    let mut stream = target.connect(target.tcp).await?;
    stream.write_all(begun).await?;
    target.counts.wrote(begun.len());
    until_closed(&mut stream).await
}

/// Puts in front what opens a stream of one of the network's protocols.
fn on_protocol(name: &str, message: Vec<u8>) -> Arc<[u8]> {
    [wire::opening(&wire::protocol(name)), message].concat().into()
}

/// Does everything else at once; each attack has its share of the strangers.
pub(super) async fn mixed(target: Arc<Target>, strangers: usize) -> anyhow::Result<()> {
    let (ours, share) = (|| Arc::clone(&target), |percent: usize| strangers * percent / 100);
    tokio::try_join!(
        sockets(ours(), share(20)),
        kad(ours(), share(12)),
        streams(ours(), share(8)),
        lookups(ours(), share(8)),
        identify(ours(), share(8)),
        api(ours(), share(15)),
        ping(ours(), share(5)),
        gossip(ours(), share(5)),
        give(ours(), share(4)),
        squat(ours(), share(10)),
        slow(ours(), share(5)),
        // Beside those that are connected all the time.
        routes(ours(), share(20)),
        initials(ours(), share(10)),
    )?;
    Ok(())
}

/// Has each of so many strangers do something again and again. Each has a number.
pub(super) async fn crowd<F>(
    target: Arc<Target>,
    strangers: usize,
    act: impl Fn(Arc<Target>, usize) -> F + Clone + Send + 'static,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let mut tasks = JoinSet::new();
    for stranger in 0..strangers {
        let (target, act) = (Arc::clone(&target), act.clone());
        tasks.spawn(async move {
            loop {
                // Whoever is refused comes again.
                let _ = act(Arc::clone(&target), stranger).await;
                sleep(PAUSE).await;
            }
        });
    }
    // A task ends by a panic alone.
    match tasks.join_next().await {
        Some(ended) => ended.context("a stranger has failed")?,
        None => Ok(()),
    }
}

/// Sends on new streams for ever, so that `width` of them are open.
async fn flood(link: &Link, width: usize, next: impl Fn(usize) -> Sent) -> anyhow::Result<()> {
    let turns = Arc::new(Semaphore::new(width));
    for turn in 0.. {
        let permit = Arc::clone(&turns).acquire_owned().await?;
        link.send(next(turn), Some(permit)).await?;
    }
    Ok(())
}

/// Reads what comes without a word.
async fn until_closed(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut buffer = [0; 1024];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}
