//! Operations on the records of the network that ask several peers and are answered once.
//!
//! A put, a get and a survey are state machines: they are told what has happened, and return what
//! is to be done next. They have no swarm, clock or channel; `event_loop::calls` carries out what
//! they want. `respond` answers what peers ask.

pub(crate) mod answers;
pub(crate) mod get;
pub(crate) mod put;
pub(crate) mod respond;
pub(crate) mod survey;
