/* SPDX-License-Identifier: Apache-2.0 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "boot/image.h"

#define KERNEL_FILE_MAX GIB(1)

/* Opens a regular file; what: "kernel", "initrd", "module". Returns the descriptor. */
static int open_file(const char *what, const char *path, uint64_t *ret_size, struct error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		int e = errno;
		const char *remedy = e == ENOENT   ? "check the path"
				     : e == EACCES ? "make it readable (on Debian, kernels may be root's)"
						   : "choose another file";
		return error_set(err, e, "cannot open the %s %s: %s; %s", what, path, strerror(e), remedy);
	}
	struct stat st;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return error_set(err, EINVAL, "the %s %s is not a regular file; give the path of a %s file",
				 what, path, what);
	}
	if (st.st_size == 0) {
		close(fd);
		return error_set(err, EINVAL, "the %s %s is empty; copy it again", what, path);
	}
	*ret_size = (uint64_t)st.st_size;
	return fd;
}

int boot_read_all(int fd, uint8_t *p, uint64_t size)
{
	for (uint64_t done = 0; done < size;) {
		ssize_t n = pread(fd, p + done, size - done, (off_t)done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENODATA;
		done += (uint64_t)n;
	}
	return 0;
}

const char *boot_read_problem(int r)
{
	return r == -ENODATA ? "it became shorter" : strerror(-r);
}

static int parse_bzimage(struct boot_image *b, struct error *err)
{
	const uint8_t *f = b->file;
	b->version = (uint16_t)le_get(f + SETUP_VERSION, 2);
	if (b->version < 0x020a || b->size < SETUP_INIT_SIZE + 4 || !(f[SETUP_LOADFLAGS] & LOADFLAG_HIGH))
		return error_set(
		    err, ENOEXEC,
		    "the kernel %s is too old to be booted directly (boot protocol %u.%02u); boot it from "
		    "a disk, or give one of Linux 2.6.31 or later",
		    b->name, b->version >> 8, b->version & 0xff);
	b->is_32 = b->version < 0x020c || !(le_get(f + SETUP_XLOADFLAGS, 2) & XLOADFLAG_64);
	/* The header ends where the jump at its beginning lands. */
	b->header_end = min_u64(SETUP_MAGIC + f[SETUP_JUMP + 1], SETUP_END_MAX);
	unsigned sects = f[SETUP_SECTS] ? f[SETUP_SECTS] : 4;
	b->kernel_off = (sects + 1) * 512;
	b->payload_size = le_get(f + SETUP_PAYLOAD_SZ, 4);
	uint64_t payload_off = b->kernel_off + le_get(f + SETUP_PAYLOAD, 4);
	if (b->size <= b->kernel_off + 0x200 || payload_off > b->size ||
	    b->payload_size > b->size - payload_off)
		return error_set(
		    err, ENOEXEC,
		    "the kernel %s is truncated: it has %zu bytes, its header announces %llu; copy it again",
		    b->name, b->size, (unsigned long long)(payload_off + b->payload_size));
	b->payload_off = payload_off;
	b->kernel_size = b->size - b->kernel_off;
	b->pref_addr = le_get(f + SETUP_PREF_ADDR, 8);
	b->init_size = max_u64(le_get(f + SETUP_INIT_SIZE, 4), b->kernel_size);
	b->cmdline_max = (uint32_t)le_get(f + SETUP_CMDLINE_SZ, 4);
	b->initrd_max = (uint32_t)le_get(f + SETUP_INITRD_MAX, 4);
	return 0;
}

static int no_memory(const char *name, struct error *err)
{
	return error_set(err, ENOMEM, "no memory for the kernel %s; free some and try again", name);
}

/* A kernel packed as a whole, by gzip, as a boot loader unpacks it. */
static int unpack_file(struct boot_image *b, struct error *err)
{
	uint8_t *unpacked;
	size_t size;

	if (b->size < 3 || memcmp(b->file, "\x1f\x8b\x08", 3) != 0)
		return 0;
	int r = boot_decompress(b->file, b->size, &unpacked, &size);
	if (r == -ENOMEM)
		return no_memory(b->name, err);
	if (r)
		return error_set(err, ENOEXEC,
				 "the kernel %s is compressed by gzip and damaged; copy it again", b->name);
	free(b->file);
	b->file = unpacked;
	b->size = size;
	return 0;
}

static int parse_kernel(struct boot_image *b, struct error *err)
{
	struct elf_program p;
	int r = unpack_file(b, err);

	if (r)
		return r;
	b->is_multiboot = multiboot_find(b->file, b->size, &b->multiboot);
	b->is_elf = b->is_32 = false;
	if (b->size >= 4 && !memcmp(b->file, ELFMAG, SELFMAG)) {
		b->is_elf = true;
		b->cmdline_max = 2047; /* COMMAND_LINE_SIZE of x86 Linux, less its NUL */
		b->initrd_max = 0x7fffffff;
		if (b->is_multiboot)
			return multiboot_parse(b->name, b->file, b->size, &b->multiboot, &p, err);
		r = elf_parse(b->name, b->file, b->size, &p, err);
		if (!r && b->file[EI_CLASS] == ELFCLASS32)
			r = error_set(
			    err, ENOEXEC,
			    "%s is a 32-bit program without a Multiboot header; give an x86-64 kernel",
			    b->name);
		return r;
	}
	if (b->size >= SETUP_VERSION + 2 && !memcmp(b->file + SETUP_MAGIC, "HdrS", 4) &&
	    le_get(b->file + SETUP_BOOT_FLAG, 2) == 0xaa55) {
		b->is_multiboot = false;
		return parse_bzimage(b, err);
	}
	if (b->is_multiboot) {
		b->initrd_max = 0x7fffffff;
		return multiboot_parse(b->name, b->file, b->size, &b->multiboot, &p, err);
	}
	return error_set(err, ENOEXEC,
			 "%s is not a Linux kernel (neither bzImage nor ELF nor Multiboot); give a file such "
			 "as /boot/vmlinuz-*",
			 b->name);
}

static struct boot_image *image_new(const char *name)
{
	struct boot_image *b = calloc(1, sizeof(*b));
	if (!b)
		return NULL;
	b->fd = b->initrd.fd = -1; /* the modules' fd does not count beyond nr_modules */
	b->name = strdup(name);
	if (b->name)
		return b;
	boot_image_free(b);
	return NULL;
}

static void file_free(struct boot_file *f)
{
	if (f->fd >= 0)
		close(f->fd);
	free(f->name);
	free(f->args);
}

void boot_image_free(struct boot_image *b)
{
	if (!b)
		return;
	file_free(&b->initrd);
	for (unsigned i = 0; i < b->nr_modules; i++)
		file_free(&b->modules[i]);
	if (b->fd >= 0)
		close(b->fd);
	free(b->name);
	free(b->file);
	free(b);
}

int boot_image_read(struct boot_image *b, struct error *err)
{
	if (b->file)
		return 0;
	b->size = b->file_size;
	b->file = malloc(b->size);
	if (!b->file)
		return no_memory(b->name, err);
	int r = boot_read_all(b->fd, b->file, b->size);
	if (r)
		error_set(err, -r, "cannot read the kernel %s: %s; copy it again", b->name,
			  boot_read_problem(r));
	else
		r = parse_kernel(b, err);
	if (r)
		boot_image_drop(b);
	return r;
}

void boot_image_drop(struct boot_image *b)
{
	if (b->fd < 0)
		return;
	free(b->file);
	b->file = NULL;
}

int boot_image_parse(const char *name, const uint8_t *data, size_t size, struct boot_image **ret,
		     struct error *err)
{
	struct boot_image *b = image_new(name);
	if (!b)
		return no_memory(name, err);
	b->size = size;
	b->file = malloc(size ? size : 1);
	if (b->file)
		memcpy(b->file, data, size);
	int r = b->file ? parse_kernel(b, err) : no_memory(name, err);
	if (r)
		boot_image_free(b);
	else
		*ret = b;
	return r;
}

/* Opens what goes into memory with the kernel: the first len bytes of path; the arguments follow. */
static int open_beside(const char *what, const char *path, size_t len, struct boot_file *ret,
		       struct error *err)
{
	struct boot_file f = { .name = strndup(path, len), .fd = -1 };
	int r = 0;

	if (path[len])
		f.args = strdup(path + len + 1);
	if (!f.name || (path[len] && !f.args))
		r = error_set(err, ENOMEM, "no memory; free some and try again");
	if (!r) {
		f.fd = open_file(what, f.name, &f.size, err);
		r = f.fd < 0 ? f.fd : 0;
	}
	if (r)
		file_free(&f);
	else
		*ret = f;
	return r;
}

int boot_image_add_module(struct boot_image *b, const char *module, struct error *err)
{
	if (!b->is_multiboot)
		return error_set(err, EINVAL,
				 "--module %s: the kernel %s has no Multiboot header; leave --module out, "
				 "or give a RAM disk by --initrd",
				 module, b->name);
	if (b->nr_modules == BOOT_MAX_MODULES)
		return error_set(err, EINVAL, "--module %s: too many; give at most %u", module,
				 BOOT_MAX_MODULES);
	int r = open_beside("module", module, strcspn(module, " "), &b->modules[b->nr_modules], err);
	if (!r)
		b->nr_modules++;
	return r;
}

int boot_image_open(const char *kernel_path, const char *initrd_path, struct boot_image **ret,
		    struct error *err)
{
	struct boot_image *b = image_new(kernel_path);
	if (!b)
		return no_memory(kernel_path, err);
	b->fd = open_file("kernel", kernel_path, &b->file_size, err);
	int r = b->fd < 0 ? b->fd : 0;
	if (!r && b->file_size > KERNEL_FILE_MAX)
		r = error_set(err, EFBIG, "the kernel %s has %llu MiB, too much for a kernel; check the path",
			      kernel_path, (unsigned long long)(b->file_size >> 20));
	if (!r)
		r = boot_image_read(b, err);
	if (!r && initrd_path)
		r = open_beside("initrd", initrd_path, strlen(initrd_path), &b->initrd, err);
	if (r)
		boot_image_free(b);
	else
		*ret = b;
	return r;
}
