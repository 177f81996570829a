# Bare `make` prints this file's targets. Needed: Go, make and git; the tests
# also need a C compiler for the race detector, and `make test` Java, Maven and
# PostgreSQL for the real parts, all of which are installed where we may.
# Everything else is built from source at the version tools/go.mod pins.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

GO        ?= go
# Arguments of the program that `make run` starts, such as ARGS=--once.
ARGS      ?=
# The deaths of `make crash`, and the seed that repeats its choices; it prints the
# one that it took.
KILLS     ?= 200
SEED      ?=
# Which packages `make unit` and `make test` test.
PKG       ?= ./...
BENCH     ?= .
BENCHTIME ?= 1s
FUZZPKG   ?= ./internal/events
FUZZTIME  ?= 30s

GOLANGCI_LINT := bin/tools/golangci-lint

# The tests: under the race detector, in another order each time (go test
# prints the seed; -shuffle=<seed> repeats it), and stopped with all stacks
# rather than hanging.
GOTEST = CGO_ENABLED=1 $(GO) test -race -shuffle=on -timeout 10m

# Waits for another apt-get, as often at work on a machine that has just started.
APT_GET = apt-get -qq -o DPkg::Lock::Timeout=300

# The build tag of tests on real parts (internal/parts).
REAL = -tags realparts

# The tests in which programs die, and those of what kills them.
CRASH = ^Test(Crash|AnEventThatKills|AStoppedConsumer)

.PHONY: help
help: ## print this help
	@echo "eCreds Issuer. Targets:"
	@echo
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Examples: make run ARGS=--once; make unit PKG=./internal/issue/...; make fuzz FUZZTIME=5m"

# exec: the program takes the shell's place, so that Ctrl-C and SIGTERM reach
# it and its exit code is ours. (`go run` would stand in between.)
.PHONY: run
run: ## run everything on this machine: broker, simulated platform, both programs (ARGS=...)
	@echo "Building; the first time takes about a minute."
	@CGO_ENABLED=0 $(GO) build -trimpath -o bin/ecreds-local ./cmd/ecreds-local
	@exec bin/ecreds-local $(ARGS)

# -count=1: what `make test` reports has run now, never out of the cache.
.PHONY: test
test: modules vet lint race-ready parts ## all that must pass: vet, lint, tests, also on real Kafka and OpenSearch
	$(GOTEST) $(REAL) -count=1 $(PKG)
	$(GOTEST) -tags crash -count=1 ./internal/crash

.PHONY: unit
unit: race-ready ## the tests that need Go alone, with -race (inner loop: no linter, no real parts)
	$(GOTEST) $(PKG)

# The same tests as in `make test`, where they are 20 deaths: each point of
# internal/crash has its turn, and the fan-out is one of 100,000 learners.
.PHONY: crash
crash: race-ready parts ## kill every part at every point and at random moments (KILLS=200, SEED=n)
	CGO_ENABLED=1 KILLS=$(KILLS) SEED=$(SEED) $(GO) test -race -v -count=1 -timeout 120m $(REAL) -run '$(CRASH)' ./e2e

.PHONY: lint
lint: $(GOLANGCI_LINT) ## golangci-lint: import direction, bugs, comments, format
	$(GOLANGCI_LINT) run ./...

.PHONY: fmt
fmt: $(GOLANGCI_LINT) ## format the code (gofumpt, goimports)
	$(GOLANGCI_LINT) fmt

.PHONY: bench
bench: ## run the benchmarks with allocations (BENCH=regexp, BENCHTIME=1s)
	@pkgs=$$(find . -name '*_test.go' -not -path './bin/*' -not -path './tools/*' \
		-exec grep -l '^func Benchmark' {} + | xargs -r -n1 dirname | sort -u); \
	if [ -z "$$pkgs" ]; then echo "make bench: no package has a benchmark"; exit 0; fi; \
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem -timeout 60m $$pkgs

