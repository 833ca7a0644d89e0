/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request is {"execute": NAME, "arguments": {...}, "id": ANY}; it is answered by
 * {"return": {...}, "id": ANY} or {"error": SENTENCE, "id": ANY}, in the order of
 * the requests.  A client's next request is looked at when the one before has been
 * answered; pausing and typing are answered when they are done, or the VM has ended.
 *
 * The socket belongs to the user alone (mode 0600), and so a client may do what
 * the user may; still its input is bounded and never trusted to be well-formed.
 */
#include "vm/control.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "dev/pc/acpi_pm.h"
#include "ui/keymap.h"
#include "ui/png.h"
#include "vm/vm_internal.h"

#include <linux/input-event-codes.h>

#define LINE_MAX_SIZE 65536u
#define OUT_MAX       (64u << 20)
#define KEY_NS        8000000 /* between a key's events: what slow firmware can follow */
#define KEYS_MAX      16384u

enum waits { WAITS_NOT, WAITS_STATE, WAITS_KEYS };

struct client {
	struct control *control;
	struct client *next;
	int fd;
	struct loop_watch watch;
	bool dead;
	enum waits waits;
	json_t *id; /* of the request that waits; NULL: it had none */
	char *in;
	size_t in_len;
	char *out;
	size_t out_len, out_pos;
};

struct key_event {
	uint16_t code;
	bool down;
};

struct control {
	struct vm *vm;
	char *path;
	int fd;
	struct loop_watch watch;
	struct client *clients;
	unsigned nr_clients;
	/* Keys that are still to be pressed and released. */
	struct key_event *keys;
	size_t nr_keys, at_key;
	struct loop_timer key_timer;
};

/* ---- answers ---- */

static void drop(struct client *c)
{
	c->dead = true;
}

/* Input that there is no room for waits in the socket: else the loop would go round for it. */
static void watch(struct client *c)
{
	if (!c->dead)
		loop_watch_mod(c->control->vm->loop, &c->watch,
			       (c->in_len < LINE_MAX_SIZE ? EPOLLIN : 0u) | (c->out_len ? EPOLLOUT : 0u));
}

static void flush(struct client *c)
{
	while (!c->dead && c->out_pos < c->out_len) {
		ssize_t n =
		    send(c->fd, c->out + c->out_pos, c->out_len - c->out_pos, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n > 0)
			c->out_pos += (size_t)n;
		else if (n < 0 && errno == EINTR)
			continue;
		else if (n < 0 && errno == EAGAIN)
			break;
		else
			drop(c);
	}
	if (c->out_pos == c->out_len)
		c->out_pos = c->out_len = 0;
	watch(c);
}

static void send_json(struct client *c, json_t *j)
{
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	size_t n = text ? strlen(text) : 0;
	json_decref(j);
	char *out = text && c->out_len + n + 1 < OUT_MAX ? realloc(c->out, c->out_len + n + 1) : NULL;
	if (!out) {
		free(text);
		drop(c);
		return;
	}
	memcpy(out + c->out_len, text, n);
	out[c->out_len + n] = '\n';
	c->out = out;
	c->out_len += n + 1;
	free(text);
	flush(c);
}

/* value is taken. */
static void answer(struct client *c, const char *what, json_t *value)
{
	json_t *j = json_object();
	json_object_set_new(j, what, value);
	if (c->id)
		json_object_set_new(j, "id", c->id);
	c->id = NULL;
	c->waits = WAITS_NOT;
	send_json(c, j);
}

static void ok(struct client *c)
{
	answer(c, "return", json_object());
}

