# Everything a person or a CI job types. What a target does is in scripts/.
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help run test test-sdk services fmt lint check bench clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-10s %s\n", $$1, $$2 }'

run: export AGENTLENS_DATA_DIR ?= ./data
run: ## Build and start a server on its embedded store (settings: AGENTLENS_* variables, see `agentlens serve --help`)
	cargo build --profile quick -p agentlens --no-default-features
	exec "$${CARGO_TARGET_DIR:-target}/quick/agentlens" serve

test: ## Run every check and every test
	scripts/test.sh

test-sdk: ## Drive the published Python SDK against the debug build (ARGS go to pytest)
	cargo build --workspace --all-targets
	scripts/services.sh scripts/test_sdk_python.sh $(ARGS)

services: ## Open a shell with the private PostgreSQL and Redis of the tests
	scripts/services.sh "$${SHELL:-bash}"

fmt: ## Format the sources
	cargo fmt --all

lint: ## Lints, file sizes, dependencies
	cargo clippy --workspace --all-targets -- -D warnings
	scripts/check_file_sizes.sh
	scripts/check_dependencies.sh

check: ## What is quick: format, lints, file sizes, dependencies
	cargo fmt --all --check
	$(MAKE) lint

bench: ## Run the benchmarks
	bench/run.sh

clean: ## Remove what was built and fetched; ./data stays
	cargo clean
	rm -rf .tools
