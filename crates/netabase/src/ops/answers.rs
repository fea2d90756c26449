//! Decoding of answers to single-key questions, for gets, surveys, live notices and confirmations
//! of queries.

use crate::outcome::VersionId;
use crate::protocol::record::Response;
use crate::rpc::frame::{Frame, MEANINGLESS};
use crate::rpc::outbox::Silence;

/// Returns the copies in the answer to a get of `count` keys, in their order: as many as fitted,
/// with `None` for a record that the peer does not have.
pub(crate) fn copies(answer: &Frame, count: usize) -> Result<Vec<Option<&[u8]>>, Silence> {
    match response_in(answer)? {
        Response::Get(copies) if copies.len() <= count => Ok(copies),
        other => Err(silence_of(&other)),
    }
}

/// Returns the versions in the answer to a question for those of `count` keys, in their order.
pub(crate) fn versions(answer: &Frame, count: usize) -> Result<Vec<Option<VersionId>>, Silence> {
    match response_in(answer)? {
        Response::Versions(versions) if versions.len() <= count => Ok(versions),
        other => Err(silence_of(&other)),
    }
}

/// Returns the answer to a get of one key.
pub(crate) fn copy(answer: &Result<Frame, Silence>) -> Result<Option<&[u8]>, Silence> {
    only(copies(answer.as_ref().map_err(Clone::clone)?, 1)?)
}

/// Returns the answer to a question for the version under one key.
pub(crate) fn version(answer: &Result<Frame, Silence>) -> Result<Option<VersionId>, Silence> {
    only(versions(answer.as_ref().map_err(Clone::clone)?, 1)?)
}

fn only<T>(answers: Vec<Option<T>>) -> Result<Option<T>, Silence> {
    answers.into_iter().next().ok_or_else(|| Silence::Unreachable(MEANINGLESS.into()))
}

fn response_in(answer: &Frame) -> Result<Response<'_>, Silence> {
    let response = answer.bytes().ok().and_then(|bytes| Response::decode(bytes).ok());
    response.ok_or_else(|| Silence::Unreachable(MEANINGLESS.into()))
}

/// Returns the reason why a response is no answer to the question.
fn silence_of(response: &Response<'_>) -> Silence {
    Silence::Unreachable(match response {
        Response::Failure(failure) => failure.text().into(),
        _ => MEANINGLESS.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::record::{Failure, GetResponse};

    fn answer(copies: &[Option<&[u8]>]) -> Frame {
        let mut response = GetResponse::new(1 << 20);
        assert!(copies.iter().all(|copy| response.push(*copy)));
        Frame::new(response.finish())
    }

    #[test]
    fn an_answer_has_no_more_copies_than_were_asked_for() {
        let two = answer(&[Some(b"one"), None]);
        assert_eq!(copies(&two, 3).unwrap(), [Some(&b"one"[..]), None]);
        assert!(copies(&two, 1).is_err());
        assert!(copy(&Ok(two)).is_err());
        assert_eq!(copy(&Ok(answer(&[None]))).unwrap(), None);
        assert!(copy(&Ok(answer(&[]))).is_err(), "the one copy is missing");
    }

    #[test]
    fn a_response_to_another_question_says_why() {
        let text = |result: Result<_, Silence>| result.map(drop).unwrap_err().to_string();
        let busy = Frame::new(Response::Failure(Failure::Busy).encode(1 << 20));
        assert!(text(version(&Ok(busy))).contains(Failure::Busy.text()));
        assert!(text(version(&Ok(answer(&[None])))).contains(MEANINGLESS));
    }
}
