/* SPDX-License-Identifier: Apache-2.0 */
/* USB devices without a controller: keyboard, tablet, disk. */
#include <linux/input-event-codes.h>

#include "base/iov.h"
#include "dev/storage/test_disk.h"
#include "dev/usb/hid.h"
#include "dev/usb/msc.h"

static struct test_storage s;
static struct input in;
static struct usb_device *keyboard, *tablet, *disk;
static struct scsi_device *unit;
static unsigned wakeups;
static uint8_t data[USB_MAX_CONTROL];

static void on_wakeup(void *opaque, struct usb_device *d, unsigned endpoint)
{
	(void)opaque;
	(void)d;
	(void)endpoint;
	wakeups++;
}

static bool on_running(void *opaque)
{
	(void)opaque;
	return true;
}

static int control(struct usb_device *d, uint8_t type, uint8_t request, uint16_t value, uint16_t index,
		   uint16_t length)
{
	uint8_t setup[8] = { type,
			     request,
			     (uint8_t)value,
			     (uint8_t)(value >> 8),
			     (uint8_t)index,
			     (uint8_t)(index >> 8),
			     (uint8_t)length,
			     (uint8_t)(length >> 8) };

	return usb_control(d, setup, data);
}

static int setup(void **state)
{
	struct usb_device **all[] = { &keyboard, &tablet, &disk };

	(void)state;
	ts_init(&s);
	in = (struct input){ 0 };
	wakeups = 0;
	assert_int_equal(usb_keyboard_new(&s.t.b, &in, &keyboard, NULL), 0);
	assert_int_equal(usb_tablet_new(&s.t.b, &in, &tablet, NULL), 0);
	assert_int_equal(usb_msc_new(&s.t.b, false, ts_disk(&s, false), "serial", 0, &disk, &unit, NULL), 0);
	for (unsigned i = 0; i < 3; i++) {
		(*all[i])->host = (struct usb_host){ .wakeup = on_wakeup, .running = on_running };
		assert_int_equal(control(*all[i], 0, 9, 1, 0, 0), 0);
	}
	mutex_lock(&s.t.io);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	mutex_unlock(&s.t.io);
	ts_fini(&s);
	return 0;
}

static void descriptors(void **state)
{
	struct usb_device *all[] = { keyboard, tablet, disk };

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(control(all[i], 0x80, 6, 0x100, 0, 18), 18);
		assert_int_equal(data[0], 18);
		assert_int_equal(control(all[i], 0x80, 6, 0x100, 0, 8), 8);
		int n = control(all[i], 0x80, 6, 0x200, 0, 0xffff);
		assert_true(n > 9);
		assert_int_equal(data[2] | data[3] << 8, n);
		/* Its parts add up. */
		int at = 0;
		while (at < n && data[at])
			at += data[at];
		assert_int_equal(at, n);
		for (uint16_t k = 0; k < 4; k++)
			assert_true(control(all[i], 0x80, 6, 0x300 + k, 0x409, 255) >= 4);
		assert_int_equal(control(all[i], 0x80, 6, 0x304, 0x409, 255), -1);
		assert_int_equal(control(all[i], 0x80, 6, 0x600, 0, 10), 10);
		assert_int_equal(control(all[i], 0x80, 6, 0xf00, 0, 10), -1);
		assert_int_equal(control(all[i], 0x80, 8, 0, 0, 1), 1);
		assert_int_equal(data[0], 1);
		assert_int_equal(control(all[i], 0, 9, 7, 0, 0), -1);
		assert_int_equal(control(all[i], 0x80, 0, 0, 0, 2), 2);
		assert_int_equal(control(all[i], 2, 3, 0, 0x81, 0), 0); /* halt, and what it says */
		assert_int_equal(control(all[i], 0x82, 0, 0, 0x81, 2), 2);
		assert_int_equal(data[0], 1);
		assert_int_equal(control(all[i], 2, 1, 0, 0x81, 0), 0);
		assert_int_equal(control(all[i], 0, 0x55, 0, 0, 0), -1);
	}
	assert_true(control(keyboard, 0x81, 6, 0x2200, 0, 255) > 60);
	assert_int_equal(control(keyboard, 0x81, 6, 0x2100, 0, 9), 9);
	assert_int_equal(control(keyboard, 0x81, 6, 0x2300, 0, 9), -1);
}

