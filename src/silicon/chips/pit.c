/* SPDX-License-Identifier: MIT */
/*
 * The 8254 interval timer.
 *
 * Nothing counts: a counter's value and output are computed from the time since it was loaded.
 * Counter 0 has a period and the end of its current one (target), which pit_expire() moves on.
 *
 * Reinjection (KVM api.rst, KVM_REINJECT_CONTROL): while on, a tick passes only after the guest
 * ended the last one; ticks that come earlier wait in pending, so that a guest counting ticks keeps
 * its time over a pause. While off, each tick passes.
 *
 * As in KVM a gate stops nothing, BCD is kept but counts binary, and mode 5 of counter 0 gives no
 * interrupt.
 */
#include "silicon/chips/pit.h"

#define NS_PER_SEC 1000000000u

enum rw_state {
	RW_LOW = 1,
	RW_HIGH,
	RW_WORD_LOW,
	RW_WORD_HIGH,
};

#define MODE_NONE 0xff

static uint64_t scale(uint64_t val, uint32_t mul, uint32_t div)
{
	return (uint64_t)((unsigned __int128)val * mul / div);
}

/* PIT clocks since the counter was loaded. */
static uint64_t ticks(const struct pit *pit, unsigned channel, uint64_t now)
{
	int64_t ns;

	if (channel)
		ns = (int64_t)(now - (uint64_t)pit->channels[channel].count_load_time);
	else if (pit->period)
		ns = (int64_t)(pit->period + now - pit->target);
	else
		ns = 0;
	return ns > 0 ? scale((uint64_t)ns, PIT_HZ, NS_PER_SEC) : 0;
}

static uint16_t counter(const struct pit *pit, unsigned channel, uint64_t now)
{
	const struct pit_channel *c = &pit->channels[channel];
	uint64_t d = ticks(pit, channel, now);

	switch (c->mode) {
	case 0:
	case 1:
	case 4:
	case 5:
		return (uint16_t)(c->count - d);
	case 3:
		/* Counts by twos, two rounds for a period. */
		return (uint16_t)(c->count - 2 * d % c->count);
	default:
		return (uint16_t)(c->count - d % c->count);
	}
}

static bool output(const struct pit *pit, unsigned channel, uint64_t now)
{
	const struct pit_channel *c = &pit->channels[channel];
	uint64_t d = ticks(pit, channel, now);

	switch (c->mode) {
	case 1:
		return d < c->count;
	case 2:
		return d && d % c->count == 0;
	case 3:
		return d % c->count < (c->count + 1) >> 1;
	case 4:
	case 5:
		return d == c->count;
	default:
		return d >= c->count;
	}
}

static void latch_count(struct pit *pit, unsigned channel, uint64_t now)
{
	struct pit_channel *c = &pit->channels[channel];

	if (c->count_latched)
		return;
	c->latched_count = counter(pit, channel, now);
	c->count_latched = c->rw_mode;
}

static void latch_status(struct pit *pit, unsigned channel, uint64_t now)
{
	struct pit_channel *c = &pit->channels[channel];

	if (c->status_latched)
		return;
	c->status = output(pit, channel, now) << 7 | c->rw_mode << 4 | c->mode << 1 | c->bcd;
	c->status_latched = 1;
}

static void rearm(struct pit *pit, bool armed)
{
	pit->armed = armed;
	if (pit->ops->rearm)
		pit->ops->rearm(pit->opaque, pit_next_expiry(pit));
}

static void forget_ticks(struct pit *pit)
{
	pit->pending = 0;
	pit->acked = true;
}

static void start(struct pit *pit, uint32_t count, bool periodic, uint64_t now)
{
	uint64_t ns = scale(count, NS_PER_SEC, PIT_HZ);

	if (pit->flags & PIT_HPET_LEGACY)
		return;
	pit->periodic = periodic;
	pit->period = periodic ? max(ns, (uint64_t)PIT_MIN_PERIOD_NS) : ns;
	pit->target = now + ns;
	forget_ticks(pit);
	rearm(pit, true);
}

static void load(struct pit *pit, unsigned channel, uint32_t count, uint64_t now)
{
	struct pit_channel *c = &pit->channels[channel];

	c->count = count ? count : 0x10000;
	if (channel) {
		c->count_load_time = (int64_t)now;
		return;
	}
	switch (c->mode) {
	case 0:
	case 1:
	case 4:
		start(pit, c->count, false, now);
		break;
	case 2:
	case 3:
		start(pit, c->count, true, now);
		break;
	default:
		rearm(pit, false);
	}
}

static void read_back(struct pit *pit, uint8_t val, uint64_t now)
{
	for (unsigned i = 0; i < 3; i++) {
		if (!(val & 2u << i))
			continue;
		if (!(val & 0x20))
			latch_count(pit, i, now);
		if (!(val & 0x10))
			latch_status(pit, i, now);
	}
}

static void write_control(struct pit *pit, uint8_t val, uint64_t now)
{
	unsigned channel = val >> 6, access = val >> 4 & 3;
	struct pit_channel *c = &pit->channels[channel];

	if (channel == 3) {
		read_back(pit, val, now);
	} else if (!access) {
		latch_count(pit, channel, now);
	} else {
		c->rw_mode = access;
		c->read_state = access;
		c->write_state = access;
		/* Modes 6 and 7 are 2 and 3. */
		c->mode = val >> 1 & 7;
		if (c->mode > 5)
			c->mode -= 4;
		c->bcd = val & 1;
	}
}

