//! A whole server over loopback.