static enum usb_result transfer(struct usb_device *d, uint8_t endpoint, bool to_host, void *buf, size_t len,
				uint64_t *actual);

static void keys(void **state)
{
	uint8_t r[8];
	uint64_t n;

	(void)state;
	assert_int_equal(transfer(keyboard, 1, true, r, 8, &n), USB_NAK);
	input_key(&in, KEY_LEFTSHIFT, true);
	input_key(&in, KEY_A, true);
	input_key(&in, KEY_A, false);
	assert_int_equal(wakeups, 3);
	assert_int_equal(transfer(keyboard, 1, true, r, 8, &n), USB_OK);
	assert_int_equal(n, 8);
	assert_int_equal(r[0], 2);
	assert_int_equal(transfer(keyboard, 1, true, r, 8, &n), USB_OK);
	assert_int_equal(r[2], 4);
	assert_int_equal(transfer(keyboard, 1, true, r, 8, &n), USB_OK);
	assert_int_equal(r[2], 0);
	assert_int_equal(r[0], 2);
	input_key(&in, KEY_LEFTSHIFT, false);
	assert_int_equal(transfer(keyboard, 1, true, r, 8, &n), USB_OK);
	assert_int_equal(r[0], 0);
	assert_int_equal(transfer(keyboard, 1, true, r, 8, &n), USB_NAK);
	/* More keys than places; keys that there are none of. */
	for (uint16_t k = KEY_Q; k <= KEY_O; k++)
		input_key(&in, k, true);
	input_key(&in, 0xffff, true);
	input_key(&in, 0, true);
	while (transfer(keyboard, 1, true, r, 8, &n) == USB_OK)
		;
	assert_int_equal(r[7], 0x1c); /* Y is the sixth */
	/* Nobody fetches: the keyboard is none any more. */
	for (uint16_t k = KEY_Q; k <= KEY_O; k++)
		input_key(&in, k, false);
	test_advance(&s.t, 1100000000);
	wakeups = 0;
	input_key(&in, KEY_B, true);
	assert_int_equal(wakeups, 0);
	input_key(&in, KEY_B, false);
	while (transfer(keyboard, 1, true, r, 8, &n) == USB_OK)
		;
	/* A key comes up where it went down, even then. */
	input_key(&in, KEY_C, true);
	test_advance(&s.t, 1100000000);
	input_key(&in, KEY_D, true);
	input_key(&in, KEY_C, false);
	assert_int_equal(wakeups, 2);
	while (transfer(keyboard, 1, true, r, 8, &n) == USB_OK)
		;
	assert_int_equal(r[2], 0);
	/* Requests of the class. */
	assert_int_equal(control(keyboard, 0xa1, 1, 0x100, 0, 8), 8);
	assert_int_equal(control(keyboard, 0x21, 0x0a, 0x0700, 0, 0), 0);
	assert_int_equal(control(keyboard, 0xa1, 2, 0, 0, 1), 1);
	assert_int_equal(data[0], 7);
	assert_int_equal(control(keyboard, 0x21, 0x0b, 0, 0, 0), 0);
	assert_int_equal(control(keyboard, 0xa1, 3, 0, 0, 1), 1);
	assert_int_equal(data[0], 0);
	assert_int_equal(control(keyboard, 0x21, 9, 0x200, 0, 1), 0);
}

