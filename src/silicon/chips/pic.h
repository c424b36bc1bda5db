/* SPDX-License-Identifier: MIT */
/*
 * A pair of 8259A interrupt controllers, cascaded at input 2, with the edge/level control
 * registers of the PC chipsets (8259A data sheet; visible state as in KVM api.rst, KVM_GET_IRQCHIP).
 *
 * Locking: all functions under one lock of the owner's (vm->irq_lock). Callbacks run with that
 * lock held and may call back into the chip.
 */
#ifndef SILICON_CHIPS_PIC_H
#define SILICON_CHIPS_PIC_H

#include "silicon/cpu/types.h"

#define PIC_NR_PINS 16

struct pic_ops {
	/* The INTR output changed (or stays high after an acknowledge). */
	void (*intr)(void *opaque, bool level);
	/* An in-service bit was cleared: irq 0..15. May be NULL. */
	void (*eoi)(void *opaque, unsigned irq);
	/* A mask bit changed. May be NULL. */
	void (*mask)(void *opaque, unsigned irq, bool masked);
};

/* One 8259A; field for field struct kvm_pic_state. */
struct pic_state {
	uint8_t last_irr; /* input levels, for edge detection */
	uint8_t irr, imr, isr;
	uint8_t priority_add; /* input of the highest priority */
	uint8_t irq_base;
	uint8_t read_reg_select; /* 1: port 0 reads ISR */
	uint8_t poll;
	uint8_t special_mask;
	uint8_t init_state; /* 0: operating, 1..3: waits for ICW2..ICW4 */
	uint8_t auto_eoi;
	uint8_t rotate_on_auto_eoi;
	uint8_t special_fully_nested_mode;
	uint8_t init4; /* ICW1 announced an ICW4 */
	uint8_t elcr, elcr_mask;
};

struct pic {
	struct pic_state half[2];    /* master, slave */
	uint32_t lines[PIC_NR_PINS]; /* one bit per source driving the pin */
	bool output;
	const struct pic_ops *ops;
	void *opaque;
};

void pic_init(struct pic *pic, const struct pic_ops *ops, void *opaque);

/*
 * Drive input irq (0..15): 1 = a new request, 0 = coalesced with one still pending, -1 = masked
 * (the answers of KVM_IRQ_LINE_STATUS). source (0..31) is one of the drivers that are ORed.
 */
int pic_set_irq_from(struct pic *pic, unsigned irq, unsigned source, bool level);

/* INTA cycle: the vector, the spurious one if nothing is pending. */
uint8_t pic_read_irq(struct pic *pic);
/* INTR. */
static inline bool pic_output(const struct pic *pic)
{
	return __atomic_load_n(&pic->output, __ATOMIC_RELAXED);
}

/* Ports 20h, 21h, A0h, A1h, 4D0h, 4D1h; byte accesses. False: not a port of this chip. */
bool pic_io_read(struct pic *pic, uint16_t port, uint8_t *ret);
bool pic_io_write(struct pic *pic, uint16_t port, uint8_t val);

/* half: 0 master, 1 slave. */
void pic_get_state(const struct pic *pic, unsigned half, struct pic_state *ret);
void pic_set_state(struct pic *pic, unsigned half, const struct pic_state *state);

#endif
