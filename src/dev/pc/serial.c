/* SPDX-License-Identifier: Apache-2.0 */
/*
 * National PC16550D UART with FIFOs (datasheet of June 1995).
 *
 * Sending takes no time: a byte goes to the character device at once, and THRE
 * comes back as the datasheet says, as an event of its own per byte.  Only when
 * the device refuses (its buffer is full) do bytes stay in the transmit FIFO with
 * THRE clear, until it has room again.  Input is asked for only while the receive
 * FIFO has room, so it overruns in loopback alone.  The character timeout is
 * four characters' time at the programmed speed.
 *
 * The interrupt goes out whatever OUT2 is.  That gates it on the first PCs' boards,
 * but not on all, nor in other virtual machines, and there are systems that leave
 * it 0 and wait for interrupts.  Looping back, the part is silent.  With a device
 * connected CTS, DSR and DCD are on.
 *
 * Not modelled: parity and framing errors, breaks, DMA mode, RTS (input is not
 * held back by it).
 */
#include "dev/pc/serial.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define CLOCK_HZ 1843200
#define FIFO     16

enum { REG_DATA, REG_IER, REG_IIR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };
#define REG_FCR REG_IIR

#define IER_RDA  0x01
#define IER_THRE 0x02
#define IER_LSR  0x04
#define IER_MSR  0x08

#define IIR_NONE    0x01
#define IIR_MSR     0x00
#define IIR_THRE    0x02
#define IIR_RDA     0x04
#define IIR_LSR     0x06
#define IIR_TIMEOUT 0x0c
#define IIR_FIFOS   0xc0

#define FCR_ENABLE  0x01
#define FCR_CLEAR_R 0x02
#define FCR_CLEAR_T 0x04
#define FCR_KEPT    0xc9

#define LCR_DLAB 0x80

#define MCR_DTR  0x01
#define MCR_RTS  0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10

#define LSR_DR     0x01
#define LSR_OE     0x02
#define LSR_ERRORS 0x1e
#define LSR_THRE   0x20
#define LSR_TEMT   0x40

#define MSR_DCTS 0x01
#define MSR_DDSR 0x02
#define MSR_TERI 0x04
#define MSR_DDCD 0x08
#define MSR_CTS  0x10
#define MSR_DSR  0x20
#define MSR_RI   0x40
#define MSR_DCD  0x80

struct serial {
	struct device dev;
	struct board *board;
	struct irq_line irq;
	struct chardev *chr;
	struct io_region ports;
	struct loop_timer timer; /* character timeout */

	uint8_t ier, fcr, lcr, mcr, scr;
	uint8_t lsr_errors; /* OE and its kin */
	uint8_t msr;
	uint16_t divisor;
	uint8_t rx[FIFO], tx[FIFO];
	uint8_t rx_head, rx_used, tx_head, tx_used;
	bool thre_event; /* the THRE interrupt waits */
	bool timed_out;  /* the character timeout waits */
	bool connected;
};

static bool fifos(const struct serial *s)
{
	return s->fcr & FCR_ENABLE;
}

static unsigned depth(const struct serial *s)
{
	return fifos(s) ? FIFO : 1;
}

static unsigned trigger(const struct serial *s)
{
	static const uint8_t levels[4] = { 1, 4, 8, 14 };

	return fifos(s) ? levels[s->fcr >> 6] : 1;
}

/* ---- interrupts ---- */

static uint8_t interrupt_id(const struct serial *s)
{
	if ((s->ier & IER_LSR) && (s->lsr_errors & LSR_ERRORS))
		return IIR_LSR;
	if ((s->ier & IER_RDA) && s->rx_used >= trigger(s))
		return IIR_RDA;
	if ((s->ier & IER_RDA) && s->timed_out)
		return IIR_TIMEOUT;
	if ((s->ier & IER_THRE) && s->thre_event)
		return IIR_THRE;
	if ((s->ier & IER_MSR) && (s->msr & (MSR_DCTS | MSR_DDSR | MSR_TERI | MSR_DDCD)))
		return IIR_MSR;
	return IIR_NONE;
}

