/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/ctl.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"

enum { STATUS_OK = 0, STATUS_FAILED = 1, STATUS_USAGE = 2 };

static const struct command {
	const char *name, *usage, *help;
	int min, max; /* arguments */
} commands[] = {
	{ "status", "", "what state the VM is in", 0, 0 },
	{ "pause", "", "stop its processors and its time", 0, 0 },
	{ "resume", "", "let it go on", 0, 0 },
	{ "reset", "", "press its reset button", 0, 0 },
	{ "powerdown", "", "press its power button: the guest shuts down", 0, 0 },
	{ "quit", "", "end the VM at once", 0, 0 },
	{ "screenshot", "FILE.png", "save a picture of its screen", 1, 1 },
	{ "screen-text", "", "print what a text-mode screen shows", 0, 0 },
	{ "send-key", "KEYS...", "press keys, such as ctrl-alt-delete, ret, f1", 1, INT_MAX },
	{ "type", "TEXT", "type text; \\n is Enter", 1, 1 },
	{ "mouse", "X Y [BUTTON...]", "move the pointer; hold left, right, middle", 2, 5 },
	{ "eject", "[DRIVE]", "take the disc out of a CD drive (default 0)", 0, 1 },
	{ "insert", "FILE [DRIVE]", "put a disc into a CD drive (default 0)", 1, 2 },
	{ "stats", "", "what the engine did", 0, 0 },
};

static void print_help(FILE *f)
{
	fprintf(f,
		"usage: sill ctl VM COMMAND [ARGUMENT...] [--json]\n\n"
		"VM: the name of a VM that runs with --control on, or the path of its control socket.\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		char left[64];
		snprintf(left, sizeof(left), "%s %s", commands[i].name, commands[i].usage);
		fprintf(f, "  %-26s %s\n", left, commands[i].help);
	}
	fprintf(f, "\n--json prints the VM's answer as it is.\n");
}

/* ---- the socket ---- */

char *control_default_path(const char *name)
{
	const char *run = getenv("XDG_RUNTIME_DIR");
	char *path;
	int n;
	if (!*name || strchr(name, '/') || name[0] == '.')
		return NULL;
	if (run && run[0] == '/')
		n = asprintf(&path, "%s/sill/%s.control", run, name);
	else
		n = asprintf(&path, "/tmp/sill-%u/%s.control", (unsigned)getuid(), name);
	return n < 0 ? NULL : path;
}

int control_make_folder(const char *path, struct error *err)
{
	_cleanup_free_ char *folder = strdup(path);
	struct stat st;
	if (!folder)
		return error_set(err, ENOMEM, "no memory; free some and try again");
	*strrchr(folder, '/') = 0;
	if (mkdir(folder, 0700) < 0 && errno != EEXIST)
		return error_set(err, errno,
				 "%s: cannot be made for the control socket: %s; give --control unix:PATH",
				 folder, strerror(errno));
	/* In /tmp somebody else may have been there first. */
	if (lstat(folder, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != getuid() || (st.st_mode & 022))
		return error_set(err, EPERM,
				 "%s: not a folder of yours alone, so no place for a control socket; give "
				 "--control unix:PATH",
				 folder);
	return 0;
}

static int connect_to(const char *vm, FILE **ret)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	_cleanup_free_ char *path = NULL;
	if (!strncmp(vm, "unix:", 5))
		path = strdup(vm + 5);
	else
		path = strchr(vm, '/') ? strdup(vm) : control_default_path(vm);
	if (!path || strlen(path) >= sizeof(a.sun_path)) {
		log_error("%s: no name of a VM and no path of a socket; give one of them", vm);
		return -EINVAL;
	}
	strcpy(a.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		int r = errno;
		log_error("%s: %s; is the VM running with --control?", path, strerror(r));
		if (fd >= 0)
			close(fd);
		return -r;
	}
	*ret = fdopen(fd, "r+");
	return *ret ? 0 : -ENOMEM;
}

/* The next object from the VM, or NULL with a message. */
static json_t *receive(FILE *f)
{
	_cleanup_free_ char *line = NULL;
	size_t cap = 0;
	json_error_t e;
	ssize_t n = getline(&line, &cap, f);
	json_t *j = n > 0 ? json_loadb(line, (size_t)n, 0, &e) : NULL;
	if (!j)
		log_error(n > 0 ? "the VM sent something that is no JSON; is this its control socket?"
				: "the VM closed the connection");
	return j;
}

/* One request; its "return", or NULL with a message. */
static json_t *request(FILE *f, const char *name, json_t *arguments)
{
	json_t *j = json_pack("{s:s, s:o}", "execute", name, "arguments", arguments);
	char *text = json_dumps(j, JSON_COMPACT);
	json_decref(j);
	if (!text)
		return NULL;
	fprintf(f, "%s\n", text);
	free(text);
	fflush(f);
	json_t *reply = receive(f);
	if (!reply)
		return NULL;
	const char *error = json_string_value(json_object_get(reply, "error"));
	json_t *value = json_incref(json_object_get(reply, "return"));
	if (error)
		log_error("%s", error);
	else if (!value)
		log_error("the VM's answer is not understood; is it of another version?");
	json_decref(reply);
	return value;
}

/* ---- commands ---- */

static int from_base64(const char *s, uint8_t **ret, size_t *ret_len)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t n = strlen(s), len = 0;
	uint8_t *out = malloc(n / 4 * 3 + 3);
	uint32_t acc = 0;
	unsigned have = 0;
	if (!out)
		return -ENOMEM;
	for (; *s && *s != '='; s++) {
		const char *d = strchr(digits, *s);
		if (!d) {
			free(out);
			return -EINVAL;
		}
		acc = acc << 6 | (uint32_t)(d - digits);
		have += 6;
		if (have >= 8) {
			have -= 8;
			out[len++] = (uint8_t)(acc >> have);
		}
	}
	*ret = out;
	*ret_len = len;
	return 0;
}

