# Every target makes the virtual environment it needs: nothing else to install.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
ROUNDS ?= 20
TRIAL = $(BIN)/python -m twisted.trial

.PHONY: run test check lint bench crash docs clean

$(VENV)/.installed: setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "mailsrv needs Python 3.11 or later: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test,dev]'
	touch $@

# A server for example.test in ./var, and a table of what to type into a client.
run: $(VENV)/.installed
	@$(BIN)/mailsrv quickstart --dir var --domain example.test --port-base 2000 \
	  --account anna --account ben
	@echo
	$(BIN)/twistd --nodaemon --pidfile= mailsrv --config var/mailsrv.toml

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy mailsrv tests benchmarks twisted/plugins/mailsrv_plugin.py
	$(BIN)/sphinx-build -q -W -b html docs docs/_build/html
	$(TRIAL) tests.test_layers

# The quick part: no process is started, no client needed.
check: $(VENV)/.installed
	$(TRIAL) --temp-directory=_trial_check \
	  tests.test_layers tests.test_threads tests.test_settings_file tests.test_logs \
	  tests.test_connections tests.test_outlet tests.test_listeners \
	  tests.test_proxy_protocol tests.test_etc \
	  tests.smtp tests.imap tests.pop3 tests.mime tests.store tests.mailboxes \
	  tests.routing tests.accounts tests.tls tests.cli tests.doors tests.plugins \
	  tests.dns tests.trust tests.queue tests.relay tests.lists tests.web

test: $(VENV)/.installed
	$(TRIAL) tests

# Beside Postfix and Dovecot, on Debian; see docs/performance.rst.
bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks.run var/bench
	$(BIN)/python -m benchmarks.outgoing var/bench

# Kills a server under load ROUNDS times; begun again it goes on where it stopped.
crash: $(VENV)/.installed
	$(BIN)/python -m tests.crash.rounds $(ROUNDS) var/crash

docs: $(VENV)/.installed
	$(BIN)/sphinx-build -q -W -b html docs docs/_build/html

clean:
	rm -rf build dist *.egg-info docs/_build _trial_temp* _trial_check*
