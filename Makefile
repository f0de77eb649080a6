# SPDX-License-Identifier: Apache-2.0

PREFIX  ?= /usr/local
DESTDIR ?=
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

BINDIR  = $(PREFIX)/bin
DATADIR = $(PREFIX)/share
UNITDIR = $(PREFIX)/lib/systemd/system

# urfave/cli's writer of man pages costs each start of the program 0.6 ms.
TAGS = urfave_cli_no_docs

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME   ?= 10s
BENCHFLAGS ?=
DOCKERBENCHFLAGS ?=
DEMOFLAGS  ?=

# The stages of `make test`, in order, and the packages of those that run tests.
# A package that is in none of the lists is in the stage unit.
STAGES     = format vet staticcheck build unit simulation kernel real engine vm
SIMULATION = ./lease
KERNEL     = ./provision ./dhcpclient/wire
REAL       = ./internal/lab ./internal/lab/units ./internal/daemon ./internal/lab/bench ./internal/lab/bench/dockerrun ./internal/lab/demo
ENGINE     = ./internal/docker
VM         = ./internal/lab/vm/...

GOTEST    = MVDHCP_BIN='$(CURDIR)/mvdhcp' $(GO) test -race -count=1 -timeout 12m
listed    = $(shell PATH='$(PATH)' $(GO) list $(SIMULATION) $(KERNEL) $(REAL) $(VM))
unit      = $(filter-out $(listed),$(shell PATH='$(PATH)' $(GO) list ./...))
enginetests = ^TestEngine
# Those of the stages unit and simulation that only root can run.
roottests = ^Test(AttachStartsAKeeper|Candidates|KeeperThatFailsToStart|ManyAttachesStartOneKeeper|NotRoot|ServeEndsWithASignal)$$|^TestStoreRefusesWhatItCannotUse$$/full$$

export GOFLAGS += -buildvcs=false

# sudo and su have neither Go's usual place nor, at times, root's programs in PATH.
export PATH := $(PATH):/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin

.DEFAULT_GOAL := all
.PHONY: all build plugin install uninstall test test-short bench demo fuzz clean help deps $(STAGES:%=test-%) test-engine-28 test-engine-29

all: build ## build ./mvdhcp, one static binary

build:
	CGO_ENABLED=0 $(GO) build -trimpath -tags '$(TAGS)' -ldflags '-s -w -X main.buildVersion=$(VERSION)' -o mvdhcp ./cmd/mvdhcp

