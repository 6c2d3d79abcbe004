//! openraft's watch channel: tokio's, but for the order in which waiters are woken.
//!
//! Tokio spreads waiters over several lists by chance, so that thousands of them do not meet at one lock. openraft has a
//! handful of waiters, and which of them runs first decides, among other things, what the next append to each follower
//! holds. Here they are woken in the order in which they began to wait, so that a simulated run can be had again.
//!
//! Invariants:
//! 1. Value, version and closing are tokio's. The bell only says that it is worth looking.
//! 2. Whoever waits hears the bell before it looks, so that nothing is missed in between.
//! 3. The bell rings after each change, and after a sender is gone.

use std::sync::Arc;

use futures::FutureExt as _;
use openraft::OptionalSend;
use openraft::rt::OptionalSync;
use openraft::rt::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender};
use tokio::sync::{Notify, watch};
use tokio::task::unconstrained;

/// See the module.
#[derive(Debug)]
pub struct OrderedWatch;

/// A sender. Cloning shares the channel.
#[derive(Debug)]
pub struct Sender<T> {
    values: watch::Sender<T>,
    bell: Bell,
}

/// A receiver, with a version that it has seen.
#[derive(Debug)]
pub struct Receiver<T> {
    values: watch::Receiver<T>,
    bell: Arc<Notify>,
}

/// Rings when it is dropped too: the sender that it belongs to is gone by then, since fields are dropped in order.
#[derive(Debug, Clone)]
struct Bell(Arc<Notify>);

impl Bell {
    fn ring(&self) {
        self.0.notify_waiters();
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.ring();
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self {
            values: self.values.clone(),
            bell: self.bell.clone(),
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self {
            values: self.values.clone(),
            bell: Arc::clone(&self.bell),
        }
    }
}

impl Watch for OrderedWatch {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = watch::Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = watch::channel(init);
        let bell = Arc::new(Notify::new());
        let sender = Sender {
            values: sender,
            bell: Bell(Arc::clone(&bell)),
        };
        let receiver = Receiver {
            values: receiver,
            bell,
        };
        (sender, receiver)
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<OrderedWatch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.values
            .send(value)
            .map_err(|refused| SendError(refused.0))?;
        self.bell.ring();
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        let is_modified = self.values.send_if_modified(modify);
        if is_modified {
            self.bell.ring();
        }
        is_modified
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.values.borrow()
    }

    fn subscribe(&self) -> Receiver<T> {
        Receiver {
            values: self.values.subscribe(),
            bell: Arc::clone(&self.bell.0),
        }
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<OrderedWatch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        loop {
            let rung = self.bell.notified();
            let mut rung = std::pin::pin!(rung);
            rung.as_mut().enable();
            // One look. A task that has used up its turn would be told nothing, and must hear what there is.
            if let Some(looked) = unconstrained(self.values.changed()).now_or_never() {
                return looked.map_err(|_| RecvError(()));
            }
            rung.await;
        }
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.values.borrow()
    }

    fn borrow_and_update(&mut self) -> watch::Ref<'_, T> {
        self.values.borrow_and_update()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio_util::task::TaskTracker;

    use super::*;

    /// By chance, tokio's order would be this one once in a great many times.
    #[tokio::test]
    async fn waiters_are_woken_in_the_order_in_which_they_wait() {
        let (sender, receiver) = OrderedWatch::channel(0);
        let woken = Arc::new(Mutex::new(Vec::new()));
        let tasks = TaskTracker::new();
        for number in 0..32 {
            let (mut receiver, woken) = (receiver.clone(), Arc::clone(&woken));
            tasks.spawn(async move {
                receiver.changed().await.expect("open");
                woken.lock().expect("no panic").push(number);
            });
        }
        tokio::task::yield_now().await;
        assert!(sender.send_if_modified(|value| {
            *value += 1;
            true
        }));
        tasks.close();
        tasks.wait().await;
        let expected: Vec<_> = (0..32).collect();
        assert_eq!(*woken.lock().expect("no panic"), expected);
    }

    #[tokio::test]
    async fn a_change_is_seen_once_and_a_last_one_before_the_end() {
        let (sender, mut receiver) = OrderedWatch::channel(0);
        assert!(receiver.changed().now_or_never().is_none(), "nothing yet");
        sender.send(1).expect("there is a receiver");
        assert_eq!(receiver.changed().await, Ok(()));
        assert_eq!(*receiver.borrow_watched(), 1);
        assert!(receiver.changed().now_or_never().is_none(), "it was seen");
        assert!(!sender.send_if_modified(|_| false));
        assert!(receiver.changed().now_or_never().is_none(), "no change");
        sender.send(2).expect("there is a receiver");
        drop(sender);
        assert_eq!(receiver.changed().await, Ok(()));
        assert_eq!(receiver.changed().await, Err(RecvError(())));
    }

    /// Whoever waits when the last sender goes is told.
    #[tokio::test]
    async fn the_end_wakes_who_waits() {
        let (sender, mut receiver) = OrderedWatch::channel(0);
        let second = sender.clone();
        let tasks = TaskTracker::new();
        let waiting = tasks.spawn(async move { receiver.changed().await });
        tokio::task::yield_now().await;
        drop(sender);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "there is another sender");
        drop(second);
        assert_eq!(waiting.await.expect("no panic"), Err(RecvError(())));
    }

    /// Each change wakes a waiter that is just about to wait, on another thread.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_change_is_missed() {
        let (sender, mut receiver) = OrderedWatch::channel(0);
        let (seen, mut told) = OrderedWatch::channel(0);
        let tasks = TaskTracker::new();
        tasks.spawn(async move {
            while receiver.changed().await.is_ok() {
                let value = *receiver.borrow_and_update();
                seen.send(value).expect("the test listens");
            }
        });
        for value in 1..=20_000 {
            sender.send(value).expect("the task listens");
            told.wait_until_ge(&value).await.expect("the task goes on");
        }
        drop(sender);
        tasks.close();
        tasks.wait().await;
    }
}
