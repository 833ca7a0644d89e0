/* SPDX-License-Identifier: Apache-2.0 */
/* Offsets in struct vcpu for assembly; t1.c asserts each. */
#ifndef SILL_ENGINE_BT_T1_OFFSETS_H
#define SILL_ENGINE_BT_T1_OFFSETS_H

#define V_GPR         320
#define V_XSAVE       1088
#define V_DIRECT_SKIP 224
#define V_KICK        192
#define V_HOST_RSP    112
#define V_IN_T1       123
#define V_XMASK       152
#define V_T1_CODE     136
#define V_EXIT_REASON 96
#define V_EXIT_ARG    104
#define V_SCRATCH     24
#define V_RIP         448
#define V_NEEDS_SYNC  124

/* enum t1_exit */
#define T1_LINK     0
#define T1_KICK     3
#define T1_DISPATCH 4

#endif
