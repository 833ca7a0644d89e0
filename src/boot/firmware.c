/* SPDX-License-Identifier: Apache-2.0 */
#include "boot/firmware.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "boot/image.h"

/* What Debian's packages install in their data folder, in the order of preference. */
static const struct known {
	const char *name, *package;
	const char *code, *vars; /* vars: the template */
} known[] = {
	{ "bios", "seabios", "seabios/bios-256k.bin", NULL },
	{ "uefi", "ovmf", "OVMF/OVMF_CODE_4M.fd", "OVMF/OVMF_VARS_4M.fd" },
	{ "uefi", "ovmf", "OVMF/OVMF_CODE.fd", "OVMF/OVMF_VARS.fd" },
	/* The build that demands system management mode is for other chipsets; this one checks signatures
	   too. */
	{ "uefi-secure", "ovmf", "OVMF/OVMF_CODE_4M.fd", "OVMF/OVMF_VARS_4M.ms.fd" },
	{ "uefi-secure", "ovmf", "OVMF/OVMF_CODE.fd", "OVMF/OVMF_VARS.ms.fd" },
};

/* A file's path, malloc'd; NULL: no memory. */
static char *in_folder(const char *folder, const char *name)
{
	char *path;
	return asprintf(&path, "%s%s", folder, name) < 0 ? NULL : path;
}

static const struct known *find_known(const char *folder, const char *name)
{
	const struct known *first = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (strcmp(known[i].name, name) != 0)
			continue;
		_cleanup_free_ char *path = in_folder(folder, known[i].code);
		if (path && !access(path, R_OK))
			return &known[i];
		first = first ? first : &known[i];
	}
	return first;
}

/* ---- reading ---- */

static int read_image(int fd, const char *path, uint8_t **ret, size_t *ret_size, struct error *err)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return error_set(err, errno, "%s: cannot be looked at: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_size < FIRMWARE_GRAIN || st.st_size > FIRMWARE_MAX_SIZE ||
	    st.st_size % FIRMWARE_GRAIN)
		return error_set(
		    err, EINVAL,
		    "%s: no firmware image (a file of whole 4K pages up to 16M); give bios, uefi or the "
		    "path of one",
		    path);
	size_t size = (size_t)st.st_size;
	uint8_t *p = malloc(size);
	if (!p)
		return error_set(err, ENOMEM, "%s: no memory for the firmware; free some and try again",
				 path);
	int r = boot_read_all(fd, p, size);
	if (r) {
		free(p);
		return error_set(err, -r, "%s: cannot be read: %s", path, boot_read_problem(r));
	}
	*ret = p;
	*ret_size = size;
	return 0;
}

static int open_code(struct firmware *f, const struct known *k, struct error *err)
{
	_cleanup_close_ int fd = open(f->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && k)
		return error_set(err, errno, "--firmware %s: %s: %s; install the package %s", k->name,
				 f->path, strerror(errno), k->package);
	if (fd < 0)
		return error_set(err, errno,
				 "--firmware %s: %s; give bios, uefi, uefi-secure or the path of an image",
				 f->path, strerror(errno));
	return read_image(fd, f->path, &f->code, &f->code_size, err);
}

/* ---- the variable store ---- */

static int make_parents(char *path)
{
	for (char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = 0;
		int r = mkdir(path, 0700);
		*p = '/';
		if (r < 0 && errno != EEXIST)
			return -errno;
	}
	return 0;
}

/* Where the VM keeps its own: below the user's state folder (XDG base directory specification). */
static char *default_path(const char *vm_name, const char *what)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	char *path = NULL;
	int n;
	if (strchr(vm_name, '/') || vm_name[0] == '.')
		return NULL;
	if (state && state[0] == '/')
		n = asprintf(&path, "%s/sill/%s/%s-vars.fd", state, vm_name, what);
	else
		n = asprintf(&path, "%s/.local/state/sill/%s/%s-vars.fd", home && *home ? home : "/tmp",
			     vm_name, what);
	return n < 0 ? NULL : path;
}