static void refuse(struct client *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void refuse(struct client *c, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* Where it was cut may be inside a character, and a file's name need not be UTF-8. */
	json_t *sentence = json_string(text);
	for (size_t n = strlen(text); !sentence && n; sentence = json_string(text))
		text[--n] = 0;
	answer(c, "error", sentence);
}

/* ---- keys ---- */

static void consume(struct client *c);
static void reap(struct control *k);

static void next_key(void *opaque)
{
	struct control *k = opaque;
	struct vm *vm = k->vm;
	if (k->at_key < k->nr_keys) {
		struct key_event e = k->keys[k->at_key++];
		input_key(&vm->input, e.code, e.down);
		loop_timer_arm(&k->key_timer, clock_now_ns(&vm->clock) + KEY_NS);
		return;
	}
	k->at_key = k->nr_keys = 0;
	for (struct client *c = k->clients; c; c = c->next) {
		if (c->waits != WAITS_KEYS)
			continue;
		ok(c);
		consume(c); /* what it sent meanwhile */
	}
	reap(k);
}

static bool add_key(struct control *k, uint16_t code, bool down)
{
	if (k->nr_keys == KEYS_MAX)
		return false;
	if (!k->keys && !(k->keys = calloc(KEYS_MAX, sizeof(*k->keys))))
		return false;
	k->keys[k->nr_keys++] = (struct key_event){ code, down };
	if (!k->key_timer.armed)
		loop_timer_arm(&k->key_timer, clock_now_ns(&k->vm->clock));
	return true;
}

static bool has_keyboard(struct client *c)
{
	const struct vm *vm = c->control->vm;
	if (!vm->has_i8042 && !vm->config->virtio_input)
		refuse(c, "this VM has no keyboard; start it from firmware or with --display");
	else if (vm->paused)
		refuse(c, "the VM is paused and would not notice; resume it first");
	else
		return true;
	return false;
}

static void do_send_key(struct client *c, json_t *args)
{
	const char *text = json_string_value(json_object_get(args, "keys"));
	uint16_t chord[KEYMAP_MAX_CHORD];
	struct error err;
	unsigned n;
	if (!has_keyboard(c))
		return;
	if (!text) {
		refuse(c, "send-key: which? Give \"keys\", such as \"ctrl-alt-delete\"");
		return;
	}
	if (keymap_chord(text, chord, &n, &err) < 0) {
		refuse(c, "send-key: %s", err.message);
		return;
	}
	bool room = c->control->nr_keys + 2 * n <= KEYS_MAX;
	for (unsigned i = 0; i < n && room; i++)
		room = add_key(c->control, chord[i], true);
	for (unsigned i = n; i-- > 0 && room;)
		room = add_key(c->control, chord[i], false);
	if (room)
		c->waits = WAITS_KEYS;
	else
		refuse(c, "send-key: too much is being typed already; wait for it to end");
}

static void do_type(struct client *c, json_t *args)
{
	struct control *k = c->control;
	const char *text = json_string_value(json_object_get(args, "text"));
	bool shift;
	if (!has_keyboard(c))
		return;
	if (!text || !*text) {
		refuse(c, "type: what? Give \"text\"");
		return;
	}
	if (k->nr_keys + 4 * strlen(text) > KEYS_MAX) {
		refuse(c, "type: the text is too long; give at most %u characters at once", KEYS_MAX / 4);
		return;
	}
	for (const char *p = text; *p; p++) {
		if (!keymap_char((unsigned char)*p, &shift)) {
			refuse(
			    c,
			    "type: a US keyboard has no key for the character with the code %u; leave it out",
			    (unsigned char)*p);
			return;
		}
	}
	for (const char *p = text; *p; p++) {
		uint16_t code = keymap_char((unsigned char)*p, &shift);
		if (shift)
			add_key(k, KEY_LEFTSHIFT, true);
		add_key(k, code, true);
		add_key(k, code, false);
		if (shift)
			add_key(k, KEY_LEFTSHIFT, false);
	}
	c->waits = WAITS_KEYS;
}

/* x and y: pixels. buttons: names. */
static void do_mouse(struct client *c, json_t *args)
{
	struct vm *vm = c->control->vm;
	json_t *x = json_object_get(args, "x"), *y = json_object_get(args, "y"), *b;
	static const struct {
		const char *name;
		unsigned bit;
	} names[] = { { "left", INPUT_LEFT }, { "right", INPUT_RIGHT }, { "middle", INPUT_MIDDLE } };
	unsigned buttons = 0;
	size_t i;
	if (!has_keyboard(c))
		return;
	if (!vm->display.width) {
		refuse(c, "this VM has no screen; start it from firmware or with --display");
		return;
	}
	if (!json_is_integer(x) || !json_is_integer(y)) {
		refuse(c,
		       "mouse: where? Give \"x\" and \"y\" in pixels, and perhaps \"buttons\" and \"wheel\"");
		return;
	}
	json_array_foreach(json_object_get(args, "buttons"), i, b)
	{
		unsigned bit = 0;
		for (size_t n = 0; n < ARRAY_SIZE(names); n++)
			if (json_is_string(b) && !strcmp(json_string_value(b), names[n].name))
				bit = names[n].bit;
		if (!bit) {
			refuse(c, "mouse: a button is not known; use left, right and middle");
			return;
		}
		buttons |= bit;
	}
	int64_t px = json_integer_value(x), py = json_integer_value(y);
	int64_t wheel = json_integer_value(json_object_get(args, "wheel"));
	unsigned w = vm->display.width, h = vm->display.height;
	px = px < 0 ? 0 : px >= w ? w - 1 : px;
	py = py < 0 ? 0 : py >= h ? h - 1 : py;
	input_pointer(&vm->input, (int)(px * INPUT_ABS_MAX / (int64_t)max_u64(w - 1, 1)),
		      (int)(py * INPUT_ABS_MAX / (int64_t)max_u64(h - 1, 1)),
		      (int)(wheel < -127  ? -127
			    : wheel > 127 ? 127
					  : wheel),
		      buttons, w, h);
	ok(c);
}

/* ---- the machine ---- */

static const char *state_name(const struct vm *vm)
{
	return vm->paused ? "paused" : "running";
}

static json_t *cd_state(const struct vm *vm)
{
	json_t *list = json_array();
	for (unsigned i = 0; i < VM_MAX_CDS && vm->cds[i].drive; i++) {
		const struct vm_cd *cd = &vm->cds[i];
		json_array_append_new(list, json_pack("{s:i, s:s?, s:b, s:b}", "drive", (int)i, "file",
						      cd->block ? cd->path : NULL, "open", !cd->drive->block,
						      "locked", cd->drive->locked));
	}
	return list;
}

static void do_status(struct client *c, json_t *args)
{
	const struct vm *vm = c->control->vm;
	json_t *r = json_pack("{s:s, s:s, s:i, s:I, s:f}", "name", vm->config->name, "state", state_name(vm),
			      "cpus", (int)vm->nr_cpus, "memory", (json_int_t)vm->config->memory, "seconds",
			      (double)clock_now_ns(&vm->clock) / 1e9);
	(void)args;
	if (vm->display.width)
		json_object_set_new(r, "screen",
				    json_pack("{s:i, s:i}", "width", (int)vm->display.width, "height",
					      (int)vm->display.height));
	json_object_set_new(r, "cdroms", cd_state(vm));
	answer(c, "return", r);
}

static void want_state(struct client *c, bool paused)
{
	struct vm *vm = c->control->vm;
	if (vm->paused == paused) {
		ok(c);
		return;
	}
	c->waits = WAITS_STATE;
	vm_want_paused(vm, paused);
}

static void do_pause(struct client *c, json_t *args)
{
	(void)args;
	want_state(c, true);
}

static void do_resume(struct client *c, json_t *args)
{
	(void)args;
	want_state(c, false);
}

static void do_reset(struct client *c, json_t *args)
{
	(void)args;
	ok(c);
	vm_post_event(c->control->vm, VM_EVENT_BUTTON, NULL);
}

static void do_powerdown(struct client *c, json_t *args)
{
	(void)args;
	acpi_pm_power_button(c->control->vm->acpi_pm);
	ok(c);
}

static void do_quit(struct client *c, json_t *args)
{
	(void)args;
	ok(c);
	vm_post_event(c->control->vm, VM_EVENT(VM_END_USER), NULL);
}

static char *base64(const uint8_t *p, size_t n)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *out = malloc((n + 2) / 3 * 4 + 1), *q = out;
	if (!out)
		return NULL;
	for (size_t i = 0; i < n; i += 3) {
		uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) |
			     (i + 2 < n ? p[i + 2] : 0);
		*q++ = digits[v >> 18];
		*q++ = digits[v >> 12 & 63];
		*q++ = i + 1 < n ? digits[v >> 6 & 63] : '=';
		*q++ = i + 2 < n ? digits[v & 63] : '=';
	}
	*q = 0;
	return out;
}

