/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C workloads of the benchmark. One static program, so that the same bytes run on the host and
 * in each virtual machine, whatever C library they have.
 *
 *	sillbench WORKLOAD SCALE [ARGUMENT...]
 *	sillbench time NAME COMMAND [ARGUMENT...]
 *	sillbench serve
 *
 * Each run ends with a line "BENCH name seconds". The time is CLOCK_MONOTONIC's and leaves out the
 * preparation, so that booting, loading and the console do not count. SCALE multiplies the amount of
 * work: 1 means one to three seconds on the reference machine.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <immintrin.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

static double scale = 1;
static volatile uint64_t sink; /* results go here, so that no work is dead */

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void fail(const char *what)
{
	fprintf(stderr, "sillbench: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void report(const char *name, double seconds)
{
	printf("BENCH %s %.6f\n", name, seconds);
	fflush(stdout);
}

/* How often to do what is done n times at scale 1. */
static long times(long n)
{
	long r = (long)((double)n * scale);
	return r > 0 ? r : 1;
}

static void *map(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		fail("mmap");
	return p;
}

/* ---- the processor ---- */

static double integer(char **args)
{
	enum { N = 1 << 20 };
	(void)args;
	uint8_t *composite = malloc(N);
	double start = now();
	uint64_t primes = 0;
	for (long round = times(800); round > 0; round--) {
		memset(composite, 0, N);
		for (uint32_t i = 2; i < N; i++) {
			if (composite[i])
				continue;
			primes++;
			for (uint64_t j = (uint64_t)i * i; j < N; j += i)
				composite[j] = 1;
		}
	}
	sink = primes;
	return now() - start;
}

/* A register machine of eight opcodes that runs a Collatz search: a switch per instruction. */
enum { OP_MOV, OP_ADDI, OP_MULADD, OP_SHR, OP_JODD, OP_JNE1, OP_JLT, OP_HALT };
struct op {
	uint8_t code, a, b, pad;
	int32_t value;
};

__attribute__((noinline)) static uint64_t interpret(const struct op *program, uint64_t *r)
{
	const struct op *pc = program;
	uint64_t count = 0;
	for (;; count++) {
		const struct op *i = pc++;
		switch (i->code) {
		case OP_MOV:
			r[i->a] = r[i->b];
			break;
		case OP_ADDI:
			r[i->a] += (uint64_t)(int64_t)i->value;
			break;
		case OP_MULADD:
			r[i->a] = r[i->a] * 3 + 1;
			break;
		case OP_SHR:
			r[i->a] >>= i->value;
			break;
		case OP_JODD:
			if (r[i->a] & 1)
				pc = program + i->value;
			break;
		case OP_JNE1:
			if (r[i->a] != 1)
				pc = program + i->value;
			break;
		case OP_JLT:
			if (r[i->a] < r[i->b])
				pc = program + i->value;
			break;
		default:
			return count;
		}
	}
}

static double interpreter(char **args)
{
	(void)args;
	static const struct op program[] = {
		{ OP_ADDI, 0, 0, 0, 1 },   /* 0: the next value to start from */
		{ OP_MOV, 1, 0, 0, 0 },    /* 1 */
		{ OP_JODD, 1, 0, 0, 5 },   /* 2 */
		{ OP_SHR, 1, 0, 0, 1 },    /* 3: even: halve it */
		{ OP_JLT, 5, 4, 0, 6 },    /* 4: always */
		{ OP_MULADD, 1, 0, 0, 0 }, /* 5: odd */
		{ OP_ADDI, 2, 0, 0, 1 },   /* 6: steps */
		{ OP_JNE1, 1, 0, 0, 2 },   /* 7 */
		{ OP_JLT, 0, 4, 0, 0 },    /* 8 */
		{ OP_HALT, 0, 0, 0, 0 },   /* 9 */
	};
	uint64_t r[8] = { 1, 0, 0, 0, (uint64_t)times(2000000) };
	double start = now();
	sink = interpret(program, r);
	return now() - start;
}

static double matrix(char **args)
{
	enum { N = 320 };
	(void)args;
	double *a = map(N * N * 8), *b = map(N * N * 8), *c = map(N * N * 8);
	for (int i = 0; i < N * N; i++) {
		a[i] = i % 17 * 0.5;
		b[i] = i % 13 * 0.25;
	}
	double start = now();
	for (long round = times(60); round > 0; round--)
		for (int i = 0; i < N; i++)
			for (int j = 0; j < N; j++) {
				double sum = c[i * N + j];
				for (int k = 0; k < N; k++)
					sum += a[i * N + k] * b[k * N + j];
				c[i * N + j] = sum;
			}
	sink = (uint64_t)c[N + 1];
	return now() - start;
}

typedef float v8f __attribute__((vector_size(32)));

/* A blend of images and its sum, by 256-bit vectors. */
__attribute__((target("avx2,fma"))) static double simd(char **args)
{
	enum { N = 256 };
	(void)args;
	v8f *x = map(N * sizeof(v8f)), *y = map(N * sizeof(v8f));
	for (int i = 0; i < N; i++)
		for (int j = 0; j < 8; j++)
			x[i][j] = (float)((i + j) % 31), y[i][j] = (float)((i * j) % 29);
	double start = now();
	v8f sum = { 0 };
	const v8f half = { .5f, .5f, .5f, .5f, .5f, .5f, .5f, .5f };
	for (long round = times(12000000); round > 0; round--) {
		for (int i = 0; i < N; i += 2) {
			v8f p = x[i] * half + y[i], q = x[i + 1] * half + y[i + 1];
			y[i] = p * half;
			y[i + 1] = q * half;
			sum += p - q;
		}
	}
	sink = (uint64_t)(int64_t)(sum[0] + sum[7]);
	return now() - start;
}

/* ---- the kernel ---- */

static double null_syscall(char **args)
{
	(void)args;
	double start = now();
	for (long i = times(10000000); i > 0; i--)
		syscall(SYS_getppid);
	return now() - start;
}

static double fork_exec(char **args)
{
	(void)args;
	double start = now();
	for (long i = times(2500); i > 0; i--) {
		pid_t pid = fork();
		if (pid < 0)
			fail("fork");
		if (pid == 0) {
			execl("/proc/self/exe", "sillbench", "true", (char *)NULL);
			_exit(127);
		}
		int status;
		if (waitpid(pid, &status, 0) < 0 || status)
			fail("the child");
	}
	return now() - start;
}

static double ping_pong(char **args)
{
	int to[2], from[2];
	char byte = 0;
	cpu_set_t set;

	(void)args;
	/* On one processor: the guests have one. */
	CPU_ZERO(&set);
	if (sched_getaffinity(0, sizeof(set), &set) == 0) {
		int cpu = 0;
		while (!CPU_ISSET(cpu, &set))
			cpu++;
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
		sched_setaffinity(0, sizeof(set), &set);
	}
	if (pipe(to) || pipe(from))
		fail("pipe");
	long rounds = times(250000);
	pid_t pid = fork();
	if (pid < 0)
		fail("fork");
	if (pid == 0) {
		for (long i = 0; i < rounds; i++)
			if (read(to[0], &byte, 1) != 1 || write(from[1], &byte, 1) != 1)
				_exit(1);
		_exit(0);
	}
	double start = now();
	for (long i = 0; i < rounds; i++)
		if (write(to[1], &byte, 1) != 1 || read(from[0], &byte, 1) != 1)
			fail("pipe");
	double seconds = now() - start;
	waitpid(pid, NULL, 0);
	return seconds;
}

static double page_fault(char **args)
{
	const size_t size = 64 * MIB;
	(void)args;
	double start = now();
	for (long round = times(60); round > 0; round--) {
		volatile uint8_t *p = map(size);
		madvise((void *)p, size, MADV_NOHUGEPAGE);
		for (size_t i = 0; i < size; i += 4096)
			p[i] = 1;
		munmap((void *)p, size);
	}
	return now() - start;
}

static double metadata(char **args)
{
	long n;
	char name[64], other[64];
	struct stat st;

	if (!args[0] || chdir(args[0]))
		fail(args[0] ? args[0] : "a directory is needed");
	n = times(args[1] ? atol(args[1]) : 100000);
	mkdir("meta", 0700);
	double start = now();
	for (long i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "meta/f%ld", i);
		int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0600);
		if (fd < 0)
			fail(name);
		close(fd);
	}
	for (long i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "meta/f%ld", i);
		snprintf(other, sizeof(other), "meta/g%ld", i);
		if (stat(name, &st) || rename(name, other))
			fail(name);
	}
	for (long i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "meta/g%ld", i);
		if (unlink(name))
			fail(name);
	}
	double seconds = now() - start;
	rmdir("meta");
	return seconds;
}

