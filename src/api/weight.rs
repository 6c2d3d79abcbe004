//! What answers weigh: bytes, without encoding them.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::parse::{Echo, StepEcho};
use crate::proto::v1::outcome::Response;
use crate::proto::v1::{Cart, CartLine};
use crate::types::TextMap;

/// What an answer weighs beside its variable parts; more than most really do.
pub(super) const BASE_BYTES: usize = 256;

/// Bytes of a response's variable parts, cheaper than its encoded length.
pub(super) fn weight(response: &Response) -> usize {
    match response {
        Response::CreateSession(r) => session_weight(r.session.as_ref()),
        Response::RotateSession(r) => r.ended.iter().map(|handle| handle.len() + 8).sum(),
        Response::GetSession(r) => session_weight(r.session.as_ref()),
        Response::ListSessions(r) => r.sessions.iter().map(listed_weight).sum(),
        Response::SaveSession(r) => r.overwritten.iter().map(String::len).sum(),
        Response::AddCartLine(r) => r.line.as_ref().map_or(0, line_weight),
        Response::SetCartLineQuantity(r) => r.line.as_ref().map_or(0, line_weight),
        Response::RemoveCartLine(r) => r.line.as_ref().map_or(0, line_weight),
        Response::GetCart(r) => r.cart.as_ref().map_or(0, cart_weight),
        Response::FreezeCart(r) => r.snapshot.as_ref().map_or(0, cart_weight),
        Response::UpdateCart(r) => r.results.len() * 16,
        Response::GetKey(r) => r
            .item
            .as_ref()
            .map_or(0, |item| item.key.len() + item.value.len()),
        Response::ListKeys(r) => {
            let items = r.items.iter();
            items
                .map(|item| item.key.len() + item.value.len() + 64)
                .sum()
        }
        Response::GetLease(r) => r.keys.iter().map(|key| key.len() + 8).sum(),
        Response::Txn(r) => {
            let responses = r
                .results
                .iter()
                .filter_map(|result| result.response.as_ref());
            responses
                .map(|response| BASE_BYTES + weight(response))
                .sum()
        }
        Response::Failure(_)
        | Response::UpdateSession(_)
        | Response::TouchSession(_)
        | Response::DestroySession(_)
        | Response::EndSession(_)
        | Response::RevokeAllSessions(_)
        | Response::GetNamespace(_)
        | Response::SetNamespace(_)
        | Response::ClearCart(_)
        | Response::MergeCarts(_)
        | Response::ReleaseCart(_)
        | Response::CompleteOrder(_)
        | Response::PutKey(_)
        | Response::DeleteKey(_)
        | Response::IncrementKey(_)
        | Response::GrantLease(_)
        | Response::KeepLeaseAlive(_)
        | Response::RevokeLease(_) => 0,
    }
}

/// Bytes of a write's answer that are not stored with its reply: what it repeats of the request.
pub(super) fn echo_weight(echo: &Echo) -> usize {
    match echo {
        Echo::SessionCreate(echo) => fields_weight(&echo.fields) + text_weight(&echo.client),
        Echo::Txn(echo) => steps_weight(&echo.then).max(steps_weight(&echo.otherwise)),
        _ => 0,
    }
}

fn steps_weight(steps: &[StepEcho]) -> usize {
    let writes = steps.iter().filter_map(|step| match step {
        StepEcho::Write(echo) => Some(echo_weight(echo)),
        StepEcho::GetSession | StepEcho::GetCart | StepEcho::GetKey(_) => None,
    });
    writes.sum()
}

fn session_weight(session: Option<&crate::proto::v1::Session>) -> usize {
    session.map_or(0, |session| {
        session.user_id.len() + fields_weight(&session.fields) + text_weight(&session.client)
    })
}

fn listed_weight(session: &crate::proto::v1::UserSession) -> usize {
    64 + session.handle.len() + text_weight(&session.client)
}

/// Names and values of a session's fields.
pub(super) fn fields_weight(fields: &BTreeMap<String, Bytes>) -> usize {
    fields
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum()
}

pub(super) fn text_weight(texts: &BTreeMap<String, String>) -> usize {
    texts
        .iter()
        .map(|(name, value)| name.len() + value.len() + 8)
        .sum()
}

fn cart_weight(cart: &Cart) -> usize {
    let details = cart.details.as_ref().map_or(0, |details| {
        let maps = [
            &details.attributes,
            &details.shipping_address,
            &details.billing_address,
        ];
        let codes = details.coupon_codes.iter().map(String::len);
        details.note.len() + codes.sum::<usize>() + maps.map(TextMap::size).iter().sum::<usize>()
    });
    let lines = cart.lines.iter().map(|line| line_weight(line) + 64);
    details + lines.sum::<usize>()
}

fn line_weight(line: &CartLine) -> usize {
    line.sku.len() + text_weight(&line.attributes)
}
