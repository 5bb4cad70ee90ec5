# The verbs. `make` lists them. A verb is passed to the command line under its own name; the stage
# decides what is stale (see README, "The pipeline"). Every verb sets up the environment if it is not there.
#
#   MODE    train | val | test-dev | test-challenge     DATA     folder of VisDrone2019-DET-<split>/
#   RUN     name of the run (artifacts/RUN/...)         CONFIG   preset names or YAML files
#   SET     any further options, for example SET="--crop.threshold 0.1 --workers 2"
#   RUNS    names of runs to compare, the baseline first
#   EXECUTOR local | ray: who does the work (docs/scale.md)
#   GPUS    processes of a training on each machine (torchrun); NODES machines, which meet at MASTER=HOST:PORT
#   WEIGHTS, DENSITY, CROPS, DETECTIONS, DETECTOR, DETECTOR_WEIGHTS, SIZES: bring your own (README)

MODE       ?= val
DATA       ?= data
RUN        ?= default
ARTIFACTS  ?= artifacts
CONFIG     ?=
SET        ?=
EXTRAS     ?= dev,mmdet
PYTHON     ?= python3
VENV       ?= .venv
PY          = $(VENV)/bin/python
SAHI        = $(VENV)/sahi
READY       = $(VENV)/.ready
READY_DEV   = $(VENV)/.ready-$(subst $(comma),-,$(EXTRAS))
comma      := ,

# Values as they were given, in quotes: neither make nor the shell looks into them.
quoted      = '$(subst ','\'',$(value $(1)))'
option      = $(if $(value $(1)),--$(2) $(call quoted,$(1)))
OWN         = --split $(call quoted,MODE) --run $(call quoted,RUN) --artifacts $(call quoted,ARTIFACTS) \
              $(foreach preset,$(value CONFIG),--config $(call quoted,preset)) \
              $(call option,WEIGHTS,weights) $(call option,DENSITY,density) \
              $(call option,CROPS,crops) $(call option,DETECTIONS,detections) \
              $(call option,DETECTOR,detector) $(call option,DETECTOR_WEIGHTS,detector-weights) \
              $(call option,SIZES,sizes) $(call option,EXECUTOR,executor) $(value SET)
OPTIONS     = --data $(call quoted,DATA) $(OWN)

STAGES = density train-density predict-density crop convert train-detector detect fuse-eval all status
.DEFAULT_GOAL := help
.PHONY: help setup demo test check campaign bench data clean-demo $(STAGES) slice-report tune evaluate compare \
        quantise pictures demo-data predict info doctor export verify licences

help: ## this list
	@grep -hE '^[a-z -]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: $(READY) ## the whole pipeline on scenes it draws, to demo/report.html (TRAIN=1: train on them too)
	$(PY) -m dmnet demo --out demo $(if $(TRAIN),--learn) $(value SET)

test: $(READY_DEV) ## set up and run the tests
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile $(PYTEST)

check: $(READY_DEV) ## format, lint, types, import floors
	$(PY) -m ruff format --check . && $(PY) -m ruff check . && $(PY) -m mypy && $(VENV)/bin/lint-imports

.PHONY: docs
docs: ## build the documentation site: site/index.html
	@$(MAKE) --no-print-directory setup EXTRAS=docs
	$(PY) docs/pages.py && NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

setup: $(READY_DEV) ## only the environment, with EXTRAS=dev,onnx,mmdet,...

data: $(READY) ## download and unpack VisDrone into DATA (MODE=all for every split)
	$(PY) -m dmnet data --data $(call quoted,DATA) --split $(call quoted,MODE) $(value SET)

density: ## ground-truth density maps
train-density: ## train the density network
predict-density: ## density maps by a trained network or WEIGHTS=file
crop: ## cut the dense regions out of the images (DENSITY=true|predicted|folder)
convert: ## annotations of images and crops to VOC XML, COCO JSON, YOLO txt
train-detector: ## train the detector (DETECTOR=name)
detect: ## run the detector on whole images and on crops
fuse-eval: ## merge both results with NMS, score them, write the report
all: ## every stage in order: the train split, then MODE
status: ## what is done, what is stale, and why
TRAININGS   = train-density train-detector
TORCHRUN    = $(if $(GPUS),torch.distributed.run --nproc-per-node $(GPUS) --max-restarts $(or $(RESTARTS),0) \
              $(if $(NODES),--nnodes $(NODES) --rdzv-backend c10d --rdzv-endpoint "$(or $(MASTER),$(error name the first machine: MASTER=HOST:PORT))",--standalone) -m)
$(filter-out status $(TRAININGS),$(STAGES)): $(READY)
	@$(PY) -m dmnet $@ $(OPTIONS)

$(TRAININGS): $(READY)
	@$(PY) -m $(TORCHRUN) dmnet $@ $(OPTIONS)

# A run knows its data: DATA is passed on only where it was named.
status: $(READY)
	@$(PY) -m dmnet $@ $(if $(filter file default undefined,$(origin DATA)),$(OWN),$(OPTIONS))

slice-report: $(READY) ## what each slicer is worth, without a detector
	$(PY) -m dmnet slice-report --split $(call quoted,MODE) --data $(call quoted,DATA) $(call option,SIZES,sizes) \
	  $(call option,MAPS,maps) $(value SET)

tune: $(READY) ## crop, packing and fusion settings for WEIGHTS and DETECTOR_WEIGHTS, chosen on train
	$(PY) -m dmnet tune --data $(call quoted,DATA) $(if $(filter-out file,$(origin MODE)),--split $(call quoted,MODE)) \
	  $(call option,SIZES,sizes) $(call option,WEIGHTS,weights) $(call option,MAPS,maps) \
	  $(call option,DETECTOR,detector) $(call option,DETECTOR_WEIGHTS,detector-weights) $(value SET)