static void do_screenshot(struct client *c, json_t *args)
{
	struct vm *vm = c->control->vm;
	_cleanup_free_ uint8_t *png = NULL;
	_cleanup_free_ char *text = NULL;
	size_t n;
	(void)args;
	if (!vm->display.pixels) {
		refuse(c, "this VM has no screen; start it from firmware or with --display");
		return;
	}
	display_refresh(&vm->display, false);
	if (!png_encode(vm->display.pixels, vm->display.width, vm->display.height, &png, &n))
		text = base64(png, n);
	if (!text) {
		refuse(c, "no memory for the picture; free some and try again");
		return;
	}
	answer(c, "return",
	       json_pack("{s:i, s:i, s:s}", "width", (int)vm->display.width, "height",
			 (int)vm->display.height, "png", text));
}

static void do_screen_text(struct client *c, json_t *args)
{
	struct vm *vm = c->control->vm;
	_cleanup_free_ char *text = vm->display.text ? vm->display.text(vm->display.opaque) : NULL;
	(void)args;
	if (text)
		answer(c, "return", json_pack("{s:s}", "text", text));
	else
		refuse(c, "the screen shows no text mode; take a screenshot");
}

static struct vm_cd *find_cd(struct client *c, json_t *args)
{
	struct vm *vm = c->control->vm;
	json_int_t i = json_integer_value(json_object_get(args, "drive"));
	if (i >= 0 && i < VM_MAX_CDS && vm->cds[i].drive)
		return &vm->cds[i];
	refuse(c, "there is no CD drive %lld; \"status\" lists them", (long long)i);
	return NULL;
}

