//! One cart into another.
//!
//! A merge gives the target what the policy takes from the source, empties the source and leaves a pointer in it, all
//! under one revision. It is planned before anything is changed, so that an operation which merges among other things
//! (a login) can be refused as a whole: [`plan_at_end`], then [`Plan::carry_out`].
//!
//! Invariants:
//! 1. The target is never a pointer, and never the source: pointers have no cycle that an operation could run into.
//! 2. Merging a source again into where it points changes nothing, so that no line that was removed since comes back.
//! 3. A source that points elsewhere is left alone: its lines are another owner's by now.
//! 4. A source that holds nothing becomes a pointer all the same: its owner fills the target from then on.

use super::operation::MergePolicy;
use super::{Open, change, check_revision, edit, life, new_cart, record, replace, totals};
use super::{count, follow, open, open_beside, open_own};
use crate::limits;
use crate::proto::internal::reply::Body;
use crate::proto::{internal as pb, v1};
use crate::state::apply::{Outcome, Stop};
use crate::state::batch::Batch;
use crate::state::command::CartOwner;
use crate::state::namespace::cart_policy;
use crate::state::{Fault, Key, Rejection, Store};
use crate::types::{Namespace, Quantity, Revision, TextMap, TokenHash, UserId};

/// What a merge came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MergeOutcome {
    /// The source is a pointer now.
    Merged {
        /// Lines of the source that the target took.
        taken_lines: u32,
        /// Lines of either cart that the policy dropped.
        dropped_lines: u32,
    },
    /// Both owners had the same cart already: nothing changes.
    AlreadyMerged,
    /// The source was merged into another cart before: nothing changes.
    MergedElsewhere,
}

/// A merge that will succeed, as long as nothing else changes the two carts first.
#[derive(Debug)]
pub(in crate::state) struct Plan {
    source: Open,
    target: Open,
    /// What the target will hold; `None` where it stays as it is.
    after: Option<pb::CartRecord>,
    outcome: MergeOutcome,
}

impl Plan {
    /// Whether carrying it out changes a record, and so needs a revision.
    fn changes(&self) -> bool {
        matches!(self.outcome, MergeOutcome::Merged { .. })
    }

    /// Makes the changes, under the revision of the command that they are part of, and tells what they came to.
    pub(in crate::state) fn carry_out<S: Store>(
        self,
        batch: &mut Batch<'_, S>,
        revision: Revision,
    ) -> pb::CartsMerged {
        if self.changes() {
            if let Some(after) = self.after {
                replace(batch, &self.target, revision, after);
            }
            let source = change(batch, &self.source, revision);
            source.lines.clear();
            source.details = None;
            source.freeze = None;
            source.merged_into = stored_owner(&self.target.key);
            life::renew(batch, &self.source);
        }
        merged(batch, &self.target, self.outcome)
    }

    /// The source was merged into another cart before.
    pub(in crate::state) fn leads_elsewhere(&self) -> bool {
        self.outcome == MergeOutcome::MergedElsewhere
    }
}

/// Checks the merge of a session's cart into a user's, at the end of the session. The sessions that end together with it
/// are given, because a cart that points at one of theirs is about to point nowhere.
///
/// It is refused where either cart is frozen (a target only if it would change), where their currencies differ and both
/// kinds of prices would have to stay, and where the target would pass a limit. Policies that keep one side are never
/// refused for anything but a freeze.
pub(in crate::state) fn plan_at_end<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    (session, user): (&TokenHash, &UserId),
    policy: MergePolicy,
    ending: &[TokenHash],
) -> Result<Plan, Stop> {
    let owners = (CartOwner::Session(*session), CartOwner::User(user.clone()));
    let own = open_own(batch, namespace, &owners.0)?;
    let source = follow(batch, namespace, &own, ending)?;
    // The user's cart may point at the very cart that is about to end.
    let ending: Vec<_> = ending.iter().chain([session]).copied().collect();
    let target = open_beside(batch, namespace, &owners.1, &ending)?;
    let plan = compare(&own, source, target);
    if !plan.changes() {
        return Ok(plan);
    }
    fill(batch, plan, policy)
}

/// Finds both carts, and whether they were merged before.
fn find<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    source: &CartOwner,
    target: &CartOwner,
) -> Result<Plan, Stop> {
    let own = open_own(batch, namespace, source)?;
    let target = open(batch, namespace, target)?;
    let source = follow(batch, namespace, &own, &[])?;
    Ok(compare(&own, source, target))
}

