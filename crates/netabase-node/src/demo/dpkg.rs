//! The format of Debian's package index: paragraphs of fields, separated by empty lines.
//!
//! The reader keeps one paragraph in memory at a time.

use std::collections::HashMap;
use std::io::{self, BufRead, Read};

use crate::models::Package;

/// The longest line that is read. A paragraph with a longer one is not a package.
const MAX_LINE_BYTES: u64 = 256 * 1024;
/// The most bytes that are kept of a paragraph. A larger one is not a package.
const MAX_PARAGRAPH_BYTES: usize = 256 * 1024;
/// The longest value that becomes a key. Longer ones are not valid names.
const MAX_KEY_BYTES: usize = 255;
/// The fields that are kept.
const FIELDS: [&str; 8] =
    ["Package", "Section", "Priority", "Version", "Architecture", "Installed-Size", "Depends", "Description"];

/// The paragraphs of a package index, each a package, or `None` if it does not describe one.
#[derive(Debug)]
pub(super) struct Packages<R> {
    reader: R,
    line: Vec<u8>,
}

impl<R: BufRead> Packages<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, line: Vec::new() }
    }

    /// Reads the next line without its line break, or returns `None` at the end of the file.
    fn next_line(&mut self) -> io::Result<Option<Line>> {
        if !self.fill_line()? {
            return Ok(None);
        }
        let is_whole = self.line.ends_with(b"\n") || (self.line.len() as u64) < MAX_LINE_BYTES;
        if is_whole {
            let text = String::from_utf8_lossy(&self.line);
            return Ok(Some(Line::Text(text.trim_end().to_owned())));
        }
        while self.fill_line()? && !self.line.ends_with(b"\n") {}
        Ok(Some(Line::TooLong))
    }

    /// Reads to the end of the line, but at most up to the limit. Returns false at the end of the
    /// file.
    fn fill_line(&mut self) -> io::Result<bool> {
        self.line.clear();
        Ok(self.reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut self.line)? > 0)
    }

    fn next_paragraph(&mut self) -> io::Result<Option<Paragraph>> {
        let mut paragraph = Paragraph::default();
        while let Some(line) = self.next_line()? {
            match line {
                Line::Text(line) if line.is_empty() && paragraph.is_empty() => {}
                Line::Text(line) if line.is_empty() => return Ok(Some(paragraph)),
                Line::Text(line) => paragraph.add(&line),
                Line::TooLong => paragraph.spoil(),
            }
        }
        Ok(Some(paragraph).filter(|paragraph| !paragraph.is_empty()))
    }
}

impl<R: BufRead> Iterator for Packages<R> {
    type Item = io::Result<Option<Package>>;

    fn next(&mut self) -> Option<Self::Item> {
        let paragraph = self.next_paragraph().transpose()?;
        Some(paragraph.map(Paragraph::into_package))
    }
}

/// A line of the file.
#[derive(Debug)]
enum Line {
    Text(String),
    TooLong,
}

/// The fields of a paragraph that are kept.
#[derive(Debug, Default)]
struct Paragraph {
    fields: HashMap<&'static str, String>,
    /// The field to which continuation lines belong, if that field is kept.
    current: Option<&'static str>,
    lines: usize,
    bytes: usize,
    spoilt: bool,
}

impl Paragraph {
    fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// Marks the paragraph as one that cannot be kept.
    fn spoil(&mut self) {
        self.lines += 1;
        self.spoilt = true;
        self.fields.clear();
    }

    fn add(&mut self, line: &str) {
        self.lines += 1;
        if line.starts_with('#') {
            return;
        }
        match line.strip_prefix([' ', '\t']) {
            Some(rest) => self.go_on(rest),
            None => self.begin(line),
        }
        if self.bytes > MAX_PARAGRAPH_BYTES {
            self.spoil();
        }
    }

    fn begin(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or_default();
        let name = name.trim_start_matches('\u{feff}');
        self.current = FIELDS.into_iter().find(|field| field.eq_ignore_ascii_case(name));
        if let Some(field) = self.current {
            self.bytes += value.len();
            self.fields.insert(field, value.trim().to_owned());
        }
    }

    /// Adds a continuation line, in which a single dot means an empty line.
    fn go_on(&mut self, rest: &str) {
        let Some(value) = self.current.and_then(|field| self.fields.get_mut(field)) else { return };
        self.bytes += rest.len() + 1;
        value.push('\n');
        value.push_str(if rest == "." { "" } else { rest });
    }

    /// Makes a package of the fields, or returns `None` if a required field is missing.
    fn into_package(mut self) -> Option<Package> {
        if self.spoilt {
            return None;
        }
        let key = |value: &String| !value.is_empty() && value.len() <= MAX_KEY_BYTES;
        Some(Package {
            name: self.take("Package").filter(key)?,
            section: self.take("Section").filter(key)?,
            priority: self.take("Priority").filter(key)?,
            version: self.take("Version")?,
            architecture: self.take("Architecture")?,
            installed_size: self.take("Installed-Size").and_then(|size| size.parse().ok()),
            depends: self.take("Depends").as_deref().map(list).unwrap_or_default(),
            description: self.take("Description")?,
        })
    }

    fn take(&mut self, field: &str) -> Option<String> {
        self.fields.remove(field)
    }
}

/// Splits a list at its commas.
fn list(value: &str) -> Vec<String> {
    value.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

#[cfg(test)]
mod tests;
