/* SPDX-License-Identifier: Apache-2.0 */
/* What a kernel file says of itself; the parser does not touch the guest. */
#ifndef SILL_BOOT_IMAGE_H
#define SILL_BOOT_IMAGE_H

#include "boot/boot.h"

/* Linux setup header (Documentation/arch/x86/boot.rst), as offsets in the file and in boot_params. */
#define SETUP_SECTS      0x1f1
#define SETUP_BOOT_FLAG  0x1fe
#define SETUP_JUMP       0x200
#define SETUP_MAGIC      0x202 /* "HdrS" */
#define SETUP_VERSION    0x206
#define SETUP_LOADER     0x210
#define SETUP_LOADFLAGS  0x211
#define SETUP_RAMDISK    0x218
#define SETUP_RAMDISK_SZ 0x21c
#define SETUP_CMDLINE    0x228
#define SETUP_INITRD_MAX 0x22c
#define SETUP_RELOC      0x234
#define SETUP_XLOADFLAGS 0x236
#define SETUP_CMDLINE_SZ 0x238
#define SETUP_PAYLOAD    0x248
#define SETUP_PAYLOAD_SZ 0x24c
#define SETUP_PREF_ADDR  0x258
#define SETUP_INIT_SIZE  0x260
#define SETUP_END_MAX    0x290 /* where the header may reach at most: edd_mbr_sig_buffer follows */

#define LOADFLAG_HIGH  0x01 /* the protected-mode part goes to 1 MiB or above */
#define LOADFLAG_KASLR 0x02
#define XLOADFLAG_64   0x0001
#define XLOADFLAG_HIGH 0x0002 /* may be given an initrd above 4 GiB */

#define BOOT_MAX_MODULES 15u

/* A file that goes into the guest's memory beside the kernel. */
struct boot_file {
	char *name;
	char *args; /* Multiboot modules: follow the name in the module's string; NULL: none */
	int fd;     /* -1: none */
	uint64_t size;
};

struct boot_image {
	char *name; /* of the kernel file, for messages */
	struct boot_file initrd;
	struct boot_file modules[BOOT_MAX_MODULES];
	unsigned nr_modules;

	int fd; /* of the kernel file; -1: it came from memory */
	uint64_t file_size;
	uint8_t *file; /* what is in it, unpacked; NULL between boots */
	size_t size;

	bool is_elf, is_multiboot;
	bool is_32; /* bzImage with a 32-bit entry only */
	struct multiboot {
		size_t offset; /* of the header in the file */
		uint32_t flags;
		uint32_t header_addr, load_addr, load_end, bss_end, entry; /* with the address fields */
	} multiboot;
	/* bzImage */
	uint16_t version;
	size_t kernel_off, kernel_size;   /* the protected-mode part */
	size_t payload_off, payload_size; /* in file; size 0: none known */
	uint64_t pref_addr, init_size;
	size_t header_end;
	/* both; ELF: defaults of a 64-bit Linux */
	uint32_t cmdline_max, initrd_max;
};

/* Reads the first size bytes of a file. 0, -errno, or -ENODATA: it is shorter. */
int boot_read_all(int fd, uint8_t *p, uint64_t size);
/* In words, what it returned instead of 0. */
const char *boot_read_problem(int r);

/* Has what is in the file there (if it is not) and checked. 0 or -errno with a sentence. */
int boot_image_read(struct boot_image *b, struct error *err);
/* Forgets it, if it can be read again. */
void boot_image_drop(struct boot_image *b);

/* A program to load, pointing into an ELF file in memory. */
#define ELF_MAX_SEGMENTS 16
struct elf_program {
	struct elf_segment {
		uint64_t paddr, memsz;
		const uint8_t *data;
		uint64_t filesz;
	} seg[ELF_MAX_SEGMENTS];
	unsigned nr;
	uint64_t start, end; /* physical, [start, end) */
	uint64_t entry;      /* 64-bit entry, physical */
	uint32_t pvh_entry;  /* 0: no note */
};

/*
 * Reads a 64-bit or 32-bit file; a 32-bit one has no note. 0 or -ENOEXEC with
 * why. name: for the message.
 */
int elf_parse(const char *name, const uint8_t *data, size_t size, struct elf_program *ret, struct error *err);

/*
 * Decompresses a bzImage's payload, which names its own size in its last four
 * bytes, or a file in gzip's format. *ret is malloc'd. 0, -ENOTSUP (unknown compression) or -EINVAL (damaged)
 * or -ENOMEM.
 */
int boot_decompress(const uint8_t *data, size_t size, uint8_t **ret, size_t *ret_size);

/* Has the file a Multiboot header? */
bool multiboot_find(const uint8_t *data, size_t size, struct multiboot *ret);
/* What to load of it. 0 or -errno with why. */
int multiboot_parse(const char *name, const uint8_t *data, size_t size, const struct multiboot *mb,
		    struct elf_program *ret, struct error *err);

/* ---- loading, shared by the ways of booting (linux.c) ---- */

struct boot_memory_map {
	struct {
		uint64_t addr, size;
		uint32_t type; /* 1 RAM, 2 reserved: the same in E820, PVH and Multiboot */
	} at[8];
	unsigned nr;
};
struct boot_memory_map boot_memory_map(const struct mem *m);
/* Puts a file as high as it goes between kernel_end and *limit, which becomes its address. */
int boot_load_file(struct mem *m, const struct boot_image *b, const struct boot_file *f, uint64_t kernel_end,
		   uint64_t *limit, struct error *err);
/* The initrd, as high as the kernel can take it; *ret_addr 0: there is none. */
int boot_load_initrd(struct mem *m, const struct boot_image *b, uint64_t kernel_end, uint64_t *ret_addr,
		     struct error *err);
int boot_load_program(struct mem *m, const struct boot_image *b, const struct elf_program *p,
		      struct error *err);
/* Flat 32-bit protected mode without paging, all general registers 0. */
void boot_enter_32(struct x86_state *s, uint32_t entry);
int boot_multiboot(struct mem *m, const struct boot_image *b, const struct boot_config *c,
		   struct x86_state *s, struct error *err);

static inline uint64_t le_get(const uint8_t *p, unsigned size)
{
	uint64_t v = 0;
	for (unsigned i = 0; i < size; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

static inline void le_put(uint8_t *p, uint64_t v, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

#endif