static bool may_open(struct client *c, json_t *args, const struct vm_cd *cd)
{
	if (!cd->drive->locked || json_is_true(json_object_get(args, "force")))
		return true;
	refuse(c, "the guest keeps the drive locked; have it unmount the disc, or give \"force\": true");
	return false;
}

static void do_eject(struct client *c, json_t *args)
{
	struct vm_cd *cd = find_cd(c, args);
	if (!cd || !may_open(c, args, cd))
		return;
	vm_cd_insert(c->control->vm, cd, NULL, NULL);
	ok(c);
}

static void do_insert(struct client *c, json_t *args)
{
	const char *path = json_string_value(json_object_get(args, "file"));
	struct error err;
	struct vm_cd *cd;
	if (!path) {
		refuse(c, "insert: which disc? Give \"file\"");
		return;
	}
	cd = find_cd(c, args);
	if (!cd || !may_open(c, args, cd))
		return;
	if (vm_cd_insert(c->control->vm, cd, path, &err) < 0)
		refuse(c, "insert: %s", err.message);
	else
		ok(c);
}

static void do_stats(struct client *c, json_t *args)
{
	struct vm *vm = c->control->vm;
	json_t *cpus = json_array();
	(void)args;
	for (unsigned i = 0; i < vm->nr_cpus; i++) {
		json_t *o = json_object();
		const char *name;
		uint64_t value;
		for (unsigned k = 0; vm_stat(vm, i, k, &name, &value); k++)
			json_object_set_new(o, name, json_integer((json_int_t)value));
		json_array_append_new(cpus, o);
	}
	answer(c, "return", json_pack("{s:s, s:o}", "engine", vm->ops->name, "cpus", cpus));
}

static void do_help(struct client *c, json_t *args);

