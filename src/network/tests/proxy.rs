//! A TCP proxy in front of one node, whose connections a test can cut.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Forwards to one address until it is dropped.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

struct Shared {
    target: SocketAddr,
    /// Cuts the connections of the moment.
    cut: Mutex<CancellationToken>,
    refuses: AtomicBool,
    /// Bytes towards the target after which all connections are cut, once.
    cut_after: AtomicU64,
    accepted: AtomicU64,
    cuts: AtomicU64,
}

impl Proxy {
    pub(super) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            target,
            cut: Mutex::default(),
            refuses: AtomicBool::new(false),
            cut_after: AtomicU64::new(u64::MAX),
            accepted: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, shared.clone()));
        Self {
            address,
            shared,
            _accepting: accepting,
        }
    }

    /// Cuts every connection there is; new ones are let in.
    pub(super) fn cut(&self) {
        self.shared.cut();
    }

    /// Cuts every connection once this many more bytes went to the target.
    pub(super) fn cut_after(&self, bytes: u64) {
        self.shared.cut_after.store(bytes, Ordering::SeqCst);
    }

    /// Whether the cut that was asked for last has happened.
    pub(super) fn was_cut(&self) -> bool {
        self.shared.cut_after.load(Ordering::SeqCst) == u64::MAX
    }

    /// Cuts every connection and lets no new one in, or lets them in again.
    pub(super) fn isolate(&self, isolated: bool) {
        self.shared.refuses.store(isolated, Ordering::SeqCst);
        self.cut();
    }

    /// Cuts so far.
    pub(super) fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }

    /// Connections let in so far.
    pub(super) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn cut(&self) {
        let mut cut = self.cut.lock().expect("no panic");
        std::mem::take(&mut *cut).cancel();
        self.cuts.fetch_add(1, Ordering::SeqCst);
    }

    fn count(&self, bytes: usize) {
        let bytes = bytes as u64;
        let left = self.cut_after.load(Ordering::SeqCst);
        if left == u64::MAX {
            return;
        }
        if left <= bytes {
            self.cut_after.store(u64::MAX, Ordering::SeqCst);
            self.cut();
        } else {
            self.cut_after.fetch_sub(bytes, Ordering::SeqCst);
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((inbound, _)) = listener.accept().await {
        if shared.refuses.load(Ordering::SeqCst) {
            continue;
        }
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let cut = shared.cut.lock().expect("no panic").clone();
        connections.spawn(cut.run_until_cancelled_owned(forward(inbound, shared.clone())));
    }
}

async fn forward(inbound: TcpStream, shared: Arc<Shared>) {
    let Ok(outbound) = TcpStream::connect(shared.target).await else {
        return;
    };
    let _ = inbound.set_nodelay(true);
    let _ = outbound.set_nodelay(true);
    let (mut from_client, mut to_client) = inbound.into_split();
    let (mut from_target, mut to_target) = outbound.into_split();
    let towards = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            if to_target.write_all(&buffer[..read]).await.is_err() {
                break;
            }
            shared.count(read);
        }
    };
    let back = tokio::io::copy(&mut from_target, &mut to_client);
    tokio::select! {
        () = towards => {}
        _ = back => {}
    }
}
