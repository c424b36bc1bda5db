/* SPDX-License-Identifier: MIT */
/*
 * Interrupt messages: what travels between I/O APIC, MSI sources and local APICs (SDM, "Interrupt
 * command register" and "Message signalled interrupts"). Values are the wire's own encodings.
 */
#ifndef SILICON_CHIPS_MESSAGE_H
#define SILICON_CHIPS_MESSAGE_H

#include "silicon/cpu/types.h"

enum apic_delivery {
	APIC_FIXED,
	APIC_LOWEST,
	APIC_SMI,
	APIC_REMOTE_READ,
	APIC_NMI,
	APIC_INIT,
	APIC_STARTUP,
	APIC_EXTINT,
};

enum apic_shorthand {
	APIC_TO_DEST,
	APIC_TO_SELF,
	APIC_TO_ALL,
	APIC_TO_OTHERS,
};

struct apic_message {
	uint32_t dest;	   /* APIC ID or logical destination; x2APIC format if over 0xff */
	uint8_t vector;	   /* also the SIPI's page number */
	uint8_t delivery;  /* enum apic_delivery */
	uint8_t shorthand; /* enum apic_shorthand */
	bool logical;
	bool level;    /* asserted */
	bool trigger;  /* level triggered */
	bool own;      /* the APIC's own timer, which tells of nobody else's doings */
	bool redirect; /* MSI redirection hint: deliver to one, as for lowest priority */
};

/*
 * Pure. Decode an MSI. extended: bits 31:8 of the destination come from address bits 63:40
 * (KVM's x2APIC format); address bits 39:32 must then be zero, which the caller checks.
 */
void apic_message_from_msi(uint64_t address, uint32_t data, bool extended,
			   struct apic_message *ret);

#endif
