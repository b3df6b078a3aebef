# What a developer types. Each environment is made from its lock file, and made anew only when that changes.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

LOCKS := deploy/lock
RUN := .venv/run
DEV := .venv/dev
SETUP := deploy/dev/environment

export HUB6_BIN ?= $(CURDIR)/.venv/hub/bin
export HUB55_BIN ?= $(CURDIR)/.venv/hub55/bin

.PHONY: help demo test test-again coverage soak bench check format lock hubs openssh clients chromium screenshots kube-tools clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: .venv/run.made .venv/hub.made openssh ## A JupyterHub, the api and the bastion on this machine; CHECK=1 tries everything and ends
	@exec $(RUN)/bin/python -m deploy.demo $(if $(CHECK),--check)

check: .venv/dev.made ## Lint, types and import contracts: the fast part
	$(DEV)/bin/ruff check
	$(DEV)/bin/mypy
	$(DEV)/bin/lint-imports

test: check openssh clients chromium hubs ## Everything: check, all tests on JupyterHub 6, those that meet the hub again on 5.5; TEST_ARGS="-k words" picks
ifdef TEST_ARGS
	$(DEV)/bin/python -m pytest $(TEST_ARGS)
else
	@deploy/dev/tests $(DEV)/bin/python
endif

coverage: check openssh clients chromium hubs ## The same tests, and what of the code they ran
	@deploy/dev/tests $(DEV)/bin/python --cov

test-again: hubs ## Those tests that failed the last time, alone
	@deploy/dev/tests $(DEV)/bin/python --again

soak: .venv/dev.made .venv/hub.made openssh clients ## 64 clients at once for two minutes, every byte checked and what is left behind counted
	SOAK_SECONDS=$${SOAK_SECONDS:-120} $(DEV)/bin/python -m pytest tests/clients/test_soak.py

bench: .venv/dev.made openssh ## The bastion beside OpenSSH as jump host, written to docs/performance.md; QUICK=1 prints a small run
	@$(DEV)/bin/python -m bench $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))

screenshots: .venv/dev.made .venv/hub.made openssh chromium ## Every page at two widths, light and dark, written to docs/images
	@$(DEV)/bin/python -m tests.page.screenshots

kube-tools: ## helm, etcd and kube-apiserver for the tests of the chart, built once outside this folder where Go is
	@deploy/dev/kube-tools || printf 'Tests that need them are skipped.\n'

format: .venv/dev.made ## Format the code
	$(DEV)/bin/ruff format
	$(DEV)/bin/ruff check --fix

lock: .venv/tool.made ## Bring every lock file up to date
	@$(SETUP) lock

hubs: .venv/dev.made .venv/hub.made .venv/hub55.made

openssh:
	@$(SETUP) openssh

clients:
	@$(SETUP) clients

chromium:
	@$(SETUP) chromium

.venv/tool.made: $(LOCKS)/tool.txt
	@$(SETUP) tool
	@touch $@

.venv/run.made: $(LOCKS)/runtime.txt .venv/tool.made
.venv/dev.made: $(LOCKS)/dev.txt .venv/tool.made
.venv/hub.made: $(LOCKS)/hub.txt .venv/tool.made
.venv/hub55.made: $(LOCKS)/hub55.txt .venv/tool.made
.venv/run.made .venv/dev.made .venv/hub.made .venv/hub55.made:
	@$(SETUP) make $(basename $@) $<
	@touch $@

clean: ## Remove the environments and everything that tools left
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
