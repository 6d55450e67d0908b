# The list of commands. Each makes .venv if there is none and installs only when what is to be installed changed.
#
#   make run         train the default pair on the embedded digits and estimate log p(x); ARGS="..." goes to `ppvae run`
#   make test        the tests but for those that take long; ARGS="..." goes to pytest
#   make test-slow   those that take long: hard posteriors, many replicates, whole trainings, the tutorials
#   make lint        ruff and mypy
#   make bench       times steps of SVI, log weights and chains beside peers; ARGS="--record" renews benchmarks/
#   make docs        build the site under build/site/; open index.html in a browser
#   make wheel       build the wheel, and import all of it from an environment away from this checkout

SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
ROOMS := ppvae models inference experiments
INSTALLED := build/installed
DOCS_INSTALLED := build/installed-docs

.PHONY: run test test-slow lint bench docs wheel
.DELETE_ON_ERROR:

run: $(INSTALLED)
	$(BIN)/ppvae run $(ARGS)

test: $(INSTALLED)
	$(BIN)/pytest -n auto --dist worksteal -m "not slow" $(ARGS)

test-slow: $(INSTALLED)
	$(BIN)/pytest -n auto --dist worksteal -m slow $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(ROOMS) tests

bench: $(INSTALLED)
	$(BIN)/python -m ppvae.experiments.bench $(ARGS)

# A warning is an error: a link that leads nowhere, a name that the reference does not know.
docs: $(DOCS_INSTALLED)
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/site

# The fresh environment borrows the installed dependencies, so that only the wheel itself is on trial.
wheel: $(INSTALLED)
	rm -rf dist build/lib build/bdist.*
	$(BIN)/pip wheel -qq --no-deps --wheel-dir dist .
	@set -e; away=$$(mktemp -d); trap 'rm -rf "$$away"' EXIT; \
	purelib='import sysconfig; print(sysconfig.get_path("purelib"))'; \
	$(BIN)/python -m venv --without-pip "$$away/venv"; \
	$(BIN)/python -c "$$purelib" > "$$away/borrowed"; \
	cp "$$away/borrowed" "$$("$$away/venv/bin/python" -c "$$purelib")/borrowed.pth"; \
	$(BIN)/pip --python "$$away/venv/bin/python" install -qq --no-deps --force-reinstall dist/*.whl; \
	here=$$PWD; cd "$$away"; \
	venv/bin/ppvae --help > /dev/null; \
	venv/bin/python -c "$$IMPORT_EVERYTHING" "$$here"

define IMPORT_EVERYTHING
import importlib, pathlib, sys

checkout, names = pathlib.Path(sys.argv[1]), 0
for room in "$(ROOMS)".split():
    for file in sorted((checkout / room).rglob("*.py")):
        parts = file.relative_to(checkout).with_suffix("").parts
        name = ".".join(part for part in (*(() if room == "ppvae" else ("ppvae",)), *parts) if part != "__init__")
        if name == "ppvae.__main__":
            continue
        module = importlib.import_module(name)
        if not module.__file__.startswith(sys.prefix):
            sys.exit(f"{name} came from {module.__file__}, not from the wheel")
        names += len([getattr(module, public) for public in getattr(module, "__all__", [])])
if not pathlib.Path(sys.modules["ppvae"].__file__).with_name("py.typed").exists():
    sys.exit("the wheel lacks py.typed")
print(f"the wheel holds every module and {names} public names")
endef
export IMPORT_EVERYTHING

.venv/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv .venv

# Always with the constraints: without them, pip may pull gigabytes of CUDA libraries.
$(INSTALLED): .venv/pyvenv.cfg pyproject.toml constraints.txt build/sources
	$(BIN)/pip install -qq -c constraints.txt -e '.[dev]'
	@touch $@

$(DOCS_INSTALLED): $(INSTALLED)
	$(BIN)/pip install -qq -c constraints.txt -e '.[dev,docs]'
	@touch $@

# mypy sees the rooms through links that the install makes, one a file: a file that comes or goes is a change.
build/sources: always
	@mkdir -p build
	@find $(ROOMS) -name '*.py' | sort | cmp -s - $@ || find $(ROOMS) -name '*.py' | sort > $@

.PHONY: always
always:
