# shellcheck shell=bash
# Sourced by cluster.sh: two gateways with a shop in front of the cluster, and a load balancer in front of them.
#
# Everything is kept in one folder, like a node: pid files, logs, the secret that tokens are signed with, and haproxy's
# configuration. The balancer listens on the base port + 80, the gateways on those that follow.

WEB_FRONTS=(front-1 front-2)
WEB_BALANCER=balancer
WEB_USER=demo@example.com
WEB_NAMESPACE=shop
WEB_TOKEN_S=$((24 * 3600))

web_dir() { printf '%s/web' "$DIR"; }
web_pid_file() { printf '%s/%s.pid' "$(web_dir)" "$1"; }
web_log() { printf '%s/%s.log' "$(web_dir)" "$1"; }
web_config() { printf '%s/haproxy.cfg' "$(web_dir)"; }
web_secret() { printf '%s/secret' "$(web_dir)"; }
web_token() { printf '%s/console-token' "$(web_dir)"; }
web_password() { printf '%s/password' "$(web_dir)"; }

# The balancer's port, and that of each front by its place.
web_port() { printf '%d' "$((BASE_PORT + 80 + $1))"; }

# What stands in the command line of a process, and of no other's.
web_mark() {
    local index
    for index in "${!WEB_FRONTS[@]}"; do
        if [[ ${WEB_FRONTS[index]} == "$1" ]]; then
            printf '127.0.0.1:%s' "$(web_port $((index + 1)))"
            return
        fi
    done
    web_config
}

web_running() { alive "$(web_pid_file "$1")" "$(web_mark "$1")"; }
web_not_running() { ! web_running "$1" >/dev/null && ! ending "$(web_pid_file "$1")"; }

# Whether a path of a server answers with success.
web_answers() { curl --silent --fail --max-time 2 --output /dev/null "http://127.0.0.1:$1$2"; }

# web_launch NAME COMMAND…
web_launch() {
    spawn "$1" "$(web_pid_file "$1")" "$(web_log "$1")" "${@:2}"
}

# Waits until NAME answers PATH on PORT.
web_await() {
    local name=$1
    if ! wait_until "$START_S" web_answers "$2" "$3" || web_not_running "$name"; then
        came_not_up "$name" "$(web_log "$name")"
    fi
}

# Only its owner may read what this writes.
web_keep() { (umask 077 && cat >"$1"); }

base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }

# A token for the console, signed with the demo's secret, which openssl can be told on its command line only.
web_sign() {
    local head body sum
    head=$(printf '{"alg":"HS256","typ":"JWT"}' | base64url)
    body=$(printf '{"sub":"operator","aud":"shop","iss":"demo","exp":%d,"namespace":"%s","scope":"%s"}' \
        "$(($(date +%s) + WEB_TOKEN_S))" "$WEB_NAMESPACE" 'cluster:read session:admin cart:admin' | base64url)
    sum=$(printf '%s.%s' "$head" "$body" |
        openssl dgst -sha256 -mac HMAC -macopt "hexkey:$(od -An -v -tx1 "$(web_secret)" | tr -d ' \n')" -binary | base64url)
    printf '%s.%s.%s\n' "$head" "$body" "$sum"
}

# Registers the demo's user as the page does; one that is there already is fine.
web_register() {
    local url=$1 jar answer csrf status
    jar=$(mktemp)
    answer=$(curl --silent --show-error --fail --cookie-jar "$jar" --header "Origin: $url" --request POST "$url/shop/api/session")
    [[ $answer =~ \"csrf\":\"([^\"]+)\" ]] || die "the shop gives no CSRF token: $answer"
    csrf=${BASH_REMATCH[1]}
    status=$(printf '{"address":"%s","password":"%s"}' "$WEB_USER" "$(<"$(web_password)")" |
        curl --silent --output /dev/null --write-out '%{http_code}' --cookie "$jar" --header "Origin: $url" \
            --header "X-CSRF-Token: $csrf" --header "Idempotency-Key: $(openssl rand -hex 16)" \
            --header 'Content-Type: application/json' --data-binary @- "$url/shop/api/register")
    rm -f -- "$jar"
    [[ $status == 200 || $status == 409 ]] || die "$WEB_USER could not be registered: the shop answered $status"
}

web_up() {
    local index name port url
    mkdir -p -- "$(web_dir)"
    [[ -f $(web_secret) ]] || openssl rand -hex 32 | tr -d '\n' | web_keep "$(web_secret)"
    [[ -f $(web_password) ]] || openssl rand -hex 12 | tr -d '\n' | web_keep "$(web_password)"
    for index in "${!WEB_FRONTS[@]}"; do
        name=${WEB_FRONTS[index]}
        port=$(web_port $((index + 1)))
        if web_not_running "$name"; then
            web_answers "$port" /livez && die "port $port is in use by another process: set TROLLEY_PORT"
            web_launch "$name" "$BINARY" gateway --listen "127.0.0.1:$port" --name "$name" --endpoints "$(endpoints)" \
                --jwt-keys "$(web_secret)" --jwt-algorithms HS256 --jwt-audience shop --jwt-issuer demo \
                --shop "$WEB_NAMESPACE" --cookies-over-http --forwarded-for
        fi
        web_await "$name" "$port" /readyz
    done
    # A copy, whose path stands in no other demo's command line.
    cp -- "$ROOT/scripts/haproxy.cfg" "$(web_config)"
    port=$(web_port 0)
    if web_not_running "$WEB_BALANCER"; then
        TROLLEY_BALANCER=127.0.0.1:$port TROLLEY_FRONT_1=127.0.0.1:$(web_port 1) TROLLEY_FRONT_2=127.0.0.1:$(web_port 2) \
            web_launch "$WEB_BALANCER" haproxy -db -f "$(web_config)"
    fi
    web_await "$WEB_BALANCER" "$port" /shop
    url=http://127.0.0.1:$port
    web_register "$url"
    web_sign | web_keep "$(web_token)"
    cat <<ADDRESSES
The shop:      $url/shop     (log in as $WEB_USER with the password $(<"$(web_password)"), or register)
Its orders:    $url/shop/orders
The console:   $url/console  (its token: cat $(web_token))
The API:       $url/docs
The fronts:    http://127.0.0.1:$(web_port 1)/shop and http://127.0.0.1:$(web_port 2)/shop
The cluster:   $(endpoints)

Open two windows of the shop. Then, while you click:
  kill -9 $(web_running "${WEB_FRONTS[0]}")   # the first front
  scripts/cluster.sh kill leader
  scripts/cluster.sh demo --web   # starts what is down
  scripts/cluster.sh wipe         # stops everything and deletes the data
ADDRESSES
}

# Gracefully, the balancer first.
web_down() {
    local name pid
    for name in "$WEB_BALANCER" "${WEB_FRONTS[@]}"; do
        if pid=$(web_running "$name"); then
            kill -TERM "$pid" 2>/dev/null || true
        fi
    done
    for name in "$WEB_BALANCER" "${WEB_FRONTS[@]}"; do
        wait_until "$DRAIN_S" web_not_running "$name" || web_kill "$name"
    done
}

web_kill() {
    local pid
    if pid=$(web_running "$1"); then
        kill -KILL "$pid" 2>/dev/null || true
        wait_until 5 web_not_running "$1" || die "$1 does not die"
    fi
}

web_wipe() {
    local name
    for name in "$WEB_BALANCER" "${WEB_FRONTS[@]}"; do
        web_kill "$name"
    done
    rm -rf -- "$(web_dir)"
}
