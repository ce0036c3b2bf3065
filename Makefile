# What a person types in a fresh clone. Each target sets up what it needs; a second run is quick.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup images tiny check test demo demo-down bench docs

export KEEP ?= 1
BIN := .venv/bin

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 20

setup: ## Install the Debian packages and the locked Python environment
	@scripts/setup

images: setup ## Build the golden images (tiny, debian-12) into build/images/
	@mkdir -p build && scripts/as-root images/build tiny debian-12

tiny: setup
	@mkdir -p build && scripts/as-root images/build tiny

check: setup ## Lint, format, types, imports and house rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/rules

test: check tiny ## Everything that make check does, then all tests
	scripts/as-root $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0

demo: images ## The main job, told live in a virtual machine room (KEEP=0: tear down at the end)
	@scripts/as-root scripts/demo up

demo-down: setup ## Remove every trace of the demo
	@scripts/as-root scripts/demo down

bench: tiny ## Measure the product; table to docs/reference/benchmarks.md
	scripts/as-root $(BIN)/python -m benchmarks

docs: setup ## Check the links of the documents and write the command reference
	@scripts/docs