static void update_irq(struct serial *s)
{
	irq_set(&s->irq, interrupt_id(s) != IIR_NONE && !(s->mcr & MCR_LOOP));
}

/* The time of four characters: 1 start, 5..8 data, parity, stop bits at 16 clocks each. */
static int64_t timeout_ns(const struct serial *s)
{
	unsigned bits = 1 + 5 + (s->lcr & 3) + (s->lcr & 8 ? 1 : 0) + (s->lcr & 4 ? 2 : 1);

	return 4ll * bits * 16 * (s->divisor ? s->divisor : 1) * 1000000000 / CLOCK_HZ;
}

/* (Re)starts the wait for a timeout, if there is something that the trigger level keeps back. */
static void restart_timeout(struct serial *s)
{
	s->timed_out = false;
	if (fifos(s) && s->rx_used && s->rx_used < trigger(s))
		loop_timer_arm(&s->timer, clock_now_ns(s->board->clock) + timeout_ns(s));
	else
		loop_timer_cancel(&s->timer);
}

static void timeout(void *opaque)
{
	struct serial *s = opaque;

	s->timed_out = s->rx_used > 0;
	update_irq(s);
}

/* ---- receiving ---- */

static void rx_put(struct serial *s, uint8_t c)
{
	if (s->rx_used >= depth(s)) {
		s->lsr_errors |= LSR_OE;
		if (!fifos(s))
			s->rx[s->rx_head] = c; /* without FIFO the new character wins */
		return;
	}
	s->rx[(s->rx_head + s->rx_used) % FIFO] = c;
	s->rx_used++;
	restart_timeout(s);
}

static size_t chr_room(void *opaque)
{
	const struct serial *s = opaque;

	return s->mcr & MCR_LOOP || s->rx_used >= depth(s) ? 0 : depth(s) - s->rx_used;
}

static void chr_read(void *opaque, const uint8_t *buf, size_t len)
{
	struct serial *s = opaque;

	for (size_t i = 0; i < len; i++)
		rx_put(s, buf[i]);
	update_irq(s);
}

static uint8_t rx_get(struct serial *s)
{
	uint8_t c = s->rx[s->rx_head];

	if (!s->rx_used)
		return c; /* the last one again */
	s->rx_head = (s->rx_head + 1) % FIFO;
	s->rx_used--;
	restart_timeout(s);
	chardev_reader_ready(s->chr);
	return c;
}

static void rx_clear(struct serial *s)
{
	s->rx_used = 0;
	restart_timeout(s);
}

/* ---- sending ---- */

static void tx_run(struct serial *s)
{
	while (s->tx_used && !(s->mcr & MCR_LOOP)) {
		if (chardev_write(s->chr, &s->tx[s->tx_head], 1) == 0)
			return; /* chr_writable calls again */
		s->tx_head = (s->tx_head + 1) % FIFO;
		if (--s->tx_used == 0)
			s->thre_event = true;
	}
}

static void chr_writable(void *opaque)
{
	struct serial *s = opaque;

	tx_run(s);
	update_irq(s);
}

static void tx_put(struct serial *s, uint8_t c)
{
	/* The write takes the interrupt back for an instant: a new edge follows when the byte has gone. */
	s->thre_event = false;
	update_irq(s);
	if (s->mcr & MCR_LOOP) {
		rx_put(s, c);
		s->thre_event = true;
		return;
	}
	if (s->tx_used < depth(s)) {
		s->tx[(s->tx_head + s->tx_used) % FIFO] = c;
		s->tx_used++;
	} else if (!fifos(s)) {
		s->tx[s->tx_head] = c; /* overwritten, as the holding register is */
	}
	tx_run(s);
}

/* ---- modem lines ---- */

