#!/bin/bash
# What an exact total over 1,000,000 values costs the servers, against the two ends of what is
# possible: a bare RocksDB iterator over the same rows, and etcd, where a total means to read
# everything and to add it up at the client. All in one run, because only ratios of one run mean
# something. Then: many aggregates at once beside writers in an open loop.
set -euo pipefail

BIN=${BIN:?"the path of the isotherm binary"}
ROWS=${BENCH_ROWS:-1000000}
ROUNDS=${BENCH_ROUNDS:-20}
PORT=${BENCH_PORT:-27500}
SECONDS_EACH=${BENCH_SECONDS:-10}
TOOLS=$(dirname "$BIN")
DIR=$(mktemp -d /tmp/isotherm-bench.XXXXXX)
export ISOTHERM_META=127.0.0.1:$PORT
ETCD_PID=
cleanup() {
    "$BIN" down --dir "$DIR/cluster" >/dev/null 2>&1 || true
    [ -z "$ETCD_PID" ] || { kill "$ETCD_PID" 2>/dev/null; wait "$ETCD_PID" 2>/dev/null; } || true
    rm -rf "$DIR"
}
trap cleanup EXIT

ticks() { # user and system time of processes, in hundredths of a second
    for pid in "$@"; do awk '{ print $14 + $15 }' "/proc/$pid/stat"; done | awk '{ s += $1 } END { print s }'
}
node_pids() {
    sed 's/"nodes"/\n&/' "$DIR/cluster/cluster.json" | tail -n +2 | grep -o '"pid": *[0-9]*' | grep -o '[0-9]*$'
}
resident_mb() {
    for pid in "$@"; do awk '/VmHWM/ { print $2 }' "/proc/$pid/status"; done | sort -n | tail -1 | awk '{ printf "%d", $1 / 1024 }'
}
per_core() { # rows, ticks
    awk "BEGIN { printf \"%.0f\", $1 * 100 / ($2 > 0 ? $2 : 1) }"
}
field() { # a number of a JSON line
    grep -o "\"$1\":[0-9.]*" | head -1 | cut -d: -f2
}

awk -v n="$ROWS" 'BEGIN { srand(7); for (i = 0; i < n; i++) printf "row/%07d\t%.2f\n", (i * 7919) % n, rand() * 100000 - 5000 }' \
    > "$DIR/rows.tsv"
"$BIN" up --detach --dir "$DIR/cluster" --base-port "$PORT" --nodes 3 --ranges 1 >/dev/null
"$BIN" import "$DIR/rows.tsv" --presplit 12 >/dev/null 2>&1
sleep 12 # until the last flush
total() { "$BIN" aggregate --prefix row/ --fn count,sum,avg,min,max -o json; }
echo "isotherm: $(total | cut -d'[' -f1)"
echo "awk:      $(awk -F'\t' '{ c += sprintf("%.0f", $2 * 100); n++ } END { printf "count %d sum %.2f", n, c / 100 }' "$DIR/rows.tsv")"

mapfile -t NODES < <(node_pids)
before=$(ticks "${NODES[@]}")
for _ in $(seq "$ROUNDS"); do total >/dev/null; done
ours=$(per_core "$((ROWS * ROUNDS))" "$(($(ticks "${NODES[@]}") - before))")
bare=$("$TOOLS/rocksdb-scan" "$DIR/cluster/node-1/data" | field rows_per_s)
echo "rows per second and server core: isotherm $ours, bare RocksDB iterator ${bare%.*}, ratio $(awk "BEGIN { printf \"%.2f\", $ours / $bare }")"

if command -v etcd >/dev/null || { [ "$(id -u)" = 0 ] && apt-get install -y -q --no-install-recommends etcd-server >/dev/null 2>&1; }; then
    etcd --data-dir "$DIR/etcd" --log-level error --quota-backend-bytes 8589934592 \
        --listen-client-urls "http://127.0.0.1:$((PORT + 90))" --advertise-client-urls "http://127.0.0.1:$((PORT + 90))" \
        --listen-peer-urls "http://127.0.0.1:$((PORT + 91))" --initial-advertise-peer-urls "http://127.0.0.1:$((PORT + 91))" \
        --initial-cluster "default=http://127.0.0.1:$((PORT + 91))" >/dev/null 2>&1 &
    ETCD_PID=$!
    for _ in $(seq 50); do "$TOOLS/etcd-sum" "http://127.0.0.1:$((PORT + 90))" sum >/dev/null 2>&1 && break; sleep 0.2; done
    "$TOOLS/etcd-sum" "http://127.0.0.1:$((PORT + 90))" load "$DIR/rows.tsv"
    before=$(ticks "$ETCD_PID")
    for _ in 1 2 3 4 5; do read_all=$("$TOOLS/etcd-sum" "http://127.0.0.1:$((PORT + 90))" sum); done
    theirs=$(per_core "$((ROWS * 5))" "$(($(ticks "$ETCD_PID") - before))")
    echo "etcd:     $read_all"
    echo "rows per second and server core: etcd $theirs ($(etcd --version | head -1)), isotherm / etcd $(awk "BEGIN { printf \"%.1f\", $ours / $theirs }")"
    kill "$ETCD_PID" && wait "$ETCD_PID" 2>/dev/null || true
    ETCD_PID=
else
    echo "skipped: etcd is not installed and cannot be (needs root)"
fi

# Writers at half of what they can do, alone and beside 100 aggregates at once.
capacity=$("$BIN" bench put --clients 128 --prefix w/ --presplit 6 --seconds "$SECONDS_EACH" -o json 2>/dev/null | field ops_per_s)
rate=$(awk "BEGIN { printf \"%d\", $capacity / 2 }")
writers() { "$BIN" bench put --clients 512 --rate "$rate" --prefix w/ --seconds "$SECONDS_EACH" -o json 2>/dev/null; }
alone=$(writers)
"$BIN" bench aggregate --clients 100 --no-load --prefix row/ --seconds "$((SECONDS_EACH + 2))" -o json 2>/dev/null > "$DIR/aggregates" &
BESIDE=$!
sleep 1
beside=$(writers)
wait "$BESIDE"
echo "writers at $rate/s alone:  p50 $(echo "$alone" | field p50) p99 $(echo "$alone" | field p99) us, errors $(echo "$alone" | field errors)"
echo "beside 100 aggregates:  p50 $(echo "$beside" | field p50) p99 $(echo "$beside" | field p99) us, errors $(echo "$beside" | field errors), p99 ratio $(awk "BEGIN { printf \"%.1f\", $(echo "$beside" | field p99) / $(echo "$alone" | field p99) }")"
echo "aggregates meanwhile:   $(field ops_per_s < "$DIR/aggregates")/s over $ROWS rows each, errors $(field errors < "$DIR/aggregates") $(grep -o '"errors_by_kind":{[^}]*}' "$DIR/aggregates"); largest node $(resident_mb "${NODES[@]}") MB"
