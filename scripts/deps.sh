#!/bin/sh
# Installs what a fresh Debian machine lacks: libclang (RocksDB's bindings) and a C++ compiler.
set -eu

# One of these places is enough. libclang-cpp is another library, which is no use here.
has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return
    for dir in /usr/lib/llvm-*/lib /usr/lib/*-linux-gnu /usr/lib64; do
        for file in "$dir"/libclang.so* "$dir"/libclang-[0-9]*.so*; do
            [ -e "$file" ] && return
        done
    done
    return 1
}

missing=
has_libclang || missing="$missing libclang-dev"
command -v c++ >/dev/null 2>&1 || missing="$missing g++"
command -v make >/dev/null 2>&1 || missing="$missing make"
[ -z "$missing" ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "please install:$missing" >&2
    exit 1
fi
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
# shellcheck disable=SC2086
$sudo apt-get install -y -qq --no-install-recommends $missing
