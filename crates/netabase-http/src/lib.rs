//! The HTTP interface of a Netabase node, for programs in any language.
//!
//! A [`Server`] serves a [`Node`](netabase::Node): records as JSON, pages of queries, live changes
//! as server-sent events, peers, status, metrics, imports, exports, backups and checks. It serves
//! its `OpenAPI` description at `/openapi.json`, and answers a request that fails with a problem
//! document (RFC 9457). `docs/http.md` is the guide, and `netabase-client` a client.
//!
//! ```
//! use netabase::{Netabase, NetabaseConfig, StoreOptions, netabase_definition_module};
//! use netabase_client::Client;
//! use netabase_http::{ApiConfig, Server};
//! # #[netabase_definition_module(ChatDefinition, ChatKeys)]
//! # mod chat {
//! #     use netabase::NetabaseModel;
//! #     use serde::{Deserialize, Serialize};
//! #     #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
//! #     #[netabase(ChatDefinition)]
//! #     pub struct Message { #[primary_key] pub id: String, pub text: String }
//! # }
//! # use chat::*;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let config = NetabaseConfig { store: StoreOptions::in_memory(), ..NetabaseConfig::default() };
//! let netabase = Netabase::<ChatDefinition>::new_with_config(config)?;
//! netabase.put_record(Message { id: "42".into(), text: "hello".into() }).await?;
//!
//! let api = ApiConfig { bind: ([127, 0, 0, 1], 0).into(), ..ApiConfig::default() };
//! let server = Server::bind(netabase.node().clone(), api).await?;
//! let client = Client::new(&format!("http://{}", server.local_addr()))?;
//! let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
//! let serving = tokio::spawn(server.run(async { stopped.await.unwrap_or_default() }));
//!
//! let answer = client.get("/v1/models/Message/records/42").await?;
//! assert_eq!(answer.json["value"]["text"], "hello");
//! drop(stop);
//! serving.await?;
//! # Ok(())
//! # }
//! ```

mod app;
mod assets;
mod body;
mod config;
mod floods;
mod guard;
mod keys;
mod limits;
mod network;
mod openapi;
mod params;
mod problem;
mod render;
mod routes;
mod server;
mod sse;
mod statistics;
mod time;
mod traces;

pub use config::{ApiConfig, DEFAULT_BIND, Limits, Rate};
pub use netabase_client::{MIN_TOKEN_BYTES, Token, TokenError};
pub use routes::transfer::import_report;
pub use server::{ServeError, Server, Serving, serve};

/// Runs the code of the guide.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/http.md")]
struct Guide;
