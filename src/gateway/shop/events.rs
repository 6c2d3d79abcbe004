//! What becomes of the visitor's cart and session, as it happens: server-sent events.
//!
//! | event | says |
//! |---|---|
//! | `cart` | the whole cart, at once and after each change |
//! | `stale` | the session has another cart now: ask for it |
//! | `ended` | the session is no more; the stream ends |
//!
//! A stream begins with the whole cart, so that one that breaks off is begun again at any front, and nothing has to be
//! remembered of it. A visitor can begin as many sessions as it likes: so streams are counted by the network that they go to.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::Event;
use futures::{Stream, StreamExt as _, future};
use tokio_util::sync::CancellationToken;

use super::visitor::Shopper;
use crate::client::{CartOwner, Watched};
use crate::gateway::front::Peer;
use crate::gateway::problem::Problem;
use crate::gateway::protect::Party;
use crate::gateway::routes::Cart;
use crate::gateway::{App, streams};
use crate::proto::v1::{self, cart_event::Owner, event::Record};
use crate::types::{Revision, SessionToken};

/// So often a word comes over a stream on which nothing happens: a proxy would cut it off.
const WORD: Duration = Duration::from_secs(10);

/// How soon a browser comes back whose stream has broken off: another front has it at once.
const RETRY: Duration = Duration::from_millis(500);

/// What a page is told.
#[derive(Debug)]
enum Told {
    Cart(Box<v1::Cart>),
    Stale,
    Ended,
    /// Nothing, so that everybody in between knows that the stream lives.
    Nothing,
}

/// Whose events a stream tells of.
struct Listener {
    user: Option<String>,
    token_hash: Vec<u8>,
}

impl Listener {
    fn new(shopper: &Shopper) -> Self {
        let hash = SessionToken::parse(&shopper.token).map(|token| token.hash());
        let hash = hash.map(|hash| hash.as_bytes().to_vec());
        Self {
            user: shopper.user().map(str::to_owned),
            token_hash: hash.unwrap_or_default(),
        }
    }

    fn told(&self, event: v1::Event) -> Option<Told> {
        match event.record? {
            Record::Cart(cart) => self.is_own(&cart).then(|| match cart.cart {
                Some(cart) if cart.state() != v1::CartState::Merged => Told::Cart(Box::new(cart)),
                _ => Told::Stale,
            }),
            Record::Session(session) => {
                let is_end = session.token_hash == self.token_hash && session.session.is_none();
                is_end.then_some(Told::Ended)
            }
            Record::User(user) => {
                (user.spared_token_hash != self.token_hash).then_some(Told::Ended)
            }
            Record::Key(_) => None,
        }
    }

    fn is_own(&self, cart: &v1::CartEvent) -> bool {
        match (&cart.owner, &self.user) {
            (Some(Owner::UserId(owner)), Some(user)) => owner == user,
            (Some(Owner::TokenHash(owner)), None) => *owner == self.token_hash,
            _ => false,
        }
    }
}

/// Follows the visitor's cart and session.
pub async fn follow(
    State(app): State<Arc<App>>,
    peer: Peer,
    shopper: Shopper,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let party = Party::Network(shopper.visitor.network.clone());
    let open = app.streams.open(party, &peer, streams::LONGEST)?;
    let listener = Listener::new(&shopper);
    let watch = shopper.visitor.client.watch();
    let watch = match shopper.owner() {
        CartOwner::User(user) => watch.user(user),
        owner @ CartOwner::Session(_) => watch.cart(&owner),
    };
    // What happens between the session's reading and the cart's is told again: a page takes the newer cart.
    let from = Revision::new(shopper.session.revision.get() + 1);
    let changes = watch.progress_interval(WORD).from(from).stream();
    let cart = shopper.visitor.client.carts().get(&shopper.owner());
    let first = Told::Cart(Box::new(cart.send().await?.value));
    let told = changes.filter_map(move |watched| {
        future::ready(match watched {
            Ok(Watched::Event(event)) => listener.told(*event),
            Ok(Watched::Progress { .. }) => Some(Told::Nothing),
            Err(error) if error.is_retryable() => Some(Told::Nothing),
            // What was missed cannot be told: the page begins again.
            Err(_) => Some(Told::Stale),
        })
    });
    let told = futures::stream::iter([first]).chain(told);
    Ok(Sse::new(open.carry(until_ended(told))))
}

