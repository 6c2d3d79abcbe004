//! Large values over a slow link.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::*;
use crate::client::Consistency;
use crate::limits;

/// What passes in each direction, in each turn: a megabyte a second.
const PIECE: usize = 16 << 10;
const TURN: Duration = Duration::from_millis(15);

/// A link to a node, on which all takes its time.
struct SlowLink {
    address: String,
    _tasks: JoinSet<()>,
}

impl SlowLink {
    async fn to(node: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let node = node.to_owned();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(&node).await.expect("it listens");
                let (near, far) = (near.into_split(), far.into_split());
                passing.spawn(pass(near.0, far.1));
                passing.spawn(pass(far.0, near.1));
            }
        });
        Self {
            address,
            _tasks: tasks,
        }
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let mut piece = vec![0; PIECE];
    let mut turns = tokio::time::interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        match from.read(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(length) if to.write_all(&piece[..length]).await.is_err() => return,
            Ok(_) => {}
        }
    }
}

/// Each way they take twice as long as a node may be silent.
#[tokio::test(flavor = "multi_thread")]
async fn large_values_pass_a_slow_link() {
    let (fakes, store) = cluster(1).await;
    // The only way is the slow one.
    fakes[0].set_members(&[]);
    let link = SlowLink::to(&fakes[0].address).await;
    let config = ClientConfig::new([&link.address]).expect("it is well formed");
    let config = config
        .attempt_timeout(Duration::from_millis(500))
        .timeout(PATIENCE);
    let client = Client::connect(config).expect("the system has randomness");
    let value = vec![7; limits::VALUE_BYTES];
    let put = client.keys().put("large", value.clone()).send().await;
    put.expect("it is on its way");
    assert_eq!(store.applied("large"), 1);
    for consistency in [Consistency::Linearizable, Consistency::Stale] {
        let get = client.keys().get("large").consistency(consistency);
        let item = get.send().await.expect("it is on its way").value;
        assert_eq!(item.value, value);
    }
    assert_eq!(fakes[0].seen().len(), 3, "nothing was asked for twice");
}
