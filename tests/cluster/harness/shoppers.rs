//! Shoppers at a shop of several fronts, who know exactly what they were told, and find out whenever that is not so.
//!
//! Each has a cart and a key of its own, and all of them count one counter up. Every write has an `Idempotency-Key` and is sent
//! until it is answered. As nobody else writes there, what a shopper then reads must be exactly what it was told, at the
//! revision that it was told or a later one. Beside them, some add without a key, and never twice: they do not know what
//! became of an add that nobody answered, but more pieces than they have sent must not appear.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::gateway::{Answer, Caller, EVERYTHING, token};
use super::{DEADLINE, eventually};

/// Those with keys, and those without.
const SHOPPERS: u64 = 12;
const CARELESS: u64 = 4;
/// All of them, each of whom has one request under way.
pub const ALL: u64 = SHOPPERS + CARELESS;
/// Lines of a cart.
const LINES: u64 = 4;
const LINE: &str = "/v1/carts/me/lines";
const TOGETHER: &str = "/v1/keys/together";

/// Pieces by SKU.
type Pieces = BTreeMap<String, u64>;

/// What they have seen together.
#[derive(Default)]
struct Tally {
    /// Writes that were answered.
    acknowledged: AtomicU64,
    /// Writes that were answered when they were sent once, with the answer of an earlier time: somebody on the way sent them again.
    sent_again_on_the_way: AtomicU64,
    /// Writes that were sent again by whoever wanted them.
    sent_again: AtomicU64,
    /// Writes without keys that a front took along, and that the balancer did not send again: it says so, or closes the connection.
    cut_off: AtomicU64,
    /// Reads that saw what they had to see.
    reads: AtomicU64,
}

/// All of them, at work.
pub struct Shoppers {
    address: String,
    tally: Arc<Tally>,
    stop: CancellationToken,
    careful: JoinSet<u64>,
    careless: JoinSet<(u64, u64)>,
}

impl Shoppers {
    /// They call this address.
    pub fn start(address: &str) -> Self {
        let mut shoppers = Self {
            address: address.to_owned(),
            tally: Arc::default(),
            stop: CancellationToken::new(),
            careful: JoinSet::new(),
            careless: JoinSet::new(),
        };
        for number in 0..SHOPPERS {
            let shopper = Shopper {
                caller: caller(address, &format!("shopper-{number}")),
                number,
                turn: 0,
                revision: 0,
                together: 0,
                pieces: Pieces::new(),
                tally: Arc::clone(&shoppers.tally),
            };
            shoppers.careful.spawn(shopper.shop(shoppers.stop.clone()));
        }
        for _ in 0..CARELESS {
            let adding = add_carelessly(
                caller(address, "careless"),
                Arc::clone(&shoppers.tally),
                shoppers.stop.clone(),
            );
            shoppers.careless.spawn(adding);
        }
        shoppers
    }

    /// Waits until so many more writes have been answered.
    pub async fn wait_for(&self, more: u64) {
        let count = || self.tally.acknowledged.load(Ordering::Relaxed);
        let enough = count() + more;
        eventually("acknowledged writes", async || count() >= enough).await;
    }

    /// Writes that were done although the front which did them never answered, and that somebody on the way sent again.
    pub fn saved_on_the_way(&self) -> u64 {
        self.tally.sent_again_on_the_way.load(Ordering::Relaxed)
    }

    /// Writes without keys that were lost with a front, as far as their callers know.
    pub fn cut_off(&self) -> u64 {
        self.tally.cut_off.load(Ordering::Relaxed)
    }

    /// Lets them finish, and compares what is there with what they were told. Says what they saw.
    pub async fn stop_and_check(mut self) -> String {
        self.stop.cancel();
        let mut counted = 0;
        while let Some(shopper) = self.careful.join_next().await {
            counted += shopper.expect("a shopper found nothing wrong");
        }
        let anybody = caller(&self.address, "shopper-0");
        let together = anybody.get(TOGETHER, &[]).await.ok();
        assert_eq!(together.body["counter"], counted, "each of them once");

        let (mut acknowledged, mut unanswered) = (0, 0);
        while let Some(careless) = self.careless.join_next().await {
            let (done, unknown) = careless.expect("adding fails nobody");
            acknowledged += done;
            unanswered += unknown;
        }
        let careless = caller(&self.address, "careless");
        let cart = careless.get("/v1/carts/me", &[]).await.ok();
        let held: u64 = pieces(&cart).values().sum();
        assert!(
            (acknowledged..=acknowledged + unanswered).contains(&held),
            "{held} pieces of {acknowledged} acknowledged adds and {unanswered} unanswered ones"
        );
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        format!(
            "{} writes acknowledged, {} sent again by their callers, {} by the balancer after they were done; {} reads; \
             without keys {acknowledged} acknowledged, {unanswered} unanswered, {held} done",
            count(&self.tally.acknowledged),
            count(&self.tally.sent_again),
            count(&self.tally.sent_again_on_the_way),
            count(&self.tally.reads),
        )
    }
}

/// One with keys.
struct Shopper {
    caller: Caller,
    number: u64,
    turn: u64,
    /// The newest that it was told of.
    revision: u64,
    /// The most that it has seen of the counter of all.
    together: u64,
    /// What must be in its cart.
    pieces: Pieces,
    tally: Arc<Tally>,
}

