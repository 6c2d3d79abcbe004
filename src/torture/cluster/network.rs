//! The network between nodes and clients: a proxy in front of every node, with a rule for each direction of each link.
//!
//! The membership has one address for each node, and that is the front's. A front learns from `super::origin` who dials, so
//! that a connection belongs to a link, and each of its two directions follows the rule for it: what node 1 sends to node
//! 2 goes by the rule (1, 2), whoever of the two has dialled.
//!
//! Invariants:
//! 1. A blocked direction passes nothing on, not even that an end has hung up, as a network that loses everything. What was held is
//!    passed on when the rule ends, as TCP sends it again, unless the connection was given up meanwhile.
//! 2. Bytes of one connection keep their order, whatever the delay, as TCP has it. Nobody can reorder them there; what a network does
//!    reorder is what goes over different connections, and [`Rule::jitter`] does that.
//! 3. What a rule did is counted, so that a fault can prove itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::origin;

/// Read at once.
const CHUNK: usize = 16 << 10;
/// Chunks of one direction that a delay or a block holds; more stay in the sender's socket.
const HELD_CHUNKS: usize = 64;

/// One end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Whoever is not a node.
    Clients,
    /// A node, by its id.
    Node(u64),
}

/// From whom, to whom.
pub type Direction = (End, End);

/// What happens to what is sent one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rule {
    /// Nothing arrives.
    pub is_blocked: bool,
    /// Everything arrives so much later.
    pub delay: Duration,
    /// And up to so much later still, each message by itself: those of different connections overtake each other.
    pub jitter: Duration,
}

/// The rules that hold; a direction without one passes everything at once.
pub type Rules = BTreeMap<Direction, Rule>;

/// What rules did to one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effects {
    /// Bytes that met a block.
    pub held_bytes: u64,
    /// Bytes that were delayed.
    pub delayed_bytes: u64,
    /// Connections that were cut.
    pub cut_connections: u64,
    /// Messages that came while one was under way that was sent before.
    pub overtakings: u64,
}

/// Which process is which node, as far as they run.
pub(super) type Processes = Arc<Mutex<BTreeMap<u64, u32>>>;

#[derive(Clone)]
struct Shared {
    rules: watch::Sender<Rules>,
    effects: Arc<Mutex<BTreeMap<Direction, Effects>>>,
    connections: Arc<Mutex<Vec<(Direction, CancellationToken)>>>,
    processes: Processes,
    flights: Flights,
}

/// All fronts. Dropped, it ends every connection.
pub struct Network {
    shared: Shared,
    _fronts: JoinSet<()>,
}

impl Network {
    /// A front for each node: its id, the address where it is dialled, the address where it listens.
    pub(super) async fn open(
        nodes: &[(u64, String, String)],
        processes: Processes,
    ) -> io::Result<Self> {
        let shared = Shared {
            rules: watch::Sender::new(Rules::new()),
            effects: Arc::default(),
            connections: Arc::default(),
            processes,
            flights: Flights::default(),
        };
        let mut fronts = JoinSet::new();
        for (node, dialled, listening) in nodes {
            let listener = TcpListener::bind(dialled).await?;
            let front = Front {
                node: *node,
                address: listener.local_addr()?,
                behind: listening.clone(),
                shared: shared.clone(),
            };
            fronts.spawn(front.serve(listener));
        }
        Ok(Self {
            shared,
            _fronts: fronts,
        })
    }

    /// These rules hold from now on, and no others.
    pub fn set(&self, rules: Rules) {
        self.shared.rules.send_replace(rules);
    }

    /// Cuts the connections that are there now, in both directions of the link.
    pub fn cut(&self, link: Direction) {
        let connections = lock(&self.shared.connections);
        let on_link = |of: &Direction| *of == link || *of == (link.1, link.0);
        for (of, token) in connections.iter().filter(|(of, _)| on_link(of)) {
            if !token.is_cancelled() {
                token.cancel();
                self.shared.note(*of, |it| it.cut_connections += 1);
            }
        }
    }

