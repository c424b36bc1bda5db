/* SPDX-License-Identifier: MIT */
/*
 * anykvm trace: run a program, and write what its guests do to a file that trace-cmd and KernelShark read; or where they
 * spend their time, as folded stacks. The program leaves events in rings of the session's file and writes nothing itself; this
 * process empties the rings.
 */
#include "front/trace.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define RING_SIZE (4u << 20)
#define MAX_SLOTS 512

struct tracing {
	const char *out, *stacks_out;
	bool events_named;
	struct watch_session settings;
	struct session session;
	struct trace_dat *dat;
	struct stacks *stacks;
	char **program;
	uint64_t told;
	unsigned rings; /* whose memory is there */
};

static int usage(void)
{
	printf("usage: anykvm trace [OPTION]... [--] PROGRAM [ARG]...\n"
	       "\n"
	       "Run PROGRAM on anykvm and write what its guests do to trace.dat, which trace-cmd "
	       "reads.\n"
	       "\n"
	       "  -o, --output FILE      instead of trace.dat\n"
	       "  -e, --event LIST       only these events, separated by commas; may be given more "
	       "than once\n"
	       "      --insn FROM:COUNT  registers before each of COUNT instructions of each vCPU, "
	       "after FROM\n"
	       "      --stacks FILE      sample where guests are, write folded stacks; no trace "
	       "unless -o or -e\n"
	       "      --symbols FILE     names for them: a vmlinux, System.map, kallsyms or perf "
	       "map\n"
	       "  -F, --frequency HZ     samples per second and vCPU, 1 to 10000; default 99\n"
	       "  -h, --help             tell this\n"
	       "\nEvents:");
	for (unsigned i = 0; i < NR_WATCH_EVENTS; i++)
		printf("%s%s", i % 4 ? " " : "\n  ", watch_row(i).name);
	printf("\n");
	return launcher_flush();
}

/* ---- options ---- */

static int take_events(struct tracing *t, const char *list)
{
	if (!t->events_named)
		t->settings.events = 0;
	t->events_named = true;
	for (size_t len; *list; list += len + (list[len] == ',')) {
		const char *name = list;
		int event;

		len = strcspn(list, ",");
		if (!strncmp(name, "kvm:", 4) && len > 4)
			name += 4;
		event = trace_event_named(name, list + len - name);
		if (event < 0)
			return launcher_error("no event '%.*s'; `anykvm trace --help` lists them",
					      (int)len, list);
		t->settings.events |= BIT(event);
	}
	return 0;
}

static int take_window(struct tracing *t, const char *text)
{
	unsigned long from, count;
	char *copy = launcher_join(NULL, 0, text), *colon = strchr(copy, ':');

	if (colon)
		*colon = 0;
	if (!colon || !launcher_number(copy, 0, -1ul >> 2, &from) ||
	    !launcher_number(colon + 1, 1, 1ul << 32, &count))
		return launcher_error(
			"--insn wants FROM:COUNT, two numbers of instructions, not '%s'", text);
	free(copy);
	t->settings.flags |= WATCH_INSNS;
	t->settings.insn_from = from;
	t->settings.insn_count = count;
	return 0;
}

static int take_frequency(struct tracing *t, const char *text)
{
	unsigned long hz;

	if (!launcher_number(text, 1, 10000, &hz))
		return launcher_error("--frequency wants 1 to 10000, not '%s'", text);
	t->settings.sample_ns = 1000000000ul / hz;
	return 0;
}

static int take_option(struct tracing *t, int opt)
{
	switch (opt) {
	case 'o':
		t->out = optarg;
		return 0;
	case 'e':
		return take_events(t, optarg);
	case 'i':
		return take_window(t, optarg);
	case 's':
		t->stacks_out = optarg;
		t->settings.flags |= WATCH_SAMPLE;
		return 0;
	case 'y':
		return stacks_symbols(t->stacks, optarg);
	case 'F':
		return take_frequency(t, optarg);
	case 'h':
		exit(usage());
	}
	return EXIT_OURS;
}

