//! Flags that make sense, and flags that do not.

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    serve: ServeArgs,
}

const CLUSTER: &str = "1=10.0.0.1:7400,2=10.0.0.2:7400,3=node-3.local:7400";

fn parse(flags: &[&str]) -> Result<NodeConfig, Error> {
    let typed = ["trolley", "--data-dir", "/data"].iter().chain(flags);
    let cli = Cli::try_parse_from(typed).expect("clap accepts the flags");
    NodeConfig::try_from(cli.serve)
}

fn node_two(more: &[&str]) -> Result<NodeConfig, Error> {
    let mut flags = vec!["--node-id", "2", "--initial-cluster", CLUSTER];
    flags.extend(more);
    parse(&flags)
}

#[test]
fn a_single_node_needs_only_a_directory() {
    let config = parse(&["--single"]).expect("nothing more is needed");
    assert_eq!(config.node_id.get(), 1);
    assert_eq!(config.listen, SINGLE_ADDRESS);
    assert_eq!(config.advertise, SINGLE_ADDRESS);
    assert_eq!(config.initial_cluster.len(), 1);
    assert!(config.process.worker_threads >= 1);
}

#[test]
fn a_member_takes_its_address_from_the_list() {
    let config = node_two(&[]).expect("valid");
    assert_eq!(config.advertise, "10.0.0.2:7400");
    assert_eq!(config.listen, "10.0.0.2:7400");
    assert_eq!(config.initial_cluster.len(), 3);
    let behind_all = node_two(&["--listen", "0.0.0.0:7400"]).expect("valid");
    assert_eq!(behind_all.listen, "0.0.0.0:7400");
    assert!(!behind_all.join);
    assert!(node_two(&["--join"]).expect("valid").join);
}

#[test]
fn sizes_and_durations_are_humane() {
    let flags = [
        "--single",
        "--snapshot-interval",
        "90s",
        "--record-cache-bytes",
        "1GiB",
        "--log-buffer-bytes",
        "64KiB",
        "--state-layer-bytes",
        "64MiB",
        "--min-free-disk",
        "2GiB",
    ];
    let config = parse(&flags).expect("valid");
    assert_eq!(config.snapshots.interval, Duration::from_secs(90));
    assert_eq!(config.memory.record_cache, 1 << 30);
    assert_eq!(config.memory.log_buffer, 64 << 10);
    assert_eq!(config.memory.state_layer, 64 << 20);
    assert_eq!(config.min_free_disk, Some(2 << 30));
}

#[test]
fn every_complaint_names_its_flag() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "--node-id"),
        (&["--node-id", "1"], "--initial-cluster"),
        (
            &["--single", "--state-layer-bytes", "1KiB"],
            "--state-layer-bytes",
        ),
        (
            &["--node-id", "0", "--initial-cluster", CLUSTER],
            "--node-id",
        ),
        (
            &["--node-id", "4", "--initial-cluster", CLUSTER],
            "--node-id",
        ),
        (
            &["--node-id", "1", "--initial-cluster", ""],
            "--initial-cluster",
        ),
        (
            &["--node-id", "1", "--initial-cluster", "1=a:1,"],
            "--initial-cluster",
        ),
        (
            &["--node-id", "1", "--initial-cluster", "a:1"],
            "--initial-cluster",
        ),
        (&["--node-id", "1", "--initial-cluster", "x=a:1"], "x"),
        (
            &["--node-id", "1", "--initial-cluster", "1=a:1,1=b:1"],
            "node id 1 is listed twice",
        ),
        (
            &["--node-id", "1", "--initial-cluster", "1=a:1,2=a:1"],
            "a:1 is listed twice",
        ),
        (&["--node-id", "1", "--initial-cluster", "1=a"], "HOST:PORT"),
        (
            &["--node-id", "1", "--initial-cluster", "1=a:0"],
            "other than 0",
        ),
        (
            &["--node-id", "1", "--initial-cluster", "1=0.0.0.0:1"],
            "be able to dial",
        ),
        (&["--single", "--listen", "nowhere"], "--listen"),
        (&["--single", "--listen", "a b:1"], "--listen"),
        (&["--single", "--listen", "[::g]:1"], "--listen"),
        (&["--single", "--listen", "127.0.0.1:99999"], "--listen"),
        (&["--single", "--listen", "0.0.0.0:7400"], "--advertise"),
        (
            &["--single", "--heartbeat-interval-ms", "0"],
            "--heartbeat-interval-ms",
        ),
        (
            &["--single", "--min-free-disk", "1023KiB"],
            "--min-free-disk",
        ),
        (
            &["--single", "--heartbeat-interval-ms", "267"],
            "heartbeat x 3 <= election-timeout-min",
        ),
        (
            &["--single", "--election-timeout-min-ms", "1600"],
            "min < max",
        ),
        (
            &["--single", "--election-timeout-max-ms", "99999999"],
            "--election-timeout-max-ms",
        ),
        (
            &["--single", "--snapshot-log-bytes", "1KiB"],
            "--snapshot-log-bytes",
        ),
        (
            &["--single", "--snapshot-interval", "1ms"],
            "--snapshot-interval",
        ),
        (
            &["--single", "--max-message-bytes", "1GiB"],
            "--max-message-bytes",
        ),
        (&["--single", "--drain-timeout", "1h"], "--drain-timeout"),
        (&["--single", "--worker-threads", "0"], "--worker-threads"),
        (&["--single", "--log-filter", "a=b=c"], "--log-filter"),
    ];
    for (flags, expected) in cases {
        let error = parse(flags).expect_err(&format!("{flags:?}")).to_string();
        assert!(error.contains(expected), "{flags:?} says: {error}");
    }
}

#[test]
fn an_advertised_address_must_be_the_listed_one() {
    let error = node_two(&["--advertise", "elsewhere:7400"]).expect_err("it differs");
    assert!(error.to_string().contains("10.0.0.2:7400"), "{error}");
}

#[test]
fn clap_refuses_what_it_can() {
    let refused: &[&[&str]] = &[
        &["--single", "--initial-cluster", CLUSTER],
        &["--single", "--join"],
        &["--single", "--record-cache-bytes", "64M"],
        &["--single", "--drain-timeout", "soon"],
        &["--single", "--log-format", "xml"],
    ];
    for flags in refused {
        let typed = ["trolley", "--data-dir", "/data"].iter().chain(*flags);
        assert!(Cli::try_parse_from(typed).is_err(), "{flags:?}");
    }
    assert!(
        Cli::try_parse_from(["trolley", "--single"]).is_err(),
        "the data directory is needed"
    );
}

#[test]
fn the_arguments_are_well_defined() {
    use clap::CommandFactory as _;
    Cli::command().debug_assert();
}
