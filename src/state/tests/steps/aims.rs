//! Operations with an aim: outcomes that need a session or an order in just the right state, which chance seldom finds.

use bytes::Bytes;

use super::super::model::Session;
use super::{Script, TOKENS, fields, pick, price};
use crate::state::{
    CartOperation, CartOwner, Fields, MergePolicy, Operation, Rotation, SavePolicy,
    SessionOperation, Step, Subject, Txn,
};
use crate::types::{
    Attributes, ClientAttributes, Namespace, OrderId, Quantity, Revision, Sku, TokenHash,
};

/// Kinds of steps from this one on have an aim.
const FIRST: u8 = 224;

impl Script {
    /// An operation on what there is, or `None` where the kind has no aim, or nothing to aim at.
    pub(super) fn aimed(&self, ns: &Namespace, kind: u8, bytes: [u8; 7]) -> Option<Operation> {
        match kind.checked_sub(FIRST)? % 5 {
            0 => self.fill_cart(ns, bytes),
            1 => self.rotate_with_cart(ns, bytes),
            2 => self.save_stale(ns, bytes).map(Into::into),
            3 => self.complete_again(ns, bytes),
            _ => {
                let (token, _) = self.living(ns, bytes[0], |_| true)?;
                let save = self.save_stale(ns, bytes)?.into();
                let then = vec![
                    Step::Get(Subject::Session(token)),
                    Step::write(save).expect("it may stand there"),
                ];
                let txn = Txn::new(Vec::new(), then, Vec::new()).expect("few");
                Some(Operation::Txn(Box::new(txn)))
            }
        }
    }

    /// A session of the namespace.
    fn living(
        &self,
        ns: &Namespace,
        byte: u8,
        is_fit: impl Fn(&Session) -> bool,
    ) -> Option<(TokenHash, &Session)> {
        let sessions = self.model.sessions.iter();
        let fit: Vec<_> = sessions
            .filter(|((other, _), session)| other == ns && is_fit(session))
            .map(|((_, token), session)| (*token, session))
            .collect();
        (!fit.is_empty()).then(|| pick(&fit, byte))
    }

    fn fill_cart(&self, ns: &Namespace, [a, b, c, ..]: [u8; 7]) -> Option<Operation> {
        let (token, _) = self.living(ns, a, |_| true)?;
        Some(Operation::Cart(CartOperation::Add {
            owner: CartOwner::Session(token),
            sku: Sku::parse(format!("s{}", b % 3)).expect("short"),
            quantity: Quantity::parse(1).expect("in range"),
            unit_price: price(c),
            attributes: Attributes::default(),
            if_revision: None,
        }))
    }

    /// The cart of a guest who stays one goes along; that of anybody else is merged into the user's.
    #[allow(
        clippy::many_single_char_names,
        reason = "random bytes have no better names"
    )]
    fn rotate_with_cart(
        &self,
        ns: &Namespace,
        [a, b, c, d, e, f, _]: [u8; 7],
    ) -> Option<Operation> {
        let (token, _) = self.living(ns, a, |session| session.cart.is_some())?;
        let mut tokens = (0..TOKENS).map(|nth| self.token(b.wrapping_add(nth)));
        let new_token = tokens.find(|token| {
            let id = (ns.clone(), *token);
            !self.model.sessions.contains_key(&id) && !self.model.ended.contains_key(&id)
        })?;
        let policies = [
            MergePolicy::Sum,
            MergePolicy::Max,
            MergePolicy::KeepTarget,
            MergePolicy::KeepSource,
            MergePolicy::SourceIfTargetEmpty,
        ];
        let rotation = Rotation {
            token,
            new_token,
            sealed_token: Bytes::copy_from_slice(&[c]),
            user: c.is_multiple_of(3).then(|| self.user(d % 2)),
            set: fields(e, d),
            remove: Vec::new(),
            idle_ttl: None,
            absolute_ttl: None,
            client: ClientAttributes::default(),
            cart_merge: pick(&policies, f),
        };
        Some(SessionOperation::Rotate(Box::new(rotation)).into())
    }

    /// The same order as before, or another of the same name.
    fn complete_again(&self, ns: &Namespace, [a, b, c, d, ..]: [u8; 7]) -> Option<Operation> {
        let orders = self.model.orders.iter();
        let known: Vec<_> = orders.filter(|((other, _), _)| other == ns).collect();
        if known.is_empty() {
            return None;
        }
        let ((_, name), order) = pick(&known, a);
        Some(Operation::Cart(CartOperation::CompleteOrder {
            owner: self.owner(b, c),
            holder: order.holder,
            revision: Revision::new(order.revision + u64::from(d.is_multiple_of(4))),
            order: OrderId::parse(name.as_str()).expect("short"),
        }))
    }

    /// Saves one field that was loaded with another value than it has, or than its absence.
    fn save_stale(&self, ns: &Namespace, [a, b, c, ..]: [u8; 7]) -> Option<SessionOperation> {
        let (token, session) = self.living(ns, a, |_| true)?;
        let names: Vec<_> = session.fields.keys().cloned().collect();
        let name = if names.is_empty() {
            "f0".to_owned()
        } else {
            pick(&names, b)
        };
        let field = |value| {
            let fields = [(name.clone(), Bytes::from_static(value))];
            Fields::parse(&fields.into()).expect("small")
        };
        Some(SessionOperation::Save {
            token,
            loaded: Revision::new(session.modified - 1),
            base: Some(field(b"loaded")),
            fields: field(b"saved"),
            policy: pick(
                &[
                    SavePolicy::FailOnConflict,
                    SavePolicy::FailOnConflict,
                    SavePolicy::LastWriterWins,
                ],
                c,
            ),
        })
    }
}
