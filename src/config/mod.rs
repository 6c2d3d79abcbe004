//! Flags and environment, validated into what the server needs.
//!
//! Two steps, like raw and resolved arguments: [`ServeArgs`] and [`GatewayArgs`] are what a person typed, with every flag's
//! help, default and environment variable; [`NodeConfig`] and [`GatewayConfig`] are what it means, complete and consistent.
//! Nothing behind this module asks whether a setting makes sense.
//!
//! Deliberately absent: a configuration file, and anything read from the data directory.

mod args;
mod error;
mod gateway;
mod node;
mod size;

pub use args::{LogFormat, ServeArgs};
pub use error::Error;
pub use gateway::{
    CookieTransport, GatewayArgs, GatewayConfig, JwtAlgorithm, KeyPlace, Protection, ShopConfig,
    Tokens,
};
pub use node::{Logging, Memory, NodeConfig, Snapshots, Timers};
pub use size::ByteSize;
