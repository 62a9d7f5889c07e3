# What a developer and the CI type. GNU make 3.81 (macOS) is enough.
VENV     ?= .venv
SCENARIO ?= healthy
SEED     ?= 7

BIN       := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# The forged document is judged as it is; every other scenario is judged by what its logs give.
FORGED := $(if $(filter evil-evidence,$(SCENARIO)),--decisionos-evidence var/log/forged-evidence.json)

# Half of the tests wait for processes or the disk, so one worker more than there are cores.
WORKERS := $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))

.DEFAULT_GOAL := help
.PHONY: help setup gate demo test unit lint types shellcheck bench bench-short services clean

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

$(INSTALLED): pyproject.toml scripts/setup.sh
	@scripts/setup.sh $(VENV)
	@touch $@

setup: $(INSTALLED) ## make the virtual environment (the other targets do it by themselves)

# One root folder for all three commands, whatever the caller's environment says.
gate: export DECISIONOS_ROOT := var
gate: $(INSTALLED) ## judge sample traffic; SCENARIO=healthy, slow-canary, error-burst, thin-traffic, evil-evidence
	$(BIN)/dosctl sample --out var/log --seed $(SEED) --scenario $(SCENARIO)
	$(BIN)/dosctl evidence build --block budget=var/log/budget.json --block quota=var/log/quota.json --block usage=var/log/usage.json
	$(BIN)/python -m pytest gates/ $(FORGED)

demo: $(INSTALLED) ## release a healthy and four faulty canaries behind nginx with real traffic (make services), in 2 minutes
	@$(BIN)/python -m demo.run

# `coverage run` and not pytest-cov: pytest imports our plugin before pytest-cov begins to measure.
test: $(INSTALLED) ## run all tests with branch coverage; ARGS=… goes to pytest
	@$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(WORKERS) --dist worksteal -p no:benchmark -rfEs $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

unit: $(INSTALLED) ## run the tests that take no processes and no seconds, without coverage
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -p no:benchmark -rfEs -m "not slow" $(ARGS)

lint: $(INSTALLED) ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) ## check types
	$(BIN)/mypy

shellcheck: ## check the shell scripts (shellcheck comes with make services)
	shellcheck -x scripts/*.sh pipeline/release/*.sh .ci/run

bench: export DECISIONOS_BENCH_ROWS ?= 10000000
bench: $(INSTALLED) ## measure everything that docs state, at full size
	$(BIN)/python -m pytest benchmarks -p no:cacheprovider -q -s
	$(BIN)/python benchmarks/coverage_of_limits.py

bench-short: export DECISIONOS_BENCH_ROWS ?= 1000000
bench-short: $(INSTALLED) ## measure the same on less data
	$(BIN)/python -m pytest benchmarks -p no:cacheprovider -q -s

services: ## install the Debian packages that integration tests use
	@scripts/services.sh

clean: ## remove what make made; var/ stays, because it holds evidence
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
