#!/usr/bin/env bash
# Puts one bug after the other into Trolley and shows whether trolley-torture finds it: bug, what found it, seconds.
# Builds with the feature `planted-bugs`, takes the binaries away, and builds without it again: no such binary may be left where
# others look for one. PLANTED_BIN=DIR uses those that are in a directory.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"

BIN=${PLANTED_BIN:-}

# Bug, and the faults and clients that bring it to light, or the corruption matrix. Seeds are fixed, so that a table can be made again.
readonly BUGS=(
    "unsynced-log power-cut-all,latency registers,carts"
    "leader-reads isolate-leader,pause-leader,one-way-out,latency registers"
    "follower-reads isolate-follower,latency,stall registers,sessions"
    "forgotten-replies kill-leader,isolate-leader,latency carts"
    "wall-clock-stamps clock-jump,kill-leader,latency sessions"
    "new-id-on-retry kill-leader,pause-leader,isolate-leader carts"
    "swallowed-error failed-sync,power-cut-all,kill-all registers,carts"
    "lost-events kill-leader,latency registers,watch"
    "unsynced-vote cut-voter registers,carts"
    "early-purge kill-follower,kill-all,snapshot,latency registers,carts"
    "truncate-off-by-one isolate-leader,kill-all,latency registers,carts"
    "replies-not-in-snapshots isolate-follower,kill-follower,snapshot,latency carts,registers,lists"
    "applied-apart kill-follower,kill-all,snapshot,latency registers,carts,lists"
    "forgotten-time kill-all,kill-majority,clock-jump,rolling-restart sessions,registers"
    "lost-touches kill-leader,latency sessions"
    "forgotten-fields kill-leader,latency sessions"
    "unsealed-tokens kill-leader,latency sessions"
    "lost-keep-alives kill-leader,latency leases,registers"
    "shared-locks kill-leader,latency locks,registers"
    "forgotten-moves kill-leader,latency leases,registers"
    "default-recovery corruption"
)

run() {
    local bug=$1 faults=$2 workloads=$3 out code=0 began=$SECONDS found
    out=$(mktemp -d)/run
    if [[ $faults == corruption ]]; then
        PLANTED_BUG=$bug "$BIN/trolley-torture" corruption --out "$out" --json >"$out.json" 2>"$out.log" || code=$?
        found='[.cells[] | select(.ending == "lost" or .ending == "served") | .kind] | unique | map("corruption matrix: " + .) | join(", ")'
    else
        PLANTED_BUG=$bug "$BIN/trolley-torture" run --out "$out" --seed 7 --duration "${DURATION:-120s}" --faults "$faults" \
            --workloads "$workloads" --json >"$out.json" 2>"$out.log" || code=$?
        found='[.checks[] | select(.judgement == "invalid") | .name] | join(", ")'
    fi
    if ((code == 1)); then
        printf '| %s | %s | %d |\n' "$bug" "$(jq -r "$found" "$out.json")" "$((SECONDS - began))"
    else
        printf '| %s | NOT FOUND: exit code %d, see %s | %d |\n' "$bug" "$code" "$out" "$((SECONDS - began))"
        return 1
    fi
    rm -rf -- "$(dirname -- "$out")"
}

build() {
    BIN=$(mktemp -d)
    cargo build "${CARGO_PROFILE_FLAGS[@]}" --features planted-bugs --bins
    cp -- "$CARGO_TARGET_DIR"/release/trolley{,-torture} "$BIN"
    cargo build "${CARGO_PROFILE_FLAGS[@]}" --bins
}

main() {
    have jq || die "it takes jq"
    local names=" ${BUGS[*]%% *} "
    [[ $# == 0 || $names == *" $1 "* ]] || die "there is no bug '$1'; there are$names"
    [[ -n $BIN ]] || build
    local line bug faults workloads missed=0
    printf '| bug | found by | seconds |\n|---|---|---|\n'
    for line in "${BUGS[@]}"; do
        read -r bug faults workloads <<<"$line"
        if [[ -z ${1:-} || ${1:-} == "$bug" ]]; then
            run "$bug" "$faults" "$workloads" || missed=1
        fi
    done
    return "$missed"
}

main "$@"
