//! What is set for a namespace: limits and lives of its records.
//!
//! Settings are a record like any other: replicated, and read by the operations that they bound at the place in the log
//! where they stand. So a change holds for every entry behind it, on every replica.
//!
//! Invariants:
//! 1. Stored settings are valid: each number in its range, and each range around its default.
//! 2. A setting bounds what is written from then on. What is stored stays as it is.

use super::apply::Outcome;
use super::batch::Batch;
use super::keys::Key;
use super::{Fault, Rejection, Store};
use crate::limits;
use crate::proto::internal::reply::Body;
use crate::proto::{internal as pb, v1};
use crate::types::{Invalid, Namespace, Revision, Ttl};

/// An operation on a namespace itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the fields say what the messages of the same names document"
)]
pub enum NamespaceOperation {
    Set {
        settings: Settings,
        if_revision: Option<Revision>,
    },
}

impl From<&NamespaceOperation> for pb::command::Operation {
    fn from(operation: &NamespaceOperation) -> Self {
        match operation {
            NamespaceOperation::Set {
                settings,
                if_revision,
            } => Self::NamespaceSet(pb::NamespaceSet {
                settings: Some(*settings.0),
                if_revision: if_revision.map(Revision::get),
            }),
        }
    }
}

impl TryFrom<pb::NamespaceSet> for NamespaceOperation {
    type Error = Invalid;

    fn try_from(it: pb::NamespaceSet) -> Result<Self, Invalid> {
        Ok(Self::Set {
            settings: Settings::parse(it.settings)?,
            if_revision: it.if_revision.map(Revision::new),
        })
    }
}

/// Valid settings, some of their parts maybe absent. In a box, because they are far larger and far rarer than what else is
/// asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings(Box<v1::NamespaceSettings>);

impl Settings {
    /// At least one part, each of them valid.
    pub fn parse(settings: Option<v1::NamespaceSettings>) -> Result<Self, Invalid> {
        let settings = settings.unwrap_or_default();
        if settings == v1::NamespaceSettings::default() {
            return Err(Invalid::Empty { field: "settings" });
        }
        if let Some(session) = &settings.session {
            check_session(session)?;
        }
        if let Some(cart) = &settings.cart {
            check_cart(cart)?;
        }
        Ok(Self(Box::new(settings)))
    }

    /// As a message again.
    #[must_use]
    pub fn into_message(self) -> v1::NamespaceSettings {
        *self.0
    }

    /// Takes the place of the parts that are given.
    fn apply_to(&self, stored: &mut v1::NamespaceSettings) {
        if let Some(session) = self.0.session {
            stored.session = Some(session);
        }
        if let Some(cart) = self.0.cart {
            stored.cart = Some(cart);
        }
    }
}

fn check_session(it: &v1::SessionSettings) -> Result<(), Invalid> {
    let fields = u64::from(it.max_fields.unwrap_or(1));
    check("max_fields", fields, 1, limits::SESSION_FIELDS as u64)?;
    let bytes = it.max_bytes.unwrap_or(1);
    check("max_bytes", bytes, 1, limits::SESSION_BYTES as u64)?;
    let sessions = u64::from(it.max_per_user.unwrap_or(0));
    check(
        "max_per_user",
        sessions,
        0,
        limits::SESSIONS_PER_USER as u64,
    )?;
    if v1::SessionLimitPolicy::try_from(it.limit_policy).is_err() {
        return Err(Invalid::Malformed {
            field: "limit_policy",
            expected: "REJECT_NEWEST or END_OLDEST",
        });
    }
    check_ttl("idle_ttl", it.idle_ttl)?;
    check_ttl("absolute_ttl", it.absolute_ttl)?;
    let interval = it.touch_interval_ms.unwrap_or(0);
    check_signed(
        "touch_interval_ms",
        interval,
        0,
        limits::TOUCH_INTERVAL_MAX_MS,
    )
}

fn check_cart(it: &v1::CartSettings) -> Result<(), Invalid> {
    for (field, millis) in [
        ("empty_ttl_ms", it.empty_ttl_ms),
        ("guest_ttl_ms", it.guest_ttl_ms),
        ("user_ttl_ms", it.user_ttl_ms),
    ] {
        check_signed(field, millis.unwrap_or(1), 1, limits::TTL_MAX_MS)?;
    }
    Ok(())
}

fn check_ttl(field: &'static str, it: Option<v1::TtlSettings>) -> Result<(), Invalid> {
    let it = it.unwrap_or_default();
    for millis in [it.min_ms, it.default_ms, it.max_ms].into_iter().flatten() {
        check_signed(field, millis, 1, limits::TTL_MAX_MS)?;
    }
    let (min, max) = (
        it.min_ms.unwrap_or(1),
        it.max_ms.unwrap_or(limits::TTL_MAX_MS.cast_signed()),
    );
    let middle = it.default_ms.unwrap_or(min);
    if min > max || !(min..=max).contains(&middle) {
        return Err(Invalid::Malformed {
            field,
            expected: "min_ms, default_ms and max_ms in ascending order",
        });
    }
    Ok(())
}

