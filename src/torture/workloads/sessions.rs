//! Logins and logouts: sessions are created, changed, touched, rotated, destroyed and revoked, while others read them.
//!
//! A session is written by one client, and read by all; so what a read may see follows from what that client was told. On the
//! tapes a session has a label; tokens are secrets and stay in memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::board::Board;
use super::{Context, LINGER_MS, LONG_TTL_MS, SHORT_TTL_MS};
use crate::client::{Client, Error};
use crate::proto::v1;
use crate::torture::tape::{Entry, Outcome, Tape};

const CLIENTS: u32 = 4;
const READERS: u32 = 3;
const PATIENCE: Duration = Duration::from_millis(1_200);
const PACE_MS: u64 = 14;
/// Tokens that are remembered, to look for them where none may be.
const TOKENS: usize = 20_000;
/// The field that counts updates.
const FIELD: &str = "count";

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// A new session.
    Create {
        /// Its label.
        session: String,
        /// Whose.
        user: String,
        /// Milliseconds.
        idle_ttl_ms: u64,
    },
    /// A linearizable read.
    Read {
        /// The label.
        session: String,
    },
    /// The count is set.
    Update {
        /// The label.
        session: String,
        /// To this.
        count: u64,
    },
    /// The deadline is moved.
    Touch {
        /// The label.
        session: String,
    },
    /// The token ends, and another one is born.
    Rotate {
        /// The old label.
        session: String,
        /// The new one.
        into: String,
    },
    /// Logged out.
    Destroy {
        /// The label.
        session: String,
    },
    /// All sessions of a user are logged out.
    RevokeAll {
        /// Whose.
        user: String,
    },
}

/// What a request was told: the count, for a read.
pub type Sight = Option<u64>;
/// Calls.
pub type Calls = Entry<Request, Sight>;

/// The clients' notes.
#[derive(Debug)]
pub struct Sessions {
    /// Calls.
    pub tape: Tape<Request, Sight>,
    board: Board<Card>,
    tokens: Mutex<Vec<Card>>,
}

/// A session's label and token.
#[derive(Clone)]
pub struct Card {
    /// What the tapes call it.
    pub label: String,
    /// The secret.
    pub token: String,
    /// It outlives the run, unless it is ended.
    pub lasts: bool,
}

impl std::fmt::Debug for Card {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Card").field(&self.label).finish()
    }
}

impl Sessions {
    /// Starts the clients.
    pub fn start(context: &Context, tasks: &mut JoinSet<()>) -> Result<Arc<Self>, Error> {
        let sessions = Arc::new(Self {
            tape: Tape::new(context.stopwatch),
            board: Board::default(),
            tokens: Mutex::default(),
        });
        for process in 0..context.count(CLIENTS) {
            let teller = Teller {
                sessions: Arc::clone(&sessions),
                client: context.client(process, PATIENCE)?,
                context: context.clone(),
                process,
                random: context.random("sessions", process),
                made: 0,
            };
            tasks.spawn(teller.run());
        }
        for reader in 0..context.count(READERS) {
            let client = context.client(reader, PATIENCE)?;
            let random = context.random("session readers", reader);
            let sessions = Arc::clone(&sessions);
            tasks.spawn(sessions.read_on(context.clone(), client, 100 + reader, random));
        }
        Ok(sessions)
    }

    /// Every token of the run, up to a bound, with its label.
    #[must_use]
    pub fn cards(&self) -> Vec<Card> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Card>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, card: &Card) {
        self.board.show(card, card.lasts);
        let mut tokens = self.lock();
        if tokens.len() < TOKENS {
            tokens.push(card.clone());
        }
    }

    async fn read_on(
        self: Arc<Self>,
        context: Context,
        client: Client,
        process: u32,
        mut random: Rng,
    ) {
        while context.pause(&mut random, PACE_MS).await {
            if let Some(card) = self.board.draw(&mut random) {
                self.read(&client, process, &card).await;
            }
        }
        client.close().await;
    }

    async fn read(&self, client: &Client, process: u32, card: &Card) {
        let session = card.label.clone();
        let open = self.tape.begin(process, Request::Read { session });
        let got = client.sessions().get(&card.token).send().await;
        let outcome = match got {
            Ok(reply) => Outcome::Answered(Some(count(&reply.value))),
            Err(error) if error.is_not_found() => Outcome::Answered(None),
            // A read has no effect: what is not an answer is nothing.
            Err(_) => Outcome::Unknown,
        };
        self.tape.end(open, outcome);
    }
}

