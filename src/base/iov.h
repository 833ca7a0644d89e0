/* SPDX-License-Identifier: Apache-2.0 */
/* Scatter-gather lists: sums, copies and cuts. None of them reads or writes beyond what the list describes.
 */
#ifndef SILL_BASE_IOV_H
#define SILL_BASE_IOV_H

#include <stddef.h>
#include <sys/uio.h>

/* Sum of the lengths. */
size_t iov_size(const struct iovec *iov, unsigned cnt);
/* Copies up to len bytes from offset on, out of or into the list. Returns the number copied: less at its end.
 */
size_t iov_to_buf(const struct iovec *iov, unsigned cnt, size_t offset, void *buf, size_t len);
size_t iov_from_buf(const struct iovec *iov, unsigned cnt, size_t offset, const void *buf, size_t len);
/* Cuts up to len bytes off the front or the back, altering the list in place. Returns the number cut. */
size_t iov_cut_front(struct iovec **iov, unsigned *cnt, size_t len);
size_t iov_cut_back(struct iovec *iov, unsigned *cnt, size_t len);

#endif
