/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "state/fields.h"

struct thing {
	uint8_t a;
	uint16_t b;
	uint32_t c[3];
	uint64_t d;
	bool e;
	uint8_t f[5];
	uint32_t added;
};

static int check_thing(void *obj, struct error *err)
{
	struct thing *t = obj;
	return t->a == 99 ? error_set(err, EPROTO, "a is 99") : 0;
}

#define V1_FIELDS                                                                                            \
	F_U8(struct thing, a), F_U16(struct thing, b), F_U32S(struct thing, c, 3), F_U64(struct thing, d),   \
	    F_BOOL(struct thing, e), F_BYTES(struct thing, f)

static const struct state_field fields_v1[] = { V1_FIELDS, F_END };
static const struct state_field fields_v2[] = {
	V1_FIELDS,
	FIELD_(uint32_t, struct thing, added, FIELD_U32, 2),
	F_END,
};
static const struct state_table table_v1 = { "thing", 1, fields_v1, NULL };
static const struct state_table table_v2 = { "thing", 2, fields_v2, check_thing };
static const struct state_table other = { "other", 1, fields_v1, NULL };

static const struct thing sample = { 1, 0x1234, { 5, 6, 7 }, 0x1122334455667788, true, "abcd", 77 };

static void round_trip(void **state)
{
	(void)state;
	struct state_buf b = { 0 };
	struct thing t = { 0 };
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(state_save(&b, &table_v2, i, &sample), 0);
	for (uint32_t i = 0; i < 20; i++) {
		memset(&t, 0, sizeof(t));
		assert_int_equal(state_load(&b, &table_v2, i, &t, NULL), 0);
		assert_int_equal(t.b, 0x1234);
		assert_int_equal(t.c[2], 7);
		assert_int_equal(t.d, sample.d);
		assert_true(t.e);
		assert_string_equal((char *)t.f, "abcd");
		assert_int_equal(t.added, 77);
	}
	assert_int_equal(b.pos, b.len);
	assert_true(state_load(&b, &table_v2, 20, &t, NULL) < 0);
	state_buf_free(&b);
}

static void older_stream_keeps_reset_values(void **state)
{
	(void)state;
	struct state_buf b = { 0 };
	struct thing t = { .added = 5 };
	assert_int_equal(state_save(&b, &table_v1, 0, &sample), 0);
	assert_int_equal(state_load(&b, &table_v2, 0, &t, NULL), 0);
	assert_int_equal(t.added, 5);
	assert_int_equal(t.a, 1);
	state_buf_free(&b);
}

static void expect_refused(const uint8_t *data, size_t len, const struct state_table *t, const char *why)
{
	_cleanup_free_ uint8_t *copy = malloc(len ? len : 1);
	memcpy(copy, data, len);
	struct state_buf b = { .data = copy, .len = len, .cap = len };
	struct thing obj = { .a = 42, .added = 43 };
	struct error err = { "" };
	assert_true(state_load(&b, t, 0, &obj, &err) < 0);
	assert_int_equal(b.pos, 0);
	assert_int_equal(obj.a, 42);
	assert_int_equal(obj.b, 0);
	assert_int_equal(obj.added, 43);
	if (!strstr(err.message, why))
		fail_msg("'%s' does not say '%s'", err.message, why);
}

static void damaged_streams_are_refused(void **state)
{
	(void)state;
	struct state_buf b = { 0 };
	assert_int_equal(state_save(&b, &table_v2, 0, &sample), 0);
	for (size_t n = 0; n < b.len; n++)
		expect_refused(b.data, n, &table_v2, "truncated");
	expect_refused(b.data, b.len, &table_v1, "newer");
	expect_refused(b.data, b.len, &other, "another machine");
	b.data[6] = 1; /* instance */
	expect_refused(b.data, b.len, &table_v2, "number 1");
	b.data[6] = 0;
	b.data[14]++; /* length */
	expect_refused(b.data, b.len, &table_v2, "damaged");
	b.data[14]--;
	b.data[18] = 99; /* field a: the table's own check refuses */
	expect_refused(b.data, b.len, &table_v2, "a is 99");
	state_buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(older_stream_keeps_reset_values),
		cmocka_unit_test(damaged_streams_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
