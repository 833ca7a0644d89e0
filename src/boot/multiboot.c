/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels that follow the Multiboot specification, version 0.6.96 ("Multiboot 1").
 *
 * A header within the first 8 KiB says so.  The kernel is an ELF file (32-bit, or
 * 64-bit with a 32-bit entry), or of any format if the header itself says where
 * the file goes ("address fields").  It is entered in flat 32-bit protected mode
 * without paging; EAX has a magic number, EBX the address of what it is told:
 * command line, memory map, modules (the initrd is the last of them).
 *
 * All that lies at INFO_ADDR, at the end of low memory, because kernels of this
 * kind are linked anywhere, below 1 MiB too.
 */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "boot/image.h"
#include "x86/state.h"

#define SEARCH       8192
#define HEADER_MAGIC 0x1badb002u
#define BOOT_MAGIC   0x2badb002u

/* Header flags: what the kernel cannot do without (0..15), what it has (16 on). */
#define WANTS_MASK  0x0000fff8u /* other than page-aligned modules, memory information, a video mode */
#define HAS_ADDRESS 0x00010000u

/* struct multiboot_info, and its flags */
#define INFO_ADDR    0x90000u
#define INFO_END     0x9f000u
#define STACK        0x9fc00u /* grows down; the end of low memory */
#define INFO_LOADER  0x0220u
#define INFO_MAP     0x0240u
#define INFO_MODULE  0x0300u /* BOOT_MAX_MODULES + 1 of 16 bytes */
#define INFO_CMDLINE 0x0400u
#define INFO_MEMORY  0x001u
#define INFO_HAS_CMD 0x004u
#define INFO_MODULES 0x008u
#define INFO_HAS_MAP 0x040u
#define INFO_NAME    0x200u

bool multiboot_find(const uint8_t *data, size_t size, struct multiboot *ret)
{
	for (size_t at = 0; at + 12 <= size && at + 12 <= SEARCH; at += 4) {
		const uint8_t *h = data + at;
		uint32_t flags = (uint32_t)le_get(h + 4, 4);

		if (le_get(h, 4) != HEADER_MAGIC || (uint32_t)(HEADER_MAGIC + flags + le_get(h + 8, 4)))
			continue;
		*ret = (struct multiboot){ .offset = at, .flags = flags };
		if (!(flags & HAS_ADDRESS))
			return true;
		if (size - at < 32)
			continue;
		ret->header_addr = (uint32_t)le_get(h + 12, 4);
		ret->load_addr = (uint32_t)le_get(h + 16, 4);
		ret->load_end = (uint32_t)le_get(h + 20, 4);
		ret->bss_end = (uint32_t)le_get(h + 24, 4);
		ret->entry = (uint32_t)le_get(h + 28, 4);
		return true;
	}
	return false;
}

/* The one segment that the address fields describe (specification, 3.1.3). */
static int by_address(const char *name, const uint8_t *data, size_t size, const struct multiboot *mb,
		      struct elf_program *ret, struct error *err)
{
	uint64_t skip = mb->header_addr - (uint64_t)mb->load_addr, first, filesz, memsz;

	if (mb->load_addr > mb->header_addr || skip > mb->offset)
		return error_set(
		    err, ENOEXEC,
		    "%s has a Multiboot header whose addresses contradict each other; rebuild it", name);
	first = mb->offset - skip;
	filesz = mb->load_end ? mb->load_end - (uint64_t)mb->load_addr : size - first;
	memsz = mb->bss_end ? mb->bss_end - (uint64_t)mb->load_addr : filesz;
	if ((mb->load_end && mb->load_end < mb->load_addr) || (mb->bss_end && memsz < filesz) ||
	    filesz > size - first)
		return error_set(
		    err, ENOEXEC,
		    "%s is shorter than its Multiboot header says, or the header is wrong; copy it again",
		    name);
	*ret = (struct elf_program){
		.nr = 1, .start = mb->load_addr, .end = mb->load_addr + memsz, .entry = mb->entry
	};
	ret->seg[0] = (struct elf_segment){ mb->load_addr, memsz, data + first, filesz };
	return 0;
}

int multiboot_parse(const char *name, const uint8_t *data, size_t size, const struct multiboot *mb,
		    struct elf_program *ret, struct error *err)
{
	if (mb->flags & WANTS_MASK)
		return error_set(err, ENOTSUP,
				 "%s asks its boot loader for features that Sill does not know (flags 0x%x)",
				 name, mb->flags & WANTS_MASK);
	if (mb->flags & HAS_ADDRESS)
		return by_address(name, data, size, mb, ret, err);
	return elf_parse(name, data, size, ret, err);
}

static void put_map(const struct mem *m, uint8_t *info)
{
	struct boot_memory_map map = boot_memory_map(m);

	for (unsigned i = 0; i < map.nr; i++) {
		uint8_t *e = info + INFO_MAP + i * 24;

		le_put(e, 20, 4); /* of what follows */
		le_put(e + 4, map.at[i].addr, 8);
		le_put(e + 12, map.at[i].size, 8);
		le_put(e + 20, map.at[i].type, 4);
	}
	le_put(info + 44, map.nr * 24, 4);
	le_put(info + 48, INFO_ADDR + INFO_MAP, 4);
}

