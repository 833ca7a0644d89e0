/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/bt/stress.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* "NAME=number", the number in [1, max]. 0: it is not that. */
static unsigned number(const char *word, const char *name, unsigned max)
{
	size_t n = strlen(name);
	char *end;
	unsigned long v;

	if (strncmp(word, name, n) != 0 || word[n] != '=')
		return 0;
	v = strtoul(word + n + 1, &end, 10);
	return *end || v < 1 || v > max ? 0 : (unsigned)v;
}

int stress_parse(const char *list, struct stress *ret, struct error *err)
{
	char *copy, *save = NULL;
	int r = 0;

	*ret = (struct stress){ 0 };
	copy = strdup(list ? list : "");
	if (!copy)
		return error_set(err, ENOMEM, "out of memory");
	for (char *w = strtok_r(copy, ",", &save); w && !r; w = strtok_r(NULL, ",", &save)) {
		unsigned n;

		if (!strcmp(w, "direct"))
			ret->direct = true;
		else if (!strcmp(w, "tier-flip"))
			ret->tier_flip = true;
		else if (!strcmp(w, "one-insn"))
			ret->one_insn = true;
		else if (!strcmp(w, "flush"))
			ret->flush = true;
		else if (!strcmp(w, "tiny-tlb"))
			ret->tiny_tlb = true;
		else if ((n = number(w, "vma-cap", 1u << 16)))
			ret->vma_cap = n;
		else if ((n = number(w, "kick", 1000000)))
			ret->kick_us = n;
		else
			r = error_set(err, EINVAL,
				      "--stress %s: not known; give a list of direct, tier-flip, vma-cap=N, "
				      "one-insn, flush, tiny-tlb, kick=MICROSECONDS",
				      w);
	}
	free(copy);
	return r;
}
