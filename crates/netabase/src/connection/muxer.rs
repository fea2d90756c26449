//! A muxed connection: it bounds the streams that its peer opens, and the time of its close.
//!
//! libp2p's own counters have a label for each form of address, which peers choose.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll, ready};

use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent};
use libp2p::{Multiaddr, PeerId};

use crate::connection::limits::{CLOSE_TIMEOUT, MAX_KAD_BYTES, MIN_KAD_PEERS, STREAM_PAUSE};
use crate::connection::processor::{Connected, Processor, turn};
use crate::connection::streams::{Flood, Judgement, Opened, Stream};
use crate::dht::address::Prefix;
use crate::platform::{self, Instant, Sleep, sleep};
use crate::rpc::budget::ByteBudget;
use crate::rpc::limits::RESERVED_PART;
use crate::telemetry::metrics::Meters;

/// What all connections share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    meters: Arc<Meters>,
    /// The streams without a protocol.
    unused: Arc<AtomicUsize>,
    /// The memory of Kademlia's messages.
    budget: ByteBudget,
    processor: Processor,
}

/// Makes the memory of Kademlia's messages, which have at most `longest` bytes.
pub(crate) fn kad_memory(longest: usize) -> ByteBudget {
    // A record is answered with the record.
    let least = 2 * longest;
    let all = (MIN_KAD_PEERS * least).div_ceil(RESERVED_PART - 1) * RESERVED_PART;
    ByteBudget::new(all.max(MAX_KAD_BYTES), least)
}

impl Shared {
    /// Makes what connections share.
    pub(crate) fn new(meters: Arc<Meters>, budget: ByteBudget, processor: Processor) -> Self {
        Self { meters, unused: Arc::default(), budget, processor }
    }

    /// Wraps the connection with a peer at an address.
    pub(crate) fn connection(&self, peer: PeerId, remote: &Multiaddr, connection: StreamMuxerBox) -> Muxer {
        let connected = self.processor.connected(peer, Prefix::of(remote));
        let opened = Arc::new(Opened::new(Arc::clone(&self.unused), self.budget.of(peer), connected));
        let meters = Arc::clone(&self.meters);
        Muxer { connection, meters, opened, pause: None, closing: None, turns: [None; 2], rested: None }
    }
}

/// A muxed connection whose bytes are counted, and whose streams are bounded.
pub(crate) struct Muxer {
    connection: StreamMuxerBox,
    meters: Arc<Meters>,
    opened: Arc<Opened>,
    /// The end of a pause, in which nothing is read, since the peer opens streams too fast or takes
    /// too much of the processor.
    pause: Option<Pin<Box<Sleep>>>,
    /// The deadline of a close, or `None` before it starts.
    closing: Option<Pin<Box<Sleep>>>,
    /// The turns in which events and streams were last asked for.
    turns: [Option<Instant>; 2],
    /// The turn before which it has paused.
    rested: Option<Instant>,
}

/// What a task asks a connection for.
#[derive(Debug, Clone, Copy)]
enum Question {
    Event,
    Stream,
}

impl Muxer {
    /// Waits for the next turn, and for the end of a pause, or begins one. Each question is
    /// answered once a turn in any case: on a slow machine all of it may pass before the first one.
    fn poll_pause(&mut self, context: &mut Context<'_>, question: Question) -> Poll<()> {
        self.opened.connected.is_polled();
        let [event, stream] = &mut self.turns;
        let last = match question {
            Question::Event => event,
            Question::Stream => stream,
        };
        let is_first = std::mem::replace(last, turn()) != *last;
        if !is_first && Connected::has_had_its_turn() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            // Another pause may follow after this turn, so that a peer with much to do is heard.
            (self.pause, self.rested) = (None, turn());
        }
        if self.rested.is_none() || self.rested != turn() {
            self.pause = self.opened.connected.pause().map(|time| Box::pin(sleep(time)));
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
            }
        }
        Poll::Ready(())
    }
}

