/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dev/device.h"

static char trace[32];

static void note(const struct device *d, char c)
{
	size_t n = strlen(trace);
	trace[n] = c;
	trace[n + 1] = (char)('0' + d->instance);
	trace[n + 2] = 0;
}

static void dev_reset(struct device *d)
{
	note(d, 'r');
}

static void dev_free(struct device *d)
{
	note(d, 'f');
}

static const struct device_class cls = { "x", dev_reset, NULL, dev_free };
static const struct device_class bare = { "bare", NULL, NULL, NULL };

static void walks_in_order(void **state)
{
	(void)state;
	struct board b = { 0 };
	struct device d[3];
	board_add(&b, &d[0], &cls, 0);
	board_add(&b, &d[1], &bare, 1);
	board_add(&b, &d[2], &cls, 2);
	board_reset(&b);
	assert_string_equal(trace, "r0r2");
	board_free_devices(&b);
	assert_string_equal(trace, "r0r2f2f0");
	assert_null(b.devices);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(walks_in_order) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
