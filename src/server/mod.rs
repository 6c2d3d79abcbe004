//! The composition root: services, readiness, drain.