# go test fuzzes one target at a time, so each takes its turn.
.PHONY: fuzz
fuzz: ## fuzz the event decoder (FUZZTIME=30s for each target)
	@list=$$($(GO) test -list '^Fuzz' $(FUZZPKG)) || { echo "$$list" >&2; exit 1; }; \
	targets=$$(echo "$$list" | grep '^Fuzz' || true); \
	if [ -z "$$targets" ]; then echo "make fuzz: $(FUZZPKG) has no fuzz target" >&2; exit 1; fi; \
	for target in $$targets; do \
		echo "== $$target, $(FUZZTIME)"; \
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $(FUZZPKG) || exit 1; \
	done

.PHONY: build
build: ## build the programs into bin/, static
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/...

# The tools stay: they take minutes to build and are renewed when
# tools/go.mod changes. The local run's data is its own.
.PHONY: clean
clean: ## remove what was built, except bin/tools (keeps .ecreds/)
	@find bin -mindepth 1 -maxdepth 1 -not -name tools -exec rm -rf {} + 2>/dev/null || true
	@rm -rf dist coverage* cover.out
	@find . -path ./bin -prune -o \( -name '*.test' -o -name '*.prof' -o -name '*.coverprofile' \) -type f -exec rm -f {} +

# Parts of the targets above.

.PHONY: modules
modules:
	$(GO) mod tidy -diff
	$(GO) mod verify

.PHONY: vet
vet:
	$(GO) vet ./...
	$(GO) vet $(REAL),crash ./...

# The race detector links C code. On a machine where that is our business (root
# on Debian or Ubuntu) the compiler is installed; elsewhere the one line that
# does it is printed, since go test would only speak of cgo.
.PHONY: race-ready
race-ready:
	@cc=$$($(GO) env CC) && set -- $$cc; command -v "$$1" >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing a C compiler for the race detector."; \
		export DEBIAN_FRONTEND=noninteractive; \
		$(APT_GET) update && $(APT_GET) install -y gcc libc6-dev; \
	else \
		echo "The tests run with the race detector, which needs a C compiler: install it with 'apt-get install gcc libc6-dev' (Debian, Ubuntu), 'dnf install gcc' (Fedora), 'apk add gcc musl-dev' (Alpine) or 'xcode-select --install' (macOS)." >&2; \
		exit 1; \
	fi

# The real parts run on the machine's Java and PostgreSQL; their jars the tests
# fetch by themselves. Whatever package is missing is installed where that is our
# business; elsewhere the one line that does it is printed. Debian's package
# would start a database nobody asked for, unless it is told not to.
.PHONY: parts
parts: ## install what the real parts need: Java, Maven, PostgreSQL (make test does it)
	@command -v java >/dev/null && command -v mvn >/dev/null && \
		{ command -v postgres || ls /usr/lib/postgresql/*/bin/postgres; } >/dev/null 2>&1 && exit 0; \
	packages=$$(cat internal/parts/debian-packages); \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing $$packages for the tests on real parts."; \
		settings=/etc/postgresql-common/createcluster.conf; \
		[ -e $$settings ] || { mkdir -p $${settings%/*} && echo "create_main_cluster = false" >$$settings; }; \
		export DEBIAN_FRONTEND=noninteractive; \
		$(APT_GET) update && $(APT_GET) install -y --no-install-recommends $$packages; \
	else \
		echo "The tests on real parts need Java, Maven and PostgreSQL: as root on Debian or Ubuntu run 'apt-get install -y --no-install-recommends $$packages' ('make unit' needs none of them)." >&2; \
		exit 1; \
	fi

# Built when missing or when the pinned version changed, not at every run.
$(GOLANGCI_LINT): tools/go.mod tools/go.sum
	@echo "Building golangci-lint as pinned in tools/go.mod; the first time takes some minutes."
	CGO_ENABLED=0 $(GO) -C tools build -trimpath -buildvcs=false -o ../$@ \
		github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@
