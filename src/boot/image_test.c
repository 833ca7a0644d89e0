/* SPDX-License-Identifier: Apache-2.0 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "base/util.h"
#include "boot/image.h"
#undef PF_W /* elf.h: a segment flag; here: a page-fault bit */
#include "x86/state.h"

struct fixture {
	struct mutex lock;
	struct mem *m;
	struct x86_state *s;
	struct error err;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	mutex_init(&f->lock, LOCK_RANK_IO, "io");
	assert_int_equal(mem_new(MIB(32), &f->lock, &f->m, NULL), 0);
	f->s = aligned_alloc(64, sizeof(*f->s));
	memset(f->s, 0, sizeof(*f->s));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	mem_free(f->m);
	mutex_destroy(&f->lock);
	free(f->s);
	free(f);
	return 0;
}

/* ---- making kernels ---- */

#define LINK_ADDR 0x1000000u

/* An ELF with one segment of code and 0x3000 bytes of memory, with or without the PVH note. */
static size_t make_elf(uint8_t *p, bool pvh)
{
	static const char code[] = "kernel code here";
	struct {
		Elf64_Nhdr n;
		char name[4];
		uint32_t entry, pad;
	} note = { { 4, 8, 18 }, "Xen", LINK_ADDR + 4, 0 };
	Elf64_Ehdr eh = { .e_machine = EM_X86_64,
			  .e_entry = LINK_ADDR + 8,
			  .e_phoff = sizeof(eh),
			  .e_phentsize = sizeof(Elf64_Phdr),
			  .e_phnum = pvh ? 2 : 1 };
	memcpy(eh.e_ident, ELFMAG, SELFMAG);
	eh.e_ident[EI_CLASS] = ELFCLASS64;
	eh.e_ident[EI_DATA] = ELFDATA2LSB;
	Elf64_Phdr load = { .p_type = PT_LOAD,
			    .p_offset = 512,
			    .p_filesz = sizeof(code),
			    .p_paddr = LINK_ADDR,
			    .p_memsz = 0x3000 };
	Elf64_Phdr n = { .p_type = PT_NOTE, .p_offset = 256, .p_filesz = sizeof(note) };
	memset(p, 0, 1024);
	memcpy(p, &eh, sizeof(eh));
	memcpy(p + sizeof(eh), &load, sizeof(load));
	memcpy(p + sizeof(eh) + sizeof(load), &n, sizeof(n));
	memcpy(p + 256, &note, sizeof(note));
	memcpy(p + 512, code, sizeof(code));
	return 1024;
}

/* A bzImage around a payload. */
static size_t make_bzimage(uint8_t *p, const uint8_t *payload, size_t n)
{
	memset(p, 0, 4096);
	p[SETUP_SECTS] = 1;
	le_put(p + SETUP_BOOT_FLAG, 0xaa55, 2);
	p[SETUP_JUMP] = 0xeb;
	p[SETUP_JUMP + 1] = 0x6a;
	memcpy(p + SETUP_MAGIC, "HdrS", 4);
	le_put(p + SETUP_VERSION, 0x20f, 2);
	p[SETUP_LOADFLAGS] = 1 | LOADFLAG_KASLR;
	le_put(p + SETUP_XLOADFLAGS, XLOADFLAG_64, 2);
	le_put(p + SETUP_CMDLINE_SZ, 255, 4);
	le_put(p + SETUP_INITRD_MAX, 0x7fffffff, 4);
	le_put(p + SETUP_PAYLOAD, 0x400, 4);
	le_put(p + SETUP_PAYLOAD_SZ, n, 4);
	le_put(p + SETUP_PREF_ADDR, LINK_ADDR, 8);
	le_put(p + SETUP_INIT_SIZE, 0x100000, 4);
	memcpy(p + 1024 + 0x400, payload, n);
	return 1024 + 0x400 + n;
}