static const struct {
	const char *name;
	void (*run)(struct client *c, json_t *args);
} commands[] = {
	{ "help", do_help },
	{ "status", do_status },
	{ "pause", do_pause },
	{ "resume", do_resume },
	{ "reset", do_reset },
	{ "powerdown", do_powerdown },
	{ "quit", do_quit },
	{ "screenshot", do_screenshot },
	{ "screen-text", do_screen_text },
	{ "send-key", do_send_key },
	{ "type", do_type },
	{ "mouse", do_mouse },
	{ "eject", do_eject },
	{ "insert", do_insert },
	{ "stats", do_stats },
};

static void do_help(struct client *c, json_t *args)
{
	json_t *list = json_array();
	(void)args;
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		json_array_append_new(list, json_string(commands[i].name));
	answer(c, "return", json_pack("{s:o}", "commands", list));
}

/* ---- requests ---- */

static void execute(struct client *c, const char *line, size_t len)
{
	json_error_t e;
	json_t *j = json_loadb(line, len, JSON_REJECT_DUPLICATES, &e);
	const char *name = json_string_value(json_object_get(j, "execute"));
	c->id = json_incref(json_object_get(j, "id"));
	if (!j) {
		refuse(c, "a line is no JSON (%s); send one object a line", e.text);
	} else if (!name) {
		refuse(c, "a request names no command; send {\"execute\": NAME}, \"help\" lists them");
	} else {
		size_t i = 0;
		while (i < ARRAY_SIZE(commands) && strcmp(commands[i].name, name) != 0)
			i++;
		if (i < ARRAY_SIZE(commands))
			commands[i].run(c, json_object_get(j, "arguments"));
		else
			refuse(c, "there is no command \"%s\"; \"help\" lists them", name);
	}
	json_decref(j);
}

static void consume(struct client *c)
{
	char *end;
	while (!c->dead && c->waits == WAITS_NOT && (end = memchr(c->in, '\n', c->in_len))) {
		size_t n = (size_t)(end - c->in);
		if (n && !(n == 1 && c->in[0] == '\r'))
			execute(c, c->in, n);
		c->in_len -= n + 1;
		memmove(c->in, end + 1, c->in_len);
	}
	if (c->in_len == LINE_MAX_SIZE && c->waits == WAITS_NOT) {
		refuse(c, "a line has more than %u bytes; send less at once", LINE_MAX_SIZE);
		drop(c);
	}
	watch(c);
}

static void client_free(struct client *c)
{
	loop_watch_del(c->control->vm->loop, &c->watch);
	close(c->fd);
	json_decref(c->id);
	free(c->in);
	free(c->out);
	free(c);
}

static void reap(struct control *k)
{
	for (struct client **p = &k->clients; *p;) {
		struct client *c = *p;
		if (!c->dead) {
			p = &c->next;
			continue;
		}
		*p = c->next;
		k->nr_clients--;
		client_free(c);
	}
}

static void client_event(void *opaque, uint32_t events)
{
	struct client *c = opaque;
	struct control *k = c->control;
	if (c->in_len == LINE_MAX_SIZE && (events & (EPOLLHUP | EPOLLERR)))
		drop(c); /* nobody is there to be answered */
	if (c->in_len < LINE_MAX_SIZE) {
		ssize_t n = recv(c->fd, c->in + c->in_len, LINE_MAX_SIZE - c->in_len, MSG_DONTWAIT);
		if (n > 0)
			c->in_len += (size_t)n;
		else if (n == 0 || (errno != EAGAIN && errno != EINTR))
			drop(c);
	}
	if (!c->dead)
		flush(c);
	consume(c);
	reap(k);
}

void control_state_changed(struct control *k)
{
	if (!k)
		return;
	for (struct client *c = k->clients; c; c = c->next) {
		if (c->waits != WAITS_STATE)
			continue;
		ok(c);
		consume(c);
	}
	reap(k);
}

