//! `trolley session`.

use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use super::arguments::{
    Form, ReadArgs, Target, WriteArgs, identified, lifetime, optional, pair, revision,
};
use super::failure::Failure;
use super::input::Input;
use super::logins;
use super::output::{self, readable, reply, sheet, show, time};
use crate::proto::v1;
use crate::types::Revision;

/// What to do with sessions.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Create a session and print its token
    #[command(
        after_help = concat!(
            "Examples:\n",
            "  trolley session create --user alice --field theme=dark --idle-ttl 30m\n",
            "  export TROLLEY_TOKEN=$(trolley session create --quiet)",
        )
    )]
    Create {
        /// Whose it is; a guest's without
        #[arg(long, value_name = "USER_ID")]
        user: Option<String>,
        /// A field to begin with; a VALUE of - is read from standard input
        #[arg(long = "field", value_name = "NAME=VALUE", value_parser = pair)]
        fields: Vec<(String, String)>,
        /// Something about the client, for listings of the user's sessions
        #[arg(long = "client", value_name = "NAME=VALUE", value_parser = pair)]
        client: Vec<(String, String)>,
        /// How long it lives without being touched or updated [default: the namespace's, 30m]
        #[arg(long, value_parser = lifetime, allow_hyphen_values = true, value_name = "DURATION")]
        idle_ttl: Option<Duration>,
        /// How long it lives whatever happens [default: the namespace's, 14days]
        #[arg(long, value_parser = lifetime, allow_hyphen_values = true, value_name = "DURATION")]
        absolute_ttl: Option<Duration>,
        /// A token of your own, base64url of at least 16 bytes; - reads it from standard input
        #[arg(long)]
        token: Option<String>,
        /// Print the token alone
        #[arg(long)]
        quiet: bool,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Print a session
    Get {
        /// Its token; - reads it from standard input [default: from `TROLLEY_TOKEN`]
        token: Option<String>,
        /// Move the idle deadline as well
        #[arg(long)]
        touch: bool,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Set and remove fields, and let the session live longer or shorter
    #[command(
        after_help = concat!(
            "Examples:\n",
            "  trolley session update \"$TOKEN\" --set theme=light --remove draft --if-revision 17\n",
            "  trolley session update \"$TOKEN\" --idle-ttl 30days --absolute-ttl 90days      # remember me",
        )
    )]
    Update {
        /// Its token; - reads it from standard input [default: from `TROLLEY_TOKEN`]
        token: Option<String>,
        /// A field to set; a VALUE of - is read from standard input
        #[arg(long = "set", value_name = "NAME=VALUE", value_parser = pair)]
        set: Vec<(String, String)>,
        /// A field to remove
        #[arg(long, value_name = "NAME")]
        remove: Vec<String>,
        /// How long it lives from now on without being touched or updated [default: as before]
        #[arg(long, value_parser = lifetime, allow_hyphen_values = true, value_name = "DURATION")]
        idle_ttl: Option<Duration>,
        /// How long it lives from now on whatever happens [default: its deadline stays]
        #[arg(long, value_parser = lifetime, allow_hyphen_values = true, value_name = "DURATION")]
        absolute_ttl: Option<Duration>,
        /// Only if the session is at this revision
        #[arg(long, value_name = "REVISION", value_parser = revision)]
        if_revision: Option<Revision>,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Give a session back as a whole: what changed since it was loaded is merged field by field
    #[command(
        after_help = concat!(
            "Example: two editors loaded the session at revision 17; each saves what it knows.\n",
            "  trolley session save \"$TOKEN\" --loaded 17 --base lang=de --base theme=dark --field lang=fr --field theme=dark",
        )
    )]
    Save(logins::SaveArgs),
    /// At login: end the token, give the session a new one, bind the user, hand the cart over
    #[command(
        after_help = "Example:\n  trolley session rotate \"$TOKEN\" --user alice --client device=phone --cart-merge sum"
    )]
    Rotate(logins::RotateArgs),
    /// List a user's sessions, oldest first
    #[command(after_help = "Example:\n  trolley session list alice --current \"$TOKEN\"")]
    List(logins::ListArgs),
    /// Log out one of a user's devices, by the handle that `list` shows
    End {
        /// Whose it is
        user: String,
        /// Which one
        handle: String,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Log out all of a user's devices
    #[command(
        after_help = "Example: all but this one\n  trolley session revoke-all alice --except \"$TOKEN\""
    )]
    RevokeAll {
        /// Whose sessions end
        user: String,
        /// The token of a session that stays; - reads it from standard input
        #[arg(long, value_name = "TOKEN")]
        except: Option<String>,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Move the idle deadline; a touch soon after the last stored one writes nothing
    Touch {
        /// Its token; - reads it from standard input [default: from `TROLLEY_TOKEN`]
        token: Option<String>,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Log out: the session and its cart are gone
    Destroy {
        /// Its token; - reads it from standard input [default: from `TROLLEY_TOKEN`]
        token: Option<String>,
        #[command(flatten)]
        write: WriteArgs,
    },
}

impl Verb {
    pub async fn run(self, target: &Target) -> Result<(), Failure> {
        match self {
            Self::Create { .. } => self.create(target).await,
            Self::Update { .. } => self.update(target).await,
            Self::Get { token, touch, read } => get(target, token, touch, &read).await,
            Self::Save(args) => args.run(target).await,
            Self::Rotate(args) => args.run(target).await,
            Self::List(args) => args.run(target).await,
            Self::End {
                user,
                handle,
                write,
            } => logins::end(target, user, handle, write).await,
            Self::RevokeAll {
                user,
                except,
                write,
            } => logins::revoke_all(target, user, except, write).await,
            Self::Touch { token, write } => touch(target, token, write).await,
            Self::Destroy { token, write } => destroy(target, token, write).await,
        }
    }

    async fn create(self, target: &Target) -> Result<(), Failure> {
        let Self::Create {
            user,
            fields,
            client: about,
            idle_ttl,
            absolute_ttl,
            token,
            quiet,
            write,
        } = self
        else {
            return Ok(());
        };
        let client = target.connect()?;
        let mut input = Input::default();
        let mut create = client.sessions().create();
        if let Some(token) = token {
            create = create.token(input.token(Some(token))?);
        }
        for (name, value) in fields {
            create = create.field(name, input.value(value)?);
        }
        for (name, value) in about {
            create = create.client(name, value);
        }
        let create = optional!(create, user, user);
        let create = optional!(create, idle_ttl, idle_ttl);
        let create = optional!(create, absolute_ttl, absolute_ttl);
        let made = identified!(create, write).send().await?;
        if quiet && target.form() == Form::People {
            output::line(&made.token)?;
            return Ok(());
        }
        let json = || {
            let fields = json!({
                "token": made.token,
                "session": output::session(&made.session),
                "ended": made.ended,
            });
            reply(&made, fields)
        };
        show(target.form(), json, || {
            let token = ("token".to_owned(), made.token.clone());
            let ended = made.ended.iter();
            let ended = ended.map(|handle| ("ended".to_owned(), handle.clone()));
            sheet(
                std::iter::once(token)
                    .chain(rows(&made.session))
                    .chain(ended),
            )
        })?;
        Ok(())
    }

    async fn update(self, target: &Target) -> Result<(), Failure> {
        let Self::Update {
            token,
            set,
            remove,
            idle_ttl,
            absolute_ttl,
            if_revision,
            write,
        } = self
        else {
            return Ok(());
        };
        let client = target.connect()?;
        let mut input = Input::default();
        let token = input.token(token)?;
        let mut update = client.sessions().update(&token);
        for (name, value) in set {
            update = update.set(name, input.value(value)?);
        }
        for name in remove {
            update = update.remove(name);
        }
        let update = optional!(update, idle_ttl, idle_ttl);
        let update = optional!(update, absolute_ttl, absolute_ttl);
        let update = optional!(update, if_revision, if_revision);
        let done = identified!(update, write).send().await?;
        let json = || {
            let fields = json!({
                "mod_revision": done.mod_revision,
                "idle_deadline_ms": done.idle_deadline_ms,
            });
            reply(&done, fields)
        };
        show(target.form(), json, || {
            let deadline = time(done.idle_deadline_ms);
            format!(
                "updated, at revision {}; lives until {deadline}",
                done.mod_revision
            )
        })?;
        Ok(())
    }
}

async fn get(
    target: &Target,
    token: Option<String>,
    touch: bool,
    read: &ReadArgs,
) -> Result<(), Failure> {
    let client = target.connect()?;
    let token = Input::default().token(token)?;
    let get = client.sessions().get(&token);
    let get = if touch { get.touch() } else { get };
    let got = get.consistency(read.consistency()).send().await?;
    let json = || reply(&got, json!({ "session": output::session(&got) }));
    show(target.form(), json, || sheet(rows(&got)))?;
    Ok(())
}

async fn touch(target: &Target, token: Option<String>, write: WriteArgs) -> Result<(), Failure> {
    let client = target.connect()?;
    let token = Input::default().token(token)?;
    let touch = client.sessions().touch(&token);
    let done = identified!(touch, write).send().await?;
    let deadline = done.idle_deadline_ms;
    let json = || reply(&done, json!({ "idle_deadline_ms": deadline }));
    show(target.form(), json, || {
        format!("lives until {}", time(deadline))
    })?;
    Ok(())
}

async fn destroy(target: &Target, token: Option<String>, write: WriteArgs) -> Result<(), Failure> {
    let client = target.connect()?;
    let token = Input::default().token(token)?;
    let destroy = client.sessions().destroy(&token);
    let done = identified!(destroy, write).send().await?;
    show(
        target.form(),
        || reply(&done, json!({})),
        || "logged out".to_owned(),
    )?;
    Ok(())
}

fn rows(session: &v1::Session) -> impl Iterator<Item = (String, String)> {
    let user = if session.user_id.is_empty() {
        "(guest)".to_owned()
    } else {
        session.user_id.clone()
    };
    let known = [
        ("user", user),
        ("revision", session.mod_revision.to_string()),
        ("created", time(session.created_at_ms)),
        ("last seen", time(session.last_seen_ms)),
        ("idle deadline", time(session.idle_deadline_ms)),
        ("absolute deadline", time(session.absolute_deadline_ms)),
    ];
    let known = known.map(|(name, value)| (name.to_owned(), value));
    let handle = Some(("handle".to_owned(), session.handle.clone()));
    let handle = handle.filter(|(_, handle)| !handle.is_empty());
    let client = session.client.iter();
    let client = client.map(|(name, value)| (format!("client {name}"), value.clone()));
    let fields = session.fields.iter();
    let fields = fields.map(|(name, value)| (format!("field {name}"), readable(value)));
    let rows: Vec<_> = client.chain(fields).collect();
    known.into_iter().chain(handle).chain(rows)
}
