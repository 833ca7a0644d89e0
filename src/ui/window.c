/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The window.  A timer in real time (the VM's own stands still while it is
 * paused) takes what SDL has to say, asks the display for changes, and shows
 * them scaled to the window, with the picture's proportions kept.
 *
 * A guest that takes absolute positions gets the pointer's; for one that does
 * not, a click catches pointer and keyboard, and Ctrl+Alt+G lets them go.
 * Ctrl+Alt+F fills the screen.  Keys go by their place on the keyboard.
 *
 * SDL is loaded only here: it brings along a few dozen libraries, which a VM
 * without a window need not wait for.  It draws in software: a driver for the
 * graphics card would bring threads and signal handlers of its own.
 */
#include "ui/window.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/input-event-codes.h>
#include <SDL2/SDL.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"

#define PERIOD_NS     16666667
#define CLOSE_AGAIN_S 10
#define LIBRARY       "libSDL2-2.0.so.0"

/* What is used of SDL: return type, name, arguments. */
#define SDL_FUNCTIONS(F)                                                                                     \
	F(int, Init, (Uint32))                                                                               \
	F(void, Quit, (void))                                                                                \
	F(const char *, GetError, (void))                                                                    \
	F(SDL_bool, SetHint, (const char *, const char *))                                                   \
	F(SDL_Window *, CreateWindow, (const char *, int, int, int, int, Uint32))                            \
	F(void, DestroyWindow, (SDL_Window *))                                                               \
	F(void, SetWindowTitle, (SDL_Window *, const char *))                                                \
	F(void, SetWindowSize, (SDL_Window *, int, int))                                                     \
	F(void, SetWindowGrab, (SDL_Window *, SDL_bool))                                                     \
	F(int, SetWindowFullscreen, (SDL_Window *, Uint32))                                                  \
	F(int, SetRelativeMouseMode, (SDL_bool))                                                             \
	F(int, ShowCursor, (int))                                                                            \
	F(SDL_Renderer *, CreateRenderer, (SDL_Window *, int, Uint32))                                       \
	F(void, DestroyRenderer, (SDL_Renderer *))                                                           \
	F(int, RenderSetLogicalSize, (SDL_Renderer *, int, int))                                             \
	F(int, RenderClear, (SDL_Renderer *))                                                                \
	F(int, RenderCopy, (SDL_Renderer *, SDL_Texture *, const SDL_Rect *, const SDL_Rect *))              \
	F(void, RenderPresent, (SDL_Renderer *))                                                             \
	F(SDL_Texture *, CreateTexture, (SDL_Renderer *, Uint32, int, int, int))                             \
	F(void, DestroyTexture, (SDL_Texture *))                                                             \
	F(int, UpdateTexture, (SDL_Texture *, const SDL_Rect *, const void *, int))                          \
	F(int, PollEvent, (SDL_Event *))

struct sdl {
#define MEMBER(type, name, args) type(*name) args;
	SDL_FUNCTIONS(MEMBER)
#undef MEMBER
};

struct window {
	struct loop *loop;
	struct window_config config;
	struct display *display;
	struct display_viewer viewer;
	struct input *input;
	struct loop_watch watch; /* a timer */
	void *library;
	struct sdl sdl;
	bool init;
	SDL_Window *window;
	SDL_Renderer *renderer;
	SDL_Texture *texture; /* NULL: to be made anew */
	bool changed;         /* something is to be shown */
	bool paused, caught, full;
	unsigned buttons;
	bool held[256]; /* keys, by Linux' code */
	struct timespec closed_at;
	bool closing;
};

/* ---- keys ---- */

