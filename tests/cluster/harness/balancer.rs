//! A load balancer: every connection goes to the next front that takes it.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// One that listens until it is dropped.
pub struct Balancer {
    address: String,
    _passing: JoinSet<()>,
}

impl Balancer {
    /// In front of these.
    pub fn start(fronts: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        listener.set_nonblocking(true).expect("a socket obeys");
        let address = listener.local_addr().expect("it is bound").to_string();
        let mut passing = JoinSet::new();
        passing.spawn(pass_on(listener, Arc::new(fronts)));
        Self {
            address,
            _passing: passing,
        }
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }
}

async fn pass_on(listener: TcpListener, fronts: Arc<Vec<String>>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime is there");
    let turn = Arc::new(AtomicUsize::new(0));
    let mut connections = JoinSet::new();
    loop {
        let (inward, _) = listener.accept().await.expect("a connection is accepted");
        while connections.try_join_next().is_some() {}
        connections.spawn(connect(inward, Arc::clone(&fronts), Arc::clone(&turn)));
    }
}

/// A front that does not listen is passed over.
async fn connect(mut inward: TcpStream, fronts: Arc<Vec<String>>, turn: Arc<AtomicUsize>) {
    for _ in 0..fronts.len() {
        let next = turn.fetch_add(1, Ordering::Relaxed) % fronts.len();
        if let Ok(mut outward) = TcpStream::connect(&fronts[next]).await {
            // Either end may break off, which is what connections do.
            drop(copy_bidirectional(&mut inward, &mut outward).await);
            return;
        }
    }
}
