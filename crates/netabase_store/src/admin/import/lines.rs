//! Lines of bounded length.

use std::borrow::Cow;
use std::io::{self, BufRead};

use super::LineError;
use super::items::{Item, Next, Place};
use super::source::{Ready, Source};

/// Reads lines, which end with a newline, a carriage return or both, and keeps no more than one in
/// memory.
pub(super) struct Lines<R> {
    source: Source<R>,
    limit: usize,
    line: Vec<u8>,
    number: u64,
    is_too_long: bool,
    state: State,
}

/// The state of the current line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The line was returned.
    Told,
    /// A part of the line was read.
    Begun,
    /// The line is complete, and is to be returned again.
    Again,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(source: Source<R>, limit: usize) -> Self {
        let number = source.ends;
        Self { source, limit, line: Vec::new(), number, is_too_long: false, state: State::Told }
    }

    pub(super) fn source(&self) -> &Source<R> {
        &self.source
    }

    pub(super) fn into_source(self) -> Source<R> {
        self.source
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Waits for the first line, if it is not too long; it comes again as the next one.
    pub(super) fn first(&mut self) -> io::Result<Option<&[u8]>> {
        while self.read()?.is_none() {}
        self.state = State::Again;
        Ok((!self.is_too_long).then_some(&self.line))
    }

    pub(super) fn next(&mut self) -> io::Result<Next<'_>> {
        if self.state != State::Again {
            match self.read()? {
                None => return Ok(Next::Idle),
                Some(false) => return Ok(Next::End),
                Some(true) => {}
            }
        }
        self.state = State::Told;
        let limit = self.limit;
        let text = if self.is_too_long {
            Err(LineError::TooLong { limit })
        } else {
            Ok(Cow::Borrowed(self.line.as_slice()))
        };
        Ok(Next::Item(Item { place: Place { line: self.number, item: None }, text }))
    }

    /// Reads the rest of a line; returns whether there was one, or `None` if it has not arrived
    /// yet.
    fn read(&mut self) -> io::Result<Option<bool>> {
        loop {
            match self.source.ready()? {
                Ready::Idle => return Ok(None),
                Ready::End if self.state == State::Begun => break,
                Ready::End => return Ok(Some(false)),
                Ready::Bytes => {}
            }
            if self.state == State::Told {
                if self.source.is_newline_of_return()? {
                    self.source.take(1)?;
                    continue;
                }
                self.line.clear();
                (self.is_too_long, self.state) = (false, State::Begun);
                self.number = self.source.ends + 1;
            }
            let chunk = self.source.chunk()?;
            let end = chunk.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let text = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
            self.is_too_long |= self.line.len() + text.len() > self.limit;
            if self.is_too_long {
                self.line = Vec::new();
            } else {
                self.line.extend(text);
            }
            let len = text.len() + usize::from(end.is_some());
            self.source.take(len)?;
            if end.is_some() {
                break;
            }
        }
        self.state = State::Told;
        Ok(Some(true))
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn read(input: &[u8], limit: usize, buffer: usize) -> (Vec<Option<Vec<u8>>>, u64) {
        let mut reader = Lines::new(Source::new(BufReader::with_capacity(buffer, input)), limit);
        let mut lines = Vec::new();
        while let Next::Item(Item { place, text }) = reader.next().unwrap() {
            lines.push(text.ok().map(Cow::into_owned));
            assert_eq!(place, Place { line: lines.len() as u64, item: None });
            assert!(reader.line.capacity() <= 2 * limit.max(8));
        }
        assert_eq!(reader.number(), lines.len() as u64);
        (lines, reader.source.bytes)
    }

    #[test]
    fn lines_end_with_a_newline_a_carriage_return_or_the_input() {
        for buffer in [1, 3, 100] {
            let text = |line: &str| Some(line.as_bytes().to_vec());
            assert_eq!(read(b"", 10, buffer), (vec![], 0));
            assert_eq!(read(b"a\n\nbc", 10, buffer), (vec![text("a"), text(""), text("bc")], 5));
            assert_eq!(read(b"a\nbc\n", 10, buffer), (vec![text("a"), text("bc")], 5));
            assert_eq!(read(b"a\r\n\r\nbc\r\n", 10, buffer), (vec![text("a"), text(""), text("bc")], 9));
            assert_eq!(read(b"a\r\rbc\r", 10, buffer), (vec![text("a"), text(""), text("bc")], 6));
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let input = [b"abc\n".as_slice(), &[b'x'; 1000], b"\nabcd\ne"].concat();
        for buffer in [1, 3, 5000] {
            let (lines, bytes) = read(&input, 4, buffer);
            let text = |line: &str| Some(line.as_bytes().to_vec());
            assert_eq!(lines, [text("abc"), None, text("abcd"), text("e")]);
            assert_eq!(bytes, input.len() as u64);
        }
    }
}