/* A walk through 512 MiB in an order that no prefetcher foresees: each cache line names the next. */
static double scattered(char **args)
{
	const uint64_t lines = 512 * MIB / 64;
	(void)args;
	uint64_t(*line)[8] = map(512 * MIB);
	/* x -> ax + c has full period for a = 1 mod 4 and odd c (Knuth, TAOCP 2, 3.2.1.2). */
	for (uint64_t i = 0; i < lines; i++)
		line[i][0] = (i * 2891336453u + 12345) & (lines - 1);
	double start = now();
	uint64_t at = 0;
	for (long i = times(8000000); i > 0; i--) {
		line[at][1]++;
		at = line[at][0];
	}
	sink = at;
	return now() - start;
}

/* ---- disk and network ---- */

static double disk_write(char **args)
{
	size_t size = (size_t)times(1024) * MIB;
	char *block = map(MIB);
	memset(block, 0x5a, MIB);
	if (!args[0])
		fail("a file is needed");
	int fd = open(args[0], O_CREAT | O_TRUNC | O_WRONLY, 0600);
	if (fd < 0)
		fail(args[0]);
	double start = now();
	for (size_t i = 0; i < size; i += MIB) {
		memcpy(block, &i, sizeof(i));
		if (write(fd, block, MIB) != (ssize_t)MIB)
			fail(args[0]);
	}
	if (fsync(fd))
		fail(args[0]);
	double seconds = now() - start;
	close(fd);
	return seconds;
}

