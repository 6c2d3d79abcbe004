//! Bytes in JSON: text as it is, anything else as base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::gateway::problem::Problem;

/// A value: a string where its bytes are UTF-8, otherwise an object with its bytes in base64. Requests may use either.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Blob {
    /// Text.
    Text(String),
    /// Anything.
    Binary(Base64),
}

/// Bytes in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Base64 {
    /// With `+`, `/` and padding.
    #[schema(content_encoding = "base64")]
    base64: String,
}

impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Self {
        match String::from_utf8(bytes.into()) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Binary(Base64 {
                base64: STANDARD.encode(error.as_bytes()),
            }),
        }
    }
}

impl TryFrom<Blob> for Bytes {
    type Error = Problem;

    fn try_from(blob: Blob) -> Result<Self, Problem> {
        match blob {
            Blob::Text(text) => Ok(text.into()),
            Blob::Binary(binary) => {
                let bytes = STANDARD.decode(binary.base64);
                bytes
                    .map(Bytes::from)
                    .map_err(|error| Problem::malformed(format!("base64: {error}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_bytes_they_are_they_come_back() {
        let table: [(&[u8], &str); 3] = [
            (b"", r#""""#),
            ("caf\u{e9}".as_bytes(), "\"caf\u{e9}\""),
            (&[0xff, 0, 0xfe], r#"{"base64":"/wD+"}"#),
        ];
        for (bytes, json) in table {
            let blob = Blob::from(Bytes::copy_from_slice(bytes));
            assert_eq!(serde_json::json!(blob).to_string(), json);
            let again: Blob = serde_json::from_str(json).expect("it was just written");
            assert_eq!(Bytes::try_from(again).expect("it is well formed"), bytes);
        }
        let text: Blob = serde_json::from_str(r#"{"base64":"aGk="}"#).expect("it is an object");
        assert_eq!(Bytes::try_from(text).expect("it is base64"), "hi");
        let bad: Blob = serde_json::from_str(r#"{"base64":"?"}"#).expect("it is an object");
        assert!(Bytes::try_from(bad).is_err());
    }
}
