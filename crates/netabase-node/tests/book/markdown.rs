//! As much of Markdown as the documentation uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A page, taken apart.
pub(crate) struct Page {
    /// Where it is, relative to the repository.
    pub(crate) path: String,
    pub(crate) blocks: Vec<Block>,
    pub(crate) links: Vec<Link>,
    /// Code within text.
    pub(crate) code: Vec<Code>,
    /// The names of its headings in links.
    pub(crate) anchors: BTreeSet<String>,
}

/// A fenced block.
pub(crate) struct Block {
    /// The line of its fence, from 1.
    pub(crate) line: usize,
    pub(crate) language: String,
    pub(crate) attributes: Vec<String>,
    /// The HTML comment right above it.
    pub(crate) comment: Option<String>,
    pub(crate) text: String,
}

pub(crate) struct Link {
    pub(crate) line: usize,
    pub(crate) target: String,
}

pub(crate) struct Code {
    pub(crate) line: usize,
    pub(crate) text: String,
}

impl Block {
    pub(crate) fn has(&self, attribute: &str) -> bool {
        self.attributes.iter().any(|own| own == attribute)
    }

    /// Returns the name of the file that the block is.
    pub(crate) fn file(&self) -> Option<&str> {
        self.attributes.iter().find_map(|own| own.strip_prefix("file="))
    }

    /// Returns what a block in the background says when it is ready.
    pub(crate) fn until(&self) -> Option<&str> {
        self.comment.as_deref()?.strip_prefix("until \"")?.strip_suffix('"')
    }
}

impl Page {
    pub(crate) fn read(root: &Path, path: &str) -> Self {
        let text = fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self::parse(path, &text)
    }

    pub(crate) fn parse(path: &str, text: &str) -> Self {
        let mut page = Self {
            path: path.to_owned(),
            blocks: Vec::new(),
            links: Vec::new(),
            code: Vec::new(),
            anchors: BTreeSet::new(),
        };
        let mut headings = BTreeMap::new();
        let mut paragraph = Paragraph::default();
        let mut comment = None;
        let mut lines = text.lines().zip(1..);
        while let Some((line, number)) = lines.next() {
            if let Some(info) = line.trim_start().strip_prefix("```") {
                paragraph.end(&mut page);
                let mut parts = info.split(',').map(|part| part.trim().to_owned());
                let language = parts.next().unwrap();
                let body = lines.by_ref().map(|(line, _)| line).take_while(|line| line.trim() != "```");
                let text = body.flat_map(|line| [line, "\n"]).collect();
                let attributes = parts.collect();
                page.blocks.push(Block { line: number, language, attributes, comment: comment.take(), text });
            } else if let Some(start) = line.strip_prefix("<!--") {
                paragraph.end(&mut page);
                let mut said = start.to_owned();
                while !said.contains("-->") {
                    let (next, _) = lines.next().expect("a comment ends");
                    said = format!("{said} {}", next.trim());
                }
                comment = Some(said.replace("-->", "").trim().to_owned());
            } else if line.trim().is_empty() {
                paragraph.end(&mut page);
            } else {
                comment = None;
                if line.starts_with('#') {
                    paragraph.end(&mut page);
                    page.anchors.insert(anchor(line.trim_start_matches('#'), &mut headings));
                }
                paragraph.push(number, line);
            }
        }
        paragraph.end(&mut page);
        page
    }
}

/// Lines of text, since code and links may go on in the next one.
#[derive(Default)]
struct Paragraph {
    line: usize,
    text: String,
}

impl Paragraph {
    fn push(&mut self, number: usize, line: &str) {
        if self.text.is_empty() {
            self.line = number;
        } else {
            self.text.push(if line.starts_with('|') { '\n' } else { ' ' });
        }
        self.text.push_str(line.trim());
    }

    /// Puts what was gathered into the page.
    fn end(&mut self, page: &mut Page) {
        let Self { line, text } = std::mem::take(self);
        let mut prose = String::new();
        for (index, part) in text.split('`').enumerate() {
            if index % 2 == 0 {
                prose.push_str(part);
            } else {
                page.code.push(Code { line, text: part.replace('\n', " ") });
            }
        }
        for part in prose.split("](").skip(1) {
            let target = part.split(')').next().unwrap().to_owned();
            page.links.push(Link { line, target });
        }
        // `[name]: target` at the end of a page; one paragraph has several.
        for part in prose.split("]: ").skip(1) {
            let target = part.split_whitespace().next().unwrap_or_default();
            if target.starts_with("https://") || target.contains(".md") {
                page.links.push(Link { line, target: target.to_owned() });
            }
        }
    }
}

/// Returns the name of a heading as GitHub and mdBook make it; the second of a name is numbered.
fn anchor(heading: &str, seen: &mut BTreeMap<String, usize>) -> String {
    let kept = heading.trim().chars().filter_map(|char| match char {
        ' ' => Some('-'),
        '-' | '_' => Some(char),
        _ => char.is_alphanumeric().then_some(char.to_ascii_lowercase()),
    });
    let name = kept.collect::<String>();
    let count = seen.entry(name.clone()).or_default();
    *count += 1;
    if *count == 1 { name } else { format!("{name}-{}", *count - 1) }
}
