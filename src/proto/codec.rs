//! The codec of every service: prost's, behind a check of what a message would take in memory.
//!
//! An empty message within another is two bytes on the wire and a few hundred in memory, so that four megabytes of them would
//! take a gigabyte before anybody could count them. A large message is therefore walked over first, which costs some
//! nanoseconds a part: one with too many parts for its size is refused, and not decoded at all.
//!
//! Invariant: decoding allocates at most [`limits::DECODED_BYTES_PER_BYTE`] for each byte of a message, and
//! [`limits::DECODED_BYTES`] beside.
//!
//! Parts are the messages within a message, at any depth. Entries of maps are none: equal keys replace each other, and
//! different ones take their bytes on the wire.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::LazyLock;

use bytes::Buf as _;
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, Kind, MessageDescriptor};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

use crate::limits;

/// A message up to this size has no more parts than any may have, and is decoded as it is.
const SMALL_BYTES: usize = 2 * limits::MESSAGE_PARTS;
/// How deep parts may be nested; prost refuses deeper ones.
const DEPTH: usize = 100;

/// prost's codec, bounded: see the module. `T` is encoded, `U` is decoded.
#[derive(Debug)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Name + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(WholeDecoder::default())
    }
}

/// prost's decoder over a message that was taken out of tonic's buffer first. To read a few bytes of that buffer, and to share some, is
/// dearer than of a piece that does not change any more.
#[derive(Debug)]
pub struct WholeDecoder<U>(PhantomData<U>);

impl<U> Default for WholeDecoder<U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<U: Message + Default> Decoder for WholeDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let message = buffer.copy_to_bytes(buffer.remaining());
        let decoded = U::decode(message).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Some(decoded))
    }
}

/// Decodes what is not too much.
#[derive(Debug)]
pub struct BoundedDecoder<U>(WholeDecoder<U>);

impl<U: Message + Name + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // It is one piece: tonic gathers a message before it is decoded.
        check::<U>(buffer.chunk())?;
        self.0.decode(buffer)
    }
}

fn check<U: Name>(message: &[u8]) -> Result<(), Status> {
    if message.len() <= SMALL_BYTES {
        return Ok(());
    }
    let more = message.len() / limits::MESSAGE_BYTES_PER_PART;
    let mut left = limits::MESSAGE_PARTS.saturating_add(more);
    let Some(&shape) = SHAPES.by_name.get(U::full_name().as_str()) else {
        // Of no service of ours.
        return Ok(());
    };
    let bytes = message.len();
    SHAPES
        .walk(shape, message, &mut left, DEPTH)
        .map_err(|refusal| {
            Status::out_of_range(match refusal {
                Refusal::TooManyParts => format!(
                    "a message of {bytes} bytes has too many parts for its size: send fewer at a time"
                ),
                Refusal::Group => format!(
                    "a message of {bytes} bytes holds a group, which no message here has"
                ),
            })
        })
}

/// Why a message is not decoded.
enum Refusal {
    TooManyParts,
    /// The decoder would skip it, whatever is in it, and go on behind it. Nobody who speaks these protos sends one.
    Group,
}

/// How many parts a message has.
#[cfg(test)]
pub(crate) fn parts_of<U: Name>(message: &[u8]) -> usize {
    let mut left = usize::MAX;
    let shape = SHAPES.by_name[U::full_name().as_str()];
    assert!(SHAPES.walk(shape, message, &mut left, DEPTH).is_ok());
    usize::MAX - left
}

/// Which fields of which messages are messages.
struct Shapes {
    by_name: HashMap<String, usize>,
    /// By the shape's place: the fields that are messages and no maps, with their shapes' places.
    fields: Vec<Vec<(u64, usize)>>,
}

static SHAPES: LazyLock<Shapes> = LazyLock::new(|| {
    let pool =
        DescriptorPool::decode(super::DESCRIPTORS).expect("they were built with the program");
    let messages: Vec<_> = pool.all_messages().collect();
    let places = messages.iter().enumerate();
    let by_name: HashMap<_, _> = places
        .map(|(place, message)| (message.full_name().to_owned(), place))
        .collect();
    let parts = |message: &MessageDescriptor| {
        let fields = message.fields().filter(|field| !field.is_map());
        let parts = fields.filter_map(|field| match field.kind() {
            Kind::Message(part) => Some((u64::from(field.number()), by_name[part.full_name()])),
            _ => None,
        });
        parts.collect()
    };
    let fields = messages.iter().map(parts).collect();
    Shapes { by_name, fields }
});

impl Shapes {
    /// A message has no more than `left` parts; takes them off. What is no message is left to the decoder, which comes no further than
    /// this either.
    fn walk(
        &self,
        shape: usize,
        mut message: &[u8],
        left: &mut usize,
        depth: usize,
    ) -> Result<(), Refusal> {
        let parts = &self.fields[shape];
        while let Some(field) = next_field(&mut message) {
            let (field, value) = match field {
                Field::Bytes(field, value) => (field, value),
                Field::Number => continue,
                Field::Group => return Err(Refusal::Group),
            };
            let Some((_, part)) = parts.iter().find(|(number, _)| *number == field) else {
                continue;
            };
            let (Some(fewer), Some(depth)) = (left.checked_sub(1), depth.checked_sub(1)) else {
                return Err(Refusal::TooManyParts);
            };
            *left = fewer;
            self.walk(*part, value, left, depth)?;
        }
        Ok(())
    }
}

/// What a message is made of.
enum Field<'a> {
    /// Its number, and what it holds: a message, perhaps.
    Bytes(u64, &'a [u8]),
    Number,
    /// The beginning or the end of one.
    Group,
}