/* Makes the store from the template, whole or not at all. */
static int create_store(const struct firmware *f, const char *template, struct error *err)
{
	_cleanup_free_ uint8_t *data = NULL;
	_cleanup_free_ char *temporary = NULL;
	size_t size;
	_cleanup_close_ int from = open(template, O_RDONLY | O_CLOEXEC);
	if (from < 0)
		return error_set(err, errno, "%s: %s; install the package ovmf", template, strerror(errno));
	int r = read_image(from, template, &data, &size, err);
	if (r)
		return r;
	if (asprintf(&temporary, "%s.%ld.new", f->vars_path, (long)getpid()) < 0)
		return error_set(err, ENOMEM, "no memory; free some and try again");
	int to = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	bool ok = to >= 0 && write(to, data, size) == (ssize_t)size && !fsync(to);
	r = errno;
	if (to >= 0)
		close(to);
	/* link, not rename: another process may have made it meanwhile, and then that one counts. */
	if (ok && link(temporary, f->vars_path) < 0 && errno != EEXIST) {
		ok = false;
		r = errno;
	}
	unlink(temporary);
	return ok ? 0
		  : error_set(err, r,
			      "%s: the firmware's variable store cannot be made: %s; give another with vars=",
			      f->vars_path, strerror(r));
}

static int open_store(struct firmware *f, const char *template, const char *what, const char *vars,
		      const char *vm_name, struct error *err)
{
	f->vars_path = vars ? strdup(vars) : default_path(vm_name, what);
	if (!f->vars_path)
		return error_set(
		    err, EINVAL,
		    "--name %s: not usable in a file name, so the firmware's variable store needs a place; "
		    "give vars=FILE",
		    vm_name);
	int r = make_parents(f->vars_path);
	f->vars_fd = r ? -1 : open(f->vars_path, O_RDWR | O_CLOEXEC);
	if (!r && f->vars_fd < 0 && errno == ENOENT) {
		r = create_store(f, template, err);
		if (r)
			return r;
		f->vars_fd = open(f->vars_path, O_RDWR | O_CLOEXEC);
	}
	if (f->vars_fd < 0)
		return error_set(
		    err, r ? -r : errno,
		    "%s: the firmware's variable store cannot be opened: %s; give another with vars=",
		    f->vars_path, strerror(r ? -r : errno));
	if (flock(f->vars_fd, LOCK_EX | LOCK_NB) < 0)
		return error_set(
		    err, EBUSY,
		    "%s: the firmware's variable store is in use by another VM; give this one a --name of "
		    "its own, or vars=FILE",
		    f->vars_path);
	return read_image(f->vars_fd, f->vars_path, &f->vars, &f->vars_size, err);
}

/* ---- option ROMs ---- */

int firmware_read_rom(const char *folder, const char *name, const char *package, uint8_t **ret,
		      size_t *ret_size, struct error *err)
{
	char path[256];
	struct stat st;
	snprintf(path, sizeof(path), "%s%s", folder, name);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return error_set(err, errno, "%s: %s; install the package %s", path, strerror(errno),
				 package);
	if (fstat(fd, &st) < 0 || st.st_size < 512 || st.st_size > (1 << 20))
		return error_set(err, EINVAL, "%s: no option ROM; install the package %s anew", path,
				 package);
	size_t size = (size_t)st.st_size;
	uint8_t *p = malloc(size);
	int r = p ? boot_read_all(fd, p, size) : -ENOMEM;
	if (r) {
		free(p);
		return error_set(err, -r, "%s: cannot be read: %s", path, boot_read_problem(r));
	}
	*ret = p;
	*ret_size = size;
	return 0;
}

/* ---- both ---- */

int firmware_open(const char *folder, const char *what, const char *vars, const char *vm_name,
		  struct firmware **ret, struct error *err)
{
	const struct known *k = find_known(folder, what);
	_cleanup_free_ char *template = k && k->vars ? in_folder(folder, k->vars) : NULL;
	struct firmware *f = calloc(1, sizeof(*f));
	if (f) {
		f->vars_fd = -1;
		f->path = k ? in_folder(folder, k->code) : strdup(what);
	}
	if (!f || !f->path || (k && k->vars && !template)) {
		firmware_free(f);
		return error_set(err, ENOMEM, "no memory for the firmware; free some and try again");
	}
	int r = open_code(f, k, err);
	if (!r && template)
		r = open_store(f, template, k->name, vars, vm_name, err);
	else if (!r && vars)
		r = error_set(err, EINVAL,
			      "vars=%s: only --firmware uefi and uefi-secure keep variables; leave it out",
			      vars);
	if (!r && f->code_size + f->vars_size > FIRMWARE_MAX_SIZE)
		r = error_set(err, EINVAL, "%s and %s: too big together; they must fit into 16M", f->path,
			      f->vars_path ? f->vars_path : "-");
	if (r) {
		firmware_free(f);
		return r;
	}
	*ret = f;
	return 0;
}

void firmware_free(struct firmware *f)
{
	if (!f)
		return;
	if (f->vars_fd >= 0)
		close(f->vars_fd);
	free(f->path);
	free(f->code);
	free(f->vars_path);
	free(f->vars);
	free(f);
}
