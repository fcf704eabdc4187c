#!/bin/bash
# Whether a hot spot really uses more nodes once it is spread. On one machine all nodes share the
# CPU, so each is held to a quota by a control group, and the client is not: then adding nodes adds
# CPU, as it does with machines.
#
# 1. Reads of 1 % of the keys of one range: its leader alone, then after the cluster reacted.
# 2. Writes: a cluster of three nodes against one of six, each after it reacted.
set -euo pipefail

BIN=${BIN:?"the path of the isotherm binary"}
QUOTA=${BENCH_QUOTA:-20} # percent of a core for each node
CLIENTS=${BENCH_CLIENTS:-1024}
PORT=${BENCH_PORT:-27700}
BEFORE_SECONDS=${BENCH_BEFORE:-10}
AFTER_SECONDS=${BENCH_AFTER:-40}
KEYS=${BENCH_KEYS:-20000}
PARTS=${BENCH_PARTS:-reads writes}
DIR=$(mktemp -d /tmp/isotherm-hotspot.XXXXXX)
export ISOTHERM_META=127.0.0.1:$PORT

if [ -d /sys/fs/cgroup/cpu ]; then
    GROUPS_ROOT=/sys/fs/cgroup/cpu VERSION=1
elif grep -qw cpu /sys/fs/cgroup/cgroup.controllers 2>/dev/null; then
    GROUPS_ROOT=/sys/fs/cgroup VERSION=2
else
    GROUPS_ROOT= VERSION=0
fi
GROUP=$GROUPS_ROOT/isotherm-bench-$$
if [ "$VERSION" = 0 ] || ! mkdir "$GROUP" 2>/dev/null; then
    echo "SKIPPED: bench-hotspot needs to make control groups with a CPU quota (run it as root)" >&2
    exit 0
fi
[ "$VERSION" = 1 ] || echo +cpu >"$GROUP/cgroup.subtree_control"

PIDS=()
end_all() {
    for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${PIDS[@]}"; do wait "$pid" 2>/dev/null || true; done
    PIDS=()
}
cleanup() {
    end_all
    for group in "$GROUP"/node-*; do
        [ -d "$group" ] || continue
        for _ in 1 2 3 4 5 6 7 8 9 10; do rmdir "$group" 2>/dev/null && break || sleep 0.2; done
    done
    rmdir "$GROUP" 2>/dev/null || true
    rm -rf "$DIR"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# A short period: a node that used its share waits for milliseconds, not for a tenth of a second.
group_of() { # number
    local group=$GROUP/node-$1
    mkdir -p "$group"
    if [ "$VERSION" = 1 ]; then
        echo 20000 >"$group/cpu.cfs_period_us"
        echo $((QUOTA * 200)) >"$group/cpu.cfs_quota_us"
    else
        echo "$((QUOTA * 200)) 20000" >"$group/cpu.max"
    fi
    echo "$group"
}
# Each node begins inside of its group, as it would in a container: it sees what it may use.
start() { # nodes
    local number group
    "$BIN" meta --id 1 --listen "$ISOTHERM_META" --data-dir "$DIR/meta" --bootstrap-nodes "$1" \
        --bootstrap-ranges 1 >"$DIR/meta.log" 2>&1 &
    PIDS+=($!)
    for number in $(seq "$1"); do
        group=$(group_of "$number")
        (
            echo "$BASHPID" >"$group/cgroup.procs"
            exec "$BIN" node --listen "127.0.0.1:$((PORT + 10 + number))" --data-dir "$DIR/node-$number" \
                --meta "$ISOTHERM_META" >"$DIR/node-$number.log" 2>&1
        ) &
        PIDS+=($!)
    done
    for _ in $(seq 300); do
        "$BIN" status >/dev/null 2>&1 && return
        sleep 0.2
    done
    echo "the cluster does not become healthy; its logs:" >&2
    tail -n 5 "$DIR"/*.log >&2
    exit 1
}
stop() {
    end_all
    rm -rf "$DIR"/meta "$DIR"/node-*
}
load() { # seconds, further arguments: the timeline, and the CPU that the client used
    local seconds=$1
    shift
    TIMEFORMAT='%U %S'
    { time "$BIN" bench "$@" --clients "$CLIENTS" --seconds "$seconds" --keys "$KEYS" --no-load -o json \
        >"$DIR/load.json" 2>/dev/null; } 2>"$DIR/load.time"
    CLIENT_CORES=$(awk -v s="$seconds" '{ printf "%.2f", ($1 + $2) / s }' "$DIR/load.time")
    ERRORS=$(grep -o '"errors":[0-9]*' "$DIR/load.json" | cut -d: -f2)
    TIMELINE=$(grep -o '"timeline":\[[0-9,]*' "$DIR/load.json" | cut -d[ -f2)
}
mean_of_last() { # seconds
    echo "$TIMELINE" | tr , '\n' | tail -n "$1" | awk '{ s += $1 } END { printf "%.0f", s / NR }'
}
shape() {
    "$BIN" range list -o json | tr '}' '\n' | grep -o '"leader":[0-9]*' | sort | uniq -c \
        | awk '{ split($2, leader, ":"); printf "n%s leads %s  ", leader[2], $1 }'
}
per_cent_of_rest() { # nodes
    awk "BEGIN { printf \"%.0f\", $CLIENT_CORES * 100 / ($(nproc) - $1 * $QUOTA / 100) }"
}

echo "each node may use 0.$(printf '%02d' "$QUOTA") of a core; $CLIENTS clients; $KEYS keys, 1 % of them hot"

reads() {
    start 3
    "$BIN" bench get --dist hotspot --clients 16 --seconds 1 --keys "$KEYS" >/dev/null 2>&1 # writes the keys
    "$BIN" config set scheduler.enabled false
    load "$BEFORE_SECONDS" get --dist hotspot
    before=$(mean_of_last $((BEFORE_SECONDS / 2)))
    echo "reads, one leader:   $before/s; the client uses $CLIENT_CORES cores ($(per_cent_of_rest 3) % of the rest)"
    "$BIN" config set scheduler.enabled true
    load "$AFTER_SECONDS" get --dist hotspot
    after=$(mean_of_last $((AFTER_SECONDS / 4)))
    echo "reads, after it spread: $after/s; errors $ERRORS; the client uses $CLIENT_CORES cores ($(per_cent_of_rest 3) % of the rest); $(shape)"
    echo "timeline, gets/s:    $TIMELINE"
    awk "BEGIN { printf \"reads: %.2f times as fast on three nodes\\n\", $after / $before }"
    stop
}
writes() {
    start 3
    load "$AFTER_SECONDS" put --dist hotspot
    three=$(mean_of_last $((AFTER_SECONDS / 4)))
    echo "writes, three nodes: $three/s; errors $ERRORS; the client uses $CLIENT_CORES cores ($(per_cent_of_rest 3) % of the rest); $(shape)"
    stop
    start 6
    load $((AFTER_SECONDS * 2)) put --dist hotspot
    six=$(mean_of_last $((AFTER_SECONDS / 4)))
    echo "writes, six nodes:   $six/s; errors $ERRORS; the client uses $CLIENT_CORES cores ($(per_cent_of_rest 6) % of the rest); $(shape)"
    echo "timeline, puts/s:    $TIMELINE"
    awk "BEGIN { printf \"writes: %.2f times as fast on six nodes as on three\\n\", $six / $three }"
}
for part in $PARTS; do $part; done
