//! Reading lines of bounded length.

use std::io::{self, BufRead, ErrorKind};

/// A line, without what ends it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    Text(&'a [u8]),
    /// It has more bytes than the limit; they were passed over.
    TooLong,
}

/// Reads lines and keeps no more than one of them, of bounded length, in memory.
pub(crate) struct LineReader<R> {
    reader: R,
    limit: usize,
    line: Vec<u8>,
    /// How many lines were read.
    pub(crate) lines: u64,
    /// How many bytes were read.
    pub(crate) bytes: u64,
}

impl<R: BufRead> LineReader<R> {
    pub(crate) fn new(reader: R, limit: usize) -> Self {
        Self { reader, limit, line: Vec::new(), lines: 0, bytes: 0 }
    }

    /// Returns the next line, or `None` at the end of the input.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let (mut any, mut too_long) = (false, false);
        loop {
            let chunk = match self.reader.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            if chunk.is_empty() && !any {
                return Ok(None);
            }
            any = true;
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let text = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
            too_long |= self.line.len() + text.len() > self.limit;
            if too_long {
                self.line.clear();
            } else {
                self.line.extend(text);
            }
            let (len, last) = (text.len() + usize::from(end.is_some()), end.is_some() || chunk.is_empty());
            self.reader.consume(len);
            self.bytes += u64::try_from(len).unwrap_or(u64::MAX);
            if last {
                self.lines += 1;
                return Ok(Some(if too_long { Line::TooLong } else { Line::Text(&self.line) }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn read(input: &[u8], limit: usize, buffer: usize) -> (Vec<Option<Vec<u8>>>, u64) {
        let mut reader = LineReader::new(BufReader::with_capacity(buffer, input), limit);
        let mut lines = Vec::new();
        while let Some(line) = reader.next().unwrap() {
            lines.push(match line {
                Line::Text(text) => Some(text.to_vec()),
                Line::TooLong => None,
            });
            assert!(reader.line.capacity() <= 2 * limit.max(8));
        }
        assert_eq!(reader.lines, lines.len() as u64);
        (lines, reader.bytes)
    }

    #[test]
    fn lines_end_with_a_newline_or_the_input() {
        for buffer in [1, 3, 100] {
            let text = |line: &str| Some(line.as_bytes().to_vec());
            assert_eq!(read(b"", 10, buffer), (vec![], 0));
            assert_eq!(read(b"a\n\nbc", 10, buffer), (vec![text("a"), text(""), text("bc")], 5));
            assert_eq!(read(b"a\nbc\n", 10, buffer), (vec![text("a"), text("bc")], 5));
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
