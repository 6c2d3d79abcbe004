//! Event streams: who may have one, and when it ends.
//!
//! A stream ends with what its caller may see, an hour after it began at the latest, and with the gateway. It is asked for
//! its next event, and for its end, only when the last event is on its way: so the connection of a caller who does not
//! read is closed when its time is over, and takes the place along.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{Stream, StreamExt as _};
use http::StatusCode;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::front::Peer;
use super::problem::Problem;
use super::protect::{Party, Share, Shares};
use crate::limits;

/// Whoever follows something comes back now and then, and is looked at again.
pub const LONGEST: Duration = Duration::from_millis(limits::STREAM_LIFE_MS);
/// A stream that is read has ended by itself before its connection is closed.
const GRACE: Duration = Duration::from_secs(1);

/// Places for all of them.
pub struct Streams {
    places: Arc<Semaphore>,
    shares: Arc<Shares>,
    open: Gauge,
    /// Cancelled when all must end.
    going: CancellationToken,
}

/// One that may go on.
pub struct Open {
    until: Instant,
    going: CancellationToken,
    _counted: Counted,
    _place: OwnedSemaphorePermit,
    _share: Share,
    /// Closes the connection, unless it is dropped before.
    _closing: JoinSet<()>,
}

impl Streams {
    /// At most so many at a time, which are counted in `open`.
    pub fn new(most: usize, open: Gauge) -> Self {
        Self {
            places: Arc::new(Semaphore::new(most)),
            shares: Shares::of(most),
            open,
            going: CancellationToken::new(),
        }
    }

    /// Ends all of them.
    pub fn end(&self) {
        self.going.cancel();
    }

    /// One more for this party, over this connection, for so long.
    pub fn open(&self, party: Party, peer: &Peer, life: Duration) -> Result<Open, Problem> {
        let share = self.shares.take(Arc::new(party));
        let share = share.ok_or_else(|| {
            let detail = "this caller follows as many event streams as one may: end another";
            refused(StatusCode::TOO_MANY_REQUESTS, detail)
        })?;
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| {
            let detail = "this gateway has as many event streams as it takes: wait, or use another";
            refused(StatusCode::SERVICE_UNAVAILABLE, detail)
        })?;
        let until = Instant::now() + life.min(LONGEST);
        Ok(Open {
            until,
            going: self.going.clone(),
            _counted: Counted::new(self.open.clone()),
            _place: place,
            _share: share,
            _closing: close_at(until + GRACE, peer.connection.clone()),
        })
    }
}

fn refused(status: StatusCode, detail: &str) -> Problem {
    Problem::new(status, "WATCHERS_LIMIT", detail).retryable()
}

fn close_at(time: Instant, connection: CancellationToken) -> JoinSet<()> {
    let mut closing = JoinSet::new();
    closing.spawn(async move {
        sleep_until(time).await;
        connection.cancel();
    });
    closing
}

impl Open {
    /// What is told until it ends. The end comes first, however much there is to tell.
    pub fn carry<T>(self, told: impl Stream<Item = T>) -> impl Stream<Item = T> {
        let (until, going) = (self.until, self.going.clone());
        let over = async move {
            tokio::select! {
                () = sleep_until(until) => {}
                () = going.cancelled() => {}
            }
        };
        told.take_until(over).map(move |told| {
            let _open = &self;
            told
        })
    }
}

/// Counts a stream until it is dropped.
struct Counted(Gauge);

impl Counted {
    fn new(open: Gauge) -> Self {
        open.inc();
        Self(open)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream::repeat;

    fn ada() -> Party {
        Party::Network("ada's".to_owned())
    }

    fn peer() -> Peer {
        Peer {
            address: ([10, 0, 0, 9], 4711).into(),
            connection: CancellationToken::new(),
        }
    }

    fn each_second() -> impl Stream<Item = ()> {
        let clock = tokio::time::interval(Duration::from_secs(1));
        futures::stream::unfold(clock, async |mut clock| {
            clock.tick().await;
            Some(((), clock))
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_in_time_however_much_there_is_to_tell() {
        let streams = Streams::new(1, Gauge::default());
        for (life, expected) in [(Duration::from_secs(7), 7), (LONGEST * 2, 3600)] {
            let began = Instant::now();
            let open = streams.open(ada(), &peer(), life).expect("there is room");
            let told = open.carry(each_second()).count().await;
            assert_eq!(began.elapsed().as_secs(), expected);
            assert!(told > 0);
        }
        let open = streams.open(ada(), &peer(), LONGEST).expect("room again");
        streams.end();
        assert_eq!(open.carry(repeat(())).count().await, 0);
        assert_eq!(streams.open.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_of_one_who_does_not_read_is_closed() {
        let streams = Streams::new(1, Gauge::default());
        let (slow, other) = (peer(), peer());
        let life = Duration::from_secs(7);
        let open = streams.open(ada(), &slow, life).expect("there is room");
        // Nobody asks it for anything.
        let unread = open.carry(repeat(()));
        slow.connection.cancelled().await;
        assert!(!other.connection.is_cancelled());
        drop(unread);
        let open = streams.open(ada(), &other, life).expect("room again");
        open.carry(repeat(())).take(1).count().await;
        tokio::time::advance(LONGEST).await;
        assert!(!other.connection.is_cancelled(), "it has ended before");
    }

    #[tokio::test]
    async fn nobody_has_all_of_them() {
        let streams = Streams::new(2 * limits::SHARE_PARTS, Gauge::default());
        let open = |name: &str| {
            let party = Party::Network(name.to_owned());
            streams.open(party, &peer(), LONGEST)
        };
        let mut held = vec![open("a").expect("room"), open("a").expect("room")];
        let refused = open("a").err().expect("it holds its share");
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        for number in 1..limits::SHARE_PARTS {
            let name = number.to_string();
            held.extend([open(&name).expect("room"), open(&name).expect("room")]);
        }
        let refused = open("b").err().expect("all are held");
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
