/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/iov.h"

static char a[4], b[1], c[5];
static const struct iovec list[3] = { { a, 4 }, { b, 1 }, { c, 5 } };

static void test_copy(void **state)
{
	char out[12] = "............";

	(void)state;
	assert_int_equal(iov_size(list, 3), 10);
	assert_int_equal(iov_from_buf(list, 3, 0, "0123456789xx", 12), 10);
	assert_int_equal(iov_to_buf(list, 3, 3, out, 4), 4);
	assert_memory_equal(out, "3456.", 5);
	assert_int_equal(iov_to_buf(list, 3, 9, out, 12), 1);
	assert_int_equal(iov_to_buf(list, 3, 10, out, 12), 0);
	assert_int_equal(iov_to_buf(list, 3, 1000, out, 12), 0);
	assert_int_equal(iov_from_buf(list, 3, 4, "ab", 2), 2);
	assert_int_equal(iov_to_buf(list, 3, 0, out, 12), 10);
	assert_memory_equal(out, "0123ab6789", 10);
}

static void test_cut(void **state)
{
	struct iovec copy[3], *iov = copy;
	unsigned n = 3;

	(void)state;
	memcpy(copy, list, sizeof(copy));
	assert_int_equal(iov_cut_front(&iov, &n, 4), 4);
	assert_int_equal(n, 2);
	assert_int_equal(iov_cut_front(&iov, &n, 2), 2);
	assert_int_equal(n, 1);
	assert_int_equal(iov->iov_len, 4);
	assert_ptr_equal(iov->iov_base, c + 1);
	assert_int_equal(iov_cut_back(iov, &n, 3), 3);
	assert_int_equal(iov->iov_len, 1);
	assert_int_equal(iov_cut_back(iov, &n, 3), 1);
	assert_int_equal(n, 0);
	assert_int_equal(iov_cut_front(&iov, &n, 3), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_copy),
		cmocka_unit_test(test_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
