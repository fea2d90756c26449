//! The files of the dashboard.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;

use crate::problem::{Answer, Kind, Problem};
use crate::routes::Path;

/// The content security policy of the dashboard: no inline scripts, and no resources or requests
/// beyond this node.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
/// Browsers revalidate each file by its entity tag, and load it again only if it has changed.
const CACHING: HeaderValue = HeaderValue::from_static("no-cache");

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const INDEX: Asset = Asset::new("index.html", HTML, include_bytes!("../assets/index.html"));
const ASSETS: [Asset; 19] = [
    Asset::new("api.js", SCRIPT, include_bytes!("../assets/api.js")),
    Asset::new("app.js", SCRIPT, include_bytes!("../assets/app.js")),
    Asset::new("authors.js", SCRIPT, include_bytes!("../assets/authors.js")),
    Asset::new("colours.js", SCRIPT, include_bytes!("../assets/colours.js")),
    Asset::new("dom.js", SCRIPT, include_bytes!("../assets/dom.js")),
    Asset::new("events.js", SCRIPT, include_bytes!("../assets/events.js")),
    Asset::new("format.js", SCRIPT, include_bytes!("../assets/format.js")),
    Asset::new("graph.js", SCRIPT, include_bytes!("../assets/graph.js")),
    Asset::new("icon.svg", SVG, include_bytes!("../assets/icon.svg")),
    Asset::new("overview.js", SCRIPT, include_bytes!("../assets/overview.js")),
    Asset::new("peers.js", SCRIPT, include_bytes!("../assets/peers.js")),
    Asset::new("plots.js", SCRIPT, include_bytes!("../assets/plots.js")),
    Asset::new("record.js", SCRIPT, include_bytes!("../assets/record.js")),
    Asset::new("records.js", SCRIPT, include_bytes!("../assets/records.js")),
    Asset::new("shapes.js", SCRIPT, include_bytes!("../assets/shapes.js")),
    Asset::new("state.js", SCRIPT, include_bytes!("../assets/state.js")),
    Asset::new("style.css", CSS, include_bytes!("../assets/style.css")),
    Asset::new("theme.js", SCRIPT, include_bytes!("../assets/theme.js")),
    Asset::new("value.js", SCRIPT, include_bytes!("../assets/value.js")),
];

/// A file of the dashboard.
struct Asset {
    name: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

impl Asset {
    const fn new(name: &'static str, content_type: &'static str, bytes: &'static [u8]) -> Self {
        Self { name, content_type, bytes }
    }

    fn answer(&self, request: &HeaderMap) -> Answer {
        let tag = format!("\"{}\"", blake3::hash(self.bytes).to_hex());
        let known = request.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
        let is_known = known.is_some_and(|tags| tags.split(',').any(|one| one.trim() == tag));
        let mut response = Response::new(Body::empty());
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            *response.body_mut() = Body::from(self.bytes);
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
        headers.insert(header::CACHE_CONTROL, CACHING);
        headers.insert(header::ETAG, HeaderValue::try_from(tag).map_err(Problem::internal)?);
        Ok(response)
    }
}

/// Returns the page of the dashboard.
pub(crate) async fn index(headers: HeaderMap) -> Answer {
    INDEX.answer(&headers)
}

/// Returns a file that the page loads.
pub(crate) async fn asset(path: Path, headers: HeaderMap, uri: Uri) -> Answer {
    let name = path.part("name")?;
    let found = ASSETS.iter().find(|asset| asset.name == name);
    let missing = || Problem::new(Kind::NotFound, format!("there is nothing at {}", uri.path()));
    found.ok_or_else(missing)?.answer(&headers)
}

#[cfg(test)]
mod tests {
    use netabase::netabase_store::text;

    #[test]
    fn the_dashboard_and_the_store_hide_the_same_characters() {
        let script = include_str!("../assets/format.js");
        let (_, class) = script.split_once("/[\\u{").unwrap();
        let (class, _) = class.split_once("\\p{NChar}]/gu").unwrap();
        let mut points = class.split("\\u{").map(|point| point.split_once('}').unwrap());
        let parse = |point| u32::from_str_radix(point, 16).unwrap();
        let mut ranges = Vec::new();
        while let Some((first, rest)) = points.next() {
            let last = if rest == "-" { points.next().unwrap().0 } else { first };
            ranges.push(parse(first)..=parse(last));
        }
        let is_noncharacter = |point| matches!(point, 0xfdd0..=0xfdef) || point & 0xfffe == 0xfffe;
        for character in ('\0'..=char::MAX).filter(|character| !['\t', '\n'].contains(character)) {
            let point = u32::from(character);
            let is_hidden = ranges.iter().any(|range| range.contains(&point)) || is_noncharacter(point);
            assert_eq!(is_hidden, text::is_hidden(character), "{point:x}");
        }
        assert!(!ranges.iter().any(|range| range.contains(&9) || range.contains(&10)));
    }
}
