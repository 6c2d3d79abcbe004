//! The leader-aware client library.