evaluate: $(READY) ## score any detections: GT=folder-or-json DT=folder-or-json PROTOCOL=visdrone
	$(if $(and $(value GT),$(value DT)),,$(error evaluate: say what is scored, GT=folder-or-json of the annotations and DT=folder-or-json of the detections))
	@$(PY) -m dmnet evaluate --gt $(call quoted,GT) --dt $(value DT) --protocol $(or $(PROTOCOL),visdrone) $(value SET)

compare: $(READY) ## scores of RUNS="one two ..." side by side, with intervals: compare.html
	@$(PY) -m dmnet compare $(value RUNS) --split $(call quoted,MODE) --data $(call quoted,DATA) --artifacts $(call quoted,ARTIFACTS) \
	  $(call option,SIZES,sizes) $(value SET)

info: $(READY) ## what a data set is: DATA=path MODE=split
	@$(PY) -m dmnet info $(call quoted,DATA) --split $(call quoted,MODE) $(value SET)

verify: $(READY) ## every file of RUN hashed again: what is damaged, stale or foreign, and what mends it
	@$(PY) -m dmnet verify $(call quoted,RUN) --artifacts $(call quoted,ARTIFACTS) $(value SET)

licences: $(READY_DEV) ## licences of all dependencies; ADVISORIES=folder of OSV files: known weaknesses too
	@$(PY) docs/dependencies.py $(if $(ADVISORIES),--advisories $(call quoted,ADVISORIES))

doctor: $(READY) ## versions, devices, extras, models, a short speed test, what is missing
	@$(PY) -m dmnet doctor $(value SET)

predict: $(READY) ## objects in your own pictures: IMAGES=folder, MODEL=name, OUT=folder
	@$(PY) -m dmnet predict $(or $(value IMAGES),$(error name pictures: make predict IMAGES=path)) \
	  $(call option,MODEL,model) $(call option,OUT,out) $(call option,EXECUTOR,executor) $(value SET)

export: $(READY) ## a trained network as an ONNX file, checked: WEIGHTS=file OUT=file.onnx
	$(if $(and $(WEIGHTS),$(OUT)),,$(error export: name the weights and the file to write, WEIGHTS=weights.pt OUT=file.onnx))
	@$(PY) -m dmnet export --weights $(call quoted,WEIGHTS) --out $(call quoted,OUT) $(value SET)

campaign: $(READY_DEV) ## try to break it: NAME=kill|kill_verbs|faults|fuzz|settings|stale|soak|raster N=100 (docs/reliability.md)
	OMP_NUM_THREADS=1 $(PY) -m tests.campaigns.$(NAME) $(if $(N),-n $(N)) $(if $(SEED),--seed $(SEED)) $(ARGS)

quantise: $(READY) ## a trained YOLOv6 with 8-bit weights: WEIGHTS=file IMAGES=folder OUT=file.pt
	$(if $(and $(WEIGHTS),$(IMAGES),$(OUT)),,$(error quantise: name weights, images and the file to write, WEIGHTS=weights.pt IMAGES=folder OUT=file.pt))
	@$(PY) -m dmnet quantise --weights $(call quoted,WEIGHTS) --images $(call quoted,IMAGES) --out $(call quoted,OUT) $(value SET)

pictures: $(READY) ## density, windows and crops of images as a contact sheet: OUT=sheet.jpg
	@$(PY) -m dmnet pictures --data $(call quoted,DATA) --split $(call quoted,MODE) $(call option,OUT,out) $(value SET)

demo-data: $(READY) ## draw aerial scenes with annotations, from a seed: OUT=folder
	@$(PY) -m dmnet demo-data --out $(if $(value OUT),$(call quoted,OUT),demo-data) $(value SET)

bench: $(READY_DEV) $(SAHI)/.ready ## all benchmarks; writes benchmarks/README.md
	PYTHONPATH=$(SAHI) $(PY) -m benchmarks $(value SET)

# A baseline of benchmarks/detection.py, beside the environment and not in it.
$(SAHI)/.ready: $(READY)
	@$(ADD) --target $(SAHI) --no-deps sahi==0.12.8 pybboxes fire terminaltables termcolor shapely \
	 click requests urllib3 idna charset-normalizer certifi
	@touch $@

# uv where it is present, else venv + pip. torch and torchvision are resolved together, as a pair.
ADD         = $(if $(shell command -v uv),uv pip install -q -p $(PY),\
              $(PY) -m pip install -q --disable-pip-version-check)
$(READY): requirements.lock pyproject.toml
	@test -x $(PY) || if command -v uv >/dev/null; then uv venv -q $(VENV); else $(PYTHON) -m venv $(VENV); fi
	@echo "setting up $(VENV) (some minutes the first time)" >&2
	@$(ADD) -c requirements.lock -e .
	@touch $@

# The extra mmdet comes from its own lock file, which says why.
space      := $(subst ,, )
ASKED       = $(subst $(comma), ,$(EXTRAS))
PLAIN       = $(subst $(space),$(comma),$(strip $(filter-out mmdet,$(ASKED))))
LOCKED      = $(if $(filter mmdet,$(ASKED)),requirements-mmdet.lock)
$(READY_DEV): $(READY) requirements-mmdet.lock
	@echo "adding $(EXTRAS) to $(VENV)" >&2
	@$(ADD) -c requirements.lock -e '.$(if $(PLAIN),[$(PLAIN)])' \
	 $(if $(LOCKED),&& $(ADD) --no-deps -r $(LOCKED))
	@touch $@
