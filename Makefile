# Isotherm: everything that is done with this repository.
#
#   make demo     build, run a real cluster, import real data, kill a node, verify every key
#   make test     all tests that end in minutes
#
# RocksDB's library is compiled once for all profiles, target folders and clones of a user (`make deps`,
# scripts/rocksdb.sh) and linked from there. One cargo profile and one target folder serve check, test,
# demo and bench, and every cargo call selects the whole workspace: another selection resolves features
# differently and compiles half of the dependencies again.

export ISOTHERM_CACHE ?= $(HOME)/.cache/isotherm
export CARGO_TARGET_DIR ?= $(ISOTHERM_CACHE)/target
export CARGO_INCREMENTAL ?= 1
export ROCKSDB_LIB_DIR := $(shell scripts/rocksdb.sh --dir)
export ROCKSDB_STATIC := 1
BIN := $(CARGO_TARGET_DIR)/release/isotherm
FAULTS_BIN := $(CARGO_TARGET_DIR)/release/isotherm-faults
CARGO := cargo
ALL := --release --workspace

WORKLOAD ?= register
NEMESIS ?= kill
SECONDS ?= 60
SEED ?= 1

.PHONY: deps env build faults demo test check fix bench bench-hotspot bench-append bench-peers simulate jepsen abuse api-pages negative-controls clean

# libclang for RocksDB's bindings, a C++ compiler for RocksDB itself, and RocksDB's library.
deps:
	@scripts/deps.sh
	@scripts/rocksdb.sh

# For cargo without make: `eval "$$(make -s env)"`.
env:
	@echo 'export CARGO_TARGET_DIR=$(CARGO_TARGET_DIR) ROCKSDB_LIB_DIR=$(ROCKSDB_LIB_DIR) ROCKSDB_STATIC=1'

build: deps
	$(CARGO) build $(ALL) --bins

# The binary with switches that break rules on purpose; beside the real one, never instead of it.
faults: deps
	$(CARGO) build $(ALL) --bins --features isotherm/faults
	cp $(BIN) $(FAULTS_BIN)
	$(CARGO) build $(ALL) --bins

demo: build
	@BIN=$(BIN) scripts/demo.sh

# Tests start real processes of the binary, so it is built first.
test: build
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  ISOTHERM_BIN=$(BIN) $(CARGO) nextest run $(ALL); \
	else \
	  ISOTHERM_BIN=$(BIN) $(CARGO) test $(ALL) --lib --bins --tests -- --test-threads=2; \
	fi

check: deps
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(ALL) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc $(ALL) --no-deps --document-private-items --quiet
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
	  $(CARGO) deny --log-level error check; \
	else \
	  echo "skipped: cargo deny is not installed (licences and advisories were not checked)"; \
	fi

fix:
	$(CARGO) fmt --all
	$(CARGO) clippy $(ALL) --all-targets --fix --allow-dirty --allow-staged

bench: build
	@BIN=$(BIN) scripts/bench.sh
	@BIN=$(BIN) scripts/bench-aggregate.sh

bench-hotspot: build
	@BIN=$(BIN) scripts/bench-hotspot.sh

bench-peers: build
	@BIN=$(BIN) scripts/bench-peers.sh

bench-append: build
	@BIN=$(BIN) scripts/bench-append.sh

# The simulator at its full size: 1,000 nodes and 100,000 ranges.
simulate: build
	$(CARGO) nextest run $(ALL) --run-ignored only -E 'package(isotherm-scheduler)'

jepsen: build
	$(CARGO) build $(ALL) --bins
	ISOTHERM_BIN=$${ISOTHERM_BIN:-$(BIN)} $(CARGO_TARGET_DIR)/release/jepsen --workload $(WORKLOAD) \
	  --nemesis $(NEMESIS) --seconds $(SECONDS) --seed $(SEED) $(if $(HISTORY),--history $(HISTORY))

# Clients that do everything wrong on nodes that are killed, with the curve of every process's memory.
abuse: build
	ISOTHERM_BIN=$${ISOTHERM_BIN:-$(BIN)} ISOTHERM_ABUSE_SECONDS=$(SECONDS) $(CARGO) test $(ALL) --test abuse -- --nocapture

# The programs of docs/api/, with Python's and Node's gRPC libraries in a folder of their own and Go's from
# Debian's packages, and a minute of increments by 32 clients while nodes are killed.
API_LIBRARIES := $(ISOTHERM_CACHE)/api-libraries
api-pages: build
	@scripts/deps-go.sh
	python3 -m venv $(API_LIBRARIES)/python
	$(API_LIBRARIES)/python/bin/pip install --quiet grpcio grpcio-tools grpcio-status
	npm install --silent --prefix $(API_LIBRARIES)/node @grpc/grpc-js @grpc/proto-loader
	ISOTHERM_BIN=$(BIN) ISOTHERM_API_PAGES=1 ISOTHERM_INCREMENT_SECONDS=$(SECONDS) \
	  ISOTHERM_PYTHON=$(API_LIBRARIES)/python/bin/python NODE_PATH=$(API_LIBRARIES)/node/node_modules \
	  $(CARGO) test $(ALL) --test api_pages -- --nocapture --test-threads=1

# Builds without a rule must be caught: the check that cannot fail is no check. And an upgrade of a
# running cluster, from the release to the build with `faults`, which supports a newer version.
negative-controls: faults
	ISOTHERM_BIN=$(BIN) ISOTHERM_FAULTS_BIN=$(FAULTS_BIN) $(CARGO) test $(ALL) \
	  --test negative_controls --test upgrade -- --nocapture

clean:
	$(CARGO) clean