static struct boot_image *parse(struct fixture *f, const uint8_t *p, size_t n)
{
	struct boot_image *b = NULL;
	if (boot_image_parse("test-kernel", p, n, &b, &f->err) < 0)
		fail_msg("%s", f->err.message);
	return b;
}

static void expect_refused(struct fixture *f, const uint8_t *p, size_t n, const char *why)
{
	struct boot_image *b = NULL;
	f->err.message[0] = 0;
	assert_true(boot_image_parse("test-kernel", p, n, &b, &f->err) < 0);
	assert_null(b);
	assert_non_null(strstr(f->err.message, "test-kernel"));
	if (!strstr(f->err.message, why))
		fail_msg("'%s' does not say '%s'", f->err.message, why);
}

static uint64_t guest_word(struct fixture *f, uint64_t gpa, unsigned size)
{
	uint64_t v = 0;
	assert_int_equal(mem_read(f->m, GPA(gpa), &v, size), 0);
	return v;
}

static void expect_64bit(struct fixture *f, uint64_t entry)
{
	assert_int_equal(f->s->rip, entry);
	assert_true(x86_code64(f->s));
	assert_int_equal(f->s->seg[SEG_CS].sel, 0x10);
	assert_int_equal(f->s->seg[SEG_SS].sel, 0x18);
	assert_int_equal(x86_cpl(f->s), 0);
	assert_int_equal(f->s->rflags, FLAG_R1);
	/* The page tables map every 2 MiB of the low 4 GiB to itself. */
	uint64_t pml4e = guest_word(f, f->s->cr3, 8), pdpte = guest_word(f, (pml4e & PAGE_MASK) + 8, 8);
	assert_int_equal(guest_word(f, (pdpte & PAGE_MASK) + 8, 8), (GIB(1) + MIB(2)) | 0x83);
	uint64_t params = f->s->gpr[RSI];
	assert_int_equal(guest_word(f, params + SETUP_MAGIC, 4), 0x53726448);
	char cmdline[16];
	assert_int_equal(mem_read(f->m, GPA(guest_word(f, params + SETUP_CMDLINE, 4)), cmdline, 8), 0);
	assert_string_equal(cmdline, "console");
	unsigned n = (unsigned)guest_word(f, params + 0x1e8, 1);
	assert_int_equal(n, 4);
	assert_int_equal(guest_word(f, params + 0x2d0 + 3 * 20, 8), MIB(1));
	assert_int_equal(guest_word(f, params + 0x2d0 + 3 * 20 + 8, 8), MIB(31));
	assert_int_equal(guest_word(f, params + 0x070, 8), 0xe0000);
}

static int boot(struct fixture *f, struct boot_image *b, const char *cmdline)
{
	struct boot_config c = { .cmdline = cmdline, .rsdp = GPA(0xe0000) };
	return boot_linux(f->m, b, &c, f->s, &f->err);
}

/* ---- tests ---- */

static void elf_is_entered_in_64_bits(void **state)
{
	struct fixture *f = *state;
	uint8_t elf[1024];
	memset(mem_ram_ptr(f->m, GPA(LINK_ADDR), 0x3000), 0xff, 0x3000); /* from an earlier boot */
	struct boot_image *b = parse(f, elf, make_elf(elf, false));
	assert_int_equal(boot(f, b, "console"), 0);
	expect_64bit(f, LINK_ADDR + 8);
	assert_string_equal(mem_ram_ptr(f->m, GPA(LINK_ADDR), 17), "kernel code here");
	assert_int_equal(guest_word(f, LINK_ADDR + 17, 8), 0);
	assert_int_equal(guest_word(f, LINK_ADDR + 0x2ff8, 8), 0);
	boot_image_free(b);
}