/* Scancodes are numbers of the USB HID usage page 7; the table begins at 4. */
static const uint8_t keys[] = {
	KEY_A,          KEY_B,          KEY_C,          KEY_D,          KEY_E,         KEY_F,
	KEY_G,          KEY_H,          KEY_I,          KEY_J,          KEY_K,         KEY_L,
	KEY_M,          KEY_N,          KEY_O,          KEY_P,          KEY_Q,         KEY_R,
	KEY_S,          KEY_T,          KEY_U,          KEY_V,          KEY_W,         KEY_X,
	KEY_Y,          KEY_Z,          KEY_1,          KEY_2,          KEY_3,         KEY_4,
	KEY_5,          KEY_6,          KEY_7,          KEY_8,          KEY_9,         KEY_0,
	KEY_ENTER,      KEY_ESC,        KEY_BACKSPACE,  KEY_TAB,        KEY_SPACE,     KEY_MINUS,
	KEY_EQUAL,      KEY_LEFTBRACE,  KEY_RIGHTBRACE, KEY_BACKSLASH,  KEY_BACKSLASH, KEY_SEMICOLON,
	KEY_APOSTROPHE, KEY_GRAVE,      KEY_COMMA,      KEY_DOT,        KEY_SLASH,     KEY_CAPSLOCK,
	KEY_F1,         KEY_F2,         KEY_F3,         KEY_F4,         KEY_F5,        KEY_F6,
	KEY_F7,         KEY_F8,         KEY_F9,         KEY_F10,        KEY_F11,       KEY_F12,
	KEY_SYSRQ,      KEY_SCROLLLOCK, KEY_PAUSE,      KEY_INSERT,     KEY_HOME,      KEY_PAGEUP,
	KEY_DELETE,     KEY_END,        KEY_PAGEDOWN,   KEY_RIGHT,      KEY_LEFT,      KEY_DOWN,
	KEY_UP,         KEY_NUMLOCK,    KEY_KPSLASH,    KEY_KPASTERISK, KEY_KPMINUS,   KEY_KPPLUS,
	KEY_KPENTER,    KEY_KP1,        KEY_KP2,        KEY_KP3,        KEY_KP4,       KEY_KP5,
	KEY_KP6,        KEY_KP7,        KEY_KP8,        KEY_KP9,        KEY_KP0,       KEY_KPDOT,
	KEY_102ND,      KEY_COMPOSE,
};
/* From e0 on */
static const uint8_t modifiers[] = { KEY_LEFTCTRL,  KEY_LEFTSHIFT,  KEY_LEFTALT,  KEY_LEFTMETA,
				     KEY_RIGHTCTRL, KEY_RIGHTSHIFT, KEY_RIGHTALT, KEY_RIGHTMETA };

static uint16_t from_scancode(unsigned code)
{
	if (code >= 0xe0 && code - 0xe0 < sizeof(modifiers))
		return modifiers[code - 0xe0];
	return code >= 4 && code - 4 < sizeof(keys) ? keys[code - 4] : 0;
}

static void release_keys(struct window *w)
{
	for (unsigned code = 0; code < ARRAY_SIZE(w->held); code++) {
		if (w->held[code])
			input_key(w->input, (uint16_t)code, false);
		w->held[code] = false;
	}
}

static void set_title(struct window *w)
{
	char title[160];

	snprintf(title, sizeof(title), "%.80s%s%s - Sill", w->config.title, w->paused ? " (paused)" : "",
		 w->closing  ? ": shutting down, close again to end it at once"
		 : w->caught ? ": Ctrl+Alt+G lets the keyboard and mouse go"
			     : "");
	w->sdl.SetWindowTitle(w->window, title);
}

static void catch (struct window *w, bool on)
{
	w->caught = on;
	w->sdl.SetWindowGrab(w->window, on ? SDL_TRUE : SDL_FALSE);
	w->sdl.SetRelativeMouseMode(on && !input_wants_absolute(w->input) ? SDL_TRUE : SDL_FALSE);
	set_title(w);
}

static void key_event(struct window *w, const SDL_KeyboardEvent *e)
{
	uint16_t code = from_scancode(e->keysym.scancode);
	bool down = e->type == SDL_KEYDOWN;

	if (down && (e->keysym.mod & KMOD_CTRL) && (e->keysym.mod & KMOD_ALT) && !e->repeat) {
		if (code == KEY_G || code == KEY_F) {
			release_keys(w);
			if (code == KEY_G) {
				catch (w, !w->caught);
			} else {
				w->full = !w->full;
				w->sdl.SetWindowFullscreen(w->window,
							   w->full ? SDL_WINDOW_FULLSCREEN_DESKTOP : 0);
			}
			return;
		}
	}
	if (!code || (!down && !w->held[code]))
		return;
	w->held[code] = down;
	input_key(w->input, code, down);
}

/* ---- the pointer ---- */

static void pointer(struct window *w, int x, int y, int wheel)
{
	const struct display *d = w->display;
	int64_t width = d->width, height = d->height;

	/* SDL gives pixels of the picture, and such beyond its edges for the margins. */
	x = x < 0 ? 0 : x >= width ? (int)width - 1 : x;
	y = y < 0 ? 0 : y >= height ? (int)height - 1 : y;
	input_pointer(w->input, (int)(x * INPUT_ABS_MAX / (int64_t)max_u64((uint64_t)width - 1, 1)),
		      (int)(y * INPUT_ABS_MAX / (int64_t)max_u64((uint64_t)height - 1, 1)), wheel, w->buttons,
		      d->width, d->height);
}

