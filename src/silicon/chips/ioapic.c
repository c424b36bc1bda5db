/* SPDX-License-Identifier: MIT */
/*
 * The 82093AA I/O APIC.
 *
 * state.irr has a bit for each pin that is high (level) or saw an edge that could not be sent.
 * serve() sends a pin's message unless it is masked or, for level pins, waits for an EOI (remote
 * IRR). An edge that was sent keeps its irr bit until the line falls, so that a second rise without
 * a fall is no edge; irr_delivered remembers it, because a saved irr bit means "still to be sent".
 */
#include "silicon/chips/ioapic.h"

#define REG_SELECT 0x00
#define REG_WINDOW 0x10

#define INDEX_ID      0
#define INDEX_VERSION 1
#define INDEX_ARB     2
#define INDEX_TABLE   0x10

#define VERSION 0x11

/* Pause a level interrupt after so many EOIs in a row that found it still high: a guest which
 * never quiets its device makes slow progress instead of none (KVM's numbers). */
#define STORM_EOIS     10000
#define STORM_PAUSE_NS 10000000ull

static void entry_message(uint64_t entry, struct apic_message *ret)
{
	*ret = (struct apic_message){
		.dest = IOAPIC_DEST(entry),
		.vector = IOAPIC_VECTOR(entry),
		.delivery = IOAPIC_DELIVERY(entry),
		.shorthand = APIC_TO_DEST,
		.logical = entry & IOAPIC_LOGICAL,
		.level = true,
		.trigger = entry & IOAPIC_LEVEL,
	};
}

/* Vectors of entries that changed, and the RTC's last one: see ioapic_knows_vector(). */
static void collect_vectors(struct ioapic *ioapic)
{
	uint32_t words[8] = {0};

	words[ioapic->rtc_vector / 32] |= 1u << ioapic->rtc_vector % 32;
	for (unsigned pin = 0; pin < IOAPIC_NR_PINS; pin++) {
		uint8_t vector = IOAPIC_VECTOR(ioapic->state.redirtbl[pin]);

		words[vector / 32] |= 1u << vector % 32;
	}
	for (unsigned i = 0; i < 8; i++)
		__atomic_store_n(&ioapic->vectors[i], words[i], __ATOMIC_SEQ_CST);
}

static void track_rtc(struct ioapic *ioapic, uint8_t vector, int reached)
{
	ioapic->rtc_pending = max(reached, 0);
	ioapic->rtc_vector = vector;
}

/* Send the message of a pin: as ioapic_set_irq_from(). */
static int serve(struct ioapic *ioapic, unsigned pin, bool track)
{
	uint64_t *entry = &ioapic->state.redirtbl[pin];
	struct apic_message msg;
	int ret;

	if (*entry & IOAPIC_MASKED || (*entry & IOAPIC_LEVEL && *entry & IOAPIC_REMOTE_IRR))
		return -1;
	entry_message(*entry, &msg);
	if (!msg.trigger)
		ioapic->irr_delivered |= 1u << pin;
	ret = ioapic->ops->deliver(ioapic->opaque, &msg);
	if (track && pin == IOAPIC_RTC_PIN)
		track_rtc(ioapic, msg.vector, ret);
	if (ret > 0 && msg.trigger)
		*entry |= IOAPIC_REMOTE_IRR;
	return ret;
}

static int raise_pin(struct ioapic *ioapic, unsigned pin, bool track)
{
	uint32_t mask = 1u << pin;
	bool was = ioapic->state.irr & mask;

	if (track && pin == IOAPIC_RTC_PIN && ioapic->rtc_pending > 0)
		return 0;
	ioapic->state.irr |= mask;
	if (!(ioapic->state.redirtbl[pin] & IOAPIC_LEVEL)) {
		ioapic->irr_delivered &= ~mask;
		if (was)
			return 0;
	}
	return serve(ioapic, pin, track);
}

int ioapic_set_irq_from(struct ioapic *ioapic, unsigned pin, unsigned source, bool level,
			bool line_status)
{
	if (level)
		ioapic->lines[pin] |= 1u << source;
	else
		ioapic->lines[pin] &= ~(1u << source);
	if (ioapic->lines[pin])
		return raise_pin(ioapic, pin, line_status);
	ioapic->state.irr &= ~(1u << pin);
	return 1;
}

/* A level pin is still high after its EOI: serve it again, later if it storms. */
static void serve_again(struct ioapic *ioapic, unsigned pin)
{
	if (ioapic->ops->delay && ++ioapic->storm[pin] == STORM_EOIS) {
		ioapic->storm[pin] = 0;
		ioapic->ops->delay(ioapic->opaque, STORM_PAUSE_NS);
		return;
	}
	serve(ioapic, pin, false);
}

static void eoi_pin(struct ioapic *ioapic, unsigned pin, bool level)
{
	uint64_t *entry = &ioapic->state.redirtbl[pin];

	/* First, for the callee may lower the line. Until remote IRR falls, a rise only waits. */
	if (ioapic->ops->eoi)
		ioapic->ops->eoi(ioapic->opaque, pin);
	if (!level)
		return;
	*entry &= ~IOAPIC_REMOTE_IRR;
	if (!(*entry & IOAPIC_MASKED) && ioapic->state.irr & 1u << pin)
		serve_again(ioapic, pin);
	else
		ioapic->storm[pin] = 0;
}

void ioapic_eoi(struct ioapic *ioapic, uint8_t vector, bool level)
{
	if (ioapic->rtc_pending > 0 && ioapic->rtc_vector == vector)
		ioapic->rtc_pending--;
	for (unsigned pin = 0; pin < IOAPIC_NR_PINS; pin++)
		if (IOAPIC_VECTOR(ioapic->state.redirtbl[pin]) == vector)
			eoi_pin(ioapic, pin, level);
}

