/* SPDX-License-Identifier: Apache-2.0 */
/* Offsets in struct vcpu for assembly; t1.c asserts each. */
#ifndef SILL_ENGINE_BT_T1_OFFSETS_H
#define SILL_ENGINE_BT_T1_OFFSETS_H

#define V_GPR         256
#define V_XSAVE       1024
#define V_KICK        168
#define V_HOST_RSP    88
#define V_IN_T1       99
#define V_XMASK       128
#define V_T1_CODE     112
#define V_EXIT_REASON 72
#define V_EXIT_ARG    80
#define V_SCRATCH     24
#define V_RIP         384
#define V_NEEDS_SYNC  100

/* enum t1_exit */
#define T1_LINK     0
#define T1_KICK     3
#define T1_DISPATCH 4

#endif
