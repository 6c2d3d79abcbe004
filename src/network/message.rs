//! openraft's requests and answers as messages, and back. Entries, votes and log ids are `raft::wire`'s.

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tonic::Status;

use super::Error;
use super::envelope::bad_message;
use crate::clock::Testimony;
use crate::proto::internal as pb;
use crate::proto::internal::append_response::Result as AppendResult;
use crate::proto::internal::transfer_response::Refused;
use crate::raft::{Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig, Vote};
use crate::types::{LogTime, NodeId};

type C = TypeConfig;

/// The id of the last entry that a request brings its receiver to.
fn last_log_id(request: &AppendEntriesRequest<C>) -> Option<LogId> {
    request
        .entries
        .last()
        .map(|entry| entry.log_id)
        .or(request.prev_log_id)
}

/// A request of a leader whose log clock shows `leader_time`, if it knows log time.
pub(super) fn append_request(
    request: &AppendEntriesRequest<C>,
    envelope: Option<pb::Envelope>,
    leader_time: Option<LogTime>,
) -> pb::AppendRequest {
    pb::AppendRequest {
        envelope,
        vote: Some(request.vote.into()),
        prev_log_id: request.prev_log_id.map(Into::into),
        leader_commit: request.leader_commit.map(Into::into),
        entries: request.entries.iter().map(Into::into).collect(),
        leader_time: millis(leader_time),
    }
}

/// Decodes each command once; what does not decode is the fault of `source`.
pub(super) fn append_from(
    request: pb::AppendRequest,
    source: NodeId,
) -> Result<AppendEntriesRequest<C>, Status> {
    let entries = request
        .entries
        .into_iter()
        .map(|entry| Entry::try_from(entry).map_err(bad_message))
        .collect::<Result<Vec<_>, _>>()?;
    let request = AppendEntriesRequest {
        vote: vote_from(request.vote, source)?,
        prev_log_id: request.prev_log_id.map(Into::into),
        leader_commit: request.leader_commit.map(Into::into),
        entries,
    };
    check_consecutive(&request)?;
    Ok(request)
}

/// openraft takes it for granted that entries follow each other, and that an established leader sends them.
fn check_consecutive(request: &AppendEntriesRequest<C>) -> Result<(), Status> {
    if !request.vote.committed {
        return Err(bad_message("an append without an established leader"));
    }
    let mut expected = request
        .prev_log_id
        .map_or(0, |id| id.index.saturating_add(1));
    for entry in &request.entries {
        if entry.log_id.index != expected {
            return Err(bad_message(format!(
                "entry {} where {expected} was due",
                entry.log_id.index
            )));
        }
        if entry.log_id.leader_id > request.vote.leader_id {
            return Err(bad_message("an entry from beyond its sender's term"));
        }
        expected = expected.saturating_add(1);
    }
    Ok(())
}

pub(super) fn append_response(result: &StreamAppendResult<C>) -> pb::AppendResponse {
    let result = match result {
        Ok(last) => AppendResult::Accepted(pb::Accepted {
            last_log_id: last.map(Into::into),
        }),
        Err(StreamAppendError::Conflict(id)) => AppendResult::Conflict((*id).into()),
        Err(StreamAppendError::HigherVote(vote)) => AppendResult::HigherVote((*vote).into()),
    };
    pb::AppendResponse {
        result: Some(result),
        ..pb::AppendResponse::default()
    }
}

pub(super) fn append_result(response: pb::AppendResponse) -> Result<StreamAppendResult<C>, Error> {
    match response.result {
        Some(AppendResult::Accepted(accepted)) => Ok(Ok(accepted.last_log_id.map(Into::into))),
        Some(AppendResult::Conflict(id)) => Ok(Err(StreamAppendError::Conflict(id.into()))),
        Some(AppendResult::HigherVote(vote)) => Ok(Err(StreamAppendError::HigherVote(vote.into()))),
        None => Err(lacking("result of an append")),
    }
}

/// The answer to a unary append in openraft's form. A conflict without a previous log id makes no sense, and
/// openraft would panic on it.
pub(super) fn append_unary_result(
    request: &AppendEntriesRequest<C>,
    response: pb::AppendResponse,
) -> Result<AppendEntriesResponse<C>, Error> {
    match append_result(response)? {
        Ok(last) if last == last_log_id(request) => Ok(AppendEntriesResponse::Success),
        Ok(last) => Ok(AppendEntriesResponse::PartialSuccess(last)),
        Err(StreamAppendError::HigherVote(vote)) => Ok(AppendEntriesResponse::HigherVote(vote)),
        Err(StreamAppendError::Conflict(_)) if request.prev_log_id.is_some() => {
            Ok(AppendEntriesResponse::Conflict)
        }
        Err(StreamAppendError::Conflict(_)) => Err(Error::Failed(
            "a conflict where there is nothing to conflict with".to_owned(),
        )),
    }
}

/// What openraft answered to `last` and `prev` of a unary append.
pub(super) fn append_unary_response(
    last: Option<LogId>,
    prev: Option<LogId>,
    response: AppendEntriesResponse<C>,
) -> pb::AppendResponse {
    let result = match (response, prev) {
        (AppendEntriesResponse::Success, _) => Ok(last),
        (AppendEntriesResponse::PartialSuccess(last), _) => Ok(last),
        (AppendEntriesResponse::HigherVote(vote), _) => Err(StreamAppendError::HigherVote(vote)),
        (AppendEntriesResponse::Conflict, Some(prev)) => Err(StreamAppendError::Conflict(prev)),
        (AppendEntriesResponse::Conflict, None) => Ok(None),
    };
    append_response(&result)
}

