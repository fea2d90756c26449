//! How records come to be where they should: published when they are written or due, repaired among
//! their holders, kept in sync where a scope is kept, sent live to those who follow, and advertised
//! to those who query.

#[cfg(test)]
pub(crate) mod absence_tests;
pub(crate) mod advertise;
pub(crate) mod live;
pub(crate) mod repair;
pub(crate) mod republish;
pub(crate) mod sync;