impl StreamMuxer for Muxer {
    type Substream = Stream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        loop {
            ready!(self.poll_pause(context, Question::Stream));
            let stream = ready!(Pin::new(&mut self.connection).poll_inbound(context))?;
            match self.opened.judge(platform::now()) {
                Judgement::Accept => {}
                Judgement::Pause => self.pause = Some(Box::pin(sleep(STREAM_PAUSE))),
                Judgement::End => continue,
                Judgement::Close => return Poll::Ready(Err(io::Error::other(Flood))),
            }
            return Poll::Ready(Ok(Stream::inbound(
                stream,
                Arc::clone(&self.meters),
                Arc::clone(&self.opened),
            )));
        }
    }

    fn poll_outbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let stream = ready!(Pin::new(&mut self.connection).poll_outbound(context))?;
        Poll::Ready(Ok(Stream::outbound(stream, Arc::clone(&self.meters))))
    }

    /// Closes the connection, at most until the deadline: a close first sends queued data and a
    /// close frame, which would never end on a dead link, and the peer would count as connected for
    /// minutes.
    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(closed) = Pin::new(&mut self.connection).poll_close(context) {
            return Poll::Ready(closed);
        }
        let limit = self.closing.get_or_insert_with(|| Box::pin(sleep(CLOSE_TIMEOUT)));
        ready!(limit.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        ready!(self.poll_pause(context, Question::Event));
        Pin::new(&mut self.connection).poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use futures::io::Cursor;
    use futures::task::noop_waker_ref;
    use futures::{AsyncReadExt, AsyncWriteExt};
    use libp2p::core::muxing::SubstreamBox;

    use super::*;
    use crate::connection::limits::{
        LEAST_UNUSED_STREAMS, MAX_NEGOTIATION_BYTES, MAX_UNUSED_STREAMS, SMALL_KAD_BYTES, STREAM_BURST,
        WASTED_STREAM_BURST,
    };
    use crate::rpc::limits::PEER_SHARE;

    /// A connection whose peer opens streams as fast as they are accepted.
    struct Opening;

    impl StreamMuxer for Opening {
        type Substream = SubstreamBox;
        type Error = Infallible;

        fn poll_inbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<SubstreamBox, Infallible>> {
            Poll::Ready(Ok(SubstreamBox::new(Cursor::new(Vec::new()))))
        }

        fn poll_outbound(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Result<SubstreamBox, Infallible>> {
            Poll::Pending
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Infallible>> {
            Poll::Ready(Ok(StreamMuxerEvent::AddressChange(Multiaddr::empty())))
        }
    }

    fn shared() -> Shared {
        Shared::new(Arc::default(), kad_memory(1024), Processor::new())
    }

    fn opening(shared: &Shared) -> Muxer {
        shared.connection(PeerId::random(), &Multiaddr::empty(), StreamMuxerBox::new(Opening))
    }

    fn open(muxer: &mut Muxer) -> Poll<io::Result<Stream>> {
        Pin::new(muxer).poll_inbound(&mut Context::from_waker(noop_waker_ref()))
    }

    /// Agrees on a protocol, as a listener does.
    async fn agree(stream: &mut Stream, name: &str) -> io::Result<()> {
        let line =
            |text: &str| [&[u8::try_from(text.len() + 1).unwrap()][..], text.as_bytes(), b"\n"].concat();
        stream.write_all(&line("/multistream/1.0.0")).await?;
        stream.write_all(&line("na")).await?;
        stream.write_all(&line(name)).await
    }

    #[tokio::test]
    async fn a_connection_whose_peer_wastes_streams_is_closed() {
        let mut muxer = opening(&shared());
        let opened = (0..10_000_u32).take_while(|_| matches!(open(&mut muxer), Poll::Ready(Ok(_)))).count();
        let opened = u32::try_from(opened).unwrap();
        assert!((f64::from(opened) - WASTED_STREAM_BURST).abs() < 2.0, "{opened}");
        let Poll::Ready(Err(error)) = open(&mut muxer) else { panic!("it is open") };
        assert!(error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Flood>), "{error}");
    }

    #[tokio::test]
    async fn few_streams_wait_for_a_protocol() {
        let shared = shared();
        let mut muxer = opening(&shared);
        let held: Vec<_> = std::iter::from_fn(|| match open(&mut muxer) {
            Poll::Ready(Ok(stream)) => Some(stream),
            _ => None,
        })
        .collect();
        assert_eq!(held.len(), MAX_UNUSED_STREAMS / 2);
        let mut others: Vec<Muxer> = (0..8).map(|_| opening(&shared)).collect();
        let of_others: Vec<_> = others
            .iter_mut()
            .map(|muxer| {
                (0..60)
                    .filter_map(|_| match open(muxer) {
                        Poll::Ready(Ok(stream)) => Some(stream),
                        _ => None,
                    })
                    .collect::<Vec<_>>()
            })
            .collect();
        let counts: Vec<usize> = of_others.iter().map(Vec::len).collect();
        assert!(counts.iter().all(|count| *count >= LEAST_UNUSED_STREAMS), "{counts:?}");
        let most = MAX_UNUSED_STREAMS + others.len() * LEAST_UNUSED_STREAMS;
        assert!(held.len() + counts.iter().sum::<usize>() <= most, "{counts:?}");
        assert!(matches!(open(&mut opening(&shared)), Poll::Ready(Ok(_))), "a newcomer has some");
    }

    #[tokio::test]
    async fn used_streams_cost_nothing_until_there_are_too_many() {
        let mut muxer = opening(&shared());
        let mut opened = 0.0;
        while let Poll::Ready(Ok(mut stream)) = open(&mut muxer) {
            agree(&mut stream, "/netabase/club/record/1.0.0").await.unwrap();
            opened += 1.0;
            assert!(opened < 10.0 * STREAM_BURST);
        }
        assert!(opened >= STREAM_BURST);
        let mut context = Context::from_waker(noop_waker_ref());
        assert!(Pin::new(&mut muxer).poll(&mut context).is_pending(), "nothing is read in a pause");
        assert!(open(&mut muxer).is_pending());
    }

    #[tokio::test]
    async fn a_turn_that_is_over_answers_each_question_once() {
        let mut muxer = opening(&shared());
        let mut turns = 0;
        let task = std::future::poll_fn(|context| {
            turns += 1;
            while !Connected::has_had_its_turn() {}
            assert!(Pin::new(&mut muxer).poll(context).is_ready());
            assert!(Pin::new(&mut muxer).poll_inbound(context).is_ready());
            assert!(Pin::new(&mut muxer).poll(context).is_pending());
            assert!(Pin::new(&mut muxer).poll_inbound(context).is_pending());
            if turns < 3 { Poll::Pending } else { Poll::Ready(()) }
        });
        Processor::new().metered(Box::pin(task)).await;
        assert_eq!(turns, 3, "what was not answered asks for another turn");
    }

    #[tokio::test]
    async fn a_peer_above_its_share_is_heard_after_each_pause() {
        let (shared, peer) = (shared(), PeerId::random());
        let mut muxer = shared.connection(peer, &Multiaddr::empty(), StreamMuxerBox::new(Opening));
        // It takes seconds until that is forgotten.
        shared.processor.charge(peer, Duration::from_secs(100));
        let (mut heard, mut paused) = (0, 0);
        let task = std::future::poll_fn(|context| {
            let is_heard = Pin::new(&mut muxer).poll(context).is_ready();
            *(if is_heard { &mut heard } else { &mut paused }) += 1;
            if is_heard {
                context.waker().wake_by_ref();
            }
            if heard < 2 { Poll::Pending } else { Poll::Ready(()) }
        });
        Processor::new().metered(Box::pin(task)).await;
        assert!(paused >= 2 && shared.processor.pause(&peer).is_some(), "{paused}");
    }

    /// Returns a stream that the peer has opened, and that has agreed on Kademlia.
    async fn kad(muxer: &Muxer) -> Stream {
        let io = Cursor::new(vec![0; 64 * 1024]);
        let (meters, opened) = (Arc::clone(&muxer.meters), Arc::clone(&muxer.opened));
        let mut stream = Stream::inbound(SubstreamBox::new(io), meters, opened);
        agree(&mut stream, "/netabase/club/kad/1.0.0").await.unwrap();
        stream
    }

    #[tokio::test]
    async fn messages_of_kademlia_share_a_memory_until_their_streams_end() {
        // A message may have 1 KiB: a share of the memory is an eighth of all.
        let shared = shared();
        let muxer = opening(&shared);
        let mut held = Vec::new();
        for _ in 0..10_000 {
            let mut stream = kad(&muxer).await;
            match stream.read_exact(&mut vec![0; 32 * 1024]).await {
                Ok(()) => held.push(stream),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
                    break;
                }
            }
        }
        let bytes = held.len() * (32 * 1024 - SMALL_KAD_BYTES);
        assert!(bytes > MAX_KAD_BYTES / PEER_SHARE / 2 && bytes <= MAX_KAD_BYTES / PEER_SHARE, "{bytes}");
        let mut small = kad(&muxer).await;
        small.read_exact(&mut [0; SMALL_KAD_BYTES]).await.unwrap();
        let other = opening(&shared);
        kad(&other).await.read_exact(&mut vec![0; 32 * 1024]).await.unwrap();
        drop(held);
        kad(&muxer).await.read_exact(&mut vec![0; 32 * 1024]).await.unwrap();
    }

    #[tokio::test]
    async fn answers_of_kademlia_count_until_they_are_read() {
        let muxer = opening(&shared());
        let mut stream = kad(&muxer).await;
        let mut answered = 0;
        let error = loop {
            match stream.write_all(&[0; 1024]).await {
                Ok(()) => answered += 1024,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
        assert!(answered <= MAX_KAD_BYTES / PEER_SHARE + SMALL_KAD_BYTES, "{answered}");
        assert_eq!(stream.read(&mut [0; 10]).await.unwrap(), 0, "the peer's next message takes its place");
    }

    #[tokio::test]
    async fn a_negotiation_without_end_ends() {
        let muxer = opening(&shared());
        let (meters, opened) = (Arc::clone(&muxer.meters), Arc::clone(&muxer.opened));
        let mut stream = Stream::inbound(SubstreamBox::new(Cursor::new(Vec::new())), meters, opened);
        let refused = async {
            for _ in 0..MAX_NEGOTIATION_BYTES {
                stream.write_all(b"\x03na\n").await?;
            }
            Ok(())
        };
        let error: io::Error = refused.await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