    /// What rules have done to a direction so far.
    #[must_use]
    pub fn effects(&self, direction: Direction) -> Effects {
        let effects = lock(&self.shared.effects);
        effects.get(&direction).copied().unwrap_or_default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn note(&self, direction: Direction, change: impl FnOnce(&mut Effects)) {
        change(lock(&self.effects).entry(direction).or_default());
    }

    fn register(&self, direction: Direction) -> CancellationToken {
        let token = CancellationToken::new();
        let mut connections = lock(&self.connections);
        connections.retain(|(_, token)| !token.is_cancelled());
        connections.push((direction, token.clone()));
        token
    }
}

struct Front {
    node: u64,
    address: SocketAddr,
    behind: String,
    shared: Shared,
}

impl Front {
    async fn serve(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        let this = Arc::new(self);
        loop {
            // The system may lack what a connection takes for a moment.
            let Ok((inward, from)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            while connections.try_join_next().is_some() {}
            connections.spawn(Arc::clone(&this).connect(inward, from));
        }
    }

    async fn connect(self: Arc<Self>, inward: TcpStream, from: SocketAddr) {
        // A node that does not run is one that refuses, whoever asks: and everybody asks again and again.
        if !lock(&self.shared.processes).contains_key(&self.node) {
            return;
        }
        let dialler = self.dialler(from).await;
        let to = End::Node(self.node);
        let token = self.shared.register((dialler, to));
        // Every connection that has ended is let go of at the next registration.
        let _ended = token.clone().drop_guard();
        let way = Way {
            direction: (dialler, to),
            shared: self.shared.clone(),
        };
        tokio::select! {
            () = token.cancelled() => {}
            () = way.connect(inward, &self.behind) => {}
        }
    }

    async fn dialler(&self, from: SocketAddr) -> End {
        let processes: Vec<_> = lock(&self.shared.processes)
            .iter()
            .map(|(node, pid)| (*node, *pid))
            .collect();
        let to = self.address;
        let found =
            tokio::task::spawn_blocking(move || origin::dialler(from, to, &processes)).await;
        match found.map_err(io::Error::from).flatten() {
            Ok(node) => node.map_or(End::Clients, End::Node),
            Err(error) => {
                tracing::warn!(%error, %from, "taken for a client's connection");
                End::Clients
            }
        }
    }
}

/// What was read at once, and when it may be passed on.
struct Sent {
    due: Instant,
    chunk: Bytes,
    flight: Option<Flight>,
}

/// The numbers of what is under way in each direction, over all of its connections.
type Flights = Arc<Mutex<BTreeMap<Direction, (u64, BTreeSet<u64>)>>>;

/// Something under way. Dropped, it has been lost.
struct Flight {
    flights: Flights,
    direction: Direction,
    number: u64,
}

impl Flight {
    fn begin(flights: &Flights, direction: Direction) -> Self {
        let mut all = lock(flights);
        let (next, under_way) = all.entry(direction).or_default();
        let number = *next;
        *next += 1;
        under_way.insert(number);
        Self {
            flights: Arc::clone(flights),
            direction,
            number,
        }
    }

    /// It has arrived: whether something is still under way that was sent before.
    fn land(self) -> bool {
        let all = lock(&self.flights);
        let under_way = all.get(&self.direction).map(|(_, under_way)| under_way);
        under_way.is_some_and(|it| it.first().is_some_and(|first| *first < self.number))
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some((_, under_way)) = lock(&self.flights).get_mut(&self.direction) {
            under_way.remove(&self.number);
        }
    }
}

/// One connection, from whoever dialled.
struct Way {
    direction: Direction,
    shared: Shared,
}

impl Way {
    async fn connect(self, inward: TcpStream, behind: &str) {
        // The first packet would not arrive, either.
        self.wait_until_open(self.direction, 0).await;
        let Ok(outward) = TcpStream::connect(behind).await else {
            return;
        };
        inward.set_nodelay(true).ok();
        outward.set_nodelay(true).ok();
        let (from_dialler, to_dialler) = inward.into_split();
        let (from_node, to_node) = outward.into_split();
        let (there, back) = (self.direction, (self.direction.1, self.direction.0));
        tokio::join!(
            self.pass(there, from_dialler, to_node),
            self.pass(back, from_node, to_dialler)
        );
    }

