//! The public gRPC services: parse, ask the node, encode.
