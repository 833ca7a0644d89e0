/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/terminal.h"

static struct termios saved, raw_settings;
static volatile sig_atomic_t raw;

/* What ends the process without running atexit handlers. */
static const int fatal[] = { SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGQUIT, SIGSYS, SIGXCPU, SIGXFSZ };

void terminal_restore(void)
{
	if (!raw)
		return;
	raw = 0;
	int e = errno;
	tcsetattr(STDIN_FILENO, TCSANOW, &saved);
	errno = e;
}

static void on_fatal(int sig)
{
	terminal_restore();
	/* SA_RESETHAND put the default back: the signal now does what it would have done. */
	raise(sig);
}

/* Ctrl-Z goes to the guest; these come from another terminal or the shell's job control. */
static void on_stop(int sig)
{
	(void)sig;
	if (raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &saved);
	raise(SIGSTOP);
}

static void on_continue(int sig)
{
	(void)sig;
	if (raw && tcgetpgrp(STDIN_FILENO) == getpgrp())
		tcsetattr(STDIN_FILENO, TCSANOW, &raw_settings);
}

static void catch_fatal(void)
{
	struct sigaction stop = { .sa_handler = on_stop, .sa_flags = SA_RESTART };
	struct sigaction cont = { .sa_handler = on_continue, .sa_flags = SA_RESTART };
	sigaction(SIGTSTP, &stop, NULL);
	sigaction(SIGCONT, &cont, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(fatal); i++) {
		struct sigaction old,
		    sa = { .sa_handler = on_fatal, .sa_flags = (int)SA_RESETHAND | SA_NODEFER };
		/* An engine or a sanitizer that handles a signal itself keeps it. */
		if (sigaction(fatal[i], NULL, &old) == 0 && !(old.sa_flags & SA_SIGINFO) &&
		    old.sa_handler == SIG_DFL)
			sigaction(fatal[i], &sa, NULL);
	}
}

int terminal_raw(struct error *err)
{
	/* In the background, changing the terminal would stop us. */
	if (!isatty(STDIN_FILENO) || tcgetpgrp(STDIN_FILENO) != getpgrp())
		return 0;
	if (tcgetattr(STDIN_FILENO, &saved) < 0)
		return error_set(err, errno,
				 "cannot read the terminal's settings: %s; use --serial file:PATH",
				 strerror(errno));
	raw_settings = saved;
	cfmakeraw(&raw_settings);
	atexit(terminal_restore);
	catch_fatal();
	raw = 1;
	if (tcsetattr(STDIN_FILENO, TCSANOW, &raw_settings) < 0) {
		raw = 0;
		return error_set(err, errno,
				 "cannot change the terminal's settings: %s; use --serial file:PATH",
				 strerror(errno));
	}
	return 0;
}
