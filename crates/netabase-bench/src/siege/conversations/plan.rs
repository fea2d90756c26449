//! What is said in a conversation, as it follows from dice: a valid one, and what becomes of it.

use std::collections::VecDeque;
use std::fmt::{self, Display, Write as _};
use std::time::Duration;

use super::grammar::{Protocol, Speaker};
use crate::dice::Dice;
use crate::siege::hosts::Hosts;
use crate::siege::link::{DATA, FIN, GO_AWAY, HEAD_BYTES, PING, RST, SYN, Tamper, WINDOW};
use crate::siege::wire;

/// The most connections and streams of a conversation, and messages of a stream.
const CONNECTIONS: usize = 3;
const STREAMS: usize = 12;
const MESSAGES: usize = 4;
/// The most mutations of frames.
const FRAME_MUTATIONS: usize = 3;
/// The most bytes of random ones.
const RANDOM_BYTES: usize = 300;
/// The most bytes of a noise handshake and of what follows it in which one is tampered with.
const TAMPERED_BYTES: u64 = 2000;
/// The most parts of a piece that is sent slowly, and the longest pause between them.
const PARTS: usize = 6;
const PAUSE_MILLIS: u64 = 150;
const LINGER_MILLIS: u64 = 1000;
/// How much of a conversation is printed.
const SHOWN_BYTES: usize = 256;

/// A conversation.
pub(super) struct Plan {
    pub(super) speaker: Speaker,
    /// Whether it is said after the handshake of noise.
    pub(super) is_secure: bool,
    pub(super) connections: usize,
    pub(super) pieces: Vec<Piece>,
    /// What becomes of a byte below noise.
    pub(super) tamper: Option<Tamper>,
    /// Whether what the node says is read.
    pub(super) reads: bool,
    /// How long the connections stay when everything was said.
    pub(super) linger: Duration,
    /// What the node is answered on the streams that it opens follows from these.
    pub(super) answers: Dice,
    protocols: Vec<Protocol>,
    mutations: Vec<&'static str>,
}

/// Bytes that are sent at once on one of the connections, and the pause behind them.
pub(super) struct Piece {
    pub(super) connection: usize,
    pub(super) bytes: Vec<u8>,
    pub(super) pause: Duration,
}

impl Plan {
    /// Makes up a conversation.
    pub(super) fn roll(dice: &mut Dice, hosts: &Hosts) -> Self {
        let mut plan = Self {
            speaker: Speaker::roll(dice, hosts),
            is_secure: !dice.one_in(6),
            connections: 1 + dice.index(CONNECTIONS),
            pieces: Vec::new(),
            tamper: None,
            reads: !dice.one_in(4),
            linger: Duration::from_millis(dice.below(LINGER_MILLIS)),
            answers: Dice::new(&[dice.next()]),
            protocols: Vec::new(),
            mutations: Vec::new(),
        };
        // Some are as they should be.
        let is_clean = dice.one_in(8);
        if plan.is_secure {
            plan.speak(is_clean, dice);
            if !is_clean && dice.one_in(8) {
                plan.mutations.push("tampered below noise");
                plan.tamper = Some(Tamper::new(dice.below(TAMPERED_BYTES), dice.one_in(2)));
            }
        } else {
            plan.shake_hands(dice);
        }
        if dice.one_in(6) {
            plan.slow_down(dice);
        }
        plan
    }

    /// Says what comes before noise has its keys: it ends with a key of nobody.
    fn shake_hands(&mut self, dice: &mut Dice) {
        for connection in 0..self.connections {
            let mut bytes = wire::handshake();
            bytes.truncate(bytes.len() - 32);
            bytes.extend(dice.bytes(32));
            for _ in 0..=dice.index(2) {
                self.mutations.push(mutate(&mut bytes, dice));
            }
            let more = dice.index(RANDOM_BYTES);
            bytes.extend(dice.bytes(more));
            self.pieces.push(Piece { connection, bytes, pause: Duration::ZERO });
        }
    }

