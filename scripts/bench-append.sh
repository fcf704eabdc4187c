#!/bin/bash
# Appends at the tail against uniform keys with as many ranges: ten rounds, both loads in each, in turns.
# Prints both rates and their ratio for every round, the median ratio, and who led the growing end.
set -euo pipefail

BIN=${BIN:?"the path of the isotherm binary"}
ROUNDS=${BENCH_ROUNDS:-10}
SECONDS_EACH=${BENCH_SECONDS:-8}
CLIENTS=${BENCH_CLIENTS:-64}
PORT=${BENCH_PORT:-27600}
DIR=$(mktemp -d /tmp/isotherm-append.XXXXXX)
export ISOTHERM_META=127.0.0.1:$PORT
trap '"$BIN" down --dir "$DIR" >/dev/null 2>&1 || true; rm -rf "$DIR"' EXIT

load() { # arguments: operations per second
    "$BIN" bench "$@" --clients "$CLIENTS" --seconds "$SECONDS_EACH" -o json 2>/dev/null >"$DIR/load.json"
    grep -o '"errors":[0-9]*' "$DIR/load.json" | grep -qx '"errors":0' || echo "  errors: $(cat "$DIR/load.json")" >&2
    grep -o '"ops_per_s":[0-9]*' "$DIR/load.json" | cut -d: -f2
}
# Ranges that have keys below a prefix: those that start inside of it, and the one that holds its start.
ranges_of() {
    "$BIN" range list -o json | tr '}' '\n' | grep -c "\"start\":\"$1" || true
}

"$BIN" up --detach --dir "$DIR" --base-port "$PORT" --nodes 3 --ranges 1 >/dev/null
: >"$DIR/ratios"
for round in $(seq "$ROUNDS"); do
    tail=t$round/ even=u$round/
    appends=$(load append --prefix "$tail")
    ranges=$(($(ranges_of "$tail") + 1))
    uniform=$(load put --prefix "$even" --presplit "$ranges")
    ratio=$(awk "BEGIN { printf \"%.2f\", $appends / $uniform }")
    echo "$ratio" >>"$DIR/ratios"
    echo "round $round: append $appends/s, uniform on $ranges ranges $uniform/s: $ratio"
done
sort -n "$DIR/ratios" | awk '{ r[NR] = $1 } END { printf "median %.2f, least %.2f, most %.2f\n", r[int((NR + 1) / 2)], r[1], r[NR] }'
