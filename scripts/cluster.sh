#!/usr/bin/env bash
# A cluster on loopback, for trying things out. See --help.
#
# What a node is, is kept in its folder: its data, its log and a pid file. A pid is believed only while that
# process runs the same program on the same data directory, wherever the program's file was moved; nothing is ever
# killed by name.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=scripts/web.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/web.sh"

DIR=$(realpath -m -- "${TROLLEY_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/trolley}")
# Which ports and how many nodes; written once, by the first `up`, and the mark of a folder that is ours.
SHAPE=$DIR/cluster.conf
BINARY=${TROLLEY_BIN:-$CARGO_TARGET_DIR/release/trolley}
SELF=$ROOT/scripts/cluster.sh
MOST_NODES=9

# How long to wait for a node to listen or to leave, and for a leader.
START_S=30
DRAIN_S=30
LEADER_S=30
# And for others to know of a node that was started: longer than they take to tell it that it was removed.
PLACE_S=10

# Set by load_shape.
BASE_PORT=
NODES=

usage() {
    cat <<HELP
A Trolley cluster on loopback.

  scripts/cluster.sh demo          build, start three nodes, kill the leader under load, report
  scripts/cluster.sh demo --web    three nodes, two gateways and haproxy: a shop and a console for browsers
  scripts/cluster.sh up [N]        start N nodes (3, or as many as there were) and wait for a leader
  scripts/cluster.sh down          stop all nodes gracefully
  scripts/cluster.sh status        processes, and what the cluster says of itself
  scripts/cluster.sh kill ID       SIGKILL one node; 'leader' stands for the leader's id
  scripts/cluster.sh start ID      start one node again
  scripts/cluster.sh restart ID    stop one node gracefully and start it again
  scripts/cluster.sh upgrade       build, and restart one node after the other with what was built; clients notice nothing
  scripts/cluster.sh pause ID      SIGSTOP one node; 'leader' stands for the leader's id
  scripts/cluster.sh resume ID     SIGCONT it
  scripts/cluster.sh logs ID [-f]  the end of a node's log; -f follows it
  scripts/cluster.sh endpoints     the nodes' addresses, for TROLLEY_ENDPOINTS
  scripts/cluster.sh wipe          stop all nodes and delete their data

Environment, so that several clusters run side by side:
  TROLLEY_DIR   data and logs   (now: $DIR)
  TROLLEY_PORT  node i listens on this port + i   (default: 7400)
  TROLLEY_BIN   run this binary instead of building one
  Every flag of 'trolley serve' has a variable as well, see 'trolley serve --help'. TROLLEY_WORKER_THREADS is a node's share of
  the machine's cores unless it is set.
HELP
}

# ---- the cluster's shape ----------------------------------------------------------------------------------

need_shape() {
    [[ -f $SHAPE ]] || die "no cluster in $DIR: start one with 'scripts/cluster.sh up'"
}

# Fails where the shape makes no sense.
read_shape() {
    local name value
    while IFS='=' read -r name value; do
        case $name in
            base_port) BASE_PORT=$value ;;
            nodes) NODES=$value ;;
            *) return 1 ;;
        esac
    done <"$SHAPE"
    [[ $BASE_PORT =~ ^[0-9]+$ && $NODES =~ ^[1-9]$ ]]
}

load_shape() {
    need_shape
    read_shape || die "$SHAPE is damaged: run 'scripts/cluster.sh wipe'"
}

# The same, to delete what is there: nodes are known by their folders, so that as many are looked for as there can be.
load_any_shape() {
    need_shape
    if ! read_shape; then
        note "$SHAPE is damaged: looking for up to $MOST_NODES nodes"
        NODES=$MOST_NODES
        BASE_PORT=${TROLLEY_PORT:-7400}
    fi
}