impl Shopper {
    /// Gives how often it has counted the counter of all.
    async fn shop(mut self, stop: CancellationToken) -> u64 {
        while !stop.is_cancelled() {
            self.turn += 1;
            let sku = format!("sku-{}", self.turn % LINES);
            let piece = json!({ "sku": sku, "quantity": 1 });
            self.write(Method::POST, LINE, piece).await;
            *self.pieces.entry(sku).or_default() += 1;
            let key = format!("/v1/keys/of-{}", self.number);
            let turn = self.turn.to_string();
            self.write(Method::PUT, &key, json!({ "value": turn }))
                .await;
            let increment = format!("{TOGETHER}/increment");
            let sum = self.write(Method::POST, &increment, json!({ "delta": 1 }));
            let sum = sum.await.body["value"].as_u64();
            self.see_together(sum.expect("a counter"), "a count");

            let cart = self.read("/v1/carts/me").await;
            assert_eq!(pieces(&cart), self.pieces, "{cart:?}");
            let held = self.read(&key).await;
            assert_eq!(held.body["value"], turn, "{held:?}");
            let together = self.read(TOGETHER).await.body["counter"].as_u64();
            self.see_together(together.expect("a counter"), "a read");
        }
        self.turn
    }

    /// One that goes on until it is answered.
    async fn write(&mut self, method: Method, path: &str, body: Value) -> Answer {
        // Told apart by what is written, too: the same turn writes more than once.
        let name = format!("turn-{}-{path}", self.turn);
        let headers = [("idempotency-key", name.as_str())];
        let (answer, attempts) = insist(&self.caller, method, path, &headers, Some(body)).await;
        let is_replayed = answer.headers.contains_key("x-trolley-replayed");
        let tally = &self.tally;
        tally.acknowledged.fetch_add(1, Ordering::Relaxed);
        tally.sent_again.fetch_add(attempts - 1, Ordering::Relaxed);
        if is_replayed && attempts == 1 {
            tally.sent_again_on_the_way.fetch_add(1, Ordering::Relaxed);
        }
        // The first answer comes again with its own revision, which is not new any more.
        self.revision = self.revision.max(revision(&answer));
        answer
    }

    /// Every other read asks for its own writes, at any node, and the rest for everything.
    async fn read(&mut self, path: &str) -> Answer {
        let own = self.revision.to_string();
        let headers = [("x-trolley-revision", own.as_str())];
        let headers = &headers[..usize::from(self.turn.is_multiple_of(2))];
        let (answer, _) = insist(&self.caller, Method::GET, path, headers, None).await;
        let seen = revision(&answer);
        assert!(
            seen >= self.revision,
            "a read of revision {seen} after {}: {answer:?}",
            self.revision
        );
        self.revision = seen;
        self.tally.reads.fetch_add(1, Ordering::Relaxed);
        answer
    }

    fn see_together(&mut self, seen: u64, what: &str) {
        // An answer that comes again is as old as the first one would have been, and no older than this one's own last count.
        assert!(seen >= self.together, "{what}: {seen} < {}", self.together);
        self.together = seen;
    }
}

/// Adds a piece after the other, each once. Gives how many were acknowledged, and of how many nobody knows.
async fn add_carelessly(caller: Caller, tally: Arc<Tally>, stop: CancellationToken) -> (u64, u64) {
    let (mut acknowledged, mut unanswered) = (0, 0);
    while !stop.is_cancelled() {
        let piece = json!({ "sku": "sku", "quantity": 1 });
        let added = caller.try_send(Method::POST, LINE, &[], Some(piece)).await;
        match added {
            Some(added) if added.status.is_success() => acknowledged += 1,
            unanswered_or_refused => {
                let answer = unanswered_or_refused.as_ref();
                assert!(is_no_answer(answer), "{answer:?}");
                unanswered += 1;
                // A front that answers gives each request an id.
                if answer.is_none_or(|answer| !answer.headers.contains_key("x-request-id")) {
                    tally.cut_off.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
    (acknowledged, unanswered)
}

/// Sends a request until it is answered, and says how often that was.
async fn insist(
    caller: &Caller,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<Value>,
) -> (Answer, u64) {
    let begun = Instant::now();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let sent = caller.try_send(method.clone(), path, headers, body.clone());
        let answer = sent.await;
        if let Some(answer) = &answer
            && answer.status.is_success()
        {
            return (answer.clone(), attempts);
        }
        assert!(
            is_no_answer(answer.as_ref()) && begun.elapsed() < DEADLINE,
            "{method} {path}, sent {attempts} times: {answer:?}"
        );
    }
}

/// Nobody knows what became of the request, or nobody could do it just now.
fn is_no_answer(answer: Option<&Answer>) -> bool {
    answer.is_none_or(|answer| {
        matches!(
            answer.status,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        )
    })
}

fn caller(address: &str, user: &str) -> Caller {
    Caller::of(address, &token(json!({ "sub": user, "scope": EVERYTHING })))
}

fn revision(answer: &Answer) -> u64 {
    let revision = answer.header("x-trolley-revision").parse();
    revision.expect("a revision is a number")
}

fn pieces(cart: &Answer) -> Pieces {
    let lines = cart.body["lines"].as_array();
    let lines = lines.unwrap_or_else(|| panic!("no lines in {cart:?}"));
    let pieces = lines.iter().map(|line| {
        let sku = line["sku"].as_str().expect("a SKU");
        let quantity = line["quantity"].as_u64().expect("a quantity");
        (sku.to_owned(), quantity)
    });
    pieces.collect()
}
