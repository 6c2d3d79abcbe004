//! `/v1/transactions`: several operations as one, in one log entry, at one revision.
//!
//! An operation is named as in the document, and has the parameters and the body of its route: what a caller may not do
//! by itself it may not do in a transaction either.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{Owner, session};
use super::answer::Answer;
use super::blob::Blob;
use super::call::{Body, Call, with};
use super::cart_views::Cart;
use super::carts::{AddLine, Cleared, LineChanged, LineName, SetQuantity};
use super::checkout::{
    CartChange, CartChanged, FreezeBy, MergeInto, Merged, Order, Ordered, ReleaseBy, Released,
    TxnFrozen,
};
use super::documented::{SessionHeader, WriteHeaders, WriteProblems};
use super::keys::{Counted, Increment, Key, PutKey, Written};
use super::session_views::{Changed, Created, Rotated, Session, Touched};
use super::sessions::{NewSession, Rotation, SessionChange};
use crate::client::InTxn;
use crate::gateway::App;
use crate::gateway::auth::Scope;
use crate::gateway::problem::Problem;
use crate::limits;
use crate::proto::v1;
use crate::proto::v1::compare::{Operand as OperandMessage, Target as TargetMessage};
use crate::proto::v1::operation::Request;
use crate::proto::v1::outcome::Response;
use crate::types::Revision;

/// The routes.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(transact))
}

/// If every comparison holds `then` is carried out, otherwise `otherwise`; either may be empty.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Transaction {
    #[serde(default)]
    #[schema(max_items = 64)]
    compare: Vec<Compare>,
    #[serde(default)]
    #[schema(max_items = 64)]
    then: Vec<Operation>,
    #[serde(default)]
    #[schema(max_items = 64)]
    otherwise: Vec<Operation>,
}

/// What is stored, a relation, and what it is compared with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Compare {
    target: Target,
    #[serde(default)]
    relation: Relation,
    operand: Operand,
}

/// What a comparison looks at. It takes the scope that reads it.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Target {
    Key(String),
    Cart(Owner),
    /// That of the header `X-Trolley-Session`.
    Session,
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Relation {
    #[default]
    Equal,
    NotEqual,
    Less,
    Greater,
}

/// What it is compared with. What is not there is at revision 0.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Operand {
    Exists(bool),
    ModRevision(u64),
    CreateRevision(u64),
    /// Of a key.
    Value(Blob),
    /// Of a key that is a counter.
    Counter(i64),
}

/// What its route takes, by the same names; `if_match` and `if_absent` stand for the headers.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Operation {
    /// It brings its token.
    CreateSession(With<NewSession>),
    GetSession(Nothing),
    UpdateSession(WithCondition<SessionChange>),
    TouchSession(Nothing),
    DestroySession(Nothing),
    /// It brings its new token.
    RotateSession(With<Rotation>),
    GetCart(OfCart),
    ClearCart(OfCartIf),
    AddCartLine(OnCartIf<AddLine>),
    SetCartLineQuantity(OnLineIf),
    RemoveCartLine(OfLineIf),
    UpdateCart(OnCartIf<CartChange>),
    MergeCarts(OnCart<MergeInto>),
    FreezeCart(OnCartIf<FreezeBy>),
    ReleaseCart(OnCart<ReleaseBy>),
    CompleteOrder(OnCart<Order>),
    GetKey(OfKey),
    PutKey(OnKeyIf),
    DeleteKey(OfKeyIf),
    IncrementKey(OnKey<Increment>),
}

/// `{}`
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// A body.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct With<T> {
    body: T,
}

/// A body and a condition.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WithCondition<T> {
    body: T,
    if_match: Option<u64>,
}

/// A cart.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OfCart {
    owner: Owner,
}

/// A cart, and a condition.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OfCartIf {
    owner: Owner,
    if_match: Option<u64>,
}

/// A cart and a body.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OnCart<T> {
    owner: Owner,
    body: T,
}

/// A cart, a body and a condition.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OnCartIf<T> {
    owner: Owner,
    body: T,
    if_match: Option<u64>,
}

