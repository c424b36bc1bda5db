/* SPDX-License-Identifier: MIT */
/*
 * The local APIC's timer (SDM, "APIC timer").
 *
 * Nothing counts: a running timer is its period and the end of the current one (target, ns), or
 * a TSC value (deadline). The owner arms a timer of its own for lapic_timer_expiry() and calls
 * lapic_timer_fire(); both look at the clock anew, so that calling too early (it is armed again) or late is harmless.
 */
#include "silicon/chips/lapic_internal.h"

/* Shortest period, ns: KVM's limit, so that a guest cannot starve its host. */
#define MIN_PERIOD_NS 200000

static bool is_periodic(const struct lapic *lapic)
{
	return lapic->timer_mode == TIMER_PERIODIC;
}

static bool is_deadline(const struct lapic *lapic)
{
	return lapic->timer_mode == TIMER_DEADLINE;
}

static bool counts(const struct lapic *lapic)
{
	return is_periodic(lapic) || lapic->timer_mode == 0;
}

static uint64_t now(struct lapic *lapic)
{
	return lapic->ops->now(lapic->opaque);
}

static uint64_t scale(uint64_t val, uint64_t mul, uint64_t div)
{
	return (uint64_t)((unsigned __int128)val * mul / div);
}

static uint64_t count_to_ns(const struct lapic *lapic, uint32_t count)
{
	return count * lapic->config.bus_cycle_ns * lapic->divide;
}

static void arm(struct lapic *lapic, bool armed)
{
	lapic->armed = armed;
	lapic->ops->timer(lapic->opaque, lapic_timer_expiry(lapic));
}

void timer_stop(struct lapic *lapic)
{
	if (lapic->armed)
		arm(lapic, false);
}

static void limit_period(struct lapic *lapic)
{
	if (is_periodic(lapic) && lapic->period)
		lapic->period = max(lapic->period, (uint64_t)MIN_PERIOD_NS);
}

void timer_update_mode(struct lapic *lapic)
{
	uint32_t allowed = lapic->config.tsc_deadline ? TIMER_MODES : TIMER_PERIODIC;
	uint32_t mode = lapic_reg(lapic, LAPIC_LVT_TIMER) & allowed;

	if (mode == lapic->timer_mode)
		return;
	/* To and from TSC-deadline mode the timer is disarmed. */
	if ((mode == TIMER_DEADLINE) != is_deadline(lapic)) {
		timer_stop(lapic);
		set_reg(lapic, LAPIC_TIMER_INITIAL, 0);
		lapic->period = 0;
		lapic->deadline = 0;
	}
	lapic->timer_mode = mode;
	limit_period(lapic);
}

void timer_load_divide(struct lapic *lapic)
{
	uint32_t val = lapic_reg(lapic, LAPIC_TIMER_DIVIDE);
	unsigned code = (val & 3) | (val >> 1 & 4);

	/* 000b divides by 2, 110b by 128, 111b by 1. */
	lapic->divide = 1u << ((code + 1) & 7);
}

/* Start a count whose current value is current (0 after a restore: see the header). */
static void start(struct lapic *lapic, uint64_t first)
{
	lapic->target = now(lapic) + first;
	arm(lapic, true);
}

static void load_period(struct lapic *lapic)
{
	lapic->period = count_to_ns(lapic, lapic_reg(lapic, LAPIC_TIMER_INITIAL));
	limit_period(lapic);
}

bool timer_write_initial(struct lapic *lapic, uint32_t val)
{
	if (is_deadline(lapic))
		return true;
	timer_stop(lapic);
	set_reg(lapic, LAPIC_TIMER_INITIAL, val);
	load_period(lapic);
	if (lapic->period && counts(lapic))
		start(lapic, lapic->period);
	return true;
}

