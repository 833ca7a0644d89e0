/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "dev/chardev.h"
#include "dev/test_board.h"

static struct test_board t;
static char dir[] = "/tmp/sill-chardev-XXXXXX";
static uint8_t in[8192];
static size_t in_len, in_room;
static unsigned writables, connects, disconnects;

static size_t room(void *opaque)
{
	(void)opaque;
	return in_room - in_len;
}

static void take(void *opaque, const uint8_t *buf, size_t len)
{
	(void)opaque;
	assert_true(len <= in_room - in_len);
	memcpy(in + in_len, buf, len);
	in_len += len;
}

static void writable(void *opaque)
{
	(void)opaque;
	writables++;
}

static void connected(void *opaque, bool yes)
{
	(void)opaque;
	if (yes)
		connects++;
	else
		disconnects++;
}

static const struct chardev_reader reader = { room, take, writable, connected, NULL };

static int setup(void **state)
{
	(void)state;
	test_board_init(&t);
	in_len = 0;
	in_room = sizeof(in);
	writables = connects = disconnects = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	test_board_fini(&t);
	return 0;
}

static void path_in_dir(char *buf, size_t size, const char *name)
{
	snprintf(buf, size, "%s/%s", dir, name);
}

static void pipes_with_flow_control(void **state)
{
	struct chardev *c;
	int to[2], from[2];
	char buf[64];

	(void)state;
	assert_int_equal(pipe(to), 0);
	assert_int_equal(pipe(from), 0);
	assert_int_equal(chardev_fd_new(t.b.loop, to[0], from[1], true, &c, NULL), 0);
	in_room = 4;
	chardev_set_reader(c, &reader);
	assert_int_equal(write(to[1], "0123456789", 10), 10);
	test_run(&t, 0);
	assert_int_equal(in_len, 4); /* no more than there is room for */
	in_room = 100;
	chardev_reader_ready(c);
	test_run(&t, 0);
	assert_int_equal(in_len, 10);
	assert_memory_equal(in, "0123456789", 10);
	assert_int_equal(chardev_write(c, "hello", 5), 5);
	test_run(&t, 5000000); /* the end of a line would not wait */
	assert_int_equal(read(from[0], buf, sizeof(buf)), 5);
	close(to[1]); /* end of input: quiet from now on */
	test_run(&t, 0);
	test_run(&t, 0);
	chardev_free(c);
	close(from[0]);
}

static void full_pipe_loses_nothing(void **state)
{
	struct chardev *c;
	int from[2];
	static uint8_t chunk[1000], buf[65536];
	size_t sent = 0, got = 0;

	(void)state;
	assert_int_equal(pipe(from), 0);
	assert_int_equal(chardev_fd_new(t.b.loop, -1, from[1], true, &c, NULL), 0);
	chardev_set_reader(c, &reader);
	for (;;) {
		for (size_t i = 0; i < sizeof(chunk); i++)
			chunk[i] = (sent + i) * 7 % 251;
		size_t n = chardev_write(c, chunk, sizeof(chunk));

		sent += n;
		if (n < sizeof(chunk))
			break;
	}
	assert_true(sent >= CHARDEV_BUFFER);
	assert_int_equal(writables, 0);
	while (got < sent) {
		ssize_t n = read(from[0], buf, sizeof(buf));

		assert_true(n > 0);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(buf[i], (got + i) * 7 % 251);
		got += n;
		test_run(&t, 0);
	}
	assert_int_equal(writables, 1);
	close(from[0]); /* nobody reads any more: what is written vanishes */
	chardev_write(c, chunk, 10);
	test_run(&t, 0);
	for (unsigned i = 0; i < 200; i++)
		assert_int_equal(chardev_write(c, chunk, sizeof(chunk)), sizeof(chunk));
	chardev_free(c);
}

