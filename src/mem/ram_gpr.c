/* SPDX-License-Identifier: Apache-2.0 */
/* From guest-physical address to RAM and back. Translated code comes here, so: general-regs-only. */
#include "mem/mem_internal.h"

uint64_t mem_ram_offset(const struct mem *m, uint64_t gpa, uint64_t len)
{
	uint64_t high = m->ram_size - m->low_size;

	if (gpa < m->low_size)
		return len <= m->low_size - gpa ? gpa : UINT64_MAX;
	if (gpa >= HIGH_BASE && gpa - HIGH_BASE < high && len <= high - (gpa - HIGH_BASE))
		return m->low_size + (gpa - HIGH_BASE);
	return UINT64_MAX;
}

bool mem_is_ram(const struct mem *m, gpa_t gpa)
{
	return mem_ram_offset(m, gpa.v, 1) != UINT64_MAX;
}

void *mem_ram_ptr(struct mem *m, gpa_t gpa, uint64_t len)
{
	uint64_t off = mem_ram_offset(m, gpa.v, len);

	return off == UINT64_MAX ? NULL : m->ram + off;
}

uint8_t *mem_page_flags(struct mem *m, const void *p)
{
	return &m->flags[(uint64_t)((const uint8_t *)p - m->ram) / PAGE_SIZE];
}

gpa_t mem_ptr_to_gpa(struct mem *m, const void *p)
{
	uint64_t off = (uint64_t)((const uint8_t *)p - m->ram);

	return GPA(off < m->low_size ? off : off - m->low_size + HIGH_BASE);
}
