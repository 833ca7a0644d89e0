/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SILL_UI_PNG_H
#define SILL_UI_PNG_H

#include <stddef.h>
#include <stdint.h>

/* A picture of 0x00RRGGBB pixels as a PNG file in memory (malloc'd). 0 or -ENOMEM. */
int png_encode(const uint32_t *pixels, unsigned width, unsigned height, uint8_t **ret, size_t *ret_size);

#endif
