/* SPDX-License-Identifier: MIT */
/*
 * Interrupt messages at local APICs: matching, arbitration, acceptance (SDM, "Determining IPI
 * destination" and "Interrupt acceptance"). All of it on any thread.
 *
 * Acceptance sets TMR, then IRR, then the hint that IRR is not empty, then tells the owner. The
 * owner clears the hint before it clears the IRR bit, and looks at IRR again after that, so that no
 * bit is ever left with the hint down.
 */
#include "silicon/chips/lapic_internal.h"

#define XAPIC_BROADCAST	 0xffu
#define X2APIC_BROADCAST 0xffffffffu

static bool is_broadcast(const struct lapic *lapic, uint32_t dest)
{
	return dest == (lapic_x2apic(lapic) ? X2APIC_BROADCAST : XAPIC_BROADCAST);
}

/*
 * An ID that no xAPIC can have reaches that processor even in xAPIC mode: hot-plugged processors
 * start so, and KVM offers this.
 */
static bool matches_physical(const struct lapic *lapic, uint32_t dest)
{
	if (is_broadcast(lapic, dest))
		return true;
	if (lapic_x2apic(lapic) || dest > 0xff)
		return dest == lapic->config.id;
	return dest == lapic_reg(lapic, LAPIC_ID) >> 24;
}

static bool matches_xapic_logical(uint32_t ldr, uint32_t dfr, uint32_t dest)
{
	ldr >>= 24;
	if (dfr == DFR_FLAT)
		return ldr & dest;
	if (dfr == DFR_CLUSTER)
		return ldr >> 4 == dest >> 4 && ldr & dest & 0xf;
	return false;
}

static bool matches_logical(const struct lapic *lapic, uint32_t dest)
{
	uint32_t ldr = lapic_reg(lapic, LAPIC_LDR);

	if (is_broadcast(lapic, dest))
		return true;
	if (lapic_x2apic(lapic))
		return ldr >> 16 == dest >> 16 && ldr & dest & 0xffff;
	return matches_xapic_logical(ldr, lapic_reg(lapic, LAPIC_DFR), dest);
}

bool lapic_matches(const struct lapic *lapic, const struct lapic *source,
		   const struct apic_message *msg, bool broadcast_quirk)
{
	uint32_t dest = msg->dest;

	switch (msg->shorthand) {
	case APIC_TO_SELF:
		return lapic == source;
	case APIC_TO_ALL:
		return true;
	case APIC_TO_OTHERS:
		return lapic != source;
	}
	/* Without interrupt remapping, devices could not broadcast to x2APICs. */
	if (broadcast_quirk && !source && dest == XAPIC_BROADCAST && lapic_x2apic(lapic))
		dest = X2APIC_BROADCAST;
	return msg->logical ? matches_logical(lapic, dest) : matches_physical(lapic, dest);
}

void lapic_error(struct lapic *lapic, uint32_t bit)
{
	if (!(__atomic_fetch_or(&lapic->errors, bit, __ATOMIC_SEQ_CST) & bit))
		lapic_local_deliver(lapic, LAPIC_LVT_ERROR);
}

static bool accept_vector(struct lapic *lapic, const struct apic_message *msg)
{
	if (!lapic_hw_enabled(lapic) || !lapic_sw_enabled(lapic))
		return false;
	if (msg->trigger && !msg->level)
		return false;
	if (msg->vector < FIRST_VECTOR) {
		lapic_error(lapic, ESR_RECEIVE_VECTOR);
		return false;
	}
	if (test_vector(lapic, LAPIC_TMR, msg->vector) != msg->trigger) {
		if (msg->trigger)
			set_vector(lapic, LAPIC_TMR, msg->vector);
		else
			clear_vector(lapic, LAPIC_TMR, msg->vector);
	}
	if (!msg->own && lapic->ops->told)
		lapic->ops->told(lapic->opaque);
	set_vector(lapic, LAPIC_IRR, msg->vector);
	__atomic_store_n(&lapic->irr_hint, true, __ATOMIC_SEQ_CST);
	lapic->ops->raised(lapic->opaque);
	return true;
}

