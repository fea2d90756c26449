//! The hello, which two peers exchange: their clocks, runs, scores and witnesses.
//!
//! A hello is a list of numbered fields, each with its length. A program skips unknown fields, and
//! the unknown rest of a known field, so that later versions can extend it.
//! more.

use netabase_store::Refusal;

use crate::protocol::limits::{MAX_HELLO_BYTES, MAX_HELLO_FIELDS, MAX_RUNS};
use crate::protocol::record::tag;
use crate::rpc::codec::{List, Malformed, Reader, write_short};

/// The numbers of the fields; they never change.
mod field {
    pub(super) const CLOCK: u8 = 1;
    pub(super) const RUN: u8 = 2;
    pub(super) const SLOWED: u8 = 3;
    pub(super) const BANNED: u8 = 4;
    pub(super) const RUNS: u8 = 5;
    pub(super) const WITNESSES: u8 = 6;
}

/// The id of one run of a node's program: a random number that is new at each start.
pub(crate) type RunId = [u8; 16];

/// The hello of one side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The wall clock, in milliseconds since the Unix epoch.
    pub(crate) clock: u64,
    /// The sender's run.
    pub(crate) run: RunId,
    /// The remaining seconds for which the sender slows the receiver, or `None`.
    pub(crate) slowed: Option<u32>,
    /// The remaining seconds for which the sender has banned the receiver, and the reason, or
    /// `None`.
    pub(crate) banned: Option<(u32, Refusal)>,
    /// The receiver's runs that the sender has heard of, if there are several.
    pub(crate) runs: Vec<RunId>,
    /// The signed statements about the runs of either side.
    pub(crate) witnesses: Vec<Witness>,
}

/// A statement, signed with a node's identity, that the run `by` knew of the run `of` when its
/// clock was `clock`.
///
/// A run that had ended before another one began cannot make a statement about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Witness {
    pub(crate) by: RunId,
    pub(crate) of: RunId,
    /// The wall clock, in milliseconds since the Unix epoch.
    pub(crate) clock: u64,
    pub(crate) signature: [u8; 64],
}

impl Hello {
    /// Encodes the hello. The request and its response have the same form.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut list = List::after(vec![tag::HELLO], MAX_HELLO_FIELDS, MAX_HELLO_BYTES);
        let mut field = |number, value: &[u8]| {
            list.push(|bytes| {
                bytes.push(number);
                write_short(bytes, value);
            });
        };
        field(field::CLOCK, &self.clock.to_be_bytes());
        field(field::RUN, &self.run);
        if let Some(seconds) = self.slowed {
            field(field::SLOWED, &seconds.to_be_bytes());
        }
        if let Some((seconds, reason)) = self.banned {
            field(field::BANNED, &[&seconds.to_be_bytes()[..], &[reason.code()]].concat());
        }
        if !self.runs.is_empty() {
            field(field::RUNS, &self.runs.iter().take(MAX_RUNS).copied().collect::<Vec<_>>().concat());
        }
        if !self.witnesses.is_empty() {
            let witnesses = self.witnesses.iter().take(MAX_RUNS).map(|witness| witness.to_bytes());
            field(field::WITNESSES, &witnesses.collect::<Vec<_>>().concat());
        }
        list.finish()
    }

    /// Reads the fields, which follow the tag.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        if reader.len() > MAX_HELLO_BYTES {
            return Err(Malformed);
        }
        let (mut hello, mut clock, mut run) = (Self::default(), None, None);
        for (number, value) in reader.list(MAX_HELLO_FIELDS, |reader| Ok((reader.u8()?, reader.key()?)))? {
            let mut value = Reader::new(value);
            match number {
                field::CLOCK => clock = Some(value.u64()?),
                field::RUN => run = Some(value.array()?),
                field::SLOWED => hello.slowed = Some(value.u32()?),
                field::BANNED => {
                    let seconds = value.u32()?;
                    hello.banned = Some((seconds, Refusal::from_code(value.u8()?)));
                }
                field::RUNS => {
                    let runs = std::iter::from_fn(|| value.array().ok());
                    hello.runs = runs.take(MAX_RUNS).collect();
                }
                field::WITNESSES => {
                    let witnesses = std::iter::from_fn(|| Witness::read(&mut value).ok());
                    hello.witnesses = witnesses.take(MAX_RUNS).collect();
                }
                _ => {}
            }
        }
        let (clock, run) = clock.zip(run).ok_or(Malformed)?;
        Ok(Self { clock, run, ..hello })
    }
}