static void motion_event(struct window *w, const SDL_MouseMotionEvent *e)
{
	if (input_wants_absolute(w->input))
		pointer(w, e->x, e->y, 0);
	else if (w->caught)
		input_move(w->input, e->xrel, e->yrel, 0, w->buttons);
}

static void button_event(struct window *w, const SDL_MouseButtonEvent *e)
{
	unsigned bit = e->button == SDL_BUTTON_LEFT     ? INPUT_LEFT
		       : e->button == SDL_BUTTON_MIDDLE ? INPUT_MIDDLE
		       : e->button == SDL_BUTTON_RIGHT  ? INPUT_RIGHT
							: 0u;
	bool absolute = input_wants_absolute(w->input);

	if (!absolute && !w->caught) {
		if (e->type == SDL_MOUSEBUTTONDOWN)
			catch (w, true); /* this click is for us */
		return;
	}
	w->buttons = e->type == SDL_MOUSEBUTTONDOWN ? w->buttons | bit : w->buttons & ~bit;
	if (absolute)
		pointer(w, e->x, e->y, 0);
	else
		input_move(w->input, 0, 0, 0, w->buttons);
}

/* ---- the picture ---- */

static void viewer_resized(void *opaque, struct display *d)
{
	struct window *w = opaque;

	(void)d;
	if (w->texture)
		w->sdl.DestroyTexture(w->texture);
	w->texture = NULL;
	w->changed = true;
}

static void viewer_updated(void *opaque, struct display *d, unsigned x, unsigned y, unsigned width,
			   unsigned height)
{
	struct window *w = opaque;
	SDL_Rect rect = { (int)x, (int)y, (int)width, (int)height };

	if (!w->texture)
		return; /* all of it is to come */
	w->sdl.UpdateTexture(w->texture, &rect, d->pixels + (size_t)y * d->width + x, (int)d->width * 4);
	w->changed = true;
}

static void make_texture(struct window *w)
{
	int width = (int)w->display->width, height = (int)w->display->height;

	w->texture = w->sdl.CreateTexture(w->renderer, SDL_PIXELFORMAT_RGB888, SDL_TEXTUREACCESS_STREAMING,
					  width, height);
	if (!w->texture)
		return;
	w->sdl.UpdateTexture(w->texture, NULL, w->display->pixels, width * 4);
	w->sdl.RenderSetLogicalSize(w->renderer, width, height);
	if (!w->full)
		w->sdl.SetWindowSize(w->window, width, height);
}

static void show(struct window *w)
{
	display_refresh(w->display, false);
	if (!w->changed)
		return;
	if (!w->texture)
		make_texture(w);
	w->changed = false;
	w->sdl.RenderClear(w->renderer);
	if (w->texture)
		w->sdl.RenderCopy(w->renderer, w->texture, NULL, NULL);
	w->sdl.RenderPresent(w->renderer);
}

/* ---- events ---- */

static void closed(struct window *w)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	bool again = w->closing && now.tv_sec - w->closed_at.tv_sec < CLOSE_AGAIN_S;
	w->closed_at = now;
	w->closing = true;
	set_title(w);
	w->config.closed(w->config.opaque, again);
}

static void window_event(struct window *w, const SDL_WindowEvent *e)
{
	switch (e->event) {
	case SDL_WINDOWEVENT_CLOSE:
		closed(w);
		break;
	case SDL_WINDOWEVENT_FOCUS_LOST:
		release_keys(w);
		if (w->caught)
			catch (w, false);
		break;
	case SDL_WINDOWEVENT_EXPOSED:
	case SDL_WINDOWEVENT_SIZE_CHANGED:
		w->changed = true;
		break;
	case SDL_WINDOWEVENT_ENTER: /* the guest draws its own where it knows where it is */
		w->sdl.ShowCursor(input_wants_absolute(w->input) ? SDL_DISABLE : SDL_ENABLE);
		break;
	}
}

static void event(struct window *w, const SDL_Event *e)
{
	switch (e->type) {
	case SDL_WINDOWEVENT:
		window_event(w, &e->window);
		break;
	case SDL_KEYDOWN:
	case SDL_KEYUP:
		key_event(w, &e->key);
		break;
	case SDL_MOUSEMOTION:
		motion_event(w, &e->motion);
		break;
	case SDL_MOUSEBUTTONDOWN:
	case SDL_MOUSEBUTTONUP:
		button_event(w, &e->button);
		break;
	case SDL_MOUSEWHEEL:
		if (input_wants_absolute(w->input))
			pointer(w, e->wheel.mouseX, e->wheel.mouseY, e->wheel.y);
		else if (w->caught)
			input_move(w->input, 0, 0, e->wheel.y, w->buttons);
		break;
	}
}

