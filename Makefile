# Two commands matter: `make demo` and `make test`. Both install what they need into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# setuptools warns at length about folders such as launch/ beside the packages in an editable install
INSTALL := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# The Cityscapes protocol is held against the official evaluation (MIT). Its package names `typing` among what it needs, a copy of the standard
# library's module for Python 2 that breaks whatever finds it first, and more that its evaluation does not use: so it comes by itself.
DEMO_READY := $(VENV)/.demo-installed
TEST_READY := $(VENV)/.test-installed
METADATA := constraints.txt setup.py pyproject.toml

# For `make demo`; handed over in the environment, so that names with spaces stay whole.
export SOURCE FRAMES TOPIC FPS OUT

# The packages in .venv bring a ROS of their own; one that the shell has sourced must not be mixed into it.
ifdef ROS_DISTRO
unexport PYTHONPATH LD_LIBRARY_PATH AMENT_PREFIX_PATH RMW_IMPLEMENTATION
endif

.PHONY: help demo test check clean distclean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(DEMO_READY) ## frames through the real node into out/demo; SOURCE=bag|video|folder FRAMES=n TOPIC=/t FPS=n OUT=folder
	@$(BIN)/python -m camseg_ros.demo $${SOURCE:+--source "$$SOURCE"} $${FRAMES:+--frames "$$FRAMES"} \
		$${TOPIC:+--topic "$$TOPIC"} $${FPS:+--fps "$$FPS"} $${OUT:+--out "$$OUT"}

test: $(TEST_READY) ## the whole test suite, fast tests first; ARGS='-k bag' are pytest's
	$(BIN)/python -m pytest $(ARGS)

check: $(TEST_READY) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks/*.py

clean: ## remove what was built and what the demo left
	rm -rf out/demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

distclean: clean ## remove the virtual environment as well
	rm -rf $(VENV)

$(BIN)/python:
	@$(PYTHON) -c 'import platform as p, sys; v = sys.version_info[:2]; \
		sys.exit(not ((3, 11) <= v <= (3, 13) and (p.system(), p.machine()) == ("Linux", "x86_64")))' || { echo >&2 \
		"$(PYTHON) is not Python 3.11 to 3.13 on x86_64 Linux. Name another: make PYTHON=python3.12 ... (On Jetson see README.md)"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo >&2 \
		"$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv"; exit 2; }

$(DEMO_READY): $(METADATA) | $(BIN)/python
	@echo "installing into $(VENV); the first time this downloads for some minutes"
	@$(INSTALL) -e '.[ros,bag]'
	@touch $@

$(TEST_READY): $(METADATA) | $(BIN)/python
	@echo "installing into $(VENV), with PyTorch; the first time this downloads for some minutes"
	@$(INSTALL) -e '.[ros,bag,train,test]'
	@$(INSTALL) --no-deps cityscapesScripts
	@touch $(DEMO_READY) $@