    /// Speaks on streams of yamux.
    fn speak(&mut self, is_clean: bool, dice: &mut Dice) {
        for connection in 0..self.connections {
            let mut bytes = wire::opening(wire::YAMUX);
            if !is_clean && dice.one_in(12) {
                self.mutations.push(mutate(&mut bytes, dice));
            }
            self.pieces.push(Piece { connection, bytes, pause: Duration::ZERO });
        }
        let mut frames = self.frames(is_clean, dice);
        if !is_clean {
            for _ in 0..dice.index(FRAME_MUTATIONS + 1) {
                self.mutations.push(mutate_frames(&mut frames, dice));
            }
        }
        for (connection, frame) in frames {
            let bytes = frame.encode();
            match self.pieces.last_mut() {
                Some(piece) if piece.connection == connection && dice.one_in(2) => piece.bytes.extend(bytes),
                _ => self.pieces.push(Piece { connection, bytes, pause: Duration::ZERO }),
            }
        }
        if !is_clean && dice.one_in(8) {
            let (connection, length) = (dice.index(self.connections), dice.index(RANDOM_BYTES));
            self.mutations.push("random bytes behind frames");
            self.pieces.push(Piece { connection, bytes: dice.bytes(length), pause: Duration::ZERO });
        }
    }

    /// Returns the frames of several streams, in a random order that keeps that of each stream.
    fn frames(&mut self, is_clean: bool, dice: &mut Dice) -> Vec<(usize, Frame)> {
        let mut streams = Vec::new();
        for number in 0..=dice.below_u32(u32::try_from(STREAMS).unwrap_or_default()) {
            let connection = dice.index(self.connections);
            let messages = self.messages(is_clean, dice);
            streams.push((connection, Frame::new(DATA, SYN, 2 * number + 1), messages));
        }
        let mut frames = Vec::new();
        while !streams.is_empty() {
            let place = dice.index(streams.len());
            let Some((connection, frame, messages)) = streams.get_mut(place) else { break };
            let Some(message) = messages.pop_front() else {
                streams.swap_remove(place);
                continue;
            };
            let mut next = Frame { body: message, ..frame.clone() };
            next.length = next.body.len();
            // Only the first one opens the stream.
            frame.flags = 0;
            if messages.is_empty() && !dice.one_in(4) {
                next.flags |= FIN;
            }
            frames.push((*connection, next));
            if dice.one_in(8) {
                frames.push((*connection, Frame::aside(frame.stream, dice)));
            }
        }
        frames
    }

    /// Returns what is said on a stream.
    fn messages(&mut self, is_clean: bool, dice: &mut Dice) -> VecDeque<Vec<u8>> {
        let protocol = dice.pick(&Protocol::ALL).copied().unwrap_or(Protocol::Ping);
        self.protocols.push(protocol);
        let mut messages = VecDeque::from([wire::opening(&protocol.name())]);
        for _ in 0..=dice.index(MESSAGES) {
            messages.push_back(protocol.ask(&self.speaker, dice));
        }
        messages.retain(|message| !message.is_empty());
        if !is_clean {
            for message in &mut messages {
                if dice.one_in(4) {
                    self.mutations.push(mutate(message, dice));
                }
            }
        }
        messages
    }

    /// Takes the pieces apart.
    fn slow_down(&mut self, dice: &mut Dice) {
        self.mutations.push("slow");
        let mut slow = Vec::new();
        for mut piece in self.pieces.drain(..) {
            for _ in 0..dice.index(PARTS) {
                let rest = piece.bytes.split_off(dice.index(piece.bytes.len()));
                let pause = Duration::from_millis(dice.below(PAUSE_MILLIS));
                slow.push(Piece { connection: piece.connection, bytes: piece.bytes, pause });
                piece.bytes = rest;
            }
            slow.push(piece);
        }
        self.pieces = slow;
    }
}

impl Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let channel = if self.is_secure { "in noise" } else { "before noise" };
        write!(f, "{channel}, {} connections, {:?}", self.connections, self.protocols)?;
        write!(f, ", mutations {:?}, reads {}", self.mutations, self.reads)?;
        let mut room = SHOWN_BYTES;
        for piece in &self.pieces {
            f.write_str(if piece.connection == 0 { " " } else { " +" })?;
            f.write_str(&wire::hex(piece.bytes.get(..room).unwrap_or(&piece.bytes)))?;
            room = room.saturating_sub(piece.bytes.len());
            if room == 0 {
                return f.write_str("..");
            }
        }
        f.write_char('.')
    }
}

/// A frame of yamux, right or wrong.
#[derive(Clone)]
struct Frame {
    version: u8,
    kind: u8,
    flags: u16,
    stream: u32,
    length: usize,
    body: Vec<u8>,
}

impl Frame {
    fn new(kind: u8, flags: u16, stream: u32) -> Self {
        Self { version: 0, kind, flags, stream, length: 0, body: Vec::new() }
    }

