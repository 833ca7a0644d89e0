/* SPDX-License-Identifier: Apache-2.0 */
#include "ui/keymap.h"

#include <errno.h>
#include <linux/input-event-codes.h>
#include <string.h>
#include <strings.h>

#include "base/util.h"

/* Printable characters by key: without and with Shift. */
static const struct {
	uint16_t key;
	char plain, shifted;
} characters[] = {
	{ KEY_1, '1', '!' },          { KEY_2, '2', '@' },           { KEY_3, '3', '#' },
	{ KEY_4, '4', '$' },          { KEY_5, '5', '%' },           { KEY_6, '6', '^' },
	{ KEY_7, '7', '&' },          { KEY_8, '8', '*' },           { KEY_9, '9', '(' },
	{ KEY_0, '0', ')' },          { KEY_MINUS, '-', '_' },       { KEY_EQUAL, '=', '+' },
	{ KEY_Q, 'q', 'Q' },          { KEY_W, 'w', 'W' },           { KEY_E, 'e', 'E' },
	{ KEY_R, 'r', 'R' },          { KEY_T, 't', 'T' },           { KEY_Y, 'y', 'Y' },
	{ KEY_U, 'u', 'U' },          { KEY_I, 'i', 'I' },           { KEY_O, 'o', 'O' },
	{ KEY_P, 'p', 'P' },          { KEY_LEFTBRACE, '[', '{' },   { KEY_RIGHTBRACE, ']', '}' },
	{ KEY_A, 'a', 'A' },          { KEY_S, 's', 'S' },           { KEY_D, 'd', 'D' },
	{ KEY_F, 'f', 'F' },          { KEY_G, 'g', 'G' },           { KEY_H, 'h', 'H' },
	{ KEY_J, 'j', 'J' },          { KEY_K, 'k', 'K' },           { KEY_L, 'l', 'L' },
	{ KEY_SEMICOLON, ';', ':' },  { KEY_APOSTROPHE, '\'', '"' }, { KEY_GRAVE, '`', '~' },
	{ KEY_BACKSLASH, '\\', '|' }, { KEY_Z, 'z', 'Z' },           { KEY_X, 'x', 'X' },
	{ KEY_C, 'c', 'C' },          { KEY_V, 'v', 'V' },           { KEY_B, 'b', 'B' },
	{ KEY_N, 'n', 'N' },          { KEY_M, 'm', 'M' },           { KEY_COMMA, ',', '<' },
	{ KEY_DOT, '.', '>' },        { KEY_SLASH, '/', '?' },       { KEY_SPACE, ' ', ' ' },
	{ KEY_TAB, '\t', '\t' },      { KEY_ENTER, '\n', '\n' },     { KEY_ENTER, '\r', '\r' },
	{ KEY_ESC, 27, 27 },          { KEY_BACKSPACE, 8, 8 },
};

uint16_t keymap_char(unsigned char c, bool *shift)
{
	for (size_t i = 0; i < ARRAY_SIZE(characters); i++) {
		if (c != (unsigned char)characters[i].plain && c != (unsigned char)characters[i].shifted)
			continue;
		*shift = c != (unsigned char)characters[i].plain;
		return characters[i].key;
	}
	return 0;
}

