# Every target makes the virtual environment it needs: nothing else to install.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
ROUNDS ?= 20

.PHONY: run test check lint bench crash docs clean

$(VENV)/.installed: setup.cfg
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test,dev]'
	touch $@

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy mailsrv tests twisted/plugins/mailsrv_plugin.py
	$(BIN)/python -m twisted.trial tests.test_layers

# The quick part: no process is started, no client needed.
check: $(VENV)/.installed
	$(BIN)/python -m twisted.trial --temp-directory=_trial_check \
	  tests.test_layers tests.test_threads tests.test_settings_file tests.test_logs \
	  tests.smtp tests.imap tests.pop3 tests.mime tests.store tests.mailboxes \
	  tests.routing tests.accounts tests.tls tests.cli

test: $(VENV)/.installed
	$(BIN)/python -m twisted.trial tests
