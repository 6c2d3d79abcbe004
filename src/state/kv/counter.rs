//! Counters: keys whose value is a number, changed by deltas within bounds. Stock is one: what is sold is taken away, and
//! never more than there is.

use super::operation::Increment;
use super::{Place, store};
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::state::apply::Outcome;
use crate::state::batch::Batch;
use crate::state::{Rejection, Store};
use crate::types::Ttl;

/// The sum, if it keeps to the bounds. What no `i64` holds is beyond every bound.
fn sum(actual: i64, increment: &Increment) -> Result<i64, Rejection> {
    let below = Rejection::CounterBelowMin { actual };
    let above = Rejection::CounterAboveMax { actual };
    match actual.checked_add(increment.delta) {
        None if increment.delta < 0 => Err(below),
        None => Err(above),
        Some(sum) if sum < increment.bounds.min() => Err(below),
        Some(sum) if sum > increment.bounds.max() => Err(above),
        Some(sum) => Ok(sum),
    }
}

pub(super) fn increment<S: Store>(
    batch: &mut Batch<'_, S>,
    place: &Place<'_>,
    increment: &Increment,
) -> Outcome {
    let live = place.live.and(batch.read::<pb::KvRecord>(place.id));
    let actual = match live {
        Some(kv) => kv.counter.ok_or(Rejection::NotACounter)?,
        None => increment.initial,
    };
    let is_new = live.is_none();
    let value = sum(actual, increment)?;
    if is_new {
        place.unlink(batch)?;
        create(batch, place, increment.ttl);
    }
    let revision = batch.next_revision();
    let kv = batch
        .change::<pb::KvRecord>(place.id)
        .expect("it is live or was just made");
    if is_new {
        kv.create_revision = revision.get();
    }
    kv.mod_revision = revision.get();
    kv.counter = Some(value);
    Ok(Body::KeyIncremented(pb::KeyIncremented {
        value,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        deadline: kv.deadline,
    }))
}

/// A record that still lacks its number and its revisions.
fn create<S: Store>(batch: &mut Batch<'_, S>, place: &Place<'_>, ttl: Option<Ttl>) {
    let deadline = ttl.map_or(0, |ttl| batch.now().after(ttl).as_millis());
    let record = pb::KvRecord {
        deadline,
        ..pb::KvRecord::default()
    };
    store(batch, place, record);
}
