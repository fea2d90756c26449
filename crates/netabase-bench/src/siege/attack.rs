//! What strangers do. Each attack goes on until it is dropped.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use super::link::{Link, Sent, Stranger};
use super::target::Target;
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
const ABSENT_ID: u64 = 1 << 50;
const ABSENT_GETS: u64 = 8;
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
    let on_kad = |message| Arc::<[u8]>::from([wire::opening(&wire::kad_protocol()), message].concat());
    let get = on_kad(wire::get_value(key.as_bytes()));
    let put = on_kad(wire::cut_put_value(key.as_bytes(), LARGE_BYTES));
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
    let on_record = |message| Arc::<[u8]>::from([wire::opening(&wire::record_protocol()), message].concat());
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

/// Does everything else at once; each attack has its share of the strangers.
pub(super) async fn mixed(target: Arc<Target>, strangers: usize) -> anyhow::Result<()> {
    let (ours, share) = (|| Arc::clone(&target), |percent: usize| strangers * percent / 100);
    tokio::try_join!(
        sockets(ours(), share(25)),
        kad(ours(), share(15)),
        streams(ours(), share(8)),
        routes(ours(), share(20)),
        lookups(ours(), share(8)),
        identify(ours(), share(8)),
        api(ours(), share(16)),
        // Beside the connections.
        initials(ours(), share(10)),
    )?;
    Ok(())
}

/// Has each of so many strangers do something again and again. Each has a number.
async fn crowd<F>(
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
