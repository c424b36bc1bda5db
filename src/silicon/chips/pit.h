/* SPDX-License-Identifier: MIT */
/*
 * 8254 interval timer at 1.193181 MHz with system control port 61h (8254 data sheet; visible state
 * as in KVM api.rst, KVM_GET_PIT2 and KVM_REINJECT_CONTROL).
 *
 * The chip has no clock: now is nanoseconds of any monotonic clock, always the same one. Only
 * counter 0 drives an interrupt; its next expiry goes out by pit_next_expiry().
 *
 * Locking: all functions under one lock of the owner's (vm->irq_lock). Callbacks run with that
 * lock held.
 */
#ifndef SILICON_CHIPS_PIT_H
#define SILICON_CHIPS_PIT_H

#include "silicon/cpu/types.h"

#define PIT_HZ		    1193181
#define PIT_NEVER	    (~0ull)
#define PIT_HPET_LEGACY	    BIT(0) /* flags: an HPET drives IRQ 0, counter 0 does not */
#define PIT_SPEAKER_DATA_ON BIT(1) /* flags: port 61h bit 1 */
/* Shortest period of counter 0, ns: KVM's limit, so that a guest cannot starve its host. */
#define PIT_MIN_PERIOD_NS 200000

struct pit_ops {
	/* Counter 0's output: called with true, then false, for each tick that is let through. */
	void (*irq)(void *opaque, bool level);
	/* pit_next_expiry() changed: arm a timer. May be NULL. */
	void (*rearm)(void *opaque, uint64_t expiry);
};

/* Field for field struct kvm_pit_channel_state. */
struct pit_channel {
	uint32_t count; /* 1..65536 */
	uint16_t latched_count;
	uint8_t count_latched; /* 0, or the bytes still to be read as in rw_mode */
	uint8_t status_latched;
	uint8_t status;
	uint8_t read_state;
	uint8_t write_state;
	uint8_t write_latch;
	uint8_t rw_mode; /* 1: low byte, 2: high byte, 3: low, then high */
	uint8_t mode;	 /* 0..5; ffh: not programmed yet */
	uint8_t bcd;
	uint8_t gate;
	int64_t count_load_time; /* ns */
};

/* Field for field struct kvm_pit_state2. */
struct pit_state {
	struct pit_channel channels[3];
	uint32_t flags; /* PIT_* */
	uint32_t reserved[9];
};

struct pit {
	struct pit_channel channels[3];
	uint32_t flags;
	bool periodic;
	uint64_t period; /* ns; 0: counter 0 was never started */
	uint64_t target; /* end of the current or last period of counter 0 */
	bool armed;
	bool reinject; /* ticks wait for the guest's EOI; none is lost */
	bool acked;
	uint64_t pending; /* ticks not acknowledged yet */
	const struct pit_ops *ops;
	void *opaque;
};

void pit_init(struct pit *pit, const struct pit_ops *ops, void *opaque, uint64_t now);

/* Ports 40h..43h. A read of 43h answers 0. */
uint8_t pit_io_read(struct pit *pit, uint16_t port, uint64_t now);
void pit_io_write(struct pit *pit, uint16_t port, uint8_t val, uint64_t now);
/* Port 61h. */
uint8_t pit_speaker_read(struct pit *pit, uint64_t now);
void pit_speaker_write(struct pit *pit, uint8_t val, uint64_t now);

/* When pit_expire() wants to be called, ns, or PIT_NEVER. */
uint64_t pit_next_expiry(const struct pit *pit);
void pit_expire(struct pit *pit, uint64_t now);

/* EOI of IRQ 0 at either interrupt controller: lets the next waiting tick through. */
void pit_ack(struct pit *pit);
/* IRQ 0 was unmasked at either interrupt controller: forget waiting ticks. */
void pit_unmasked(struct pit *pit);
void pit_set_reinject(struct pit *pit, bool reinject);

void pit_get_state(const struct pit *pit, struct pit_state *ret);
/* All counters start anew, as KVM_SET_PIT2 says; flags included. */
void pit_set_state(struct pit *pit, const struct pit_state *state, uint64_t now);
/* KVM_SET_PIT: the counters only. */
void pit_set_channels(struct pit *pit, const struct pit_channel channels[3], uint64_t now);

#endif
