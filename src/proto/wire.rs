//! Protobuf's encoding by hand, where records are written by the hundred thousand.
//!
//! The bytes are those of `prost`, which appends a number byte by byte and asks for room before each, and which clones the
//! bytes that it copies.

use bytes::BufMut;
use prost::encoding::{self, WireType};

/// The most bytes that a number takes.
const VARINT_BYTES: usize = 10;

/// What stands before a field, for a tag below 16.
pub(crate) fn key(tag: u32, wire_type: WireType) -> u64 {
    u64::from(tag << 3 | wire_type as u32)
}

/// What so many bytes take with their length and a tag below 16.
pub(crate) fn framed(length: usize) -> usize {
    let length_bytes = encoding::encoded_len_varint(length as u64);
    length.saturating_add(length_bytes).saturating_add(1)
}

/// What [`put_uint`] takes.
pub(crate) fn uint_len(number: u64) -> usize {
    match number {
        0 => 0,
        _ => encoding::encoded_len_varint(number).saturating_add(1),
    }
}

/// A field of bytes, empty or not. A clone of them, as `prost` makes it, turns an unshared buffer into a shared one: an
/// allocation more for each record that is written.
pub(crate) fn put_bytes(tag: u32, bytes: &[u8], out: &mut impl BufMut) {
    put_varint(key(tag, WireType::LengthDelimited), out);
    put_varint(bytes.len() as u64, out);
    out.put_slice(bytes);
}

/// A field that holds a number, unless that is 0.
pub(crate) fn put_uint(tag: u32, number: u64, out: &mut impl BufMut) {
    if number != 0 {
        put_varint(key(tag, WireType::Varint), out);
        put_varint(number, out);
    }
}

/// A number.
pub(crate) fn put_varint(mut number: u64, out: &mut impl BufMut) {
    let mut bytes = [0_u8; VARINT_BYTES];
    let mut used = 0;
    for byte in &mut bytes {
        used += 1;
        // The lowest seven bits, and whether there are more.
        *byte = (number & 0x7f) as u8 | if number < 0x80 { 0 } else { 0x80 };
        number >>= 7;
        if number == 0 {
            break;
        }
    }
    out.put_slice(&bytes[..used]);
}
