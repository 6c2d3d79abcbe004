//! openraft's runtime: tokio's, but for what is random in it.
//!
//! openraft draws its election timeouts from the runtime. tokio's draws them from a generator that the system seeds; this
//! one from [`fastrand`]'s, which is as good for a timeout and which a simulation can seed for its thread, so that the
//! elections of a run can be had again. The order in which tokio wakes the waiters of a watch channel is random too, see
//! [`super::watch`]. Deliberately absent: anything else that differs from tokio.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use openraft::OptionalSend;
use openraft::rt::AsyncRuntime;
use openraft_rt_tokio::TokioRuntime;
use rand_core::TryRng;

use super::watch::OrderedWatch;

/// tokio's runtime, with timeouts that are drawn from [`fastrand`] and watch channels that wake who waits in order.
#[derive(Debug)]
pub struct Runtime(TokioRuntime);

/// The thread's [`fastrand`].
#[derive(Debug)]
pub struct ThreadRandom;

impl TryRng for ThreadRandom {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(fastrand::u32(..))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(fastrand::u64(..))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        fastrand::fill(bytes);
        Ok(())
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = ThreadRandom;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = OrderedWatch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(error)
    }

    fn thread_rng() -> ThreadRandom {
        ThreadRandom
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use openraft::rt::testing::Suite;

    use super::*;

    /// What openraft expects of a runtime.
    #[test]
    fn it_is_a_runtime() {
        Suite::<Runtime>::test_all();
    }

    /// The elections of a simulation repeat themselves because of this.
    #[test]
    fn a_seed_repeats_what_openraft_draws() {
        let draw = || {
            fastrand::seed(7);
            let mut random = Runtime::thread_rng();
            let mut bytes = [0; 4];
            random.try_fill_bytes(&mut bytes).expect("infallible");
            (random.try_next_u32(), random.try_next_u64(), bytes)
        };
        assert_eq!(draw(), draw());
        fastrand::seed(7);
        let mut random = Runtime::thread_rng();
        assert_ne!(random.try_next_u64(), random.try_next_u64());
    }
}
