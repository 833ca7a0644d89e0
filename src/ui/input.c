/* SPDX-License-Identifier: Apache-2.0 */
#include "ui/input.h"

#include <stddef.h>

void input_add(struct input *in, struct input_sink *s)
{
	s->next = in->sinks;
	in->sinks = s;
}

void input_remove(struct input *in, struct input_sink *s)
{
	for (unsigned i = 0; i < INPUT_KEY_CODES; i++)
		if (in->holder[i] == s)
			in->holder[i] = NULL;
	for (struct input_sink **p = &in->sinks; *p; p = &(*p)->next) {
		if (*p == s) {
			*p = s->next;
			return;
		}
	}
}

static struct input_sink *find(const struct input *in, unsigned takes)
{
	enum input_want most = INPUT_OFF;
	struct input_sink *best = NULL;
	for (struct input_sink *s = in->sinks; s; s = s->next) {
		enum input_want w = !(s->takes & takes) ? INPUT_OFF
				    : s->wants          ? s->wants(s->opaque)
							: INPUT_FIRST;
		if (w > most) {
			most = w;
			best = s;
		}
	}
	return best;
}

void input_key(struct input *in, uint16_t code, bool down)
{
	struct input_sink *s = code < INPUT_KEY_CODES ? in->holder[code] : NULL;
	if (!s)
		s = find(in, INPUT_KEYS);
	if (code < INPUT_KEY_CODES)
		in->holder[code] = down ? s : NULL;
	if (s)
		s->key(s->opaque, code, down);
}

bool input_wants_absolute(const struct input *in)
{
	const struct input_sink *s = find(in, INPUT_RELATIVE | INPUT_ABSOLUTE);
	return s && (s->takes & INPUT_ABSOLUTE);
}

void input_move(struct input *in, int dx, int dy, int wheel, unsigned buttons)
{
	struct input_sink *s = find(in, INPUT_RELATIVE);
	if (s)
		s->relative(s->opaque, dx, dy, wheel, buttons);
}

void input_pointer(struct input *in, int x, int y, int wheel, unsigned buttons, unsigned width,
		   unsigned height)
{
	struct input_sink *s = find(in, INPUT_RELATIVE | INPUT_ABSOLUTE);
	/* In pixels, each position rounded by itself, so that errors do not add up. */
	int px = (int)((int64_t)x * (int64_t)width / (INPUT_ABS_MAX + 1));
	int py = (int)((int64_t)y * (int64_t)height / (INPUT_ABS_MAX + 1));

	if (s && (s->takes & INPUT_ABSOLUTE))
		s->absolute(s->opaque, x, y, wheel, buttons);
	else if (s && in->have_position)
		s->relative(s->opaque, px - in->x, py - in->y, wheel, buttons);
	in->x = px;
	in->y = py;
	in->have_position = true;
}