int control_add_client(struct control *k, int fd)
{
	struct client *c = k->nr_clients < CONTROL_MAX_CLIENTS ? calloc(1, sizeof(*c)) : NULL;
	if (c && !(c->in = malloc(LINE_MAX_SIZE))) {
		free(c);
		c = NULL;
	}
	if (!c) {
		log_warn("a control client is refused: there are %u already", k->nr_clients);
		close(fd);
		return -EAGAIN;
	}
	fcntl(fd, F_SETFL, O_NONBLOCK);
	c->control = k;
	c->fd = fd;
	c->watch = (struct loop_watch){ .fd = fd, .events = EPOLLIN, .fn = client_event, .opaque = c };
	int r = loop_watch_add(k->vm->loop, &c->watch);
	if (r < 0) {
		close(fd);
		free(c->in);
		free(c);
		return r;
	}
	c->next = k->clients;
	k->clients = c;
	k->nr_clients++;
	send_json(c, json_pack("{s:{s:s, s:i, s:s}}", "sill", "version", SILL_VERSION, "control",
			       CONTROL_VERSION, "vm", k->vm->config->name));
	return 0;
}

static void accept_event(void *opaque, uint32_t events)
{
	struct control *k = opaque;
	(void)events;
	int fd = accept4(k->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0)
		control_add_client(k, fd);
}

/* ---- listening ---- */

static int listen_at(struct control *k, const char *path, struct error *err)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct stat st;
	if (strlen(path) >= sizeof(a.sun_path))
		return error_set(err, ENAMETOOLONG,
				 "--control %s: the path is too long for a socket; give a shorter one", path);
	strcpy(a.sun_path, path);
	k->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (k->fd >= 0 && !lstat(path, &st) && S_ISSOCK(st.st_mode) &&
	    connect(k->fd, (struct sockaddr *)&a, sizeof(a)) < 0 && errno == ECONNREFUSED)
		unlink(path); /* left behind by a VM that is gone */
	mode_t old = umask(0177);
	int r = k->fd < 0 || bind(k->fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(k->fd, 8) < 0
		    ? -errno
		    : 0;
	umask(old);
	if (r == -EADDRINUSE)
		return error_set(err, EADDRINUSE,
				 "--control %s: in use by another VM, or no socket; give another path", path);
	if (r)
		return error_set(err, -r, "--control %s: cannot listen there: %s", path, strerror(-r));
	k->path = strdup(path);
	return 0;
}

int control_new(struct vm *vm, const char *path, struct control **ret, struct error *err)
{
	struct control *k = calloc(1, sizeof(*k));
	if (!k)
		return error_set(err, ENOMEM, "no memory for the control socket; free some and try again");
	k->vm = vm;
	k->fd = -1;
	loop_timer_init(vm->loop, &k->key_timer, next_key, k);
	int r = listen_at(k, path, err);
	if (!r) {
		k->watch =
		    (struct loop_watch){ .fd = k->fd, .events = EPOLLIN, .fn = accept_event, .opaque = k };
		r = loop_watch_add(vm->loop, &k->watch);
		if (r)
			error_set(err, -r, "the control socket cannot wait for clients: %s", strerror(-r));
	}
	if (r) {
		if (k->fd >= 0)
			close(k->fd);
		free(k->path);
		free(k);
		return r;
	}
	*ret = k;
	return 0;
}

/* The VM is gone, perhaps by what was typed: then all that matters was. */
static bool all_pressed(const struct control *k)
{
	for (size_t i = k->at_key; i < k->nr_keys; i++)
		if (k->keys[i].down)
			return false;
	return true;
}

void control_free(struct control *k)
{
	if (!k)
		return;
	for (struct client *c = k->clients; c; c = c->next) {
		if (c->waits == WAITS_KEYS && all_pressed(k))
			ok(c);
		else if (c->waits != WAITS_NOT)
			refuse(c, "the VM ended before that was done");
		flush(c); /* the last answer */
		drop(c);
	}
	reap(k);
	loop_timer_cancel(&k->key_timer);
	loop_watch_del(k->vm->loop, &k->watch);
	close(k->fd);
	unlink(k->path);
	free(k->path);
	free(k->keys);
	free(k);
}
