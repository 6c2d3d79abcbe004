//! Flags and environment, validated into what the server needs.
