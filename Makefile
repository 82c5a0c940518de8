# GNU make 3.81, which macOS ships, is enough. To choose the interpreter: make lab PYTHON=python3.12
PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/complete
ZOO := .venv-zoo/bin/python
SITE := .venv-site/bin/python
MATHJAX := 3.2.2
MUTANTS := .venv-mutants/bin/python

# The stamp is written last and says for which place and Python the environment was made. Where that is no longer
# true (the directory was moved, the base Python was upgraded, pip is gone), the next call starts afresh.
IDENTITY := import pip, sys; print(sys.prefix, sys.version_info[:2])
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(shell $(PY) -c '$(IDENTITY)' 2>/dev/null))
$(shell rm -f $(STAMP))
endif

# Else, where it is set, every worker and kernel of a test would compile every module anew.
export PYTHONDONTWRITEBYTECODE :=

# The lab extension and the settings that the slides need.
export JUPYTER_PATH := $(CURDIR)/.jupyter$(addprefix :,$(JUPYTER_PATH))
export JUPYTER_CONFIG_PATH := $(CURDIR)/.jupyter$(addprefix :,$(JUPYTER_CONFIG_PATH))
LAB := -m jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root)
N ?= 00
TO ?= class

.PHONY: help lab slides assignment layout test notebook outputs resolution bench sizes places zoo site mutants pins clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

lab: $(STAMP) ## open the course in JupyterLab, after setting up .venv if need be
	@$(PY) $(LAB) --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

slides: $(STAMP) ## open a notebook as slides: make slides N=04
	@$(PY) $(LAB) --LabApp.default_url=/rise/$(firstword $(wildcard notebooks/$(N)*.ipynb))

assignment: $(STAMP) ## write a source assignment for nbgrader, with solutions: make assignment N=04 TO=folder
	@$(PY) -m course_utils.exercises.assignment $(N) --to $(TO)

