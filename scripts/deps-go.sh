#!/bin/sh
# Installs what the program of docs/api/go.md needs, from Debian's packages: Go, protoc with its plugins for Go,
# and the libraries in /usr/share/gocode. GOPATH can name another place of the libraries.
set -eu

has_everything() {
    for program in go protoc protoc-gen-go protoc-gen-go-grpc; do
        command -v "$program" >/dev/null 2>&1 || return 1
    done
    GO111MODULE=off GOPATH="${GOPATH:-}:/usr/share/gocode" \
        go list google.golang.org/grpc google.golang.org/protobuf/proto \
        google.golang.org/genproto/googleapis/rpc/errdetails >/dev/null 2>&1
}

if has_everything; then exit 0; fi

# The bridge to the older names of the library has to be of version 1.5: the one of 1.3 does not know messages
# of today's generator.
missing="golang-go protobuf-compiler protoc-gen-go-1-5 protoc-gen-go-grpc golang-google-grpc-dev
    golang-google-genproto-dev golang-google-protobuf-dev golang-github-golang-protobuf-1-5-dev"
if ! command -v apt-get >/dev/null 2>&1; then
    echo "please install Go, protoc, protoc-gen-go, protoc-gen-go-grpc and Go's gRPC library" >&2
    exit 1
fi
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
echo "installing:" $missing
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
# shellcheck disable=SC2086
$sudo apt-get install -y -qq --no-install-recommends $missing