static uint8_t modem_inputs(const struct serial *s)
{
	if (s->mcr & MCR_LOOP)
		return (s->mcr & MCR_RTS ? MSR_CTS : 0) | (s->mcr & MCR_DTR ? MSR_DSR : 0) |
		       (s->mcr & MCR_OUT1 ? MSR_RI : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0);
	return s->connected ? MSR_CTS | MSR_DSR | MSR_DCD : 0;
}

static void update_modem(struct serial *s)
{
	uint8_t now = modem_inputs(s), changed = (now ^ s->msr) & 0xf0;

	s->msr = now | (s->msr & 0x0f);
	s->msr |= changed >> 4 & (MSR_DCTS | MSR_DDSR | MSR_DDCD);
	if ((changed & MSR_RI) && !(now & MSR_RI))
		s->msr |= MSR_TERI; /* only the end of a ring counts */
}

static void chr_connected(void *opaque, bool yes)
{
	struct serial *s = opaque;

	s->connected = yes;
	update_modem(s);
	update_irq(s);
}

/* ---- registers ---- */

static void fcr_write(struct serial *s, uint8_t v)
{
	bool toggled = (v ^ s->fcr) & FCR_ENABLE;

	if (toggled || (v & FCR_CLEAR_R))
		rx_clear(s);
	/* Bytes that wait for the device go too: the guest asks for it. */
	if ((toggled || (v & FCR_CLEAR_T)) && s->tx_used) {
		s->tx_used = 0;
		s->thre_event = true;
	}
	s->fcr = v & FCR_ENABLE ? v & FCR_KEPT : 0; /* the other bits are only written with bit 0 set */
	restart_timeout(s);
	chardev_reader_ready(s->chr);
}

static void ier_write(struct serial *s, uint8_t v)
{
	v &= 0x0f;
	/* Enabling it while the register is empty is an event too (drivers probe for this). */
	if ((v & IER_THRE) && !(s->ier & IER_THRE) && !s->tx_used)
		s->thre_event = true;
	s->ier = v;
}

static void mcr_write(struct serial *s, uint8_t v)
{
	bool left_loop = (s->mcr & MCR_LOOP) && !(v & MCR_LOOP);

	s->mcr = v & 0x1f;
	update_modem(s);
	if (left_loop) {
		tx_run(s);
		chardev_reader_ready(s->chr);
	}
}

static void ports_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct serial *s = opaque;
	uint8_t v = value;

	(void)size;
	if (offset <= REG_IER && (s->lcr & LCR_DLAB)) {
		s->divisor = offset ? (s->divisor & 0xff) | v << 8 : (s->divisor & 0xff00) | v;
		return;
	}
	switch (offset) {
	case REG_DATA:
		tx_put(s, v);
		break;
	case REG_IER:
		ier_write(s, v);
		break;
	case REG_FCR:
		fcr_write(s, v);
		break;
	case REG_LCR:
		s->lcr = v;
		break;
	case REG_MCR:
		mcr_write(s, v);
		break;
	case REG_SCR:
		s->scr = v;
		break;
	default:
		break; /* LSR and MSR are read-only (writing is for factory tests) */
	}
	update_irq(s);
}

static uint8_t lsr(const struct serial *s)
{
	return s->lsr_errors | (s->rx_used ? LSR_DR : 0) | (s->tx_used ? 0 : LSR_THRE | LSR_TEMT);
}

static uint8_t iir_read(struct serial *s)
{
	uint8_t id = interrupt_id(s);

	if (id == IIR_THRE)
		s->thre_event = false;
	return id | (fifos(s) ? IIR_FIFOS : 0);
}

