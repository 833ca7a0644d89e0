/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio over PCI (virtio 1.2 §4.1), without the legacy interface.
 *
 * Vendor-specific capabilities say where in BAR 0 the driver finds four
 * structures: the common configuration, one notification register per queue,
 * the interrupt status and the device's own configuration.  A fifth capability
 * is a window on the BAR through configuration space, for firmware that cannot
 * reach memory BARs.
 *
 * Interrupts: with MSI-X, the vector that the driver chose for a queue or for
 * configuration changes; without, INTx, level, while the interrupt status is
 * not zero (reading it clears it).
 */
#include "dev/virtio/virtio_pci.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"

#define PCI_VENDOR_VIRTIO 0x1af4
#define PCI_DEVICE_MODERN 0x1040 /* plus the device type */
#define PCI_SUBSYS_MODERN 0x1100 /* any value from 0x40 up will do (§4.1.2.1) */

#define VIRTIO_BAR    0
#define MSIX_BAR      1
#define BAR_SIZE      0x4000u
#define COMMON_OFFSET 0x0000u
#define COMMON_SIZE   0x3cu
#define ISR_OFFSET    0x1000u
#define ISR_SIZE      4u
#define CONFIG_OFFSET 0x2000u
#define CONFIG_SIZE   0x1000u
#define NOTIFY_OFFSET 0x3000u
#define NOTIFY_STRIDE 4u

/* Capability types (§4.1.4) */
#define CAP_COMMON       1
#define CAP_NOTIFY       2
#define CAP_ISR          3
#define CAP_DEVICE       4
#define CAP_PCI_CFG      5
#define CAP_LEN          16u
#define CAP_CFG_TYPE     3u
#define CAP_BAR          4u
#define CAP_OFFSET       8u
#define CAP_LENGTH       12u
#define CAP_NOTIFY_MULT  16u
#define CAP_PCI_CFG_DATA 16u

/* Common configuration (§4.1.4.3) */
#define COMMON_DFSELECT   0x00u
#define COMMON_DF         0x04u
#define COMMON_GFSELECT   0x08u
#define COMMON_GF         0x0cu
#define COMMON_MSIX       0x10u
#define COMMON_NUMQ       0x12u
#define COMMON_STATUS     0x14u
#define COMMON_GENERATION 0x15u
#define COMMON_Q_SELECT   0x16u
#define COMMON_Q_SIZE     0x18u
#define COMMON_Q_MSIX     0x1au
#define COMMON_Q_ENABLE   0x1cu
#define COMMON_Q_NOFF     0x1eu
#define COMMON_Q_DESC     0x20u
#define COMMON_Q_AVAIL    0x28u
#define COMMON_Q_USED     0x30u
#define COMMON_Q_NDATA    0x38u

#define ISR_QUEUE  1u
#define ISR_CONFIG 2u

struct virtio_pci {
	struct pci_device pci;
	struct virtio_device *v;
	struct io_region regs;
	uint8_t cfg_cap; /* offset of the configuration-access capability */

	/* state */
	uint32_t device_select, driver_select;
	uint16_t queue_select, config_vector;
	uint8_t isr;
};

/* ---- interrupts ---- */

static void update_intx(struct virtio_pci *p)
{
	pci_intx_set(&p->pci, p->isr != 0 && !pci_msix_enabled(&p->pci));
}

static void raise_irq(struct virtio_pci *p, uint16_t vector, uint8_t isr)
{
	if (pci_msix_enabled(&p->pci)) {
		if (vector != VIRTIO_NO_VECTOR)
			pci_msix_notify(&p->pci, vector);
		return;
	}
	p->isr |= isr;
	update_intx(p);
}

static void queue_irq(void *opaque, unsigned queue)
{
	struct virtio_pci *p = opaque;

	raise_irq(p, p->v->vq[queue].vector, ISR_QUEUE);
}

static void config_irq(void *opaque)
{
	struct virtio_pci *p = opaque;

	raise_irq(p, p->config_vector, ISR_CONFIG);
}

/* ---- common configuration ---- */

static struct virtqueue *selected(struct virtio_pci *p)
{
	return p->queue_select < p->v->nqueues ? &p->v->vq[p->queue_select] : NULL;
}

static void put(uint8_t *image, unsigned offset, uint64_t value, unsigned size)
{
	memcpy(image + offset, &value, size);
}

