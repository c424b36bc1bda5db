/* SPDX-License-Identifier: MIT */
/* The rows of anykvm stat, and the report of exits by reason. */
#include "front/watch.h"

#include <stdlib.h>
#include <string.h>

static const struct watch_row rows[] = {
#define FIELD(event, type, text, name)
#define EVENT(name, fmt, args, fields) {#name, false, true},
#include "events.def"
#undef EVENT
#undef FIELD
#define REASON(name, vmx, svm) {"kvm_exit(" #name ")", true, true},
#include "reasons.def"
#undef REASON
#define STAT_VM(name, type, unit)
#define STAT_VCPU(name, type, unit) {#name, false, false},
#include "stats.def"
#undef STAT_VM
#undef STAT_VCPU
};

static const char *const reason_names[] = {
#define REASON(name, vmx, svm) #name,
#include "reasons.def"
#undef REASON
};

unsigned watch_nr_rows(void)
{
	return ARRAY_SIZE(rows);
}

struct watch_row watch_row(unsigned row)
{
	return rows[row];
}

void watch_sum(const struct watch_page *page, uint64_t *sums)
{
	for (unsigned i = 0; i < NR_WATCH_EVENTS; i++)
		*sums++ += __atomic_load_n(&page->events[i], __ATOMIC_RELAXED);
	for (unsigned i = 0; i < NR_WATCH_REASONS; i++)
		*sums++ += __atomic_load_n(&page->costs[i].count, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < NR_STATS_VCPU; i++)
		*sums++ += __atomic_load_n(&page->stats[i], __ATOMIC_RELAXED);
}

/* ---- the report ---- */

struct line {
	const char *name;
	double count, timed, us, min_us, max_us;
};

static void gather(struct line *line, unsigned reason, const struct watch_page *page)
{
	const struct watch_cost *cost = &page->costs[reason];
	double us = page->tsc_khz ? 1000.0 / page->tsc_khz : 0;

	if (cost->timed && (!line->timed || cost->min * us < line->min_us))
		line->min_us = cost->min * us;
	if (cost->max * us > line->max_us)
		line->max_us = cost->max * us;
	line->count += cost->count;
	line->timed += cost->timed;
	line->us += watch_clock_total(cost) * us;
}

static int by_time(const void *a, const void *b)
{
	const struct line *x = a, *y = b;

	return (x->us < y->us) - (x->us > y->us);
}

static double percent(double part, double all)
{
	return all > 0 ? 100 * part / all : 0;
}

static void print_lines(FILE *to, const struct line *lines)
{
	double count = 0, timed = 0, us = 0;

	for (unsigned i = 0; i < NR_WATCH_REASONS; i++) {
		count += lines[i].count;
		timed += lines[i].timed;
		us += lines[i].us;
	}
	fprintf(to, "; times are those of %.0f exits of %.0f\n", timed, count);
	fprintf(to, "\n%20s %10s %9s %9s %11s %13s %13s\n\n", "VM-EXIT", "Samples", "Samples%",
		"Time%", "Min Time", "Max Time", "Avg time");
	for (unsigned i = 0; i < NR_WATCH_REASONS; i++) {
		const struct line *l = &lines[i];

		if (l->count > 0)
			fprintf(to, "%20s %10.0f %8.2f%% %8.2f%% %9.2fus %11.2fus %11.2fus\n",
				l->name, l->count, percent(l->count, count), percent(l->us, us),
				l->min_us, l->max_us, l->us / l->count);
	}
	fprintf(to, "\nTotal Samples:%.0f, Total events handled time:%.2fus.\n", count, us);
}

void watch_report(FILE *to, struct watch_page *const *pages, unsigned nr)
{
	struct line lines[NR_WATCH_REASONS] = {0};
	unsigned long long insns = 0;

	for (unsigned r = 0; r < NR_WATCH_REASONS; r++) {
		lines[r].name = reason_names[r];
		for (unsigned i = 0; i < nr; i++)
			gather(&lines[r], r, pages[i]);
	}
	for (unsigned i = 0; i < nr; i++)
		insns += pages[i]->stats[STAT_VCPU_instructions];
	qsort(lines, NR_WATCH_REASONS, sizeof(*lines), by_time);
	fprintf(to, "\nanykvm: %u vCPU%s, %llu instructions", nr, nr == 1 ? "" : "s", insns);
	if (nr)
		print_lines(to, lines);
	else
		putc('\n', to);
}
