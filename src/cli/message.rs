//! Messages as JSON and back, whatever messages there are: with the names of the protos, bytes as text.
//!
//! It goes by the descriptors, so that a message which is added to the protos is understood here without a line. The
//! mapping is protobuf's own but for three things: names are the protos', 64-bit integers are numbers, and bytes are text
//! where they are text, otherwise `{"base64": …}`, as everywhere else on this command line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions,
};
use serde_json::{Map, Value, json};

use crate::proto;

/// The only member of what stands for bytes that are no text.
const BASE64: &str = "base64";

/// A message from JSON; the error says what is wrong with it.
pub(super) fn parse<M: Message + Default>(name: &str, mut json: Value) -> Result<M, String> {
    let descriptor = descriptor(name);
    let mut problem = None;
    each_bytes(&descriptor, &mut json, &mut |value| match to_bytes(value) {
        Some(bytes) => *value = STANDARD.encode(bytes).into(),
        // As good as absent.
        None if value.is_null() => {}
        None => {
            problem = Some(format!(
                r#"bytes are text, or {{"base64": "…"}}, and not {value}"#
            ));
        }
    });
    if let Some(problem) = problem {
        return Err(problem);
    }
    let message = DynamicMessage::deserialize(descriptor, json).map_err(|e| e.to_string())?;
    message.transcode_to().map_err(|e| e.to_string())
}

/// The JSON of a message, every field that it has.
pub(super) fn to_json<M: Message>(name: &str, message: &M) -> Value {
    let descriptor = descriptor(name);
    let mut dynamic = DynamicMessage::new(descriptor.clone());
    dynamic
        .transcode_from(message)
        .expect("the descriptor is the message's own");
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(false);
    let mut json = dynamic
        .serialize_with_options(serde_json::value::Serializer, &options)
        .expect("a message has nothing that JSON has not");
    each_bytes(&descriptor, &mut json, &mut |value| {
        let encoded = value.as_str().unwrap_or_default();
        let bytes = STANDARD.decode(encoded).unwrap_or_default();
        *value = match String::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => json!({ BASE64: encoded }),
        };
    });
    json
}

fn descriptor(name: &str) -> MessageDescriptor {
    let pool = DescriptorPool::decode(proto::DESCRIPTORS).expect("the build made the descriptors");
    pool.get_message_by_name(name)
        .expect("a message of the protos")
}

/// Bytes as people write them; `None` for what is neither text nor base64.
fn to_bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Object(object) if object.len() == 1 => {
            STANDARD.decode(object.get(BASE64)?.as_str()?).ok()
        }
        _ => None,
    }
}

/// Changes every value of a bytes field within a message's JSON.
fn each_bytes(message: &MessageDescriptor, json: &mut Value, change: &mut dyn FnMut(&mut Value)) {
    let Value::Object(object) = json else {
        return;
    };
    for (name, value) in object.iter_mut() {
        let field = message.get_field_by_name(name);
        if let Some(field) = field.or_else(|| message.get_field_by_json_name(name)) {
            each_value(&field, value, &mut |kind, value| match kind {
                Kind::Bytes => change(value),
                Kind::Message(inner) => each_bytes(&inner, value, change),
                _ => {}
            });
        }
    }
}

/// Visits a field's values: its own, a list's, or a map's.
fn each_value(field: &FieldDescriptor, value: &mut Value, visit: &mut dyn FnMut(Kind, &mut Value)) {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else {
            return;
        };
        let mut none = Map::new();
        for value in value.as_object_mut().unwrap_or(&mut none).values_mut() {
            visit(entry.map_entry_value_field().kind(), value);
        }
    } else if let Value::Array(values) = value {
        for value in values {
            visit(field.kind(), value);
        }
    } else {
        visit(field.kind(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1;
    use crate::proto::v1::operation::Request;

    fn txn(json: Value) -> Result<v1::TxnRequest, String> {
        parse("trolley.v1.TxnRequest", json)
    }

    #[test]
    fn bytes_are_text_or_base64() {
        let parsed = txn(json!({
            "compare": [{ "key": "a", "value": "text" }],
            "then": [
                { "put_key": { "key": "a", "value": { "base64": "/w==" }, "ttl_ms": 5 } },
                { "create_session": { "fields": { "theme": "dark" } } },
            ],
        }));
        let parsed = parsed.expect("it is well formed");
        let put = parsed.then[0].request.clone();
        let Some(Request::PutKey(put)) = put else {
            panic!("not a put: {put:?}");
        };
        assert_eq!((&put.value[..], put.ttl_ms), (&[0xff][..], 5));
        let json = to_json("trolley.v1.TxnRequest", &parsed);
        assert_eq!(json["compare"][0]["value"], "text");
        assert_eq!(
            json["then"][0]["put_key"]["value"],
            json!({ "base64": "/w==" })
        );
        assert_eq!(json["then"][1]["create_session"]["fields"]["theme"], "dark");
        assert_eq!(txn(json).expect("its own output"), parsed);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (json, what) in [
            (json!({ "the": [] }), "the"),
            (
                json!({ "then": [{ "put_key": { "value": 5 } }] }),
                r#"bytes are text, or {"base64": "…"}, and not 5"#,
            ),
            (
                json!({ "compare": [{ "key": "a", "value": { "base64": "?" } }] }),
                r#"and not {"base64":"?"}"#,
            ),
            (json!({ "then": [{ "put_kye": {} }] }), "put_kye"),
            (json!([1]), "map"),
        ] {
            let said = txn(json.clone()).expect_err("malformed");
            assert!(said.contains(what), "{json}: {said}");
        }
    }
}