# Creates the shape at the first `up`; later ones must agree with it.
settle_shape() {
    local wanted_nodes=$1 wanted_port=${TROLLEY_PORT:-}
    if [[ -n $wanted_nodes && ! $wanted_nodes =~ ^[1-9]$ ]]; then
        die "'$wanted_nodes' is not a number of nodes from 1 to $MOST_NODES"
    fi
    if [[ -n $wanted_port ]]; then
        [[ $wanted_port =~ ^[1-9][0-9]{0,4}$ ]] || die "TROLLEY_PORT='$wanted_port' is not a port"
        ((wanted_port + MOST_NODES <= 65535)) || die "TROLLEY_PORT=$wanted_port leaves no room for $MOST_NODES nodes"
    fi
    if [[ -f $SHAPE ]]; then
        load_shape
        [[ -z $wanted_nodes || $wanted_nodes == "$NODES" ]] ||
            die "the cluster in $DIR has $NODES nodes: run 'wipe' first, or set TROLLEY_DIR to have another beside it"
        [[ -z $wanted_port || $wanted_port == "$BASE_PORT" ]] ||
            die "the cluster in $DIR has base port $BASE_PORT: run 'wipe' first, or set TROLLEY_DIR to have another beside it"
        return
    fi
    if [[ -d $DIR && -n $(ls -A -- "$DIR") ]]; then
        die "$DIR is not empty and holds no cluster: set TROLLEY_DIR to another folder"
    fi
    BASE_PORT=${wanted_port:-7400}
    NODES=${wanted_nodes:-3}
    local id
    for id in $(ids); do
        need_free_port "$id"
    done
    mkdir -p -- "$DIR"
    printf 'base_port=%s\nnodes=%s\n' "$BASE_PORT" "$NODES" >"$SHAPE"
}

ids() {
    seq 1 "$NODES"
}

address() {
    printf '127.0.0.1:%d' "$((BASE_PORT + $1))"
}

# host:port of every node, separated by commas.
endpoints() {
    local id list=
    for id in $(ids); do
        list+=${list:+,}$(address "$id")
    done
    printf '%s' "$list"
}

# The same without one node, unless it is the only one.
other_endpoints() {
    local id list=
    for id in $(ids); do
        [[ $id == "$1" ]] || list+=${list:+,}$(address "$id")
    done
    printf '%s' "${list:-$(endpoints)}"
}

initial_cluster() {
    local id list=
    for id in $(ids); do
        list+=${list:+,}$id=$(address "$id")
    done
    printf '%s' "$list"
}

need_id() {
    [[ -n ${1:-} ]] || die "which node? Give an id from 1 to $NODES"
    if [[ ! $1 =~ ^[1-9]$ ]] || (($1 > NODES)); then
        die "no node '$1': the ids are 1 to $NODES"
    fi
}

# An id as given, or the leader's.
resolve() {
    if [[ ${1:-} == leader ]]; then
        # An election may be under way.
        wait_until "$LEADER_S" has_leader ||
            die "no node says that it leads: see 'scripts/cluster.sh status'"
        leader
    else
        need_id "${1:-}"
        printf '%s' "$1"
    fi
}

# ---- processes --------------------------------------------------------------------------------------------

node_dir() { printf '%s/node-%s' "$DIR" "$1"; }
data_dir() { printf '%s/data' "$(node_dir "$1")"; }
log_file() { printf '%s/log' "$(node_dir "$1")"; }
pid_file() { printf '%s/pid' "$(node_dir "$1")"; }

