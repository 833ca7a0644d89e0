/* SPDX-License-Identifier: Apache-2.0 */
/* Offsets in struct vcpu for assembly; t1.c asserts each. */
#ifndef SILL_ENGINE_BT_T1_OFFSETS_H
#define SILL_ENGINE_BT_T1_OFFSETS_H

#define V_GPR         256
#define V_XSAVE       1024
#define V_DIRECT_SKIP 192
#define V_KICK        160
#define V_HOST_RSP    80
#define V_IN_T1       91
#define V_XMASK       120
#define V_T1_CODE     104
#define V_EXIT_REASON 64
#define V_EXIT_ARG    72
#define V_SCRATCH     24
#define V_RIP         384
#define V_NEEDS_SYNC  92

/* enum t1_exit */
#define T1_LINK     0
#define T1_KICK     3
#define T1_DISPATCH 4

#endif
