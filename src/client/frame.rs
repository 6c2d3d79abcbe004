//! Frames on their way out, encoded by hand from operations that are encoded already.
//!
//! An operation's request is encoded once, by the task that makes it, and kept for retries as shared bytes. A frame
//! is then a few varints and a copy. The bytes are those of `ExchangeRequest`: a message is the concatenation of its
//! fields in any order, so that a sequence can be put in front of an encoded request. A test decodes them with the
//! generated code.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use prost::Message as _;
use prost::encoding::{self, WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};

use crate::proto::WholeDecoder;
use crate::proto::v1::{self, operation::Request};

/// Fields of `ExchangeRequest`.
const CLIENT_ID: u32 = 1;
const CONFIRMED_BELOW: u32 = 2;
const OPERATIONS: u32 = 3;
/// Field of `Operation`.
const SEQUENCE: u32 = 1;

/// One `ExchangeRequest`.
#[derive(Debug, Default)]
pub(super) struct Frame {
    /// Empty after the first frame of a stream.
    pub client_id: Bytes,
    pub confirmed_below: u64,
    /// Each with its sequence.
    pub operations: Vec<(u64, Encoded)>,
}

/// An `Operation` without its sequence, shared by the attempts of a call.
pub(super) type Encoded = Arc<[u8]>;

/// A thread keeps no larger draft for the next request.
const LARGEST_DRAFT: usize = 64 << 10;

thread_local! {
    /// Where a request is encoded, before as much memory is taken for it as it needs, once.
    static DRAFT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Encodes an operation, without its sequence.
pub(super) fn encode_request(request: Request) -> Encoded {
    let operation = v1::Operation {
        sequence: 0,
        request: Some(request),
    };
    DRAFT.with_borrow_mut(|draft| {
        draft.clear();
        operation
            .encode(draft)
            .expect("a vector grows as long as it must");
        let encoded = Arc::from(draft.as_slice());
        if draft.capacity() > LARGEST_DRAFT {
            *draft = Vec::new();
        }
        encoded
    })
}

impl Frame {
    pub fn encode(&self, buf: &mut impl BufMut) {
        if !self.client_id.is_empty() {
            encoding::bytes::encode(CLIENT_ID, &self.client_id, buf);
        }
        encoding::uint64::encode(CONFIRMED_BELOW, &self.confirmed_below, buf);
        for (sequence, request) in &self.operations {
            let length = key_len(SEQUENCE) + encoded_len_varint(*sequence) + request.len();
            encode_key(OPERATIONS, WireType::LengthDelimited, buf);
            encode_varint(length as u64, buf);
            encoding::uint64::encode(SEQUENCE, sequence, buf);
            buf.put_slice(request);
        }
    }
}

/// Frames out, `ExchangeResponse`s in.
#[derive(Debug, Default)]
pub(super) struct FrameCodec;

#[derive(Debug)]
pub(super) struct FrameEncoder(PhantomData<()>);

impl Codec for FrameCodec {
    type Encode = Frame;
    type Decode = v1::ExchangeResponse;
    type Encoder = FrameEncoder;
    type Decoder = WholeDecoder<v1::ExchangeResponse>;

    fn encoder(&mut self) -> FrameEncoder {
        FrameEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        WholeDecoder::default()
    }
}

impl Encoder for FrameEncoder {
    type Item = Frame;
    type Error = Status;

    fn encode(&mut self, frame: Frame, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        frame.encode(buf);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_decodes_as_the_message_it_stands_for() {
        let request = |key: &str| {
            Request::PutKey(v1::PutKeyRequest {
                key: key.to_owned(),
                value: Bytes::from_static(&[7; 300]),
                ..Default::default()
            })
        };
        let frame = Frame {
            client_id: Bytes::from_static(&[9; 16]),
            confirmed_below: 300,
            operations: vec![
                (300, encode_request(request("a"))),
                ((1 << 56) + 5, encode_request(request("b"))),
            ],
        };
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let message = v1::ExchangeRequest::decode(&bytes[..]).expect("it is well formed");
        let expected = v1::ExchangeRequest {
            client_id: Bytes::from_static(&[9; 16]),
            confirmed_below: 300,
            operations: vec![
                v1::Operation {
                    sequence: 300,
                    request: Some(request("a")),
                },
                v1::Operation {
                    sequence: (1 << 56) + 5,
                    request: Some(request("b")),
                },
            ],
        };
        assert_eq!(message, expected);
    }
}
