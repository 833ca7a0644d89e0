/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading and entry: the 64-bit Linux boot protocol (boot.rst, "64-bit boot
 * protocol") and PVH (xen: docs/misc/pvh.pandoc, public/arch-x86/hvm/start_info.h).
 */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "boot/image.h"
#include "x86/state.h"

#define GDT_ADDR      0x1000u
#define PML4_ADDR     0x2000u
#define PDPT_ADDR     0x3000u
#define PD_ADDR       0x4000u /* four of them */
#define PARAMS_ADDR   0x8000u
#define CMDLINE_ADDR  0x10000u
#define CMDLINE_ROOM  0x10000u
#define LOW_RAM_END   0x9fc00u
#define ROM_START     0xe0000u
#define HIGH_MEM      0x100000u
#define HIGH_RAM_BASE 0x100000000ull

/* boot_params beyond the setup header (Documentation/arch/x86/zero-page.rst) */
#define PARAMS_RSDP           0x070
#define PARAMS_EXT_RAMDISK    0x0c0
#define PARAMS_EXT_RAMDISK_SZ 0x0c4
#define PARAMS_E820_ENTRIES   0x1e8
#define PARAMS_E820_TABLE     0x2d0
#define PARAMS_SIZE           4096

#define PTE_P  0x001
#define PTE_W  0x002
#define PTE_PS 0x080

/* Segment attributes: descriptor bits 40..55 */
#define ATTR_CODE64 0xa09b
#define ATTR_CODE32 0xc09b
#define ATTR_DATA   0xc093
#define ATTR_TSS    0x008b

struct boot_memory_map boot_memory_map(const struct mem *m)
{
	struct boot_memory_map map = { .nr = 0 };
	uint64_t low = mem_low_ram_size(m), high = mem_high_ram_size(m);
	map.at[map.nr].addr = 0;
	map.at[map.nr].size = LOW_RAM_END;
	map.at[map.nr++].type = 1;
	map.at[map.nr].addr = LOW_RAM_END;
	map.at[map.nr].size = 0xa0000 - LOW_RAM_END;
	map.at[map.nr++].type = 2;
	map.at[map.nr].addr = ROM_START;
	map.at[map.nr].size = HIGH_MEM - ROM_START;
	map.at[map.nr++].type = 2;
	if (low > HIGH_MEM) {
		map.at[map.nr].addr = HIGH_MEM;
		map.at[map.nr].size = low - HIGH_MEM;
		map.at[map.nr++].type = 1;
	}
	if (high) {
		map.at[map.nr].addr = HIGH_RAM_BASE;
		map.at[map.nr].size = high;
		map.at[map.nr++].type = 1;
	}
	return map;
}

void boot_firmware_state(struct x86_state *s, unsigned phys_bits)
{
	/* Write-back everywhere but the VGA window and the PCI hole (SDM 3A 12.11). */
	const uint64_t write_back = 0x0606060606060606;
	uint64_t phys_mask = ((uint64_t)1 << phys_bits) - 1;
	for (size_t i = 0; i < ARRAY_SIZE(s->mtrr_fixed); i++)
		s->mtrr_fixed[i] = i == 2 ? 0 : write_back; /* MSR 259H: A0000..BFFFF */
	s->mtrr_base[0] = MEM_LOW_MAX;                      /* uncacheable */
	s->mtrr_mask[0] = (phys_mask & ~(GIB(4) - MEM_LOW_MAX - 1)) | 0x800;
	s->mtrr_def_type = 0xc06; /* on, fixed ranges on, default write-back */
}

/* ---- placing ---- */

/* file: goes into memory with the kernel; NULL: none. */
static int no_room(const struct mem *m, const struct boot_image *b, const struct boot_file *file,
		   uint64_t end, struct error *err)
{
	return error_set(
	    err, ENOMEM,
	    "the kernel %s%s%s needs memory up to %llu MiB, the VM has %llu MiB; give it more (--memory)",
	    b->name, file ? " with " : "", file ? file->name : "",
	    (unsigned long long)((end + MIB(1) - 1) >> 20), (unsigned long long)(mem_ram_size(m) >> 20));
}

int boot_load_file(struct mem *m, const struct boot_image *b, const struct boot_file *f, uint64_t kernel_end,
		   uint64_t *limit, struct error *err)
{
	uint64_t room = *limit > kernel_end ? *limit - kernel_end : 0;
	if (f->size > room || align_down(*limit - f->size, PAGE_SIZE) < kernel_end)
		return no_room(m, b, f, kernel_end + align_up(f->size, PAGE_SIZE) + PAGE_SIZE, err);
	uint64_t addr = align_down(*limit - f->size, PAGE_SIZE);
	uint8_t *p = mem_ram_ptr(m, GPA(addr), f->size);
	if (!p)
		return no_room(m, b, f, addr + f->size, err);
	int r = boot_read_all(f->fd, p, f->size);
	if (r)
		return error_set(err, -r, "cannot read %s: %s; copy it again", f->name, boot_read_problem(r));
	mem_written(m, GPA(addr), f->size);
	*limit = addr;
	return 0;
}

int boot_load_initrd(struct mem *m, const struct boot_image *b, uint64_t kernel_end, uint64_t *ret_addr,
		     struct error *err)
{
	uint64_t limit = min_u64(mem_low_ram_size(m), (uint64_t)b->initrd_max + 1);
	*ret_addr = 0;
	if (b->initrd.fd < 0)
		return 0;
	int r = boot_load_file(m, b, &b->initrd, kernel_end, &limit, err);
	if (!r)
		*ret_addr = limit;
	return r;
}

/* Linux's ways of booting have their own tables below 1 MiB. */
static int check_start(const struct boot_image *b, const struct elf_program *p, struct error *err)
{
	if (p->start < HIGH_MEM)
		return error_set(
		    err, ENOEXEC,
		    "the kernel %s wants to be loaded at 0x%llx, below 1 MiB; it is not for direct boot",
		    b->name, (unsigned long long)p->start);
	return 0;
}

int boot_load_program(struct mem *m, const struct boot_image *b, const struct elf_program *p,
		      struct error *err)
{
	if (p->end > mem_low_ram_size(m))
		return no_room(m, b, NULL, p->end, err);
	for (unsigned i = 0; i < p->nr; i++) {
		const struct elf_segment *s = &p->seg[i];
		uint8_t *dst = mem_ram_ptr(m, GPA(s->paddr), s->memsz);
		if (!dst)
			return no_room(m, b, NULL, p->end, err);
		memcpy(dst, s->data, s->filesz);
		memset(dst + s->filesz, 0, s->memsz - s->filesz);
		mem_written(m, GPA(s->paddr), s->memsz);
	}
	return 0;
}

static int load_cmdline(struct mem *m, const struct boot_image *b, const char *cmdline, struct error *err)
{
	size_t len = strlen(cmdline), max = min_u64(b->cmdline_max, CMDLINE_ROOM - 1);
	if (len > max)
		return error_set(
		    err, E2BIG,
		    "the kernel command line has %zu characters, %s takes %zu; shorten it (--append)", len,
		    b->name, max);
	return mem_write(m, GPA(CMDLINE_ADDR), cmdline, len + 1);
}

/* ---- 64-bit entry ---- */

static int write_tables(struct mem *m)
{
	/* Selectors 0x10 and 0x18 are what the protocol asks for; limit bits 48..51 complete ATTR_*. */
	uint64_t gdt[4] = { 0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff };
	uint64_t page[512] = { PDPT_ADDR | PTE_P | PTE_W };
	int r = mem_write(m, GPA(GDT_ADDR), gdt, sizeof(gdt));
	if (!r)
		r = mem_write(m, GPA(PML4_ADDR), page, sizeof(page));
	memset(page, 0, sizeof(page));
	for (unsigned i = 0; i < 4; i++)
		page[i] = (PD_ADDR + i * PAGE_SIZE) | PTE_P | PTE_W;
	if (!r)
		r = mem_write(m, GPA(PDPT_ADDR), page, sizeof(page));
	for (unsigned i = 0; !r && i < 4; i++) {
		for (unsigned j = 0; j < 512; j++)
			page[j] = GIB(i) + MIB(2) * j + (PTE_P | PTE_W | PTE_PS);
		r = mem_write(m, GPA(PD_ADDR + i * PAGE_SIZE), page, sizeof(page));
	}
	return r;
}

static void enter(struct x86_state *s, uint16_t cs_attr, uint64_t entry)
{
	struct x86_seg data = { .sel = 0x18, .attr = ATTR_DATA, .limit = 0xffffffff };
	for (unsigned i = 0; i < SEG_COUNT; i++)
		s->seg[i] = data;
	s->seg[SEG_CS] = (struct x86_seg){ .sel = 0x10, .attr = cs_attr, .limit = 0xffffffff };
	s->tr = (struct x86_seg){ .attr = ATTR_TSS, .limit = 0x67 };
	s->gdtr = (struct x86_dtable){ .base = GDT_ADDR, .limit = 4 * 8 - 1 };
	s->idtr = (struct x86_dtable){ 0, 0 };
	memset(s->gpr, 0, sizeof(s->gpr));
	s->gpr[RSP] = GDT_ADDR; /* page 0 as a stack, should anyone push before having their own */
	s->rflags = FLAG_R1;
	s->rip = entry;
}

void boot_enter_32(struct x86_state *s, uint32_t entry)
{
	enter(s, ATTR_CODE32, entry);
	s->cr0 = CR0_PE | CR0_ET;
	s->cr3 = s->cr4 = 0;
	s->efer = 0;
}

static int enter_long_mode(struct mem *m, uint64_t entry, struct x86_state *s)
{
	int r = write_tables(m);
	if (r)
		return r;
	enter(s, ATTR_CODE64, entry);
	s->gpr[RSI] = PARAMS_ADDR;
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	s->cr3 = PML4_ADDR;
	s->cr4 = CR4_PAE;
	s->efer = EFER_LME | EFER_LMA;
	return 0;
}

static void fill_e820(struct mem *m, uint8_t *params)
{
	struct boot_memory_map map = boot_memory_map(m);
	for (unsigned i = 0; i < map.nr; i++) {
		uint8_t *e = params + PARAMS_E820_TABLE + i * 20;
		le_put(e, map.at[i].addr, 8);
		le_put(e + 8, map.at[i].size, 8);
		le_put(e + 16, map.at[i].type, 4);
	}
	params[PARAMS_E820_ENTRIES] = (uint8_t)map.nr;
}

/* boot_params: the kernel's own setup header where it has one, completed. */
static int write_params(struct mem *m, const struct boot_image *b, const struct boot_config *c,
			uint64_t initrd, bool unpacked, struct error *err)
{
	uint8_t params[PARAMS_SIZE] = { 0 };
	if (b->is_elf) {
		le_put(params + SETUP_BOOT_FLAG, 0xaa55, 2);
		memcpy(params + SETUP_MAGIC, "HdrS", 4);
		le_put(params + SETUP_VERSION, 0x020f, 2);
	} else {
		memcpy(params + SETUP_SECTS, b->file + SETUP_SECTS, b->header_end - SETUP_SECTS);
	}
	params[SETUP_LOADER] = 0xff; /* no assigned id */
	if (unpacked)
		params[SETUP_LOADFLAGS] &= (uint8_t)~LOADFLAG_KASLR; /* it runs where it was linked */
	le_put(params + SETUP_CMDLINE, CMDLINE_ADDR, 4);
	le_put(params + SETUP_RAMDISK, initrd, 4);
	le_put(params + SETUP_RAMDISK_SZ, b->initrd.size, 4);
	le_put(params + PARAMS_EXT_RAMDISK, initrd >> 32, 4);
	le_put(params + PARAMS_EXT_RAMDISK_SZ, b->initrd.size >> 32, 4);
	le_put(params + PARAMS_RSDP, c->rsdp.v, 8);
	fill_e820(m, params);
	if (mem_write(m, GPA(PARAMS_ADDR), params, sizeof(params)) < 0)
		return no_room(m, b, NULL, HIGH_MEM, err);
	return 0;
}

static int boot_64(struct mem *m, const struct boot_image *b, const struct boot_config *c, uint64_t start,
		   uint64_t end, uint64_t entry, bool unpacked, struct x86_state *s, struct error *err)
{
	uint64_t initrd;
	if (end > mem_low_ram_size(m) || start > end)
		return no_room(m, b, NULL, end, err);
	int r = boot_load_initrd(m, b, align_up(end, PAGE_SIZE), &initrd, err);
	if (!r)
		r = load_cmdline(m, b, c->cmdline, err);
	if (!r)
		r = write_params(m, b, c, initrd, unpacked, err);
	if (!r && enter_long_mode(m, entry, s) < 0)
		r = no_room(m, b, NULL, HIGH_MEM, err);
	return r;
}

/* 0, or a positive number: not that way, let it unpack itself. */
static int boot_unpacked(struct mem *m, const struct boot_image *b, const struct boot_config *c,
			 struct x86_state *s, struct error *err)
{
	_cleanup_free_ uint8_t *elf = NULL;
	size_t size;
	struct elf_program p;
	if (boot_decompress(b->file + b->payload_off, b->payload_size, &elf, &size) < 0 || size < 4 ||
	    memcmp(elf, "\177ELF", 4) != 0 || elf_parse(b->name, elf, size, &p, NULL) < 0 ||
	    p.start < HIGH_MEM)
		return 1;
	int r = boot_load_program(m, b, &p, err);
	if (r)
		return r;
	return boot_64(m, b, c, p.start, p.end, p.entry, true, s, err);
}

/* Leaves the processor at a kernel's 32-bit entry (boot.rst, "32-bit Boot Protocol"). */
static int boot_32(struct mem *m, const struct boot_image *b, const struct boot_config *c, uint64_t start,
		   uint64_t end, struct x86_state *s, struct error *err)
{
	uint64_t initrd;
	int r = boot_load_initrd(m, b, align_up(end, PAGE_SIZE), &initrd, err);
	if (!r)
		r = load_cmdline(m, b, c->cmdline, err);
	if (!r)
		r = write_params(m, b, c, initrd, false, err);
	if (!r && write_tables(m) < 0)
		r = no_room(m, b, NULL, HIGH_MEM, err);
	if (r)
		return r;
	boot_enter_32(s, (uint32_t)start);
	s->gpr[RSI] = PARAMS_ADDR;
	return 0;
}

static int boot_bzimage(struct mem *m, const struct boot_image *b, const struct boot_config *c,
			struct x86_state *s, struct error *err)
{
	int r = b->is_32 ? 1 : boot_unpacked(m, b, c, s, err);
	if (r <= 0)
		return r;
	uint64_t addr = b->pref_addr;
	if (addr < HIGH_MEM || addr + b->init_size < addr)
		return error_set(err, ENOEXEC,
				 "the kernel %s prefers the impossible address 0x%llx; it is damaged",
				 b->name, (unsigned long long)addr);
	if (addr + b->init_size > mem_low_ram_size(m))
		return no_room(m, b, NULL, addr + b->init_size, err);
	if (mem_write(m, GPA(addr), b->file + b->kernel_off, b->kernel_size) < 0)
		return no_room(m, b, NULL, addr + b->kernel_size, err);
	if (b->is_32)
		return boot_32(m, b, c, addr, addr + b->init_size, s, err);
	return boot_64(m, b, c, addr, addr + b->init_size, addr + 0x200, false, s, err);
}

/* ---- PVH ---- */

static int write_start_info(struct mem *m, const struct boot_image *b, const struct boot_config *c,
			    uint64_t initrd)
{
	uint8_t info[512] = { 0 };
	uint8_t *module = info + 64, *map_at = info + 128;
	struct boot_memory_map map = boot_memory_map(m);
	le_put(info, 0x336ec578, 4);
	le_put(info + 4, 1, 4); /* version 1: has a memory map */
	if (b->initrd.fd >= 0) {
		le_put(info + 12, 1, 4);
		le_put(info + 16, PARAMS_ADDR + 64, 8);
		le_put(module, initrd, 8);
		le_put(module + 8, b->initrd.size, 8);
	}
	le_put(info + 24, CMDLINE_ADDR, 8);
	le_put(info + 32, c->rsdp.v, 8);
	le_put(info + 40, PARAMS_ADDR + 128, 8);
	le_put(info + 48, map.nr, 4);
	for (unsigned i = 0; i < map.nr; i++) {
		le_put(map_at + i * 24, map.at[i].addr, 8);
		le_put(map_at + i * 24 + 8, map.at[i].size, 8);
		le_put(map_at + i * 24 + 16, map.at[i].type, 4);
	}
	return mem_write(m, GPA(PARAMS_ADDR), info, sizeof(info));
}

static int boot_pvh(struct mem *m, const struct boot_image *b, const struct boot_config *c,
		    const struct elf_program *p, struct x86_state *s, struct error *err)
{
	uint64_t initrd;
	int r = boot_load_initrd(m, b, align_up(p->end, PAGE_SIZE), &initrd, err);
	if (!r)
		r = load_cmdline(m, b, c->cmdline, err);
	if (r)
		return r;
	if (write_start_info(m, b, c, initrd) < 0 || write_tables(m) < 0)
		return no_room(m, b, NULL, HIGH_MEM, err);
	boot_enter_32(s, p->pvh_entry);
	s->gpr[RBX] = PARAMS_ADDR;
	return 0;
}

/*
 * There is no BIOS.  Who calls it all the same, in real mode, as Xen does, is told that it cannot; and
 * interrupts are acknowledged, the timer's counted (at 0x46c, as all BIOSes do, but for midnight).  The
 * timer's lies where PCs have it.
 *
 * Who jumps to the reset vector, or resets the processor, which starts there (BOOT_ROM_ALIAS), gets a reset,
 * unless CMOS byte 0F, which this clears, says where to go on: 0A at the far pointer at 0x467, 05 there, too,
 * after interrupts have been acknowledged.
 */
static int write_bios_stubs(struct mem *m)
{
	enum {
		RESET = 0xfe60,
		TIMER = 0xfea5,
		MASTER = 0xfec0,
		SLAVE = 0xfed0,
		START = 0xfff0,
		CALL = 0xfff8
	};
	static const uint8_t timer[] = {
		0x1e, 0x50, 0x31, 0xc0, 0x8e, 0xd8, /* push %ds; push %ax; xor %ax, %ax; mov %ax, %ds */
		0x66, 0xff, 0x06, 0x6c, 0x04,       /* incl 0x46c */
		0xb0, 0x20, 0xe6, 0x20,             /* mov $0x20, %al; out %al, $0x20 */
		0x58, 0x1f, 0xcf,                   /* pop %ax; pop %ds; iret */
	};
	static const uint8_t master[] = { 0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf };
	static const uint8_t slave[] = { 0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf };
	static const uint8_t reset[] = {
		0xfa, 0x31, 0xdb, 0x8e, 0xdb,       /* cli; xor %bx, %bx; mov %bx, %ds */
		0xb0, 0x0f, 0xe6, 0x70, 0xe4, 0x71, /* mov $0xf, %al; out %al, $0x70; in $0x71, %al */
		0x88, 0xc4, 0xb0, 0x00, 0xe6, 0x71, /* mov %al, %ah; mov $0, %al; out %al, $0x71 */
		0x80, 0xfc, 0x0a, 0x74, 0x0b,       /* cmp $10, %ah; je 1f */
		0x80, 0xfc, 0x05, 0x75, 0x0a,       /* cmp $5, %ah; jne 2f */
		0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, /* mov $0x20, %al; out %al, $0xa0; out %al, $0x20 */
		0xff, 0x2e, 0x67, 0x04,             /* 1: ljmp *0x467 */
		0xb0, 0xfe, 0xe6, 0x64, /* 2: mov $0xfe, %al; out %al, $0x64: the keyboard controller's */
		0xf4, 0xeb, 0xfd,       /* hlt; jmp to it */
	};
	static const uint8_t start[] = {
		0xea, 0x60, 0xfe, 0x00, 0xf0, 0x90, 0x90, 0x90, /* ljmp $0xf000, $RESET */
		0xf9, 0xca, 0x02, 0x00, 0x90,                   /* CALL: stc; lret $2: carry is "failed" */
	};
	static const struct {
		const uint8_t *code;
		size_t size;
		uint16_t at;
	} stubs[] = { { reset, sizeof(reset), RESET },
		      { timer, sizeof(timer), TIMER },
		      { master, sizeof(master), MASTER },
		      { slave, sizeof(slave), SLAVE },
		      { start, sizeof(start), START } };
	uint8_t vectors[1024];
	int r = 0;
	for (unsigned i = 0; i < 256; i++) {
		uint16_t at = i == 8                  ? TIMER
			      : i > 8 && i < 16       ? MASTER
			      : i >= 0x70 && i < 0x78 ? SLAVE
						      : CALL;
		le_put(vectors + i * 4, 0xf0000000 | at, 4);
	}
	for (unsigned i = 0; !r && i < ARRAY_SIZE(stubs); i++)
		r = mem_write(m, GPA(0xf0000 + stubs[i].at), stubs[i].code, stubs[i].size);
	return r ? r : mem_write(m, GPA(0), vectors, sizeof(vectors));
}

/*
 * The timer and the interrupt controllers as BIOSes leave them, which Linux sets up anew and some Multiboot
 * kernels rely on: 18.2 interrupts a second, vectors from 8 and 0x70 on; timer, keyboard, diskette, clock,
 * mouse and disks may interrupt.
 */
static void write_bios_devices(struct mem *m)
{
	static const struct {
		uint8_t port, value;
	} writes[] = {
		{ 0x43, 0x34 }, { 0x40, 0x00 }, { 0x40, 0x00 }, /* channel 0: mode 2, 65,536 */
		{ 0x20, 0x11 }, { 0x21, 0x08 }, { 0x21, 0x04 }, { 0x21, 0x01 }, { 0x21, 0xb8 },
		{ 0xa0, 0x11 }, { 0xa1, 0x70 }, { 0xa1, 0x02 }, { 0xa1, 0x01 }, { 0xa1, 0x8e },
	};
	for (size_t i = 0; i < ARRAY_SIZE(writes); i++)
		mem_pio_write(m, writes[i].port, writes[i].value, 1);
}

/*
 * The BIOS's data area, of which kernels read what they have no better way to know: where low memory ends and
 * the extended data area begins (ACPI 5.2.5.1 has the RSDP looked for there), serial ports, the text screen.
 */
static int write_bios_data(struct mem *m)
{
	static const struct {
		uint16_t at, value;
	} words[] = {
		{ 0x400, 0x3f8 },
		{ 0x402, 0x2f8 }, /* serial ports */
		{ 0x408, 0x378 }, /* parallel port */
		{ 0x40e, LOW_RAM_END >> 4 },
		{ 0x410, 0x4422 }, /* one parallel port, two serial ones, 80x25 in colour, an FPU */
		{ 0x413, LOW_RAM_END >> 10 },
		{ 0x449, 0x5003 }, /* mode 3, 80 columns */
		{ 0x44c, 0x1000 }, /* bytes of a screen page */
		{ 0x460, 0x0d0e }, /* cursor */
		{ 0x463, 0x3d4 },  /* CRT controller */
		{ 0x484, 0x1018 }, /* rows less one, points of a character */
	};
	uint8_t data[0x100] = { 0 }, ebda_kib = (0xa0000 - LOW_RAM_END) >> 10;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		le_put(data + words[i].at - 0x400, words[i].value, 2);
	int r = mem_write(m, GPA(0x400), data, sizeof(data));
	return r ? r : mem_write(m, GPA(LOW_RAM_END), &ebda_kib, 1);
}

static int load(struct mem *m, const struct boot_image *b, const struct boot_config *c, struct x86_state *s,
		struct error *err)
{
	if (write_bios_stubs(m) < 0 || write_bios_data(m) < 0) /* before the kernel, which may lie there */
		return no_room(m, b, NULL, HIGH_MEM, err);
	if (b->is_multiboot) {
		write_bios_devices(m);
		return boot_multiboot(m, b, c, s, err);
	}
	if (!b->is_elf)
		return boot_bzimage(m, b, c, s, err);
	struct elf_program p;
	int r = elf_parse(b->name, b->file, b->size, &p, err);
	if (!r)
		r = check_start(b, &p, err);
	if (!r)
		r = boot_load_program(m, b, &p, err);
	if (r)
		return r;
	if (p.pvh_entry)
		return boot_pvh(m, b, c, &p, s, err);
	return boot_64(m, b, c, p.start, p.end, p.entry, true, s, err);
}

int boot_linux(struct mem *m, struct boot_image *b, const struct boot_config *c, struct x86_state *s,
	       struct error *err)
{
	int r = boot_image_read(b, err);

	if (!r)
		r = load(m, b, c, s, err);
	boot_image_drop(b);
	return r;
}
