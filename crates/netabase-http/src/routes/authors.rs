//! The authors of the stored records, and the list of refused ones.

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use netabase::Author;
use netabase::netabase_store::replica::{Discarded, Usage};
use netabase_client::media::JSON;
use serde_json::{Value, json};

use crate::app::{App, Shared};
use crate::body::{blocking, ok, require_accept};
use crate::params;
use crate::problem::{Answer, Problem};
use crate::routes::Path;

/// The most listed authors whose new records came too fast.
const LISTED_FAST_AUTHORS: usize = 16;

/// Lists the authors with the most bytes, the refused authors, and those whose new records came too
/// fast.
pub(crate) async fn list(State(app): State<Shared>, headers: HeaderMap, uri: Uri) -> Answer {
    params::none(&uri)?;
    require_accept(&headers, JSON)?;
    let authors = largest(&app).await?;
    ok(&json!({
        "authors": authors.iter().map(|(author, usage)| author_json(&app, *author, usage)).collect::<Vec<_>>(),
        "refused": app.node.refused_authors().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "fast": fast(&app),
        "max_author_bytes": app.node.config().store.max_author_bytes,
        "records_per_second": app.node.config().author_records_per_second,
    }))
}

/// Returns the authors whose new records came too fast, the largest first.
fn fast(app: &App) -> Vec<Value> {
    let fast = app.node.fast_authors().into_iter().take(LISTED_FAST_AUTHORS);
    fast.map(|(author, refused)| json!({ "author": author.to_string(), "refused": refused })).collect()
}

/// Refuses the records of an author from now on.
pub(crate) async fn refuse(State(app): State<Shared>, path: Path, headers: HeaderMap, uri: Uri) -> Answer {
    let author = asked(&path, &headers, &uri)?;
    let changed = app.node.refuse_author(author).await?;
    ok(&json!({ "author": author.to_string(), "refused": true, "changed": changed }))
}

/// Takes records of an author again.
pub(crate) async fn allow(State(app): State<Shared>, path: Path, headers: HeaderMap, uri: Uri) -> Answer {
    let author = asked(&path, &headers, &uri)?;
    let changed = app.node.allow_author(author).await?;
    ok(&json!({ "author": author.to_string(), "refused": false, "changed": changed }))
}

/// Removes the records of an author from this node.
pub(crate) async fn remove(State(app): State<Shared>, path: Path, headers: HeaderMap, uri: Uri) -> Answer {
    let author = asked(&path, &headers, &uri)?;
    let Discarded { records, tombstones, .. } = app.node.remove_author(author).await?;
    let refused = app.node.refused_authors().contains(&author);
    ok(&json!({
        "author": author.to_string(),
        "refused": refused,
        "records": records,
        "tombstones": tombstones,
    }))
}

/// Returns the authors with the largest usage; records of several authors are left out.
pub(crate) async fn largest(app: &App) -> Answer<Vec<(Author, Usage)>> {
    let store = app.node.store().clone();
    let mut authors = blocking(move || store.replica().largest_authors()).await??;
    authors.retain(|(author, _)| *author != Author::from_bytes([0; 32]));
    Ok(authors)
}

pub(crate) fn author_json(app: &App, author: Author, usage: &Usage) -> Value {
    json!({
        "author": author.to_string(),
        "own": app.node.store().author() == Some(author),
        "refused": app.node.refused_authors().contains(&author),
        "records": usage.records,
        "tombstones": usage.tombstones,
        "bytes": usage.bytes(),
    })
}

/// Returns the author in the path of a request without parameters and body.
fn asked(path: &Path, headers: &HeaderMap, uri: &Uri) -> Answer<Author> {
    params::none(uri)?;
    require_accept(headers, JSON)?;
    let author = path.part("author")?.parse();
    author.map_err(|_| Problem::parameter("author", "must be a public key of 64 hexadecimal digits"))
}
