# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` set up what is missing, then do their job. ARGS passes options on: make demo ARGS=--keep
.PHONY: help setup setup-openstack demo demo-openstack test test-openstack soak lint bench clean
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
BIN := .venv/bin
ARGS ?=

help:
	@echo 'make demo    the getting-started procedure on two software hypervisors (as root; ARGS=--keep leaves them up)'
	@echo 'make test    lint, unit tests and system tests (as root)'
	@echo 'make soak    kills of what a node consists of, and labs broken off: the long form (as root; 15 minutes)'
	@echo 'make bench   throughput, packet rate, latency and CPU of five paths; writes build/bench.json and build/bench.png'
	@echo 'make demo-openstack  the same through a real OpenStack cloud on this machine (as root; installs it first)'
	@echo 'make test-openstack  the tests with that cloud'
	@echo 'make setup   only the set-up that all of these begin with'
	@echo 'make lint    ruff, mypy --strict, import-linter'
	@echo 'make clean   remove what was built in this checkout, .venv included'

setup:
	@scripts/setup

demo: setup
	@$(BIN)/asap2 demo $(ARGS)

setup-openstack: setup
	@scripts/setup-openstack

demo-openstack: setup-openstack
	@$(BIN)/asap2 demo --openstack $(ARGS)

test-openstack: setup-openstack
	@$(BIN)/python scripts/test openstack $(ARGS)

lint: setup
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports | tail -n 3

test: lint
	@$(BIN)/python scripts/test $(ARGS)

soak: setup
	@$(BIN)/python -m tests.system.survival kills
	@$(BIN)/python -m tests.system.survival cycles

bench: setup
	@mkdir -p build
	@$(BIN)/asap2 bench --json build/bench.json $(ARGS)

clean:
	@rm -rf .venv .venv-openstack build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache src/*.egg-info
	@find src tests ansible -name __pycache__ -type d -prune -exec rm -rf {} +
	@find src -name '*.o' -delete -o -name '*.so' -delete