void ioapic_inject_delayed(struct ioapic *ioapic)
{
	for (unsigned pin = 0; pin < IOAPIC_NR_PINS; pin++)
		if (ioapic->state.redirtbl[pin] & IOAPIC_LEVEL && ioapic->state.irr & 1u << pin)
			serve(ioapic, pin, false);
}

/* A level pin became deliverable by a write to its entry. */
static void serve_unmasked(struct ioapic *ioapic, unsigned pin)
{
	if (ioapic->ops->resample && ioapic->ops->resample(ioapic->opaque, pin))
		ioapic->state.irr &= ~(1u << pin);
	else
		serve(ioapic, pin, false);
}

static void write_entry(struct ioapic *ioapic, unsigned pin, bool high, uint32_t val)
{
	const uint64_t read_only = IOAPIC_REMOTE_IRR | IOAPIC_PENDING;
	uint64_t *entry = &ioapic->state.redirtbl[pin];
	uint64_t old = *entry, new;

	if (high)
		new = (uint32_t)old | (uint64_t)val << 32;
	else
		new = (old & ~0xffffffffull) | val;
	new = (new & ~read_only) | (old & read_only);
	/* Guests use a switch to edge mode as an EOI for chips without an EOI register. */
	if (!(new &IOAPIC_LEVEL))
		new &= ~IOAPIC_REMOTE_IRR;
	*entry = new;
	collect_vectors(ioapic);
	/* A processor reset may have swallowed the EOI: a new start must not wait for it. */
	if (pin == IOAPIC_RTC_PIN && new &IOAPIC_MASKED)
		ioapic->rtc_pending = 0;
	if ((old ^ new) & IOAPIC_MASKED && ioapic->ops->mask)
		ioapic->ops->mask(ioapic->opaque, pin, new &IOAPIC_MASKED);
	if (*entry & IOAPIC_LEVEL && !(*entry & (IOAPIC_MASKED | IOAPIC_REMOTE_IRR)) &&
	    ioapic->state.irr & 1u << pin)
		serve_unmasked(ioapic, pin);
	if (ioapic->ops->routes)
		ioapic->ops->routes(ioapic->opaque);
}

static void write_window(struct ioapic *ioapic, uint32_t val)
{
	uint32_t index = ioapic->state.ioregsel;
	uint32_t pin = (index - INDEX_TABLE) >> 1;

	if (index == INDEX_ID)
		ioapic->state.id = val >> 24 & 0xf;
	else if (index >= INDEX_TABLE && pin < IOAPIC_NR_PINS)
		write_entry(ioapic, pin, index & 1, val);
}

static uint32_t read_window(const struct ioapic *ioapic)
{
	uint32_t index = ioapic->state.ioregsel;
	uint32_t pin = (index - INDEX_TABLE) >> 1;

	if (index == INDEX_ID || index == INDEX_ARB)
		return (ioapic->state.id & 0xf) << 24;
	if (index == INDEX_VERSION)
		return (IOAPIC_NR_PINS - 1) << 16 | VERSION;
	if (index < INDEX_TABLE || pin >= IOAPIC_NR_PINS)
		return ~0u;
	return ioapic->state.redirtbl[pin] >> (index & 1 ? 32 : 0);
}

uint64_t ioapic_read(struct ioapic *ioapic, uint64_t offset, unsigned size)
{
	uint32_t val = 0;

	if (offset == REG_SELECT)
		val = ioapic->state.ioregsel;
	else if (offset == REG_WINDOW)
		val = read_window(ioapic);
	return size >= 4 ? val : val & ((1u << 8 * size) - 1);
}

void ioapic_write(struct ioapic *ioapic, uint64_t offset, unsigned size, uint64_t val)
{
	if (size < 4)
		val &= (1u << 8 * size) - 1;
	if (offset == REG_SELECT)
		ioapic->state.ioregsel = val & 0xff;
	else if (offset == REG_WINDOW)
		write_window(ioapic, (uint32_t)val);
}

void ioapic_get_state(const struct ioapic *ioapic, struct ioapic_state *ret)
{
	*ret = ioapic->state;
	ret->irr &= ~ioapic->irr_delivered;
}

void ioapic_set_state(struct ioapic *ioapic, const struct ioapic_state *state)
{
	ioapic->state = *state;
	ioapic->state.irr = 0;
	ioapic->irr_delivered = 0;
	ioapic->rtc_pending = 0;
	collect_vectors(ioapic);
	if (ioapic->ops->routes)
		ioapic->ops->routes(ioapic->opaque);
	for (unsigned pin = 0; pin < IOAPIC_NR_PINS; pin++)
		if (state->irr & 1u << pin)
			raise_pin(ioapic, pin, true);
}

/* Lines are driven from outside and stay; entries keep all but their mask bit, as in KVM. */
void ioapic_reset(struct ioapic *ioapic)
{
	for (unsigned pin = 0; pin < IOAPIC_NR_PINS; pin++) {
		ioapic->state.redirtbl[pin] |= IOAPIC_MASKED;
		ioapic->storm[pin] = 0;
	}
	ioapic->state.base_address = IOAPIC_DEFAULT_BASE;
	ioapic->state.ioregsel = 0;
	ioapic->state.id = 0;
	ioapic->state.irr = 0;
	ioapic->irr_delivered = 0;
	ioapic->rtc_pending = 0;
	collect_vectors(ioapic);
}

void ioapic_init(struct ioapic *ioapic, const struct ioapic_ops *ops, void *opaque)
{
	*ioapic = (struct ioapic){.ops = ops, .opaque = opaque};
	ioapic_reset(ioapic);
}
