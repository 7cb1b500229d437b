# One word for each thing to do; CI calls these and nothing else.  Needs Python 3.11 or newer, and no other tool.
#   make test PYTHON=python3.12     another Python (a .venv made with a different one is made anew)
#   make test ARGS='-k lease -x'    more arguments for pytest, or for the demo; ARGS=tests/unit: just those
#   make sim SEEDS=1000             more worlds

PYTHON ?= $(shell test -x .venv/bin/python && echo .venv/bin/python || echo python3)
SEEDS ?= 200
ARGS ?=
RUN := .venv/bin/python -m

.PHONY: help setup demo-setup fmt check lint types imports wheels test integration sim demo pins

help:
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: ## everything for development in .venv; instant and offline once it is there
	@$(call bootstrap,dev)

demo-setup:
	@$(call bootstrap,demo)

fmt: setup ## format and sort what can be formatted and sorted
	@$(RUN) ruff check --quiet --fix-only --select I,RUF022 .
	@$(RUN) ruff format .

check: lint types imports wheels ## lint, types, layers, and whether the pins resolve for the other Pythons

lint: setup
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types: setup
	$(RUN) mypy
	$(RUN) pyright

imports: setup
	.venv/bin/lint-imports --no-logo

wheels: setup
	@$(RUN) scripts.check_wheels

test: setup ## every test that needs Python alone
	$(RUN) pytest $(or $(filter tests/%,$(ARGS)),tests) --ignore=tests/integration $(filter-out tests/%,$(ARGS))

integration: setup ## tests against real services: Java 17, Maven, Node
	$(RUN) pytest tests/integration $(ARGS)

sim: setup ## the simulation alone, over SEEDS worlds
	ESM_SEEDS=$(SEEDS) $(RUN) pytest tests/simulation --timeout=0 $(ARGS)

demo: demo-setup ## four sources, a worker and a sandbox on this machine
	@$(RUN) esm demo $(ARGS)

pins: setup ## write the versions that are installed now to constraints.txt
	@$(RUN) scripts.pins

define bootstrap
{ command -v '$(PYTHON)' >/dev/null || { echo 'found no $(PYTHON). Try: make $(or $(firstword $(MAKECMDGOALS)),setup) PYTHON=python3.12' >&2; exit 2; }; } && '$(PYTHON)' scripts/bootstrap.py $(1) $(or $(firstword $(MAKECMDGOALS)),setup)
endef