static void tick(void *opaque, uint32_t events)
{
	struct window *w = opaque;
	struct timespec now;
	uint64_t n;
	SDL_Event e;

	(void)events;
	if (read(w->watch.fd, &n, sizeof(n)) < 0)
		return;
	for (unsigned left = 256; left && w->sdl.PollEvent(&e); left--)
		event(w, &e);
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (w->closing && now.tv_sec - w->closed_at.tv_sec >= CLOSE_AGAIN_S) {
		w->closing = false; /* the guest did not want to */
		set_title(w);
	}
	show(w);
}

void window_set_paused(struct window *w, bool paused)
{
	if (!w)
		return;
	w->paused = paused;
	set_title(w);
}

/* ---- life ---- */

static int load(struct window *w, struct error *err)
{
	w->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	if (!w->library)
		return error_set(
		    err, ENOENT,
		    "--display window: %s is not here; install the package libsdl2-2.0-0, or use "
		    "--display vnc=:5900",
		    LIBRARY);
#define FIND(type, name, args)                                                                               \
	*(void **)&w->sdl.name = dlsym(w->library, "SDL_" #name);                                            \
	if (!w->sdl.name)                                                                                    \
		return error_set(err, ENOENT, "--display window: %s has no SDL_%s; install a newer one",     \
				 LIBRARY, #name);
	SDL_FUNCTIONS(FIND)
#undef FIND
	return 0;
}

static int open_window(struct window *w, struct error *err)
{
	struct itimerspec period = { { 0, PERIOD_NS }, { 0, PERIOD_NS } };

	w->sdl.SetHint(SDL_HINT_NO_SIGNAL_HANDLERS, "1");
	w->sdl.SetHint(SDL_HINT_FRAMEBUFFER_ACCELERATION, "0");
	w->sdl.SetHint(SDL_HINT_VIDEO_ALLOW_SCREENSAVER, "1");
	w->init = w->sdl.Init(SDL_INIT_VIDEO) == 0;
	if (w->init)
		w->window = w->sdl.CreateWindow(w->config.title, SDL_WINDOWPOS_UNDEFINED,
						SDL_WINDOWPOS_UNDEFINED, (int)w->display->width,
						(int)w->display->height, SDL_WINDOW_RESIZABLE);
	if (w->window)
		w->renderer = w->sdl.CreateRenderer(w->window, -1, SDL_RENDERER_SOFTWARE);
	if (!w->renderer)
		return error_set(err, EIO,
				 "--display window: there is no screen for it (%s); start Sill in a desktop "
				 "session, or use --display vnc=:5900",
				 w->sdl.GetError());
	set_title(w);
	w->watch.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (w->watch.fd < 0 || timerfd_settime(w->watch.fd, 0, &period, NULL) < 0)
		return error_set(err, errno, "the window cannot have a timer: %s", strerror(errno));
	w->watch.events = EPOLLIN;
	w->watch.fn = tick;
	w->watch.opaque = w;
	int r = loop_watch_add(w->loop, &w->watch);
	if (r < 0) {
		close(w->watch.fd);
		w->watch.fd = -1;
		return error_set(err, -r, "the window cannot wait for events: %s", strerror(-r));
	}
	return 0;
}

int window_new(struct loop *l, const struct window_config *c, struct display *d, struct input *in,
	       struct window **ret, struct error *err)
{
	struct window *w = calloc(1, sizeof(*w));

	if (!w)
		return error_set(err, ENOMEM, "no memory for a window; free some and try again");
	w->loop = l;
	w->config = *c;
	w->display = d;
	w->input = in;
	w->watch.fd = -1;
	w->viewer =
	    (struct display_viewer){ .resized = viewer_resized, .updated = viewer_updated, .opaque = w };
	display_add_viewer(d, &w->viewer);
	int r = load(w, err);
	if (!r)
		r = open_window(w, err);
	if (r) {
		window_free(w);
		return r;
	}
	w->changed = true;
	*ret = w;
	return 0;
}

void window_free(struct window *w)
{
	if (!w)
		return;
	display_remove_viewer(w->display, &w->viewer);
	if (w->watch.fd >= 0) {
		loop_watch_del(w->loop, &w->watch);
		close(w->watch.fd);
	}
	release_keys(w);
	if (w->texture)
		w->sdl.DestroyTexture(w->texture);
	if (w->renderer)
		w->sdl.DestroyRenderer(w->renderer);
	if (w->window)
		w->sdl.DestroyWindow(w->window);
	if (w->init)
		w->sdl.Quit();
	/* The library stays: what it brought along does not like to be unloaded. */
	free(w);
}
