//! `trolley namespace`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::arguments::{ReadArgs, Target, WriteArgs, duration, identified, lifetime, revision};
use super::failure::Failure;
use super::output::{reply, sheet, show, span};
use crate::proto::v1::{self, SessionLimitPolicy};
use crate::types::Revision;

/// What to do with a namespace's settings.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Print the settings that hold, defaults filled in
    Get {
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Change settings; what is not given stays as it is
    #[command(
        after_help = concat!(
            "Examples:\n",
            "  trolley namespace set --max-sessions 5 --beyond end-oldest\n",
            "  trolley namespace set --idle-ttl 15m --idle-ttl-max 1h --touch-interval 30s\n",
            "  trolley namespace set --cart-ttl-guest 14d --cart-ttl-user 180d\n",
            "  trolley namespace set --reset max-fields --reset idle-ttl",
        )
    )]
    Set(Box<SetArgs>),
}

/// Which settings.
#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// Most fields of a session
    #[arg(long, value_name = "FIELDS")]
    max_fields: Option<u32>,
    /// Largest session, in bytes
    #[arg(long, value_name = "BYTES")]
    max_bytes: Option<u64>,
    /// Most live sessions of a user; 0 for any number
    #[arg(long, value_name = "SESSIONS")]
    max_sessions: Option<u32>,
    /// What happens at a login beyond that
    #[arg(long, value_enum)]
    beyond: Option<Beyond>,
    /// Idle TTL of a session whose creator names none
    #[arg(long, value_parser = lifetime, allow_hyphen_values = true, value_name = "DURATION")]
    idle_ttl: Option<Duration>,
    /// Shortest idle TTL
    #[arg(long, value_parser = lifetime, allow_hyphen_values = true, value_name = "DURATION")]
    idle_ttl_min: Option<Duration>,
    /// Longest idle TTL
    #[arg(long, value_parser = lifetime, allow_hyphen_values = true, value_name = "DURATION")]
    idle_ttl_max: Option<Duration>,
    /// Absolute TTL of a session whose creator names none
    #[arg(long, value_parser = lifetime, allow_hyphen_values = true, value_name = "DURATION")]
    absolute_ttl: Option<Duration>,
    /// Shortest absolute TTL
    #[arg(long, value_parser = lifetime, allow_hyphen_values = true, value_name = "DURATION")]
    absolute_ttl_min: Option<Duration>,
    /// Longest absolute TTL
    #[arg(long, value_parser = lifetime, allow_hyphen_values = true, value_name = "DURATION")]
    absolute_ttl_max: Option<Duration>,
    /// Touches closer together than this are stored once; 0s stores each
    #[arg(long, value_parser = duration, allow_hyphen_values = true, value_name = "DURATION")]
    touch_interval: Option<Duration>,
    /// How long a cart without lines is kept after its last change
    #[arg(long, value_parser = lifetime, allow_hyphen_values = true, value_name = "DURATION")]
    cart_ttl_empty: Option<Duration>,
    /// How long a session's cart is kept after its last change, if its session lives that long
    #[arg(long, value_parser = lifetime, allow_hyphen_values = true, value_name = "DURATION")]
    cart_ttl_guest: Option<Duration>,
    /// How long a user's cart is kept after its last change
    #[arg(long, value_parser = lifetime, allow_hyphen_values = true, value_name = "DURATION")]
    cart_ttl_user: Option<Duration>,
    /// A setting to give its default back
    #[arg(long, value_enum)]
    reset: Vec<Setting>,
    /// Only if the settings are at this revision; 0: only if nothing was ever set
    #[arg(long, value_name = "REVISION", value_parser = revision)]
    if_revision: Option<Revision>,
    #[command(flatten)]
    write: WriteArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Beyond {
    /// It is refused
    RejectNewest,
    /// The user's oldest sessions end
    EndOldest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Setting {
    MaxFields,
    MaxBytes,
    MaxSessions,
    Beyond,
    /// All three
    IdleTtl,
    /// All three
    AbsoluteTtl,
    TouchInterval,
    CartTtlEmpty,
    CartTtlGuest,
    CartTtlUser,
}

impl Verb {
    pub async fn run(self, target: &Target) -> Result<(), Failure> {
        match self {
            Self::Get { read } => get(target, &read).await,
            Self::Set(args) => args.run(target).await,
        }
    }
}

async fn get(target: &Target, read: &ReadArgs) -> Result<(), Failure> {
    let client = target.connect()?;
    let get = client.namespaces().get();
    let got = get.consistency(read.consistency()).send().await?;
    let json = || {
        let fields = json!({
            "settings": settings_json(&got.settings.unwrap_or_default()),
            "effective": settings_json(&got.effective.unwrap_or_default()),
            "mod_revision": got.mod_revision,
        });
        reply(&got, fields)
    };
    show(target.form(), json, || {
        let revision = ("revision".to_owned(), got.mod_revision.to_string());
        let effective = got.effective.unwrap_or_default();
        let session = session_rows(&effective.session.unwrap_or_default());
        let cart = cart_rows(&effective.cart.unwrap_or_default());
        sheet(std::iter::once(revision).chain(session).chain(cart))
    })?;
    Ok(())
}

impl SetArgs {
    async fn run(self, target: &Target) -> Result<(), Failure> {
        if self.write.request_id.is_some() && self.if_revision.is_none() {
            let problem = "--request-id needs --if-revision: else a repetition is another request";
            return Err(Failure::Usage(problem.to_owned()));
        }
        let client = target.connect()?;
        let got = client.namespaces().get().send().await?;
        let stored = got.settings.unwrap_or_default();
        let settings = v1::NamespaceSettings {
            session: Some(self.session(stored.session.unwrap_or_default())),
            cart: Some(self.cart(stored.cart.unwrap_or_default())),
        };
        // What is not given stays as it was read, so nobody may have changed it since.
        let expected = self.if_revision.unwrap_or(Revision::new(got.mod_revision));
        let set = client.namespaces().set(settings).if_revision(expected);
        let write = self.write;
        let done = identified!(set, write).send().await?;
        let revision = done.value;
        show(
            target.form(),
            || reply(&done, json!({ "mod_revision": revision.get() })),
            || format!("set, at revision {revision}"),
        )?;
        Ok(())
    }

    fn session(&self, mut it: v1::SessionSettings) -> v1::SessionSettings {
        for setting in &self.reset {
            match setting {
                Setting::MaxFields => it.max_fields = None,
                Setting::MaxBytes => it.max_bytes = None,
                Setting::MaxSessions => it.max_per_user = None,
                Setting::Beyond => it.limit_policy = 0,
                Setting::IdleTtl => it.idle_ttl = None,
                Setting::AbsoluteTtl => it.absolute_ttl = None,
                Setting::TouchInterval => it.touch_interval_ms = None,
                Setting::CartTtlEmpty | Setting::CartTtlGuest | Setting::CartTtlUser => {}
            }
        }
        it.max_fields = self.max_fields.or(it.max_fields);
        it.max_bytes = self.max_bytes.or(it.max_bytes);
        it.max_per_user = self.max_sessions.or(it.max_per_user);
        match self.beyond {
            None => {}
            Some(Beyond::RejectNewest) => it.set_limit_policy(SessionLimitPolicy::RejectNewest),
            Some(Beyond::EndOldest) => it.set_limit_policy(SessionLimitPolicy::EndOldest),
        }
        let idle = (self.idle_ttl_min, self.idle_ttl, self.idle_ttl_max);
        it.idle_ttl = ttl(it.idle_ttl, idle);
        let absolute = (
            self.absolute_ttl_min,
            self.absolute_ttl,
            self.absolute_ttl_max,
        );
        it.absolute_ttl = ttl(it.absolute_ttl, absolute);
        it.touch_interval_ms = self.touch_interval.map(millis).or(it.touch_interval_ms);
        it
    }

    fn cart(&self, it: v1::CartSettings) -> v1::CartSettings {
        let kept = |setting, stored: Option<i64>| {
            let reset = self.reset.contains(&setting);
            stored.filter(|_| !reset)
        };
        let given = |ttl: Option<Duration>, stored| ttl.map(millis).or(stored);
        v1::CartSettings {
            empty_ttl_ms: given(
                self.cart_ttl_empty,
                kept(Setting::CartTtlEmpty, it.empty_ttl_ms),
            ),
            guest_ttl_ms: given(
                self.cart_ttl_guest,
                kept(Setting::CartTtlGuest, it.guest_ttl_ms),
            ),
            user_ttl_ms: given(
                self.cart_ttl_user,
                kept(Setting::CartTtlUser, it.user_ttl_ms),
            ),
        }
    }
}

/// The node refuses what is too long.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn ttl(
    stored: Option<v1::TtlSettings>,
    (min, default, max): (Option<Duration>, Option<Duration>, Option<Duration>),
) -> Option<v1::TtlSettings> {
    let it = stored.unwrap_or_default();
    let changed = v1::TtlSettings {
        min_ms: min.map(millis).or(it.min_ms),
        default_ms: default.map(millis).or(it.default_ms),
        max_ms: max.map(millis).or(it.max_ms),
    };
    (changed != v1::TtlSettings::default()).then_some(changed)
}

