/* SPDX-License-Identifier: Apache-2.0 */
/* For programs of 16, 32 and 64 bits, each with a print() of its own. */
#ifndef SILL_GUEST_PRINT_HEX_H
#define SILL_GUEST_PRINT_HEX_H

static void print(const char *s);

static void print_hex(unsigned long v)
{
	char buf[19] = "0x";
	int n = 2;

	for (int i = 8 * (int)sizeof(v) - 4; i >= 0; i -= 4)
		if (v >> i || !i)
			buf[n++] = "0123456789abcdef"[v >> i & 15];
	buf[n] = 0;
	print(buf);
}

#endif
