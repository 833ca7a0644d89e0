/* SPDX-License-Identifier: Apache-2.0 */
/* Scatter-gather lists that a guest describes piece by piece: pointers into its RAM, for block requests. */
#ifndef SILL_DEV_PCI_SG_H
#define SILL_DEV_PCI_SG_H

#include <sys/uio.h>

#include "dev/pci/pci.h"

#define SG_MAX 16384u /* pieces; what is adjacent counts as one */

/* Zero-initialise. */
struct sg {
	struct iovec *iov;
	unsigned nr, room;
	uint64_t len; /* sum */
};

/* Adds [gpa, gpa + len). 0, -EFAULT (not RAM, or no bus mastering), -E2BIG or -ENOMEM. */
int sg_add(struct sg *s, struct pci_device *d, gpa_t gpa, uint64_t len);
/* A copy for who alters it (block requests do); free() it. NULL: no memory. The list is not empty. */
struct iovec *sg_copy(const struct sg *s);
/* Tells src/mem that the first len bytes were written. */
void sg_written(const struct sg *s, struct pci_device *d, uint64_t len);
/* Cuts the list to its first len bytes. */
void sg_cut(struct sg *s, uint64_t len);
void sg_free(struct sg *s);

#endif
