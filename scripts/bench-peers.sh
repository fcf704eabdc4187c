#!/bin/bash
# Isotherm and etcd side by side: three members each, syncs on, the same keys and values, the same clients,
# in turns on the same machine within one run, because only ratios of one run mean something.
set -euo pipefail

BIN=${BIN:?"the path of the isotherm binary"}
ROUNDS=${BENCH_ROUNDS:-5}
SECONDS_EACH=${BENCH_SECONDS:-6}
PORT=${BENCH_PORT:-27800}
TOOLS=$(dirname "$BIN")
DIR=$(mktemp -d /tmp/isotherm-peers.XXXXXX)
export ISOTHERM_META=127.0.0.1:$PORT
PIDS=()
cleanup() {
    "$BIN" down --dir "$DIR/cluster" >/dev/null 2>&1 || true
    for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${PIDS[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$DIR"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

if ! command -v etcd >/dev/null; then
    if [ "$(id -u)" != 0 ] || ! apt-get install -y -q --no-install-recommends etcd-server >/dev/null 2>&1; then
        echo "SKIPPED: bench-peers needs etcd (Debian's package etcd-server)" >&2
        exit 0
    fi
fi
client_port() { echo $((PORT + 90 + $1 * 2)); }
peer_port() { echo $((PORT + 91 + $1 * 2)); }
members= addresses=
for i in 0 1 2; do
    members=$members${members:+,}m$i=http://127.0.0.1:$(peer_port $i)
    addresses=$addresses${addresses:+,}http://127.0.0.1:$(client_port $i)
done
for i in 0 1 2; do
    etcd --name m$i --data-dir "$DIR/etcd-$i" --log-level error --quota-backend-bytes 8589934592 \
        --listen-client-urls "http://127.0.0.1:$(client_port $i)" \
        --advertise-client-urls "http://127.0.0.1:$(client_port $i)" \
        --listen-peer-urls "http://127.0.0.1:$(peer_port $i)" \
        --initial-advertise-peer-urls "http://127.0.0.1:$(peer_port $i)" \
        --initial-cluster "$members" >/dev/null 2>&1 &
    PIDS+=($!)
done
"$BIN" up --detach --dir "$DIR/cluster" --base-port "$PORT" --nodes 3 --ranges 8 >/dev/null
for _ in $(seq 50); do "$TOOLS/etcd-load" "$addresses" put 1 1 >/dev/null 2>&1 && break || sleep 0.2; done
"$BIN" bench get --clients 64 --seconds 1 >/dev/null 2>&1 # writes the keys
"$TOOLS/etcd-load" "$addresses" put 64 3 >/dev/null

field() { grep -o "\"$1\":[0-9.]*" | head -1 | cut -d: -f2; }
median() { sort -n | awk '{ v[NR] = $1 } END { printf "%.0f", v[int((NR + 1) / 2)] }'; }
echo "isotherm $("$BIN" version | head -1), etcd $(etcd --version | head -1 | awk '{ print $3 }')"
echo "one sync on this disk: $("$TOOLS/disk-sync" "$DIR")"
compare() { # load, clients
    : >"$DIR/ours" && : >"$DIR/theirs"
    for _ in $(seq "$ROUNDS"); do
        "$BIN" bench "$1" --clients "$2" --seconds "$SECONDS_EACH" --no-load -o json 2>/dev/null >>"$DIR/ours"
        "$TOOLS/etcd-load" "$addresses" "$1" "$2" "$SECONDS_EACH" >>"$DIR/theirs"
    done
    for what in ops_per_s p50 p99; do
        for who in ours theirs; do
            while read -r line; do echo "$line" | field $what; done <"$DIR/$who" | median >"$DIR/$who.$what"
        done
    done
    show() { echo "$(cat "$DIR/$1.ops_per_s")/s p50 $(cat "$DIR/$1.p50") us p99 $(cat "$DIR/$1.p99") us"; }
    ratio=$(awk "BEGIN { printf \"%.2f\", $(cat "$DIR/ours.ops_per_s") / $(cat "$DIR/theirs.ops_per_s") }")
    echo "$1, $2 clients: isotherm $(show ours); etcd $(show theirs); $ratio times as many"
}
compare put 1
compare put 256
compare get 256
