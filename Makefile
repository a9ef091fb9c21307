# Most used: `make demo`, `make test`. Every target first installs what it needs into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# In an editable install setuptools warns at length about folders beside the packages, such as launch/.
INSTALL := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
DEMO_READY := $(VENV)/.demo-installed
TEST_READY := $(VENV)/.test-installed
DOCS_READY := $(VENV)/.docs-installed
JAZZY := .venv-jazzy
JAZZY_READY := $(JAZZY)/.test-installed
JAZZY_PYTHON ?= python3.12
METADATA := constraints.txt setup.py pyproject.toml

# The folders of tests that hold helper modules; mypy checks each by itself, as there are several conftest.py.
TEST_FOLDERS := tests $(wildcard tests/*/)

# Two tests at a time, those of a file in one process; each process computes in one thread. ARGS='-n 0': one at a time.
PYTEST_OPTIONS := -n 2 --dist loadfile --no-loadscope-reorder
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_OPTIONS)

# Options of `make demo`; passed in the environment, so that names with spaces stay whole.
export SOURCE FRAMES TOPIC FPS OUT STRICT

# The wheels in .venv contain ROS; a sourced ROS installation must not mix with them.
ifdef ROS_DISTRO
unexport PYTHONPATH LD_LIBRARY_PATH AMENT_PREFIX_PATH RMW_IMPLEMENTATION
endif

.PHONY: help demo test test-fast test-jazzy check docs clean distclean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(DEMO_READY) ## segment frames with the real node; SOURCE=bag|video|folder FRAMES=n TOPIC=/t FPS=n OUT=folder STRICT=1
	@$(BIN)/python -m camseg_ros.demo $${SOURCE:+--source "$$SOURCE"} $${FRAMES:+--frames "$$FRAMES"} \
		$${TOPIC:+--topic "$$TOPIC"} $${FPS:+--fps "$$FPS"} $${OUT:+--out "$$OUT"} $${STRICT:+--strict}

test: $(TEST_READY) ## run all tests, on 2 cores in up to an hour; ARGS='-k bag' is passed to pytest
	$(PYTEST) $(ARGS)

test-fast: $(TEST_READY) ## run the tests that take seconds, and a few with a ROS node
	$(PYTEST) -m 'not slow and (not ros or smoke)' $(ARGS)

test-jazzy: $(JAZZY_READY) ## run the tests of the node and the bags on ROS 2 Jazzy (needs Python 3.12)
	OMP_NUM_THREADS=1 $(JAZZY)/bin/python -m pytest $(PYTEST_OPTIONS) tests/ros tests/bag $(ARGS)

check: $(TEST_READY) ## check style (ruff) and types (mypy)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks/*.py
	@for folder in $(TEST_FOLDERS); do \
		files=$$(find $$folder -maxdepth 1 -name '*.py' ! -name 'test_*'); \
		[ -z "$$files" ] || { echo "mypy $$folder (helpers)"; $(BIN)/mypy $$files || exit; }; \
	done

docs: $(DOCS_READY) ## build the documentation with API pages into out/docs
	$(BIN)/mkdocs build --strict
	@echo "open out/docs/index.html"

clean: ## remove build products, caches and the output of demo and docs
	rm -rf out/demo out/docs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

distclean: clean ## also remove the virtual environment
	rm -rf $(VENV) $(JAZZY)

$(BIN)/python:
	@$(PYTHON) -c 'import platform as p, sys; v = sys.version_info[:2]; \
		sys.exit(not ((3, 11) <= v <= (3, 13) and (p.system(), p.machine()) == ("Linux", "x86_64")))' || { echo >&2 \
		"$(PYTHON) must be Python 3.11 to 3.13 on x86_64 Linux; choose one: make PYTHON=python3.12 … (on Jetson: docs/installation.md)"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo >&2 \
		"$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv"; exit 2; }

$(DEMO_READY): $(METADATA) | $(BIN)/python
	@echo "installing into $(VENV); the first download takes some minutes"
	@$(INSTALL) -e '.[ros,bag]'
	@touch $@

$(TEST_READY): $(METADATA) | $(BIN)/python
	@echo "installing into $(VENV), with PyTorch; the first download takes some minutes"
	@$(INSTALL) -e '.[ros,bag,train,test]'
# The official Cityscapes evaluation (MIT), which the tests compare with. It comes without its dependencies: one of them,
# `typing`, is a Python 2 copy of the standard module and breaks programs that import it.
	@$(INSTALL) --no-deps cityscapesScripts
	@touch $(DEMO_READY) $@

# Without PyTorch, as on a vehicle.
$(JAZZY_READY): $(METADATA) constraints-jazzy.txt
	@echo "installing into $(JAZZY); the first download takes some minutes"
	@$(JAZZY_PYTHON) -m venv $(JAZZY) || { rm -rf $(JAZZY); echo >&2 \
		"no $(JAZZY_PYTHON), the Python of Jazzy's wheels; choose one: make test-jazzy JAZZY_PYTHON=/path/to/python3.12"; exit 2; }
	@grep -v '^ros-' constraints.txt | cat - constraints-jazzy.txt >$(JAZZY)/constraints.txt
	@PYTHONWARNINGS=ignore $(JAZZY)/bin/python -m pip install --quiet --disable-pip-version-check \
		-c $(JAZZY)/constraints.txt -e '.[ros-jazzy,bag,test-node]'
	@touch $@

$(DOCS_READY): $(METADATA) | $(BIN)/python
	@$(INSTALL) -e '.[docs]'
	@touch $@
