# make demo | test | check: everything sets itself up first. `make setup` prepares .venv, and without a GPU fetches the
# default base model and compiles it for this machine, so that the first start takes no longer than others.
VENV := .venv/bin
SETUP_DONE := .venv/.mailwright-ready

.PHONY: all setup install demo screenshots test-tools test test-fast test-clients test-gpu soak fuzz bench-proof bench-train bench-serve bench-many bench-gate bench-llama bench-growth bench-neighbours check docs
all: check test

setup: install
	@command -v nvidia-smi > /dev/null || $(VENV)/server --prepare

install: $(SETUP_DONE)
$(SETUP_DONE): deploy/setup.py deploy/requirements-cpu.txt deploy/requirements-cuda.txt deploy/requirements-dev.txt pyproject.toml
	python3 deploy/setup.py

# CHECK=1: end after the comparison, with a status that says whether every step worked. BASE=smollm2-135m-instruct: faster.
demo: install
	$(VENV)/python deploy/demo.py $(if $(CHECK),--check) $(if $(BASE),--base $(BASE))

# The pictures of the README, with the default base model and the voices of STORE (default: the demo's).
screenshots: test-tools
	$(VENV)/python deploy/screenshots.py $(if $(STORE),--store $(STORE))

test-tools: install
	@python3 deploy/setup.py --test-tools
	@python3 deploy/setup.py --clients

# Two files at a time, first what starts nothing; tests/parallel.py says what stays together. In the second half in their
# order: what starts servers comes early, so that the end is short for whichever of the two is last.
test: test-tools
	$(VENV)/pytest -n 2 --dist loadfile -m "not vllm and not training and not browser"
	$(VENV)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "vllm or training or browser"

test-fast: install
	$(VENV)/pytest -m "not vllm and not training and not browser"

# Everything that the clients of the API are asked for, of which `make test` asks the first part; writes the table in docs/serving.md.
test-clients: test-tools
	MAILWRIGHT_CLIENTS=all $(VENV)/pytest tests/clients

# On a machine with an NVIDIA GPU: the demo, a mixed batch and a swap.
test-gpu: install
	$(VENV)/pytest tests/gpu

# 500 promotes, then half an hour (MAILWRIGHT_SOAK_MINUTES) of everything at once.
soak: install
	$(VENV)/pytest tests/soak -v -o addopts=--strict-markers

# Hostile input for as long as MAILWRIGHT_FUZZ_EXAMPLES (500) takes: seven minutes.
fuzz: test-tools
	MAILWRIGHT_FUZZ_EXAMPLES=$${MAILWRIGHT_FUZZ_EXAMPLES:-500} $(VENV)/pytest tests/hostile tests/server/api/test_gate_fuzz.py -v \
		--timeout 3600 -o addopts="--strict-markers -p no:schemathesis"

# Voices that are bad on purpose, each caught by its own figure; records their answers for `make test`. About an hour.
bench-proof: install
	$(VENV)/python -m tests.proof.bench

# `trl sft` beside `trainer sft` on the same emails: tokens per second, memory, losses. Half an hour.
bench-train: install
	$(VENV)/python -m tests.trainer.bench

# Adapters beside vLLM's own LoRA and beside a server without any, at two ways of binding threads. About an hour.
bench-serve: install
	$(VENV)/python -m tests.server.bench

# 1 to 1,000 published adapters on one server; 10 GB of disk while it runs.
bench-many: install
	$(VENV)/python -m tests.server.bench_many

# What a request takes longer than in vLLM's own server, on a tiny model.
bench-gate: install
	$(VENV)/python -m tests.server.bench_gate

# Beside llama.cpp, which is built first, for some minutes; nothing else needs it. BASE: another base model; GGUF:
# its file, where the catalog has none. With AMX, this version of llama.cpp ends with an illegal instruction (tilezero).
NO_AMX := -mno-amx-tile -mno-amx-int8 -mno-amx-bf16
WITHOUT_AMX := $(if $(filter x86_64,$(shell uname -m)),CFLAGS="$(NO_AMX)" CXXFLAGS="$(NO_AMX)")
bench-llama: install
	$(WITHOUT_AMX) $(VENV)/pip install --quiet --no-deps --no-cache-dir llama-cpp-python==0.3.36 diskcache==5.6.3
	$(VENV)/python -m tests.server.bench_llama $(if $(BASE),--base $(BASE)) $(if $(GGUF),--gguf $(GGUF))

# Tokens a second by clients, adapters in a batch, rank and prompt length. A quarter of an hour.
bench-growth: install
	$(VENV)/python -m tests.server.bench_growth

# What a busy program, the server and the trainer take from one another. Seven minutes.
bench-neighbours: install
	$(VENV)/python -m tests.bench_neighbours

# The documentation as a site, in build/site; a broken link is an error.
docs: install
	$(VENV)/python deploy/reference_page.py
	NO_MKDOCS_2_WARNING=1 $(VENV)/mkdocs build

check: install
	$(VENV)/ruff format --check .
	$(VENV)/ruff check .
	$(VENV)/mypy
