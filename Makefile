# A thin front for cmake. Everything it makes is under build/.

MAKEFLAGS += --no-print-directory

BUILD  := build
JOBS   := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
PREFIX ?= /usr/local
CMAKE  := cmake -Wno-dev --log-level=WARNING

.PHONY: all demo example-train test bench format asan tsan fuzz install clean help

all: $(BUILD)/CMakeCache.txt
	@cmake --build $(BUILD) --parallel $(JOBS)

$(BUILD)/CMakeCache.txt:
	@$(CMAKE) -S . -B $(BUILD) -DATTN_TESTS=OFF -DCMAKE_INSTALL_PREFIX=$(PREFIX) > /dev/null

demo: all
	@scripts/demo.sh $(BUILD)/bin/attn

# Threads that wait sleep: spinning, as OpenMP does by itself, takes ten times as long on a busy machine.
example-train: $(BUILD)/CMakeCache.txt
	@cmake --build $(BUILD) --parallel $(JOBS) --target example_train
	@OMP_WAIT_POLICY=passive $(BUILD)/bin/train examples/train/alice.txt --compare --csv $(BUILD)/train.csv --svg $(BUILD)/train.svg

test:
	@scripts/test.sh

bench: all
	@$(BUILD)/bin/attn bench bench/shapes/cpu_*.txt

format:
	@scripts/format.sh

asan tsan fuzz:
	@scripts/test.sh $@

install: all
	@cmake --install $(BUILD) --prefix $(PREFIX)

clean:
	@rm -rf $(BUILD)

help:
	@echo "make          build/bin/attn, build/lib/libattn.so and .a"
	@echo "make demo     attention of a real model, then a sequence whose scores would take 17 GB"
	@echo "make example-train  a transformer learns to write, with libattn and with standard attention"
	@echo "make test     everything that this machine can test"
	@echo "make bench    speed at the shapes of bench/shapes/cpu_*.txt"
	@echo "make format   clang-format over all sources, in place"
	@echo "make asan     tests under the address and undefined-behaviour sanitizers"
	@echo "make tsan     tests under the thread sanitizer"
	@echo "make fuzz     fuzz targets, FUZZ_SECONDS=60 each"
	@echo "make install  PREFIX=/usr/local"
	@echo "make clean    remove build/"
