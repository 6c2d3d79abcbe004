//! The watch service's requests.

use std::time::Duration;

use super::cart;
use crate::api::Error;
use crate::limits;
use crate::proto::v1::{self, watch_filter::Filter as Asked};
use crate::state::CartOwner;
use crate::types::{Invalid, KeyPrefix, Namespace, Revision, UserId};

/// What to be told of.
#[derive(Debug)]
pub(crate) struct Watch {
    /// `None`: all of them.
    pub namespace: Option<Namespace>,
    /// `None`: what comes next.
    pub start: Option<Revision>,
    /// Any of them; all events without one.
    pub filters: Vec<Filter>,
    pub progress: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Filter {
    Kind(Kind),
    KeyPrefix(KeyPrefix),
    User(UserId),
    Cart(CartOwner),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Session,
    Cart,
    Key,
}

pub(crate) fn watch(r: v1::WatchRequest) -> Result<Watch, Error> {
    if r.all_namespaces && !r.namespace.is_empty() {
        return Err(Error::Invalid(Invalid::Exclusive {
            first: "namespace",
            second: "all_namespaces",
        }));
    }
    let namespace = Namespace::parse(r.namespace)?;
    let progress = progress(r.progress_interval_ms)?;
    if r.filters.len() > limits::WATCH_FILTERS {
        return Err(Error::Invalid(Invalid::TooMany {
            field: "filters",
            limit: limits::WATCH_FILTERS,
            actual: r.filters.len(),
        }));
    }
    let filters = r.filters.into_iter().map(filter);
    Ok(Watch {
        namespace: (!r.all_namespaces).then_some(namespace),
        start: (r.start_revision != 0).then(|| Revision::new(r.start_revision)),
        progress,
        filters: filters.collect::<Result<_, _>>()?,
    })
}

fn progress(millis: u32) -> Result<Duration, Invalid> {
    let millis = match millis {
        0 => limits::WATCH_PROGRESS_DEFAULT_MS,
        asked @ limits::WATCH_PROGRESS_MIN_MS..=limits::WATCH_PROGRESS_MAX_MS => asked,
        asked => {
            return Err(Invalid::OutOfRange {
                field: "progress_interval_ms",
                min: limits::WATCH_PROGRESS_MIN_MS.into(),
                max: limits::WATCH_PROGRESS_MAX_MS.into(),
                actual: asked.into(),
            });
        }
    };
    Ok(Duration::from_millis(millis.into()))
}

fn filter(filter: v1::WatchFilter) -> Result<Filter, Error> {
    Ok(match filter.filter {
        None => return Err(Error::Invalid(Invalid::Empty { field: "filter" })),
        Some(Asked::Kind(kind)) => Filter::Kind(self::kind(kind)?),
        Some(Asked::KeyPrefix(prefix)) => Filter::KeyPrefix(KeyPrefix::parse(prefix)?),
        Some(Asked::UserId(user)) => Filter::User(UserId::parse(user)?),
        Some(Asked::CartOwner(owner)) => Filter::Cart(cart::owner(Some(owner))?),
    })
}

fn kind(kind: i32) -> Result<Kind, Invalid> {
    match v1::RecordKind::try_from(kind) {
        Ok(v1::RecordKind::Session) => Ok(Kind::Session),
        Ok(v1::RecordKind::Cart) => Ok(Kind::Cart),
        Ok(v1::RecordKind::Key) => Ok(Kind::Key),
        Ok(v1::RecordKind::Unspecified) | Err(_) => Err(Invalid::Malformed {
            field: "kind",
            expected: "SESSION, CART or KEY",
        }),
    }
}
