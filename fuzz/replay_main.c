/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzzer over the files of its corpus directory, and over every prefix
 * length and a few hundred deterministic mutations of each, so that the suite
 * finds what a fuzzer once found (and a little more) without libFuzzer.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUTATIONS  300
#define MAX_PREFIX 256

static uint64_t next_random(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

/* A copy of exactly this size, so that the sanitizer sees any overrun. */
static void run_copy(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);
	if (!copy)
		exit(1);
	memcpy(copy, data, size);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
}

static void run_mutations(uint8_t *data, size_t size)
{
	for (size_t n = 0; n < size && n < MAX_PREFIX; n++)
		run_copy(data, n);
	uint64_t seed = 0x9e3779b97f4a7c15ull + size;
	for (int i = 0; size && i < MUTATIONS; i++) {
		size_t at = next_random(&seed) % min_u64(size, i % 2 ? size : 128);
		uint8_t old = data[at];
		data[at] = (uint8_t)next_random(&seed);
		run_copy(data, size);
		if (i % 8 == 7)
			data[at] = old; /* else the damage adds up */
	}
}

static int run_file(const char *path)
{
	_cleanup_fclose_ FILE *f = fopen(path, "rb");
	if (!f || fseek(f, 0, SEEK_END) < 0)
		return -1;
	long size = ftell(f);
	rewind(f);
	if (size < 0)
		return -1;
	_cleanup_free_ uint8_t *data = malloc((size_t)size + 1);
	if (!data || fread(data, 1, (size_t)size, f) != (size_t)size)
		return -1;
	run_copy(data, (size_t)size);
	run_mutations(data, (size_t)size);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: %s CORPUS-DIRECTORY\n", argv[0]);
		return 2;
	}
	DIR *d = opendir(argv[1]);
	if (!d) {
		perror(argv[1]);
		return 1;
	}
	int files = 0, failed = 0;
	for (struct dirent *e; (e = readdir(d));) {
		char path[4096];
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", argv[1], e->d_name);
		if (run_file(path) < 0) {
			perror(path);
			failed = 1;
		}
		files++;
	}
	closedir(d);
	printf("%d files\n", files);
	return failed || !files; /* an empty corpus tests nothing */
}
