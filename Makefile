# SPDX-License-Identifier: Apache-2.0
# A thin front for meson and the scripts in tools/.

BUILD := build

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD)

$(BUILD)/build.ninja:
	@meson setup $(BUILD) -Dtests=disabled

deps:
	@tools/deps

# What people type first does all of the set-up by itself.
run:
	@tools/deps run
	@$(MAKE) --no-print-directory all
	@tools/run-guest

test:
	@tools/deps test
	@tools/run-tests

bench:
	@tools/deps bench
	@$(MAKE) --no-print-directory all
	@bench/run

install: all
	@meson install -C $(BUILD)

format:
	@find src fuzz tests -name "*.[ch]" -print0 | xargs -0 clang-format -i

clean:
	@rm -rf $(BUILD)

.PHONY: all deps run test bench install format clean
