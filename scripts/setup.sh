#!/usr/bin/env bash
# Installs what the build needs and the machine lacks: a C++ compiler and libclang (for RocksDB and its
# bindings) and make (for jemalloc), through apt. Silent and quick when everything is there. Rust itself is only checked.
#
#   --web      what the demo for browsers and the test with a load balancer need besides: haproxy, curl, openssl
#   --browser  what the test with a real browser needs besides: chromium and its driver
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

# The build looks for libclang in these places, and in LIBCLANG_PATH.
has_libclang() {
    local place
    for place in ${LIBCLANG_PATH:+"$LIBCLANG_PATH"} /usr/lib/llvm-*/lib /usr/lib/*-linux-gnu /usr/lib64 /usr/lib /usr/local/lib; do
        if compgen -G "$place/libclang.so*" >/dev/null || compgen -G "$place/libclang-[0-9]*.so*" >/dev/null; then
            return 0
        fi
    done
    return 1
}

has_compiler() {
    local cxx=${CXX:-c++} cc=${CC:-cc}
    # Either may carry arguments, as in CXX="ccache g++".
    have "${cxx%% *}" && have "${cc%% *}"
}

check_rust() {
    if ! have cargo || ! have rustc; then
        die "no Rust toolchain: install Rust $RUST_AT_LEAST or newer from https://rustup.rs"
    fi
    local version oldest
    version=$(cd "$ROOT" && rustc --version) || die "rustc does not run: see the message above"
    version=${version#rustc }
    version=${version%% *}
    oldest=$(printf '%s\n%s\n' "$RUST_AT_LEAST" "${version%%-*}" | sort -V | head -n 1)
    [[ $oldest == "$RUST_AT_LEAST" ]] ||
        die "rustc is $version, and $RUST_AT_LEAST or newer is needed: run 'rustup update stable'"
}

install_packages() {
    local become=()
    have apt-get || die "missing: $*. There is no apt-get here; install them by your system's means"
    if ((EUID != 0)); then
        have sudo || die "missing: $*. Run as root: apt-get install $*"
        become=(sudo)
    fi
    note "Installing $* ..."
    local log
    log=$(mktemp)
    if ! { "${become[@]}" apt-get update && "${become[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install --yes --no-install-recommends "$@"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        die "apt-get could not install $*; its whole output is in $log"
    fi
    rm -f -- "$log"
}

main() {
    check_rust
    local missing=() name
    for name in "$@"; do
        case $name in
            --web)
                have haproxy || missing+=(haproxy)
                have curl || missing+=(curl)
                have openssl || missing+=(openssl)
                ;;
            --browser)
                have chromium || missing+=(chromium)
                have chromedriver || missing+=(chromium-driver)
                ;;
            *) die "unknown argument '$name'" ;;
        esac
    done
    has_compiler || missing+=(g++)
    has_libclang || missing+=(libclang-dev)
    have make || missing+=(make)
    if ((${#missing[@]} > 0)); then
        install_packages "${missing[@]}"
        has_compiler || die "no C++ compiler even after installing g++"
        has_libclang || die "no libclang even after installing libclang-dev; set LIBCLANG_PATH to its folder"
    fi
}

main "$@"
