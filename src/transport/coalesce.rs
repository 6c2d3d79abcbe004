//! Answers that are ready together leave in one system call.
//!
//! HTTP/2 flushes whenever its connection runs out of frames, and also after every data frame over 256 bytes when it is told
//! that the socket gathers. A node that finishes two hundred calls at once thus writes two hundred times, at five
//! microseconds each, on connections that carry single calls: more than it spends on the calls themselves.
//!
//! [`Coalescing`] keeps what is written, and on the first flush lets the tasks that are ready run once before it writes:
//! what they add leaves with it. Whoever is alone on the machine loses a turn of the scheduler, which is less than a
//! microsecond; nothing waits for a timer.
//!
//! Invariants:
//! 1. Bytes leave in the order in which they were written, each once.
//! 2. A flush is ready only when nothing is kept. One that gives way has woken its task: it is never forgotten.
//! 3. It gives way once for what is kept, and not at all for more than [`ENOUGH_BYTES`], which is worth a system call.
//! 4. At most [`KEPT_BYTES`] are kept, and no memory while nothing is.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use super::places::Places;

/// A write that would make more of it goes out at once, together with what is kept.
const KEPT_BYTES: usize = 16 << 10;
/// So much does not wait for company.
const ENOUGH_BYTES: usize = 4 << 10;

/// A connection that gathers small writes.
#[derive(Debug)]
pub struct Coalescing<T> {
    io: T,
    kept: BytesMut,
    /// The other tasks had their turn since something was kept.
    gave_way: bool,
    /// Bytes that came in, for whoever wants to know.
    received: Option<Arc<AtomicU64>>,
}

impl<T> Coalescing<T> {
    /// Around a connection that nothing was written to.
    #[must_use]
    pub fn new(io: T) -> Self {
        Self {
            io,
            kept: BytesMut::new(),
            gave_way: false,
            received: None,
        }
    }

    /// The same, and the bytes that come in are added up here.
    #[must_use]
    pub fn counting(io: T, received: Arc<AtomicU64>) -> Self {
        Self {
            received: Some(received),
            ..Self::new(io)
        }
    }
}