/* Keys that are no characters: X keysym, names (the first is the one that we use). */
static const struct {
	uint32_t keysym;
	uint16_t key;
	const char *names[3];
} keys[] = {
	{ 0xff08, KEY_BACKSPACE, { "backspace" } },
	{ 0xff09, KEY_TAB, { "tab" } },
	{ 0xff0d, KEY_ENTER, { "ret", "enter", "return" } },
	{ 0xff13, KEY_PAUSE, { "pause" } },
	{ 0xff14, KEY_SCROLLLOCK, { "scrolllock" } },
	{ 0xff15, KEY_SYSRQ, { "sysrq", "print" } },
	{ 0xff1b, KEY_ESC, { "esc", "escape" } },
	{ 0xff50, KEY_HOME, { "home" } },
	{ 0xff51, KEY_LEFT, { "left" } },
	{ 0xff52, KEY_UP, { "up" } },
	{ 0xff53, KEY_RIGHT, { "right" } },
	{ 0xff54, KEY_DOWN, { "down" } },
	{ 0xff55, KEY_PAGEUP, { "pgup", "pageup" } },
	{ 0xff56, KEY_PAGEDOWN, { "pgdn", "pagedown" } },
	{ 0xff57, KEY_END, { "end" } },
	{ 0xff61, KEY_SYSRQ, { NULL } },
	{ 0xff63, KEY_INSERT, { "insert", "ins" } },
	{ 0xff67, KEY_COMPOSE, { "menu", "compose" } },
	{ 0xff7f, KEY_NUMLOCK, { "numlock" } },
	{ 0xff8d, KEY_KPENTER, { "kp_enter" } },
	{ 0xffaa, KEY_KPASTERISK, { "kp_multiply" } },
	{ 0xffab, KEY_KPPLUS, { "kp_add" } },
	{ 0xffad, KEY_KPMINUS, { "kp_subtract" } },
	{ 0xffae, KEY_KPDOT, { "kp_decimal" } },
	{ 0xff9f, KEY_KPDOT, { NULL } },
	{ 0xffaf, KEY_KPSLASH, { "kp_divide" } },
	{ 0xffb0, KEY_KP0, { "kp_0" } },
	{ 0xffb1, KEY_KP1, { "kp_1" } },
	{ 0xffb2, KEY_KP2, { "kp_2" } },
	{ 0xffb3, KEY_KP3, { "kp_3" } },
	{ 0xffb4, KEY_KP4, { "kp_4" } },
	{ 0xffb5, KEY_KP5, { "kp_5" } },
	{ 0xffb6, KEY_KP6, { "kp_6" } },
	{ 0xffb7, KEY_KP7, { "kp_7" } },
	{ 0xffb8, KEY_KP8, { "kp_8" } },
	{ 0xffb9, KEY_KP9, { "kp_9" } },
	{ 0xff9e, KEY_KP0, { NULL } },
	{ 0xff9c, KEY_KP1, { NULL } },
	{ 0xff99, KEY_KP2, { NULL } },
	{ 0xff9b, KEY_KP3, { NULL } },
	{ 0xff96, KEY_KP4, { NULL } },
	{ 0xff9d, KEY_KP5, { NULL } },
	{ 0xff98, KEY_KP6, { NULL } },
	{ 0xff95, KEY_KP7, { NULL } },
	{ 0xff97, KEY_KP8, { NULL } },
	{ 0xff9a, KEY_KP9, { NULL } },
	{ 0xffbe, KEY_F1, { "f1" } },
	{ 0xffbf, KEY_F2, { "f2" } },
	{ 0xffc0, KEY_F3, { "f3" } },
	{ 0xffc1, KEY_F4, { "f4" } },
	{ 0xffc2, KEY_F5, { "f5" } },
	{ 0xffc3, KEY_F6, { "f6" } },
	{ 0xffc4, KEY_F7, { "f7" } },
	{ 0xffc5, KEY_F8, { "f8" } },
	{ 0xffc6, KEY_F9, { "f9" } },
	{ 0xffc7, KEY_F10, { "f10" } },
	{ 0xffc8, KEY_F11, { "f11" } },
	{ 0xffc9, KEY_F12, { "f12" } },
	{ 0xffe1, KEY_LEFTSHIFT, { "shift" } },
	{ 0xffe2, KEY_RIGHTSHIFT, { "shift_r" } },
	{ 0xffe3, KEY_LEFTCTRL, { "ctrl", "control" } },
	{ 0xffe4, KEY_RIGHTCTRL, { "ctrl_r" } },
	{ 0xffe5, KEY_CAPSLOCK, { "capslock", "caps_lock" } },
	{ 0xffe7, KEY_LEFTMETA, { NULL } },
	{ 0xffe9, KEY_LEFTALT, { "alt" } },
	{ 0xffea, KEY_RIGHTALT, { "alt_r", "altgr" } },
	{ 0xfe03, KEY_RIGHTALT, { NULL } },
	{ 0xfe20, KEY_TAB, { NULL } },
	{ 0xffeb, KEY_LEFTMETA, { "meta", "super", "win" } },
	{ 0xffec, KEY_RIGHTMETA, { "meta_r" } },
	{ 0xffff, KEY_DELETE, { "delete", "del" } },
	{ 0, KEY_SPACE, { "space", "spc" } },
	{ 0, KEY_MINUS, { "minus" } },
	{ 0, KEY_EQUAL, { "equal" } },
	{ 0, KEY_COMMA, { "comma" } },
	{ 0, KEY_DOT, { "dot" } },
	{ 0, KEY_SLASH, { "slash" } },
	{ 0, KEY_BACKSLASH, { "backslash" } },
	{ 0, KEY_SEMICOLON, { "semicolon" } },
	{ 0, KEY_APOSTROPHE, { "apostrophe" } },
	{ 0, KEY_GRAVE, { "grave" } },
	{ 0, KEY_LEFTBRACE, { "bracket_left" } },
	{ 0, KEY_RIGHTBRACE, { "bracket_right" } },
	{ 0, KEY_102ND, { "less" } },
};

uint16_t keymap_keysym(uint32_t keysym, bool *shift)
{
	*shift = false;
	if (keysym >= 0x20 && keysym < 0x7f)
		return keymap_char((unsigned char)keysym, shift);
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (keysym && keys[i].keysym == keysym)
			return keys[i].key;
	return 0;
}

static uint16_t by_name(const char *name, size_t len)
{
	bool shift;
	if (len == 1)
		return keymap_char((unsigned char)name[0], &shift);
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		for (size_t k = 0; k < ARRAY_SIZE(keys[i].names) && keys[i].names[k]; k++)
			if (strlen(keys[i].names[k]) == len && !strncasecmp(keys[i].names[k], name, len))
				return keys[i].key;
	return 0;
}

int keymap_chord(const char *text, uint16_t chord[KEYMAP_MAX_CHORD], unsigned *nr, struct error *err)
{
	const char *p = text;
	*nr = 0;
	for (;;) {
		size_t len = strcspn(p, "-+");
		uint16_t key = len ? by_name(p, len) : 0;
		if (!key)
			return error_set(err, EINVAL,
					 "\"%.*s\" in \"%s\" is no key; use names such as ctrl, alt, shift, "
					 "ret, esc, f1, up, "
					 "minus, a, 1, joined by -",
					 (int)len, p, text);
		if (*nr == KEYMAP_MAX_CHORD)
			return error_set(err, EINVAL, "\"%s\": more than %d keys at once; use fewer", text,
					 KEYMAP_MAX_CHORD);
		chord[(*nr)++] = key;
		if (!p[len])
			return 0;
		p += len + 1;
	}
}
