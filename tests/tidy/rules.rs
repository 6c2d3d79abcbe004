//! What the rules say.

/// A file has fewer lines than this.
pub const MAX_LINES: usize = 800;
/// A line has at most as many characters; `rustfmt` wraps neither comments nor literals.
pub const MAX_COLUMNS: usize = 140;

/// Whom a module may import. `limits` and `types` are open to all; every module may import itself.
pub const IMPORTS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("planted", &[]),
    ("types", &[]),
    ("clock", &[]),
    ("transport", &[]),
    ("config", &[]),
    ("process", &["config"]),
    ("proto", &[]),
    ("state", &["proto"]),
    ("raft", &["state", "proto"]),
    ("storage", &["raft", "state", "proto"]),
    // Appends carry the log clock.
    ("network", &["raft", "proto", "clock", "transport"]),
    (
        "node",
        &[
            "storage", "network", "raft", "state", "clock", "config", "proto",
        ],
    ),
    // A reply passes from raft to the edge as it is.
    ("api", &["node", "state", "proto", "raft", "transport"]),
    (
        "server",
        &[
            "node",
            "api",
            "network",
            "config",
            "clock",
            "process",
            "proto",
            "transport",
        ],
    ),
    ("client", &["proto", "transport"]),
    // An expiry is a time on the web server's own clock.
    ("tower_sessions", &["client", "proto", "clock"]),
    // What the client answers with are messages.
    (
        "gateway",
        &["client", "proto", "config", "clock", "process"],
    ),
    // `trolley serve` hands over to the server, `gateway` to that, `bench` and `demo` to the workloads.
    (
        "cli",
        &[
            "client", "proto", "config", "process", "server", "gateway", "torture",
        ],
    ),
    // The messages of other stores are generated in `proto` too.
    ("torture", &["client", "proto"]),
    ("bin", &[]),
    // For tests.
    ("foreign", &[]),
];

pub const OPEN_TO_ALL: &[&str] = &["limits", "planted", "types"];

/// Where a crate, and the crates whose names begin with its name, may be used.
pub const CRATES: &[(&str, &[&str])] = &[
    ("rocksdb", &["src/storage"]),
    (
        "rustix",
        &["src/clock", "src/storage", "src/torture", "src/process"],
    ),
    (
        "openraft",
        &["src/raft", "src/storage", "src/network", "src/node"],
    ),
    ("tower_sessions_core", &["src/tower_sessions"]),
    (
        "tonic",
        &[
            "src/proto",
            "src/transport",
            "src/network",
            "src/api",
            "src/server",
            "src/client",
            // The codes of refusals.
            "src/gateway/problem.rs",
            "src/torture",
        ],
    ),
    ("argon2", &["src/gateway/accounts"]),
    ("axum", &["src/gateway"]),
    ("jsonwebtoken", &["src/gateway/auth"]),
    ("tikv_jemalloc_ctl", &["src/process"]),
    ("utoipa", &["src/gateway"]),
];

/// Where a ban holds.
#[derive(Clone, Copy, PartialEq)]
pub enum Where {
    Everywhere,
    /// In what ships, but for these.
    ProductExcept(&'static [&'static str]),
    /// In tests of all kinds, but for these.
    TestsExcept(&'static [&'static str]),
}

/// What may not stand in code.
pub const BANS: &[(&str, Where, &str)] = &[
    (
        ".unwrap()",
        Where::ProductExcept(&[]),
        "say why it cannot fail: expect(\"...\")",
    ),
    ("dbg!", Where::Everywhere, "left over"),
    ("todo!", Where::Everywhere, "unfinished"),
    ("unimplemented!", Where::Everywhere, "unfinished"),
    (
        "#[ignore",
        Where::Everywhere,
        "a test that nobody runs proves nothing",
    ),
    (
        "SystemTime::now",
        Where::ProductExcept(&["src/clock.rs"]),
        "wall time is read in `clock` alone",
    ),
    (
        "thread::sleep",
        Where::TestsExcept(&[]),
        "wait for a condition, within a deadline",
    ),
    (
        "time::sleep(",
        // There, time is simulated: nobody waits, and what happens at a time is what is asked.
        Where::TestsExcept(&["tests/simulation"]),
        "wait for a condition, within a deadline",
    ),
    (
        "println!",
        Where::ProductExcept(&["src/cli", "src/main.rs", "scripts/build.rs"]),
        "only `cli` talks to people; log it",
    ),
    (
        "eprintln!",
        Where::ProductExcept(&["src/cli", "src/main.rs"]),
        "only `cli` talks to people; log it",
    ),
    (
        "print!",
        Where::ProductExcept(&["src/cli", "src/main.rs"]),
        "only `cli` talks to people; log it",
    ),
    (
        "eprint!",
        Where::ProductExcept(&["src/cli", "src/main.rs"]),
        "only `cli` talks to people; log it",
    ),
];

/// Functions that poll have to wait between two looks. They are named after what they do.
pub const POLLS: &[&str] = &["eventually", "poll"];

/// What may not stand anywhere, comments included. Put together here, so that this file may.
pub const BANNED_TEXT: &[(&str, &str)] = &[
    (concat!("TO", "DO"), "do it or open an issue"),
    (concat!("FIX", "ME"), "do it or open an issue"),
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/ro", "ot/"), "a path of one machine"),
];
