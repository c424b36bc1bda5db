/* SPDX-License-Identifier: MIT */
/*
 * Waiting in HLT: polling as KVM_CAP_HALT_POLL and MSR_KVM_POLL_CONTROL have it, as far as the counters tell, and what
 * others read and write in memory meanwhile (MSR_KVM_STEAL_TIME's preempted byte).
 */
#include "pv.h"
#include "stats_fd.h"

#include <linux/kvm_para.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

#define PAGE_GPA  0x3000
#define PREEMPTED (PAGE_GPA + 16)
#define VECTOR	  0x50

static void *run(void *opaque)
{
	RUN_TO((struct machine *)opaque, KVM_EXIT_IO);
	return NULL;
}

/* A guest in HLT until an interrupt comes, again and again: the handler returns there. */
static struct machine halting(int *ret_stats)
{
	static const uint8_t handler[] = {0xe6, 0x80, 0xcf};
	struct machine m = machine_irqchip();
	const uint32_t entry = HANDLER_GPA;

	memcpy(m.ram + HANDLER_GPA, handler, sizeof(handler));
	memcpy(m.ram + 4 * VECTOR, &entry, sizeof(entry));
	/* 1: sti; hlt; jmp 1b */
	MACHINE_CODE(&m, 0xfb, 0xf4, 0xeb, 0xfc);
	lapic_enable(&m);
	*ret_stats = ioctl(m.vcpu, KVM_GET_STATS_FD, 0);
	return m;
}

/* Nothing in service any more. */
static void end_of_interrupt(struct machine *m)
{
	struct kvm_lapic_state state;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_LAPIC, &state), 0);
	memset(state.regs + LAPIC_ISR, 0, 0x80);
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_LAPIC, &state), 0);
}

static void wait_for(struct machine *m, uint8_t byte)
{
	while (__atomic_load_n(&m->ram[PREEMPTED], __ATOMIC_SEQ_CST) != byte)
		usleep(100);
}

static void halt_once(struct machine *m, void (*meanwhile)(struct machine *m))
{
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, run, m), 0);
	meanwhile(m);
	send_msi(m, VECTOR);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	end_of_interrupt(m);
}

static void nothing(struct machine *m)
{
}

/* Halts that end soon are what polling grows by. */
static void test_no_polling(bool by_guest)
{
	int stats;
	struct machine m = halting(&stats);

	if (by_guest)
		CHECK_EQ(msr_set(m.vcpu, MSR_KVM_POLL_CONTROL, 0), 1);
	else
		CHECK_EQ(enable_cap(m.vm, KVM_CAP_HALT_POLL, 0), 0);
	for (unsigned i = 0; i < 100; i++)
		halt_once(&m, nothing);
	CHECK_EQ(stat_value(stats, "halt_attempted_poll"), 0);
	CHECK_EQ(stat_value(stats, "halt_successful_poll"), 0);
	CHECK_EQ(stat_value(stats, "halt_poll_success_ns"), 0);
	CHECK_EQ(stat_value(stats, "halt_poll_fail_ns"), 0);
	CHECK(stat_value(stats, "halt_wakeup") <= 100);
}

static void test_counters(void)
{
	int stats;
	struct machine m = halting(&stats);

	CHECK_EQ(enable_cap(m.vm, KVM_CAP_HALT_POLL, 0xffffffff), 0);
	for (unsigned i = 0; i < 100; i++)
		halt_once(&m, nothing);
	CHECK(stat_value(stats, "halt_successful_poll") <=
	      stat_value(stats, "halt_attempted_poll"));
	CHECK(stat_value(stats, "halt_successful_poll") + stat_value(stats, "halt_wakeup") <= 100);
	CHECK(!stat_value(stats, "halt_poll_success_ns") ==
	      !stat_value(stats, "halt_successful_poll"));
}

/* ---- polling that adapts ---- */

#define LIMIT_S	    60
#define MAX_POLL_NS 2000000
/* Of that, until it is too short: halt_poll_ns_shrink and halt_poll_ns_grow_start. */
#define HALVINGS 12

