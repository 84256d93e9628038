# make quickstart: install, simulate, pretrain, fit to other images, evaluate.   make test: install, run the suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LENSES := runs/quickstart_lenses
RUN := runs/lenses_minute
BACKBONE := runs/quickstart_backbone

.PHONY: quickstart test test-slow test-reliability test-gpu clean

$(VENV)/.all $(VENV)/.test: $(VENV)/.%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$*]'
	touch $@

quickstart: $(VENV)/.all
	$(BIN)/ssl-lens simulate $(LENSES) --count 900 --image-size 64 --pixel-scale-arcsec 0.1 --seed 1 --as-deeplense
	$(BIN)/ssl-lens pretrain lenses_minute run.resume=auto
	$(BIN)/ssl-lens fit $(RUN) $(BACKBONE) --data $(LENSES)
	$(BIN)/ssl-lens evaluate $(BACKBONE) --data $(LENSES) --probes ridge knn --untrained
	@echo
	@echo "Made: $(LENSES)/ (labelled images, parameters.csv), $(RUN)/ and $(BACKBONE)/:"
	@echo "  $(RUN)/plots/views.png curves.png  what the network saw, how training went"
	@echo "  $(RUN)/checkpoints metrics.jsonl   the run; ssl-lens runs lists it"
	@echo "  $(BACKBONE)/                  fitted to the images: ssl_lens.load_backbone('$(BACKBONE)')"
	@echo "  $(BACKBONE)/eval/report.md    trained next to untrained: tables, ROC curves, confusion matrices"

# The suite runs in two processes of one thread each.
test: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow

# What docs/reliability.md says.
test-reliability: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not gpu" tests/reliability tests/runs \
		tests/data/formats/test_mutants.py tests/representation/test_hostile_folders.py \
		tests/recipe/test_hostile_recipes.py tests/backbones/test_hostile_weights.py tests/data/test_hostile_sets.py \
		tests/cli/test_pretrain.py

test-gpu: $(VENV)/.test
	$(BIN)/python -m pytest -m gpu

clean:
	rm -rf $(VENV) runs
