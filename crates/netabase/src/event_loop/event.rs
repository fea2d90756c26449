//! The events of the swarm: a module per source, a short function per event.
//!
//! Each function reacts to its event and then sends it to the subscribers.

mod conduct;
mod connection;
mod identify;
mod kad;
#[cfg_attr(all(target_family = "wasm", target_os = "unknown"), path = "event/mdns/browser.rs")]
mod mdns;
mod ping;
mod rpc;
mod silence;