# The state letter of a process in /proc: R, S, T (stopped), Z (dead, not yet reaped).
proc_state() {
    local stat
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
    # The name before it stands in parentheses and may hold anything.
    stat=${stat##*) }
    printf '%s' "${stat%% *}"
}

# Prints the pid of a node that runs; fails when it does not. The pid file may outlive its process, and
# its pid may have been given to another since.
running() {
    alive "$(pid_file "$1")" "$(data_dir "$1")"
}

# The same of any process: its pid file, and an argument that no other process of this binary has.
alive() {
    local file=$1 mark=$2 pid program
    [[ -f $file ]] || return 1
    { read -r pid && read -r program; } <"$file" || return 1
    [[ $pid =~ ^[1-9][0-9]*$ ]] || return 1
    runs "$pid" "$program" || return 1
    tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -Fxq -- "$mark" || return 1
    [[ $(proc_state "$pid") != Z ]] || return 1
    printf '%s' "$pid"
}

# Which file a program is, whatever its name is now: a process keeps the file that it runs, also one that was moved or deleted since.
program_of() { stat -Lc %d:%i -- "$1" 2>/dev/null; }

# Whether a process runs a program. Pid files of earlier versions of this script name its path.
runs() {
    local path
    if [[ $2 == /* ]]; then
        path=$(readlink -- "/proc/$1/exe" 2>/dev/null) || return 1
        [[ ${path% (deleted)} == "$2" ]]
    else
        [[ $(program_of "/proc/$1/exe") == "$2" ]]
    fi
}

# Whether the process of a pid file is about to be gone. It lets go of its memory, and so of its name and arguments, before it closes
# its sockets; and its first thread may be a zombie while others are not done.
ending() {
    local pid tasks
    { read -r pid <"$1"; } 2>/dev/null || return 1
    [[ $pid =~ ^[1-9][0-9]*$ && -d /proc/$pid ]] || return 1
    [[ -z $(tr -d '\0' 2>/dev/null <"/proc/$pid/cmdline") ]] || return 1
    tasks=("/proc/$pid/task/"*)
    [[ $(proc_state "$pid") != Z ]] || ((${#tasks[@]} > 1))
}

paused() {
    [[ $(proc_state "$1") == T ]]
}

# Polls a command until it succeeds or the seconds have passed.
wait_until() {
    local limit=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < limit)) || return 1
        sleep 0.05
    done
}

not_running() { ! running "$1" >/dev/null && ! ending "$(pid_file "$1")"; }

listening() {
    (exec 3<>"/dev/tcp/127.0.0.1/$((BASE_PORT + $1))") 2>/dev/null
}

need_free_port() {
    if listening "$1"; then
        die "port $((BASE_PORT + $1)) is in use by another process: set TROLLEY_PORT (and TROLLEY_DIR) to others"
    fi
}

listening_or_gone() {
    listening "$1" || not_running "$1"
}

# The child is our shell until it has become the node, and may have ended since.
became() { [[ ! -e /proc/$1/exe ]] || runs "$1" "$2"; }

build() {
    if [[ -n ${TROLLEY_BIN:-} ]]; then
        [[ -x $BINARY ]] || die "TROLLEY_BIN=$BINARY is not an executable file"
        return
    fi
    have cargo || die "no cargo: run scripts/setup.sh"
    [[ -d $CARGO_TARGET_DIR/release ]] ||
        note "The first build compiles RocksDB: about a quarter of an hour on two cores."
    (cd "$ROOT" && cargo build "${CARGO_PROFILE_FLAGS[@]}" --bin trolley) || die "the build failed"
}

# spawn WHAT PID_FILE LOG COMMAND…: in a session of its own, so that an interrupt of this script does not reach it.
spawn() {
    local what=$1 pid_file=$2 log=$3 exe program pid
    exe=$(readlink -f -- "$(command -v -- "$4")")
    program=$(program_of "$exe") || die "$exe cannot be read"
    setsid "$exe" "${@:5}" >>"$log" 2>&1 </dev/null &
    pid=$!
    disown "$pid"
    printf '%s\n%s\n' "$pid" "$program" >"$pid_file"
    wait_until 5 became "$pid" "$program" || die "$what did not start"
}

# came_not_up WHAT LOG
came_not_up() {
    note "--- the end of $2 ---"
    tail -n 15 -- "$2" >&2 || true
    die "$1 did not come up"
}

# Nodes on one machine share its cores. A node that took all of them for itself would only have its threads wake each other.
threads_per_node() {
    local cores
    cores=$(nproc)
    printf '%d' $((cores > NODES ? cores / NODES : 1))
}

# Starts the process and returns; `await_start` waits for it.
launch() {
    local id=$1
    local -x TROLLEY_WORKER_THREADS=${TROLLEY_WORKER_THREADS:-$(threads_per_node)}
    [[ -x $BINARY ]] || die "no binary at $BINARY: run 'scripts/cluster.sh up'"
    need_free_port "$id"
    mkdir -p -- "$(data_dir "$id")"
    spawn "node $id" "$(pid_file "$id")" "$(log_file "$id")" "$BINARY" \
        serve --node-id "$id" --data-dir "$(data_dir "$id")" \
        --listen "$(address "$id")" --advertise "$(address "$id")" --initial-cluster "$(initial_cluster)"
}

await_start() {
    local id=$1
    if ! wait_until "$START_S" listening_or_gone "$id" || not_running "$id"; then
        came_not_up "node $id" "$(log_file "$id")"
    fi
}

# A node that listens may still be told that it is no member, and end. One of which another member says how it is does not; while the
# others are down, nobody does.
await_place() {
    local id=$1
    wait_until "$PLACE_S" placed_or_gone "$id" || note "no other node has a word for node $id yet"
    if not_running "$id"; then
        came_not_up "node $id" "$(log_file "$id")"
    fi
}

placed_or_gone() {
    (($(highest term "$1" "$(other_endpoints "$1")") > 0)) || not_running "$1"
}

# SIGTERM, and SIGKILL for one that does not leave in time.
await_stop() {
    local id=$1 pid
    wait_until "$DRAIN_S" not_running "$id" && return
    if pid=$(running "$id"); then
        note "node $id did not leave within $DRAIN_S s: killing it"
        kill -KILL "$pid" 2>/dev/null || true
        wait_until 5 not_running "$id" || die "node $id (pid $pid) cannot be killed"
    fi
}

ask_to_stop() {
    local pid
    if pid=$(running "$1"); then
        kill -TERM "$pid" 2>/dev/null || true
        # A paused process takes the signal only once it runs.
        kill -CONT "$pid" 2>/dev/null || true
    fi
}

# ---- what the cluster says --------------------------------------------------------------------------------

status_json() {
    timeout 5 "$BINARY" cluster status --json --endpoints "${1:-$(endpoints)}" 2>/dev/null
}

# What each node says of itself, a line each. The objects are flat, so that they can be cut out without a JSON parser, which a fresh
# machine does not have.
figures() {
    local json
    json=$(status_json "$@") || return 1
    printf '%s' "$json" | tr -d ' \n\t' | tr '{' '\n'
}

# The highest figure of this name; of one node, if an id is given; as these endpoints have it, if any are.
highest() {
    local name=$1 id=${2:-[0-9]+} object best=0
    while IFS= read -r object || [[ -n $object ]]; do
        [[ $object =~ \"node_id\":\"?($id)[^0-9] && $object =~ \"$name\":\"?([0-9]+) ]] || continue
        ((BASH_REMATCH[1] <= best)) || best=${BASH_REMATCH[1]}
    done < <(figures "${@:3}")
    printf '%s' "$best"
}

# Whether a node has applied the log up to an index.
reached() { (($(highest applied_index "$1") >= $2)); }

# The id of the node that says it leads, in the highest term.
leader() {
    local object id term best_term=-1 best=
    while IFS= read -r object || [[ -n $object ]]; do
        [[ $object =~ \"role\":\"(ROLE_)?(leader|LEADER)\" ]] || continue
        [[ $object =~ \"node_id\":\"?([0-9]+) ]] || continue
        id=${BASH_REMATCH[1]}
        term=0
        [[ $object =~ \"term\":\"?([0-9]+) ]] && term=${BASH_REMATCH[1]}
        if ((term > best_term)); then
            best_term=$term
            best=$id
        fi
    done < <(figures)
    [[ -n $best ]] && printf '%s' "$best"
}

has_leader() { leader >/dev/null; }

# ---- verbs ------------------------------------------------------------------------------------------------

cmd_up() {
    (($# <= 1)) || die "up takes one number at most"
    settle_shape "${1-}"
    build
    local id pid started=()
    for id in $(ids); do
        if pid=$(running "$id"); then
            note "node $id already runs (pid $pid)"
            if paused "$pid"; then
                note "node $id is paused: 'scripts/cluster.sh resume $id' wakes it"
            fi
        else
            launch "$id"
            started+=("$id")
        fi
    done
    for id in "${started[@]}"; do
        await_start "$id"
    done
    wait_until "$LEADER_S" has_leader || die "no leader after $LEADER_S s: see 'scripts/cluster.sh logs 1'"
    note "$NODES node(s) up, node $(leader || printf '?') leads: $(endpoints)"
}

cmd_down() {
    load_shape
    web_down
    local id
    for id in $(ids); do
        ask_to_stop "$id"
    done
    for id in $(ids); do
        await_stop "$id"
    done
    note "all nodes are down; their data is in $DIR"
}

cmd_status() {
    load_shape
    local id pid state any=
    for id in $(ids); do
        if pid=$(running "$id"); then
            state="running"
            any=yes
            if paused "$pid"; then
                state="paused"
            fi
            printf 'node %s  %s  %s, pid %s\n' "$id" "$(address "$id")" "$state" "$pid"
        else
            printf 'node %s  %s  down\n' "$id" "$(address "$id")"
        fi
    done
    [[ -n $any ]] || return 1
    "$BINARY" cluster status --endpoints "$(endpoints)"
}

# Sends one signal to a node that must be running.
signal() {
    local name=$1 id=$2 pid
    pid=$(running "$id") || die "node $id is not running"
    kill -"$name" "$pid" || die "node $id (pid $pid) cannot be signalled"
}

cmd_kill() {
    load_shape
    local id
    id=$(resolve "${1:-}") || exit 1
    signal KILL "$id"
    wait_until 5 not_running "$id" || die "node $id does not die"
    note "killed node $id"
}

cmd_pause() {
    load_shape
    local id
    id=$(resolve "${1:-}") || exit 1
    signal STOP "$id"
    note "paused node $id"
}

cmd_resume() {
    load_shape
    need_id "${1:-}"
    signal CONT "$1"
    note "resumed node $1"
}

cmd_start() {
    load_shape
    need_id "${1:-}"
    local pid
    if pid=$(running "$1"); then
        die "node $1 already runs (pid $pid)"
    fi
    launch "$1"
    await_start "$1"
    await_place "$1"
    note "node $1 listens on $(address "$1")"
}

cmd_restart() {
    load_shape
    need_id "${1:-}"
    ask_to_stop "$1"
    await_stop "$1"
    cmd_start "$1"
}

# No node stops before the one that was restarted has what was committed by then: a majority always has it all.
cmd_upgrade() {
    (($# == 0)) || die "upgrade takes nothing"
    load_shape
    local id committed
    for id in $(ids); do
        running "$id" >/dev/null || die "node $id is down: 'scripts/cluster.sh up' starts it; an upgrade needs all of them"
    done
    build
    for id in $(ids); do
        (cmd_restart "$id") ||
            die "node $id does not run with $BINARY, the others run as they did: put the program from before back, and 'scripts/cluster.sh up' starts it"
        wait_until "$LEADER_S" has_leader || die "no leader after $LEADER_S s: see 'scripts/cluster.sh logs $id'"
        committed=$(highest committed_index)
        ((committed > 0)) || die "no node says how far the log is committed: see 'scripts/cluster.sh status'"
        wait_until "$START_S" reached "$id" "$committed" ||
            die "node $id does not catch up: see 'scripts/cluster.sh logs $id'; the others run as they did"
    done
    note "all $NODES nodes run $BINARY; 'scripts/cluster.sh status' shows which state version they follow"
}

cmd_logs() {
    load_shape
    need_id "${1:-}"
    local log
    log=$(log_file "$1")
    [[ -f $log ]] || die "node $1 has never run"
    case ${2:-} in
        '') tail -n 100 -- "$log" ;;
        -f) tail -n 20 -F -- "$log" ;;
        *) die "logs ID [-f]: unknown argument '$2'" ;;
    esac
}

cmd_endpoints() {
    load_shape
    printf '%s\n' "$(endpoints)"
}

cmd_wipe() {
    load_any_shape
    web_wipe
    local id pid
    for id in $(ids); do
        if pid=$(running "$id"); then
            kill -KILL "$pid" 2>/dev/null || true
        fi
    done
    for id in $(ids); do
        wait_until 5 not_running "$id" || die "node $id does not die"
        rm -rf -- "$(node_dir "$id")"
    done
    rm -f -- "$SHAPE"
    rmdir -- "$DIR" 2>/dev/null || true
    note "wiped $DIR"
}

cmd_demo() {
    if [[ ${1-} == --web ]] && (($# == 1)); then
        "$ROOT/scripts/setup.sh" --web
        cmd_up ""
        web_up
        return
    fi
    (($# == 0)) || die "demo takes --web or nothing"
    "$ROOT/scripts/setup.sh"
    cmd_up ""
    ((NODES >= 3)) || die "a leader can be killed without harm only from three nodes up: this cluster has $NODES"
    # The killing runs in a shell of its own, and must find this cluster.
    local self result=0 id
    export TROLLEY_DIR=$DIR TROLLEY_BIN=$BINARY
    printf -v self '%q' "$SELF"
    "$BINARY" demo --endpoints "$(endpoints)" --kill-command "$self kill leader" || result=$?
    for id in $(ids); do
        running "$id" >/dev/null || cmd_start "$id"
    done
    ((result == 0)) || die "the demo failed (exit code $result): 'scripts/cluster.sh logs ID' shows what each node did"
    cat <<NEXT

The cluster stays up, with the killed node back in it. Try:
  export TROLLEY_ENDPOINTS=$(endpoints)
  alias trolley='$BINARY'
  trolley cluster status
  trolley kv put greeting hello && trolley kv get greeting
  scripts/cluster.sh kill leader && trolley kv get greeting
  scripts/cluster.sh up       # starts what is down
  scripts/cluster.sh wipe     # stops everything and deletes the data
NEXT
}

main() {
    local verb=${1:-}
    (($# == 0)) || shift
    case $verb in
        up | down | status | kill | start | restart | upgrade | pause | resume | logs | endpoints | demo | wipe)
            "cmd_$verb" "$@"
            ;;
        -h | --help | help) usage ;;
        '')
            usage >&2
            exit 2
            ;;
        *) die "unknown command '$verb': see --help" ;;
    esac
}

main "$@"