    async fn pass(
        &self,
        direction: Direction,
        from: impl AsyncRead + Unpin,
        into: impl AsyncWrite + Unpin,
    ) {
        let (sender, receiver) = mpsc::channel(HELD_CHUNKS);
        tokio::join!(
            self.take(direction, from, sender),
            self.deliver(direction, receiver, into)
        );
    }

    /// Until the sender hangs up, or nobody takes what it sends.
    async fn take(
        &self,
        direction: Direction,
        mut from: impl AsyncRead + Unpin,
        into: mpsc::Sender<Sent>,
    ) {
        loop {
            let mut chunk = BytesMut::with_capacity(CHUNK);
            let read = tokio::select! {
                read = from.read_buf(&mut chunk) => read,
                () = into.closed() => return,
            };
            if !read.is_ok_and(|read| read > 0) {
                return;
            }
            let rule = self.rule(direction);
            let mut delay = rule.delay;
            let mut flight = None;
            if !rule.jitter.is_zero() {
                let jitter_us = u64::try_from(rule.jitter.as_micros()).unwrap_or(u64::MAX);
                delay += Duration::from_micros(fastrand::u64(0..=jitter_us));
                flight = Some(Flight::begin(&self.shared.flights, direction));
            }
            if !delay.is_zero() {
                let length = chunk.len() as u64;
                self.shared.note(direction, |it| it.delayed_bytes += length);
            }
            let sent = Sent {
                due: Instant::now() + delay,
                chunk: chunk.freeze(),
                flight,
            };
            if into.send(sent).await.is_err() {
                return;
            }
        }
    }

    async fn deliver(
        &self,
        direction: Direction,
        mut chunks: mpsc::Receiver<Sent>,
        mut into: impl AsyncWrite + Unpin,
    ) {
        while let Some(sent) = chunks.recv().await {
            let Sent { due, chunk, flight } = sent;
            tokio::time::sleep_until(due).await;
            self.wait_until_open(direction, chunk.len() as u64).await;
            if into.write_all(&chunk).await.is_err() {
                return;
            }
            if flight.is_some_and(Flight::land) {
                self.shared.note(direction, |it| it.overtakings += 1);
            }
        }
        self.wait_until_open(direction, 0).await;
        into.shutdown().await.ok();
    }

    fn rule(&self, direction: Direction) -> Rule {
        let rules = self.shared.rules.borrow();
        rules.get(&direction).copied().unwrap_or_default()
    }

