/* SPDX-License-Identifier: Apache-2.0 */
/* Offsets in struct vcpu for assembly; t1.c asserts each. */
#ifndef SILL_ENGINE_BT_T1_OFFSETS_H
#define SILL_ENGINE_BT_T1_OFFSETS_H

#define V_GPR         384
#define V_XSAVE       1152
#define V_DIRECT_SKIP 232
#define V_KICK        200
#define V_HOST_RSP    112
#define V_IN_T1       123
#define V_XMASK       160
#define V_T1_CODE     144
#define V_EXIT_REASON 96
#define V_EXIT_ARG    104
#define V_SCRATCH     24
#define V_RIP         512
#define V_NEEDS_SYNC  124

/* enum t1_exit */
#define T1_LINK     0
#define T1_KICK     3
#define T1_DISPATCH 4

#endif
