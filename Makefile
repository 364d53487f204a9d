# Two commands matter to a newcomer, `make demo` and `make test`; both do all their own
# set-up and can be repeated. Build variants live side by side under build/.

VENV ?= .venv
BIN = $(abspath $(VENV))/bin
SETUP = VENV=$(VENV) scripts/setup
# Tests and tools find the package they are meant to use by PYTHONPATH, never by chance.
with = PYTHONPATH=$(CURDIR)/build/$(1)
# The source tree holds a `router` without extensions, and Python would look there first.
safe = PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/build/release

.PHONY: demo test test-all check bench bench-smoke build build-checked asan tsan soak \
  soak-upstreams clean

demo:
	@$(SETUP) release demo
	@$(safe):$(CURDIR)/examples/demo $(BIN)/python examples/demo/demo.py

test:
	@$(SETUP) checked test
	@$(call with,checked) ROUTER_BUILD=checked $(BIN)/pytest $(ARGS)

test-all:
	@$(SETUP) checked test test-all
	@$(call with,checked) ROUTER_BUILD=checked $(BIN)/pytest -m 'not soak' $(ARGS)

check:
	@$(SETUP) checked test check
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check router tests benchmarks examples
	@$(call with,checked) $(BIN)/mypy
	@$(call with,checked) $(BIN)/python -m mypy.stubtest router._fasthash \
	  router.engine._engine
	@$(BIN)/cython-lint --max-line-length 88 router
	@$(call with,checked) ROUTER_BUILD=checked $(BIN)/pytest tests/test_architecture.py

bench:
	@$(SETUP) release test bench
	@$(safe):$(CURDIR) $(BIN)/python -m benchmarks $(ARGS)

bench-smoke:
	@$(SETUP) release test bench
	@$(safe):$(CURDIR) $(BIN)/python -m benchmarks.smoke

build:
	@$(SETUP) release

build-checked:
	@$(SETUP) checked test

asan:
	@VENV=$(VENV) scripts/sanitize asan -m 'not soak' $(ARGS)

tsan:
	@VENV=$(VENV) scripts/sanitize tsan -m 'not soak' $(ARGS)

soak:
	@VENV=$(VENV) scripts/sanitize asan soak $(ARGS)

soak-upstreams:
	@$(SETUP) checked test
	@$(call with,checked) $(BIN)/python tests/soak/upstream_faults.py $(ARGS)

clean:
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
