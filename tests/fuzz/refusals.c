/* SPDX-License-Identifier: MIT */
/*
 * A refused ioctl leaves no trace: refusals [SECONDS [SEED [ROUNDS]]], for at least so long and so many.
 *
 * A round makes a VM whose vCPUs run now and then, and does some hundred random calls (calls.h). Around each that is refused,
 * all that the GET ioctls tell of the VM and its vCPUs is read, with kvm_run, which guest pages have memory, and guest
 * memory. Both readings must be alike. Timers go on by themselves: so a difference counts only if the round, done anew
 * twice, has it at the same call, before which it waits until a tick of the PIT has come.
 */
#include "calls.h"

#include <signal.h>
#include <stddef.h>
#include <time.h>

#define OPS_A_ROUND 300
#define MAX_MSRS    256
#define REPEATS	    2
#define TICK_US	    70000 /* more than the PIT's longest period */
#define LONG_MODE   0	  /* of the Xen attributes that are read of a VM, */
#define RUNSTATE    2	  /* and of a vCPU */

struct msrs {
	struct kvm_msrs head;
	struct kvm_msr_entry entry[MAX_MSRS];
};

struct cpuid {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entry[128];
};

/* What an ioctl tells, and its result: a GET may be refused, too. */
#define READING(name, type)    \
	struct {               \
		long name##_r; \
		type name;     \
	}

struct vcpu_reading {
	READING(regs, struct kvm_regs);
	READING(sregs, struct kvm_sregs2);
	READING(xsave, struct kvm_xsave);
	READING(xcrs, struct kvm_xcrs);
	READING(debug, struct kvm_debugregs);
	READING(events, struct kvm_vcpu_events);
	READING(mp, struct kvm_mp_state);
	READING(lapic, struct kvm_lapic_state);
	READING(msrs, struct msrs);
	READING(cpuid, struct cpuid);
	READING(xen, typeof(struct kvm_xen_vcpu_attr[5]));
	READING(nested, typeof(uint8_t[0x4000]));
	long tsc_khz;
	uint8_t run[PAGE_BYTES];
};

struct reading {
	struct vcpu_reading vcpu[NR_VCPUS];
	READING(chip, typeof(struct kvm_irqchip[3]));
	READING(pit, struct kvm_pit_state2);
	READING(xen, typeof(struct kvm_xen_hvm_attr[5]));
	long tsc_khz;
	bool has_memory[160];
	uint8_t arena[ARENA];
};

static uint64_t round_seed;
static uint32_t msr_index[MAX_MSRS];
static timer_t kick;
static unsigned nr_msrs, nr_refused, nr_noise;

void fuzz_fail(const char *what)
{
	fprintf(stderr, "refusals: %s: run `refusals 0 %#llx`\n", what,
		(unsigned long long)round_seed);
	_exit(1);
}

/* ---- reading everything ---- */

/* Those that run by themselves. */
static bool goes_on(uint32_t msr)
{
	return msr == 0x10 || msr == 0x40000010 || msr == 0x40000020;
}

static void find_msrs(void)
{
	static struct {
		struct kvm_msr_list head;
		uint32_t index[MAX_MSRS];
	} list = {.head.nmsrs = MAX_MSRS};

	CHECK_EQ(ioctl(kvm_fd, KVM_GET_MSR_INDEX_LIST, &list), 0);
	for (unsigned i = 0; i < list.head.nmsrs; i++)
		if (!goes_on(list.index[i]))
			msr_index[nr_msrs++] = list.index[i];
}

static void read_msrs(int fd, struct vcpu_reading *v)
{
	v->msrs.head.nmsrs = nr_msrs;
	for (unsigned i = 0; i < nr_msrs; i++)
		v->msrs.entry[i].index = msr_index[i];
	v->msrs_r = ioctl(fd, KVM_GET_MSRS, &v->msrs);
}

static void read_xen_vcpu(int fd, struct vcpu_reading *v)
{
	static const uint16_t types[] = {
		KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO, KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO,
		KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR, KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID,
		KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR};

	for (unsigned i = 0; i < 5; i++) {
		v->xen[i].type = types[i];
		v->xen_r |= (long)!ioctl(fd, KVM_XEN_VCPU_GET_ATTR, &v->xen[i]) << i;
	}
}