static uint32_t common_read(struct virtio_pci *p, unsigned offset, unsigned size)
{
	uint8_t image[COMMON_SIZE + 4] = { 0 };
	const struct virtqueue *q = selected(p);
	uint32_t value = 0;

	if (offset >= COMMON_SIZE)
		return 0;
	put(image, COMMON_DFSELECT, p->device_select, 4);
	put(image, COMMON_DF, virtio_host_features(p->v, p->device_select), 4);
	put(image, COMMON_GFSELECT, p->driver_select, 4);
	put(image, COMMON_GF, virtio_driver_features(p->v, p->driver_select), 4);
	put(image, COMMON_MSIX, p->config_vector, 2);
	put(image, COMMON_NUMQ, p->v->nqueues, 2);
	put(image, COMMON_STATUS, p->v->status, 1);
	put(image, COMMON_GENERATION, p->v->config_generation, 1);
	put(image, COMMON_Q_SELECT, p->queue_select, 2);
	put(image, COMMON_Q_MSIX, VIRTIO_NO_VECTOR, 2);
	if (q) { /* otherwise a size of 0 says that there is no such queue */
		put(image, COMMON_Q_SIZE, q->size, 2);
		put(image, COMMON_Q_MSIX, q->vector, 2);
		put(image, COMMON_Q_ENABLE, q->enabled, 2);
		put(image, COMMON_Q_NOFF, q->index, 2);
		put(image, COMMON_Q_DESC, q->desc, 8);
		put(image, COMMON_Q_AVAIL, q->avail, 8);
		put(image, COMMON_Q_USED, q->used, 8);
		put(image, COMMON_Q_NDATA, q->index, 2);
	}
	memcpy(&value, image + offset, size);
	return value;
}

/* A vector that the table has not reads back as "none" (§4.1.5.1.2). */
static uint16_t valid_vector(const struct virtio_pci *p, uint32_t value)
{
	return value < p->pci.msix_vectors ? (uint16_t)value : VIRTIO_NO_VECTOR;
}

static void set_half(uint64_t *reg, unsigned offset, uint32_t value)
{
	unsigned shift = offset & 4 ? 32 : 0;

	*reg = (*reg & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
}

static void reset_transport(struct virtio_pci *p)
{
	p->device_select = p->driver_select = 0;
	p->queue_select = 0;
	p->config_vector = VIRTIO_NO_VECTOR;
	p->isr = 0;
}

static void queue_write(struct virtio_pci *p, struct virtqueue *q, unsigned offset, uint32_t value,
			unsigned size)
{
	if (offset == COMMON_Q_MSIX && size == 2) {
		q->vector = valid_vector(p, value);
		return;
	}
	/* A live queue keeps its size and place. */
	if (q->enabled)
		return;
	switch (offset) {
	case COMMON_Q_SIZE:
		if (size == 2 && value <= q->max_size && value && !(value & (value - 1)))
			q->size = (uint16_t)value;
		break;
	case COMMON_Q_ENABLE:
		if (size == 2 && value == 1)
			virtio_queue_enable(p->v, q->index);
		break;
	case COMMON_Q_DESC:
	case COMMON_Q_DESC + 4:
		if (size == 4)
			set_half(&q->desc, offset, value);
		break;
	case COMMON_Q_AVAIL:
	case COMMON_Q_AVAIL + 4:
		if (size == 4)
			set_half(&q->avail, offset, value);
		break;
	case COMMON_Q_USED:
	case COMMON_Q_USED + 4:
		if (size == 4)
			set_half(&q->used, offset, value);
		break;
	default:
		break;
	}
}

/* §4.1.3.1: each field is accessed at its own width, 64-bit ones as two of 32. Anything else is ignored. */
static void common_write(struct virtio_pci *p, unsigned offset, uint32_t value, unsigned size)
{
	struct virtqueue *q;

	switch (offset) {
	case COMMON_DFSELECT:
		if (size == 4)
			p->device_select = value;
		return;
	case COMMON_GFSELECT:
		if (size == 4)
			p->driver_select = value;
		return;
	case COMMON_GF:
		if (size == 4)
			virtio_set_driver_features(p->v, p->driver_select, value);
		return;
	case COMMON_MSIX:
		if (size == 2)
			p->config_vector = valid_vector(p, value);
		return;
	case COMMON_STATUS:
		if (size != 1)
			return;
		virtio_set_status(p->v, (uint8_t)value);
		if (value == 0) {
			reset_transport(p);
			update_intx(p);
		}
		return;
	case COMMON_Q_SELECT:
		if (size == 2)
			p->queue_select = (uint16_t)value;
		return;
	default:
		q = selected(p);
		if (q)
			queue_write(p, q, offset, value, size);
	}
}

/* ---- the BAR ---- */

static uint64_t regs_read(void *opaque, uint64_t offset, unsigned size)
{
	struct virtio_pci *p = opaque;
	uint8_t isr;

	if (offset < ISR_OFFSET)
		return common_read(p, (unsigned)offset, size);
	if (offset < CONFIG_OFFSET) {
		if (offset != ISR_OFFSET)
			return 0;
		isr = p->isr;
		p->isr = 0;
		update_intx(p);
		return isr;
	}
	if (offset < NOTIFY_OFFSET)
		return virtio_config_read(p->v, (unsigned)(offset - CONFIG_OFFSET), size);
	return 0;
}

static void regs_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct virtio_pci *p = opaque;

	if (offset >= NOTIFY_OFFSET) {
		/* The value repeats the queue number; the place decides. */
		if (offset % NOTIFY_STRIDE == 0)
			virtio_notify(p->v, (unsigned)((offset - NOTIFY_OFFSET) / NOTIFY_STRIDE));
	} else if (offset >= CONFIG_OFFSET) {
		virtio_config_write(p->v, (unsigned)(offset - CONFIG_OFFSET), (uint32_t)value, size);
	} else if (offset < ISR_OFFSET) {
		common_write(p, (unsigned)offset, (uint32_t)value, size);
	}
}