static int parse(int argc, char **argv, struct tracing *t)
{
	static const struct option options[] = {{"output", required_argument, NULL, 'o'},
						{"event", required_argument, NULL, 'e'},
						{"insn", required_argument, NULL, 'i'},
						{"stacks", required_argument, NULL, 's'},
						{"symbols", required_argument, NULL, 'y'},
						{"frequency", required_argument, NULL, 'F'},
						{"help", no_argument, NULL, 'h'},
						{0}};
	int opt, ret = 0;

	while (!ret && (opt = launcher_getopt("trace", argc, argv, "+:o:e:F:h", options)) != -1)
		ret = take_option(t, opt);
	if (ret)
		return ret;
	if (optind == argc)
		return launcher_error("no program given: anykvm trace [OPTIONS] -- PROGRAM ARGS");
	t->program = argv + optind;
	if (!t->stacks_out || t->events_named || (t->settings.flags & WATCH_INSNS))
		t->out = t->out ? t->out : "trace.dat";
	if (!t->out)
		t->settings.events = 0;
	t->settings.flags |= WATCH_TRACE;
	return 0;
}

/* ---- emptying the rings ---- */

static void add(struct tracing *t, unsigned slot, uint64_t tsc, const void *ev, uint32_t size)
{
	const struct watch_page *page = watch_slot(t->session.map, slot);

	t->told++;
	if (t->dat)
		trace_dat_add(t->dat, slot, page->counted ? 0 : page->tsc_khz, tsc, ev, size);
}

static struct watch_common common_of(const struct ev_cpuid *ev, unsigned id)
{
	return (struct watch_common){.type = WATCH_EVENT_ID(id), .pid = ev->c.pid};
}

/* The three events that it stands for. Padding is 0. */
static void tell_cpuid(struct tracing *t, unsigned slot, uint64_t tsc, const struct ev_cpuid *ev)
{
	const struct watch_page *page = watch_slot(t->session.map, slot);
	struct ev_kvm_exit left;
	struct ev_kvm_cpuid cpuid;
	struct ev_kvm_entry entered;

	memset(&left, 0, sizeof(left));
	memset(&cpuid, 0, sizeof(cpuid));
	memset(&entered, 0, sizeof(entered));
	left.c = common_of(ev, EV_kvm_exit);
	left.exit_reason = ev->exit_reason;
	left.guest_rip = entered.rip = ev->rip;
	left.isa = page->isa;
	left.vcpu_id = entered.vcpu_id = page->vcpu_id;
	cpuid.c = common_of(ev, EV_kvm_cpuid);
	cpuid.function = ev->function;
	cpuid.index = ev->index;
	cpuid.rax = ev->regs[0];
	cpuid.rbx = ev->regs[1];
	cpuid.rcx = ev->regs[2];
	cpuid.rdx = ev->regs[3];
	cpuid.found = 1;
	entered.c = common_of(ev, EV_kvm_entry);
	add(t, slot, tsc, &left, sizeof(left));
	add(t, slot, tsc, &cpuid, sizeof(cpuid));
	add(t, slot, tsc + ev->took, &entered, sizeof(entered));
}

static void tell(struct tracing *t, unsigned slot, const struct watch_record *record,
		 const struct watch_common *common)
{
	struct ev_sample sample;
	struct ev_cpuid cpuid;

	if (common->type == WATCH_EVENT_ID(EV_sample)) {
		t->told++;
		memcpy(&sample, common, min((size_t)record->size, sizeof(sample)));
		stacks_add(t->stacks, &sample);
	} else if (common->type == WATCH_EVENT_ID(EV_cpuid) && record->size == sizeof(cpuid)) {
		memcpy(&cpuid, common, sizeof(cpuid));
		tell_cpuid(t, slot, record->tsc, &cpuid);
	} else {
		add(t, slot, record->tsc, common, record->size);
	}
}

/*
 * The event at pos of the ring, of which room bytes are written: bytes to go on by, or 0 if that makes no sense. What the other side
 * wrote is believed as far as it fits.
 */