bool timer_write_divide(struct lapic *lapic, uint32_t val)
{
	uint32_t old = lapic->divide;
	uint64_t t, left;

	set_reg(lapic, LAPIC_TIMER_DIVIDE, val & 0xb);
	timer_load_divide(lapic);
	if (lapic->divide == old || !lapic->period)
		return true;
	load_period(lapic);
	if (!lapic->armed)
		return true;
	t = now(lapic);
	left = lapic->target > t ? lapic->target - t : 0;
	start(lapic, scale(left, lapic->divide, old));
	return true;
}

/* Nanoseconds to the end of the current period; past ends of a periodic timer count on. */
static uint64_t remaining(struct lapic *lapic)
{
	uint64_t t = now(lapic);

	if (lapic->target >= t)
		return lapic->target - t;
	if (is_periodic(lapic))
		return lapic->period - (t - lapic->target) % lapic->period;
	return 0;
}

uint32_t timer_current(struct lapic *lapic)
{
	if (!lapic->armed || !lapic->period || !counts(lapic))
		return 0;
	return (uint32_t)(remaining(lapic) / (lapic->config.bus_cycle_ns * lapic->divide));
}

void timer_restore(struct lapic *lapic)
{
	uint32_t current = lapic_reg(lapic, LAPIC_TIMER_CURRENT);
	uint64_t first = count_to_ns(lapic, current);

	set_reg(lapic, LAPIC_TIMER_CURRENT, 0);
	if (is_deadline(lapic)) {
		arm(lapic, lapic->deadline != 0);
		return;
	}
	load_period(lapic);
	if (!lapic->period || !counts(lapic))
		return;
	/* A one-shot timer at 0 has expired, but its interrupt may not be in the page yet. */
	if (first > lapic->period || (!first && is_periodic(lapic)))
		first = lapic->period;
	start(lapic, first);
}

uint64_t lapic_get_deadline(const struct lapic *lapic)
{
	return lapic_hw_enabled(lapic) && is_deadline(lapic) ? lapic->deadline : 0;
}

void lapic_set_deadline(struct lapic *lapic, uint64_t tsc)
{
	if (!lapic_hw_enabled(lapic) || !is_deadline(lapic))
		return;
	lapic->deadline = tsc;
	arm(lapic, tsc != 0);
}

static uint64_t deadline_expiry(struct lapic *lapic)
{
	uint64_t tsc = lapic->ops->tsc(lapic->opaque), t = now(lapic), cycles;

	if (lapic->deadline <= tsc)
		return t;
	if (!lapic->config.tsc_khz)
		return LAPIC_NEVER;
	cycles = lapic->deadline - tsc;
	/* A deadline after centuries is none. */
	if (cycles / lapic->config.tsc_khz >= LAPIC_NEVER / 1000000 / 4)
		return LAPIC_NEVER;
	/* Round up: firing early is in vain. */
	return t + scale(cycles, 1000000, lapic->config.tsc_khz) + 1;
}

void lapic_tsc_changed(struct lapic *lapic)
{
	if (lapic->armed && is_deadline(lapic))
		arm(lapic, true);
}

uint64_t lapic_timer_expiry(struct lapic *lapic)
{
	if (!lapic->armed)
		return LAPIC_NEVER;
	return is_deadline(lapic) ? deadline_expiry(lapic) : lapic->target;
}

static bool is_due(struct lapic *lapic)
{
	if (!lapic->armed)
		return false;
	if (is_deadline(lapic))
		return lapic->ops->tsc(lapic->opaque) >= lapic->deadline;
	return now(lapic) >= lapic->target;
}

bool lapic_timer_fire(struct lapic *lapic)
{
	uint64_t late;

	if (!is_due(lapic)) {
		/* The TSC's rate is not known that well: a far deadline is not reached yet. */
		if (lapic->armed)
			arm(lapic, true);
		return false;
	}
	lapic_local_deliver(lapic, LAPIC_LVT_TIMER);
	if (is_periodic(lapic)) {
		/* One interrupt for all periods that passed meanwhile: they could not nest anyway. */
		late = now(lapic) - lapic->target;
		lapic->target += (late / lapic->period + 1) * lapic->period;
		arm(lapic, true);
	} else {
		lapic->deadline = 0;
		arm(lapic, false);
	}
	return true;
}
