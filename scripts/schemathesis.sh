#!/usr/bin/env bash
# Asks a gateway everything that its own document allows, and much that it does not: no answer may be a 5xx, and none may be
# one that the document does not know. Starts a node and a gateway of its own, and ends them.
#
#   scripts/schemathesis.sh [arguments of `schemathesis run`]
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

VERSION=4.32.5
VENV="${XDG_CACHE_HOME:-$HOME/.cache}/trolley/schemathesis-$VERSION"
NODE=127.0.0.1:${TROLLEY_SCHEMATHESIS_NODE_PORT:-7490}
FRONT=127.0.0.1:${TROLLEY_SCHEMATHESIS_PORT:-8090}
# Whether what the schema allows is accepted depends on what is stored: that is not asked.
CHECKS=not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance
CHECKS+=,negative_data_rejection
SECRET='what a run of schemathesis signs its tokens with'
SCOPES='cart:read cart:write cart:admin session:read session:write session:admin key:read key:write cluster:read'

work=$(mktemp -d)
started=()
finish() {
    ((${#started[@]} == 0)) || kill "${started[@]}" 2>/dev/null || true
    wait
    rm -rf -- "$work"
}
trap finish EXIT

# An HS256 token with every scope, of nothing but the standard library.
token() {
    python3 - "$SECRET" "$SCOPES" <<'PYTHON'
import base64, hashlib, hmac, json, sys

def part(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")

secret, scopes = sys.argv[1:]
claims = {"sub": "ada", "aud": "shop", "iss": "schemathesis", "exp": 4_000_000_000, "scope": scopes}
body = part(json.dumps({"alg": "HS256"}).encode()) + b"." + part(json.dumps(claims).encode())
print((body + b"." + part(hmac.new(secret.encode(), body, hashlib.sha256).digest())).decode())
PYTHON
}

ready() {
    local _
    for _ in $(seq 100); do
        [[ $(curl -s -o /dev/null -w '%{http_code}' "http://$FRONT/readyz") == 200 ]] && return
        sleep 0.1
    done
    tail -n 20 "$work"/*.log >&2
    die "the gateway is not ready"
}

main() {
    local trolley=${TROLLEY_BIN:-}
    if [[ -z $trolley ]]; then
        "$ROOT/scripts/setup.sh"
        (cd "$ROOT" && cargo build "${CARGO_PROFILE_FLAGS[@]}" --bin trolley)
        trolley=$CARGO_TARGET_DIR/release/trolley
    fi
    if [[ ! -x $VENV/bin/schemathesis ]]; then
        python3 -m venv "$VENV"
        "$VENV/bin/pip" install --quiet "schemathesis==$VERSION"
    fi
    printf '%s' "$SECRET" >"$work/secret"
    "$trolley" serve --single --data-dir "$work/data" --listen "$NODE" >"$work/node.log" 2>&1 &
    started+=($!)
    "$trolley" gateway --endpoints "$NODE" --listen "$FRONT" --jwt-keys "$work/secret" --jwt-algorithms HS256 \
        --jwt-audience shop --jwt-issuer schemathesis --rate-per-user 0 --rate-of-refusals 0 >"$work/gateway.log" 2>&1 &
    started+=($!)
    ready
    # Headers that nobody knows are nobody's business: clients and proxies add them, and no server refuses them.
    printf '[generation]\nallow-extra-parameters = false\n' >"$work/schemathesis.toml"
    # Events have no end, and have tests of their own.
    "$VENV/bin/schemathesis" --config-file "$work/schemathesis.toml" run "http://$FRONT/openapi.json" --header "Authorization: Bearer $(token)" \
        --exclude-operation-id watch --checks "$CHECKS" --no-color "$@"
}

main "$@"