static void pvh_note_is_followed(void **state)
{
	struct fixture *f = *state;
	uint8_t elf[1024];
	struct boot_image *b = parse(f, elf, make_elf(elf, true));
	assert_int_equal(boot(f, b, "console"), 0);
	assert_int_equal(f->s->rip, LINK_ADDR + 4);
	assert_false(f->s->cr0 & CR0_PG);
	assert_true(f->s->cr0 & CR0_PE);
	assert_int_equal(f->s->efer, 0);
	assert_true(f->s->seg[SEG_CS].attr & SEG_DB);
	uint64_t info = f->s->gpr[RBX];
	assert_int_equal(guest_word(f, info, 4), 0x336ec578);
	assert_int_equal(guest_word(f, info + 12, 4), 0); /* no modules */
	assert_int_equal(guest_word(f, info + 32, 8), 0xe0000);
	assert_int_equal(guest_word(f, info + 48, 4), 4);
	assert_int_equal(guest_word(f, guest_word(f, info + 40, 8) + 8, 8), 0x9fc00);
	boot_image_free(b);
}

/* The same vmlinux in each compression; the payload ends in its size. */
static size_t compress_as(const char *how, const uint8_t *in, size_t n, uint8_t *out, size_t room)
{
	size_t len = 0;
	if (!strcmp(how, "gzip")) {
		z_stream s = { .next_in = (Bytef *)(uintptr_t)in,
			       .avail_in = (uInt)n,
			       .next_out = out,
			       .avail_out = (uInt)room };
		assert_int_equal(deflateInit2(&s, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
		assert_int_equal(deflate(&s, Z_FINISH), Z_STREAM_END);
		len = s.total_out;
		deflateEnd(&s);
		return len; /* its trailer is the size */
	}
	if (!strcmp(how, "xz")) {
		assert_int_equal(lzma_easy_buffer_encode(6, LZMA_CHECK_CRC32, NULL, in, n, out, &len, room),
				 LZMA_OK);
	} else if (!strcmp(how, "lzma")) {
		lzma_stream s = LZMA_STREAM_INIT;
		lzma_options_lzma opt;
		lzma_lzma_preset(&opt, 6);
		assert_int_equal(lzma_alone_encoder(&s, &opt), LZMA_OK);
		s.next_in = in;
		s.avail_in = n;
		s.next_out = out;
		s.avail_out = room;
		assert_int_equal(lzma_code(&s, LZMA_FINISH), LZMA_STREAM_END);
		len = s.total_out;
		lzma_end(&s);
	} else {
		len = ZSTD_compress(out, room, in, n, 19);
		assert_false(ZSTD_isError(len));
	}
	le_put(out + len, n, 4);
	return len + 4;
}

static void payloads_are_unpacked(void **state)
{
	struct fixture *f = *state;
	static const char *const formats[] = { "xz", "gzip", "zstd", "lzma" };
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		uint8_t elf[1024], packed[4096], file[8192];
		size_t n = compress_as(formats[i], elf, make_elf(elf, true), packed, sizeof(packed) - 4);
		struct boot_image *b = parse(f, file, make_bzimage(file, packed, n));
		assert_int_equal(boot(f, b, "console"), 0);
		expect_64bit(f, LINK_ADDR + 8); /* not PVH: it is a bzImage */
		assert_string_equal(mem_ram_ptr(f->m, GPA(LINK_ADDR), 17), "kernel code here");
		assert_false(guest_word(f, f->s->gpr[RSI] + SETUP_LOADFLAGS, 1) & LOADFLAG_KASLR);
		boot_image_free(b);
	}
}

static void unknown_payload_unpacks_itself(void **state)
{
	struct fixture *f = *state;
	uint8_t file[8192];
	struct boot_image *b =
	    parse(f, file, make_bzimage(file, (const uint8_t *)"something unheard of", 20));
	assert_int_equal(boot(f, b, "console"), 0);
	expect_64bit(f, LINK_ADDR + 0x200);
	assert_memory_equal(mem_ram_ptr(f->m, GPA(LINK_ADDR + 0x400), 20), "something unheard of", 20);
	assert_true(guest_word(f, f->s->gpr[RSI] + SETUP_LOADFLAGS, 1) & LOADFLAG_KASLR);
	boot_image_free(b);
}

/* Without a 64-bit entry: started in 32 bits at its first byte (boot.rst, "32-bit Boot Protocol"). */
static void kernel_for_32_bits(void **state)
{
	struct fixture *f = *state;
	uint8_t file[8192];
	size_t size = make_bzimage(file, (const uint8_t *)"32-bit code", 12);
	le_put(file + SETUP_XLOADFLAGS, 0, 2);
	struct boot_image *b = parse(f, file, size);
	assert_int_equal(boot(f, b, "console"), 0);
	assert_int_equal(f->s->rip, LINK_ADDR);
	assert_false(x86_code64(f->s));
	assert_int_equal(f->s->cr0, CR0_PE | CR0_ET);
	assert_int_equal(f->s->seg[SEG_CS].sel, 0x10);
	assert_int_equal(f->s->seg[SEG_CS].limit, 0xffffffff);
	assert_int_equal(guest_word(f, f->s->gpr[RSI] + SETUP_MAGIC, 4), 0x53726448);
	assert_memory_equal(mem_ram_ptr(f->m, GPA(LINK_ADDR + 0x400), 12), "32-bit code", 12);
	boot_image_free(b);
}

static void damaged_files_are_refused(void **state)
{
	struct fixture *f = *state;
	uint8_t file[8192], elf[1024], packed[4096];
	size_t n = compress_as("xz", elf, make_elf(elf, true), packed, sizeof(packed) - 4);
	size_t size = make_bzimage(file, packed, n);
	expect_refused(f, file, 0, "not a Linux kernel");
	expect_refused(f, file, size - 1, "truncated");
	expect_refused(f, (const uint8_t *)"#!/bin/sh\n", 10, "not a Linux kernel");
	le_put(file + SETUP_VERSION, 0x209, 2);
	expect_refused(f, file, size, "too old");
	for (size_t i = 4; i < 600; i += 7) {
		if (i < 529) /* the code ends there: what follows is padding */
			expect_refused(f, elf, i, i < 64 ? "truncated" : "");
	}
	le_put(elf + 18, EM_ARM, 2);
	expect_refused(f, elf, 1024, "not for x86");
	make_elf(elf, false);
	le_put(elf + 24, 0x400000, 8);
	expect_refused(f, elf, 1024, "not a kernel");
}

static void limits_are_explained(void **state)
{
	struct fixture *f = *state;
	uint8_t elf[1024];
	make_elf(elf, false);
	le_put(elf + 64 + 40, MIB(64), 8); /* p_memsz */
	struct boot_image *b = parse(f, elf, 1024);
	assert_int_equal(boot(f, b, ""), -ENOMEM);
	assert_non_null(strstr(f->err.message, "80 MiB"));
	assert_non_null(strstr(f->err.message, "--memory"));
	boot_image_free(b);

	make_elf(elf, false);
	b = parse(f, elf, 1024);
	char cmdline[4096];
	memset(cmdline, 'x', sizeof(cmdline) - 1);
	cmdline[sizeof(cmdline) - 1] = 0;
	assert_int_equal(boot(f, b, cmdline), -E2BIG);
	assert_non_null(strstr(f->err.message, "4095"));
	boot_image_free(b);
}

static void write_file(const char *path, const void *p, size_t n)
{
	_cleanup_fclose_ FILE *out = fopen(path, "wb");
	assert_non_null(out);
	assert_int_equal(fwrite(p, 1, n, out), n);
}

static void files_and_initrd(void **state)
{
	struct fixture *f = *state;
	uint8_t elf[1024];
	char dir[] = "/tmp/sill-test-XXXXXX", kernel[64], older[64], initrd[64];
	assert_non_null(mkdtemp(dir));
	snprintf(kernel, sizeof(kernel), "%s/kernel", dir);
	snprintf(older, sizeof(older), "%s/older", dir);
	snprintf(initrd, sizeof(initrd), "%s/initrd", dir);
	struct boot_image *b = NULL;

	assert_int_equal(boot_image_open(kernel, NULL, &b, &f->err), -ENOENT);
	assert_non_null(strstr(f->err.message, kernel));
	assert_true(boot_image_open(dir, NULL, &b, &f->err) < 0);
	assert_non_null(strstr(f->err.message, "not a regular file"));
	write_file(kernel, elf, 0);
	assert_true(boot_image_open(kernel, NULL, &b, &f->err) < 0);
	assert_non_null(strstr(f->err.message, "empty"));
	write_file(kernel, elf, make_elf(elf, false));
	assert_int_equal(boot_image_open(kernel, initrd, &b, &f->err), -ENOENT);
	assert_non_null(strstr(f->err.message, initrd));

	write_file(initrd, "an initrd", 9);
	assert_int_equal(boot_image_open(kernel, initrd, &b, &f->err), 0);
	assert_int_equal(boot(f, b, "console"), 0);
	expect_64bit(f, LINK_ADDR + 8);
	uint64_t at = guest_word(f, f->s->gpr[RSI] + SETUP_RAMDISK, 4);
	assert_int_equal(at, MIB(32) - PAGE_SIZE);
	assert_int_equal(guest_word(f, f->s->gpr[RSI] + SETUP_RAMDISK_SZ, 4), 9);
	assert_memory_equal(mem_ram_ptr(f->m, GPA(at), 9), "an initrd", 9);
	assert_int_equal(truncate(initrd, 4), 0);
	assert_true(boot(f, b, "console") < 0);
	assert_non_null(strstr(f->err.message, "shorter"));
	boot_image_free(b);

	/* Reset after another kernel has taken the name, and after this one was damaged. */
	assert_int_equal(boot_image_open(kernel, NULL, &b, &f->err), 0);
	assert_int_equal(rename(kernel, older), 0);
	write_file(kernel, "another", 7);
	for (int i = 0; i < 2; i++) {
		x86_state_reset(f->s);
		assert_int_equal(boot(f, b, "console"), 0);
		expect_64bit(f, LINK_ADDR + 8);
	}
	assert_int_equal(truncate(older, 100), 0);
	assert_true(boot(f, b, "console") < 0);
	assert_non_null(strstr(f->err.message, kernel));
	boot_image_free(b);
	assert_int_equal(rename(older, kernel), 0);
	write_file(kernel, elf, make_elf(elf, false));

	assert_int_equal(truncate(initrd, (off_t)MIB(20)), 0);
	assert_int_equal(boot_image_open(kernel, initrd, &b, &f->err), 0);
	assert_int_equal(boot(f, b, "console"), -ENOMEM);
	assert_non_null(strstr(f->err.message, initrd));
	boot_image_free(b);
	unlink(kernel);
	unlink(initrd);
	rmdir(dir);
}

/* A Multiboot kernel by its header's address fields, with modules; packed by gzip, as Xen comes. */
static void multiboot_and_modules(void **state)
{
	struct fixture *f = *state;
	uint8_t raw[64] = { 0 }, packed[512];
	char dir[] = "/tmp/sill-test-XXXXXX", kernel[64], module[64], text[128];
	const uint32_t header[8] = { 0x1badb002, 0x10000, -(0x1badb002u + 0x10000), LINK_ADDR,
				     LINK_ADDR,  0,       LINK_ADDR + 4096,         LINK_ADDR + 32 };
	for (size_t i = 0; i < ARRAY_SIZE(header); i++)
		le_put(raw + 4 * i, header[i], 4);
	memcpy(raw + 32, "code", 4);
	assert_non_null(mkdtemp(dir));
	snprintf(kernel, sizeof(kernel), "%s/kernel.gz", dir);
	snprintf(module, sizeof(module), "%s/module", dir);
	write_file(module, "a module", 8);
	size_t n = compress_as("gzip", raw, sizeof(raw), packed, sizeof(packed));
	write_file(kernel, packed, n);
	struct boot_image *b = NULL;
	assert_int_equal(boot_image_open(kernel, module, &b, &f->err), 0);
	snprintf(text, sizeof(text), "%s some arguments", module);
	assert_int_equal(boot_image_add_module(b, text, &f->err), 0);
	assert_int_equal(boot_image_add_module(b, module, &f->err), 0);
	assert_int_equal(boot_image_add_module(b, "/nonexistent/x y", &f->err), -ENOENT);
	assert_non_null(strstr(f->err.message, "/nonexistent/x"));
	assert_int_equal(boot(f, b, "console"), 0);
	assert_int_equal(f->s->rip, LINK_ADDR + 32);
	assert_int_equal(f->s->gpr[RAX], 0x2badb002);
	assert_memory_equal(mem_ram_ptr(f->m, GPA(LINK_ADDR + 32), 4), "code", 4);
	assert_int_equal(guest_word(f, 0x413, 2), 639); /* KiB, says the BIOS's data area */
	uint64_t info = f->s->gpr[RBX];
	assert_int_equal(f->s->gpr[RSP], 0x9fc00);
	assert_int_equal(guest_word(f, info, 4) & 8, 8);
	assert_int_equal(guest_word(f, info + 20, 4), 3);
	for (uint64_t i = 0; i < 3; i++) {
		uint64_t entry = guest_word(f, info + 24, 4) + 16 * i, at = guest_word(f, entry, 4);
		const char *string = mem_ram_ptr(f->m, GPA(guest_word(f, entry + 8, 4)), 128);
		assert_int_equal(at, LINK_ADDR + 4096 + i * PAGE_SIZE); /* behind the kernel */
		assert_int_equal(guest_word(f, entry + 4, 4), at + 8);
		assert_memory_equal(mem_ram_ptr(f->m, GPA(at), 8), "a module", 8);
		assert_string_equal(string, i ? module : text);
	}
	boot_image_free(b);
	expect_refused(f, packed, n - 9, "damaged");
	/* A module is Multiboot's. */
	uint8_t elf[1024];
	b = parse(f, elf, make_elf(elf, true));
	assert_int_equal(boot_image_add_module(b, module, &f->err), -EINVAL);
	assert_non_null(strstr(f->err.message, "Multiboot"));
	boot_image_free(b);
	/* Both ways in: Multiboot. */
	size_t size = make_elf(elf, true);
	for (size_t i = 0; i < 3; i++)
		le_put(elf + 512 + 4 * i, i == 1 ? 0 : i ? -0x1badb002u : 0x1badb002u, 4);
	b = parse(f, elf, size);
	assert_int_equal(boot(f, b, ""), 0);
	assert_int_equal(f->s->gpr[RAX], 0x2badb002);
	boot_image_free(b);
	unlink(kernel);
	unlink(module);
	rmdir(dir);
}

static void firmware_mtrrs(void **state)
{
	struct fixture *f = *state;
	boot_firmware_state(f->s, 40);
	assert_int_equal(f->s->mtrr_mask[0], 0xffc0000800);
	assert_int_equal(f->s->mtrr_base[0], 0xc0000000);
	assert_int_equal(f->s->mtrr_fixed[2], 0);
	assert_int_equal(f->s->mtrr_def_type, 0xc06);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(elf_is_entered_in_64_bits, setup, teardown),
		cmocka_unit_test_setup_teardown(pvh_note_is_followed, setup, teardown),
		cmocka_unit_test_setup_teardown(payloads_are_unpacked, setup, teardown),
		cmocka_unit_test_setup_teardown(unknown_payload_unpacks_itself, setup, teardown),
		cmocka_unit_test_setup_teardown(kernel_for_32_bits, setup, teardown),
		cmocka_unit_test_setup_teardown(damaged_files_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(limits_are_explained, setup, teardown),
		cmocka_unit_test_setup_teardown(files_and_initrd, setup, teardown),
		cmocka_unit_test_setup_teardown(multiboot_and_modules, setup, teardown),
		cmocka_unit_test_setup_teardown(firmware_mtrrs, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