static void write_count(struct pit *pit, unsigned channel, uint8_t val, uint64_t now)
{
	struct pit_channel *c = &pit->channels[channel];

	switch (c->write_state) {
	default:
		load(pit, channel, val, now);
		break;
	case RW_HIGH:
		load(pit, channel, val << 8, now);
		break;
	case RW_WORD_LOW:
		c->write_latch = val;
		c->write_state = RW_WORD_HIGH;
		break;
	case RW_WORD_HIGH:
		c->write_state = RW_WORD_LOW;
		load(pit, channel, c->write_latch | val << 8, now);
		break;
	}
}

void pit_io_write(struct pit *pit, uint16_t port, uint8_t val, uint64_t now)
{
	if ((port & 3) == 3)
		write_control(pit, val, now);
	else
		write_count(pit, port & 3, val, now);
}

static uint8_t read_latched(struct pit_channel *c)
{
	bool high = c->count_latched == RW_HIGH;

	/* A word's low byte leaves the high one latched. */
	c->count_latched = c->count_latched == RW_WORD_LOW ? RW_HIGH : 0;
	return high ? c->latched_count >> 8 : c->latched_count & 0xff;
}

static uint8_t read_running(struct pit *pit, unsigned channel, uint64_t now)
{
	struct pit_channel *c = &pit->channels[channel];
	uint16_t val = counter(pit, channel, now);
	bool high = c->read_state == RW_HIGH || c->read_state == RW_WORD_HIGH;

	if (c->read_state == RW_WORD_LOW)
		c->read_state = RW_WORD_HIGH;
	else if (c->read_state == RW_WORD_HIGH)
		c->read_state = RW_WORD_LOW;
	return high ? val >> 8 : val & 0xff;
}

uint8_t pit_io_read(struct pit *pit, uint16_t port, uint64_t now)
{
	struct pit_channel *c = &pit->channels[port & 3];

	if ((port & 3) == 3)
		return 0;
	if (c->status_latched) {
		c->status_latched = 0;
		return c->status;
	}
	if (c->count_latched)
		return read_latched(c);
	return read_running(pit, port & 3, now);
}

uint8_t pit_speaker_read(struct pit *pit, uint64_t now)
{
	/* The refresh clock toggles about every 15 us. */
	unsigned refresh = now >> 14 & 1;
	bool data = pit->flags & PIT_SPEAKER_DATA_ON;

	return pit->channels[2].gate | data << 1 | refresh << 4 | output(pit, 2, now) << 5;
}

void pit_speaker_write(struct pit *pit, uint8_t val, uint64_t now)
{
	struct pit_channel *c = &pit->channels[2];
	bool gate = val & 1, retriggers = c->mode != 0 && c->mode != 4 && c->mode <= 5;

	if (val & 2)
		pit->flags |= PIT_SPEAKER_DATA_ON;
	else
		pit->flags &= ~PIT_SPEAKER_DATA_ON;
	if (retriggers && gate && !c->gate)
		c->count_load_time = (int64_t)now;
	c->gate = gate;
}

uint64_t pit_next_expiry(const struct pit *pit)
{
	return pit->armed ? pit->target : PIT_NEVER;
}

/* Let a tick through, if the guest has ended the last one. */
static void pulse(struct pit *pit)
{
	if (pit->reinject && !pit->acked)
		return;
	if (pit->reinject)
		pit->acked = false;
	pit->ops->irq(pit->opaque, true);
	pit->ops->irq(pit->opaque, false);
}

static void tick(struct pit *pit)
{
	if (pit->periodic)
		pit->target += pit->period;
	else
		pit->armed = false;
	if (pit->reinject)
		pit->pending++;
	pulse(pit);
}

/* Step over the periods that passed unseen; they count only where none may be lost. */
static void skip_periods(struct pit *pit, uint64_t now)
{
	uint64_t missed = (now - pit->target) / pit->period;

	pit->target += missed * pit->period;
	if (pit->reinject)
		pit->pending += missed;
}

void pit_expire(struct pit *pit, uint64_t now)
{
	if (!pit->armed || now < pit->target)
		return;
	if (pit->periodic)
		skip_periods(pit, now);
	tick(pit);
	rearm(pit, pit->armed);
}

void pit_ack(struct pit *pit)
{
	if (!pit->reinject)
		return;
	pit->acked = true;
	if (pit->pending && --pit->pending)
		pulse(pit);
}

void pit_unmasked(struct pit *pit)
{
	if (pit->reinject)
		forget_ticks(pit);
}

void pit_set_reinject(struct pit *pit, bool reinject)
{
	if (pit->reinject == reinject)
		return;
	if (reinject)
		forget_ticks(pit);
	pit->reinject = reinject;
}

void pit_get_state(const struct pit *pit, struct pit_state *ret)
{
	*ret = (struct pit_state){.flags = pit->flags};
	for (unsigned i = 0; i < 3; i++)
		ret->channels[i] = pit->channels[i];
}

void pit_set_channels(struct pit *pit, const struct pit_channel channels[3], uint64_t now)
{
	for (unsigned i = 0; i < 3; i++) {
		pit->channels[i] = channels[i];
		load(pit, i, channels[i].count, now);
	}
}

void pit_set_state(struct pit *pit, const struct pit_state *state, uint64_t now)
{
	/* An HPET that takes over stops counter 0, once. */
	if (state->flags & ~pit->flags & PIT_HPET_LEGACY)
		rearm(pit, false);
	pit->flags = state->flags;
	pit_set_channels(pit, state->channels, now);
}

void pit_init(struct pit *pit, const struct pit_ops *ops, void *opaque, uint64_t now)
{
	*pit = (struct pit){.ops = ops, .opaque = opaque, .reinject = true, .acked = true};
	for (unsigned i = 0; i < 3; i++) {
		pit->channels[i].mode = MODE_NONE;
		pit->channels[i].gate = i != 2;
		load(pit, i, 0, now);
	}
}