/* Reads what disk_write left, past the page cache. */
static double disk_read(char **args)
{
	size_t size = (size_t)times(1024) * MIB;
	char *block = map(MIB);
	if (!args[0])
		fail("a file is needed");
	int fd = open(args[0], O_RDONLY | O_DIRECT);
	if (fd < 0)
		fail(args[0]);
	double start = now();
	for (size_t i = 0; i < size; i += MIB)
		if (read(fd, block, MIB) != (ssize_t)MIB || memcmp(block, &i, sizeof(i)))
			fail("a block is not what was written");
	double seconds = now() - start;
	close(fd);
	unlink(args[0]);
	return seconds;
}

static bool send_all(int fd, size_t size)
{
	static char block[1 << 18];
	while (size) {
		ssize_t n = write(fd, block, size < sizeof(block) ? size : sizeof(block));
		if (n <= 0)
			return false;
		size -= (size_t)n;
	}
	return true;
}

static bool receive_all(int fd, size_t size)
{
	static char block[1 << 18];
	while (size) {
		ssize_t n = read(fd, block, size < sizeof(block) ? size : sizeof(block));
		if (n <= 0)
			return false;
		size -= (size_t)n;
	}
	return true;
}

struct request {
	uint64_t download; /* 1: the server sends; 0: the server receives, then answers with one byte */
	uint64_t size;
};

static double transfer(char **args, bool download)
{
	if (!args[0] || !args[1])
		fail("an address and a port are needed");
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(args[1])) };
	struct request request = { download, (uint64_t)times(512) * MIB };
	inet_pton(AF_INET, args[0], &to.sin_addr);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)))
		fail(args[0]);
	double start = now();
	if (write(fd, &request, sizeof(request)) != sizeof(request))
		fail(args[0]);
	if (download ? !receive_all(fd, request.size) : !(send_all(fd, request.size) && receive_all(fd, 1)))
		fail(args[0]);
	double seconds = now() - start;
	close(fd);
	return seconds;
}

static double net_download(char **args)
{
	return transfer(args, true);
}

static double net_upload(char **args)
{
	return transfer(args, false);
}

/* The other end, on the host's loopback. Prints its port and serves until it is killed. */
static __attribute__((noreturn)) void serve(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(fd, (struct sockaddr *)&at, length) || listen(fd, 16) ||
	    getsockname(fd, (struct sockaddr *)&at, &length))
		fail("listen");
	printf("%d\n", ntohs(at.sin_port));
	fflush(stdout);
	signal(SIGPIPE, SIG_IGN);
	for (;;) {
		struct request request;
		int peer = accept(fd, NULL, NULL);
		if (peer < 0)
			continue;
		if (read(peer, &request, sizeof(request)) == sizeof(request)) {
			if (request.download)
				send_all(peer, request.size);
			else if (receive_all(peer, request.size))
				send_all(peer, 1);
		}
		close(peer);
	}
}

/* ---- choice ---- */

static double command(char **args)
{
	double start = now();
	pid_t pid = fork();
	if (pid < 0)
		fail("fork");
	if (pid == 0) {
		execvp(args[0], args);
		_exit(127);
	}
	int status;
	if (waitpid(pid, &status, 0) < 0)
		fail("wait");
	double seconds = now() - start;
	if (status) {
		fprintf(stderr, "sillbench: %s failed with status %#x\n", args[0], status);
		exit(1);
	}
	return seconds;
}

static const struct {
	const char *name;
	double (*run)(char **args);
} workloads[] = {
	{ "integer", integer },     { "interpreter", interpreter },   { "matrix", matrix },
	{ "simd", simd },           { "syscall", null_syscall },      { "fork-exec", fork_exec },
	{ "pipe", ping_pong },      { "page-fault", page_fault },     { "meta-tmpfs", metadata },
	{ "meta-ext4", metadata },  { "scattered", scattered },       { "disk-write", disk_write },
	{ "disk-read", disk_read }, { "net-download", net_download }, { "net-upload", net_upload },
};

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "true"))
		return 0;
	if (argc == 2 && !strcmp(argv[1], "serve"))
		serve();
	if (argc > 3 && !strcmp(argv[1], "time")) {
		report(argv[2], command(argv + 3));
		return 0;
	}
	for (size_t i = 0; argc >= 3 && i < sizeof(workloads) / sizeof(workloads[0]); i++)
		if (!strcmp(argv[1], workloads[i].name)) {
			scale = atof(argv[2]);
			report(argv[1], workloads[i].run(argv + 3));
			return 0;
		}
	fprintf(stderr, "usage: sillbench WORKLOAD SCALE [ARGUMENT...]\n");
	return 2;
}
