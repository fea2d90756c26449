//! Operations on the records of the network that ask several peers and are answered once.
//!
//! A put, a get, a survey and a provide are state machines: they are told what has happened, and
//! return what is to be done next. They have no swarm, clock or channel; `event_loop::calls` carries
//! out what the first three want, and the advertiser what a provide wants. `respond` answers what
//! peers ask, and `answers` reads what they answer.

pub(crate) mod answers;
pub(crate) mod get;
pub(crate) mod provide;
pub(crate) mod put;
pub(crate) mod respond;
pub(crate) mod survey;