/// `source` is the cart that the owner of `own` fills.
fn compare(own: &Open, source: Open, target: Open) -> Plan {
    let outcome = if source.key == target.key {
        MergeOutcome::AlreadyMerged
    } else if source.key != own.key {
        MergeOutcome::MergedElsewhere
    } else {
        MergeOutcome::Merged {
            taken_lines: 0,
            dropped_lines: 0,
        }
    };
    Plan {
        source,
        target,
        after: None,
        outcome,
    }
}

/// Computes what the target will hold.
fn fill<S: Store>(batch: &Batch<'_, S>, mut plan: Plan, policy: MergePolicy) -> Result<Plan, Stop> {
    let empty = new_cart();
    let source = record(batch, &plan.source);
    life::check_thawed(source, batch.now())?;
    let source = source.unwrap_or(&empty);
    let target = record(batch, &plan.target);
    let kept = target.unwrap_or(&empty);
    let takes_all = match policy {
        MergePolicy::KeepSource => !source.lines.is_empty(),
        MergePolicy::SourceIfTargetEmpty => !source.lines.is_empty() && kept.lines.is_empty(),
        MergePolicy::Sum | MergePolicy::Max | MergePolicy::KeepTarget => false,
    };
    let (taken, dropped) = match policy {
        MergePolicy::Sum | MergePolicy::Max => (source.lines.len(), 0),
        _ if takes_all => (source.lines.len(), kept.lines.len()),
        _ => (0, source.lines.len()),
    };
    let after = match policy {
        MergePolicy::Sum => join(kept, source, |a, b| edit::sum(a, b).map(Quantity::get))?,
        MergePolicy::Max => join(kept, source, |a, b| Ok(a.max(b)))?,
        _ if takes_all => take(kept, source),
        _ => kept.clone(),
    };
    plan.outcome = MergeOutcome::Merged {
        taken_lines: count(taken),
        dropped_lines: count(dropped),
    };
    // A pointer that leads nowhere is replaced, so that no chain goes on behind the target.
    let is_void = target.is_none()
        && batch
            .read::<pb::CartRecord>(plan.target.cart)
            .is_some_and(|cart| life::is_live(cart, batch.now()));
    if after == *kept && !is_void {
        return Ok(plan);
    }
    life::check_thawed(target, batch.now())?;
    plan.after = Some(after);
    Ok(plan)
}

/// The target with everything that the source holds, as if each line were added to it.
fn join(
    target: &pb::CartRecord,
    source: &pb::CartRecord,
    combine: impl Fn(u32, u32) -> Result<u32, Rejection>,
) -> Result<pb::CartRecord, Rejection> {
    let currencies = (
        totals::currency(&target.lines),
        totals::currency(&source.lines),
    );
    if let (Some(a), Some(b)) = currencies
        && a != b
    {
        return Err(Rejection::CurrencyMismatch);
    }
    let mut joined = target.clone();
    for line in &source.lines {
        let same = |other: &&mut v1::CartLine| {
            other.sku == line.sku && other.attributes == line.attributes
        };
        if let Some(found) = joined.lines.iter_mut().find(same) {
            found.quantity = combine(found.quantity, line.quantity)?;
            if line.unit_price.is_some() {
                found.unit_price.clone_from(&line.unit_price);
            }
        } else {
            append(&mut joined, line);
        }
    }
    if joined.lines.len() > limits::CART_LINES {
        return Err(Rejection::CartLinesLimit);
    }
    totals::check(&joined.lines)?;
    joined.details = join_details(target.details.as_ref(), source.details.as_ref())?;
    Ok(joined)
}

/// What the target says goes before what the source says; lists have both.
fn join_details(
    target: Option<&v1::CartDetails>,
    source: Option<&v1::CartDetails>,
) -> Result<Option<v1::CartDetails>, Rejection> {
    let (Some(target), Some(source)) = (target, source) else {
        return Ok(target.or(source).cloned());
    };
    let mut joined = source.clone();
    if !target.note.is_empty() {
        joined.note.clone_from(&target.note);
    }
    if !target.shipping_address.is_empty() {
        joined.shipping_address.clone_from(&target.shipping_address);
    }
    if !target.billing_address.is_empty() {
        joined.billing_address.clone_from(&target.billing_address);
    }
    let attributes = target.attributes.iter();
    joined
        .attributes
        .extend(attributes.map(|(name, value)| (name.clone(), value.clone())));
    let new = |code: &&String| !target.coupon_codes.contains(code);
    let codes = target.coupon_codes.iter();
    joined.coupon_codes = codes
        .chain(source.coupon_codes.iter().filter(new))
        .cloned()
        .collect();
    if joined.coupon_codes.len() > limits::CART_COUPONS {
        return Err(Rejection::CartCouponsLimit);
    }
    if joined.attributes.len() > limits::CART_ATTRIBUTES
        || TextMap::size(&joined.attributes) > limits::CART_ATTRIBUTE_BYTES
    {
        return Err(Rejection::CartAttributesLimit);
    }
    Ok(Some(joined))
}

