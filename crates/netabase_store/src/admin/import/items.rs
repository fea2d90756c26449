//! The items of an input: lines, the elements of an array, or the rows of a table.

use std::borrow::Cow;
use std::io::BufRead;

use super::array::Array;
use super::lines::Lines;
use super::source::{Passed, Source};
use super::table::{Columns, Table};
use super::{ImportError, ImportFormat, ImportOptions, LineError, input};
use crate::error::StoreError;
use crate::model::schema::ModelSchema;

const UTF_16: (&str, &str) = ("text in UTF-16", "iconv -f UTF-16 -t UTF-8");
/// The first bytes of inputs that are not text in UTF-8, the name of each format, and a command
/// that converts it.
const FOREIGN: [(&[u8], &str, &str); 8] = [
    (b"\xff\xfe", UTF_16.0, UTF_16.1),
    (b"\xfe\xff", UTF_16.0, UTF_16.1),
    (b"\x1f\x8b", "compressed with gzip", "gzip -dc"),
    (b"PK\x03\x04", "a ZIP archive", "unzip -p"),
    (b"BZh", "compressed with bzip2", "bzip2 -dc"),
    (b"\xfd7zX", "compressed with xz", "xz -dc"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "zstd -dc"),
    (b"SQLi", "an SQLite database", "sqlite3 -json FILE 'SELECT ..'"),
];
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The next item of an input.
#[derive(Debug)]
pub(super) enum Next<'a> {
    Item(Item<'a>),
    /// No input has arrived yet.
    Idle,
    End,
}

/// A line, an element or a row.
#[derive(Debug)]
pub(super) struct Item<'a> {
    pub(super) place: Place,
    /// Its JSON, which may be blank.
    pub(super) text: Result<Cow<'a, [u8]>, LineError>,
}

/// The place of an item in an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The line on which it begins, from 1.
    pub(super) line: u64,
    /// The element of an array that it is, from 1.
    pub(super) item: Option<u64>,
}

impl Place {
    /// Returns the number from which an import continues.
    pub(super) fn number(self) -> u64 {
        self.item.unwrap_or(self.line)
    }
}

/// The items of an input.
pub(super) enum Items<R> {
    Lines(Lines<R>),
    Array(Array<R>),
    Table(Box<Table<R>>),
}

impl<R: BufRead> Items<R> {
    /// Detects the format of an input.
    pub(super) fn new(
        reader: R,
        options: &ImportOptions<'_>,
        model: Option<&ModelSchema>,
    ) -> Result<Self, StoreError> {
        let (mut source, limit) = (Source::new(reader), options.max_line_bytes);
        let begin = source.begin().map_err(input)?;
        check_encoding(begin)?;
        if begin.starts_with(BYTE_ORDER_MARK) {
            source.take(BYTE_ORDER_MARK.len()).map_err(input)?;
        }
        let first = loop {
            match source.pass(|byte| byte.is_ascii_whitespace()).map_err(input)? {
                Passed::At(byte) => break byte,
                Passed::Idle => {}
                Passed::End => return Err(ImportError::Empty.into()),
            }
        };
        match (options.format, first, model) {
            (ImportFormat::Auto | ImportFormat::Json, b'[', _) => {
                source.take(1).map_err(input)?;
                Ok(Self::Array(Array::new(source, limit)))
            }
            (ImportFormat::Json, ..) | (ImportFormat::Auto, b'{', _) | (ImportFormat::Auto, _, None) => {
                Ok(Self::Lines(Lines::new(source, limit)))
            }
            (ImportFormat::Auto, _, Some(model)) => {
                let mut lines = Lines::new(source, limit);
                match lines.first().map_err(input)?.and_then(|header| Columns::of_header(header, model).ok())
                {
                    Some(columns) => Ok(Self::table(lines.into_source(), columns, limit)),
                    None => Ok(Self::Lines(lines)),
                }
            }
            (ImportFormat::Csv, _, Some(model)) => {
                let mut lines = Lines::new(source, limit);
                let header = lines.first().map_err(input)?.unwrap_or_default();
                let columns = Columns::of_header(header, model)?;
                Ok(Self::table(lines.into_source(), columns, limit))
            }
            (ImportFormat::Csv, _, None) => Err(ImportError::NoModel.into()),
        }
    }

    fn table(source: Source<R>, columns: Columns, limit: usize) -> Self {
        Self::Table(Box::new(Table::new(source, columns, limit)))
    }

    pub(super) fn next(&mut self) -> Result<Next<'_>, StoreError> {
        match self {
            Self::Lines(lines) => lines.next(),
            Self::Array(array) => array.next(),
            Self::Table(table) => table.next(),
        }
        .map_err(input)
    }

    /// Returns the number of the last item.
    pub(super) fn number(&self) -> u64 {
        match self {
            Self::Lines(lines) => lines.number(),
            Self::Array(array) => array.number(),
            Self::Table(table) => table.number(),
        }
    }

    /// Returns the number of bytes that were read.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Lines(lines) => lines.source().bytes,
            Self::Array(array) => array.source().bytes,
            Self::Table(table) => table.source().bytes,
        }
    }

    /// Returns whether the input is recognisably cut off.
    pub(super) fn is_cut_off(&self) -> bool {
        match self {
            Self::Array(array) => !array.has_ended(),
            Self::Lines(_) | Self::Table(_) => false,
        }
    }
}

fn check_encoding(begin: &[u8]) -> Result<(), ImportError> {
    let utf16 =
        |zero: Option<&u8>, other: Option<&u8>| zero == Some(&0) && other.is_some_and(u8::is_ascii_graphic);
    let without_mark = utf16(begin.first(), begin.get(1)) || utf16(begin.get(1), begin.first());
    let known = FOREIGN.iter().find(|(mark, ..)| begin.starts_with(mark));
    match known {
        Some((_, what, command)) => Err(ImportError::Encoding { what, command }),
        None if without_mark => Err(ImportError::Encoding { what: UTF_16.0, command: UTF_16.1 }),
        None => Ok(()),
    }
}
