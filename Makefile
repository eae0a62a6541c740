# The two commands of the README are `make demo` and `make test`; both start from nothing but Python, make and a package index.
PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
BUILD := .build

# DINOV2=<checkout> runs against a copy of that checkout; without it the pinned wheel is used. Neither changes files of yours.
ifdef DINOV2
CHECKOUT := $(BUILD)/checkout
export PYTHONPATH := $(abspath $(CHECKOUT))$(if $(PYTHONPATH),:$(PYTHONPATH))
UPSTREAM := checkout
else
UPSTREAM := $(VENV)/.upstream
endif

.PHONY: help demo test test-slow check format docs docs-serve checkout clean
.DEFAULT_GOAL := help

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1@\2/' | column -t -s @

demo: $(UPSTREAM)  ## Noisy photographs to noise-robust features, with a report: 10 to 13 minutes on 2 CPU cores
	$(BIN)/dinov2-noise demo demo-output

# One file's tests share their trainings, so a process takes files, in the order of tests/conftest.py; and one thread each, for
# the cores are taken.
test: $(UPSTREAM)  ## All tests but the slow ones, on all cores: about 15 minutes on two
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses auto --maxprocesses 8 --dist loadfile \
		--no-loadscope-reorder

test-slow: $(UPSTREAM)  ## The slow tests
	$(BIN)/python -m pytest -m slow

check: $(UPSTREAM)  ## Format, lint and types, as CI runs them
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(UPSTREAM)  ## Format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.installed  ## The documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: $(VENV)/.installed  ## Show the site at http://127.0.0.1:8000 while you write; PORT=8001 for another port
	@$(BIN)/python -c 'import socket, sys; port = $(PORT); taken = socket.socket().connect_ex(("127.0.0.1", port)) == 0; \
		sys.exit(f"port {port} is taken by another program: make docs-serve PORT={port + 1}" if taken else 0)'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --dev-addr 127.0.0.1:$(PORT)

clean:  ## Remove what make created
	rm -rf $(VENV) $(BUILD) demo-output site

$(VENV)/.installed: setup.cfg pyproject.toml requirements/torch.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "dinov2-noise needs Python 3.10 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements/torch.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

$(VENV)/.upstream: $(VENV)/.installed requirements/dinov2-wheel.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dinov2-wheel.txt
	cd $(VENV) && bin/dinov2-noise patch $$(bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
	touch $@

checkout: $(VENV)/.installed
	@test -f '$(DINOV2)/dinov2/__init__.py' || { echo 'DINOV2=$(DINOV2) is not a DINOv2 checkout (no dinov2/__init__.py there):' \
		'make test DINOV2=PATH_TO_DINOV2'; exit 1; }
	rm -rf $(CHECKOUT) && mkdir -p $(CHECKOUT)
	cp -R '$(DINOV2)/dinov2' $(CHECKOUT)/dinov2
	$(BIN)/dinov2-noise patch $(CHECKOUT)
