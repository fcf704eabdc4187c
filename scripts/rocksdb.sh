#!/bin/sh
# Compiles RocksDB's static library once for all target folders, profiles and clones of this user.
#
#   scripts/rocksdb.sh          builds it if it is missing (a quarter of an hour on two cores)
#   scripts/rocksdb.sh --dir    prints the folder it belongs in, and builds nothing
#
# The folder is named after everything that the library's machine code depends on: the crate's version
# and features, the compiler, the flags. The build is that of the crate's own build script, run in a
# target folder that is deleted afterwards.
set -eu
cd "$(dirname "$0")/.."

crate=librocksdb-sys
cargo=${CARGO:-cargo}
cache=${ISOTHERM_CACHE:-$HOME/.cache/isotherm}/rocksdb
host=$(uname -sm | tr ' ' '-')
compiler=${CXX:-c++}

# RocksDB chooses its CRC32C at compile time; without these it computes it in software. Every x86-64
# processor since 2011 has them, and the binary checks that at its start.
flags=
case $host in
    *-x86_64) flags="-msse4.2 -mpclmul" ;;
esac
flags="$flags ${CXXFLAGS:-}"

version=$(awk -v crate="\"$crate\"" '$1 == "name" { found = ($3 == crate) } found && $1 == "version" { gsub(/"/, "", $3); print $3; exit }' Cargo.lock)
features=$(sed -n 's/^rocksdb = .*features = \(\[.*\]\).*/\1/p' Cargo.toml)
if [ -z "$version" ] || [ -z "$features" ]; then
    echo "scripts/rocksdb.sh: Cargo.lock has no $crate, or Cargo.toml no line 'rocksdb = … features = [ … ]'" >&2
    exit 1
fi
compiler_version=$($compiler --version 2>/dev/null | head -n 1 || true)
key=$(printf '%s\n' "$version" "$features" "$host" "$compiler $compiler_version" "$flags" | sha256sum | cut -c1-12)
dir=$cache/$version-$key

if [ "${1:-}" = --dir ]; then
    echo "$dir"
    exit 0
fi
[ -e "$dir/librocksdb.a" ] && exit 0

mkdir -p "$cache"
exec 9>"$cache/$key.lock"
flock 9
[ -e "$dir/librocksdb.a" ] && exit 0

build=$cache/$key.build
log=$cache/$key.log
rm -rf "$build"
mkdir -p "$build"
echo "compiling RocksDB $version, once for all clones; the library goes to $dir" >&2
started=$(date +%s)

# Without ROCKSDB_LIB_DIR the crate compiles its own sources. The lock file fixes its version, and
# selecting it inside the workspace gives it the features that the workspace asks for.
(
    unset ROCKSDB_LIB_DIR ROCKSDB_STATIC
    export CARGO_TARGET_DIR="$build" CXXFLAGS="$flags"
    exec "$cargo" build --release --locked -p "$crate"
) >"$log" 2>&1 9>&- &
pid=$!
trap 'kill $pid 2>/dev/null || true; wait $pid 2>/dev/null || true; rm -rf "$build"' EXIT
trap 'exit 130' INT TERM

registry=${CARGO_HOME:-$HOME/.cargo}/registry/src
progress() {
    total=$(cat "$registry"/*/"$crate-$version"/rocksdb_lib_sources.txt 2>/dev/null | wc -l)
    ready=$(find "$build" -path "*/$crate-*/out/*.o" 2>/dev/null | wc -l)
    seconds=$(($(date +%s) - started))
    printf 'RocksDB: %d of %d files compiled after %d min %02d s' "$ready" "$total" $((seconds / 60)) $((seconds % 60))
}
said=$started
while kill -0 $pid 2>/dev/null; do
    sleep 2
    if [ -t 2 ]; then
        printf '\r%s ' "$(progress)" >&2
    elif [ $(($(date +%s) - said)) -ge 60 ]; then
        said=$(date +%s)
        printf '%s\n' "$(progress)" >&2
    fi
done
[ -t 2 ] && echo >&2
if ! wait $pid; then
    tail -n 30 "$log" >&2
    echo "RocksDB could not be compiled; the whole output is in $log" >&2
    exit 1
fi

library=$(find "$build" -path "*/$crate-*/out/librocksdb.a" | head -n 1)
rm -rf "$dir.new"
mkdir -p "$dir.new"
cp "$library" "$dir.new/librocksdb.a"
printf '%s\n' "version $version" "features $features" "compiler $compiler_version" "flags $flags" >"$dir.new/built-from"
rm -rf "$dir"
mv "$dir.new" "$dir"
seconds=$(($(date +%s) - started))
echo "RocksDB $version compiled in $((seconds / 60)) min $((seconds % 60)) s" >&2