static uint64_t take(struct tracing *t, unsigned slot, uint64_t pos, uint64_t room)
{
	const uint8_t *ring = watch_ring(t->session.map, slot);
	uint64_t left = t->session.map->ring_size - pos, size;
	struct watch_record record;

	if (left < sizeof(record))
		return left;
	memcpy(&record, ring + pos, sizeof(record));
	if (!record.size)
		return left;
	size = sizeof(record) + ALIGN_UP((uint64_t)record.size, 8u);
	if (record.size < sizeof(struct watch_common) || record.size > WATCH_MAX_EVENT ||
	    size > min(room, left))
		return 0;
	tell(t, slot, &record, (const void *)(ring + pos + sizeof(record)));
	return size;
}

static void drain(struct tracing *t, unsigned slot)
{
	struct watch_page *page = watch_slot(t->session.map, slot);
	uint64_t head = __atomic_load_n(&page->head, __ATOMIC_ACQUIRE), tail = page->tail, by;

	while (tail != head) {
		by = take(t, slot, tail & (t->session.map->ring_size - 1), head - tail);
		tail = by && by <= head - tail ? tail + by : head;
	}
	__atomic_store_n(&page->tail, tail, __ATOMIC_RELEASE);
	if (__atomic_exchange_n(&page->waiter, 0, __ATOMIC_SEQ_CST))
		host_futex_wake_shared(&page->waiter, 1);
}

/* Rings are there before they are written to: one ahead of the vCPUs that have theirs. */
static void make_rings(struct tracing *t, unsigned nr)
{
	while (t->rings < nr && t->rings < t->settings.max_slots)
		host_pages_populate(watch_ring(t->session.map, t->rings++), RING_SIZE);
}

static void drain_all(void *arg)
{
	struct tracing *t = arg;
	unsigned nr = session_nr(&t->session);

	for (unsigned i = 0; i < nr; i++)
		drain(t, i);
	if (nr)
		make_rings(t, nr + 1);
}

static int finish(struct tracing *t)
{
	unsigned nr = session_nr(&t->session);
	uint64_t lost[MAX_SLOTS] = {0}, all = 0;
	int ret = 0;

	for (unsigned i = 0; i < nr; i++) {
		lost[i] = watch_slot(t->session.map, i)->lost;
		all += lost[i];
	}
	if (t->dat)
		ret = trace_dat_close(t->dat, nr, lost);
	if (t->stacks_out && stacks_write(t->stacks, t->stacks_out))
		ret = EXIT_OURS;
	if (t->session.map->dropped)
		launcher_error("%u vCPUs too many were not traced", t->session.map->dropped);
	if (ret)
		return ret;
	fprintf(stderr, "anykvm: %llu event%s of %u vCPU%s", (unsigned long long)t->told,
		t->told == 1 ? "" : "s", nr, nr == 1 ? "" : "s");
	if (all)
		fprintf(stderr, ", %llu lost", (unsigned long long)all);
	fprintf(stderr, " in %s%s%s\n", t->out ? t->out : "",
		t->out && t->stacks_out ? " and " : "", t->stacks_out ? t->stacks_out : "");
	return 0;
}

static int open_outputs(struct tracing *t)
{
	if (t->out) {
		t->dat = trace_dat_open(t->out, host_rdtsc(), host_monotonic_ns());
		if (!t->dat)
			return EXIT_OURS;
	}
	return t->stacks_out ? whole_check(t->stacks_out) : 0;
}

int verb_trace(int argc, char **argv)
{
	static struct tracing t = {
		.settings = {.max_slots = MAX_SLOTS,
			     .ring_size = RING_SIZE,
			     .events = BIT(NR_WATCH_EVENTS) - 1,
			     .depth = WATCH_MAX_FRAMES,
			     .sample_ns = 1000000000ul / 99},
	};
	char *path;
	int ret, status;

	t.stacks = stacks_new();
	ret = parse(argc, argv, &t);
	if (!ret)
		ret = launcher_preload();
	if (!ret)
		ret = program_find(t.program[0], &path);
	if (!ret)
		ret = open_outputs(&t);
	if (!ret)
		ret = session_create(&t.session, &t.settings);
	if (ret)
		return ret;
	make_rings(&t, 1);
	status = session_run(&t.session, path, t.program, drain_all, &t);
	ret = finish(&t);
	return ret ? ret : status;
}
