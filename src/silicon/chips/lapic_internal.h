/* SPDX-License-Identifier: MIT */
/* What the files of the local APIC share. */
#ifndef SILICON_CHIPS_LAPIC_INTERNAL_H
#define SILICON_CHIPS_LAPIC_INTERNAL_H

#include "silicon/chips/lapic.h"

/* Vectors 0 to 15 are exceptions; messages may not carry them. */
#define FIRST_VECTOR 16

#define ICR_BUSY BIT(12)

/* ESR. */
#define ESR_SEND_VECTOR	   BIT(5)
#define ESR_RECEIVE_VECTOR BIT(6)
#define ESR_REGISTER	   BIT(7)

#define TIMER_PERIODIC	  BIT(17)
#define TIMER_DEADLINE	  BIT(18)
#define TIMER_MODES	  (TIMER_PERIODIC | TIMER_DEADLINE)
#define DFR_FLAT	  0xffffffffu
#define DFR_CLUSTER	  0x0fffffffu
#define LVT_VECTOR(lvt)	  ((uint8_t)(lvt))
#define LVT_DELIVERY(lvt) ((lvt) >> 8 & 7)
#define LVT_DELIVERY_MASK 0x700u
#define LVT_EXTINT	  (APIC_EXTINT << 8)
#define LVT_SEND_PENDING  BIT(12)
#define LVT_LOW_ACTIVE	  BIT(13)
#define LVT_REMOTE_IRR	  BIT(14)
#define LVT_LEVEL_TRIGGER BIT(15)

static inline void set_reg(struct lapic *lapic, unsigned reg, uint32_t val)
{
	__atomic_store_n((uint32_t *)(lapic->regs + reg), val, __ATOMIC_RELAXED);
}

/* The word of a 256-bit register that holds vector. */
static inline uint32_t *vector_word(struct lapic *lapic, unsigned reg, uint8_t vector)
{
	return (uint32_t *)(lapic->regs + reg + vector / 32 * 16);
}

static inline bool test_vector(const struct lapic *lapic, unsigned reg, uint8_t vector)
{
	return lapic_reg(lapic, reg + vector / 32 * 16) >> vector % 32 & 1;
}

static inline void set_vector(struct lapic *lapic, unsigned reg, uint8_t vector)
{
	__atomic_fetch_or(vector_word(lapic, reg, vector), 1u << vector % 32, __ATOMIC_SEQ_CST);
}

static inline void clear_vector(struct lapic *lapic, unsigned reg, uint8_t vector)
{
	__atomic_fetch_and(vector_word(lapic, reg, vector), ~(1u << vector % 32), __ATOMIC_SEQ_CST);
}

/* Owner. Number of LVT entries. */
static inline unsigned lvt_count(const struct lapic *lapic)
{
	return lapic->config.cmci ? 7 : 6;
}

/* Any thread. Note an error of ESR; a new one is an interrupt at LVT ERROR. */
void lapic_error(struct lapic *lapic, uint32_t bit);

/* Owner, lapic_timer.c. */
void timer_stop(struct lapic *lapic);
/* LVT TIMER was written: put its mode in force. */
void timer_update_mode(struct lapic *lapic);
/* Take the divisor from its register without touching a running timer. */
void timer_load_divide(struct lapic *lapic);
bool timer_write_initial(struct lapic *lapic, uint32_t val);
bool timer_write_divide(struct lapic *lapic, uint32_t val);
uint32_t timer_current(struct lapic *lapic);
/* Start from the register page: current count 0 means expired (one-shot) or a whole period. */
void timer_restore(struct lapic *lapic);

#endif
