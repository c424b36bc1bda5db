/* SPDX-License-Identifier: MIT */
/*
 * 82093AA I/O APIC with 24 inputs, version 11h (82093AA data sheet; visible state as in KVM
 * api.rst, KVM_GET_IRQCHIP). As in KVM there is no EOI register, so local APICs beside this chip
 * must not offer suppression of EOI broadcasts.
 *
 * Locking: all functions under one lock of the owner's (vm->irq_lock). Callbacks run with that
 * lock held and may call back into the chip.
 */
#ifndef SILICON_CHIPS_IOAPIC_H
#define SILICON_CHIPS_IOAPIC_H

#include "silicon/chips/message.h"

#define IOAPIC_NR_PINS	    24
#define IOAPIC_DEFAULT_BASE 0xfec00000ull
#define IOAPIC_SIZE	    0x100
#define IOAPIC_RTC_PIN	    8

struct ioapic_ops {
	/* Send: number of local APICs that accepted, 0 or negative if none did. */
	int (*deliver)(void *opaque, const struct apic_message *msg);
	/* The guest's EOI reached pin (before a level-triggered pin is served again). May be NULL. */
	void (*eoi)(void *opaque, unsigned pin);
	/*
	 * A level-triggered pin is unmasked with a request that may be stale: true if the level
	 * will be sampled anew (the request is dropped then). May be NULL: inject it.
	 */
	bool (*resample)(void *opaque, unsigned pin);
	/* A mask bit changed. May be NULL. */
	void (*mask)(void *opaque, unsigned pin, bool masked);
	/* A redirection entry changed: vectors whose EOI matters are others now. May be NULL. */
	void (*routes)(void *opaque);
	/*
	 * A level interrupt storms: call ioapic_inject_delayed() in ns from now. May be NULL:
	 * inject at once always.
	 */
	void (*delay)(void *opaque, uint64_t ns);
};

/* Field for field struct kvm_ioapic_state. */
struct ioapic_state {
	uint64_t base_address;
	uint32_t ioregsel;
	uint32_t id;
	uint32_t irr;
	uint32_t pad;
	uint64_t redirtbl[IOAPIC_NR_PINS];
};

/* Redirection table entry. */
#define IOAPIC_VECTOR(e)   ((uint8_t)(e))
#define IOAPIC_DELIVERY(e) ((unsigned)((e) >> 8) & 7)
#define IOAPIC_LOGICAL	   BIT(11)
#define IOAPIC_PENDING	   BIT(12) /* delivery status; read-only */
#define IOAPIC_LOW_ACTIVE  BIT(13)
#define IOAPIC_REMOTE_IRR  BIT(14) /* read-only */
#define IOAPIC_LEVEL	   BIT(15)
#define IOAPIC_MASKED	   BIT(16)
#define IOAPIC_DEST(e)	   ((uint8_t)((e) >> 56))

struct ioapic {
	struct ioapic_state state;
	uint32_t irr_delivered;		/* edges already sent; hidden from the saved irr */
	uint32_t lines[IOAPIC_NR_PINS]; /* one bit per source driving the pin */
	uint32_t storm[IOAPIC_NR_PINS]; /* EOIs in a row that found the pin high */
	int rtc_pending;		/* accepted RTC interrupts without EOI yet */
	uint8_t rtc_vector;		/* of those */
	uint32_t vectors[8];		/* of all entries, one bit each; atomic */
	const struct ioapic_ops *ops;
	void *opaque;
};

void ioapic_init(struct ioapic *ioapic, const struct ioapic_ops *ops, void *opaque);
void ioapic_reset(struct ioapic *ioapic);

/*
 * Drive a pin: > 0 number of local APICs reached, 0 = coalesced, -1 = masked or nobody took it
 * (the answers of KVM_IRQ_LINE_STATUS). source (0..31) is one of the drivers that are ORed;
 * line_status: the caller wants the answer, so that RTC ticks before the last one's EOI coalesce.
 */
int ioapic_set_irq_from(struct ioapic *ioapic, unsigned pin, unsigned source, bool level,
			bool line_status);

/*
 * EOI broadcast of a local APIC. level: its TMR bit of the vector, and the local APIC does not
 * suppress broadcasts (else only ->eoi() is called).
 */
void ioapic_eoi(struct ioapic *ioapic, uint8_t vector, bool level);
/*
 * Any thread, no lock: false if ioapic_eoi() of vector would do nothing, as for the vectors of
 * timers, IPIs and MSIs. Saves the lock at most EOIs.
 */
static inline bool ioapic_knows_vector(const struct ioapic *ioapic, uint8_t vector)
{
	return __atomic_load_n(&ioapic->vectors[vector / 32], __ATOMIC_SEQ_CST) >> vector % 32 & 1;
}
/* What ->delay() asked for. */
void ioapic_inject_delayed(struct ioapic *ioapic);

/* True if gpa is one of the chip's registers. */
static inline bool ioapic_hit(const struct ioapic *ioapic, uint64_t gpa)
{
	return gpa - ioapic->state.base_address < IOAPIC_SIZE;
}
/* offset from the base address; size 1, 2, 4 or 8. */
uint64_t ioapic_read(struct ioapic *ioapic, uint64_t offset, unsigned size);
void ioapic_write(struct ioapic *ioapic, uint64_t offset, unsigned size, uint64_t val);

void ioapic_get_state(const struct ioapic *ioapic, struct ioapic_state *ret);
void ioapic_set_state(struct ioapic *ioapic, const struct ioapic_state *state);

#endif