bool lapic_accept(struct lapic *lapic, const struct apic_message *msg)
{
	switch (msg->delivery) {
	case APIC_FIXED:
	case APIC_LOWEST:
		return accept_vector(lapic, msg);
	case APIC_INIT:
		/* The level de-assert message only synchronises arbitration IDs of old buses. */
		if (msg->trigger && !msg->level)
			return false;
		break;
	case APIC_EXTINT:
		/* The PIC's INTR is a wire here: see lapic_accepts_pic(). */
		return false;
	}
	return lapic->ops->event(lapic->opaque, msg->delivery, msg->vector);
}

bool lapic_local_deliver(struct lapic *lapic, enum lapic_reg reg)
{
	uint32_t lvt = lapic_reg(lapic, reg);
	struct apic_message msg = {
		.vector = LVT_VECTOR(lvt),
		.delivery = LVT_DELIVERY(lvt),
		.level = true,
		.trigger = lvt & LVT_LEVEL_TRIGGER,
		.own = reg == LAPIC_LVT_TIMER,
	};

	if (!lapic_hw_enabled(lapic) || lvt & LAPIC_LVT_MASKED || !lapic_accept(lapic, &msg))
		return false;
	if (reg == LAPIC_LVT_PC && lapic->config.intel)
		set_reg(lapic, reg, lvt | LAPIC_LVT_MASKED);
	return true;
}

bool lapic_lint0_is_nmi(const struct lapic *lapic)
{
	uint32_t lvt = lapic_reg(lapic, LAPIC_LVT_LINT0);

	return (lvt & (LVT_DELIVERY_MASK | LAPIC_LVT_MASKED)) == APIC_NMI << 8;
}

bool lapic_eoi_expected(const struct lapic *lapic, uint8_t vector)
{
	return test_vector(lapic, LAPIC_ISR, vector) || test_vector(lapic, LAPIC_IRR, vector);
}

/* The next APIC from *i on that msg concerns, or NULL. */
static struct lapic *next_match(const struct lapic_bus *bus, const struct lapic *source,
				const struct apic_message *msg, unsigned *i)
{
	while (*i < bus->nr) {
		struct lapic *lapic = bus->at(bus->opaque, (*i)++);

		if (lapic && lapic_hw_enabled(lapic) &&
		    lapic_matches(lapic, source, msg, bus->broadcast_quirk))
			return lapic;
	}
	return NULL;
}

static struct lapic *next_enabled(const struct lapic_bus *bus, const struct lapic *source,
				  const struct apic_message *msg, unsigned *i)
{
	struct lapic *lapic;

	do
		lapic = next_match(bus, source, msg, i);
	while (lapic && !lapic_sw_enabled(lapic));
	return lapic;
}

/* One of those that match: the vector's remainder counts them off. */
static int deliver_one(const struct lapic_bus *bus, const struct lapic *source,
		       const struct apic_message *msg)
{
	unsigned i = 0, nr = 0, skip;
	struct lapic *lapic;

	while (next_enabled(bus, source, msg, &i))
		nr++;
	if (!nr)
		return 0;
	skip = msg->vector % nr;
	i = 0;
	do
		lapic = next_enabled(bus, source, msg, &i);
	while (lapic && skip--);
	return lapic && lapic_accept(lapic, msg);
}

static int deliver_each(const struct lapic_bus *bus, const struct lapic *source,
			const struct apic_message *msg)
{
	struct lapic *lapic;
	unsigned i = 0;
	int nr = 0;

	while ((lapic = next_match(bus, source, msg, &i)))
		nr += lapic_accept(lapic, msg);
	return nr;
}

int lapic_deliver(const struct lapic_bus *bus, struct lapic *source, const struct apic_message *msg)
{
	struct apic_message fixed = *msg;

	if (msg->shorthand == APIC_TO_SELF)
		return source && lapic_accept(source, msg);
	/* A physical broadcast goes to all, whatever it asked for. */
	if (!msg->shorthand && !msg->logical && msg->dest == XAPIC_BROADCAST &&
	    msg->delivery == APIC_LOWEST)
		fixed.delivery = APIC_FIXED;
	if (fixed.delivery == APIC_LOWEST || msg->redirect)
		return deliver_one(bus, source, &fixed);
	return deliver_each(bus, source, &fixed);
}