fn count(session: &v1::Session) -> u64 {
    let field = session.fields.get(FIELD).map(AsRef::as_ref);
    let text = field.and_then(|bytes: &[u8]| std::str::from_utf8(bytes).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Writes sessions of its own users, one story after the other.
struct Teller {
    sessions: Arc<Sessions>,
    client: Client,
    context: Context,
    process: u32,
    random: Rng,
    made: u64,
}

impl Teller {
    async fn run(mut self) {
        let mut story = 0;
        while self.context.pause(&mut self.random, PACE_MS).await {
            story += 1;
            let user = format!(
                "torture-user-{}-{}-{story}",
                self.context.round, self.process
            );
            let idle_ttl_ms = if self.random.u8(0..4) == 0 {
                SHORT_TTL_MS
            } else {
                LONG_TTL_MS
            };
            let devices = self.random.u8(1..=3);
            let mut cards = Vec::new();
            for _ in 0..devices {
                cards.extend(self.create(&user, idle_ttl_ms).await);
            }
            for card in &mut cards {
                self.live(card, idle_ttl_ms).await;
            }
            self.end(&user, &cards, idle_ttl_ms).await;
        }
        self.client.close().await;
    }

    /// Whether the next new token's request has an id of the caller's, under which the node seals the token: it is nowhere else in
    /// what a node writes.
    fn is_named(&mut self) -> bool {
        self.random.bool()
    }

    fn next_label(&mut self) -> String {
        self.made += 1;
        format!(
            "session-{}-{}-{}",
            self.context.round, self.process, self.made
        )
    }

    async fn create(&mut self, user: &str, idle_ttl_ms: u64) -> Option<Card> {
        let session = self.next_label();
        let open = self.sessions.tape.begin(
            self.process,
            Request::Create {
                session: session.clone(),
                user: user.to_owned(),
                idle_ttl_ms,
            },
        );
        let is_named = self.is_named();
        let create = self.client.sessions().create().user(user).field(FIELD, "0");
        let mut create = create.idle_ttl(Duration::from_millis(idle_ttl_ms));
        if is_named {
            create = create.request_id(&session);
        }
        let created = create.send().await;
        let token = created.as_ref().ok().map(|reply| reply.value.token.clone());
        self.sessions.tape.end(open, Outcome::of(created, |_| None));
        let card = Card {
            label: session,
            token: token?,
            lasts: idle_ttl_ms == LONG_TTL_MS,
        };
        self.sessions.show(&card);
        Some(card)
    }

    /// Updates and touches; a rotation gives it another token.
    async fn live(&mut self, card: &mut Card, idle_ttl_ms: u64) {
        let pace = if card.lasts { PACE_MS } else { LINGER_MS };
        for turn in 1..=self.random.u64(1..5) {
            if !self.context.pause(&mut self.random, pace).await {
                return;
            }
            match self.random.u8(0..4) {
                0 => self.touch(card).await,
                1 if idle_ttl_ms == LONG_TTL_MS => {
                    if let Some(next) = self.rotate(card).await {
                        *card = next;
                    } else {
                        return;
                    }
                }
                _ => self.update(card, turn).await,
            }
            self.sessions.read(&self.client, self.process, card).await;
        }
    }

    async fn update(&self, card: &Card, count: u64) {
        let session = card.label.clone();
        let open = self
            .sessions
            .tape
            .begin(self.process, Request::Update { session, count });
        let update = self.client.sessions().update(&card.token);
        let updated = update.set(FIELD, count.to_string()).send().await;
        self.sessions.tape.end(open, Outcome::of(updated, |_| None));
    }

    async fn touch(&self, card: &Card) {
        let session = card.label.clone();
        let open = self
            .sessions
            .tape
            .begin(self.process, Request::Touch { session });
        let touched = self.client.sessions().touch(&card.token).send().await;
        self.sessions.tape.end(open, Outcome::of(touched, |_| None));
    }

    /// The next one; none if nobody knows which of the two tokens holds.
    async fn rotate(&mut self, card: &Card) -> Option<Card> {
        let into = self.next_label();
        let open = self.sessions.tape.begin(
            self.process,
            Request::Rotate {
                session: card.label.clone(),
                into: into.clone(),
            },
        );
        let is_named = self.is_named();
        let mut rotate = self.client.sessions().rotate(&card.token);
        if is_named {
            rotate = rotate.request_id(&into);
        }
        let rotated = rotate.send().await;
        let token = rotated.as_ref().ok().map(|reply| reply.value.token.clone());
        self.sessions.tape.end(open, Outcome::of(rotated, |_| None));
        let next = Card {
            label: into,
            token: token?,
            lasts: card.lasts,
        };
        self.sessions.show(&next);
        // Behind the acknowledgement nobody may read the old one.
        self.sessions.read(&self.client, self.process, card).await;
        Some(next)
    }

    async fn end(&mut self, user: &str, cards: &[Card], idle_ttl_ms: u64) {
        // Those that are left end when their time is over; some are never ended at all.
        if idle_ttl_ms == SHORT_TTL_MS || self.random.u8(0..5) == 0 {
            return;
        }
        let revokes = self.random.bool();
        if revokes {
            self.revoke_all(user).await;
        }
        for card in cards {
            if !revokes {
                self.destroy(card).await;
            }
            // A late write must not bring it back.
            if self.random.bool() {
                self.update(card, 1_000).await;
            }
            self.sessions.read(&self.client, self.process, card).await;
        }
    }

    async fn destroy(&self, card: &Card) {
        let session = card.label.clone();
        let open = self
            .sessions
            .tape
            .begin(self.process, Request::Destroy { session });
        let destroyed = self.client.sessions().destroy(&card.token).send().await;
        self.sessions
            .tape
            .end(open, Outcome::of(destroyed, |_| None));
    }

    async fn revoke_all(&self, user: &str) {
        let open = self.sessions.tape.begin(
            self.process,
            Request::RevokeAll {
                user: user.to_owned(),
            },
        );
        let revoked = self.client.sessions().revoke_all(user).send().await;
        self.sessions.tape.end(open, Outcome::of(revoked, |_| None));
    }
}
