//! The way to a node: an address of its own, where peers and clients dial it, and which can be cut.
//!
//! A node whose link is cut hears nobody, not even its leader, while it can still dial the others; and a test that knows
//! where it really listens can ask it what it thinks.

use std::net::TcpListener;

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Passes connections on until it is cut.
pub struct Link {
    is_cut: watch::Sender<bool>,
    _passing: JoinSet<()>,
}

impl Link {
    /// From an address to where the node listens.
    pub fn new(from: &str, to: &str) -> Self {
        let is_cut = watch::Sender::new(false);
        let listener = TcpListener::bind(from).expect("the port is free");
        listener.set_nonblocking(true).expect("a socket obeys");
        let mut passing = JoinSet::new();
        passing.spawn(pass_on(listener, to.to_owned(), is_cut.subscribe()));
        Self {
            is_cut,
            _passing: passing,
        }
    }

    /// Ends every connection, and every new one at once.
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.is_cut.send_replace(false);
    }
}

async fn pass_on(listener: TcpListener, to: String, is_cut: watch::Receiver<bool>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime is there");
    let mut connections = JoinSet::new();
    loop {
        let (inward, _) = listener.accept().await.expect("a connection is accepted");
        // Those that have ended are let go of.
        while connections.try_join_next().is_some() {}
        if *is_cut.borrow() {
            continue;
        }
        let (to, mut is_cut) = (to.clone(), is_cut.clone());
        connections.spawn(async move {
            tokio::select! {
                // Either end may break off, which is what connections do.
                () = connect_both(inward, to) => {}
                _ = is_cut.wait_for(|is_cut| *is_cut) => {}
            }
        });
    }
}

/// A node that does not listen is one that refuses.
async fn connect_both(mut inward: TcpStream, to: String) {
    let Ok(mut outward) = TcpStream::connect(to).await else {
        return;
    };
    drop(copy_bidirectional(&mut inward, &mut outward).await);
}
