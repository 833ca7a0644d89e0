/* SPDX-License-Identifier: Apache-2.0 */
/* The controller (ahci.c) and the execution of its commands (ahci_cmd.c). */
#ifndef SILL_DEV_STORAGE_AHCI_INTERNAL_H
#define SILL_DEV_STORAGE_AHCI_INTERNAL_H

#include "dev/pci/pci.h"
#include "dev/pci/sg.h"
#include "dev/storage/ahci.h"

#define AHCI_SLOTS 32

/* Port command and status */
#define CMD_ST       0x00000001u
#define CMD_SUD      0x00000002u
#define CMD_POD      0x00000004u
#define CMD_CLO      0x00000008u
#define CMD_FRE      0x00000010u
#define CMD_CCS      0x00001f00u
#define CMD_FR       0x00004000u
#define CMD_CR       0x00008000u
#define CMD_WRITABLE 0x0f000000u /* ATAPI, LEDs and the like: kept and read back */

/* Port interrupts (§3.3.5) */
#define IS_DHR 0x00000001u
#define IS_PS  0x00000002u
#define IS_SDB 0x00000008u
#define IS_DP  0x00000020u
#define IS_PC  0x00000040u
#define IS_PRC 0x00400000u
#define IS_HBF 0x20000000u
#define IS_TFE 0x40000000u

/* What the host built for a command, and how far its data has been moved. */
struct ahci_command {
	uint32_t header; /* first dword */
	uint64_t table;  /* address of the command table */
	uint32_t prd_at; /* entries used up */
	uint64_t prd_addr;
	uint32_t prd_left; /* of the current entry */
	uint32_t moved;    /* bytes, for the header */
	uint8_t fis[64];
};

/* A queued command whose data moves straight between the medium and the guest's memory. */
struct ahci_slot {
	struct ahci_port *port;
	struct block_req req;
	struct iovec *iov;
	struct sg sg;
	bool busy, write, fua;
	uint64_t lba;
	uint32_t count;
};

struct ahci_port {
	struct ahci *ahci;
	unsigned nr;
	struct ata_drive drive;

	uint64_t clb, fb;
	uint32_t is, ie, cmd, tfd, sig, ssts, sctl, serr, sact, ci;
	bool first_fis; /* the signature is to be sent as soon as FIS reception is on */
	bool in_reset;  /* software reset: between its two FISes */
	bool failed;    /* a command failed: nothing more until ST is cleared */

	/* not saved: no command is in progress then */
	int current; /* slot of the one command that is not queued; -1: none */
	struct ahci_command command;
	unsigned nr_queued; /* queued commands in flight */
	struct ahci_slot slot[AHCI_SLOTS];
	bool running;  /* ahci_run */
	bool stopping; /* what comes back is forgotten */
};

struct ahci {
	struct pci_device pci;
	struct board *board;
	struct io_region regs;
	uint32_t ghc, is;
	struct ahci_port port[AHCI_PORTS];
};

/* Raises conditions at a port (IS_ bits). */
void ahci_raise(struct ahci_port *p, uint32_t is);

/* ahci_cmd.c */
void ahci_port_init(struct ahci_port *p);
/* Starts what the host issued and can be started. */
void ahci_run(struct ahci_port *p);
/* Forgets all commands: waits for what is in flight. */
void ahci_stop(struct ahci_port *p);
/* Sends the drive's registers to the host. */
void ahci_send_registers(struct ahci_port *p, uint32_t is);

#endif