    /// Returns one that carries nothing.
    fn aside(stream: u32, dice: &mut Dice) -> Self {
        let length = dice.index(1 << 20);
        match dice.index(6) {
            0 => Self { length, ..Self::new(PING, SYN, 0) },
            1 => Self::new(DATA, RST, stream),
            2 => Self { length: dice.index(3), ..Self::new(GO_AWAY, 0, 0) },
            _ => Self { length, ..Self::new(WINDOW, 0, stream) },
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.body.len());
        bytes.extend([self.version, self.kind]);
        bytes.extend(self.flags.to_be_bytes());
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(wire::u32_len(self.length));
        bytes.extend(&self.body);
        bytes
    }
}

/// Changes something about the frames, and says what.
fn mutate_frames(frames: &mut Vec<(usize, Frame)>, dice: &mut Dice) -> &'static str {
    let (place, other) = (dice.index(frames.len()), dice.index(frames.len()));
    let random = dice.next();
    let Some((_, frame)) = frames.get_mut(place) else { return "no frame" };
    match dice.index(10) {
        0 => {
            frame.kind = random.to_be_bytes()[0] % 5;
            "the kind of a frame"
        }
        1 => {
            frame.flags ^= 1 << (random % 16);
            "a flag of a frame"
        }
        2 => {
            frame.stream = u32::try_from(random % 40).unwrap_or_default();
            "the stream of a frame"
        }
        3 => {
            frame.length = frame.length.wrapping_add(dice.index(64)).wrapping_sub(32);
            "the length of a frame"
        }
        4 => {
            frame.length = *dice.pick(&[0, 1, 1 << 24, 1 << 31, usize::MAX]).unwrap_or(&0);
            "an extreme length of a frame"
        }
        5 => {
            frame.version = 1;
            "the version of a frame"
        }
        6 => {
            frame.body.truncate(dice.index(frame.body.len()));
            "a cut frame"
        }
        7 => {
            let repeated = frames.get(place).cloned();
            frames.extend(repeated);
            "a repeated frame"
        }
        8 => {
            frames.remove(place);
            "a lost frame"
        }
        _ => {
            frames.swap(place, other);
            "frames in another order"
        }
    }
}

/// Changes something about bytes, and says what.
pub(super) fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) -> &'static str {
    let place = dice.index(bytes.len());
    match dice.index(8) {
        0 => {
            bytes.truncate(place);
            "cut"
        }
        1 => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 1 << dice.index(8);
            }
            "a bit"
        }
        2 => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte = dice.byte();
            }
            "a byte"
        }
        3 => {
            let run = [0, 0x7f, 0x80, 0xff];
            let value = dice.pick(&run).copied().unwrap_or_default();
            bytes.iter_mut().skip(place).take(4).for_each(|byte| *byte = value);
            "an extreme number"
        }
        4 => {
            let more = dice.index(RANDOM_BYTES);
            bytes.splice(place..place, dice.bytes(more));
            "random bytes inside"
        }
        5 => {
            bytes.extend_from_within(..);
            "repeated"
        }
        6 => {
            bytes.rotate_left(place);
            "reordered"
        }
        _ => {
            let length = bytes.len();
            bytes.clear();
            bytes.extend(dice.bytes(length));
            "random bytes"
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::siege::ground::Ground;

    fn plan(seed: u64) -> Plan {
        Plan::roll(&mut Dice::new(&[seed]), &Hosts::new(Ground::Loopback, 1, 2))
    }

    fn said(seed: u64) -> (String, usize) {
        let plan = plan(seed);
        (plan.to_string(), plan.pieces.iter().map(|piece| piece.bytes.len()).sum())
    }

    #[test]
    fn a_conversation_follows_from_its_seed() {
        // Records are signed at the time of the conversation, which changes no length.
        assert!((0..100).all(|seed| said(seed).1 == said(seed).1));
        let different: HashSet<_> = (0..100).map(|seed| said(seed).0).collect();
        assert!(different.len() > 95);
    }

    #[test]
    fn conversations_have_every_protocol_and_mutation() {
        let plans: Vec<Plan> = (0..1000).map(plan).collect();
        for protocol in Protocol::ALL {
            assert!(plans.iter().any(|plan| plan.protocols.contains(&protocol)), "{protocol:?}");
        }
        let mutations: HashSet<_> = plans.iter().flat_map(|plan| plan.mutations.iter().copied()).collect();
        // Of bytes, of frames, and three more.
        assert!(mutations.len() >= 8 + 10 + 3, "{mutations:?}");
        assert!(plans.iter().any(|plan| plan.mutations.is_empty() && plan.is_secure));
    }
}
