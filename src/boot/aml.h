/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small emitter of ACPI Machine Language (ACPI 6.4 chapter 20).
 *
 * A scope-like term is opened and closed; its package length is patched in when
 * it closes, always in the four-byte form, which AML allows for any length.
 * Emission past the end of the buffer is dropped and remembered in `overflow`.
 */
#ifndef SILL_BOOT_AML_H
#define SILL_BOOT_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AML_DEPTH 8

struct aml {
	uint8_t *buf;
	size_t len, cap;
	size_t open[AML_DEPTH]; /* where the package lengths of open terms lie */
	unsigned depth;
	bool overflow;
};

void aml_byte(struct aml *a, uint8_t v);
void aml_bytes(struct aml *a, const void *p, size_t n);
/* A path such as "PCI0", "_SB_.PCI0" or "\\_SB_": segments of exactly four characters. */
void aml_name_string(struct aml *a, const char *path);
void aml_integer(struct aml *a, uint64_t v);
void aml_string(struct aml *a, const char *s);
/* The integer that stands for a PNP id such as "PNP0A03". */
void aml_eisa_id(struct aml *a, const char *id);

void aml_scope(struct aml *a, const char *path);
void aml_device(struct aml *a, const char *name);
void aml_method(struct aml *a, const char *name, unsigned nr_args);
void aml_if_name(struct aml *a, const char *name); /* If (name) */
void aml_package(struct aml *a, unsigned nr_elements);
void aml_close(struct aml *a); /* the term opened last */

/* Name (name, ...): the object follows. */
void aml_name(struct aml *a, const char *name);
void aml_name_integer(struct aml *a, const char *name, uint64_t v);
void aml_return_name(struct aml *a, const char *name);

/* Resource templates (ACPI 6.4 §6.4): crs opens Name (_CRS, Buffer {...}), descriptors follow, end closes. */
void aml_crs(struct aml *a);
void aml_crs_end(struct aml *a);
void aml_io(struct aml *a, uint16_t base, uint8_t len);
void aml_irq(struct aml *a, unsigned irq);
void aml_dma(struct aml *a, unsigned channel);
void aml_memory32(struct aml *a, uint32_t base, uint32_t len);
void aml_bus_range(struct aml *a, uint16_t first, uint16_t last);
void aml_io_window(struct aml *a, uint16_t first, uint16_t last);
void aml_memory_window32(struct aml *a, uint32_t first, uint32_t last);
void aml_memory_window64(struct aml *a, uint64_t first, uint64_t last);

#endif
