/* SPDX-License-Identifier: MIT */
/*
 * A guest whose program has more code than fits at first, and that then only waits: what the code took is given back, within seconds; and the
 * program is right when it runs again, and once more has its room. With "bounded", under --param anykvm.code_cache=1: it is right, too,
 * and no more is taken than that allows. Judged by what the process has in memory.
 */
#include "long_mode.h"

#include <pthread.h>
#include <signal.h>

#define RAM	0x2000000
#define PROGRAM 0x200000
#define PAGE	4096u
#define PAGES	6000u /* more than the first room has, whatever else it has */
#define ADDS	100u  /* in each */
#define ROUNDS	40    /* until all of it is translated: once each for the blocks of a page */
#define PAGE_KB 4
#define BOUNDED \
	(14 << 10)	/* KiB: 1 MiB of code and its tables, and what translating takes at all */
#define FREED (4 << 10) /* KiB, at least: their code, copies and what is kept of each are 8 MiB */

GUEST_CODE(hlt, "hlt"); /* nobody gets there */

struct guest {
	struct machine m;
	uint32_t sum; /* of one round */
};

static void emit(uint8_t **at, const void *bytes, unsigned nr)
{
	memcpy(*at, bytes, nr);
	*at += nr;
}

/* Add ADDS numbers, each another one, to %eax. */
static void emit_adds(struct guest *g, uint8_t **at)
{
	for (unsigned i = 0; i < ADDS; i++) {
		uint32_t number = (uint32_t)(*at - g->m.ram) * 2654435761u;

		*(*at)++ = 0x05;
		emit(at, &number, sizeof(number));
		g->sum += number;
	}
}

/* A jump, of which the opcode stands there. */
static void emit_target(uint8_t **at, const uint8_t *target)
{
	emit(at, &(int32_t){target - (*at + 4)}, 4);
}

/* mov $ROUNDS,%ecx; 1: the first page's; jmp 2f; ... 2: the next one's ...; dec %ecx; jnz 1b; out %al,$0x80; hlt */
static void write_program(struct guest *g)
{
	static const uint8_t begin[] = {0xb9, ROUNDS, 0, 0, 0}, count[] = {0xff, 0xc9, 0x0f, 0x85},
			     end[] = {0xe6, 0x80, 0xf4};
	uint8_t *at = g->m.ram + PROGRAM, *loop;

	emit(&at, begin, sizeof(begin));
	loop = at;
	for (unsigned page = 1; page <= PAGES; page++) {
		emit_adds(g, &at);
		if (page == PAGES)
			break;
		*at++ = 0xe9;
		emit_target(&at, g->m.ram + PROGRAM + page * PAGE);
		at = g->m.ram + PROGRAM + page * PAGE;
	}
	emit(&at, count, sizeof(count));
	emit_target(&at, loop);
	emit(&at, end, sizeof(end));
}

static uint64_t resident_kib(void)
{
	FILE *file = fopen("/proc/self/statm", "re");
	uint64_t size, pages;

	CHECK(file && fscanf(file, "%lu %lu", &size, &pages) == 2);
	fclose(file);
	return pages * PAGE_KB;
}

static void run_program(struct guest *g)
{
	struct kvm_regs regs;

	CHECK_EQ(ioctl(g->m.vcpu, KVM_GET_REGS, &regs), 0);
	regs.rip = PROGRAM;
	regs.rax = 0;
	CHECK_EQ(ioctl(g->m.vcpu, KVM_SET_REGS, &regs), 0);
	RUN_TO(&g->m, KVM_EXIT_IO);
	CHECK_EQ(ioctl(g->m.vcpu, KVM_GET_REGS, &regs), 0);
	CHECK_EQ(regs.rax, (uint32_t)(ROUNDS * g->sum));
}

/* In HLT until a signal comes. */
static void *wait_in_guest(void *opaque)
{
	struct guest *g = opaque;

	CHECK_ERR(ioctl(g->m.vcpu, KVM_RUN, 0), EINTR);
	return NULL;
}

static void on_signal(int number)
{
}

static void check_given_back(struct guest *g)
{
	struct kvm_mp_state runnable = {.mp_state = KVM_MP_STATE_RUNNABLE};
	uint64_t full = resident_kib(), now = full;
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, wait_in_guest, g), 0);
	for (unsigned i = 0; i < 600 && now + FREED > full; i++) {
		usleep(100000);
		now = resident_kib();
	}
	CHECK(now + FREED <= full);
	g->m.run->immediate_exit = 1;
	CHECK_EQ(pthread_kill(thread, SIGUSR1), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	g->m.run->immediate_exit = 0;
	CHECK_EQ(ioctl(g->m.vcpu, KVM_SET_MP_STATE, &runnable), 0);
}

/* Of all that is more than fits, no more is there than that. */
static void check_bounded(uint64_t before)
{
	CHECK(resident_kib() <= before + BOUNDED);
}

int main(int argc, char **argv)
{
	bool bounded = argc > 1 && !strcmp(argv[1], "bounded");
	struct sigaction action = {.sa_handler = on_signal};
	struct guest g = {.m.kvm = open_kvm()};
	uint64_t before;

	CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
	g.m.vm = create_vm(g.m.kvm);
	g.m.ram = map_ram(RAM);
	CHECK_EQ(set_region(g.m.vm, 0, 0, 0, RAM, g.m.ram), 0);
	CHECK_EQ(ioctl(g.m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	g.m.vcpu = ioctl(g.m.vm, KVM_CREATE_VCPU, 0);
	CHECK(g.m.vcpu >= 0);
	g.m.run = map_run(g.m.kvm, g.m.vcpu);
	long_mode_memory(g.m.ram, hlt, hlt_end);
	long_mode_cpuid(g.m.kvm, g.m.vcpu, 1 << 21);
	long_mode_start(g.m.vcpu, PROGRAM, LONG_STACK);
	write_program(&g);
	before = resident_kib();
	run_program(&g);
	if (bounded) {
		check_bounded(before);
		return 0;
	}
	for (unsigned round = 0; round < 2; round++) {
		check_given_back(&g);
		run_program(&g);
	}
	return 0;
}
