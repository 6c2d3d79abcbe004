//! `trolley session` where it is about whole sessions: save, rotate, list, end, revoke-all.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde_json::json;

use super::arguments::{
    ReadArgs, Target, WriteArgs, identified, lifetime, optional, pair, revision,
};
use super::checkout::PolicyArg;
use super::failure::Failure;
use super::input::Input;
use super::output::{self, reply, sheet, show, table, time};
use crate::proto::v1;
use crate::types::Revision;

/// What to save.
#[derive(Debug, Args)]
pub(super) struct SaveArgs {
    /// Its token; - reads it from standard input [default: from `TROLLEY_TOKEN`]
    token: Option<String>,
    /// The revision at which it was loaded
    #[arg(long, value_name = "REVISION", value_parser = revision)]
    loaded: Revision,
    /// A field as it should be; one that was loaded and is not given is removed
    #[arg(long = "field", value_name = "NAME=VALUE", value_parser = pair)]
    fields: Vec<(String, String)>,
    /// A field as it was loaded; without any, whatever differs and was changed since is a conflict
    #[arg(long = "base", value_name = "NAME=VALUE", value_parser = pair)]
    base: Vec<(String, String)>,
    /// Write over what others changed, instead of failing
    #[arg(long)]
    last_writer_wins: bool,
    #[command(flatten)]
    write: WriteArgs,
}

impl SaveArgs {
    pub async fn run(self, target: &Target) -> Result<(), Failure> {
        let client = target.connect()?;
        let mut input = Input::default();
        let token = input.token(self.token)?;
        let fields = values(&mut input, self.fields)?;
        let base = values(&mut input, self.base)?;
        let sessions = client.sessions();
        let save = if base.is_empty() {
            sessions.save_blind(&token, self.loaded, fields)
        } else {
            let loaded = v1::Session {
                fields: base,
                mod_revision: self.loaded.get(),
                ..v1::Session::default()
            };
            sessions.save(&token, &loaded, fields)
        };
        let save = if self.last_writer_wins {
            save.last_writer_wins()
        } else {
            save
        };
        let write = self.write;
        let done = identified!(save, write).send().await?;
        let json = || {
            let fields = json!({
                "mod_revision": done.mod_revision,
                "idle_deadline_ms": done.idle_deadline_ms,
                "merged": done.merged,
                "overwritten": done.overwritten,
            });
            reply(&done, fields)
        };
        show(target.form(), json, || {
            let merged = if done.merged {
                ", beside what others changed"
            } else {
                ""
            };
            format!("saved, at revision {}{merged}", done.mod_revision)
        })?;
        Ok(())
    }
}

fn values(
    input: &mut Input,
    pairs: Vec<(String, String)>,
) -> Result<BTreeMap<String, Bytes>, Failure> {
    let mut values = BTreeMap::new();
    for (name, value) in pairs {
        values.insert(name, input.value(value)?);
    }
    Ok(values)
}

/// What a login does.
#[derive(Debug, Args)]
pub(super) struct RotateArgs {
    /// Its token; - reads it from standard input [default: from `TROLLEY_TOKEN`]
    token: Option<String>,
    /// Who logs in; without, the session stays whose it is
    #[arg(long, value_name = "USER_ID")]
    user: Option<String>,
    /// A field to set; a VALUE of - is read from standard input
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    /// A field to remove
    #[arg(long, value_name = "NAME")]
    remove: Vec<String>,
    /// Something about the client; what was said before is forgotten then
    #[arg(long = "client", value_name = "NAME=VALUE", value_parser = pair)]
    client: Vec<(String, String)>,
    /// How long it lives without being touched or updated [default: as before]
    #[arg(long, value_parser = lifetime, allow_hyphen_values = true, value_name = "DURATION")]
    idle_ttl: Option<Duration>,
    /// How long it lives whatever happens [default: the namespace's if the user changes, or else as before]
    #[arg(long, value_parser = lifetime, allow_hyphen_values = true, value_name = "DURATION")]
    absolute_ttl: Option<Duration>,
    /// What becomes of the lines where the session's cart goes into the user's
    #[arg(long, value_enum, default_value = "sum")]
    cart_merge: PolicyArg,
    /// A new token of your own, base64url of at least 16 bytes
    #[arg(long, value_name = "TOKEN")]
    new_token: Option<String>,
    /// Print the new token alone
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    write: WriteArgs,
}

impl RotateArgs {
    pub async fn run(self, target: &Target) -> Result<(), Failure> {
        let client = target.connect()?;
        let mut input = Input::default();
        let token = input.token(self.token)?;
        let mut rotate = client
            .sessions()
            .rotate(&token)
            .cart_merge(self.cart_merge.into());
        for (name, value) in self.set {
            rotate = rotate.set(name, input.value(value)?);
        }
        for name in self.remove {
            rotate = rotate.remove(name);
        }
        for (name, value) in self.client {
            rotate = rotate.client(name, value);
        }
        let (user, idle_ttl, absolute_ttl) = (self.user, self.idle_ttl, self.absolute_ttl);
        let rotate = optional!(rotate, user, user);
        let rotate = optional!(rotate, idle_ttl, idle_ttl);
        let rotate = optional!(rotate, absolute_ttl, absolute_ttl);
        let new_token = match self.new_token {
            Some(token) => Some(input.token(Some(token))?),
            None => None,
        };
        let rotate = optional!(rotate, new_token, new_token);
        let write = self.write;
        let done = identified!(rotate, write).send().await?;
        if self.quiet && !target.json {
            output::line(&done.token)?;
            return Ok(());
        }
        let json = || {
            let fields = json!({
                "token": done.token,
                "user_id": done.user_id,
                "handle": done.handle,
                "mod_revision": done.mod_revision,
                "created_at_ms": done.created_at_ms,
                "idle_ttl_ms": done.idle_ttl_ms,
                "idle_deadline_ms": done.idle_deadline_ms,
                "absolute_deadline_ms": done.absolute_deadline_ms,
                "cart": done.cart.as_ref().map(cart_json),
                "ended": done.ended,
            });
            reply(&done, fields)
        };
        show(target.form(), json, || sheet(rotated(&done)))?;
        Ok(())
    }
}