/// A line, and a condition.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OfLineIf {
    owner: Owner,
    line: LineName,
    if_match: Option<u64>,
}

/// A line, a body and a condition.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OnLineIf {
    owner: Owner,
    line: LineName,
    body: SetQuantity,
    if_match: Option<u64>,
}

/// A key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OfKey {
    key: String,
}

/// A key, and a condition.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OfKeyIf {
    key: String,
    if_match: Option<u64>,
}

/// A key and a body.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OnKey<T> {
    key: String,
    body: T,
}

/// A key, a body and a condition.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OnKeyIf {
    key: String,
    body: PutKey,
    if_match: Option<u64>,
    #[serde(default)]
    if_absent: bool,
}

/// What was done.
#[derive(Serialize, ToSchema)]
struct Transacted {
    /// Every comparison held, and `then` was carried out; otherwise `otherwise`.
    succeeded: bool,
    /// What each operation answers, in their order.
    results: Vec<Outcome>,
}

/// What its route answers.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    CreateSession(Box<Created>),
    /// `null` if there is none.
    GetSession(Option<Box<Session>>),
    UpdateSession(Changed),
    TouchSession(Touched),
    DestroySession(Done),
    RotateSession(Box<Rotated>),
    GetCart(Box<Cart>),
    ClearCart(Cleared),
    AddCartLine(LineChanged),
    SetCartLineQuantity(LineChanged),
    RemoveCartLine(LineChanged),
    UpdateCart(CartChanged),
    MergeCarts(Merged),
    FreezeCart(Box<TxnFrozen>),
    ReleaseCart(Released),
    CompleteOrder(Ordered),
    /// `null` if there is none.
    GetKey(Option<Key>),
    PutKey(Written),
    DeleteKey(Done),
    IncrementKey(Counted),
}

/// `{}`
#[derive(Serialize, ToSchema)]
struct Done {}

impl Target {
    async fn message(self, call: &Call) -> Result<TargetMessage, Problem> {
        Ok(match self {
            Self::Key(key) => {
                call.allow(Scope::KeyRead)?;
                TargetMessage::Key(key)
            }
            Self::Cart(owner) => {
                call.allow(Scope::CartRead)?;
                TargetMessage::Cart((&owner.resolve(call).await?).into())
            }
            Self::Session => {
                call.allow(Scope::SessionRead)?;
                TargetMessage::SessionToken(session(call, Scope::SessionAdmin).await?)
            }
        })
    }
}

impl Compare {
    async fn message(self, call: &Call) -> Result<v1::Compare, Problem> {
        let relation = match self.relation {
            Relation::Equal => v1::Relation::Equal,
            Relation::NotEqual => v1::Relation::NotEqual,
            Relation::Less => v1::Relation::Less,
            Relation::Greater => v1::Relation::Greater,
        };
        let operand = match self.operand {
            Operand::Exists(exists) => OperandMessage::Exists(exists),
            Operand::ModRevision(revision) => OperandMessage::ModRevision(revision),
            Operand::CreateRevision(revision) => OperandMessage::CreateRevision(revision),
            Operand::Value(value) => OperandMessage::Value(value.try_into()?),
            Operand::Counter(number) => OperandMessage::Counter(number),
        };
        Ok(v1::Compare {
            relation: relation.into(),
            target: Some(self.target.message(call).await?),
            operand: Some(operand),
        })
    }
}

impl Operation {
    /// What it takes to do it alone.
    fn scope(&self) -> Scope {
        match self {
            Self::GetSession(_) => Scope::SessionRead,
            Self::CreateSession(_)
            | Self::UpdateSession(_)
            | Self::TouchSession(_)
            | Self::DestroySession(_)
            | Self::RotateSession(_) => Scope::SessionWrite,
            Self::GetCart(_) => Scope::CartRead,
            Self::ClearCart(_)
            | Self::AddCartLine(_)
            | Self::SetCartLineQuantity(_)
            | Self::RemoveCartLine(_)
            | Self::UpdateCart(_)
            | Self::MergeCarts(_)
            | Self::FreezeCart(_)
            | Self::ReleaseCart(_)
            | Self::CompleteOrder(_) => Scope::CartWrite,
            Self::GetKey(_) => Scope::KeyRead,
            Self::PutKey(_) | Self::DeleteKey(_) | Self::IncrementKey(_) => Scope::KeyWrite,
        }
    }