    async fn wait_until_open(&self, direction: Direction, bytes: u64) {
        if !self.rule(direction).is_blocked {
            return;
        }
        self.shared.note(direction, |it| it.held_bytes += bytes);
        let mut rules = self.shared.rules.subscribe();
        let is_open = |rules: &Rules| rules.get(&direction).is_none_or(|rule| !rule.is_blocked);
        // The sender is a part of what is waited by, so it lives.
        rules.wait_for(is_open).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;

    const THERE: Direction = (End::Clients, End::Node(1));
    const BACK: Direction = (End::Node(1), End::Clients);

    async fn echo() -> (Network, String, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let behind = listener.local_addr().expect("an address").to_string();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("it listens");
                let mut buffer = [0; 64];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..read]).await.is_err() {
                        break;
                    }
                }
            }
        });
        let front = super::super::ports::unused_address().expect("a free port");
        let nodes = [(1, front.clone(), behind)];
        let processes = Processes::default();
        lock(&processes).insert(1, 1);
        let network = Network::open(&nodes, processes).await;
        (network.expect("the port is free"), front, tasks)
    }

    async fn ask(stream: &mut TcpStream) -> [u8; 4] {
        stream.write_all(b"ping").await.expect("it is open");
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.expect("an echo");
        answer
    }

    async fn is_late(answer: impl Future<Output = [u8; 4]>) -> bool {
        let patience = Duration::from_millis(200);
        tokio::time::timeout(patience, answer).await.is_err()
    }

    fn blocked(direction: Direction) -> Rules {
        let rule = Rule {
            is_blocked: true,
            ..Rule::default()
        };
        Rules::from([(direction, rule)])
    }

    #[tokio::test]
    async fn a_blocked_direction_holds_and_later_delivers() {
        for (direction, other) in [(THERE, BACK), (BACK, THERE)] {
            let (network, front, _echo) = echo().await;
            let mut stream = TcpStream::connect(&front).await.expect("it listens");
            assert_eq!(&ask(&mut stream).await, b"ping");
            network.set(blocked(direction));
            assert!(is_late(ask(&mut stream)).await);
            assert_eq!(network.effects(direction).held_bytes, 4);
            assert_eq!(network.effects(other).held_bytes, 0);
            network.set(Rules::new());
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).await.expect("it was held");
            assert_eq!(&answer, b"ping");
        }
    }

    #[tokio::test]
    async fn a_new_connection_waits_for_the_end_of_a_block() {
        let (network, front, _echo) = echo().await;
        network.set(blocked(THERE));
        let mut stream = TcpStream::connect(&front).await.expect("it listens");
        assert!(is_late(ask(&mut stream)).await);
        network.set(Rules::new());
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.expect("it was held");
        assert_eq!(&answer, b"ping");
    }

    #[tokio::test]
    async fn a_delay_is_at_least_as_long_and_counted() {
        let (network, front, _echo) = echo().await;
        let mut stream = TcpStream::connect(&front).await.expect("it listens");
        assert_eq!(&ask(&mut stream).await, b"ping");
        let delay = Duration::from_millis(60);
        let rule = Rule {
            delay,
            ..Rule::default()
        };
        network.set(Rules::from([(THERE, rule), (BACK, rule)]));
        let asked = Instant::now();
        assert_eq!(&ask(&mut stream).await, b"ping");
        assert!(asked.elapsed() >= delay * 2);
        assert_eq!(network.effects(THERE).delayed_bytes, 4);
    }

    #[tokio::test]
    async fn messages_of_two_connections_overtake_each_other_and_those_of_one_do_not() {
        let (network, front, _echo) = echo().await;
        let mut first = TcpStream::connect(&front).await.expect("it listens");
        assert_eq!(&ask(&mut first).await, b"ping");
        let jitter = Duration::from_millis(20);
        let rule = Rule {
            jitter,
            ..Rule::default()
        };
        network.set(Rules::from([(THERE, rule), (BACK, rule)]));
        for number in 0..20_u8 {
            first.write_all(&[number; 4]).await.expect("it is open");
            let mut answer = [0; 4];
            first.read_exact(&mut answer).await.expect("an echo");
            assert_eq!(answer, [number; 4]);
        }
        assert_eq!(network.effects(THERE).overtakings, 0);
        // The echo serves one connection after the other, so that what goes there is what counts.
        let mut second = TcpStream::connect(&front).await.expect("it listens");
        let begun = Instant::now();
        while network.effects(THERE).overtakings == 0 {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "nothing is overtaken"
            );
            first.write_all(b"ping").await.expect("it is open");
            second.write_all(b"pong").await.expect("it is open");
            let mut answer = [0; 4];
            first.read_exact(&mut answer).await.expect("an echo");
        }
    }

    #[tokio::test]
    async fn a_cut_ends_connections_and_lets_new_ones_be() {
        let (network, front, _echo) = echo().await;
        let mut stream = TcpStream::connect(&front).await.expect("it listens");
        assert_eq!(&ask(&mut stream).await, b"ping");
        network.cut(BACK);
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest));
        // Closed or reset, as the kernel has it.
        drop(ended.await.expect("it ends"));
        assert_eq!(network.effects(THERE).cut_connections, 1);
        let mut again = TcpStream::connect(&front).await.expect("it listens");
        assert_eq!(&ask(&mut again).await, b"ping");
    }
}
