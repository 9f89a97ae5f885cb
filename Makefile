# Everything a developer or CI runs. `make help` lists it.

PYTHON := $(firstword $(shell command -v python3.11 python3))
BIN    := .venv/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

# What `make check` leaves to `make test`: whatever needs a server, a browser or patience, and the
# example site.
UNIT   := not (slow or postgres or mariadb or redis or rabbitmq or browser)

# What has environments of its own (`make frameworks`).
ELSEWHERE := --ignore tests/frameworks --ignore tests/llamaindex

# Pins for everything, the machine's own index settings left out of the files.
COMPILE := CUSTOM_COMPILE_COMMAND="make requirements" $(BIN)/pip-compile --quiet \
	--strip-extras --no-emit-options --annotation-style=line $(UPGRADE)

# Compiled once, not again by each process that runs tests, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo test check lint unit matrix frameworks docs bench faults worker services requirements clean
.SILENT:

help: ## say what there is
	awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-13s %s\n", $$1, $$2 }' Makefile

install: .venv/.requirements ## make the environment in .venv

.venv/.requirements: requirements.txt
	echo "Making the environment in .venv: $$(grep -c == requirements.txt) packages, some minutes, once."
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install -r requirements.txt
	echo "The environment is there."
	touch $@

demo: install ## run the example site, on SQLite and an offline stand-in for the model
	echo "Preparing the databases and starting the site: some seconds."
	$(BIN)/python manage.py demo

test: lint ## every check and every test
	$(BIN)/python -m pytest $(RERUNS) --numprocesses 3 --dist loadfile $(ELSEWHERE) --ignore tests/faults
	$(BIN)/python -m pytest $(RERUNS) tests/faults

check: lint unit ## what to run before each commit: lint, types, layers, migrations, unit tests

lint: install
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(BIN)/python -W error manage.py makemigrations --check --dry-run
	$(BIN)/python -W error manage.py check --fail-level WARNING

unit: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "$(UNIT)" $(ELSEWHERE) --ignore tests/project

matrix: ## run the unit tests on Python 3.11, 3.12 and 3.13 with Django 5.2, 6.0 and 6.1
	.ci/matrix $(RERUNS) --numprocesses 2 --dist loadfile -m "$(UNIT)" $(ELSEWHERE) --ignore tests/project

frameworks: install ## run llmcache inside LangChain, pydantic-ai, openai-agents, LlamaIndex, ...
	.ci/frameworks $(RERUNS)

docs: install ## build the site from docs/ into build/site; a warning is an error
	$(PIP) install -r requirements-docs.txt
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: install ## measure against other caches; writes docs/benchmarks.md
	$(PIP) install -r requirements-bench.txt
	$(BIN)/python -m tests.benchmarks
	$(BIN)/python -m tests.benchmarks.scale --output docs/benchmarks.md
	$(BIN)/python -m tests.benchmarks.growth --output docs/benchmarks.md
	$(BIN)/python -m tests.benchmarks.pages --output docs/benchmarks.md
	$(BIN)/python -m tests.benchmarks.dashboard

faults: install ## break servers for half an hour, and remove each guard; writes docs/faults.md
	$(BIN)/python -m tests.faults

worker: install ## run the background work and its schedule
	mkdir -p var
	$(BIN)/celery -A project worker --beat --schedule var/celerybeat-schedule --loglevel INFO

services: install ## install what the tests can use besides Python: servers and a browser
	.ci/services

requirements: install ## pin what pyproject.toml asks for; UPGRADE=--upgrade takes newer versions
	$(COMPILE) --all-extras -o requirements.txt pyproject.toml requirements-dev.in
	$(COMPILE) --constraint requirements.txt -o requirements-mariadb.txt requirements-mariadb.in
	$(COMPILE) --constraint requirements.txt -o requirements-bench.txt requirements-bench.in
	$(COMPILE) --constraint requirements.txt -o requirements-docs.txt requirements-docs.in
	# (what frameworks do not go with is theirs to choose)
	mkdir -p build
	grep -Ev '^(anthropic|websockets)==' requirements.txt >build/frameworks.txt
	$(COMPILE) --constraint build/frameworks.txt -o requirements-frameworks.txt requirements-frameworks.in
	grep -v '^openai==' requirements.txt >build/llamaindex.txt
	$(COMPILE) --constraint build/llamaindex.txt -o requirements-llamaindex.txt requirements-llamaindex.in

clean: ## remove caches, builds and the example site's data
	rm -rf .matrix .frameworks .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist var