    /// The request that it stands for, if the caller may ask for it.
    async fn message(self, call: &Call) -> Result<v1::Operation, Problem> {
        call.allow(self.scope())?;
        let request = self.request(call).await?;
        Ok(v1::Operation {
            sequence: 0,
            request: Some(request),
        })
    }

    async fn request(self, call: &Call) -> Result<Request, Problem> {
        let (sessions, carts, keys) = (
            call.client.sessions(),
            call.client.carts(),
            call.client.keys(),
        );
        let token = async || session(call, Scope::SessionAdmin).await;
        Ok(match self {
            Self::CreateSession(of) => of.body.build(call)?.into_request(),
            Self::GetSession(Nothing {}) => sessions.get(&token().await?).into_request(),
            Self::UpdateSession(of) => {
                let update = of.body.build(call, &token().await?)?;
                with!(update, if_revision(of.if_match.map(Revision::new))).into_request()
            }
            Self::TouchSession(Nothing {}) => sessions.touch(&token().await?).into_request(),
            Self::DestroySession(Nothing {}) => sessions.destroy(&token().await?).into_request(),
            Self::RotateSession(of) => of.body.build(call, &token().await?)?.into_request(),
            Self::GetCart(of) => carts.get(&of.owner.resolve(call).await?).into_request(),
            Self::ClearCart(of) => {
                let clear = carts.clear(&of.owner.resolve(call).await?);
                with!(clear, if_revision(of.if_match.map(Revision::new))).into_request()
            }
            Self::AddCartLine(of) => {
                let add = of.body.build(call, &of.owner.resolve(call).await?);
                with!(add, if_revision(of.if_match.map(Revision::new))).into_request()
            }
            Self::SetCartLineQuantity(of) => {
                let (owner, line) = (of.owner.resolve(call).await?, of.line.try_into()?);
                let set = carts.set_quantity(&owner, line, of.body.quantity);
                with!(set, if_revision(of.if_match.map(Revision::new))).into_request()
            }
            Self::RemoveCartLine(of) => {
                let remove = carts.remove(&of.owner.resolve(call).await?, of.line.try_into()?);
                with!(remove, if_revision(of.if_match.map(Revision::new))).into_request()
            }
            Self::UpdateCart(of) => {
                let update = of.body.build(call, &of.owner.resolve(call).await?)?;
                with!(update, if_revision(of.if_match.map(Revision::new))).into_request()
            }
            Self::MergeCarts(of) => {
                let source = of.owner.resolve(call).await?;
                of.body.build(call, &source).await?.into_request()
            }
            Self::FreezeCart(of) => {
                let freeze = of.body.build(call, &of.owner.resolve(call).await?);
                with!(freeze, if_revision(of.if_match.map(Revision::new))).into_request()
            }
            Self::ReleaseCart(of) => {
                let owner = of.owner.resolve(call).await?;
                carts.release(&owner, of.body.holder).into_request()
            }
            Self::CompleteOrder(of) => {
                let owner = of.owner.resolve(call).await?;
                of.body.build(call, &owner).into_request()
            }
            Self::GetKey(of) => keys.get(of.key).into_request(),
            Self::PutKey(of) => {
                let put = of.body.build(call, of.key, of.if_absent)?;
                with!(put, if_revision(of.if_match.map(Revision::new))).into_request()
            }
            Self::DeleteKey(of) => {
                let delete = keys.delete(of.key);
                with!(delete, if_revision(of.if_match.map(Revision::new))).into_request()
            }
            Self::IncrementKey(of) => of.body.build(call, of.key).into_request(),
        })
    }
}