/// The ends of a request's range, for [`append_unary_response`].
pub(super) fn range(request: &AppendEntriesRequest<C>) -> (Option<LogId>, Option<LogId>) {
    (last_log_id(request), request.prev_log_id)
}

pub(super) fn vote_request(request: &VoteRequest<C>, envelope: pb::Envelope) -> pb::VoteRequest {
    pb::VoteRequest {
        envelope: Some(envelope),
        vote: Some(request.vote.into()),
        last_log_id: request.last_log_id.map(Into::into),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(super) fn vote_request_from(
    request: &pb::VoteRequest,
    source: NodeId,
) -> Result<VoteRequest<C>, Status> {
    let vote = vote_from(request.vote, source)?;
    if vote.committed {
        return Err(bad_message("a candidate with an established vote"));
    }
    let mut vote = VoteRequest::new(vote, request.last_log_id.map(Into::into));
    vote.leadership_transfer = request.leadership_transfer;
    Ok(vote)
}

/// 0 says nothing.
fn millis(time: Option<LogTime>) -> u64 {
    time.map_or(0, LogTime::as_millis)
}

pub(super) fn vote_response(response: &VoteResponse<C>, testimony: Testimony) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(response.vote.into()),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.map(Into::into),
        log_time: millis(testimony.log_time),
        wall_time: millis(testimony.wall_time),
    }
}

/// What the answer to a candidate says of time.
pub(super) fn testimony(response: &pb::VoteResponse) -> Testimony {
    let time = |millis: u64| (millis > 0).then(|| LogTime::from_millis(millis));
    Testimony {
        log_time: time(response.log_time),
        wall_time: time(response.wall_time),
    }
}

pub(super) fn vote_response_from(response: pb::VoteResponse) -> Result<VoteResponse<C>, Error> {
    let vote = response.vote.ok_or_else(|| lacking("vote"))?;
    Ok(VoteResponse::new(
        Vote::from(vote),
        response.last_log_id.map(Into::into),
        response.granted,
    ))
}

pub(super) fn transfer_request(
    request: &TransferLeaderRequest<C>,
    envelope: pb::Envelope,
) -> pb::TransferRequest {
    pb::TransferRequest {
        envelope: Some(envelope),
        from_leader: Some((*request.from_leader()).into()),
        last_log_id: request.last_log_id().copied().map(Into::into),
        to_node_id: *request.to_node_id(),
    }
}

pub(super) fn transfer_request_from(
    request: &pb::TransferRequest,
    source: NodeId,
) -> Result<TransferLeaderRequest<C>, Status> {
    Ok(TransferLeaderRequest::new(
        vote_from(request.from_leader, source)?,
        request.to_node_id,
        request.last_log_id.map(Into::into),
    ))
}

pub(super) fn transfer_response(response: TransferLeaderResponse<C>) -> pb::TransferResponse {
    let refused = response.err().map(|error| match error {
        TransferLeaderError::VoteChanged { actual, .. } => Refused::VoteChanged(actual.into()),
        TransferLeaderError::LogNotFlushed { actual, .. } => Refused::LogNotFlushed(pb::Accepted {
            last_log_id: actual.map(Into::into),
        }),
    });
    pb::TransferResponse { refused }
}

pub(super) fn transfer_response_from(
    request: &TransferLeaderRequest<C>,
    response: pb::TransferResponse,
) -> TransferLeaderResponse<C> {
    match response.refused {
        None => Ok(()),
        Some(Refused::VoteChanged(actual)) => Err(TransferLeaderError::VoteChanged {
            expected: *request.from_leader(),
            actual: actual.into(),
        }),
        Some(Refused::LogNotFlushed(actual)) => Err(TransferLeaderError::LogNotFlushed {
            expected: request.last_log_id().copied(),
            actual: actual.last_log_id.map(Into::into),
        }),
    }
}

/// A manifest's log position and membership.
pub(super) fn snapshot_meta(manifest: &pb::SnapshotManifest) -> Result<SnapshotMeta, Status> {
    let membership = manifest
        .membership
        .clone()
        .ok_or_else(|| bad_message("a snapshot without membership"))?;
    Ok(SnapshotMeta {
        last_log_id: manifest.last_log_id.map(Into::into),
        last_membership: StoredMembership::try_from(membership).map_err(bad_message)?,
    })
}

/// The vote of a request. Nodes send their own only: one under another's name, this node's above all, would make
/// openraft believe in a leader that was never elected.
pub(super) fn vote_from(vote: Option<pb::Vote>, source: NodeId) -> Result<Vote, Status> {
    let vote = vote.ok_or_else(|| bad_message("the vote is missing"))?;
    if vote.node_id != source.get() {
        return Err(bad_message(format!(
            "node {source} sends a vote of node {}",
            vote.node_id
        )));
    }
    Ok(vote.into())
}

pub(super) fn lacking(what: &str) -> Error {
    Error::Failed(format!("its answer lacks the {what}"))
}
