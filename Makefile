# SPDX-License-Identifier: Apache-2.0
# Each target first installs what is missing. ARGS passes options on: make demo ARGS=--keep
.PHONY: help docs setup setup-docs setup-tests setup-distributions setup-openstack setup-openvswitch setup-ovn setup-ovn-suite setup-packages setup-tdc setup-view wheel sdist deb test-packages demo demo-openstack demo-ovn test test-bench test-openstack test-docs test-openvswitch test-tdc test-ovn test-ovn-suite test-distributions test-topologies test-trace test-view test-wording soak lint bench clean coverage
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
BIN := .venv/bin
SCRIPTS := .ci/run .ci/openstack scripts/setup scripts/setup-docs scripts/setup-openstack scripts/setup-openvswitch scripts/setup-ovn scripts/setup-ovn-suite scripts/setup-packages scripts/setup-steps scripts/setup-tdc scripts/setup-view \
  src/asap2/lab/modprobe.sh tests/openvswitch/bin/ovstest tests/openvswitch/bin/ping6 tests/system/host/kernel_guest.sh
ARGS ?=

help:
	@echo 'As root on Debian; all but help and clean first install what is missing. ARGS passes options on.'
	@echo 'make demo            the getting-started procedure on two software hypervisors (ARGS=--keep leaves them up)'
	@echo 'make test            lint, unit tests and system tests (ARGS="FILE -k NAME" runs pytest with these arguments)'
	@echo 'make lint            ruff, mypy --strict, import-linter, shellcheck, clang-format'
	@echo 'make coverage        the unit tests, and how much of the program they reach (ARGS: other tests)'
	@echo 'make soak            kill the processes of a node, and interrupt labs, for 15 minutes'
	@echo 'make bench           compare five paths in one run; writes build/bench.json and build/bench.png'
	@echo 'make demo-openstack  the getting-started procedure with a real OpenStack cloud on this machine'
	@echo 'make test-openstack  the tests with that cloud'
	@echo 'make demo-ovn        OVN on two software hypervisors: each kind of its traffic, and what of it is in hardware'
	@echo 'make test-ovn        the tests with OVN'
	@echo 'make test-bench      short runs of what make bench measures'
	@echo 'make test-trace      the other tests of asap2 trace and capture, and what tracing costs'
	@echo 'make test-wording    what tc and ip print in a node, word for word beside a real kernel'
	@echo 'make test-topologies  bring up each topology that comes with asap2, and 32 nodes'
	@echo 'make test-openvswitch  Open vSwitch'"'"'s own system tests in a node (ARGS="--suite offloads" or -k TEXT)'
	@echo 'make test-ovn-suite  OVN'"'"'s own system tests in a node (ARGS="-k TEXT"; OVN_SOURCE=DIR where Debian'"'"'s source is not to be had)'
	@echo 'make test-tdc        the kernel'"'"'s own tests of TC in a node (ARGS="-k TEXT")'
	@echo 'make test-distributions  this commit on Debian 12, 13 and sid, and under the kernels of 12 and 13 (ARGS="--only trixie")'
	@echo 'make docs            the documentation as a web site in build/docs/html, its links checked'
	@echo 'make test-docs       run the code of every page of the documentation (ARGS="-k lab.md")'
	@echo 'make test-view       the picture of asap2 view in headless Chromium'
	@echo 'make setup           only install what is missing'
	@echo 'make setup-openstack the same, with OpenStack'
	@echo 'make setup-ovn       the same, with OVN'
	@echo 'make setup-view      the same, with the page of asap2 view'
	@echo 'make wheel           a wheel in build/dist, for pip'
	@echo 'make sdist           the source that makes it, in build/dist'
	@echo 'make deb             Debian packages, in build/dist: asap2 for operators, asap2-lab'
	@echo 'make test-packages   install each of these in an empty place, and use it there'
	@echo 'make clean           remove what was built in this checkout, including .venv'

setup:
	@scripts/setup

setup-tests:
	@scripts/setup test

setup-distributions:
	@scripts/setup distributions

test-distributions: setup-distributions
	@$(BIN)/python -m tests.distributions $(ARGS)

demo: setup
	@$(BIN)/asap2 demo $(ARGS)

