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
