//! Transactions: several operations as one.

use bytes::Bytes;

use super::builder::{pick, write_options};
use super::call::Options;
use super::{CartOwner, Client, Error, Reply};
use crate::proto::v1;
use crate::proto::v1::compare::{Operand, Target};
use crate::proto::v1::operation::Request;
use crate::types::{Revision, SessionToken};

/// What may stand in a transaction: a request that was built and not sent. A timeout of its own is ignored, a request id of
/// its own is refused by the node: the transaction has both.
pub trait InTxn {
    /// The request.
    fn into_request(self) -> Request;
}

/// See [`Client::txn`].
#[must_use]
pub struct Txn<'a> {
    client: &'a Client,
    options: Options,
    request: v1::TxnRequest,
}

impl Client {
    /// Several operations as one: all of them or none, under one revision.
    ///
    /// ```no_run
    /// # use trolley::client::{CartOwner, Client, Compare, Error};
    /// # use trolley::types::Revision;
    /// # async fn buy(client: &Client, owner: &CartOwner) -> Result<(), Error> {
    /// let bought = client
    ///     .txn()
    ///     .compare(Compare::cart(owner).mod_revision_is(Revision::new(7)))
    ///     .then(client.keys().increment("stock/SKU-1", -2).min(0))
    ///     .then(client.carts().clear(owner))
    ///     .otherwise(client.carts().get(owner))
    ///     .send()
    ///     .await?;
    /// assert_eq!(bought.results.len(), if bought.succeeded { 2 } else { 1 });
    /// # Ok(())
    /// # }
    /// ```
    pub fn txn(&self) -> Txn<'_> {
        self.txn_of(v1::TxnRequest::default())
    }

    /// A transaction that was put together elsewhere; its namespace becomes this client's.
    pub fn txn_of(&self, request: v1::TxnRequest) -> Txn<'_> {
        Txn {
            client: self,
            options: Options::default(),
            request: v1::TxnRequest {
                namespace: self.namespace_field(),
                ..request
            },
        }
    }
}

impl Txn<'_> {
    write_options!();

    /// `then` is executed only if this holds, and every other comparison.
    pub fn compare(mut self, compare: Compare) -> Self {
        self.request.compare.push(compare.0);
        self
    }

    /// Executed if every comparison holds.
    pub fn then(mut self, operation: impl InTxn) -> Self {
        self.request.then.push(unnumbered(operation.into_request()));
        self
    }

    /// Executed if some comparison does not hold.
    pub fn otherwise(mut self, operation: impl InTxn) -> Self {
        let operation = unnumbered(operation.into_request());
        self.request.otherwise.push(operation);
        self
    }

    /// Sends the request. An operation that is refused fails it all, with that operation's reason and with its place in
    /// the metadata `branch` and `operation_index`. Under a request id of the caller's own, sessions that are created or
    /// rotated need tokens of the caller's own, too.
    pub async fn send(mut self) -> Result<Reply<v1::TxnResponse>, Error> {
        // A later call with the caller's own request id must be the same request, so that the caller names tokens then.
        if !self.options.identity.is_named() {
            let request = &mut self.request;
            for operation in request.then.iter_mut().chain(&mut request.otherwise) {
                draw_token(operation)?;
            }
        }
        let request = Request::Txn(self.request);
        self.client.call(request, self.options, pick!(Txn)).await
    }
}

fn unnumbered(request: Request) -> v1::Operation {
    v1::Operation {
        sequence: 0,
        request: Some(request),
    }
}

/// A session's token is drawn here, so that a retry brings the same one.
fn draw_token(operation: &mut v1::Operation) -> Result<(), Error> {
    let token = match &mut operation.request {
        Some(Request::CreateSession(create)) => &mut create.token,
        Some(Request::RotateSession(rotate)) => &mut rotate.new_token,
        _ => return Ok(()),
    };
    if token.is_empty() {
        *token = SessionToken::draw(0)?.expose();
    }
    Ok(())
}

/// What must hold for `then` to be executed.
#[derive(Debug, Clone, PartialEq)]
pub struct Compare(v1::Compare);

/// What a comparison is about. Finish it with what it is compared with.
#[must_use]
pub struct Compared(Target);

impl Compare {
    /// A key.
    pub fn key(key: impl Into<String>) -> Compared {
        Compared(Target::Key(key.into()))
    }

    /// A session.
    pub fn session(token: impl Into<String>) -> Compared {
        Compared(Target::SessionToken(token.into()))
    }

    /// A cart.
    pub fn cart(owner: &CartOwner) -> Compared {
        Compared(Target::Cart(owner.into()))
    }
}

impl Compared {
    /// It is there.
    #[must_use]
    pub fn exists(self) -> Compare {
        self.with(v1::Relation::Equal, Operand::Exists(true))
    }

    /// It is not there.
    #[must_use]
    pub fn is_absent(self) -> Compare {
        self.with(v1::Relation::Equal, Operand::Exists(false))
    }

    /// Nobody has changed it since this revision.
    #[must_use]
    pub fn mod_revision_is(self, revision: Revision) -> Compare {
        self.mod_revision(v1::Relation::Equal, revision)
    }

    /// Its mod revision; 0 for what is not there.
    #[must_use]
    pub fn mod_revision(self, relation: v1::Relation, revision: Revision) -> Compare {
        self.with(relation, Operand::ModRevision(revision.get()))
    }

    /// Its create revision; 0 for what is not there. It is what a lock's fencing token is compared with.
    #[must_use]
    pub fn create_revision(self, relation: v1::Relation, revision: Revision) -> Compare {
        self.with(relation, Operand::CreateRevision(revision.get()))
    }

    /// A key's value is this.
    #[must_use]
    pub fn value_is(self, value: impl Into<Bytes>) -> Compare {
        self.value(v1::Relation::Equal, value)
    }

    /// A key's value, by bytes.
    #[must_use]
    pub fn value(self, relation: v1::Relation, value: impl Into<Bytes>) -> Compare {
        self.with(relation, Operand::Value(value.into()))
    }

    /// A counter's number.
    #[must_use]
    pub fn counter(self, relation: v1::Relation, number: i64) -> Compare {
        self.with(relation, Operand::Counter(number))
    }

    fn with(self, relation: v1::Relation, operand: Operand) -> Compare {
        Compare(v1::Compare {
            relation: relation.into(),
            target: Some(self.0),
            operand: Some(operand),
        })
    }
}