static int save_png(json_t *reply, const char *path)
{
	const char *text = json_string_value(json_object_get(reply, "png"));
	_cleanup_free_ uint8_t *data = NULL;
	size_t n;
	if (!text || from_base64(text, &data, &n) < 0) {
		log_error("the VM's picture is damaged; try again");
		return STATUS_FAILED;
	}
	FILE *f = fopen(path, "we");
	bool ok = f && fwrite(data, 1, n, f) == n;
	if (f && fclose(f) != 0)
		ok = false;
	if (!ok) {
		log_error("%s: %s", path, strerror(errno));
		return STATUS_FAILED;
	}
	return STATUS_OK;
}

static void print_value(const char *name, json_t *v, int indent)
{
	const char *key;
	json_t *x;
	size_t i;
	if (json_is_object(v)) {
		if (*name)
			printf("%*s%s:\n", indent, "", name);
		json_object_foreach(v, key, x) print_value(key, x, *name ? indent + 2 : indent);
	} else if (json_is_array(v)) {
		json_array_foreach(v, i, x)
		{
			char title[64];
			snprintf(title, sizeof(title), "%s %zu", name, i);
			print_value(title, x, indent);
		}
	} else if (!json_is_null(v)) {
		_cleanup_free_ char *text = json_is_string(v)
						? strdup(json_string_value(v))
						: json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
		printf("%*s%-*s %s\n", indent, "", 24 - indent, name, text ? text : "");
	}
}

/* \n and \\ as people write them on a command line. */
static char *unescape(const char *s)
{
	char *out = malloc(strlen(s) + 1), *q = out;
	for (; out && *s; s++) {
		if (s[0] == '\\' && (s[1] == 'n' || s[1] == '\\' || s[1] == 't')) {
			*q++ = s[1] == 'n' ? '\n' : s[1] == 't' ? '\t' : '\\';
			s++;
		} else {
			*q++ = *s;
		}
	}
	if (out)
		*q = 0;
	return out;
}

static json_t *number(const char *text)
{
	char *end;
	long v = strtol(text, &end, 10);
	return *text && !*end ? json_integer(v) : json_string(text);
}

/* The arguments of one request; NULL: no memory. */
static json_t *arguments(const char *name, int argc, char **argv)
{
	json_t *a = json_object();
	if (!strcmp(name, "type")) {
		_cleanup_free_ char *text = unescape(argv[0]);
		json_object_set_new(a, "text", json_string(text ? text : ""));
	} else if (!strcmp(name, "mouse")) {
		json_t *buttons = json_array();
		json_object_set_new(a, "x", number(argv[0]));
		json_object_set_new(a, "y", number(argv[1]));
		for (int i = 2; i < argc; i++)
			json_array_append_new(buttons, json_string(argv[i]));
		json_object_set_new(a, "buttons", buttons);
	} else if (!strcmp(name, "insert")) {
		char *path = realpath(argv[0], NULL);
		json_object_set_new(a, "file", json_string(path ? path : argv[0]));
		free(path);
		if (argc > 1)
			json_object_set_new(a, "drive", number(argv[1]));
	} else if (!strcmp(name, "eject") && argc) {
		json_object_set_new(a, "drive", number(argv[0]));
	} else if (!strcmp(name, "send-key")) {
		json_object_set_new(a, "keys", json_string(argv[0]));
	}
	return a;
}

static int run(FILE *f, const struct command *c, int argc, char **argv, bool json)
{
	/* Several chords are several requests. */
	int requests = !strcmp(c->name, "send-key") ? argc : 1;
	for (int i = 0; i < requests; i++) {
		json_t *reply = request(f, c->name, arguments(c->name, argc - i, argv + i));
		int status = STATUS_OK;
		if (!reply)
			return STATUS_FAILED;
		if (!strcmp(c->name, "screenshot")) {
			status = save_png(reply, argv[0]);
		} else if (!strcmp(c->name, "screen-text") && !json) {
			fputs(json_string_value(json_object_get(reply, "text")), stdout);
		} else if (json) {
			json_dumpf(reply, stdout, JSON_INDENT(2));
			putchar('\n');
		} else {
			print_value("", reply, 0);
		}
		json_decref(reply);
		if (status)
			return status;
	}
	return STATUS_OK;
}

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

int command_ctl(int argc, char **argv)
{
	bool json = false;
	int n = 0;
	FILE *f = NULL;
	for (int i = 0; i < argc; i++) {
		if (!strcmp(argv[i], "--help")) {
			print_help(stdout);
			return STATUS_OK;
		}
		if (!strcmp(argv[i], "--json"))
			json = true;
		else
			argv[n++] = argv[i];
	}
	const struct command *c = n >= 2 ? find_command(argv[1]) : NULL;
	if (n < 2) {
		log_error("ctl: which VM, and what should it do? See sill ctl --help");
		return STATUS_USAGE;
	}
	if (!c) {
		log_error("ctl: there is no command \"%s\"; see sill ctl --help", argv[1]);
		return STATUS_USAGE;
	}
	if (n - 2 < c->min || n - 2 > c->max) {
		log_error("ctl: usage: sill ctl VM %s %s", c->name, c->usage);
		return STATUS_USAGE;
	}
	if (connect_to(argv[0], &f) < 0)
		return STATUS_FAILED;
	json_t *greeting = receive(f);
	int status = greeting ? run(f, c, n - 2, argv + 2, json) : STATUS_FAILED;
	json_decref(greeting);
	fclose(f);
	return status;
}
