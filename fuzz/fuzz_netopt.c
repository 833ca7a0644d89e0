/* SPDX-License-Identifier: Apache-2.0 */
/* The parser of `user,hostfwd=...`. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/net.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct net_user_config c = { .nr_fwd = 12345 };
	struct error err = { "" };
	char *text = malloc(size + 1);
	int rc;

	if (!text)
		abort();
	if (size)
		memcpy(text, data, size);
	text[size] = 0;
	rc = net_user_parse(text, &c, &err);
	/* Either all of it and within bounds, or a sentence and nothing. */
	if (rc ? c.nr_fwd != 12345 || !err.message[0] : c.nr_fwd > NET_USER_MAX_FWD)
		abort();
	for (unsigned i = 0; !rc && i < c.nr_fwd; i++)
		if (!c.fwd[i].host_port || !c.fwd[i].guest_port)
			abort();
	free(text);
	return 0;
}