/* ---- configuration space ---- */

/* True if the window of the configuration-access capability (§4.1.4.9) is set to something it can reach. */
static bool window(const struct virtio_pci *p, uint32_t *offset, uint32_t *size)
{
	uint8_t bar = (uint8_t)pci_config_get(&p->pci, p->cfg_cap + CAP_BAR, 1);

	*offset = pci_config_get(&p->pci, p->cfg_cap + CAP_OFFSET, 4);
	*size = pci_config_get(&p->pci, p->cfg_cap + CAP_LENGTH, 4);
	return bar == VIRTIO_BAR && (*size == 1 || *size == 2 || *size == 4) && *offset < BAR_SIZE &&
	       *offset % *size == 0;
}

static bool touches_data(const struct virtio_pci *p, unsigned offset, unsigned len)
{
	unsigned data = p->cfg_cap + CAP_PCI_CFG_DATA;

	return offset < data + 4 && offset + len > data;
}

static void config_read_hook(struct pci_device *d, unsigned offset, unsigned len)
{
	struct virtio_pci *p = (struct virtio_pci *)d;
	uint32_t at, size;

	if (touches_data(p, offset, len) && window(p, &at, &size))
		pci_config_set(d, p->cfg_cap + CAP_PCI_CFG_DATA, (uint32_t)regs_read(p, at, size), size);
}

/* Without bus mastering the queues rest; when it comes back, they are looked through. */
static void update_dma(struct virtio_pci *p)
{
	bool was_off = p->v->dma_off;

	p->v->dma_off = !pci_bus_master(&p->pci);
	if (was_off && !p->v->dma_off)
		virtio_kick_later(p->v);
}

static void config_written_hook(struct pci_device *d, unsigned offset, unsigned len)
{
	struct virtio_pci *p = (struct virtio_pci *)d;
	uint32_t at, size;

	if (touches_data(p, offset, len) && window(p, &at, &size))
		regs_write(p, at, pci_config_get(d, p->cfg_cap + CAP_PCI_CFG_DATA, size), size);
	/* MSI-X may just have been turned on or off, and bus mastering on. */
	update_intx(p);
	update_dma(p);
}

static int add_cap(struct virtio_pci *p, uint8_t type, uint32_t offset, uint32_t length, unsigned extra)
{
	int cap = pci_add_cap(&p->pci, PCI_CAP_ID_VNDR, CAP_LEN + extra);

	if (cap < 0)
		return cap;
	pci_config_set(&p->pci, (unsigned)cap + 2, CAP_LEN + extra, 1);
	pci_config_set(&p->pci, (unsigned)cap + CAP_CFG_TYPE, type, 1);
	pci_config_set(&p->pci, (unsigned)cap + CAP_BAR, VIRTIO_BAR, 1);
	pci_config_set(&p->pci, (unsigned)cap + CAP_OFFSET, offset, 4);
	pci_config_set(&p->pci, (unsigned)cap + CAP_LENGTH, length, 4);
	return cap;
}