async fn messages(call: &Call, operations: Vec<Operation>) -> Result<Vec<v1::Operation>, Problem> {
    let mut messages = Vec::with_capacity(operations.len());
    for operation in operations {
        messages.push(operation.message(call).await?);
    }
    Ok(messages)
}

impl Outcome {
    /// `None` for what no operation here answers.
    fn of(response: Response) -> Option<Self> {
        Some(match response {
            Response::CreateSession(created) => Self::CreateSession(Box::new((*created).into())),
            Response::GetSession(get) => {
                Self::GetSession(get.session.map(|session| Box::new(session.into())))
            }
            Response::UpdateSession(changed) => Self::UpdateSession(changed.into()),
            Response::TouchSession(touched) => Self::TouchSession(touched.into()),
            Response::DestroySession(_) => Self::DestroySession(Done {}),
            Response::RotateSession(rotated) => Self::RotateSession(Box::new(rotated.into())),
            Response::GetCart(get) => Self::GetCart(Box::new(get.cart.unwrap_or_default().into())),
            Response::ClearCart(cleared) => Self::ClearCart(cleared.into()),
            Response::AddCartLine(added) => {
                Self::AddCartLine(LineChanged::new(added.line, added.mod_revision))
            }
            Response::SetCartLineQuantity(set) => {
                Self::SetCartLineQuantity(LineChanged::new(set.line, set.mod_revision))
            }
            Response::RemoveCartLine(gone) => {
                Self::RemoveCartLine(LineChanged::new(gone.line, gone.mod_revision))
            }
            Response::UpdateCart(changed) => Self::UpdateCart(changed.into()),
            Response::MergeCarts(merged) => Self::MergeCarts(merged.into()),
            Response::FreezeCart(frozen) => Self::FreezeCart(Box::new((*frozen).into())),
            Response::ReleaseCart(released) => Self::ReleaseCart(released.into()),
            Response::CompleteOrder(ordered) => Self::CompleteOrder(ordered.into()),
            Response::GetKey(get) => Self::GetKey(get.item.map(Key::from)),
            Response::PutKey(put) => Self::PutKey(put.into()),
            Response::DeleteKey(_) => Self::DeleteKey(Done {}),
            Response::IncrementKey(sum) => Self::IncrementKey(sum.into()),
            _ => return None,
        })
    }
}

/// Several operations as one: all of them, at one revision, or none. Each takes its own scope, and so does what a
/// comparison looks at. One that is refused undoes all; `branch` and `operation_index` in the metadata say which.
#[utoipa::path(post, path = "/v1/transactions", tag = "transactions", operation_id = "transact",
    params(SessionHeader, WriteHeaders), request_body = Transaction,
    responses((status = 200, body = Transacted), WriteProblems))]
async fn transact(
    call: Call,
    Body(body): Body<Transaction>,
) -> Result<Answer<Transacted>, Problem> {
    call.no_condition()?;
    call.allow_any()?;
    let most = limits::TXN_COMPARES + 2 * limits::TXN_OPERATIONS;
    if body.compare.len() + body.then.len() + body.otherwise.len() > most {
        return Err(Problem::malformed(
            "the transaction has too many operations",
        ));
    }
    let mut compare = Vec::with_capacity(body.compare.len());
    for comparison in body.compare {
        compare.push(comparison.message(&call).await?);
    }
    let request = v1::TxnRequest {
        compare,
        then: messages(&call, body.then).await?,
        otherwise: messages(&call, body.otherwise).await?,
        ..Default::default()
    };
    let txn = with!(
        call.client.txn_of(request),
        request_id(call.request_id.clone())
    );
    let done = txn.send().await?;
    let responses = done
        .results
        .iter()
        .filter_map(|outcome| outcome.response.clone());
    let results: Option<Vec<_>> = responses.map(Outcome::of).collect();
    let results = results.ok_or(crate::client::Error::Protocol)?;
    Ok(Answer::of(done, |done| Transacted {
        succeeded: done.succeeded,
        results,
    }))
}