static void pointer(void **state)
{
	uint8_t r[8];
	uint64_t n;

	(void)state;
	assert_true(input_wants_absolute(&in));
	input_pointer(&in, 0x1234, 0x7fff, 0, INPUT_LEFT, 640, 480);
	assert_int_equal(transfer(tablet, 1, true, r, 8, &n), USB_OK);
	assert_int_equal(n, 6);
	assert_memory_equal(r, "\x01\x34\x12\xff\x7f\x00", 6);
	/* Movement without a change of buttons is one event. */
	for (int i = 0; i < 100; i++)
		input_pointer(&in, i, i, 0, 0, 640, 480);
	input_pointer(&in, 5, 6, -1, 0, 640, 480);
	assert_int_equal(transfer(tablet, 1, true, r, 8, &n), USB_OK);
	assert_memory_equal(r, "\x00\x63\x00\x63\x00\x00", 6);
	assert_int_equal(transfer(tablet, 1, true, r, 8, &n), USB_OK);
	assert_memory_equal(r, "\x00\x05\x00\x06\x00\xff", 6);
	assert_int_equal(transfer(tablet, 1, true, r, 8, &n), USB_NAK);
	assert_int_equal(control(tablet, 0, 9, 0, 0, 0), 0); /* switched off */
	assert_false(input_wants_absolute(&in));
	assert_int_equal(transfer(tablet, 1, true, r, 8, &n), USB_STALL);
}

/* ---- disk ---- */

static enum usb_result later;
static bool has_ended;

static void on_done(struct usb_transfer *t, enum usb_result r)
{
	(void)t;
	later = r;
	has_ended = true;
}

static enum usb_result transfer(struct usb_device *d, uint8_t endpoint, bool to_host, void *buf, size_t len,
				uint64_t *actual)
{
	struct iovec iov = { buf, len };
	struct usb_transfer t = {
		.endpoint = endpoint, .in = to_host, .iov = &iov, .iovcnt = 1, .len = len, .done = on_done
	};
	enum usb_result r;

	has_ended = false;
	r = usb_transfer(d, &t);
	if (r == USB_PENDING) {
		usb_drain(d);
		assert_true(has_ended);
		r = later;
	}
	*actual = t.actual;
	return r;
}

static uint64_t n;

static void command(const uint8_t *cdb, unsigned cdb_len, uint32_t len, bool to_host)
{
	uint8_t cbw[31] = { 'U', 'S', 'B', 'C', 1, 2, 3, 4 };

	memcpy(cbw + 8, &len, 4);
	cbw[12] = to_host ? 0x80 : 0;
	cbw[14] = (uint8_t)cdb_len;
	memcpy(cbw + 15, cdb, cdb_len);
	assert_int_equal(transfer(disk, 2, false, cbw, sizeof(cbw), &n), USB_OK);
	assert_int_equal(n, 31);
}

static void expect_status(uint8_t status, uint32_t residue)
{
	uint8_t csw[13];
	uint32_t r;

	assert_int_equal(transfer(disk, 1, true, csw, sizeof(csw), &n), USB_OK);
	assert_int_equal(n, 13);
	assert_memory_equal(csw, "USBS\x01\x02\x03\x04", 8);
	memcpy(&r, csw + 8, 4);
	assert_int_equal(r, residue);
	assert_int_equal(csw[12], status);
}

#define CDB(...) ((const uint8_t[16]){ __VA_ARGS__ })
static uint32_t buf[8192];