impl<T: AsyncWrite + Unpin> Coalescing<T> {
    /// Writes what is kept.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.kept))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.kept.advance(written);
        }
        self.forget();
        Poll::Ready(Ok(()))
    }

    /// Nothing is kept any more.
    fn forget(&mut self) {
        self.kept = BytesMut::new();
        self.gave_way = false;
    }

    /// Whether it is time for the other tasks.
    fn gives_way(&mut self, cx: &Context<'_>) -> bool {
        if self.gave_way || self.kept.is_empty() || self.kept.len() >= ENOUGH_BYTES {
            return false;
        }
        self.gave_way = true;
        // A task that wakes itself goes to the end of the queue.
        cx.waker().wake_by_ref();
        true
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Coalescing<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        while this.kept.len() + bytes.len() > KEPT_BYTES {
            let both = [IoSlice::new(&this.kept), IoSlice::new(bytes)];
            let both = if this.kept.is_empty() {
                &both[1..]
            } else {
                &both[..]
            };
            let written = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, both))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let kept = this.kept.len().min(written);
            this.kept.advance(kept);
            if written > kept {
                this.forget();
                return Poll::Ready(Ok(written - kept));
            }
        }
        if this.kept.is_empty() {
            this.kept.reserve(KEPT_BYTES);
        }
        this.kept.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.gives_way(cx) {
            return Poll::Pending;
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }

    /// It gathers by itself. To whom it would say yes, it would have to answer each flush in between.
    fn is_write_vectored(&self) -> bool {
        false
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Coalescing<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
        if let Some(received) = &this.received {
            let read = buffer.filled().len() - before;
            received.fetch_add(read as u64, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T> Connected for Coalescing<T> {
    type ConnectInfo = Places;

    /// What calls are told of their connection. It is asked once for each.
    fn connect_info(&self) -> Places {
        Places::of_connection()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};

    use proptest::prelude::*;

    use super::*;

    /// A socket that writes down what each system call brought, and takes no more than it is told.
    #[derive(Default)]
    struct Socket {
        calls: Vec<Vec<u8>>,
        /// How many bytes the next calls take; 0 for "not now". After the last, all there are.
        room: VecDeque<usize>,
        is_shut_down: bool,
    }

    impl Socket {
        fn bytes(&self) -> Vec<u8> {
            self.calls.concat()
        }
    }

    impl AsyncWrite for Socket {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let mut bytes: Vec<u8> = slices
                .iter()
                .flat_map(|slice| slice.iter().copied())
                .collect();
            match self.room.pop_front() {
                Some(0) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(room) => bytes.truncate(room),
                None => {}
            }
            let taken = bytes.len();
            self.calls.push(bytes);
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.is_shut_down = true;
            Poll::Ready(Ok(()))
        }
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A connection that is polled by hand, and the number of times that its task was woken.
    struct Task {
        connection: Coalescing<Socket>,
        wakes: Arc<Wakes>,
        waker: Waker,
    }

    impl Task {
        fn new(room: impl IntoIterator<Item = usize>) -> Self {
            let wakes = Arc::<Wakes>::default();
            let socket = Socket {
                room: room.into_iter().collect(),
                ..Socket::default()
            };
            Self {
                connection: Coalescing::new(socket),
                waker: Arc::clone(&wakes).into(),
                wakes,
            }
        }

        fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let mut cx = Context::from_waker(&self.waker);
            Pin::new(&mut self.connection).poll_write(&mut cx, bytes)
        }

        fn flush(&mut self) -> Poll<io::Result<()>> {
            let mut cx = Context::from_waker(&self.waker);
            Pin::new(&mut self.connection).poll_flush(&mut cx)
        }

        /// Writes all of it, however often the socket says "not now".
        fn write_all(&mut self, mut bytes: &[u8]) {
            while !bytes.is_empty() {
                if let Poll::Ready(written) = self.write(bytes) {
                    bytes = &bytes[written.expect("the socket has no errors")..];
                }
            }
        }

        fn flush_all(&mut self) {
            while self.flush().is_pending() {}
        }

        fn wakes(&self) -> usize {
            self.wakes.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn what_is_added_while_it_gives_way_leaves_in_the_same_call() {
        let mut task = Task::new([]);
        task.write_all(b"one");
        assert!(task.flush().is_pending(), "it gives way");
        assert_eq!(task.wakes(), 1, "and comes back by itself");
        task.write_all(b"two");
        assert!(task.flush().is_ready(), "once");
        assert_eq!(task.connection.io.calls, [b"onetwo"]);

        task.write_all(b"three");
        assert!(task.flush().is_pending(), "once for each lot");
        assert!(task.flush().is_ready());
        assert_eq!(task.connection.io.calls, [&b"onetwo"[..], b"three"]);
        assert!(task.flush().is_ready(), "and not for nothing");
        assert_eq!(task.wakes(), 2);
    }

    #[test]
    fn a_lot_that_is_worth_a_call_does_not_give_way() {
        let mut task = Task::new([]);
        task.write_all(&[7; ENOUGH_BYTES]);
        assert!(task.flush().is_ready());
        assert_eq!(task.connection.io.calls.len(), 1);
        assert_eq!(task.wakes(), 0);
    }

    #[test]
    fn a_large_write_takes_what_is_kept_along() {
        let mut task = Task::new([]);
        task.write_all(b"head");
        let body = [7; KEPT_BYTES];
        task.write_all(&body);
        let call = [&b"head"[..], &body].concat();
        assert_eq!(task.connection.io.calls, [call], "in one call");
        assert!(task.connection.kept.capacity() == 0, "nothing stays behind");
    }

    #[test]
    fn a_shutdown_writes_what_is_kept_first() {
        let mut task = Task::new([0, 2]);
        task.write_all(b"last");
        let mut cx = Context::from_waker(&task.waker);
        assert!(
            Pin::new(&mut task.connection)
                .poll_shutdown(&mut cx)
                .is_pending()
        );
        assert!(!task.connection.io.is_shut_down);
        assert!(
            Pin::new(&mut task.connection)
                .poll_shutdown(&mut cx)
                .is_ready()
        );
        assert_eq!(task.connection.io.bytes(), b"last");
        assert!(task.connection.io.is_shut_down);
    }

    proptest! {
        /// Whatever the sizes are, and whatever the socket takes at a time.
        #[test]
        fn bytes_leave_once_and_in_order(
            steps in prop::collection::vec((0_usize..3 * KEPT_BYTES, any::<bool>()), 1..12),
            room in prop::collection::vec(0_usize..2 * KEPT_BYTES, 0..40),
        ) {
            let mut task = Task::new(room);
            let mut written = Vec::new();
            for (length, flushes) in steps {
                let bytes: Vec<u8> = (written.len()..written.len() + length)
                    .map(|position| u8::try_from(position % 251).expect("it is less"))
                    .collect();
                task.write_all(&bytes);
                written.extend(bytes);
                if flushes {
                    task.flush_all();
                    prop_assert_eq!(&task.connection.io.bytes(), &written);
                }
            }
            task.flush_all();
            prop_assert_eq!(task.connection.io.bytes(), written);
        }
    }
}