/// The target with what the source holds and nothing else. Its line ids go on: those that it had are not used again.
fn take(target: &pb::CartRecord, source: &pb::CartRecord) -> pb::CartRecord {
    let mut taken = target.clone();
    taken.lines.clear();
    for line in &source.lines {
        append(&mut taken, line);
    }
    taken.details.clone_from(&source.details);
    taken
}

fn append(cart: &mut pb::CartRecord, line: &v1::CartLine) {
    let line_id = edit::take_line_id(cart);
    cart.lines.push(v1::CartLine {
        line_id,
        ..line.clone()
    });
}

fn stored_owner(key: &Key) -> Option<pb::StoredOwner> {
    match key {
        Key::UserCart(_, user) => Some((&CartOwner::User(user.clone())).into()),
        Key::SessionCart(_, token) => Some((&CartOwner::Session(*token)).into()),
        _ => None,
    }
}

/// Gives the cart of a session that is replaced to the session that replaces it: frozen or merged, as it is. Nothing can
/// refuse that. The old session has a cart that is live, the new one has a record and no cart. Returns the cart's revision.
pub(in crate::state) fn hand_over<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    from: &TokenHash,
    to: &TokenHash,
) -> Result<u64, Fault> {
    let old_session = batch.load(&Key::Session(namespace.clone(), *from))?;
    let old = batch.load(&Key::SessionCart(namespace.clone(), *from))?;
    let cart = batch.read::<pb::CartRecord>(old).cloned();
    let cart = cart.unwrap_or_default();
    super::delete_with_session(batch, old_session, namespace, from)?;
    if let Some(session) = batch.change_unseen::<pb::SessionRecord>(old_session) {
        session.has_cart = false;
    }
    let session = batch.load(&Key::Session(namespace.clone(), *to))?;
    let new = Key::SessionCart(namespace.clone(), *to);
    let open = Open {
        cart: batch.load(&new)?,
        key: new,
        session: Some(session),
        is_new: false,
        ttls: cart_policy(batch, namespace)?,
    };
    if let Some(session) = batch.change_unseen::<pb::SessionRecord>(session) {
        session.has_cart = true;
    }
    let cart = pb::CartRecord {
        indexed_deadline: 0,
        ..cart
    };
    let revision = cart.mod_revision;
    batch.put(open.cart, cart);
    life::renew(batch, &open);
    Ok(revision)
}

/// Executes a merge that was asked for by itself, under conditions on source and target.
pub(super) fn operate<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    (source, target): (&CartOwner, &CartOwner),
    policy: MergePolicy,
    (if_source, if_target): (Option<Revision>, Option<Revision>),
) -> Outcome {
    let mut plan = find(batch, namespace, source, target)?;
    if plan.outcome == MergeOutcome::MergedElsewhere {
        return Err(Rejection::CartMergedElsewhere.into());
    }
    if plan.changes() {
        check_revision(batch, &plan.source, if_source)?;
        check_revision(batch, &plan.target, if_target)?;
        plan = fill(batch, plan, policy)?;
    }
    let revision = if plan.changes() {
        batch.next_revision()
    } else {
        batch.revision()
    };
    Ok(Body::CartsMerged(plan.carry_out(batch, revision)))
}

fn merged<S: Store>(batch: &Batch<'_, S>, target: &Open, outcome: MergeOutcome) -> pb::CartsMerged {
    let (taken_lines, dropped_lines) = match outcome {
        MergeOutcome::Merged {
            taken_lines,
            dropped_lines,
        } => (taken_lines, dropped_lines),
        MergeOutcome::AlreadyMerged | MergeOutcome::MergedElsewhere => (0, 0),
    };
    let target = batch.read::<pb::CartRecord>(target.cart);
    pb::CartsMerged {
        already_merged: outcome == MergeOutcome::AlreadyMerged,
        mod_revision: target
            .filter(|cart| cart.merged_into.is_none() && super::is_live(cart, batch.now()))
            .map_or(0, |cart| cart.mod_revision),
        taken_lines,
        dropped_lines,
    }
}
