# make serve, make test, make test-all, make flaky, make check, make bench, make hotpath,
# make figures, make docs, make map, make site, make links, make fuzz, make property,
# make autobahn, make browser, make clients, make promtool, make proxies, make trials, make package,
# make soak, make chaos, make planted, make mutants, make differential, make coverage
#
# VENV=.venv-3.13 PYTHON=python3.13 makes another environment beside the first.

VENV ?= .venv
SECONDS ?= 600
TIMES ?= 50
EXAMPLES ?= 2000
COUNT ?= 60
SEED ?= 1
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && exit; done; echo python3)

bin := $(VENV)/bin
parallel := -n auto --dist loadgroup

# Bytecode files save a third of the time of the processes that tests start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: serve test test-all flaky check bench hotpath figures docs map site links fuzz property autobahn browser clients promtool proxies trials package soak chaos planted mutants differential coverage
.DELETE_ON_ERROR:

serve: $(VENV)/standard.stamp
	$(bin)/tinyasgi examples.hello:app

test: $(VENV)/test.stamp
	$(bin)/python -m pytest $(parallel) -m 'not (browser or proxies or slow)' $(OPTIONS)

test-all: $(VENV)/test.stamp
	$(bin)/python -m pytest $(parallel) $(OPTIONS)

# Each test many times, in random order, while all cores are busy.
flaky: $(VENV)/test.stamp
	$(bin)/python -m pytest --times=$(TIMES) $(OPTIONS)

check: $(VENV)/dev.stamp
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy
	$(bin)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(bin)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(bin)/check-jsonschema --builtin-schema vendor.github-issue-forms \
		.github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml
	$(bin)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml

# Builds the packages and serves a request from the wheel, in new environments.
package: $(VENV)/dev.stamp
	rm -rf dist
	$(bin)/python -m build
	$(bin)/python -m twine check --strict dist/*
	$(bin)/python -m tests.wheel dist/*.whl

bench: $(VENV)/standard.stamp
	$(bin)/python -m benchmarks --output benchmarks/results

hotpath: $(VENV)/hotpath.stamp
	$(bin)/python -m benchmarks hotpath

figures: $(VENV)/standard.stamp
	$(bin)/python -m benchmarks --readme

docs: $(VENV)/standard.stamp
	$(bin)/python docs/options.py

map: $(VENV)/standard.stamp
	$(bin)/python docs/map.py
	$(bin)/python docs/diagrams.py

# Warnings are errors, and so are links within the site that lead nowhere.
site: $(VENV)/docs.stamp
	rm -rf build/site
	$(bin)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet docs build/site
	$(bin)/python docs/check.py build/site

# Follows links to other sites, too.
links: $(VENV)/docs.stamp
	$(bin)/python -m sphinx --builder linkcheck --quiet docs build/links

fuzz: $(VENV)/test.stamp
	for name in connection frames http2 hpack; do \
		$(bin)/python tests/fuzz/fuzz.py $$name -max_total_time=$$(( $(SECONDS) / 4 )) || exit; \
	done

# State machines in virtual time, with other examples in each run.
property: $(VENV)/test.stamp
	PROPERTY_EXAMPLES=$(EXAMPLES) $(bin)/python -m pytest tests/protocols/test_machine_http1.py \
		tests/protocols/websocket/test_machine.py tests/protocols/http2/test_machine.py

# Faults of the kinds that servers have had: tests notice each of them.
planted: $(VENV)/test.stamp
	$(bin)/python -m tests.planted $(OPTIONS)

# Small changes of the code at random: tests notice at least 90 % of them.
mutants: $(VENV)/test.stamp
	$(bin)/python -m tests.mutants --count $(COUNT) --seed $(SEED) $(OPTIONS)

# The same random requests for several servers and proxies: every difference is explained.
differential: $(VENV)/test.stamp build/peers/stamp
	$(bin)/python -m tests.differential --peers build/peers --count $(COUNT) --seed $(SEED)

build/peers/stamp: tests/differential/requirements.txt
	$(PYTHON) -m venv build/peers
	build/peers/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# Lines and branches that the tests run, also in the processes that they start.
coverage: $(VENV)/dev.stamp
	$(bin)/python -m coverage erase
	$(bin)/python -m coverage run -m pytest $(parallel) -m 'not (browser or proxies)' $(OPTIONS)
	$(bin)/python -m coverage combine --quiet
	$(bin)/python -m coverage report

autobahn: $(VENV)/test.stamp
	$(bin)/python tests/autobahn.py $(CASES)

# What some tests need, on Debian and its kin.
install := apt-get -qq update && apt-get -qq install --no-install-recommends -y

browser:
	$(install) chromium chromium-driver

# What tests of TLS and HTTP/2 ask with.
clients:
	$(install) curl nghttp2-client nodejs openssl strace

# What checks metrics and alerts. Its service is not needed.
promtool:
	$(install) prometheus
	-systemctl disable --now prometheus 2>/dev/null

# What the tests of deploy/ need.
proxies:
	$(install) caddy haproxy logrotate nginx-light

# Honest clients and attackers of HTTP/1.1, HTTP/2 and WebSocket at one server: memory and descriptors
# stay, no honest request fails. OPTIONS=--tls does the same with TLS.
soak: $(VENV)/test.stamp
	$(bin)/python -m tests.soak $(SECONDS) $(OPTIONS)

# Signals, kills, hanging imports, full disks and other events at random, under load.
chaos: $(VENV)/test.stamp
	$(bin)/python -m tests.chaos $(SECONDS) $(OPTIONS)

trials: $(VENV)/test.stamp
	TRIALS=20 $(bin)/python -m pytest -rP -k 'nothing_fails or only_what' tests/workers/test_supervisor.py tests/test_single.py

# An extra of pyproject.toml, installed again when that file changes.
$(VENV)/%.stamp: pyproject.toml | $(bin)/python
	$(bin)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(bin)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit( \
	"tinyasgi needs Python 3.11 or newer, and $(PYTHON) is %d.%d: make PYTHON=python3.x" % v[:2])'
	$(PYTHON) -m venv $(VENV)
