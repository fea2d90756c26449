//! Problem documents (RFC 9457), with which failed requests are answered.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use netabase::netabase_store::ValueError;
use netabase::netabase_store::WriteError;
use netabase::netabase_store::admin::AdminError;
use netabase::netabase_store::changes::HistoryError;
use netabase::netabase_store::text;
use netabase::{NetabaseError, StoreError};
use netabase_client::media::PROBLEM_JSON;
use serde_json::json;

macro_rules! kinds {
    ($($(#[doc = $meaning:literal])+ $kind:ident $status:literal $slug:literal $title:literal;)+) => {
        /// A kind of problem. Slugs are stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum Kind {
            $($(#[doc = $meaning])+ $kind,)+
        }

        impl Kind {
            /// All kinds.
            pub(crate) const ALL: &[Self] = &[$(Self::$kind),+];

            /// Returns the status, the last part of the `type`, the title and the explanation.
            pub(crate) fn parts(self) -> (StatusCode, &'static str, &'static str, &'static str) {
                let (status, slug, title, meaning): (u16, _, _, _) = match self {
                    $(Self::$kind => ($status, $slug, $title, concat!($($meaning),+)),)+
                };
                (StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), slug, title, meaning.trim())
            }
        }
    };
}

kinds! {
    /// A parameter of the path, the query string or a header is invalid.
    BadParameter 400 "bad-parameter" "A parameter is not valid";
    /// The body is not JSON.
    NotJson 400 "not-json" "The body is not JSON";
    /// The node requires a token, and the request has none or a wrong one.
    Unauthorized 401 "unauthorized" "A token is needed";
    /// The `Host` of the request is not a name of this node, as in DNS rebinding by a foreign page.
    ForeignHost 403 "foreign-host" "The node has another name";
    /// A page of another origin sent the request.
    ForeignOrigin 403 "foreign-origin" "Another origin may not change anything";
    /// The policy of the model or the member list does not allow this node to write the record, or
    /// the author cannot be refused.
    NotAllowed 403 "not-allowed" "The record may not be written here";
    /// The path does not exist.
    NotFound 404 "not-found" "There is nothing here";
    /// The schema has no such model.
    UnknownModel 404 "unknown-model" "There is no such model";
    /// Neither this node nor a peer that was asked has the record.
    NoRecord 404 "no-record" "There is no such record";
    /// No peer of this name is connected or known.
    UnknownPeer 404 "unknown-peer" "There is no such peer";
    /// The path exists, but not for this method.
    MethodNotAllowed 405 "method-not-allowed" "The method is not for this path";
    /// The request accepts none of the media types of the answer.
    NotAcceptable 406 "not-acceptable" "No accepted media type";
    /// The request was not sent in time.
    TooSlow 408 "too-slow" "The request was not sent in time";
    /// The value of a unique key belongs to another record.
    NotUnique 409 "not-unique" "A unique key is taken";
    /// A later version of the application wrote the record.
    NewerRecord 409 "newer-record" "The record is of a later version";
    /// A file of this name already exists.
    Occupied 409 "occupied" "There already is a file";
    /// An operation of the same kind is in progress.
    Underway 409 "underway" "The work is under way already";
    /// The changes after this one are no longer kept, or the id belongs to a history that the
    /// database does not have. Read the records again, and follow the changes from now on.
    HistoryTrimmed 410 "history-trimmed" "The changes are no longer kept";
    /// The version of the record does not satisfy `If-Match` or `If-None-Match`.
    PreconditionFailed 412 "precondition-failed" "The record has another version";
    /// The body exceeds the limit of the node.
    TooLarge 413 "too-large" "The body is too large";
    /// The path does not accept the media type of the body.
    UnsupportedMediaType 415 "unsupported-media-type" "The body has another media type";
    /// The body is JSON, but not a valid value of the model or request.
    InvalidValue 422 "invalid-value" "The value does not fit";
    /// The primary key in the value differs from the key of the request.
    KeyMismatch 409 "key-mismatch" "The value has another key";
    /// The client sends more requests than its rate allows.
    TooManyRequests 429 "too-many-requests" "Too many requests";
    /// The node failed in a way that is a bug.
    Internal 500 "internal" "An internal error";
    /// The database failed, or has stopped writing after a failure.
    StoreFailed 500 "store-failed" "The database failed";
    /// The storage backend cannot do this.
    Unsupported 501 "unsupported" "The storage backend cannot do this";
    /// The request needs the network, which is not running.
    NotRunning 503 "not-running" "The network is not running";
    /// No peer that could answer is known or reachable.
    NoPeers 503 "no-peers" "No peer can be asked";
    /// The node could not connect to the peer. The detail names the error of each address.
    NotReached 503 "not-reached" "The peer was not reached";
    /// The limit of open streams of events is reached.
    TooManyStreams 503 "too-many-streams" "Too many streams are open";
    /// All connections have a request in progress, or answers that clients have not read yet take
    /// all the memory for them.
    Busy 503 "busy" "Too much is under way";
    /// The node is shutting down.
    Stopping 503 "stopping" "The node is stopping";
    /// The network did not answer in time.
    Timeout 504 "timeout" "The network did not answer in time";
}

impl Kind {
    pub(crate) fn status(self) -> StatusCode {
        self.parts().0
    }

    pub(crate) fn slug(self) -> &'static str {
        self.parts().1
    }

    fn of_write(error: &WriteError) -> Self {
        match error {
            WriteError::ValueTooLarge { .. } | WriteError::ContributionTooLarge { .. } => Self::TooLarge,
            WriteError::IndexKeyTooLong { .. }
            | WriteError::TooManyIndexKeys { .. }
            | WriteError::TooManyBlobs { .. } => Self::InvalidValue,
            WriteError::Conflict { .. } | WriteError::Exists { .. } => Self::PreconditionFailed,
            WriteError::NotOwner { .. }
            | WriteError::NotMember { .. }
            | WriteError::IdentityShared { .. }
            | WriteError::NeededAuthor { .. }
            | WriteError::TooManyRefusedAuthors => Self::NotAllowed,
            WriteError::NotUnique { .. } => Self::NotUnique,
            WriteError::NewerRecord { .. } => Self::NewerRecord,
            _ => Self::StoreFailed,
        }
    }

    fn of_admin(error: &AdminError) -> Self {
        match error {
            AdminError::OwnFile { .. } => Self::InvalidValue,
            AdminError::Occupied { .. } => Self::Occupied,
            AdminError::InUse => Self::Underway,
            AdminError::Stopped => Self::Stopping,
            _ => Self::StoreFailed,
        }
    }
}

/// A problem of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    pub(crate) detail: String,
    /// The number of seconds after which the client may try again.
    pub(crate) retry_after: Option<u64>,
}

