# SPDX-License-Identifier: Apache-2.0
# Works as root, through sudo, and for a user who may use sudo: root is asked
# for only where the kernel or the package manager wants it.

IS_ROOT := $(filter 0,$(shell id -u))
SUDO := $(if $(IS_ROOT),,$(shell command -v sudo 2>/dev/null))
# Under `sudo make`, what needs no root runs as the user who typed it: its caches stay theirs.
AS_USER := $(if $(and $(IS_ROOT),$(SUDO_USER)),sudo -u $(SUDO_USER))
BIN := .venv/bin
C_FILES = $(wildcard bpf/*.[ch] tests/*/*.[ch])

# The variable is passed through sudo, which clears the environment.
PYTEST = $(SUDO) env FOURWAVE_KERNEL_TESTS=$(FOURWAVE_KERNEL_TESTS) \
	$(BIN)/python -m pytest -p no:cacheprovider

.DEFAULT_GOAL := help
.PHONY: help run test lint fmt type unit kernel random golden docs bench bench-census service vm vm-ci vm-all userlands clean setup setup-test setup-bench setup-vm

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup  ## Install what is missing, then watch this host's closes (ARGS="--json -w")
	@$(SUDO) $(BIN)/fourwave watch $(ARGS)

test: lint type  ## Install what is missing, then run every check and every test
	@$(PYTEST) $(ARGS)

lint: setup-test  ## Style of Python (ruff) and C (clang-format)
	@$(AS_USER) $(BIN)/ruff check
	@$(AS_USER) $(BIN)/ruff format --check
	@$(AS_USER) $(BIN)/clang-format --dry-run --Werror $(C_FILES)

fmt: setup-test  ## Rewrite Python and C in that style
	@$(AS_USER) $(BIN)/ruff check --fix
	@$(AS_USER) $(BIN)/ruff format
	@$(AS_USER) $(BIN)/clang-format -i $(C_FILES)

type: setup-test  ## Types (mypy --strict)
	@$(AS_USER) $(BIN)/mypy

unit: setup-test  ## Tests that need neither root nor BPF
	@$(AS_USER) $(BIN)/python -m pytest tests/unit $(ARGS)

kernel: setup-test  ## Tests on the running kernel (root)
	@$(PYTEST) tests/kernel $(ARGS)

random: setup-test  ## Random teardowns, records against packets (root; SEED=1 N=10000)
	@$(SUDO) $(BIN)/python -m tests.truth.random_main --seed $(or $(SEED),1) --count $(or $(N),10000) $(ARGS)

golden: setup-test  ## Make the golden recordings again (root; ARGS=--judge-only: what they are read as)
	@$(SUDO) $(BIN)/python -m tests.golden.make $(ARGS)

docs: setup-test  ## Write again what is generated: docs, dashboards, the manual, completions
	@$(AS_USER) $(BIN)/python -m tracer.outputs.metrics_page > docs/metrics.md
	@$(AS_USER) $(BIN)/python packaging/manual.py
	@$(AS_USER) $(BIN)/python -m dashboards.make

service: setup-test  ## The unit under a real systemd, in a container (root, debootstrap, systemd-nspawn)
	@$(SUDO) $(BIN)/python -m tests.service.run $(ARGS)

bench: setup-bench  ## What tracing costs here, beside bcc's tools and bpftrace (root, 20 minutes)
	@$(SUDO) $(BIN)/python -m tests.bench.run --docs $(ARGS)

bench-census: setup-bench  ## What a census costs here, beside ss (root, four minutes)
	@$(SUDO) $(BIN)/python tests/bench/census.py --docs $(ARGS)

vm: setup-vm  ## A part of the kernel tests on each kernel of tests/vm/kernels.toml (K=6.12: on one)
	@$(AS_USER) $(BIN)/python -m tests.vm.run $(K)

vm-ci: setup-vm  ## Every hook, a dozen kinds of close and the census, on the oldest and the newest kernel (8 minutes)
	@$(AS_USER) $(BIN)/python -m tests.vm.run --extent ci

vm-all: setup-vm  ## All of them, with every way to see an ACK leave (hours)
	@$(AS_USER) $(BIN)/python -m tests.vm.run --extent all $(K)

userlands: setup-vm  ## Debian's compilers and Pythons on this kernel (root, debootstrap; U=trixie: one)
	@$(SUDO) $(BIN)/python -m tests.vm.userlands $(U)

setup:
	@packaging/prepare run

setup-test:
	@packaging/prepare test

setup-bench:
	@packaging/prepare bench

setup-vm:
	@packaging/prepare vm

clean:  ## Remove everything that was made here, .venv included
	@$(SUDO) rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis tests/bench/closes
	@$(SUDO) find tracer tests -name __pycache__ -prune -exec rm -rf {} +
