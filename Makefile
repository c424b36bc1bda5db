# SPDX-License-Identifier: MIT
# The user's verbs. ./setup VERB installs what is missing first.
#   make build        build/anykvm and build/libanykvm.so
#   make run          boot Debian's kernel in QEMU on anykvm to a shell (without a terminal: power off)
#   make check        all tests, under 20 minutes on two cores
#   make check-long   the long sweeps
#   make check-selftests  Linux's KVM selftests, as Intel and as AMD: build/selftests.tsv [ONLY=name,name]
#   make check-api-host   by hand, with a real /dev/kvm: the answers in which anykvm differs
#   make bench-paste  its last results into README.md
#   make bench        anykvm beside QEMU's TCG and native: build/bench/results.tsv and .svg [ONLY=name,name]
#   make install      DESTDIR and PREFIX are honoured
#   make format       clang-format over the tree
PREFIX ?= /usr/local
BUILD ?= build
MESON_FLAGS ?=

.PHONY: build run check check-long check-selftests check-api-host bench bench-paste install format clean need-build need-run need-bench need-check need-long
.DEFAULT_GOAL := build

need-build:
	@sh tools/need build
need-run: need-build
	@sh tools/need run
need-bench: need-run
	@sh tools/need bench
need-check: need-run
	@sh tools/need check
need-long: need-check
	@sh tools/need long

$(BUILD)/build.ninja: | need-build
	@meson setup $(BUILD) --prefix $(PREFIX) $(MESON_FLAGS) >/dev/null || { cat $(BUILD)/meson-logs/meson-log.txt; exit 1; }

build: need-build $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet

run: need-run
	@sh tools/boot-demo $(BUILD)

check: need-check build
	@python3 tests/check.py --build $(BUILD)

check-long: need-long build
	@python3 tests/check.py --build $(BUILD) --long

check-selftests: need-check build
	@python3 tests/selftests/run.py --build $(BUILD) $(if $(ONLY),--only $(ONLY))

check-api-host: need-check build
	@sh tests/api/host.sh $(BUILD)

bench: need-bench build
	@python3 bench/bench.py --build $(BUILD) $(if $(ONLY),--only $(ONLY))

bench-paste:
	@python3 bench/paste.py $(BUILD)/bench/results.tsv README.md

install: build
	@meson install -C $(BUILD) --no-rebuild

format: need-check
	@git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	rm -rf $(BUILD)