setup-openstack: setup-ovn
	@scripts/setup-openstack

demo-openstack: setup-openstack
	@$(BIN)/asap2 demo --openstack $(ARGS)

test-openstack: setup-openstack
	@$(BIN)/python scripts/test openstack $(ARGS)

setup-openvswitch: setup-tests
	@scripts/setup-openvswitch

test-openvswitch: setup-openvswitch
	@$(BIN)/python -m tests.openvswitch $(ARGS)

setup-tdc: setup-tests
	@scripts/setup-tdc

test-tdc: setup-tdc
	@$(BIN)/python -m tests.tdc $(ARGS)

test-bench: setup-tests
	@$(BIN)/python -m pytest tests/bench $(ARGS)

test-trace: setup-tests
	@$(BIN)/python -m pytest tests/trace $(ARGS)

test-wording: setup-tests
	@$(BIN)/python -m pytest tests/wording $(ARGS)

test-topologies: setup
	@$(BIN)/python -m pytest tests/topologies $(ARGS)

setup-ovn: setup
	@scripts/setup-ovn

demo-ovn: setup-ovn
	@$(BIN)/asap2 demo --ovn $(ARGS)

test-ovn: setup-ovn
	@$(BIN)/python -m pytest tests/ovn $(ARGS)

setup-view: setup
	@scripts/setup-view

test-view: setup-tests
	@scripts/setup-view test
	@$(BIN)/python -m pytest tests/view $(ARGS)

setup-ovn-suite: setup-openvswitch setup-ovn
	@scripts/setup-ovn-suite

test-ovn-suite: setup-ovn-suite
	@$(BIN)/python -m tests.openvswitch --suite ovn $(ARGS)

lint: setup-tests
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports | tail -n 3
	@shellcheck $(SCRIPTS)
	@find src -name '*.[ch]' -exec $(BIN)/clang-format --dry-run --Werror {} +

test: setup-tests
	@$(BIN)/python scripts/test $(ARGS)

setup-docs: setup
	@scripts/setup-docs

docs: setup-docs
	@$(BIN)/python scripts/website.py
	@rm -rf build/docs/share && $(BIN)/python scripts/manual.py build/docs/share

test-docs: setup-tests
	@$(BIN)/python -m pytest tests/docs $(ARGS)

coverage: setup
	@rm -rf build/coverage && mkdir -p build/coverage
	@$(BIN)/coverage run -m pytest -q $(or $(ARGS),tests/unit)
	@$(BIN)/coverage combine -q && $(BIN)/coverage report

soak: setup-tests
	@$(BIN)/python -m tests.system.survival kills
	@$(BIN)/python -m tests.system.survival cycles

bench: setup
	@mkdir -p build
	@$(BIN)/asap2 bench --json build/bench.json $(ARGS)

wheel: setup-view
	@$(BIN)/python -m pip --quiet wheel --no-deps --wheel-dir build/dist .

sdist: setup-view
	@$(BIN)/python -c 'from setuptools import build_meta; build_meta.build_sdist("build/dist")' >/dev/null

setup-packages: setup
	@scripts/setup-packages

# In a copy of what git has, so that nothing else of the checkout is in it.
deb: setup-packages setup-view
	@rm -rf build/deb && mkdir -p build/deb/source build/dist
	@git ls-files -z | tar --null --files-from - --create --file - | tar -x -C build/deb/source
	@cp $(BIN)/../lib/python3*/site-packages/mfusepy.py build/deb/source
	@cp -R src/asap2/view/static build/deb/source/src/asap2/view
	@cd build/deb/source && dpkg-buildpackage --build=binary --no-sign >../log 2>&1 || { tail -n 30 ../log; exit 1; }
	@mv build/deb/*.deb build/dist && ls build/dist/*.deb

test-packages: wheel sdist deb
	@$(BIN)/python -m pytest tests/packages $(ARGS)

clean:
	@rm -rf .venv .venv-openstack build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache src/*.egg-info
	@find src tests ansible -name __pycache__ -type d -prune -exec rm -rf {} +
	@find src -name '*.o' -delete -o -name '*.so' -delete -o -name redirectd -delete; rm -f src/asap2/lab/delay src/asap2/lab/bench/redirect/requests
