# Every command of this project. `make demo` and `make test` need nothing but python3 (3.10 or newer) with venv, and make.
#
#   PYTHON=python3.12       the interpreter for the virtual environment
#   TORCH_INDEX=https://…   where torch comes from, e.g. https://download.pytorch.org/whl/cpu for the small CPU build
#   JOBS=4                  processes that run the tests; one more than CPUs, because some wait, but at most 8
#   FUZZ_CASES=5000         files of each kind that `make fuzz` damages;  FUZZ_SEED=1: which ones
#   KILLS=20                how often `make fuzz` kills each command
#   CPU_BENCH=--all         what `make bench` times of the networks: also training at 256 px, and growth with size
#   GPU_REPORT=--tiny       options of the GPU report (python -m benchmarks.gpu_report --help)

PYTHON ?= python3
TORCH_INDEX ?=
JOBS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n < 8 ? n + 1 : 8)))
CPU_BENCH ?=
FUZZ_CASES ?= 5000
FUZZ_SEED ?= 1
FUZZ_ROWS ?= build/fuzz.jsonl
KILLS ?= 20
GPU_REPORT ?=
PARALLEL := -n $(JOBS) --dist=worksteal  # neighbours stay in one process, which shares their module's fixtures
VENV := .venv
VENV24 := .venv-torch24
PY := $(VENV)/bin/python
TORCH := $(shell grep '^torch==' requirements.lock)
export PYTHONDONTWRITEBYTECODE :=  # the many processes of the tests share what one of them has compiled

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test fuzz check test-gpu gpu-report test-torch24 bench docs golden clean distclean

help:
	@echo "make demo          compress the embedded network without data, score it, draw it"
	@echo "make test          lint, types, and all tests with coverage"
	@echo "make fuzz          damaged files of every kind, FUZZ_CASES=5000 of each, and killed commands (about an hour)"
	@echo "make check         lint and types only"
	@echo "make test-gpu      the tests that need a CUDA device"
	@echo "make gpu-report    checks and measures this project on a GPU; writes a page to attach to an issue"
	@echo "make test-torch24  all tests with the oldest torch that is supported, in an environment of its own"
	@echo "make golden        differences from every reference number, as one table"
	@echo "make bench         the benchmarks that run on a CPU"
	@echo "make docs          updates the help texts in docs/cli"
	@echo "make clean         removes what the demo and the tests left;  make distclean: the environments too"

demo: $(VENV)/.runtime-installed
	$(PY) -m demo.run

test: check
	$(PY) -m pytest $(PARALLEL) --cov=dgl --cov=torch_utils.checkpoint --cov-report=term --cov-fail-under=90

fuzz: $(VENV)/.dev-installed
	mkdir -p $(dir $(FUZZ_ROWS))
	rm -f $(FUZZ_ROWS)
	FUZZ_ROWS=$(abspath $(FUZZ_ROWS)) FUZZ_CASES=$(FUZZ_CASES) FUZZ_SEED=$(FUZZ_SEED) KILLS=$(KILLS) \
		$(PY) -m pytest $(PARALLEL) --timeout=7200 tests/fuzz tests/cli/test_kill_loop.py \
		tests/training/test_resume.py::test_a_run_that_is_killed_again_and_again; \
		status=$$?; $(PY) -m tests.robustness $(FUZZ_ROWS) && exit $$status

check: $(VENV)/.dev-installed
	$(PY) -m ruff check .
	$(PY) -m mypy dnnlib torch_utils metrics training dgl *.py

test-gpu: $(VENV)/.dev-installed
	$(PY) -m pytest -m gpu

gpu-report: $(VENV)/.dev-installed
	$(PY) -m benchmarks.gpu_report $(GPU_REPORT)

test-torch24: $(VENV24)/.installed
	$(VENV24)/bin/python -m pytest $(PARALLEL)

golden: $(VENV)/.dev-installed
	$(PY) -m tests.golden_report

bench: $(VENV)/.runtime-installed build/clothing.zip
	$(PY) benchmarks/fid_sqrtm.py
	$(PY) benchmarks/data_loading.py --data=build/clothing.zip
	$(PY) benchmarks/cpu.py $(CPU_BENCH)

build/clothing.zip: demo/data/t10k-images-idx3-ubyte.gz | $(VENV)/.runtime-installed
	mkdir -p build
	rm -f $@
	$(PY) dataset_tool.py --source=$< --dest=$@

docs: $(VENV)/.dev-installed
	$(PY) -m tests.contract.help_texts

clean:
	rm -rf demo-out build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) $(VENV24)

# The environments. A stamp is written last, so an installation that was cut short is done again.

# $(call environment,FOLDER): makes a virtual environment, or says what is missing.
define environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Error: $(PYTHON) is missing or older than 3.10; name another one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2> /dev/null \
		|| { echo "Error: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(1)
endef

# $(call from_torch_index,FOLDER,REQUIREMENT): torch itself from TORCH_INDEX; what it needs follows with the rest.
define from_torch_index
	$(if $(TORCH_INDEX),$(1)/bin/python -m pip install --no-deps --index-url $(TORCH_INDEX) $(2))
endef

$(VENV)/.runtime-installed: requirements.lock
	$(call environment,$(VENV))
	$(call from_torch_index,$(VENV),$(TORCH))
	$(PY) -m pip install -r requirements.lock
	@touch $@

$(VENV)/.dev-installed: $(VENV)/.runtime-installed requirements-dev.lock
	$(PY) -m pip install -r requirements-dev.lock
	@touch $@

$(VENV24)/.installed: requirements.lock requirements-dev.lock
	$(call environment,$(VENV24))
	$(call from_torch_index,$(VENV24),torch==2.4.1)
	grep -vE '^(torch|numpy|scipy)==' requirements.lock > $(VENV24)/others.txt
	$(VENV24)/bin/python -m pip install torch==2.4.1 numpy==1.26.4 scipy==1.15.3 \
		-r $(VENV24)/others.txt -r requirements-dev.lock
	@touch $@