static int add_caps(struct virtio_pci *p)
{
	int cap = add_cap(p, CAP_COMMON, COMMON_OFFSET, COMMON_SIZE, 0);

	if (cap >= 0)
		cap = add_cap(p, CAP_ISR, ISR_OFFSET, ISR_SIZE, 0);
	if (cap >= 0 && p->v->config_len)
		cap = add_cap(p, CAP_DEVICE, CONFIG_OFFSET, CONFIG_SIZE, 0);
	if (cap >= 0)
		cap = add_cap(p, CAP_NOTIFY, NOTIFY_OFFSET, p->v->nqueues * NOTIFY_STRIDE, 4);
	if (cap < 0)
		return cap;
	pci_config_set(&p->pci, (unsigned)cap + CAP_NOTIFY_MULT, NOTIFY_STRIDE, 4);
	cap = add_cap(p, CAP_PCI_CFG, 0, 0, 4);
	if (cap < 0)
		return cap;
	p->cfg_cap = (uint8_t)cap;
	p->pci.wmask[cap + CAP_BAR] = 0xff;
	memset(&p->pci.wmask[(unsigned)cap + CAP_OFFSET], 0xff, 12); /* offset, length, data */
	return 0;
}

/* ---- the device ---- */

static void virtio_pci_reset(struct device *d)
{
	struct virtio_pci *p = (struct virtio_pci *)d;

	pci_device_reset(&p->pci);
	virtio_reset(p->v);
	reset_transport(p);
	update_dma(p);
}

static int virtio_pci_loaded(void *obj, struct error *err)
{
	struct virtio_pci *p = obj;

	p->config_vector = valid_vector(p, p->config_vector);
	p->isr &= ISR_QUEUE | ISR_CONFIG;
	for (unsigned i = 0; i < p->v->nqueues; i++)
		p->v->vq[i].vector = valid_vector(p, p->v->vq[i].vector);
	update_dma(p);
	return pci_device_loaded(&p->pci, err);
}

static void virtio_pci_free(struct device *d)
{
	pci_device_fini((struct pci_device *)d);
	free(d);
}

static const struct state_field virtio_pci_fields[] = {
	PCI_DEVICE_FIELDS(struct virtio_pci, pci),
	F_U32(struct virtio_pci, device_select),
	F_U32(struct virtio_pci, driver_select),
	F_U16(struct virtio_pci, queue_select),
	F_U16(struct virtio_pci, config_vector),
	F_U8(struct virtio_pci, isr),
	F_END,
};
static const struct state_table virtio_pci_state = { "virtio-pci", 1, virtio_pci_fields, virtio_pci_loaded };
static const struct device_class virtio_pci_class = { "virtio-pci", virtio_pci_reset, &virtio_pci_state,
						      virtio_pci_free };

int virtio_pci_new(struct pci_bus *bus, int devfn, struct virtio_device *v, uint32_t class_code,
		   uint32_t instance, struct error *err)
{
	struct pci_ids ids = {
		.vendor = PCI_VENDOR_VIRTIO,
		.device = (uint16_t)(PCI_DEVICE_MODERN + v->ops->id),
		.class_code = class_code,
		.revision = 1,
		.subsys_vendor = PCI_VENDOR_VIRTIO,
		.subsys = PCI_SUBSYS_MODERN,
		.intx_pin = 1,
	};
	struct virtio_pci *p = calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return error_set(err, ENOMEM, "not enough memory for a virtio device");
	p->v = v;
	p->regs = (struct io_region){
		.name = "virtio-pci", .read = regs_read, .write = regs_write, .opaque = p, .max_size = 4
	};
	/* Once on the board's list, the board frees it. */
	rc = pci_device_init(&p->pci, bus, devfn, &ids, &virtio_pci_class, instance, err);
	if (rc) {
		free(p);
		return rc;
	}
	rc = pci_add_bar(&p->pci, VIRTIO_BAR, PCI_BAR_MEM32, BAR_SIZE, &p->regs);
	if (!rc)
		rc = pci_msix_init(&p->pci, v->nqueues + 1, MSIX_BAR);
	if (!rc)
		rc = add_caps(p);
	if (rc)
		return error_set(err, -rc, "a virtio device does not fit into PCI configuration space");
	p->pci.config_read = config_read_hook;
	p->pci.config_written = config_written_hook;
	virtio_set_transport(v, &(struct virtio_transport){ queue_irq, config_irq, p });
	reset_transport(p);
	update_dma(p);
	return 0;
}
