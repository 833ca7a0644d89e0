/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that work for the VM behind its vCPUs and its event loop. */
#ifndef SILL_BASE_THREAD_H
#define SILL_BASE_THREAD_H

#include <pthread.h>

/*
 * Starts a thread that no signal interrupts: those belong to the threads that were made for them. name: at
 * most 15 characters, for tools that list threads. stack: bytes, or 0 for the system's size. The caller joins
 * it. 0 or -errno.
 */
int thread_start(pthread_t *thread, const char *name, size_t stack, void *(*run)(void *), void *opaque);
/* Processors of the host that this process may use, at least 1. Any thread. */
unsigned thread_processors(void);

#endif
