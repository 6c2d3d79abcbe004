//! Saving a session that was loaded as a whole.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::builder::{in_txn, pick, write_options};
use super::call::Options;
use super::sessions::Sessions;
use super::{Client, Error, Reply};
use crate::proto::v1;
use crate::proto::v1::SaveConflictPolicy;
use crate::proto::v1::operation::Request;
use crate::types::Revision;

impl<'a> Sessions<'a> {
    /// Gives a session back with these fields. What differs from `loaded`, the session as it was read, is saved; whatever
    /// others changed meanwhile stays.
    pub fn save(
        &self,
        token: &str,
        loaded: &v1::Session,
        fields: BTreeMap<String, Bytes>,
    ) -> SaveSession<'a> {
        let base = v1::SessionFields {
            fields: loaded.fields.clone(),
        };
        let mut save = self.save_blind(token, Revision::new(loaded.mod_revision), fields);
        save.request.base = Some(base);
        save
    }

    /// The same for a caller that no longer knows what it loaded: if the session has changed since that revision, each
    /// field that differs is a conflict.
    pub fn save_blind(
        &self,
        token: &str,
        loaded: Revision,
        fields: BTreeMap<String, Bytes>,
    ) -> SaveSession<'a> {
        let request = v1::SaveSessionRequest {
            namespace: self.client.namespace_field(),
            token: token.to_owned(),
            loaded_revision: loaded.get(),
            fields,
            ..Default::default()
        };
        SaveSession {
            client: self.client,
            options: Options::default(),
            request,
        }
    }
}

/// See [`Sessions::save`].
#[must_use]
pub struct SaveSession<'a> {
    client: &'a Client,
    options: Options,
    request: v1::SaveSessionRequest,
}

in_txn!(SaveSession);

impl SaveSession<'_> {
    write_options!();

    /// Where both changed a field, the saved value wins. Without, nothing is saved then.
    pub fn last_writer_wins(mut self) -> Self {
        self.request.set_policy(SaveConflictPolicy::LastWriterWins);
        self
    }

    /// Sends the request. A conflict has the reason `SAVE_CONFLICT`, and names the fields in its metadata.
    pub async fn send(self) -> Result<Reply<v1::SaveSessionResponse>, Error> {
        let request = Request::SaveSession(self.request);
        self.client
            .call(request, self.options, pick!(SaveSession))
            .await
    }
}