fn settings_json(it: &v1::NamespaceSettings) -> Value {
    let cart = it.cart.unwrap_or_default();
    json!({
        "session": session_json(&it.session.unwrap_or_default()),
        "cart": {
            "empty_ttl_ms": cart.empty_ttl_ms,
            "guest_ttl_ms": cart.guest_ttl_ms,
            "user_ttl_ms": cart.user_ttl_ms,
        },
    })
}

fn session_json(it: &v1::SessionSettings) -> Value {
    let ttl = |it: &v1::TtlSettings| json!({ "min_ms": it.min_ms, "default_ms": it.default_ms, "max_ms": it.max_ms });
    json!({
        "max_fields": it.max_fields,
        "max_bytes": it.max_bytes,
        "max_per_user": it.max_per_user,
        "limit_policy": it.limit_policy().as_str_name(),
        "idle_ttl": it.idle_ttl.as_ref().map(ttl),
        "absolute_ttl": it.absolute_ttl.as_ref().map(ttl),
        "touch_interval_ms": it.touch_interval_ms,
    })
}

fn shown(millis: Option<i64>) -> String {
    let millis = u64::try_from(millis.unwrap_or_default()).unwrap_or_default();
    span(Duration::from_millis(millis))
}

fn cart_rows(it: &v1::CartSettings) -> Vec<(String, String)> {
    let rows = [
        ("empty carts are kept", it.empty_ttl_ms),
        ("sessions' carts", it.guest_ttl_ms),
        ("users' carts", it.user_ttl_ms),
    ];
    rows.map(|(name, millis)| (name.to_owned(), shown(millis)))
        .into()
}

