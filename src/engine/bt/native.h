/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Having the processor execute one instruction on the guest's registers.
 *
 * The interpreter builds a frame of register values, a tiny piece of code (the
 * re-encoded instruction and a RET) and calls it here.  A fault inside it
 * (#DE, #GP for alignment, #XM...) comes back as a host signal, which
 * native_signal turns into a failed return.
 */
#ifndef SILL_ENGINE_BT_NATIVE_H
#define SILL_ENGINE_BT_NATIVE_H

#include <stdint.h>

/* Offsets are known to native.S. */
struct native_frame {
	uint64_t r[16]; /* 0: values before and after, by host register number (r[RSP] unused) */
	uint64_t flags; /* 128: arithmetic flags before and after */
	void *code;     /* 136 */
	void *xsave;    /* 144: guest's XSAVE image to load before and save after; NULL for none */
	uint64_t xmask; /* 152: components */
};

/* 0, or 1 if the instruction faulted: registers in the frame are unchanged then. */
int native_call(struct native_frame *f);

/* Marks in native.S: where a signal handler sends a faulting instruction. */
extern const char native_fault[];
/* Frame code that is part of the program (state images); the rest is in the interpreter's arena. */
extern const char native_code_start[], native_code_end[];
/* Of that: op(buffer in RDI, mask in EDX:EAX). */
extern const char native_fxsave[], native_fxsave64[], native_fxrstor[], native_fxrstor64[], native_xsave[],
    native_xsave64[], native_xsavec[], native_xsavec64[], native_xrstor[], native_xrstor64[];

#endif
