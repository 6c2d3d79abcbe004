//! Requests become commands and queries here, and nowhere else: behind this module everything is valid.
//!
//! Unary calls and the exchange stream share one entry, [`operation`]. They differ in how a retry is recognised
//! ([`Origin`]) and in who draws a session's token. A token that does not decode is looked up like any other, under a hash
//! that no session has ([`TokenHash::of_text`]). So it is answered exactly like an absent one wherever it stands, and a caller
//! learns nothing from it, not even from how long the answer takes.

mod cart;
mod kv;
mod lease;
mod namespace;
mod session;
mod txn;
mod watch;

use crate::api::Error;
use crate::limits;
use crate::node::ReadMode;
use crate::proto::v1::{self, operation::Request};
use crate::state::{CartOwner, Command, Identity, RequestHash};
use crate::types::{
    ClientId, Invalid, Key, KeyPrefix, LeaseId, Namespace, RequestId, Revision, TokenHash, UserId,
};

pub(crate) use session::{CreateEcho, TokenEcho};
pub(crate) use txn::{StepEcho, TxnEcho};
pub(crate) use watch::{Filter, Kind, Watch, watch};

/// Where a request came in, which decides how its retries are recognised.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin {
    /// A unary call: by its `request_id`, if it has one.
    Unary,
    /// The exchange stream: by the client's sequence.
    Exchange {
        client: ClientId,
        sequence: u64,
        confirmed_below: u64,
    },
    /// A transaction, which is what a retry repeats: its operations have no identity of their own.
    Txn,
}

/// A valid request.
#[derive(Debug)]
pub(crate) enum Parsed {
    Write(Write),
    Read(Read),
}

/// A command, and what its response needs beside the reply.
#[derive(Debug)]
pub(crate) struct Write {
    pub command: Command,
    pub echo: Echo,
}

/// A query, and how fresh its answer must be.
#[derive(Debug)]
pub(crate) struct Read {
    pub mode: ReadMode,
    pub query: Query,
}

/// What a write's response repeats of its request. The stored reply holds only what the request does not say.
#[derive(Debug)]
pub(crate) enum Echo {
    SessionCreate(Box<CreateEcho>),
    SessionRotate(Box<TokenEcho>),
    SessionUpdate,
    SessionSave,
    SessionTouch,
    SessionDestroy,
    SessionEnd,
    SessionRevokeAll,
    NamespaceSet,
    CartAdd,
    CartSetQuantity,
    CartRemove,
    CartClear,
    CartUpdate,
    CartMerge,
    CartFreeze,
    CartRelease,
    CompleteOrder,
    KeyPut,
    KeyDelete,
    KeyIncrement,
    LeaseGrant,
    LeaseKeepAlive,
    LeaseRevoke,
    Txn(Box<TxnEcho>),
}

/// What to look up.
#[derive(Debug)]
pub(crate) enum Query {
    Session {
        namespace: Namespace,
        token: TokenHash,
        /// The session is touched as well, if that is due.
        touch: bool,
    },
    UserSessions {
        namespace: Namespace,
        user: UserId,
        /// The session that the listing marks.
        current: TokenHash,
        /// The place after which it begins.
        after: u64,
        limit: usize,
    },
    Namespace {
        namespace: Namespace,
    },
    Cart {
        namespace: Namespace,
        owner: CartOwner,
        /// Even if it was merged.
        own: bool,
    },
    Key {
        namespace: Namespace,
        key: Key,
    },
    List {
        namespace: Namespace,
        prefix: KeyPrefix,
        after: Option<Key>,
        limit: usize,
    },
    Lease {
        namespace: Namespace,
        lease: LeaseId,
    },
}