fn check(field: &'static str, actual: u64, min: u64, max: u64) -> Result<(), Invalid> {
    if (min..=max).contains(&actual) {
        return Ok(());
    }
    Err(Invalid::OutOfRange {
        field,
        min: min.cast_signed(),
        max: max.cast_signed(),
        actual: i64::try_from(actual).unwrap_or(i64::MAX),
    })
}

fn check_signed(field: &'static str, actual: i64, min: u64, max: u64) -> Result<(), Invalid> {
    match u64::try_from(actual) {
        Ok(actual) => check(field, actual, min, max),
        Err(_) => Err(Invalid::OutOfRange {
            field,
            min: min.cast_signed(),
            max: max.cast_signed(),
            actual,
        }),
    }
}

/// What holds for sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionPolicy {
    max_fields: usize,
    max_bytes: usize,
    /// 0 for none.
    max_per_user: usize,
    rejects_newest: bool,
    idle_ttl: TtlRange,
    absolute_ttl: TtlRange,
    /// `None`: a tenth of the idle TTL, at most a minute.
    touch_interval: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TtlRange {
    min: u64,
    default: u64,
    max: u64,
}

impl TtlRange {
    /// The default of the system is moved into the range, if it is outside.
    fn new(it: Option<v1::TtlSettings>, default: u64) -> Self {
        let it = it.unwrap_or_default();
        let millis = |given: Option<i64>, otherwise| given.map_or(otherwise, i64::unsigned_abs);
        let min = millis(it.min_ms, 1);
        let max = millis(it.max_ms, limits::TTL_MAX_MS).max(min);
        Self {
            min,
            default: millis(it.default_ms, default).clamp(min, max),
            max,
        }
    }

    fn effective(self) -> v1::TtlSettings {
        v1::TtlSettings {
            min_ms: Some(self.min.cast_signed()),
            default_ms: Some(self.default.cast_signed()),
            max_ms: Some(self.max.cast_signed()),
        }
    }

    fn check(self, asked: Option<Ttl>, which: TtlKind) -> Result<Ttl, Rejection> {
        let asked = asked.map_or(self.default, Ttl::as_millis);
        if asked < self.min {
            return Err(Rejection::TtlTooShort {
                ttl: which,
                min: self.min,
            });
        }
        if asked > self.max {
            return Err(Rejection::TtlTooLong {
                ttl: which,
                max: self.max,
            });
        }
        Ok(Ttl::from_millis(asked))
    }
}

/// Which of a session's TTLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TtlKind {
    /// How long it lives without being seen.
    Idle,
    /// How long it lives whatever happens.
    Absolute,
}

impl TtlKind {
    /// The field of the requests.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::Idle => "idle_ttl_ms",
            Self::Absolute => "absolute_ttl_ms",
        }
    }
}

impl SessionPolicy {
    fn new(set: Option<&v1::SessionSettings>) -> Self {
        let set = set.copied().unwrap_or_default();
        let size = |given: Option<u64>, most: usize| {
            given.map_or(most, |given| usize::try_from(given).unwrap_or(most))
        };
        Self {
            max_fields: size(set.max_fields.map(u64::from), limits::SESSION_FIELDS),
            max_bytes: size(set.max_bytes, limits::SESSION_BYTES),
            max_per_user: size(Some(set.max_per_user.unwrap_or(0).into()), 0),
            rejects_newest: set.limit_policy() == v1::SessionLimitPolicy::RejectNewest,
            idle_ttl: TtlRange::new(set.idle_ttl, limits::SESSION_IDLE_TTL_DEFAULT_MS),
            absolute_ttl: TtlRange::new(set.absolute_ttl, limits::SESSION_ABSOLUTE_TTL_DEFAULT_MS),
            touch_interval: set.touch_interval_ms.map(i64::unsigned_abs),
        }
    }

    /// The settings that come to this.
    fn effective(&self) -> v1::SessionSettings {
        let limit_policy = if self.rejects_newest {
            v1::SessionLimitPolicy::RejectNewest
        } else {
            v1::SessionLimitPolicy::EndOldest
        };
        v1::SessionSettings {
            max_fields: u32::try_from(self.max_fields).ok(),
            max_bytes: Some(self.max_bytes as u64),
            max_per_user: u32::try_from(self.max_per_user).ok(),
            limit_policy: limit_policy.into(),
            idle_ttl: Some(self.idle_ttl.effective()),
            absolute_ttl: Some(self.absolute_ttl.effective()),
            touch_interval_ms: self.touch_interval.map(u64::cast_signed),
        }
    }

    /// Whether a session may be as large as this.
    pub(super) fn check(&self, fields: usize, bytes: usize) -> Result<(), Rejection> {
        if fields > self.max_fields {
            return Err(Rejection::SessionFieldsLimit {
                limit: self.max_fields as u64,
            });
        }
        if bytes > self.max_bytes {
            return Err(Rejection::SessionBytesLimit {
                limit: self.max_bytes as u64,
            });
        }
        Ok(())
    }

