/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between characters, names and X keysyms on one side and keys on the other, for a US keyboard: what a viewer
 * sends are characters, what a guest wants are keys.
 */
#ifndef SILL_UI_KEYMAP_H
#define SILL_UI_KEYMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* The key for an X keysym; 0: none. shift: the character needs Shift on a US keyboard. */
uint16_t keymap_keysym(uint32_t keysym, bool *shift);
/* The key for an ASCII character; 0: none. */
uint16_t keymap_char(unsigned char c, bool *shift);

#define KEYMAP_MAX_CHORD 8
/*
 * A chord such as "ctrl-alt-delete", "ret", "a", "f1", "shift-equal": keys in the order in which they go
 * down. 0 and *nr, or -EINVAL with a sentence.
 */
int keymap_chord(const char *text, uint16_t keys[KEYMAP_MAX_CHORD], unsigned *nr, struct error *err);

#endif
