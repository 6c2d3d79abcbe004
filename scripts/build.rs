//! Compiles the protos with `protox`, so that no `protoc` is needed, and tells the linker where to put what runs once.

use std::error::Error;
use std::path::PathBuf;

use protox::prost::Message as _;
use protox::prost_reflect::prost_types::field_descriptor_proto::Type;
use protox::prost_reflect::prost_types::{FileDescriptorProto, FileDescriptorSet};

const PUBLIC: &[&str] = &[
    "common",
    "session",
    "cart",
    "kv",
    "watch",
    "namespace",
    "cluster",
    "exchange",
];
const INTERNAL: &[&str] = &["record", "command", "raft"];
/// Cart services that existing programs call, each in a package of its own.
const SHOPS: &[&str] = &["hipstershop", "oteldemo"];

/// Public messages with a field for a session's token. Their `Debug` is written by hand, so that it shows none.
fn holding_tokens(descriptors: &FileDescriptorSet) -> Vec<String> {
    let public = |file: &&FileDescriptorProto| file.package() == "trolley.v1";
    let messages = descriptors
        .file
        .iter()
        .filter(public)
        .flat_map(|file| &file.message_type);
    let holding = messages.filter(|message| {
        let mut fields = message.field.iter();
        fields.any(|field| {
            field.r#type() == Type::String
                && (field.name() == "token" || field.name().ends_with("_token"))
        })
    });
    holding
        .map(|message| format!(".trolley.v1.{}", message.name()))
        .collect()
}

/// The headers of all that an outcome may hold. On the exchange stream they are empty, the frame's stands for them, so an outcome
/// has no room for one, and a unary response has one piece of memory more.
fn headers_in_outcomes(descriptors: &FileDescriptorSet) -> Vec<String> {
    let mut messages = descriptors.file.iter().flat_map(|file| &file.message_type);
    let outcome = messages.find(|message| message.name() == "Outcome");
    let held = outcome.into_iter().flat_map(|outcome| &outcome.field);
    let responses = held.filter(|field| field.type_name().ends_with("Response"));
    responses
        .map(|field| format!("{}.header", field.type_name()))
        .collect()
}

/// RocksDB has a function in each of its files that runs before `main`. Next to each other they take half a megabyte; strewn over
/// the code, as the linker of Rust leaves them unless it is told, each has some of what is around it loaded as well, even into
/// a gateway, which has no RocksDB.
fn group_startup_code() {
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,keep-text-section-prefix");
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    group_startup_code();
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("proto");
    println!("cargo:rerun-if-changed={}", root.display());

    let public = PUBLIC.iter().map(|name| format!("trolley/v1/{name}.proto"));
    let internal = INTERNAL
        .iter()
        .map(|name| format!("trolley/internal/v1/{name}.proto"));
    let shops = SHOPS.iter().map(|name| format!("shops/{name}.proto"));
    let descriptors = protox::compile(public.chain(internal).chain(shops), [&root])?;

    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let mut config = tonic_prost_build::Config::new();
    // By its name, the codec knows what it decodes.
    config.enable_type_names();
    // Maps are ordered, so that equal records have equal bytes; bytes fields share their buffer. What is rare and
    // large in a request or reply is boxed, so that every other one stays small: they are moved often.
    let mut builder = tonic_prost_build::configure();
    for header in headers_in_outcomes(&descriptors) {
        builder = builder.boxed(header);
    }
    builder
        .btree_map(".")
        .bytes(".")
        .boxed(".trolley.internal.v1.Reply.body.cart_frozen")
        .boxed(".trolley.v1.Operation.request.rotate_session")
        .boxed(".trolley.v1.Operation.request.set_namespace")
        .boxed(".trolley.v1.Outcome.response.create_session")
        .boxed(".trolley.v1.Outcome.response.get_cart")
        .boxed(".trolley.v1.Outcome.response.freeze_cart")
        .boxed(".trolley.v1.Outcome.response.get_namespace")
        .skip_debug(holding_tokens(&descriptors))
        .codec_path("crate::proto::BoundedCodec")
        // Written by hand.
        .extern_path(
            ".trolley.internal.v1.SessionRecord",
            "crate::proto::internal::SessionRecord",
        )
        .extern_path(
            ".trolley.internal.v1.SessionUpdate",
            "crate::proto::internal::SessionUpdate",
        )
        // The same messages under another name; only its service is generated.
        .extern_path(".oteldemo", "crate::proto::hipstershop")
        .compile_fds_with_config(descriptors, config)?;

    // For benchmarks alone, so reflection does not show it.
    let etcd = protox::compile(["peers/etcd.proto"], [&root])?;
    tonic_prost_build::configure()
        .build_server(false)
        .bytes(".")
        .compile_fds(etcd)?;
    Ok(())
}
