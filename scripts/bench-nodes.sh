# Three nodes of Drover for a measurement, and the figures of its reports; to be sourced after lib.sh.
# Needs WORK, a folder for everything that is stored, and PIDS, an array of what has to be stopped.
# shellcheck shell=bash

# The endpoints of the nodes that `start_drover` starts.
DROVER_NODES=127.0.0.1:12491,127.0.0.1:12492,127.0.0.1:12493

stop_nodes() {
    local pid
    for pid in "${PIDS[@]}"; do
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    PIDS=()
}

# Routes that cut the keys of `drover bench` (bench/000000000000 and on) into equal parts.
#   routes GROUPS KEYS
routes() {
    local groups="$1" keys="$2" n start="" end
    for ((n = 1; n <= groups; n++)); do
        printf "\n[[bootstrap.routes]]\nstart = '%s'\n" "$start"
        if ((n < groups)); then
            end="$(printf 'bench/%012d' $((keys * n / groups)))"
            printf "end = '%s'\n" "$end"
            start="$end"
        fi
        printf 'group = %d\n' $((n + 1))
    done
}

# Founds a cluster of three nodes in $WORK/NAME-*.
#   start_drover BINARY NAME GROUPS KEYS
start_drover() {
    local binary="$1" name="$2" groups="$3" keys="$4" n g config
    for n in 1 2 3; do
        config="$WORK/$name-$n.toml"
        {
            printf '[node]\nid = %d\ndata_dir = "%s"\n' "$n" "$WORK/$name-$n"
            printf 'grpc_listen = "127.0.0.1:%d"\nadmin_listen = "127.0.0.1:%d"\n' $((12490 + n)) $((12500 + n))
            printf '\n[cluster]\nid = "6e1f0a5c3b7d4d0f9a2c8e4b71d35f60"\n'
            for g in 1 2 3; do
                printf '\n[[bootstrap.nodes]]\nid = %d\n' "$g"
                printf 'grpc = "127.0.0.1:%d"\nadmin = "127.0.0.1:%d"\n' $((12490 + g)) $((12500 + g))
            done
            for ((g = 1; g <= groups + 1; g++)); do
                printf '\n[[bootstrap.groups]]\nid = %d\nreplicas = [1, 2, 3]\n' "$g"
            done
            routes "$groups" "$keys"
        } >"$config"
        "$binary" server --config "$config" >"$WORK/$name-$n.log" 2>&1 &
        PIDS+=("$!")
    done
}

# One figure of a JSON report: the last number called so, or the largest.
last_of() {
    grep -o "\"$1\":[ ]*[0-9.eE+-]*" "$2" | tail -n 1 | sed 's/.*:[ ]*//'
}

largest_of() {
    grep -o "\"$1\":[ ]*[0-9.eE+-]*" "$2" | sed 's/.*:[ ]*//' | sort -g | tail -n 1
}

milliseconds() {
    awk -v us="$1" 'BEGIN { print us / 1000 }'
}

ratio() {
    awk -v a="$1" -v b="$2" 'BEGIN { print (b > 0 ? a / b : 0) }'
}
