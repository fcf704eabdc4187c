#!/bin/bash
# A real cluster in two minutes: one meta process and three nodes with their own data directories,
# real data imported, totalled and read back, a node killed under load, every key verified.
#
#   BIN=path/to/isotherm   the binary          DEMO_KEEP=1  leave the cluster running
#   DEMO_DIR=dir           data directory      DEMO_PORT=N  first port
set -euo pipefail

BIN=${BIN:?"the path of the isotherm binary"}
DIR=${DEMO_DIR:-$(mktemp -d /tmp/isotherm-demo.XXXXXX)}
PORT=${DEMO_PORT:-7400}
export ISOTHERM_META=127.0.0.1:$PORT
export ISOTHERM_OUTPUT=table # for the one who watches, also through a pipe
WORK=$(mktemp -d)
LOAD=

step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
run() { printf '$ isotherm %s\n' "$*"; "$BIN" "$@"; }
fail() { echo "demo: $*" >&2; exit 1; }

finish() {
    status=$?
    [ -n "$LOAD" ] && kill "$LOAD" 2>/dev/null || true
    if [ "${DEMO_KEEP:-0}" = 1 ] && [ $status = 0 ]; then
        echo "the cluster keeps running; stop it with: isotherm down --dir $DIR"
    else
        "$BIN" down --dir "$DIR" >/dev/null 2>&1 || true
        [ -n "${DEMO_DIR:-}" ] || rm -rf "$DIR"
    fi
    rm -rf "$WORK"
    exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM

step "data: this machine's packages with their sizes, and every file that they own"
if command -v dpkg-query >/dev/null 2>&1; then
    # shellcheck disable=SC2016
    dpkg-query -W -f '${Package}:${Architecture}\t${Installed-Size}\n' \
        | awk -F'\t' '$2 ~ /^[0-9]+$/' | sort -u -k1,1 >"$WORK/packages.tsv"
    for list in /var/lib/dpkg/info/*.list; do
        package=$(basename "$list" .list)
        awk -v package="$package" 'length($0) < 2000 { print $0 "\t" package }' "$list"
    done | LC_ALL=C sort -t "$(printf '\t')" -u -k1,1 >"$WORK/files.tsv"
else
    find /usr -xdev -type f -printf '%p\t%s\n' 2>/dev/null | LC_ALL=C sort -u >"$WORK/files.tsv"
    awk -F'\t' '{ n = split($1, p, "/"); s[p[3]] += $2 } END { for (k in s) print k "\t" s[k] }' \
        "$WORK/files.tsv" | sort >"$WORK/packages.tsv"
fi
packages=$(wc -l <"$WORK/packages.tsv")
files=$(wc -l <"$WORK/files.tsv")
echo "$packages packages, $files files"

step "a cluster: 1 meta process, 3 nodes, 8 ranges"
run up --detach --dir "$DIR" --base-port "$PORT" --nodes 3 --ranges 8

step "import, split over more ranges by a sample of the keys"
run import "$WORK/packages.tsv" --prefix pkg/ --presplit 4
run import "$WORK/files.tsv" --prefix file --presplit 8
ranges=$("$BIN" range list | tail -n +2 | wc -l)
[ "$ranges" -ge 8 ] || fail "only $ranges ranges"

step "one total over all ranges, at one instant"
run aggregate --prefix pkg/ --fn count,sum,avg,min,max,stddev,p50 --explain
expected=$(awk -F'\t' '{ s += $2 } END { print s }' "$WORK/packages.tsv")
total=$("$BIN" aggregate --prefix pkg/ --fn sum -o json | grep -o '"sum":[0-9]*' | head -1 | cut -d: -f2)
echo "installed size of all packages: $total KiB (awk over the source says $expected)"
[ "$total" = "$expected" ] || fail "the totals differ"
run aggregate --prefix file/ --fn count --group-by split:/:2

step "status"
run status
run range list

step "kill -9 of a node while 64 clients write"
"$BIN" bench put --clients 64 --seconds 14 --keys 100000 -o json \
    >"$WORK/bench.json" 2>/dev/null &
LOAD=$!
sleep 4
victim=$(tr -d ' \n' <"$DIR/cluster.json" | grep -o '"nodes":.*' | grep -o '"pid":[0-9]*' | tail -1 | cut -d: -f2)
kill -9 "$victim"
echo "node with pid $victim killed after 4 s"
sleep 4
"$BIN" status | head -3 || true
wait "$LOAD" || fail "the load failed"
LOAD=
timeline=$(grep -o '"timeline":\[[^]]*\]' "$WORK/bench.json")
errors=$(grep -o '"errors":[0-9]*' "$WORK/bench.json" | cut -d: -f2)
echo "acknowledged writes per second: ${timeline#*:}"
echo "errors seen by clients: $errors"
last=$(echo "$timeline" | tr -d '[]' | awk -F, '{ print $(NF) }')
[ "$last" -gt 0 ] || fail "writes did not go on"

step "start it again on its data"
run up --detach --dir "$DIR" --base-port "$PORT" --nodes 3

step "the same total again"
again=$("$BIN" aggregate --prefix pkg/ --fn sum -o json | grep -o '"sum":[0-9]*' | head -1 | cut -d: -f2)
echo "installed size of all packages: $again KiB"
[ "$again" = "$expected" ] || fail "the totals differ"

step "verify every key, and that the replicas agree"
"$BIN" export --prefix pkg/ --format tsv | LC_ALL=C sort >"$WORK/packages.out"
sed 's/^/pkg\//' "$WORK/packages.tsv" | LC_ALL=C sort | cmp - "$WORK/packages.out" \
    || fail "packages differ"
"$BIN" export --prefix file/ --format tsv | LC_ALL=C sort >"$WORK/files.out"
sed 's/^/file/' "$WORK/files.tsv" | LC_ALL=C sort | cmp - "$WORK/files.out" || fail "files differ"
checked=0
for range in $("$BIN" range list | tail -n +2 | awk '{ print $1 }'); do
    "$BIN" range checksum "$range" >/dev/null || fail "the replicas of $range differ"
    checked=$((checked + 1))
done

step "summary"
echo "$((packages + files)) rows imported over $ranges ranges, read back byte by byte after kill -9 of a node under load"
echo "$checked ranges: all replicas equal; writes went on with $errors client errors"
