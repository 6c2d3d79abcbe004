//! Asking openraft where whoever asks may be dropped: a peer hangs up, a deadline passes, a server stops.
//!
//! Invariant: a call into openraft that may be dropped is made through here, and is polled until it has its answer.
//!
//! When openraft's core ends, the first call that notices waits for the core's task, and all others wait for that call to
//! say so (`RaftInner::join_core_task` of 0.10.0-alpha.37). If it is dropped, nobody will, and every later call panics. A
//! node's own tasks need nothing of this: they are told to stop when openraft has ended.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{Stream, StreamExt as _};
use openraft::Raft;
use openraft::errors::Fatal;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use openraft::storage::RaftStateMachine;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::TypeConfig;

type C = TypeConfig;
type Appended = Result<StreamAppendResult<C>, Fatal<C>>;

/// Asks in a task of its own, one of `tasks`, which are to be waited for when openraft has ended.
pub async fn ask<T, E>(
    tasks: &TaskTracker,
    question: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Fatal<C>> + Send + 'static,
{
    match tasks.spawn(question).await {
        Ok(answer) => answer,
        Err(ended) if ended.is_panic() => Err(Fatal::Panicked.into()),
        // The runtime ends.
        Err(_) => Err(Fatal::Stopped.into()),
    }
}

/// Hands a leader's requests to openraft one after the other, and answers in their order. When it is dropped no more
/// requests are taken, and the answers to those under way are awaited in a task of its own.
pub struct Appending {
    answers: Option<Pin<Box<dyn Stream<Item = Appended> + Send>>>,
    end: CancellationToken,
    tasks: TaskTracker,
}

impl Appending {
    /// Begins at once. `tasks` are to be waited for when openraft has ended.
    pub fn new<SM>(
        raft: &Raft<C, SM>,
        tasks: TaskTracker,
        requests: impl Stream<Item = AppendEntriesRequest<C>> + Send + 'static,
    ) -> Self
    where
        SM: RaftStateMachine<C>,
    {
        let end = CancellationToken::new();
        let answers = raft.stream_append(requests.take_until(end.clone().cancelled_owned()));
        Self {
            answers: Some(Box::pin(answers)),
            end,
            tasks,
        }
    }
}

impl Stream for Appending {
    type Item = Appended;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Appended>> {
        let Some(answers) = &mut self.answers else {
            return Poll::Ready(None);
        };
        let answer = answers.as_mut().poll_next(context);
        if matches!(answer, Poll::Ready(None)) {
            self.answers = None;
        }
        answer
    }
}

impl Drop for Appending {
    fn drop(&mut self) {
        self.end.cancel();
        if let Some(answers) = self.answers.take() {
            self.tasks
                .spawn(answers.for_each(|_| std::future::ready(())));
        }
    }
}