static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
	struct serial *s = opaque;
	uint8_t v = 0;

	(void)size;
	if (offset <= REG_IER && (s->lcr & LCR_DLAB))
		return offset ? s->divisor >> 8 : s->divisor & 0xff;
	switch (offset) {
	case REG_DATA:
		v = rx_get(s);
		break;
	case REG_IER:
		v = s->ier;
		break;
	case REG_IIR:
		v = iir_read(s);
		break;
	case REG_LCR:
		v = s->lcr;
		break;
	case REG_MCR:
		v = s->mcr;
		break;
	case REG_LSR:
		v = lsr(s);
		s->lsr_errors = 0;
		break;
	case REG_MSR:
		v = s->msr;
		s->msr &= 0xf0;
		break;
	default:
		v = s->scr;
		break;
	}
	update_irq(s);
	return v;
}

/* ---- reset, state ---- */

/* Master reset (datasheet table III). Bytes that the guest sent are kept for the device. */
static void serial_reset(struct device *d)
{
	struct serial *s = (struct serial *)d;

	s->ier = s->lcr = s->mcr = s->scr = 0;
	s->lsr_errors = 0;
	s->divisor = 12; /* 9600 */
	s->fcr = 0;
	s->thre_event = false;
	rx_clear(s);
	s->msr = modem_inputs(s);
	tx_run(s);
	update_irq(s);
	chardev_reader_ready(s->chr);
}

static int serial_loaded(void *obj, struct error *err)
{
	struct serial *s = obj;

	if (s->rx_head >= FIFO || s->tx_head >= FIFO || s->rx_used > FIFO || s->tx_used > FIFO)
		return error_set(err, EINVAL,
				 "the saved state of serial port %u is impossible; it is damaged",
				 s->dev.instance);
	/* The line is in the controllers' state. The device's state is its own: look at it anew from the
	 * loop. */
	loop_timer_arm(&s->timer, clock_now_ns(s->board->clock) + (s->timed_out ? 0 : timeout_ns(s)));
	return 0;
}

static const struct state_field serial_fields[] = {
	F_U8(struct serial, ier),
	F_U8(struct serial, fcr),
	F_U8(struct serial, lcr),
	F_U8(struct serial, mcr),
	F_U8(struct serial, scr),
	F_U8(struct serial, lsr_errors),
	F_U8(struct serial, msr),
	F_U16(struct serial, divisor),
	F_BYTES(struct serial, rx),
	F_BYTES(struct serial, tx),
	F_U8(struct serial, rx_head),
	F_U8(struct serial, rx_used),
	F_U8(struct serial, tx_head),
	F_U8(struct serial, tx_used),
	F_BOOL(struct serial, thre_event),
	F_BOOL(struct serial, timed_out),
	F_END,
};
static const struct state_table serial_state = { "serial", 1, serial_fields, serial_loaded };

static void serial_free(struct device *d)
{
	struct serial *s = (struct serial *)d;

	chardev_set_reader(s->chr, NULL);
	loop_timer_cancel(&s->timer);
	mem_unmap_pio(s->board->mem, &s->ports);
	free(s);
}

static const struct device_class serial_class = { "serial", serial_reset, &serial_state, serial_free };

int serial_new(struct board *b, uint16_t base, struct irq_line irq, struct chardev *chr, uint32_t instance,
	       struct serial **ret, struct error *err)
{
	struct serial *s = calloc(1, sizeof(*s));

	if (!s)
		return error_set(err, ENOMEM, "no memory for a serial port; free some and try again");
	s->board = b;
	s->irq = irq;
	s->chr = chr;
	s->divisor = 12;
	loop_timer_init(b->loop, &s->timer, timeout, s);
	s->ports = (struct io_region){ .name = "serial",
				       .base = base,
				       .size = 8,
				       .read = ports_read,
				       .write = ports_write,
				       .opaque = s,
				       .max_size = 1 };
	mem_map_pio(b->mem, &s->ports);
	board_add(b, &s->dev, &serial_class, instance);
	chardev_set_reader(chr, &(struct chardev_reader){ .room = chr_room,
							  .read = chr_read,
							  .writable = chr_writable,
							  .connected = chr_connected,
							  .opaque = s });
	*ret = s;
	return 0;
}
