/* SPDX-License-Identifier: Apache-2.0 */
/* A kernel file of any content is refused or loaded, and the loader stays inside the guest's memory. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/util.h"
#include "boot/boot.h"
#include "x86/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct boot_image *b;
	if (boot_image_parse("fuzz", data, size, &b, NULL) < 0)
		return 0;
	struct mutex lock;
	struct mem *m;
	mutex_init(&lock, LOCK_RANK_IO, "io");
	if (mem_new(MIB(32), &lock, &m, NULL) == 0) {
		struct x86_state *s = aligned_alloc(64, sizeof(*s));
		struct boot_config c = { .cmdline = "console=ttyS0" };
		if (s)
			boot_linux(m, b, &c, s, NULL);
		free(s);
		mem_free(m);
	}
	mutex_destroy(&lock);
	boot_image_free(b);
	return 0;
}