static void plain_files(void **state)
{
	struct chardev *c;
	char path[64], buf[16];
	struct error err;

	(void)state;
	path_in_dir(path, sizeof(path), "log");
	assert_int_equal(chardev_file_new(t.b.loop, path, &c, NULL), 0);
	chardev_set_reader(c, &reader);
	assert_int_equal(connects, 1);
	assert_int_equal(chardev_write(c, "line\n", 5), 5);
	chardev_free(c);
	int fd = open(path, O_RDONLY);
	assert_int_equal(chardev_fd_new(t.b.loop, fd, -1, false, &c, NULL), 0);
	chardev_set_reader(c, &reader);
	test_run(&t, 0);
	assert_int_equal(in_len, 5);
	chardev_free(c);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_int_equal(read(fd, buf, sizeof(buf)), 5);
	close(fd);
	assert_int_equal(chardev_file_new(t.b.loop, "/nonexistent/x", &c, &err), -ENOENT);
	assert_non_null(strstr(err.message, "/nonexistent/x"));
	assert_int_equal(chardev_write(NULL, "x", 1), 1);
}

static int client(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(a.sun_path, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void unix_socket(void **state)
{
	struct chardev *c, *second;
	char path[64], buf[64];
	struct error err;

	(void)state;
	path_in_dir(path, sizeof(path), "console");
	assert_int_equal(chardev_unix_new(t.b.loop, path, &c, NULL), 0);
	chardev_set_reader(c, &reader);
	assert_int_equal(disconnects, 1);
	chardev_write(c, "early", 5); /* kept for the first client */
	int fd = client(path);
	test_run(&t, 0);
	assert_int_equal(connects, 1);
	assert_int_equal(read(fd, buf, sizeof(buf)), 5);
	assert_memory_equal(buf, "early", 5);
	/* What a client sent before it left is not lost, even if there is no room yet. */
	in_room = 2;
	assert_int_equal(write(fd, "bye!", 4), 4);
	close(fd);
	test_run(&t, 0);
	test_run(&t, 0);
	assert_int_equal(in_len, 2);
	in_room = 10;
	chardev_reader_ready(c);
	test_run(&t, 0);
	assert_int_equal(in_len, 4);
	assert_memory_equal(in, "bye!", 4);
	assert_int_equal(disconnects, 2);
	fd = client(path);
	test_run(&t, 0);
	chardev_write(c, "agai\n", 5);
	assert_int_equal(read(fd, buf, sizeof(buf)), 5);
	assert_int_equal(chardev_unix_new(t.b.loop, path, &second, &err), -EADDRINUSE);
	close(fd);
	chardev_free(c);
	assert_int_not_equal(access(path, F_OK), 0);
	/* A stale socket is replaced; another kind of file is not. */
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	strcpy(a.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	close(fd);
	assert_int_equal(chardev_unix_new(t.b.loop, path, &c, NULL), 0);
	chardev_free(c);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	close(fd);
	assert_int_equal(chardev_unix_new(t.b.loop, path, &c, &err), -EADDRINUSE);
	unlink(path);
}

static void no_client_keeps_the_newest(void **state)
{
	struct chardev *c;
	char path[64];
	uint8_t buf[256];
	size_t got = 0;

	(void)state;
	path_in_dir(path, sizeof(path), "console");
	assert_int_equal(chardev_unix_new(t.b.loop, path, &c, NULL), 0);
	for (unsigned i = 0; i < 1000; i++) {
		memset(buf, i, sizeof(buf));
		assert_int_equal(chardev_write(c, buf, sizeof(buf)), sizeof(buf));
	}
	int fd = client(path);
	uint8_t last = 0;
	while (got < CHARDEV_BUFFER) {
		test_run(&t, 0);
		ssize_t n = read(fd, buf, sizeof(buf));

		assert_true(n > 0);
		last = buf[n - 1];
		got += n;
	}
	assert_int_equal(last, 999 & 0xff);
	close(fd);
	chardev_free(c);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(pipes_with_flow_control),    T(full_pipe_loses_nothing), T(plain_files), T(unix_socket),
		T(no_client_keeps_the_newest),
	};

	signal(SIGPIPE, SIG_IGN);
	if (!mkdtemp(dir))
		return 1;
	int r = cmocka_run_group_tests(tests, NULL, NULL);
	char path[64];
	path_in_dir(path, sizeof(path), "log");
	unlink(path);
	rmdir(dir);
	return r;
}