static void storage(void **state)
{
	(void)state;
	assert_int_equal(control(disk, 0xa1, 0xfe, 0, 0, 1), 1);
	assert_int_equal(data[0], 0);
	command(CDB(0x12, 0, 0, 0, 36), 6, 36, true);
	assert_int_equal(transfer(disk, 1, true, buf, 36, &n), USB_OK);
	assert_int_equal(n, 36);
	expect_status(0, 0);
	/* Less than expected: a short transfer. */
	command(CDB(0x12, 0, 0, 0, 255), 6, 255, true);
	assert_int_equal(transfer(disk, 1, true, buf, 255, &n), USB_OK);
	assert_int_equal(n, 36);
	expect_status(0, 255 - 36);
	command(CDB(0x00), 6, 0, false);
	expect_status(0, 0);
	/* A read in two transfers. */
	command(CDB(0x28, 0, 0, 0, 0, 9, 0, 0, 8), 10, 4096, true);
	assert_int_equal(transfer(disk, 1, true, buf, 1024, &n), USB_OK);
	assert_int_equal(n, 1024);
	assert_int_equal(transfer(disk, 1, true, buf + 256, 3072, &n), USB_OK);
	assert_int_equal(buf[0], 9);
	assert_int_equal(buf[1023], 16);
	expect_status(0, 0);
	/* A write with FUA, and it is there. */
	memset(buf, 0x5a, 1024);
	command(CDB(0x2a, 8, 0, 0, 0, 9, 0, 0, 2), 10, 1024, false);
	assert_int_equal(transfer(disk, 2, false, buf, 1024, &n), USB_OK);
	expect_status(0, 0);
	command(CDB(0x28, 0, 0, 0, 0, 10, 0, 0, 2), 10, 1024, true);
	assert_int_equal(transfer(disk, 1, true, buf, 1024, &n), USB_OK);
	assert_int_equal(buf[0], 0x5a5a5a5a);
	assert_int_equal(buf[128], 11);
	expect_status(0, 0);
	command(CDB(0x35), 10, 0, false);
	expect_status(0, 0);
	/* UNMAP has data of its own. */
	memset(buf, 0, 24);
	((uint8_t *)buf)[1] = 22;
	((uint8_t *)buf)[3] = 16;
	((uint8_t *)buf)[19] = 8;
	command(CDB(0x42, [8] = 24), 10, 24, false);
	assert_int_equal(transfer(disk, 2, false, buf, 24, &n), USB_OK);
	expect_status(0, 0);
}

static void storage_errors(void **state)
{
	(void)state;
	/* Beyond the end: nothing, failed, and why. */
	command(CDB(0x28, 0, 0, 0x10, 0, 0, 0, 0, 1), 10, 512, true);
	assert_int_equal(transfer(disk, 1, true, buf, 512, &n), USB_OK);
	assert_int_equal(n, 0);
	expect_status(1, 512);
	command(CDB(0x03, 0, 0, 0, 18), 6, 18, true);
	assert_int_equal(transfer(disk, 1, true, buf, 18, &n), USB_OK);
	assert_int_equal(((uint8_t *)buf)[2], 5);
	assert_int_equal(((uint8_t *)buf)[12], 0x21);
	expect_status(0, 0);
	/* The host expects more, less, nothing, or the other direction. */
	command(CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), 10, 1024, true);
	assert_int_equal(transfer(disk, 1, true, buf, 512, &n), USB_OK);
	assert_int_equal(transfer(disk, 1, true, buf, 512, &n), USB_OK);
	assert_int_equal(n, 0);
	expect_status(0, 512);
	command(CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 4), 10, 512, true);
	assert_int_equal(transfer(disk, 1, true, buf, 512, &n), USB_OK);
	expect_status(0, 0);
	command(CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 4), 10, 0, true);
	expect_status(2, 0);
	command(CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1), 10, 512, false);
	assert_int_equal(transfer(disk, 2, false, buf, 512, &n), USB_OK);
	expect_status(2, 512);
	command(CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1), 10, 1024, false);
	assert_int_equal(transfer(disk, 2, false, buf, 1024, &n), USB_OK);
	expect_status(0, 512);
	/* No wrapper: both pipes stall until the transport is reset. */
	assert_int_equal(transfer(disk, 2, false, buf, 31, &n), USB_STALL);
	assert_int_equal(control(disk, 2, 1, 0, 2, 0), 0);
	assert_int_equal(transfer(disk, 2, false, buf, 32, &n), USB_STALL);
	assert_int_equal(transfer(disk, 1, true, buf, 13, &n), USB_STALL);
	assert_int_equal(control(disk, 0x21, 0xff, 0, 0, 0), 0);
	assert_int_equal(control(disk, 2, 1, 0, 2, 0), 0);
	assert_int_equal(control(disk, 2, 1, 0, 0x81, 0), 0);
	command(CDB(0x00), 6, 0, false);
	expect_status(0, 0);
}