struct answerer {
	struct machine m;
	pthread_t thread;
	int stats;
	unsigned answered; /* atomic */
	bool stop;	   /* atomic */
};

static void *answer(void *opaque)
{
	struct answerer *a = opaque;

	while (!__atomic_load_n(&a->stop, __ATOMIC_SEQ_CST)) {
		RUN_TO(&a->m, KVM_EXIT_IO);
		end_of_interrupt(&a->m);
		__atomic_fetch_add(&a->answered, 1, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

static void halt_for(struct answerer *a, unsigned us)
{
	unsigned before = __atomic_load_n(&a->answered, __ATOMIC_SEQ_CST);

	usleep(us);
	send_msi(&a->m, VECTOR);
	while (__atomic_load_n(&a->answered, __ATOMIC_SEQ_CST) == before)
		sched_yield();
}

/* Its thread sleeps, and does so for longer than is ever polled. */
static void halt_long(struct answerer *a)
{
	while (!stat_value(a->stats, "blocking"))
		usleep(100);
	halt_for(a, 2 * MAX_POLL_NS / 1000);
}

/* As long as events come soon it is polled for, sooner or later with success; once they come late it is not any more. */
static void test_adapts(void)
{
	time_t end = time(NULL) + LIMIT_S;
	struct answerer a = {0};
	uint64_t attempted;

	a.m = halting(&a.stats);
	CHECK_EQ(enable_cap(a.m.vm, KVM_CAP_HALT_POLL, MAX_POLL_NS), 0);
	CHECK_EQ(pthread_create(&a.thread, NULL, answer, &a), 0);
	while (!stat_value(a.stats, "halt_successful_poll")) {
		halt_for(&a, 50);
		CHECK(time(NULL) < end);
	}
	for (unsigned i = 0; i < HALVINGS; i++)
		halt_long(&a);
	attempted = stat_value(a.stats, "halt_attempted_poll");
	for (unsigned i = 0; i < 5; i++)
		halt_long(&a);
	CHECK_EQ(stat_value(a.stats, "halt_attempted_poll"), attempted);
	__atomic_store_n(&a.stop, true, __ATOMIC_SEQ_CST);
	send_msi(&a.m, VECTOR);
	CHECK_EQ(pthread_join(a.thread, NULL), 0);
}

static void leave_a_flush(struct machine *m)
{
	uint8_t shown = KVM_VCPU_PREEMPTED;

	wait_for(m, shown);
	CHECK(__atomic_compare_exchange_n(&m->ram[PREEMPTED], &shown,
					  KVM_VCPU_PREEMPTED | KVM_VCPU_FLUSH_TLB, false,
					  __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
}

static void see_it(struct machine *m)
{
	wait_for(m, KVM_VCPU_PREEMPTED);
}

/* While the thread sleeps the byte is set; it is 0 when guest code runs, whatever was left there. */
static void test_preempted(void)
{
	int stats;
	struct machine m = halting(&stats);

	if (!ioctl(m.kvm, KVM_CHECK_EXTENSION, KVM_CAP_STEAL_TIME))
		return;
	CHECK_EQ(enable_cap(m.vm, KVM_CAP_HALT_POLL, 0), 0);
	memset(m.ram + PAGE_GPA, 0, 64);
	CHECK_EQ(msr_set(m.vcpu, MSR_KVM_STEAL_TIME, PAGE_GPA | 1), 1);
	halt_once(&m, leave_a_flush);
	CHECK_EQ(m.ram[PREEMPTED], 0);
	halt_once(&m, see_it);
	CHECK_EQ(m.ram[PREEMPTED], 0);
	/* Not shown where it is not asked for. */
	CHECK_EQ(msr_set(m.vcpu, MSR_KVM_STEAL_TIME, 0), 1);
	halt_once(&m, nothing);
	CHECK_EQ(m.ram[PREEMPTED], 0);
}

int main(void)
{
	test_no_polling(false);
	test_no_polling(true);
	test_counters();
	test_adapts();
	test_preempted();
	return 0;
}
