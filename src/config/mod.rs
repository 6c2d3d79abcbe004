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
mod process;
mod size;
mod switch;

pub use args::ServeArgs;
pub use error::Error;
pub use gateway::{
    CookieTransport, GatewayArgs, GatewayConfig, JwtAlgorithm, KeyPlace, Protection, ShopConfig,
    Tokens,
};
pub use node::{Memory, NodeConfig, Snapshots, Timers};
pub use process::{LogFormat, Logging, Process, ProcessArgs};
pub use size::ByteSize;

/// Where a cluster of one machine is looked for: three nodes as `scripts/cluster.sh` starts them, or one alone.
pub const DEFAULT_ENDPOINTS: &str = "127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403,127.0.0.1:7400";