static void read_vcpu(unsigned nr, struct vcpu_reading *v)
{
	int fd = round_now.vcpu[nr];

	/* First what takes pending INITs and payloads in, as in KVM. */
	v->mp_r = ioctl(fd, KVM_GET_MP_STATE, &v->mp);
	v->events_r = ioctl(fd, KVM_GET_VCPU_EVENTS, &v->events);
	v->regs_r = ioctl(fd, KVM_GET_REGS, &v->regs);
	v->sregs_r = ioctl(fd, KVM_GET_SREGS2, &v->sregs);
	v->xsave_r = ioctl(fd, KVM_GET_XSAVE, &v->xsave);
	v->xcrs_r = ioctl(fd, KVM_GET_XCRS, &v->xcrs);
	v->debug_r = ioctl(fd, KVM_GET_DEBUGREGS, &v->debug);
	v->lapic_r = ioctl(fd, KVM_GET_LAPIC, &v->lapic);
	memset(v->lapic.regs + 0x390, 0, 4); /* the current count */
	read_msrs(fd, v);
	v->cpuid.head.nent = 128;
	v->cpuid_r = ioctl(fd, KVM_GET_CPUID2, &v->cpuid);
	read_xen_vcpu(fd, v);
	((struct kvm_nested_state *)v->nested)->size = sizeof(v->nested);
	v->nested_r = ioctl(fd, KVM_GET_NESTED_STATE, v->nested);
	v->tsc_khz = ioctl(fd, KVM_GET_TSC_KHZ, 0);
	memcpy(v->run, round_now.run[nr], sizeof(v->run));
}

static void read_xen_vm(struct reading *r)
{
	static const uint16_t types[] = {KVM_XEN_ATTR_TYPE_LONG_MODE, KVM_XEN_ATTR_TYPE_SHARED_INFO,
					 KVM_XEN_ATTR_TYPE_UPCALL_VECTOR,
					 KVM_XEN_ATTR_TYPE_XEN_VERSION,
					 KVM_XEN_ATTR_TYPE_RUNSTATE_UPDATE_FLAG};

	for (unsigned i = 0; i < 5; i++) {
		r->xen[i].type = types[i];
		r->xen_r |= (long)!ioctl(round_now.vm, KVM_XEN_HVM_GET_ATTR, &r->xen[i]) << i;
	}
}

static void read_all(struct reading *r)
{
	memset(r, 0, offsetof(struct reading, arena));
	for (unsigned i = 0; i < NR_VCPUS; i++)
		read_vcpu(i, &r->vcpu[i]);
	for (unsigned i = 0; i < 3; i++) {
		r->chip[i].chip_id = i;
		r->chip_r += ioctl(round_now.vm, KVM_GET_IRQCHIP, &r->chip[i]);
	}
	r->pit_r = ioctl(round_now.vm, KVM_GET_PIT2, &r->pit);
	read_xen_vm(r);
	r->tsc_khz = ioctl(round_now.vm, KVM_GET_TSC_KHZ, 0);
	for (unsigned i = 0; i < sizeof(r->has_memory); i++) {
		struct kvm_pre_fault_memory p = {.gpa = i * PAGE_BYTES, .size = PAGE_BYTES};

		r->has_memory[i] = !ioctl(round_now.vcpu[0], KVM_PRE_FAULT_MEMORY, &p);
	}
	memcpy(r->arena, arena, ARENA);
}

/* ---- comparing ---- */

#define PART(part)                                               \
	{                                                        \
#part, offsetof(struct vcpu_reading, part),      \
			sizeof(((struct vcpu_reading *)0)->part) \
	}
#define VM_PART(part)                                                                      \
	{                                                                                  \
#part, offsetof(struct reading, part), sizeof(((struct reading *)0)->part) \
	}

struct part {
	const char *name;
	size_t at, size;
};

static const struct part vcpu_parts[] = {
	PART(regs),  PART(sregs), PART(xsave), PART(xcrs), PART(debug),	 PART(events),	PART(mp),
	PART(lapic), PART(msrs),  PART(cpuid), PART(xen),  PART(nested), PART(tsc_khz), PART(run),
};

static const struct part vm_parts[] = {
	VM_PART(chip),	  VM_PART(pit),	       VM_PART(xen),
	VM_PART(tsc_khz), VM_PART(has_memory), VM_PART(arena),
};

static void say_difference(const struct part *p, int vcpu, const uint8_t *was, const uint8_t *is)
{
	size_t i = 0;

	while (was[i] == is[i])
		i++;
	fprintf(stderr, "refusals: %s of %s %d: byte %#zx was %#x, is %#x\n", p->name,
		vcpu < 0 ? "the VM" : "vCPU", vcpu, i, was[i], is[i]);
}