static void hostile(void **state)
{
	uint32_t x = 3;

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		static const uint8_t ops[] = { 0x12, 0x28, 0x2a, 0x42, 0x41, 0x1a, 0x5a, 0x93 };
		uint8_t cbw[31] = { 'U', 'S', 'B', 'C' };
		uint16_t len;

		x = x * 1664525 + 1013904223;
		len = x >> 16 & 0x3fff;
		if ((x >> 3 & 3) == 0) {
			cbw[8] = (uint8_t)(x >> 5);
			cbw[9] = (uint8_t)(x >> 9 & 31);
			cbw[12] = (uint8_t)(x >> 12 & 0x80);
			cbw[14] = x >> 30 ? 16 : (uint8_t)(x >> 7);
			cbw[15] = ops[x >> 27 & 7];
			cbw[20] = (uint8_t)(x >> 4);
			cbw[23] = (uint8_t)(x >> 8 & 31);
			memcpy(buf, cbw, sizeof(cbw));
			len = 31;
		}
		transfer(disk, x & 1 ? 1 : 2, x & 1, buf, len, &n);
		if ((x >> 24) == 0) {
			control(disk, 0x21, 0xff, 0, 0, 0);
			control(disk, 2, 1, 0, 2, 0);
			control(disk, 2, 1, 0, 0x81, 0);
		}
		control(x & 4 ? tablet : keyboard, (uint8_t)(x >> 8), (uint8_t)(x >> 16 & 15),
			(uint16_t)(x >> 3), (uint16_t)(x >> 5), (uint16_t)(x >> 11));
	}
}

static enum input_want wanted(void *opaque)
{
	return *(enum input_want *)opaque;
}

static unsigned other_keys;

static void other_key(void *opaque, uint16_t code, bool down)
{
	(void)opaque;
	(void)code;
	other_keys += down;
}

/* Firmware that uses the keyboard leaves it to another one that is listened to. */
static void boot_protocol_comes_second(void **state)
{
	enum input_want want = INPUT_FIRST;
	struct input_sink other = { .takes = INPUT_KEYS, .wants = wanted, .key = other_key, .opaque = &want };
	uint8_t r[8];

	(void)state;
	other_keys = 0;
	struct input_sink **last = &in.sinks;
	while (*last)
		last = &(*last)->next;
	*last = &other; /* as if it had been there first */
	input_key(&in, KEY_A, true);
	assert_int_equal(transfer(keyboard, 1, true, r, 8, &n), USB_OK);
	assert_int_equal(control(keyboard, 0x21, 0x0b, 0, 0, 0), 0); /* SET_PROTOCOL: boot */
	input_key(&in, KEY_B, true);
	assert_int_equal(other_keys, 1);
	input_key(&in, KEY_A, false); /* where it went down */
	assert_int_equal(transfer(keyboard, 1, true, r, 8, &n), USB_OK);
	want = INPUT_SECOND;
	input_key(&in, KEY_C, true);
	assert_int_equal(other_keys, 1);
	want = INPUT_FIRST;
	assert_int_equal(control(keyboard, 0x21, 0x0b, 1, 0, 0), 0);
	input_key(&in, KEY_D, true);
	assert_int_equal(other_keys, 1);
	input_remove(&in, &other);
}

static void round_trip(void **state)
{
	uint8_t r[8];

	(void)state;
	input_key(&in, KEY_A, true);
	input_key(&in, KEY_B, true);
	transfer(keyboard, 1, true, r, 8, &n);
	input_pointer(&in, 1, 2, 3, 4, 640, 480);
	command(CDB(0x28, 0, 0, 0, 0, 9, 0, 0, 8), 10, 4096, true);
	transfer(disk, 1, true, buf, 1024, &n);
	test_round_trip(&s.t);
	assert_int_equal(transfer(disk, 1, true, buf, 3072, &n), USB_OK);
	assert_int_equal(buf[0], 11);
	expect_status(0, 0);
	assert_int_equal(transfer(keyboard, 1, true, r, 8, &n), USB_OK);
	assert_int_equal(r[3], 5);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(descriptors),
		T(keys),
		T(pointer),
		T(storage),
		T(storage_errors),
		T(hostile),
		T(boot_protocol_comes_second),
		T(round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
