//! The elements of a JSON array, each of bounded length.

use std::borrow::Cow;
use std::io::{self, BufRead};

use super::LineError;
use super::items::{Item, Next, Place};
use super::source::{Passed, Ready, Source};

/// Reads the elements of an array one by one. The bytes between two commas are one element, whether
/// they are JSON or not.
pub(super) struct Array<R> {
    source: Source<R>,
    limit: usize,
    element: Vec<u8>,
    is_too_long: bool,
    /// The line on which the element begins that is being read.
    begun: Option<u64>,
    /// The number of open brackets and braces in it.
    depth: usize,
    text: Text,
    number: u64,
    /// Whether the bracket was met that ends the array.
    has_ended: bool,
}

/// The place of the next byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Outside,
    /// In a string.
    Inside,
    /// In a string, after a backslash.
    Escaped,
}

impl<R: BufRead> Array<R> {
    /// Reads the bytes after the opening bracket.
    pub(super) fn new(source: Source<R>, limit: usize) -> Self {
        Self {
            source,
            limit,
            element: Vec::new(),
            is_too_long: false,
            begun: None,
            depth: 0,
            text: Text::Outside,
            number: 0,
            has_ended: false,
        }
    }

    pub(super) fn source(&self) -> &Source<R> {
        &self.source
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(super) fn next(&mut self) -> io::Result<Next<'_>> {
        if self.has_ended {
            return self.behind();
        }
        loop {
            let line = match self.begun {
                Some(line) => line,
                None => match self.source.pass(|byte| byte == b',' || byte.is_ascii_whitespace())? {
                    Passed::Idle => return Ok(Next::Idle),
                    Passed::End => return Ok(Next::End),
                    Passed::At(b']') => {
                        self.source.take(1)?;
                        self.has_ended = true;
                        return self.behind();
                    }
                    Passed::At(_) => {
                        (self.depth, self.text, self.is_too_long) = (0, Text::Outside, false);
                        self.element.clear();
                        *self.begun.insert(self.source.ends + 1)
                    }
                },
            };
            let is_cut_off = match self.source.ready()? {
                Ready::Idle => return Ok(Next::Idle),
                Ready::End => true,
                Ready::Bytes => false,
            };
            if !is_cut_off && !self.read()? {
                continue;
            }
            (self.begun, self.number) = (None, self.number + 1);
            let text = if self.is_too_long {
                Err(LineError::TooLong { limit: self.limit })
            } else {
                Ok(Cow::Borrowed(self.element.as_slice()))
            };
            return Ok(Next::Item(Item { place: Place { line, item: Some(self.number) }, text }));
        }
    }

    /// Reads some of an element; returns whether that is its end.
    fn read(&mut self) -> io::Result<bool> {
        let chunk = self.source.chunk()?;
        let (mut depth, mut text) = (self.depth, self.text);
        let mut is_end = |byte: u8| {
            match (text, byte) {
                // A string ends with its line: one without its end spoils no other element.
                (Text::Inside | Text::Escaped, b'\n') | (Text::Inside, b'"') => text = Text::Outside,
                (Text::Inside, b'\\') => text = Text::Escaped,
                (Text::Escaped, _) | (Text::Outside, b'"') => text = Text::Inside,
                (Text::Outside, b',' | b']') if depth == 0 => return true,
                (Text::Outside, b'[' | b'{') => depth += 1,
                (Text::Outside, b']' | b'}') => depth = depth.saturating_sub(1),
                (Text::Inside | Text::Outside, _) => {}
            }
            false
        };
        let end = chunk.iter().position(|byte| is_end(*byte));
        let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
        self.is_too_long |= self.element.len() + part.len() > self.limit;
        if self.is_too_long {
            self.element = Vec::new();
        } else {
            self.element.extend(part);
        }
        let len = part.len();
        (self.depth, self.text) = (depth, text);
        self.source.take(len)?;
        Ok(end.is_some())
    }

    /// Reports the first item behind the array, and skips the rest.
    fn behind(&mut self) -> io::Result<Next<'_>> {
        match self.source.pass(|byte| byte.is_ascii_whitespace())? {
            Passed::Idle => Ok(Next::Idle),
            Passed::End => Ok(Next::End),
            Passed::At(_) => {
                let line = self.source.ends + 1;
                self.number += 1;
                while self.source.pass(|_| true)? != Passed::End {}
                let place = Place { line, item: Some(self.number) };
                Ok(Next::Item(Item { place, text: Err(LineError::AfterEnd) }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    type Read = (Vec<(u64, Option<String>)>, bool);

    fn read(input: &str, buffer: usize) -> Read {
        let mut source = Source::new(BufReader::with_capacity(buffer, input.as_bytes()));
        source.take(1).unwrap();
        let mut array = Array::new(source, 20);
        let mut items = Vec::new();
        while let Next::Item(Item { place, text }) = array.next().unwrap() {
            assert_eq!(place.item, Some(items.len() as u64 + 1));
            items.push((place.line, text.ok().map(|text| String::from_utf8(text.into_owned()).unwrap())));
        }
        assert_eq!(array.source.bytes, input.len() as u64);
        (items, array.has_ended())
    }

    fn some(items: &[(u64, &str)]) -> Vec<(u64, Option<String>)> {
        items.iter().map(|(line, text)| (*line, Some((*text).to_owned()))).collect()
    }

    #[test]
    fn elements_are_what_is_between_commas() {
        for buffer in [1, 2, 100] {
            assert_eq!(read("[]", buffer), (vec![], true));
            assert_eq!(
                read("[\n{\"a\":[1,2]},\n 3\n]\n", buffer),
                (some(&[(2, "{\"a\":[1,2]}"), (3, "3\n")]), true)
            );
            assert_eq!(
                read(r#"["],\",","\\",4]"#, buffer),
                (some(&[(1, r#""],\",""#), (1, r#""\\""#), (1, "4")]), true)
            );
        }
    }

    #[test]
    fn what_is_no_json_spoils_no_other_element() {
        let long = format!("[1,{},2]", "x".repeat(30));
        for buffer in [1, 2, 100] {
            assert_eq!(read("[{\"a\n,1,}2,3]", buffer), (some(&[(1, "{\"a\n,1,}2"), (2, "3")]), true));
            assert_eq!(read(&long, buffer).0, [(1, Some("1".into())), (1, None), (1, Some("2".into()))]);
            assert_eq!(read("[1,{\"a\"", buffer), (some(&[(1, "1"), (1, "{\"a\"")]), false));
            assert_eq!(read("[1]\n\nx", buffer), (vec![(1, Some("1".into())), (3, None)], true));
        }
    }
}