static bool alike_parts(const struct part *p, unsigned nr, int vcpu, const void *was,
			const void *is, bool say)
{
	bool alike = true;

	for (; nr--; p++) {
		if (!memcmp((char *)was + p->at, (char *)is + p->at, p->size))
			continue;
		alike = false;
		if (say)
			say_difference(p, vcpu, (uint8_t *)was + p->at, (uint8_t *)is + p->at);
	}
	return alike;
}

static bool alike(const struct reading *was, const struct reading *is, bool say)
{
	bool good = !memcmp(was, is, sizeof(*was));

	if (good || !say)
		return good;
	for (int i = 0; i < NR_VCPUS; i++)
		alike_parts(vcpu_parts, sizeof(vcpu_parts) / sizeof(*vcpu_parts), i, &was->vcpu[i],
			    &is->vcpu[i], say);
	alike_parts(vm_parts, sizeof(vm_parts) / sizeof(*vm_parts), -1, was, is, say);
	return false;
}

/* ---- rounds ---- */

/* By the signal that no mask of KVM_SET_SIGNAL_MASK keeps out, again and again: one before KVM_RUN is lost. */
static void run_for_a_moment(unsigned nr)
{
	const struct itimerspec soon = {{.tv_nsec = 300000}, {.tv_nsec = 300000}}, none = {0};

	round_now.run[nr]->immediate_exit = 0;
	timer_settime(kick, 0, &soon, NULL);
	call_run(round_now.vcpu[nr]);
	timer_settime(kick, 0, &none, NULL);
}

/*
 * Where Linux's code changes what it refuses to change: the old runstate area is gone before the new one is found bad,
 * and the mode is set before the shared info page of that mode is found to be nowhere.
 */
static void forgive(const struct answer *a, const struct reading *was, struct reading *is)
{
	for (unsigned i = 0; i < NR_VCPUS && a->nr == KVM_XEN_VCPU_SET_ATTR; i++)
		if (!is->vcpu[i].xen[RUNSTATE].u.gpa) {
			is->vcpu[i].xen[RUNSTATE] = was->vcpu[i].xen[RUNSTATE];
			is->vcpu[i].xen_r = was->vcpu[i].xen_r;
		}
	if (a->nr == KVM_XEN_HVM_SET_ATTR && a->error == EFAULT)
		is->xen[LONG_MODE].u.long_mode = was->xen[LONG_MODE].u.long_mode;
}

/* The number of the first call that was refused and changed something, or -1. */
static int run_round(uint64_t seed, int stop_at)
{
	static struct reading was, is;
	static struct worker w;
	int found = -1;

	worker_init(&w, mix(seed));
	make_vm(&w);
	for (int i = 0; i < OPS_A_ROUND && found < 0 && i <= stop_at && !vm_dead(); i++) {
		struct answer a;

		if (one_in(&w.rng, 100))
			run_for_a_moment(below(&w.rng, NR_VCPUS));
		if (i == stop_at)
			usleep(TICK_US);
		read_all(&was);
		a = one_call(&w);
		if (!a.nr || a.result >= 0)
			continue;
		nr_refused++;
		read_all(&is);
		forgive(&a, &was, &is);
		if (vm_dead() || alike(&was, &is, false))
			continue;
		found = i;
		fprintf(stderr, "refusals: call %d, number %#lx of kind %u, refused with %d (%s)\n",
			i, a.nr, a.kind, a.error, strerror(a.error));
		alike(&was, &is, true);
	}
	close_all(&w);
	end_vm();
	return found;
}

static void checked_round(uint64_t seed)
{
	int found, again;

	round_seed = seed;
	found = run_round(seed, OPS_A_ROUND);
	if (found < 0)
		return;
	for (unsigned i = 0; i < REPEATS; i++) {
		again = run_round(seed, found);
		if (again != found) {
			nr_noise++;
			return;
		}
	}
	fuzz_fail("a refused call changed something");
}

static void nothing(int sig)
{
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 10, end = fuzz_now() + seconds;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	unsigned wanted = argc > 3 ? atoi(argv[3]) : 0, rounds = 0;
	struct sigaction action = {.sa_handler = nothing};
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};

	sigaction(SIGUSR1, &action, NULL);
	CHECK_EQ(timer_create(CLOCK_MONOTONIC, &event, &kick), 0);
	fuzz_prepare();
	find_msrs();
	do
		checked_round(seed + rounds++);
	while (rounds < wanted || fuzz_now() < end);
	fprintf(stderr,
		"refusals: %u rounds, %u refused calls compared, %u differences not repeated\n",
		rounds, nr_refused, nr_noise);
	return 0;
}