install: build ## install below PREFIX (/usr/local) in DESTDIR
	install -D -m 755 mvdhcp '$(DESTDIR)$(BINDIR)/mvdhcp'
	install -d '$(DESTDIR)$(DATADIR)/bash-completion/completions' \
		'$(DESTDIR)$(DATADIR)/zsh/site-functions' '$(DESTDIR)$(DATADIR)/fish/vendor_completions.d'
	./mvdhcp completion bash >'$(DESTDIR)$(DATADIR)/bash-completion/completions/mvdhcp'
	./mvdhcp completion zsh >'$(DESTDIR)$(DATADIR)/zsh/site-functions/_mvdhcp'
	./mvdhcp completion fish >'$(DESTDIR)$(DATADIR)/fish/vendor_completions.d/mvdhcp.fish'
	for page in $(wildcard docs/*.8 packaging/*.8); do \
		install -D -m 644 $$page '$(DESTDIR)$(DATADIR)/man/man8/'$$(basename $$page) || exit; done
	for unit in $(wildcard packaging/*.service packaging/*.socket); do \
		install -d '$(DESTDIR)$(UNITDIR)' && \
		sed 's|^\(Exec[A-Za-z]*=[-@:+!]*\)/[^ ]*/mvdhcp|\1$(BINDIR)/mvdhcp|' $$unit \
			>'$(DESTDIR)$(UNITDIR)/'$$(basename $$unit) || exit; done

PLUGINDIR = build/plugin

plugin: build ## build a managed Docker plugin in build/plugin
	rm -rf '$(PLUGINDIR)'
	install -d '$(PLUGINDIR)/rootfs/var/lib/mvdhcp' '$(PLUGINDIR)/rootfs/run/docker/plugins' \
		'$(PLUGINDIR)/rootfs/etc' '$(PLUGINDIR)/rootfs/proc' '$(PLUGINDIR)/rootfs/sys' '$(PLUGINDIR)/rootfs/tmp'
	install -m 755 mvdhcp '$(PLUGINDIR)/rootfs/mvdhcp'
	install -m 644 packaging/plugin/config.json '$(PLUGINDIR)/config.json'
	@echo 'Now: docker plugin create mvdhcp:$(VERSION) $(PLUGINDIR) && docker plugin enable mvdhcp:$(VERSION)'

uninstall: ## remove what install has put there
	rm -f '$(DESTDIR)$(BINDIR)/mvdhcp' \
		'$(DESTDIR)$(DATADIR)/bash-completion/completions/mvdhcp' \
		'$(DESTDIR)$(DATADIR)/zsh/site-functions/_mvdhcp' \
		'$(DESTDIR)$(DATADIR)/fish/vendor_completions.d/mvdhcp.fish' \
		$(patsubst %,'$(DESTDIR)$(DATADIR)/man/man8/%',$(notdir $(wildcard docs/*.8 packaging/*.8))) \
		$(patsubst %,'$(DESTDIR)$(UNITDIR)/%',$(notdir $(wildcard packaging/*.service packaging/*.socket)))

test: ## everything: installs what it needs, wants root and Debian
	@GO='$(GO)' VERSION='$(VERSION)' MAKE='$(MAKE) --no-print-directory' .ci/stages $(STAGES)

test-short: test-format test-vet build ## what needs no root and no servers
	MVDHCP_BIN='$(CURDIR)/mvdhcp' $(GO) test -short -count=1 -skip '$(enginetests)|$(roottests)' $(unit) $(SIMULATION)

deps: ## install what the tests run (apt-get, as root)
	.ci/deps

test-format:
	@bad=$$(gofmt -l $$(find . -name '*.go' -not -path './.git/*')); \
	if [ -n "$$bad" ]; then echo "gofmt -w would change: $$bad"; exit 1; fi

test-vet:
	$(GO) vet ./...

test-staticcheck:
	$(GO) run $(STATICCHECK) ./...

test-build: build

test-unit test-simulation test-kernel test-real test-engine test-vm: build

# Seeds of the fuzz tests run here as well.
test-unit:
	$(GOTEST) -skip '$(enginetests)' $(unit)

# The whole year runs without the race detector, which stretches it; with it the
# year is shorter.
test-simulation:
	$(GOTEST) $(SIMULATION)
	$(GO) test -count=1 -run '^TestSimYear$$' $(SIMULATION)

test-kernel:
	$(GOTEST) $(KERNEL)

# One package at a time: their servers and keepers go by the clock.
test-real:
	$(GOTEST) -p 1 $(REAL)

# Several at once: most of what they do is wait.
test-engine:
	$(GOTEST) -parallel 4 -run '$(enginetests)' $(ENGINE)

# Not part of test: to build an engine takes longer than all the rest.
test-engine-28 test-engine-29: test-engine-%: build ## the engine tests on a later Docker engine, built first (root)
	.ci/engine $* build/engine-$*
	MVDHCP_ENGINE='$(CURDIR)/build/engine-$*' $(MAKE) test-engine

test-vm:
	$(GOTEST) -p 1 $(VM)

bench: ## compare attach with the floor and others, docker run with static IPAM (root)
	$(GO) run ./internal/lab/bench $(BENCHFLAGS)
	$(GO) run ./internal/lab/bench/dockerrun $(DOCKERBENCHFLAGS)

demo: ## show it on a LAN made of namespaces, in half a minute (root)
	@echo 'Compiling (the first time takes a minute) …'
	@CGO_ENABLED=0 $(GO) build -trimpath -tags '$(TAGS)' -o /dev/null ./cmd/mvdhcp
	@CGO_ENABLED=0 $(GO) run -trimpath -tags '$(TAGS)' ./internal/lab/demo $(DEMOFLAGS)

# Twice, since go test now and then takes its own deadline for a failure. A real
# one fails both times: its input is kept in testdata.
fuzz: ## run every fuzz test for FUZZTIME (10s)
	@for file in $$(grep -rlE --include='*_test.go' '^func Fuzz' .); do \
		for name in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' $$file); do \
			echo "== $$name in $$(dirname $$file)"; \
			run="$(GO) test -run ^$$ -fuzz ^$$name$$ -fuzztime $(FUZZTIME) $$(dirname $$file)"; \
			$$run || $$run || exit; \
		done; done

clean: ## remove what was built
	rm -rf mvdhcp dist build

help: ## this list
	@sed -n 's/^\([a-z0-9 -]*\):.*## /\1	/p' $(MAKEFILE_LIST) | while IFS='	' read -r t d; do printf '  make %-30s %s\n' "$$t" "$$d"; done
