/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x86 ELF programs (System V ABI, chapter 4 and 5), as far as a kernel needs.  The 32-bit form is widened to
 * the 64-bit one; it is for Multiboot kernels, whose entry is 32-bit too.
 */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "boot/image.h"

#define XEN_ELFNOTE_PHYS32_ENTRY 18

static bool in_file(uint64_t off, uint64_t len, size_t size)
{
	return off <= size && len <= size - off;
}

/* Looks for the PVH entry in one PT_NOTE segment. */
static void parse_notes(const uint8_t *p, uint64_t size, struct elf_program *ret)
{
	while (size >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr n;
		memcpy(&n, p, sizeof(n));
		uint64_t name = align_up(n.n_namesz, 4), desc = align_up(n.n_descsz, 4);
		if (size - sizeof(n) < name || size - sizeof(n) - name < n.n_descsz)
			return;
		const uint8_t *d = p + sizeof(n) + name;
		if (n.n_type == XEN_ELFNOTE_PHYS32_ENTRY && n.n_namesz == 4 &&
		    !memcmp(p + sizeof(n), "Xen", 4) && n.n_descsz >= 4)
			ret->pvh_entry = (uint32_t)le_get(d, 4);
		uint64_t step = min_u64(sizeof(n) + name + desc, size);
		p += step;
		size -= step;
	}
}

static int add_segment(const char *name, const uint8_t *data, size_t size, const Elf64_Phdr *ph,
		       struct elf_program *ret, struct error *err)
{
	if (!ph->p_memsz)
		return 0;
	if (ret->nr == ELF_MAX_SEGMENTS)
		return error_set(err, ENOEXEC, "%s has more than %d loadable segments; it is not a kernel",
				 name, ELF_MAX_SEGMENTS);
	if (!in_file(ph->p_offset, ph->p_filesz, size) || ph->p_filesz > ph->p_memsz)
		return error_set(err, ENOEXEC,
				 "%s is truncated: a segment of it lies past its end; copy it again", name);
	if (ph->p_paddr + ph->p_memsz < ph->p_paddr)
		return error_set(err, ENOEXEC,
				 "%s asks to be loaded at the impossible address 0x%llx; it is not a kernel",
				 name, (unsigned long long)ph->p_paddr);
	ret->seg[ret->nr++] = (struct elf_segment){
		.paddr = ph->p_paddr,
		.memsz = ph->p_memsz,
		.data = data + ph->p_offset,
		.filesz = ph->p_filesz,
	};
	ret->start = min_u64(ret->start, ph->p_paddr);
	ret->end = max_u64(ret->end, ph->p_paddr + ph->p_memsz);
	return 0;
}

static void widen_header(const uint8_t *data, Elf64_Ehdr *eh)
{
	Elf32_Ehdr e;

	memcpy(&e, data, sizeof(e));
	eh->e_machine = e.e_machine;
	eh->e_entry = e.e_entry;
	eh->e_phoff = e.e_phoff;
	eh->e_phnum = e.e_phnum;
	eh->e_phentsize = e.e_phentsize;
}

static void program_header(const uint8_t *p, bool wide, Elf64_Phdr *ret)
{
	Elf32_Phdr h;

	if (wide) {
		memcpy(ret, p, sizeof(*ret));
		return;
	}
	memcpy(&h, p, sizeof(h));
	*ret = (Elf64_Phdr){ .p_type = h.p_type,
			     .p_offset = h.p_offset,
			     .p_vaddr = h.p_vaddr,
			     .p_paddr = h.p_paddr,
			     .p_filesz = h.p_filesz,
			     .p_memsz = h.p_memsz };
}

int elf_parse(const char *name, const uint8_t *data, size_t size, struct elf_program *ret, struct error *err)
{
	Elf64_Ehdr eh;
	if (size < sizeof(eh))
		return error_set(err, ENOEXEC, "%s is truncated: it has only %zu bytes; copy it again", name,
				 size);
	memcpy(&eh, data, sizeof(eh));
	bool wide = eh.e_ident[EI_CLASS] == ELFCLASS64;
	size_t phsize = wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
	if (eh.e_ident[EI_CLASS] == ELFCLASS32)
		widen_header(data, &eh);
	if ((!wide && eh.e_ident[EI_CLASS] != ELFCLASS32) || eh.e_ident[EI_DATA] != ELFDATA2LSB ||
	    eh.e_machine != (wide ? EM_X86_64 : EM_386))
		return error_set(err, ENOEXEC, "%s is an ELF file, but not for x86; give an x86-64 kernel",
				 name);
	if (eh.e_phentsize != phsize || !in_file(eh.e_phoff, (uint64_t)eh.e_phnum * phsize, size))
		return error_set(err, ENOEXEC,
				 "%s is truncated: its program headers are missing; copy it again", name);
	*ret = (struct elf_program){ .start = UINT64_MAX, .entry = eh.e_entry };
	for (unsigned i = 0; i < eh.e_phnum; i++) {
		Elf64_Phdr ph;
		program_header(data + eh.e_phoff + i * phsize, wide, &ph);
		if (wide && ph.p_type == PT_NOTE && in_file(ph.p_offset, ph.p_filesz, size))
			parse_notes(data + ph.p_offset, ph.p_filesz, ret);
		if (ph.p_type != PT_LOAD)
			continue;
		int r = add_segment(name, data, size, &ph, ret, err);
		if (r)
			return r;
	}
	if (!ret->nr)
		return error_set(err, ENOEXEC, "%s has nothing to load; give a kernel (vmlinux or bzImage)",
				 name);
	bool entered = false;
	uint64_t entry = ret->pvh_entry ? ret->pvh_entry : ret->entry;
	for (unsigned i = 0; i < ret->nr; i++)
		entered |= entry >= ret->seg[i].paddr && entry - ret->seg[i].paddr < ret->seg[i].memsz;
	if (!entered)
		return error_set(
		    err, ENOEXEC,
		    "%s has its entry 0x%llx outside what it loads; it is a program, not a kernel", name,
		    (unsigned long long)entry);
	return 0;
}