/// The next field. `None` at the end, and where no field is.
fn next_field<'a>(message: &mut &'a [u8]) -> Option<Field<'a>> {
    let key = varint(message)?;
    let length = match key & 7 {
        0 => {
            varint(message)?;
            return Some(Field::Number);
        }
        1 => 8,
        2 => usize::try_from(varint(message)?).ok()?,
        3 | 4 => return Some(Field::Group),
        5 => 4,
        _ => return None,
    };
    let (value, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some(if key & 7 == 2 {
        Field::Bytes(key >> 3, value)
    } else {
        Field::Number
    })
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::{bent, spent};
    use crate::proto::v1::operation::Request;
    use crate::proto::v1::outcome::Response;
    use crate::proto::{internal, v1};
    use bytes::Bytes;
    use proptest::prelude::*;

    /// An exchange frame of puts, as a busy client sends them.
    fn frame(operations: usize, value_bytes: usize) -> v1::ExchangeRequest {
        let operation = |sequence| v1::Operation {
            sequence,
            request: Some(Request::PutKey(v1::PutKeyRequest {
                key: format!("key-{sequence}"),
                value: Bytes::from(vec![7; value_bytes]),
                ..Default::default()
            })),
        };
        v1::ExchangeRequest {
            operations: (1..).map(operation).take(operations).collect(),
            ..Default::default()
        }
    }

    /// Checks and decodes, as a server does; what it allocated must be within the bound.
    fn decode<U: Message + Name + Default>(message: &[u8]) -> Result<U, Status> {
        let (decoded, allocated) = spent(|| {
            check::<U>(message)?;
            U::decode(message).map_err(|error| Status::internal(error.to_string()))
        });
        let bound = limits::DECODED_BYTES + limits::DECODED_BYTES_PER_BYTE * message.len();
        assert!(
            allocated <= bound,
            "{allocated} bytes for {}",
            message.len()
        );
        decoded
    }

    #[test]
    fn what_clients_send_is_decoded() {
        for (operations, value_bytes) in [(1, 0), (4096, 0), (4096, 300), (4, 1 << 20)] {
            let frame = frame(operations, value_bytes);
            let decoded = decode::<v1::ExchangeRequest>(&frame.encode_to_vec());
            assert_eq!(decoded.expect("it is decoded"), frame);
        }
        let entry = |index| internal::Entry {
            log_id: Some(internal::LogId {
                index,
                ..Default::default()
            }),
            ..Default::default()
        };
        let append = internal::AppendRequest {
            entries: (0..limits::APPEND_ENTRIES).map(entry).collect(),
            ..Default::default()
        };
        let decoded = decode::<internal::AppendRequest>(&append.encode_to_vec());
        assert_eq!(decoded.expect("entries may be blank"), append);
        // The smallest answers there are, to everything that may be under way.
        let outcome = |sequence| v1::Outcome {
            sequence,
            response: Some(Response::DestroySession(
                v1::DestroySessionResponse::default(),
            )),
            ..Default::default()
        };
        let answers = v1::ExchangeResponse {
            outcomes: (1..).map(outcome).take(limits::STREAM_IN_FLIGHT).collect(),
            ..Default::default()
        };
        let decoded = decode::<v1::ExchangeResponse>(&answers.encode_to_vec());
        assert_eq!(decoded.expect("they may be many"), answers);
        let fields = (0..50_000).map(|nth| (format!("{nth}"), Bytes::new()));
        let update = v1::UpdateSessionRequest {
            set: fields.collect(),
            ..Default::default()
        };
        let decoded = decode::<v1::UpdateSessionRequest>(&update.encode_to_vec());
        assert_eq!(decoded.expect("a map's entries are no parts"), update);
    }

    #[test]
    fn a_message_that_would_swell_is_refused() {
        // Empty operations, and a transaction of empty operations in each of some.
        let empty = [0x1a, 0x00].repeat(2 << 20);
        let operations = v1::ExchangeRequest {
            operations: vec![v1::Operation::default()],
            ..Default::default()
        };
        assert_eq!(
            operations.encode_to_vec(),
            empty[..2],
            "that is what they look like"
        );
        let nested = v1::TxnRequest {
            then: vec![v1::Operation::default(); 1 << 20],
            ..Default::default()
        };
        let nested = v1::ExchangeRequest {
            operations: vec![v1::Operation {
                sequence: 1,
                request: Some(Request::Txn(nested)),
            }],
            ..Default::default()
        };
        // A group that nobody knows, which hides nothing of what comes behind it.
        let group = [&[0x7b, 0x7c][..], &empty].concat();
        let inner = [&[0x7b, 0x7c][..], &[0x22, 0x00].repeat(1 << 20)].concat();
        let mut within = vec![0x1a];
        prost::encoding::encode_varint(inner.len() as u64, &mut within);
        within.extend(inner);
        for message in [empty, nested.encode_to_vec(), group, within] {
            let refused = decode::<v1::ExchangeRequest>(&message);
            let refused = refused.expect_err("it has too many parts");
            assert_eq!(refused.code(), tonic::Code::OutOfRange);
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_do_no_harm(message in bent(vec![
            frame(3, 20).encode_to_vec(),
            frame(100, 300).encode_to_vec(),
            // So long that it is walked over.
            frame(5_000, 0).encode_to_vec(),
        ])) {
            // Whether it is decoded does not matter: only that nothing breaks, within the bound.
            decode::<v1::ExchangeRequest>(&message).ok();
            decode::<v1::TxnRequest>(&message).ok();
            decode::<v1::UpdateCartRequest>(&message).ok();
        }
    }
}
