# Tandem's targets. `make` alone lists them. CI runs these and nothing else (.ci/run).

SHELL   := /bin/bash
# The race detector, but not in SQLite, which is C translated to Go: its reads and writes take most of the time.
RACE    := -race -gcflags=modernc.org/...=-race=false -ldflags=-w
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X main.version=$(VERSION)
# Tests that need a peer program fail, rather than skip, when it is missing.
REQUIRE := TANDEM_REQUIRE_PG=1 TANDEM_REQUIRE_SIPP=1 TANDEM_REQUIRE_KAMAILIO=1 TANDEM_REQUIRE_DNS=1
PKG     ?= ./...
ARGS    ?=

.DEFAULT_GOAL := help
.PHONY: help build demo test test-deep test-stress ci-empty lint generate fuzz \
	bench-calls bench-replica bench-bulk bench-dns bench-sync package setup clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

build: ## build bin/tandem
	@go build -trimpath -ldflags '$(LDFLAGS)' -o bin/tandem ./cmd/tandem

demo: build ## run Tandem with simulated neighbours (ARGS="--once")
	@bin/tandem demo $(ARGS)

test: ## run the tests, race detector on (PKG=./internal/...)
	@scripts/need.sh build test
	$(REQUIRE) go test $(RACE) -vet=off -timeout 9m $(PKG) # make lint vets

test-deep: ## run the long suites too (over an hour; packages: as root)
	@scripts/need.sh build test deep
	$(REQUIRE) go test -tags deep -vet=off -p 1 -timeout 60m $(PKG) # -p 1: the load tests need the machine

test-stress: ## run the tests beside busy processes (under an hour)
	@scripts/need.sh build test
	@RACE="$(RACE)" scripts/stress.sh $(ARGS)

ci-empty: ## run .ci/run in a fresh Debian 12 root (as root)
	@scripts/ci-empty.sh

lint: .cache/bin/staticcheck ## check format, vet, unused code, generated files
	@out=$$(gofmt -l $$(find . -name "*.go" -not -path "./.cache/*")); \
	[ -z "$$out" ] || { echo "not gofmt'ed:"; echo "$$out"; exit 1; }
	@scripts/width.sh
	go vet ./...
	go vet -tags deep ./...
	.cache/bin/staticcheck -tags deep ./...
	go test -C tools -count=1 . # nothing is unused, except what scripts/unused.txt names
	@scripts/generated.sh

generate: ## regenerate generated code and documents
	go generate ./...

fuzz: ## fuzz every parser (FUZZTIME=2m each; ONLY=FuzzName)
	@scripts/need.sh build
	@scripts/fuzz.sh $(ONLY)

bench-calls: build ## measure calls beside Kamailio
	@scripts/need.sh bench
	@bench/calls/run $(ARGS)

bench-replica: ## measure the number index: memory, lookup, load
	@bench/replica/run $(ARGS)

bench-bulk: ## measure bulk loads into both databases
	@scripts/need.sh test
	@bench/bulk/run $(ARGS)

bench-dns: ## measure the name server beside nsd
	@scripts/need.sh bench
	@bench/dns/run $(ARGS)

bench-sync: ## measure reading the users of a tenant beside two peers
	@bench/sync/run $(ARGS)

package: .cache/bin/nfpm ## build the Debian package in dist/
	@scripts/package.sh

setup: ## install the Debian packages that the targets need
	@scripts/need.sh build test bench

clean: ## remove what was built
	@rm -rf bin dist .cache

# Tools come from tools/go.mod, so that their dependencies never enter the product's module graph.
.cache/bin/staticcheck: tools/go.mod
	@mkdir -p .cache/bin
	go build -C tools -o ../.cache/bin/staticcheck honnef.co/go/tools/cmd/staticcheck

# Of its own module: CI does not need it, nor the many modules that it is built from.
.cache/bin/nfpm: tools/package/go.mod
	@mkdir -p .cache/bin
	go build -C tools/package -o ../../.cache/bin/nfpm github.com/goreleaser/nfpm/v2/cmd/nfpm