/// The result of a handler.
pub(crate) type Answer<T = Response> = Result<T, Problem>;

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), retry_after: None }
    }

    pub(crate) fn parameter(name: &str, detail: impl std::fmt::Display) -> Self {
        Self::new(Kind::BadParameter, format!("`{name}` {detail}"))
    }

    pub(crate) fn internal(error: impl std::fmt::Display) -> Self {
        Self::new(Kind::Internal, error.to_string())
    }

    pub(crate) fn busy(detail: &str) -> Self {
        Self::new(Kind::Busy, detail).retry_after(10)
    }

    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// Returns the document.
    pub(crate) fn document(&self) -> String {
        let (status, slug, title, _) = self.kind.parts();
        let document = json!({
            "type": format!("/problems/{slug}"),
            "title": title,
            "status": status.as_u16(),
            "detail": self.detail,
        });
        text::json(&document.to_string()).into_owned()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.document()));
        *response.status_mut() = self.kind.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.kind == Kind::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Write(error) => Kind::of_write(error),
            StoreError::Admin(error) => Kind::of_admin(error),
            StoreError::History(HistoryError::NotKept) | StoreError::Unsupported { .. } => Kind::Unsupported,
            StoreError::History(_) => Kind::HistoryTrimmed,
            StoreError::Cursor(_) => Kind::BadParameter,
            StoreError::RecordKey(_) | StoreError::Value(_) | StoreError::Import(_) => Kind::InvalidValue,
            _ => Kind::StoreFailed,
        };
        // The failure after which the store refuses writes was logged when it happened.
        if kind == Kind::StoreFailed && !matches!(error, StoreError::Poisoned(_)) {
            tracing::error!(error = netabase_client::error_chain(&error), "a request failed in the store");
        }
        Self::new(kind, netabase_client::error_chain(&error))
    }
}

impl From<ValueError> for Problem {
    fn from(error: ValueError) -> Self {
        StoreError::from(error).into()
    }
}

impl From<NetabaseError> for Problem {
    fn from(error: NetabaseError) -> Self {
        let kind = match error {
            NetabaseError::Store(error) => return error.into(),
            NetabaseError::NotRunning => Kind::NotRunning,
            NetabaseError::Closed => Kind::Stopping,
            NetabaseError::Timeout { .. } => Kind::Timeout,
            NetabaseError::NotReached { .. } => Kind::NotReached,
            NetabaseError::OwnAddress { .. } => Kind::InvalidValue,
            NetabaseError::NoKnownPeers | NetabaseError::Unreachable { .. } => Kind::NoPeers,
            _ => Kind::Internal,
        };
        Self::new(kind, netabase_client::error_chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_has_a_slug_of_its_own_and_an_error_status() {
        let slugs: HashSet<_> = Kind::ALL.iter().map(|kind| kind.slug()).collect();
        assert_eq!(slugs.len(), Kind::ALL.len());
        assert!(
            Kind::ALL.iter().all(|kind| kind.status().is_client_error() || kind.status().is_server_error())
        );
    }
}
