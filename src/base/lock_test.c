/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/lock.h"

static void ordered(void **state)
{
	(void)state;
	struct mutex low, high;
	mutex_init(&low, LOCK_RANK_VM, "low");
	mutex_init(&high, LOCK_RANK_LEAF, "high");
	mutex_lock(&low);
	mutex_lock(&high);
	assert_true(mutex_held(&low));
	assert_true(mutex_held(&high));
	mutex_unlock(&low); /* not in reverse order: allowed */
	mutex_unlock(&high);
	assert_false(mutex_held(&low));
	mutex_lock(&low);
	mutex_unlock(&low);
	mutex_destroy(&low);
	mutex_destroy(&high);
}

/* Runs fn in a child; true if it aborted. */
static int aborts(void (*fn)(void))
{
	pid_t pid = fork();
	if (pid == 0) {
		signal(SIGABRT, SIG_DFL);
		close(STDERR_FILENO);
		fn();
		_exit(0);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void wrong_order(void)
{
	struct mutex low, high;
	mutex_init(&low, LOCK_RANK_VM, "low");
	mutex_init(&high, LOCK_RANK_LEAF, "high");
	mutex_lock(&high);
	mutex_lock(&low);
}

static void not_held(void)
{
	struct mutex m;
	mutex_init(&m, LOCK_RANK_VM, "m");
	mutex_unlock(&m);
}

static void violations_abort(void **state)
{
	(void)state;
	assert_true(aborts(wrong_order));
	assert_true(aborts(not_held));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ordered),
		cmocka_unit_test(violations_abort),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