/// Up to the session's end.
fn until_ended(told: impl Stream<Item = Told>) -> impl Stream<Item = Result<Event, Infallible>> {
    let over = CancellationToken::new();
    let ended = over.clone().cancelled_owned();
    told.map(move |told| {
        if matches!(told, Told::Ended) {
            over.cancel();
        }
        Ok(event(told))
    })
    .take_until(ended)
}

fn event(told: Told) -> Event {
    match told {
        Told::Cart(cart) => {
            let json = serde_json::json!(Cart::from(*cart)).to_string();
            Event::default().event("cart").retry(RETRY).data(json)
        }
        Told::Stale => Event::default().event("stale").data("{}"),
        Told::Ended => Event::default().event("ended").data("{}"),
        Told::Nothing => Event::default().comment(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: &[u8] = &[1; 32];

    fn listener(user: Option<&str>) -> Listener {
        Listener {
            user: user.map(str::to_owned),
            token_hash: MINE.to_vec(),
        }
    }

    fn told(user: Option<&str>, record: Record) -> String {
        let event = v1::Event {
            record: Some(record),
            ..Default::default()
        };
        let told = listener(user).told(event);
        match told {
            None => "nobody".to_owned(),
            Some(Told::Cart(_)) => "cart".to_owned(),
            Some(told) => format!("{told:?}").to_lowercase(),
        }
    }

    fn cart(owner: Owner, state: Option<v1::CartState>) -> Record {
        Record::Cart(v1::CartEvent {
            owner: Some(owner),
            cart: state.map(|state| v1::Cart {
                state: state.into(),
                ..Default::default()
            }),
        })
    }

    fn session(token_hash: &[u8], session: Option<v1::Session>) -> Record {
        Record::Session(v1::SessionEvent {
            token_hash: token_hash.to_vec().into(),
            user_id: "ada".to_owned(),
            session,
        })
    }

    #[test]
    fn a_page_is_told_of_its_own_cart() {
        let (open, merged) = (Some(v1::CartState::Open), Some(v1::CartState::Merged));
        let users = |state| cart(Owner::UserId("ada".to_owned()), state);
        let guests = |state| cart(Owner::TokenHash(MINE.to_vec().into()), state);
        assert_eq!(told(Some("ada"), users(open)), "cart");
        assert_eq!(told(Some("ada"), users(None)), "stale");
        assert_eq!(told(Some("bob"), users(open)), "nobody");
        assert_eq!(told(Some("ada"), guests(open)), "nobody");
        assert_eq!(told(None, guests(open)), "cart");
        assert_eq!(told(None, guests(merged)), "stale");
        assert_eq!(told(None, users(open)), "nobody");
    }

    #[test]
    fn a_page_is_told_of_its_own_end() {
        let everywhere = |spared: &[u8]| {
            Record::User(v1::UserEvent {
                user_id: "ada".to_owned(),
                spared_token_hash: spared.to_vec().into(),
            })
        };
        let ada = Some("ada");
        assert_eq!(told(ada, session(MINE, None)), "ended");
        assert_eq!(
            told(ada, session(MINE, Some(v1::Session::default()))),
            "nobody"
        );
        assert_eq!(told(ada, session(&[2; 32], None)), "nobody");
        assert_eq!(told(ada, everywhere(&[])), "ended");
        assert_eq!(told(ada, everywhere(&[2; 32])), "ended");
        assert_eq!(told(ada, everywhere(MINE)), "nobody");
    }
}
