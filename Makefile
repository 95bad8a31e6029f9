# Everything a newcomer needs: make serve, make test. Everything else: make help.
PYTHON ?= python3
PORT ?= 50051
VENV := .venv
BIN := $(VENV)/bin
STAMPS := build/stamps

.DEFAULT_GOAL := help
.PHONY: help venv build serve test check parity sanitize bench bench-scheduler bench-text bench-hybrid bench-agreement bench-bulk soak crash simulate-long proto format clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 16

$(STAMPS)/venv: tools/check_prerequisites.sh
	@PYTHON=$(PYTHON) tools/check_prerequisites.sh
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=24' 'setuptools>=77'
	@mkdir -p $(STAMPS) && touch $@

# Installed anew when the build's own files change; editable, so Python sources need nothing.
$(STAMPS)/server: $(STAMPS)/venv pyproject.toml setup.py CMakeLists.txt clients/python/pyproject.toml \
		$(wildcard kernels/src/* kernels/include/penstock/* kernels/penstock_kernels/*.pyx kernels/penstock_kernels/*.pxd kernels/penstock_kernels/*.pxi)
	@echo "Building Penstock (about two minutes the first time)"
	@# The warning switched off is setuptools' word to every editable installation.
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -e clients/python -e .
	@touch $@

$(STAMPS)/dev: $(STAMPS)/server requirements-dev.txt
	@$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	@touch $@

venv: $(STAMPS)/venv ## Create the virtual environment

build: $(STAMPS)/server ## Build everything and fetch the demo models
	@$(BIN)/penstock models pull demo

serve: build ## Build, then serve the demo models on 127.0.0.1:$(PORT)
	@exec $(BIN)/penstock serve --port $(PORT)

test: build $(STAMPS)/dev ## Build, then run the tests
	@$(BIN)/python -m pytest

simulate-long: build $(STAMPS)/dev ## Try to break the scheduler with thousands of simulated arrivals
	@PENSTOCK_EXAMPLES=5000 $(BIN)/python -m pytest tests/simulation

bench-bulk: build $(STAMPS)/dev ## Put a million rows through a job: overhead over a bare loop, and memory
	@$(BIN)/python -m benchmarks.jobs $(ARGS)

soak: build $(STAMPS)/dev ## Put a server under random, rude load for 20 minutes and count every answer
	@$(BIN)/python -m tests.soak $(ARGS)

crash: build $(STAMPS)/dev ## Kill a server and fail its disk in the middle of bulk jobs and compare every row
	@$(BIN)/python -m tests.crash $(ARGS)

check: build $(STAMPS)/dev ## Format, lint, types, import layers, contract, native stubs
	@tools/check.sh

parity: build $(STAMPS)/dev ## Compare the tokeniser with its reference on everything there is
	@$(BIN)/python -m tests.parity.full --write docs/benchmarks/parity.json
	@PENSTOCK_EXAMPLES_TIMES=50 $(BIN)/python -m pytest tests/unit/kernels/test_encode_oracle.py
	@$(BIN)/python -m tools.generate_unicode_tables --check

sanitize: build $(STAMPS)/dev ## Run the native tests under the address, undefined and thread sanitizers
	@$(BIN)/python -m pytest -q tests/unit/kernels/test_native_tests.py
	@$(BIN)/cmake -S . -B build/tsan -DPENSTOCK_SANITIZE=thread >/dev/null
	@$(BIN)/cmake --build build/tsan --parallel 2 --target encode_test
	@# One test starts threads in a forked child, which the sanitizer would else refuse.
	@TSAN_OPTIONS=die_after_fork=0 build/tsan/encode_test

bench: build $(STAMPS)/dev ## Measure live and bulk load on this machine
	@$(BIN)/python -m benchmarks.load

bench-text: build $(STAMPS)/dev ## Compare the tokeniser with others on one core
	@$(BIN)/python -m benchmarks.text $(ARGS)

bench-hybrid: build $(STAMPS)/dev ## Compare live and bulk load with Triton, infinity and mosec
	@$(BIN)/python -m benchmarks.hybrid $(ARGS)

bench-agreement: build $(STAMPS)/dev ## Compare the simulator with a server on the same arrivals
	@$(BIN)/python -m benchmarks.agreement $(ARGS)

bench-scheduler: build $(STAMPS)/dev ## Time admissions and plans with 10,000 rows waiting
	@$(BIN)/python -m benchmarks.scheduler $(ARGS)

proto: ## Generate the stubs from proto/
	@mkdir -p build && tools/generate_stubs.sh

format: $(STAMPS)/dev ## Format the sources
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean: ## Remove what was built; models and data stay
	rm -rf build $(VENV)