/* Appends a string; its guest-physical address, or 0 if it does not fit. */
static uint32_t put_string(uint8_t *info, uint32_t *at, const char *a, const char *b)
{
	size_t na = strlen(a), nb = strlen(b), n = na + (nb ? 1 + nb : 0) + 1;
	uint32_t where = *at;

	if (n > INFO_END - INFO_ADDR - where)
		return 0;
	memcpy(info + where, a, na);
	if (nb) {
		info[where + na] = ' ';
		memcpy(info + where + na + 1, b, nb);
	}
	*at += (uint32_t)n;
	return INFO_ADDR + where;
}

/* One module at *at or above: the file, its entry in the table and its string. */
static int load_module(struct mem *m, const struct boot_image *b, const struct boot_file *f, uint64_t *at,
		       uint8_t *info, uint32_t *strings, struct error *err)
{
	uint32_t nr = (uint32_t)le_get(info + 20, 4), string;
	uint8_t *entry = info + INFO_MODULE + nr * 16;
	uint64_t limit = min_u64(*at + align_up(f->size, PAGE_SIZE), mem_low_ram_size(m));
	int r = boot_load_file(m, b, f, *at, &limit, err);

	if (r)
		return r;
	string = put_string(info, strings, f->name, f->args ? f->args : "");
	if (!string)
		return error_set(err, E2BIG,
				 "the arguments of the module %s are too long; shorten them (--module)",
				 f->name);
	le_put(entry, limit, 4);
	le_put(entry + 4, limit + f->size, 4);
	le_put(entry + 8, string, 4);
	le_put(info + 20, nr + 1, 4);
	le_put(info + 24, INFO_ADDR + INFO_MODULE, 4);
	*at = limit + align_up(f->size, PAGE_SIZE);
	return 0;
}

/*
 * One after the other behind the kernel, as other loaders have them: small kernels map no more than the first
 * few megabytes, or take what follows the last module for the start of free memory.
 */
static int load_modules(struct mem *m, const struct boot_image *b, uint64_t end, uint8_t *info,
			uint32_t *strings, struct error *err)
{
	uint64_t at = align_up(max_u64(end, MIB(1)), PAGE_SIZE);
	int r = 0;

	for (unsigned i = 0; !r && i < b->nr_modules; i++)
		r = load_module(m, b, &b->modules[i], &at, info, strings, err);
	if (!r && b->initrd.fd >= 0)
		r = load_module(m, b, &b->initrd, &at, info, strings, err);
	return r;
}

int boot_multiboot(struct mem *m, const struct boot_image *b, const struct boot_config *c,
		   struct x86_state *s, struct error *err)
{
	_cleanup_free_ uint8_t *info = calloc(1, INFO_END - INFO_ADDR);
	uint32_t strings = INFO_CMDLINE, cmdline;
	struct elf_program p;
	int r;

	if (!info)
		return error_set(err, ENOMEM, "no memory; free some and try again");
	r = multiboot_parse(b->name, b->file, b->size, &b->multiboot, &p, err);
	if (r)
		return r;
	if (p.start < INFO_END && p.end > INFO_ADDR)
		return error_set(
		    err, ENOEXEC,
		    "the kernel %s wants to be loaded over 0x%x, where its boot information goes", b->name,
		    INFO_ADDR);
	r = boot_load_program(m, b, &p, err);
	if (r)
		return r;
	/* Loaders put the kernel's name in front; programs take it for their first argument. */
	cmdline = put_string(info, &strings, b->name, c->cmdline);
	if (!cmdline)
		return error_set(err, E2BIG, "the kernel command line is too long; shorten it (--append)");
	r = load_modules(m, b, p.end, info, &strings, err);
	if (r)
		return r;
	le_put(info,
	       INFO_MEMORY | INFO_HAS_CMD | INFO_HAS_MAP | INFO_NAME |
		   (le_get(info + 20, 4) ? INFO_MODULES : 0),
	       4);
	le_put(info + 4, INFO_END >> 10, 4); /* KiB below 1 MiB and above */
	le_put(info + 8, (mem_low_ram_size(m) - MIB(1)) >> 10, 4);
	le_put(info + 16, cmdline, 4);
	put_map(m, info);
	memcpy(info + INFO_LOADER, "Sill", 5);
	le_put(info + 64, INFO_ADDR + INFO_LOADER, 4);
	r = mem_write(m, GPA(INFO_ADDR), info, INFO_END - INFO_ADDR);
	if (r)
		return error_set(err, ENOMEM, "the VM has too little memory; give it more (--memory)");
	boot_enter_32(s, (uint32_t)p.entry);
	s->gpr[RAX] = BOOT_MAGIC;
	s->gpr[RBX] = INFO_ADDR;
	s->gpr[RSP] =
	    STACK; /* undefined, says the specification, but other loaders' is good for a few calls */
	return 0;
}
