//! The naive model's merges of carts, by themselves and at the end of a session.

use super::carts::{Cart, check_total, push, same_currency, thawed};
use super::{Model, check};
use crate::limits;
use crate::proto::internal as pb;
use crate::proto::internal::reply::Body;
use crate::proto::v1;
use crate::state::{CartOwner, MergePolicy, Rejection};
use crate::types::{Namespace, Revision, TokenHash, UserId};

/// What a merge comes to.
struct Merged {
    after: Cart,
    taken: u32,
    dropped: u32,
}

impl Model {
    pub fn merge_carts(
        &mut self,
        ns: &Namespace,
        source: &CartOwner,
        target: &CartOwner,
        policy: MergePolicy,
        (if_source, if_target): (Option<Revision>, Option<Revision>),
    ) -> Result<Body, Rejection> {
        let (source_at, from) = self.find_cart(ns, source)?;
        let (target_at, into) = self.find_cart(ns, target)?;
        if source_at == target_at {
            return Ok(Body::CartsMerged(pb::CartsMerged {
                already_merged: true,
                mod_revision: into.modified,
                ..pb::CartsMerged::default()
            }));
        }
        if source_at != *source {
            return Err(Rejection::CartMergedElsewhere);
        }
        check(if_source, from.modified)?;
        check(if_target, into.modified)?;
        let merged = self.merged(&from, &into, policy)?;
        let revision = self.bump();
        let mod_revision = self.take_merged(ns, &target_at, &into, merged.after, revision);
        let pointer = Cart {
            created: from.created,
            modified: revision,
            last_line: from.last_line,
            merged_into: Some(target_at),
            ..Cart::default()
        };
        self.store_cart(ns, source, pointer);
        Ok(Body::CartsMerged(pb::CartsMerged {
            already_merged: false,
            mod_revision,
            taken_lines: merged.taken,
            dropped_lines: merged.dropped,
        }))
    }

    /// Gives a session's cart to a user, at the end of the session and of some others of the user.
    pub fn merge_at_end(
        &mut self,
        ns: &Namespace,
        (ending, token): (&[TokenHash], TokenHash),
        user: &str,
        policy: MergePolicy,
        revision: u64,
    ) -> Result<Option<pb::CartsMerged>, Rejection> {
        let source = CartOwner::Session(token);
        let target = CartOwner::User(UserId::parse(user).expect("short"));
        let (source_at, from) = self.find_cart_without(ns, &source, ending)?;
        let gone: Vec<_> = ending.iter().copied().chain([token]).collect();
        let (target_at, into) = self.find_cart_without(ns, &target, &gone)?;
        if source_at == target_at {
            return Ok(Some(pb::CartsMerged {
                already_merged: true,
                mod_revision: into.modified,
                ..pb::CartsMerged::default()
            }));
        }
        if source_at != source {
            return Ok(None);
        }
        let merged = self.merged(&from, &into, policy)?;
        Ok(Some(pb::CartsMerged {
            already_merged: false,
            mod_revision: self.take_merged(ns, &target_at, &into, merged.after, revision),
            taken_lines: merged.taken,
            dropped_lines: merged.dropped,
        }))
    }

    /// Puts the target's new content in place, if it is another, and returns its revision.
    fn take_merged(
        &mut self,
        ns: &Namespace,
        target: &CartOwner,
        before: &Cart,
        mut after: Cart,
        revision: u64,
    ) -> u64 {
        let own = self.own_cart(ns, target);
        let is_void = own.is_some_and(|own| own.merged_into.is_some());
        if after == *before && !is_void {
            return before.modified;
        }
        after.order = String::new();
        after.modified = revision;
        self.store_cart(ns, target, after);
        revision
    }

    /// What the target of a merge will hold.
    fn merged(&self, from: &Cart, into: &Cart, policy: MergePolicy) -> Result<Merged, Rejection> {
        thawed(from, self.now)?;
        let policy = match policy {
            MergePolicy::SourceIfTargetEmpty if into.lines.is_empty() => MergePolicy::KeepSource,
            MergePolicy::SourceIfTargetEmpty => MergePolicy::KeepTarget,
            policy => policy,
        };
        let policy = match policy {
            MergePolicy::KeepSource if from.lines.is_empty() => MergePolicy::KeepTarget,
            policy => policy,
        };
        let mut after = into.clone();
        let (mut taken, mut dropped) = (from.lines.len(), 0);
        match policy {
            MergePolicy::KeepTarget => (taken, dropped) = (0, taken),
            MergePolicy::KeepSource => {
                dropped = into.lines.len();
                after.lines = Vec::new();
                after.details = from.details.clone();
                for line in &from.lines {
                    push(&mut after, line);
                }
            }
            _ => join(&mut after, from, policy == MergePolicy::Sum)?,
        }
        if after != *into {
            thawed(into, self.now)?;
        }
        Ok(Merged {
            after,
            taken: u32::try_from(taken).expect("few lines"),
            dropped: u32::try_from(dropped).expect("few lines"),
        })
    }
}

/// All of both carts.
fn join(into: &mut Cart, from: &Cart, sums: bool) -> Result<(), Rejection> {
    for line in &from.lines {
        if let Some(price) = &line.unit_price {
            same_currency(into, &price.currency)?;
        }
    }
    for line in &from.lines {
        let same = |other: &&mut v1::CartLine| {
            other.sku == line.sku && other.attributes == line.attributes
        };
        match into.lines.iter_mut().find(same) {
            None => drop(push(into, line)),
            Some(found) => {
                found.quantity = if sums {
                    found.quantity + line.quantity
                } else {
                    found.quantity.max(line.quantity)
                };
                if found.quantity > limits::QUANTITY_MAX {
                    return Err(Rejection::QuantityLimit);
                }
                found.unit_price = line.unit_price.clone().or(found.unit_price.take());
            }
        }
    }
    if into.lines.len() > limits::CART_LINES {
        return Err(Rejection::CartLinesLimit);
    }
    check_total(into)?;
    let (ours, theirs) = (&mut into.details, &from.details);
    if ours.note.is_empty() {
        ours.note.clone_from(&theirs.note);
    }
    for code in &theirs.coupon_codes {
        if !ours.coupon_codes.contains(code) {
            ours.coupon_codes.push(code.clone());
        }
    }
    for (name, value) in &theirs.attributes {
        let entry = ours.attributes.entry(name.clone());
        entry.or_insert_with(|| value.clone());
    }
    if ours.shipping_address.is_empty() {
        ours.shipping_address.clone_from(&theirs.shipping_address);
    }
    if ours.billing_address.is_empty() {
        ours.billing_address.clone_from(&theirs.billing_address);
    }
    Ok(())
}