fn session_rows(it: &v1::SessionSettings) -> Vec<(String, String)> {
    let ttl = |it: Option<v1::TtlSettings>| {
        let it = it.unwrap_or_default();
        let (min, max) = (shown(it.min_ms), shown(it.max_ms));
        format!("{}, from {min} to {max}", shown(it.default_ms))
    };
    let sessions = match it.max_per_user.unwrap_or_default() {
        0 => "any number".to_owned(),
        most => most.to_string(),
    };
    let beyond = match it.limit_policy() {
        SessionLimitPolicy::RejectNewest => "the login is refused",
        SessionLimitPolicy::EndOldest | SessionLimitPolicy::Unspecified => "the oldest ends",
    };
    let interval = match it.touch_interval_ms {
        None => "a tenth of the idle TTL, at most a minute".to_owned(),
        Some(0) => "none: every touch is stored".to_owned(),
        interval => shown(interval),
    };
    let rows = [
        (
            "session fields",
            it.max_fields.unwrap_or_default().to_string(),
        ),
        (
            "session bytes",
            it.max_bytes.unwrap_or_default().to_string(),
        ),
        ("sessions of a user", sessions),
        ("beyond that", beyond.to_owned()),
        ("idle TTL", ttl(it.idle_ttl)),
        ("absolute TTL", ttl(it.absolute_ttl)),
        ("touch interval", interval),
    ];
    rows.map(|(name, value)| (name.to_owned(), value)).into()
}
