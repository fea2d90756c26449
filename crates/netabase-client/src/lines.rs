//! Answers that are read line by line.

use std::collections::VecDeque;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use crate::error::{ClientError, error_chain};

/// The longest line that is read, in bytes.
pub const MAX_LINE_BYTES: usize = 32 * 1024 * 1024;

/// The lines of an answer, in the order in which the node sends them.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    url: String,
    whole: VecDeque<String>,
    /// The beginning of a line.
    begun: Vec<u8>,
    ended: bool,
}

impl Lines {
    pub(super) fn new(body: Incoming, url: &str) -> Self {
        Self { body, url: url.to_owned(), whole: VecDeque::new(), begun: Vec::new(), ended: false }
    }

    /// Waits for the next line, or returns `None` after the last one. Cancelling the call loses no
    /// line.
    ///
    /// Fails with [`ClientError::Broken`] if the connection breaks, or a line is longer than
    /// [`MAX_LINE_BYTES`].
    pub async fn next(&mut self) -> Option<Result<String, ClientError>> {
        loop {
            if let Some(line) = self.whole.pop_front() {
                return Some(Ok(line));
            }
            if self.ended {
                return None;
            }
            match self.body.frame().await {
                None => {
                    self.ended = true;
                    if !self.begun.is_empty() {
                        let line = std::mem::take(&mut self.begun);
                        return Some(Ok(String::from_utf8_lossy(&line).into_owned()));
                    }
                }
                Some(Err(error)) => return Some(Err(self.broken(error_chain(&error)))),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data()
                        && let Err(error) = self.take(&bytes)
                    {
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.begun.len() + piece.len() > MAX_LINE_BYTES {
                return Err(self.broken(format!("a line of more than {MAX_LINE_BYTES} bytes")));
            }
            self.begun.extend_from_slice(piece);
            if self.begun.ends_with(b"\n") {
                let line = std::mem::take(&mut self.begun);
                let line = String::from_utf8_lossy(&line);
                self.whole.push_back(line.trim_end_matches(['\n', '\r']).to_owned());
            }
        }
        Ok(())
    }

    fn broken(&mut self, reason: String) -> ClientError {
        self.ended = true;
        ClientError::Broken { url: self.url.clone(), reason }
    }
}

/// An event of a node.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ServerEvent {
    /// The id of the event, or else of the last event with an id. The stream can be resumed after
    /// it.
    pub id: Option<String>,
    /// The name of the event, such as `put`.
    pub event: String,
    /// The content. Numbers keep all of their digits.
    pub data: Value,
    /// The content as the node wrote it.
    pub text: String,
}

/// A stream of the events of a node.
#[derive(Debug)]
pub struct EventStream {
    lines: Lines,
    id: Option<String>,
    /// The id of an event that has not ended yet. It becomes the last id with the end of the event.
    begun_id: Option<String>,
    event: Option<String>,
    data: Option<String>,
}

impl EventStream {
    pub(super) fn new(lines: Lines) -> Self {
        Self { lines, id: None, begun_id: None, event: None, data: None }
    }

    /// Returns the id after which [`Client::events`](crate::Client::events) resumes the stream. The
    /// id also advances without events.
    pub fn last_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Waits for the next event, or returns `None` when the node ends the stream, for example
    /// because the node stops. Cancelling the call loses no event.
    ///
    /// Fails with [`ClientError::Problem`] if the node cannot continue the stream.
    pub async fn next(&mut self) -> Option<Result<ServerEvent, ClientError>> {
        loop {
            match self.lines.next().await? {
                Ok(line) => {
                    if let Some(event) = self.line(&line) {
                        return Some(event);
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Parses a line. An empty line ends an event.
    fn line(&mut self, line: &str) -> Option<Result<ServerEvent, ClientError>> {
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.begun_id = Some(value.to_owned()),
            "event" => self.event = Some(value.to_owned()),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Result<ServerEvent, ClientError>> {
        if let Some(id) = self.begun_id.take() {
            self.id = Some(id);
        }
        let (event, data) = (self.event.take().unwrap_or_else(|| "message".to_owned()), self.data.take()?);
        let broken = |lines: &mut Lines, error: serde_json::Error| lines.broken(error.to_string());
        if event == "problem" {
            return Some(Err(match serde_json::from_str(&data) {
                Ok(document) => ClientError::Problem(Box::new(document)),
                Err(error) => broken(&mut self.lines, error),
            }));
        }
        match serde_json::from_str(&data) {
            Ok(value) => Some(Ok(ServerEvent { id: self.id.clone(), event, data: value, text: data })),
            Err(error) => Some(Err(broken(&mut self.lines, error))),
        }
    }
}