    /// How many sessions a user may have; `None` for any number.
    pub(super) fn max_per_user(&self) -> Option<usize> {
        Some(self.max_per_user).filter(|max| *max > 0)
    }

    /// Beyond that, a login is refused. Otherwise the oldest session ends.
    pub(super) fn rejects_newest(&self) -> bool {
        self.rejects_newest
    }

    pub(super) fn idle_ttl(&self, asked: Option<Ttl>) -> Result<Ttl, Rejection> {
        self.idle_ttl.check(asked, TtlKind::Idle)
    }

    pub(super) fn absolute_ttl(&self, asked: Option<Ttl>) -> Result<Ttl, Rejection> {
        self.absolute_ttl.check(asked, TtlKind::Absolute)
    }

    /// The touch interval of a session with this idle TTL, in milliseconds, and never longer than that.
    pub(super) fn touch_interval(&self, idle_ttl: Ttl) -> u64 {
        let idle_ms = idle_ttl.as_millis();
        let default = idle_ms
            .checked_div(10)
            .unwrap_or(0)
            .min(limits::TOUCH_INTERVAL_DEFAULT_MS);
        self.touch_interval.unwrap_or(default).min(idle_ms)
    }
}

/// A TTL that was checked when the session was born.
pub(super) fn kept_ttl(millis: u64) -> Ttl {
    Ttl::from_millis(millis)
}

/// How long carts are kept after their last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CartPolicy {
    /// Without lines.
    pub empty: Ttl,
    /// A session's.
    pub guest: Ttl,
    /// A user's.
    pub user: Ttl,
}

impl CartPolicy {
    fn new(set: Option<&v1::CartSettings>) -> Self {
        let set = set.copied().unwrap_or_default();
        let ttl = |given: Option<i64>, otherwise| {
            Ttl::from_millis(given.map_or(otherwise, i64::unsigned_abs))
        };
        Self {
            empty: ttl(set.empty_ttl_ms, limits::CART_TTL_EMPTY_DEFAULT_MS),
            guest: ttl(set.guest_ttl_ms, limits::CART_TTL_GUEST_DEFAULT_MS),
            user: ttl(set.user_ttl_ms, limits::CART_TTL_USER_DEFAULT_MS),
        }
    }

    /// The settings that come to this.
    fn effective(self) -> v1::CartSettings {
        let millis = |ttl: Ttl| Some(ttl.as_millis().cast_signed());
        v1::CartSettings {
            empty_ttl_ms: millis(self.empty),
            guest_ttl_ms: millis(self.guest),
            user_ttl_ms: millis(self.user),
        }
    }
}

/// What holds for the sessions of a namespace at this place in the log.
pub(super) fn session_policy<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
) -> Result<SessionPolicy, Fault> {
    let settings = settings(batch, namespace)?;
    Ok(SessionPolicy::new(
        settings.and_then(|settings| settings.session.as_ref()),
    ))
}

/// What holds for the carts of a namespace at this place in the log.
pub(super) fn cart_policy<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
) -> Result<CartPolicy, Fault> {
    let settings = settings(batch, namespace)?;
    Ok(CartPolicy::new(
        settings.and_then(|settings| settings.cart.as_ref()),
    ))
}

fn settings<'b, S: Store>(
    batch: &'b mut Batch<'_, S>,
    namespace: &Namespace,
) -> Result<Option<&'b v1::NamespaceSettings>, Fault> {
    let id = batch.load(&Key::Settings(namespace.clone()))?;
    let record = batch.read::<pb::NamespaceRecord>(id);
    Ok(record.and_then(|record| record.settings.as_ref()))
}

/// Settings with every default filled in.
#[must_use]
pub fn effective(settings: &v1::NamespaceSettings) -> v1::NamespaceSettings {
    v1::NamespaceSettings {
        session: Some(SessionPolicy::new(settings.session.as_ref()).effective()),
        cart: Some(CartPolicy::new(settings.cart.as_ref()).effective()),
    }
}

/// Executes an operation on a namespace.
pub(super) fn operate<S: Store>(
    batch: &mut Batch<'_, S>,
    namespace: &Namespace,
    operation: &NamespaceOperation,
) -> Outcome {
    let NamespaceOperation::Set {
        settings,
        if_revision,
    } = operation;
    let id = batch.load(&Key::Settings(namespace.clone()))?;
    let mut record = batch
        .read::<pb::NamespaceRecord>(id)
        .copied()
        .unwrap_or_default();
    let actual = Revision::new(record.mod_revision);
    if if_revision.is_some_and(|asked| asked != actual) {
        return Err(Rejection::RevisionMismatch { actual }.into());
    }
    let revision = batch.next_revision().get();
    if record.create_revision == 0 {
        record.create_revision = revision;
    }
    record.mod_revision = revision;
    settings.apply_to(record.settings.get_or_insert_default());
    batch.put(id, record);
    Ok(Body::NamespaceChanged(pb::NamespaceChanged {
        mod_revision: revision,
    }))
}
