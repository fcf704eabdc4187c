#!/bin/bash
# The speed floor: 3 nodes, 1 meta and the client on this machine, syncs on, 8 ranges.
# Prints one JSON line per load, and what the metrics say of shared syncs.
set -euo pipefail

BIN=${BIN:?"the path of the isotherm binary"}
SECONDS_EACH=${BENCH_SECONDS:-10}
PORT=${BENCH_PORT:-27400}
DIR=$(mktemp -d /tmp/isotherm-bench.XXXXXX)
export ISOTHERM_META=127.0.0.1:$PORT
trap '"$BIN" down --dir "$DIR" >/dev/null 2>&1 || true; rm -rf "$DIR"' EXIT

counter() { # sum over the nodes
    for n in 10 11 12; do
        curl -s "http://127.0.0.1:$((PORT + 1000 + n))/metrics" | awk -v m="$1" '$1 == m { print $2 }'
    done | awk '{ s += $1 } END { printf "%d", s }'
}
load() {
    a=$(counter isotherm_log_appends_total); s=$(counter isotherm_log_syncs_total)
    "$BIN" bench "$@" --seconds "$SECONDS_EACH" -o json 2>/dev/null
    a2=$(counter isotherm_log_appends_total); s2=$(counter isotherm_log_syncs_total)
    [ "$s2" = "$s" ] || echo "  appends per sync: $(awk "BEGIN { printf \"%.1f\", ($a2 - $a) / ($s2 - $s) }")"
}

echo "one sync on this disk: $("$(dirname "$BIN")/disk-sync" "$DIR")"
"$BIN" up --detach --dir "$DIR" --base-port "$PORT" --nodes 3 --ranges 8
load put --clients 256
load get --clients 256
load put --clients 1
load mixed --clients 256 --dist zipfian
load incr --clients 64
