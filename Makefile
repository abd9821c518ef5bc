# Two commands do everything: `make lab` and `make test`. The rest are their parts.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: help machine lab lab-down image dashboards check lint unit chaos contract molecule e2e test bench walk lock clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Programs run through this write below .lab, .venv and the cache only (lab/environment.py).
WITHIN := $(PYTHON) -B -m lab.environment
ifneq ($(words $(CURDIR)),1)
$(error the path "$(CURDIR)" holds a space; Ansible's programs need one without: move the checkout)
endif
export PATH := $(CURDIR)/$(BIN):$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

help:  ## Show the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

lab: machine $(READY)  ## Four hosts, the cluster, the services, monitoring; verified; a table of addresses
	@$(WITHIN) $(BIN)/python -m lab up

lab-down:  ## Remove every trace of the lab but the cache
	@test -x $(BIN)/python || { echo "no venv: run make lab first" >&2; exit 1; }
	@$(WITHIN) $(BIN)/python -m lab down

image: machine $(READY)  ## Build the services' image and place it in the artifact cache
	@$(WITHIN) $(BIN)/python -m lab place tradewatch

dashboards: $(READY)  ## Make the dashboards' JSON in files/dashboards from the code
	@$(WITHIN) $(BIN)/python -m tradewatch.monitoring.dashboards files/dashboards

LINT := tests/lint
UNIT := tests/unit tests/preflight python_services/tests
# Minutes of kills and restarts: a part of `make test`, not of the quick checks.
CHAOS := python_services/tests/chaos
# In this order; the contract runs on the same lab, before the last test resets its hosts.
E2E := $(sort $(wildcard tests/e2e/test_[123]_*.py)) tests/k3s_contract tests/e2e/test_4_reset.py
# Not in pyproject.toml: the scenarios of Molecule run pytest without its cache, which does not know the option then.
PYTEST := @$(WITHIN) $(BIN)/python -m pytest -o cache_dir=$(VENV)/tools/pytest

# In this order: what needs a lab is one test after the other on one core, the other files go to the rest once everything
# is built (tests/schedule.py): the unit tests beside Molecule, the linters, which yield to others, last.
EVERY_CORE := -n auto --no-loadscope-reorder

test: machine $(READY)  ## Everything: lint, unit, contract, Molecule, end to end
	$(PYTEST) -v --durations=30 $(EVERY_CORE) tests/molecule $(E2E) $(UNIT) $(LINT)

check: $(READY)  ## Lint and the unit tests that start no servers: two minutes, no hosts
	$(PYTEST) -q $(EVERY_CORE) -m "not servers" $(LINT) $(UNIT) --ignore=$(CHAOS)

lint: $(READY)  ## The linters alone
	$(PYTEST) -q $(LINT)

unit: $(READY)  ## The unit tests alone
	$(PYTEST) -q $(EVERY_CORE) $(UNIT) --ignore=$(CHAOS)

chaos: $(READY)  ## Kill the trading services, Valkey and PostgreSQL while 2,000 signals flow
	$(PYTEST) -v -s $(CHAOS)

molecule: machine $(READY)  ## Every Molecule scenario
	$(PYTEST) -v tests/molecule

contract: machine $(READY)  ## What the roles rely on, against $$TRADEWATCH_LAB_DIR or a lab of its own
	$(PYTEST) -v tests/k3s_contract

e2e: machine $(READY)  ## The main job from zero, seen from outside
	$(PYTEST) -v tests/e2e

bench: machine $(READY)  ## Measure the figures of docs/benchmarks.md
	@$(WITHIN) $(BIN)/python -m tests.bench

walk: machine $(READY)  ## Break the standing lab, look at its dashboards, mend it; renews docs/operations.md's pictures
	@$(WITHIN) $(BIN)/python -m tests.walk

UV = PYTHONPATH=$(CURDIR) $(WITHIN) $(CURDIR)/$(BIN)/uv
INSTALL = $(UV) pip install --quiet --python $(BIN)/python
lock: | $(BIN)/uv  ## Resolve requirements.in again
	@cd python_services && $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --output-file requirements.txt requirements.in
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --constraint python_services/requirements.txt --output-file requirements.txt requirements.in
	@cd python_services/tests/official_client && $(UV) pip compile --quiet --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --output-file requirements.txt requirements.in

clean: lab-down  ## Remove the lab and the venv
	@rm -rf $(VENV)

# The machine is looked at before anything is changed; then Debian's packages, then the venv.
test walk: PACKAGES_FOR := tests
image: WORK := image
machine:
	@$(PYTHON) -B -m lab.machine $(WORK)
	@packages="$$($(PYTHON) -B -m lab.machine packages $(PACKAGES_FOR))"; if [ -n "$$packages" ]; then \
	  echo "installing from Debian: $$packages"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$packages >/dev/null; fi

# By its hash too: the first entry of the lock that anything is installed from.
$(BIN)/uv: | $(BIN)/pip
	@$(WITHIN) $(BIN)/pip install --quiet --require-hashes -r <(sed -n '/^uv==/,/[^\\]$$/p' requirements.txt)

$(BIN)/pip:
	@$(WITHIN) $(PYTHON) -m venv --clear $(VENV)

$(READY): requirements.txt python_services/requirements.txt python_services/pyproject.toml | $(BIN)/uv
	@echo "installing the venv"
	@$(INSTALL) --require-hashes -r requirements.txt -r python_services/requirements.txt
	@$(INSTALL) --no-deps --editable python_services
	@touch $@
