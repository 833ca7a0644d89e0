/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/pci/sg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

static int make_room(struct sg *s)
{
	unsigned room = s->room ? 2 * s->room : 16;
	struct iovec *p;

	if (s->nr < s->room)
		return 0;
	if (s->nr >= SG_MAX)
		return -E2BIG;
	p = realloc(s->iov, room * sizeof(*p));
	if (!p)
		return -ENOMEM;
	s->iov = p;
	s->room = room;
	return 0;
}

int sg_add(struct sg *s, struct pci_device *d, gpa_t gpa, uint64_t len)
{
	uint8_t *p = pci_dma_ptr(d, gpa, len);
	struct iovec *last = s->nr ? &s->iov[s->nr - 1] : NULL;
	int r;

	if (!p)
		return -EFAULT;
	if (last && (uint8_t *)last->iov_base + last->iov_len == p) {
		last->iov_len += len;
		s->len += len;
		return 0;
	}
	r = make_room(s);
	if (r)
		return r;
	s->iov[s->nr++] = (struct iovec){ p, len };
	s->len += len;
	return 0;
}

struct iovec *sg_copy(const struct sg *s)
{
	struct iovec *p = malloc(s->nr * sizeof(*p));

	if (p)
		memcpy(p, s->iov, s->nr * sizeof(*p));
	return p;
}

void sg_written(const struct sg *s, struct pci_device *d, uint64_t len)
{
	struct mem *m = pci_board(d)->mem;

	for (unsigned i = 0; i < s->nr && len; i++) {
		uint64_t n = min_u64(s->iov[i].iov_len, len);

		mem_written(m, mem_ptr_to_gpa(m, s->iov[i].iov_base), n);
		len -= n;
	}
}

void sg_cut(struct sg *s, uint64_t len)
{
	uint64_t at = 0;

	for (unsigned i = 0; i < s->nr; i++) {
		if (at + s->iov[i].iov_len < len) {
			at += s->iov[i].iov_len;
			continue;
		}
		s->iov[i].iov_len = len - at;
		s->nr = i + (s->iov[i].iov_len ? 1 : 0);
		s->len = len;
		return;
	}
}

void sg_free(struct sg *s)
{
	free(s->iov);
	*s = (struct sg){ 0 };
}
