# Shared by all scripts; to be sourced. Sets the same build environment everywhere: a change of compiler or flags would
# compile RocksDB again, which takes minutes.
# shellcheck shell=bash

set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT"

# Says what happens, on standard error so that standard output stays usable.
say() {
    printf '\033[1m== %s\033[0m\n' "$*" >&2
}

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# Where cargo puts what it builds, as cargo itself sees it (environment, configuration files).
target_dir() {
    cargo metadata --no-deps --format-version 1 | grep -o '"target_directory":"[^"]*"' | cut -d'"' -f4
}

# Runs a step and says how long it took.
STEP_TIMES=()
step() {
    local name="$1" began took
    shift
    say "$name"
    began=$SECONDS
    "$@"
    took=$((SECONDS - began))
    STEP_TIMES+=("$(printf '%6ds  %s' "$took" "$name")")
}

# Where the time went.
step_report() {
    say "time"
    printf '%s\n' "${STEP_TIMES[@]}" >&2
}

if [[ -d "$HOME/.cargo/bin" && ":$PATH:" != *":$HOME/.cargo/bin:"* ]]; then
    export PATH="$HOME/.cargo/bin:$PATH"
fi

# Installs what is missing, and then fixes the compilers: ccache keeps the objects of RocksDB over a change of target
# folder. After the installation, so that the first build and the next use the same.
set_up() {
    step "setup" scripts/setup
    if have ccache && have gcc && have g++; then
        export CC="${CC:-ccache gcc}" CXX="${CXX:-ccache g++}"
    fi
}

# Builds the binaries in the release profile and starts `drover dev` for a measurement. Everything it stores goes into $WORK, which
# is removed at the end together with every process in BENCH_PIDS. Sets BIN, WORK and DROVER_ENDPOINTS.
#   bench_cluster NAME PORT [options of drover dev]
BENCH_PIDS=()
bench_cluster() {
    local name="$1" port="$2" deadline=$((SECONDS + 60))
    shift 2
    set_up
    step "build" cargo build --release --package drover --package drover-testkit --bins
    BIN="$(target_dir)/release"
    WORK="$(mktemp -d "${BENCH_DIR:-${TMPDIR:-/tmp}}/drover-$name-XXXXXX")"
    trap end_bench EXIT
    "$BIN/drover" dev --data "$WORK/cluster" --base-port "$port" "$@" >"$WORK/dev.log" 2>&1 &
    BENCH_PIDS+=($!)
    export DROVER_ENDPOINTS="127.0.0.1:$port,127.0.0.1:$((port + 2)),127.0.0.1:$((port + 4))"
    until [[ -e "$WORK/cluster/cluster.json" ]] && "$BIN/drover" --timeout 2s kv put ready yes >/dev/null 2>&1; do
        ((SECONDS < deadline)) || die "the cluster did not come up: $(tail -n 5 "$WORK/dev.log")"
        sleep 0.2
    done
}

end_bench() {
    local pid
    for pid in "${BENCH_PIDS[@]}"; do
        kill -INT "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$WORK"
}

# Takes a Debian package apart in a folder, without installing it: nothing starts, and no root is needed. A machine that has
# never updated its package lists does so first, if it may.
unpack_package() {
    local package="$1" folder="$2"
    mkdir -p "$folder"
    (
        cd "$folder"
        apt-get download -qq "$package" >&2 || { apt-get update -qq >&2 && apt-get download -qq "$package" >&2; }
        dpkg-deb -x "$package"_*.deb . && rm -f "$package"_*.deb
    )
}
