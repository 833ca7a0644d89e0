/* SPDX-License-Identifier: Apache-2.0 */
#include "base/iov.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

size_t iov_size(const struct iovec *iov, unsigned cnt)
{
	size_t sum = 0;

	for (unsigned i = 0; i < cnt; i++)
		sum += iov[i].iov_len;
	return sum;
}

static size_t iov_copy(const struct iovec *iov, unsigned cnt, size_t offset, uint8_t *buf, size_t len,
		       bool in)
{
	size_t done = 0;

	for (unsigned i = 0; i < cnt && done < len; i++) {
		size_t n = iov[i].iov_len;
		uint8_t *p;

		if (offset >= n) {
			offset -= n;
			continue;
		}
		p = (uint8_t *)iov[i].iov_base + offset;
		n -= offset;
		offset = 0;
		if (n > len - done)
			n = len - done;
		if (in)
			memcpy(p, buf + done, n);
		else
			memcpy(buf + done, p, n);
		done += n;
	}
	return done;
}

size_t iov_to_buf(const struct iovec *iov, unsigned cnt, size_t offset, void *buf, size_t len)
{
	return iov_copy(iov, cnt, offset, buf, len, false);
}

size_t iov_from_buf(const struct iovec *iov, unsigned cnt, size_t offset, const void *buf, size_t len)
{
	return iov_copy(iov, cnt, offset, (uint8_t *)(uintptr_t)buf, len, true);
}

size_t iov_cut_front(struct iovec **iov, unsigned *cnt, size_t len)
{
	size_t cut = 0;

	while (*cnt && cut < len) {
		size_t n = len - cut;

		if (n < (*iov)->iov_len) {
			(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + n;
			(*iov)->iov_len -= n;
			return len;
		}
		cut += (*iov)->iov_len;
		(*iov)++;
		(*cnt)--;
	}
	return cut;
}

size_t iov_cut_back(struct iovec *iov, unsigned *cnt, size_t len)
{
	size_t cut = 0;

	while (*cnt && cut < len) {
		struct iovec *last = &iov[*cnt - 1];
		size_t n = len - cut;

		if (n < last->iov_len) {
			last->iov_len -= n;
			return len;
		}
		cut += last->iov_len;
		(*cnt)--;
	}
	return cut;
}