impl Witness {
    fn to_bytes(self) -> Vec<u8> {
        [&self.by[..], &self.of, &self.clock.to_be_bytes(), &self.signature].concat()
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (by, of) = (reader.array()?, reader.array()?);
        Ok(Self { by, of, clock: reader.u64()?, signature: reader.array()? })
    }
}

/// Returns whether a request is a hello, which the event loop answers itself.
pub(crate) fn is_hello(request: &[u8]) -> bool {
    request.first() == Some(&tag::HELLO)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::record::{Failure, Request, Response};

    fn full() -> Hello {
        Hello {
            clock: 0x0102,
            run: [7; 16],
            slowed: Some(97),
            banned: Some((600, Refusal::InvalidSignature)),
            runs: vec![[1; 16], [2; 16]],
            witnesses: vec![Witness { by: [1; 16], of: [2; 16], clock: 3, signature: [9; 64] }],
        }
    }

    #[test]
    fn a_hello_has_its_golden_bytes() {
        let short = Hello { clock: 0x0102, run: [7; 16], ..Hello::default() };
        let bytes =
            [&b"\x07\x00\x02\x01\x00\x08\x00\x00\x00\x00\x00\x00\x01\x02\x02\x00\x10"[..], &[7; 16]].concat();
        assert_eq!(short.encode(), bytes);
        assert_eq!(Request::decode(&bytes), Ok(Request::Hello(short.clone())));
        assert_eq!(Response::decode(&bytes), Ok(Response::Hello(short)));
        let bytes = [
            &b"\x07\x00\x06\x01\x00\x08\x00\x00\x00\x00\x00\x00\x01\x02\x02\x00\x10"[..],
            &[7; 16],
            b"\x03\x00\x04\x00\x00\x00\x61\x04\x00\x05\x00\x00\x02\x58\x04\x05\x00\x20",
            &[1; 16],
            &[2; 16],
            b"\x06\x00\x68",
            &[1; 16],
            &[2; 16],
            b"\x00\x00\x00\x00\x00\x00\x00\x03",
            &[9; 64],
        ];
        let bytes = bytes.concat();
        assert_eq!(full().encode(), bytes);
        assert_eq!(Response::decode(&bytes), Ok(Response::Hello(full())));
    }

    #[test]
    fn what_a_later_program_adds_to_a_hello_is_skipped() {
        let mut bytes = full().encode();
        bytes[2] += 2;
        bytes.extend(b"\xfe\x00\x03new\x03\x00\x06\x00\x00\x00\x05++");
        let expected = Hello { slowed: Some(5), ..full() };
        assert_eq!(Request::decode(&bytes), Ok(Request::Hello(expected)));
        // A hello without a clock or a run is malformed.
        assert_eq!(Request::decode(b"\x07\x00\x00"), Err(Failure::Malformed));
    }

    #[test]
    fn the_longest_hello_that_is_sent_is_within_the_bound() {
        let witness = full().witnesses[0];
        let longest = Hello { witnesses: vec![witness; 9], runs: vec![[0; 16]; 9], ..full() };
        assert!(longest.encode().len() < MAX_HELLO_BYTES / 2);
        let padded = [&longest.encode()[..], &[0; MAX_HELLO_BYTES]].concat();
        assert_eq!(Request::decode(&padded), Err(Failure::Malformed));
    }

    proptest! {
        #[test]
        fn any_fields_are_read_or_refused(
            fields in prop::collection::vec((0_u8..9, prop::collection::vec(any::<u8>(), 0..80)), 0..40),
        ) {
            let mut bytes = vec![tag::HELLO, 0, u8::try_from(fields.len()).unwrap()];
            for (number, value) in &fields {
                bytes.push(*number);
                bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
                bytes.extend(value);
            }
            if let Ok(Request::Hello(hello)) = Request::decode(&bytes) {
                prop_assert!(hello.runs.len() <= MAX_RUNS && hello.witnesses.len() <= MAX_RUNS);
                let again = hello.encode();
                prop_assert_eq!(Request::decode(&again), Ok(Request::Hello(hello)));
            }
        }
    }
}
