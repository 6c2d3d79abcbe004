//! How a drawn token survives a replay.
//!
//! A replay of a session's creation must return the first reply, and that holds a token which the server drew. But
//! the store keeps only the token's hash. So the token travels *sealed*: xored with a pad that only the request
//! id gives, and the caller who retries brings that id again.
//!
//! ```text
//! pad block n  = SHA-256("trolley token seal v1" | namespace | 00 | request id | token hash | n), n from 0, one byte
//! sealed token = token XOR (pad block 0 | pad block 1 | …)
//! ```
//!
//! A token hash is never used twice, so neither is a pad. The request id itself is stored only as a hash (see
//! [`super::RequestHash`]), so that a disk or a backup does not give the token away, unless the request id can be
//! guessed: callers who want that protection draw request ids at random, as the client library does.
//!
//! Deliberately absent: a MAC. [`open`] compares the token's hash with the one that was stored, which says more.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::planted::{self, Bug};
use crate::types::{Namespace, RequestId, SessionToken, TokenHash};

const CONTEXT: &[u8] = b"trolley token seal v1";
const BLOCK_BYTES: usize = 32;

/// Seals a token under the request that drew it.
#[must_use]
pub fn seal(namespace: &Namespace, request: &RequestId, token: &SessionToken) -> Bytes {
    pad_over(namespace, request, &token.hash(), token.expose_bytes()).into()
}

/// Opens a sealed token; `None` when it was sealed under another request, or is damaged.
#[must_use]
pub fn open(
    namespace: &Namespace,
    request: &RequestId,
    hash: &TokenHash,
    sealed: &[u8],
) -> Option<SessionToken> {
    let token = SessionToken::from_bytes(pad_over(namespace, request, hash, sealed));
    (token.hash() == *hash).then_some(token)
}

fn pad_over(namespace: &Namespace, request: &RequestId, hash: &TokenHash, bytes: &[u8]) -> Vec<u8> {
    if planted::has(Bug::UnsealedTokens) {
        return bytes.to_vec();
    }
    let blocks = bytes.chunks(BLOCK_BYTES).zip(0u8..=u8::MAX);
    let mut out = Vec::with_capacity(bytes.len());
    for (block, counter) in blocks {
        let pad = Sha256::new()
            .chain_update(CONTEXT)
            .chain_update(namespace.as_str())
            .chain_update([0])
            .chain_update(request.as_str())
            .chain_update(hash.as_bytes())
            .chain_update([counter])
            .finalize();
        out.extend(block.iter().zip(pad).map(|(byte, pad)| byte ^ pad));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: &str) -> RequestId {
        RequestId::parse(id).expect("a short id")
    }

    #[test]
    fn only_the_same_request_opens_a_token() {
        let namespace = Namespace::default();
        let other = Namespace::parse("other").expect("a valid name");
        let token = SessionToken::draw(0).expect("the system has randomness");
        let sealed = seal(&namespace, &request("r1"), &token);
        assert_eq!(sealed.len(), token.expose_bytes().len());
        assert_ne!(&sealed[..], token.expose_bytes());
        let open =
            |ns: &Namespace, id: &str, hash: &TokenHash| open(ns, &request(id), hash, &sealed);
        assert!(open(&namespace, "r1", &token.hash()).is_some_and(|opened| opened == token));
        assert!(open(&namespace, "r2", &token.hash()).is_none());
        assert!(open(&other, "r1", &token.hash()).is_none());
        assert!(open(&namespace, "r1", &TokenHash::new([7; 32])).is_none());
    }

    #[test]
    fn a_damaged_or_cut_seal_opens_nothing() {
        let namespace = Namespace::default();
        let token = SessionToken::draw(0).expect("the system has randomness");
        let sealed = seal(&namespace, &request("r1"), &token);
        let mut flipped = sealed.to_vec();
        flipped[34] ^= 1;
        for damaged in [&flipped[..], &sealed[..34], &[]] {
            assert!(open(&namespace, &request("r1"), &token.hash(), damaged).is_none());
        }
    }
}
