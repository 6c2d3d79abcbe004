# shellcheck shell=bash
# Sourced by every script: where things are, and how they are built.
#
# RocksDB takes a quarter of an hour to compile per cargo profile on two cores. So scripts, tests and CI
# share one profile and one target directory outside the checkout; a second checkout builds in seconds.

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
export ROOT

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/trolley/target}"
export CLIPPY_CONF_DIR="$ROOT/scripts/lint"

# The oldest compiler that builds this, as Cargo.toml says it.
RUST_AT_LEAST=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$ROOT/Cargo.toml")
export RUST_AT_LEAST

# The flags of every cargo call. The lock file is never changed by a script.
# shellcheck disable=SC2034 # Used by the scripts that source this one.
CARGO_PROFILE_FLAGS=(--release --locked)

die() {
    printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2
    exit 1
}

note() {
    printf '%s\n' "$*" >&2
}

have() {
    command -v -- "$1" >/dev/null 2>&1
}