/// Checks a request.
pub(crate) fn operation(request: Request, origin: Origin) -> Result<Parsed, Error> {
    match request {
        Request::CreateSession(r) => session::create(r, origin).map(Parsed::Write),
        Request::GetSession(r) => session::get(r).map(Parsed::Read),
        Request::UpdateSession(r) => session::update(r, origin).map(Parsed::Write),
        Request::TouchSession(r) => session::touch(r, origin).map(Parsed::Write),
        Request::DestroySession(r) => session::destroy(r, origin).map(Parsed::Write),
        Request::RotateSession(r) => session::rotate(*r, origin).map(Parsed::Write),
        Request::SaveSession(r) => session::save(r, origin).map(Parsed::Write),
        Request::ListSessions(r) => session::list(r).map(Parsed::Read),
        Request::EndSession(r) => session::end(r, origin).map(Parsed::Write),
        Request::RevokeAllSessions(r) => session::revoke_all(r, origin).map(Parsed::Write),
        Request::GetNamespace(r) => namespace::get(r).map(Parsed::Read),
        Request::SetNamespace(r) => namespace::set(*r, origin).map(Parsed::Write),
        Request::AddCartLine(r) => cart::add(r, origin).map(Parsed::Write),
        Request::SetCartLineQuantity(r) => cart::set_quantity(r, origin).map(Parsed::Write),
        Request::RemoveCartLine(r) => cart::remove(r, origin).map(Parsed::Write),
        Request::ClearCart(r) => cart::clear(r, origin).map(Parsed::Write),
        Request::GetCart(r) => cart::get(r).map(Parsed::Read),
        Request::UpdateCart(r) => cart::update(r, origin).map(Parsed::Write),
        Request::MergeCarts(r) => cart::merge(r, origin).map(Parsed::Write),
        Request::FreezeCart(r) => cart::freeze(r, origin).map(Parsed::Write),
        Request::ReleaseCart(r) => cart::release(r, origin).map(Parsed::Write),
        Request::CompleteOrder(r) => cart::complete_order(r, origin).map(Parsed::Write),
        Request::GetKey(r) => kv::get(r).map(Parsed::Read),
        Request::PutKey(r) => kv::put(r, origin).map(Parsed::Write),
        Request::DeleteKey(r) => kv::delete(r, origin).map(Parsed::Write),
        Request::ListKeys(r) => kv::list(r).map(Parsed::Read),
        Request::IncrementKey(r) => kv::increment(r, origin).map(Parsed::Write),
        Request::GrantLease(r) => lease::grant(r, origin).map(Parsed::Write),
        Request::KeepLeaseAlive(r) => lease::keep_alive(r, origin).map(Parsed::Write),
        Request::RevokeLease(r) => lease::revoke(r, origin).map(Parsed::Write),
        Request::GetLease(r) => lease::get(r).map(Parsed::Read),
        Request::Txn(r) => txn::txn(r, origin).map(Parsed::Write),
    }
}

fn request_id(text: String) -> Result<Option<RequestId>, Invalid> {
    if text.is_empty() {
        return Ok(None);
    }
    RequestId::parse(text).map(Some)
}

fn identity(text: String, origin: Origin) -> Result<Identity, Error> {
    match origin {
        Origin::Unary => Ok(request_id(text)?.map_or(Identity::Anonymous, |id| {
            Identity::Request(RequestHash::of(&id))
        })),
        Origin::Exchange { .. } if !text.is_empty() => Err(Error::Invalid(Invalid::Exclusive {
            first: "request_id",
            second: "sequence",
        })),
        Origin::Exchange {
            client,
            sequence,
            confirmed_below,
        } => Ok(Identity::Client {
            client,
            sequence,
            confirmed_below,
        }),
        Origin::Txn if !text.is_empty() => Err(Error::Invalid(Invalid::Exclusive {
            first: "request_id",
            second: "a transaction's own",
        })),
        Origin::Txn => Ok(Identity::Anonymous),
    }
}

fn revision(number: Option<u64>) -> Option<Revision> {
    number.map(Revision::new)
}

/// Items of one page of a listing.
fn page_size(limit: u32) -> Result<usize, Invalid> {
    match limit as usize {
        0 => Ok(limits::LIST_DEFAULT),
        size @ 1..=limits::LIST_MAX => Ok(size),
        _ => Err(Invalid::OutOfRange {
            field: "limit",
            min: 0,
            max: i64::try_from(limits::LIST_MAX).expect("a page fits i64"),
            actual: i64::from(limit),
        }),
    }
}

fn read_mode(options: Option<v1::ReadOptions>) -> Result<ReadMode, Invalid> {
    let options = options.unwrap_or_default();
    let consistency = v1::Consistency::try_from(options.consistency);
    let mode = match consistency {
        Ok(v1::Consistency::Unspecified | v1::Consistency::Linearizable) => ReadMode::Linearizable,
        Ok(v1::Consistency::Stale) => ReadMode::Stale,
        Ok(v1::Consistency::AtLeastRevision) => {
            return Ok(ReadMode::AtLeast(Revision::new(options.min_revision)));
        }
        Err(_) => {
            return Err(Invalid::Malformed {
                field: "consistency",
                expected: "LINEARIZABLE, AT_LEAST_REVISION or STALE",
            });
        }
    };
    if options.min_revision != 0 {
        return Err(Invalid::Malformed {
            field: "min_revision",
            expected: "0, except with AT_LEAST_REVISION",
        });
    }
    Ok(mode)
}

#[cfg(test)]
mod cart_tests;
#[cfg(test)]
mod tests;