fn cart_json(cart: &v1::CartMerge) -> serde_json::Value {
    json!({
        "policy": cart.policy().as_str_name(),
        "taken_lines": cart.taken_lines,
        "dropped_lines": cart.dropped_lines,
        "mod_revision": cart.mod_revision,
        "moved": cart.moved,
        "already_merged": cart.already_merged,
    })
}

fn rotated(done: &v1::RotateSessionResponse) -> Vec<(String, String)> {
    let user = if done.user_id.is_empty() {
        "(guest)".to_owned()
    } else {
        done.user_id.clone()
    };
    let cart = match &done.cart {
        None => "none".to_owned(),
        Some(cart) if cart.moved => "moved along".to_owned(),
        Some(cart) if cart.already_merged => "merged before".to_owned(),
        Some(cart) => format!(
            "lines taken: {}, dropped: {}",
            cart.taken_lines, cart.dropped_lines
        ),
    };
    let known = [
        ("token", done.token.clone()),
        ("user", user),
        ("handle", done.handle.clone()),
        ("revision", done.mod_revision.to_string()),
        ("idle deadline", time(done.idle_deadline_ms)),
        ("absolute deadline", time(done.absolute_deadline_ms)),
        ("cart", cart),
    ];
    let known = known
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value));
    let ended = done.ended.iter();
    known
        .chain(ended.map(|handle| ("ended".to_owned(), handle.clone())))
        .collect()
}

/// Whose devices.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Whose sessions
    user: String,
    /// The token of the session to mark as current; - reads it from standard input
    #[arg(long, value_name = "TOKEN")]
    current: Option<String>,
    /// The most sessions of the page
    #[arg(long)]
    limit: Option<u32>,
    /// Where the page begins: the cursor that the page before ended with
    #[arg(long)]
    cursor: Option<String>,
    #[command(flatten)]
    read: ReadArgs,
}

impl ListArgs {
    pub async fn run(self, target: &Target) -> Result<(), Failure> {
        let client = target.connect()?;
        let list = client.sessions().list(self.user);
        let current = match self.current {
            Some(token) => Some(Input::default().token(Some(token))?),
            None => None,
        };
        let list = optional!(list, current, current);
        let list = optional!(list, limit, self.limit);
        let list = optional!(list, cursor, self.cursor);
        let page = list.consistency(self.read.consistency()).send().await?;
        let json = || {
            let sessions: Vec<_> = page.sessions.iter().map(device_json).collect();
            let fields = json!({ "sessions": sessions, "next_cursor": page.next_cursor });
            reply(&page, fields)
        };
        show(target.form(), json, || devices(&page))?;
        Ok(())
    }
}

fn device_json(it: &v1::UserSession) -> serde_json::Value {
    json!({
        "handle": it.handle,
        "created_at_ms": it.created_at_ms,
        "last_seen_ms": it.last_seen_ms,
        "idle_deadline_ms": it.idle_deadline_ms,
        "absolute_deadline_ms": it.absolute_deadline_ms,
        "client": it.client,
        "current": it.current,
    })
}

fn devices(page: &v1::ListSessionsResponse) -> String {
    let mut table = table(&["handle", "created", "last seen", "client", "current"]);
    for it in &page.sessions {
        let client: Vec<_> = it
            .client
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        table.add_row([
            it.handle.clone(),
            time(it.created_at_ms),
            time(it.last_seen_ms),
            client.join(", "),
            if it.current { "yes" } else { "" }.to_owned(),
        ]);
    }
    let more = if page.next_cursor.is_empty() {
        String::new()
    } else {
        format!("\nmore: --cursor {}", page.next_cursor)
    };
    format!("{table}{more}")
}

pub(super) async fn end(
    target: &Target,
    user: String,
    handle: String,
    write: WriteArgs,
) -> Result<(), Failure> {
    let client = target.connect()?;
    let end = client.sessions().end(user, handle);
    let done = identified!(end, write).send().await?;
    show(
        target.form(),
        || reply(&done, json!({})),
        || "logged out".to_owned(),
    )?;
    Ok(())
}

pub(super) async fn revoke_all(
    target: &Target,
    user: String,
    except: Option<String>,
    write: WriteArgs,
) -> Result<(), Failure> {
    let client = target.connect()?;
    let revoke = client.sessions().revoke_all(user);
    let except = match except {
        Some(token) => Some(Input::default().token(Some(token))?),
        None => None,
    };
    let revoke = optional!(revoke, except, except);
    let done = identified!(revoke, write).send().await?;
    let ended = done.value;
    show(
        target.form(),
        || reply(&done, json!({ "ended": ended })),
        || format!("{ended} sessions logged out"),
    )?;
    Ok(())
}
