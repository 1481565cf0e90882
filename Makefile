# The commands that people type. They set up the machine first, which takes a second if there is nothing to do.

WORKSPACE ?= runs/demo
PORT ?= 5000
SERVE_PORT ?= 8000
GRAPH_PORT ?= 8080

# The Python of .venv if it exists, so that later commands keep its version; otherwise the first Python 3.11 or 3.12.
# If there is none, any Python 3: set-up then takes one that uv manages, or reports everything that is missing.
PYTHON ?= $(shell for p in .venv/bin/python python3.11 python3.12 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && { echo $$p; exit; }; \
	done; for p in python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] < (3, 7))' 2>/dev/null && { echo $$p; exit; }; done)

VENV := $(CURDIR)/.venv
export PATH := $(VENV)/bin:$(PATH)
export PYSPARK_PYTHON := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup demo test long recipes clusters audit serve ui graph clean distclean

help:  ## prints this list
	@grep -E '^[a-z]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z]+):.*## /\1\t/' | \
	while IFS="$$(printf '\t')" read -r target words; do printf '  make %-10s %s\n' "$$target" "$$words"; done

setup:  ## installs .venv, Horovod's wheel and Delta's jars (minutes once, then a second)
	@if [ -z "$(PYTHON)" ]; then \
	echo "set-up: no Python 3 found; next step: install the package python3 (apt-get or dnf), then repeat this command" >&2; \
	exit 2; fi
	@$(PYTHON) -m jobs.setup

demo: setup  ## phantoms -> shards -> training on two ranks -> INT8 -> registry, and says where to look
	@"$(VENV)/bin/python" jobs/pipeline.py

test: setup  ## lint, import directions, tests; CHEXSCALE_NIH_SAMPLE=DIR adds the tests on real files
	"$(VENV)/bin/ruff" check .
	"$(VENV)/bin/ruff" format --check .
	"$(VENV)/bin/lint-imports"
	"$(VENV)/bin/python" -m pytest -n 2 --max-worker-restart 0

recipes: setup  ## every scenario of conf/ under every launcher, on a few phantoms (about 25 minutes)
	"$(VENV)/bin/python" -m pytest -m recipes

long: setup  ## the tests that take half a minute or more each: kills, lost ranks, studies, the tutorial
	"$(VENV)/bin/python" -m pytest -n 2 --max-worker-restart 0 -m long

clusters: setup  ## a real Slurm and Spark cluster, containers and pods (CONTRIBUTING.md says what they need)
	"$(VENV)/bin/python" -m pytest -m clusters

audit: setup  ## known vulnerabilities of the locked packages (the package index must provide them)
	@"$$("$(VENV)/bin/python" -c 'from jobs.setup.installer import find_uv; print(find_uv())')" tool run \
	pip-audit --strict --requirement requirements.lock --require-hashes --disable-pip

serve: setup  ## the champion as a REST service with a page (WORKSPACE=runs/demo SERVE_PORT=8000)
	@"$(VENV)/bin/python" inference/serve.py --workspace "$(WORKSPACE)" --serving.port $(SERVE_PORT)

ui: setup  ## the MLflow UI on the workspace (WORKSPACE=runs/demo PORT=5000)
	@"$(VENV)/bin/python" jobs/ui.py --workspace "$(WORKSPACE)" --port $(PORT)

graph: setup  ## the champion's graph in Netron (WORKSPACE=runs/demo VERSION=3 GRAPH_PORT=8080; the package index must provide it)
	@"$(VENV)/bin/python" jobs/graph.py --workspace "$(WORKSPACE)" --port $(GRAPH_PORT) $(VERSION)

clean:  ## removes runs/: every shard, run and model made here
	rm -rf runs

distclean: clean  ## removes .venv too; the cache in ~/.cache/chexscale stays
	rm -rf .venv
