//! Peers as a node knows them: their connections, what they say of themselves and of us, how they
//! behave, and whether they answer.

pub(crate) mod connections;
pub(crate) mod greeting;
#[cfg(test)]
mod greeting_tests;
pub(crate) mod members;
pub(crate) mod other_roots;
pub(crate) mod presence;
pub(crate) mod score;
pub(crate) mod silence;
pub(crate) mod standing;