layout: $(STAMP) ## divide the notebooks into slides that fit the page (needs a Chromium)
	@$(PY) tests/lay_out_slides.py notebooks/*.ipynb

test: $(STAMP) ## run everything that CI runs: lint, format, unit tests, every notebook; say what took how long
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m pytest --nbval --numprocesses 4 --dist loadfile --no-loadscope-reorder

notebook: $(STAMP) ## store all that follows from a notebook after a change: make notebook N=04 (needs a Chromium)
	@$(PY) tests/write_exercises.py notebooks/$(N)*.ipynb
	@$(PY) tests/store_outputs.py notebooks/$(N)*.ipynb
	@$(PY) tests/reading_time.py notebooks/$(N)*.ipynb
	@$(PY) tests/lay_out_slides.py notebooks/$(N)*.ipynb
	@$(PY) tests/claim_cells.py
	@$(PY) tests/resolution.py > /dev/null
	@$(PY) tests/stored_texts.py

outputs: $(STAMP) ## run every notebook in place and store its outputs
	@$(PY) tests/store_outputs.py notebooks/*.ipynb

resolution: $(STAMP) ## store how small an error each comparison of the notebooks would catch
	@$(PY) tests/resolution.py

bench: $(STAMP) ## time the package, name what became slower; store the record: make bench RECORD=1
	@$(PY) tests/benchmarks.py $(if $(RECORD),--record)

sizes: $(STAMP) ## measure what each notebook asks of a machine, and how many learners one carries (Linux)
	@$(PY) tests/sizes.py

places: $(STAMP) ## compare the notebooks under other kernels, locales, folders, versions: make places AT=scalar
	@$(PY) tests/places.py $(AT)

zoo: .venv-zoo/complete ## diagnose models of transformers and timm, which must raise no alarm, in .venv-zoo
	@$(ZOO) tests/zoo_of_libraries.py

site: .venv-site/complete build/mathjax/tex-svg-full.js ## build the course as a website in build/site, in .venv-site
	@rm -rf build/site && mkdir -p build/source build/pictures
	@$(SITE) -m sphinx --quiet --fail-on-warning --jobs 2 -c docs -d build/doctrees build/source build/site
	@$(SITE) -m pytest -q tests/test_site.py
	@echo 'Open build/site/index.html'

mutants: .venv-mutants/complete ## plant faults in modules that their tests must find: make mutants OF="quadrature checks"
	@$(MUTANTS) tests/mutants.py $(OF)

pins: ## resolve requirements.txt from pyproject.toml; versions stay where they can (needs uv)
	@header=$$(sed '/^$$/q' requirements.txt) && \
	pins=$$(uv pip compile pyproject.toml --group test --universal --python-version 3.11 \
		--no-header --no-annotate --quiet --generate-hashes --output-file requirements.txt && \
		awk '/^[a-z]/ { kept = !/^(cuda|nvidia|triton)/ } kept' requirements.txt) && \
	printf '%s\n\n%s\n' "$$header" "$$pins" > requirements.txt

clean: ## remove .venv, .venv-zoo, .venv-site, .venv-mutants, the site and every cache
	rm -rf .venv .venv-zoo .venv-site .venv-mutants build .pytest_cache .ruff_cache *.egg-info
	find course_utils notebooks tests -name __pycache__ -prune -exec rm -rf {} +
	find notebooks -name .ipynb_checkpoints -prune -exec rm -rf {} +

# Torch comes first and by its version, for which of its builds suits a machine only pip knows; all else by its hash.
define install_pins
	@$(1) -m pip install --quiet --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) \
		$$(awk '/^torch==/ { print $$1 }' requirements.txt)
	@$(1) -m pip install --quiet --no-deps --requirement requirements.txt
endef

# A missing stamp means that nothing in .venv can be trusted: it is made anew. With a stamp that is merely older
# than the pins, pip changes what differs; should that fail, the stamp is gone and the next call starts afresh.
$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo 'The course needs Python 3.11 or newer, and "$(PYTHON)" is not: name one that is, for example with "make $(MAKECMDGOALS) PYTHON=python3.12".' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo '"$(PYTHON)" cannot make virtual environments: install its venv module (Debian and Ubuntu: apt install python3-venv).' >&2; exit 1; }
	@test -f $@ || { echo 'Making .venv with $(PYTHON)'; $(PYTHON) -m venv --clear .venv; }
	@rm -f $@
	@echo 'Installing the packages of requirements.txt into .venv; this takes a few minutes the first time'
	$(call install_pins,$(PY))
	@$(PY) -m pip install --quiet --no-build-isolation --editable .
	@$(PY) -c '$(IDENTITY)' > $@

# Apart from .venv, which stays what requirements.txt says; the same pins hold here, with an extra beside them.
.venv-zoo/complete .venv-site/complete .venv-mutants/complete: .venv-%/complete: requirements.txt pyproject.toml
	@$(PYTHON) -m venv --clear .venv-$*
	@echo 'Installing the packages of requirements.txt and of the extra "$*" into .venv-$*; this takes a few minutes'
	$(call install_pins,.venv-$*/bin/python)
	@.venv-$*/bin/python -m pip install --quiet --no-build-isolation --editable '.[$*]'
	@touch $@

# Formulas are set by the reader's browser, with what stands beside the page: one file, with its fonts.
build/mathjax/tex-svg-full.js: Makefile
	@command -v npm > /dev/null || { echo 'The site takes MathJax from npm: install Node.js.' >&2; exit 1; }
	@mkdir -p build/mathjax build/npm
	@cd build/npm && npm pack --silent mathjax@$(MATHJAX) > /dev/null && tar -xzf mathjax-$(MATHJAX).tgz
	@cp build/npm/package/LICENSE build/mathjax/mathjax-license.txt
	@cp build/npm/package/es5/tex-svg-full.js build/mathjax/
	@rm -r build/npm
