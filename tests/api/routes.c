/* SPDX-License-Identifier: MIT */
/*
 * Routes of interrupts that change while irqfds are signalled and guests count (KVM api.rst: KVM_IRQFD,
 * KVM_SET_GSI_ROUTING). Nothing is lost and nothing comes by a route that is no more: what was written to an eventfd before
 * goes where the routes of then lead, for KVM delivers within the write.
 *	routes [SEED]
 */
#include "api_test.h"

#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <time.h>

#define NR_CPUS	    2
#define NR_LINES    8
#define FIRST_GSI   24
#define NOISE_GSI   100
#define NR_NOISE    64
#define VECTOR	    0x40 /* of line 0 and so on; with OTHER added on its second route */
#define OTHER	    0x10
#define APIC	    0xfee00000u
#define COUNTERS    0x8000
#define HANDLERS    0x2000
#define SIGNALS	    1500
#define REDIRECTED  400
#define RESAMPLED   200
#define LIMIT_S	    30
#define IOAPIC_LINE 20
#define LEVEL	    (1u << 15)

struct stand {
	struct machine m;
	int vcpu[NR_CPUS];
	struct kvm_run *run[NR_CPUS];
	pthread_t thread[NR_CPUS];
	int line[NR_LINES], resample;
	uint32_t data[NR_LINES]; /* of each line's message */
	bool stop, noise_stop;
	unsigned changes;
};

static uint64_t seed = 1;

static unsigned rnd(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 33;
}

static uint32_t *counter(struct stand *s, unsigned vector)
{
	return (uint32_t *)(s->m.ram + COUNTERS) + vector;
}

static uint32_t count_of(struct stand *s, unsigned vector)
{
	return __atomic_load_n(counter(s, vector), __ATOMIC_SEQ_CST);
}

/* ---- guests: sti; hlt; jmp. A handler counts, says EOI (its ES is the local APIC's page) and returns. ---- */

static void write_handlers(struct stand *s)
{
	static const uint8_t eoi[] = {0x26, 0x66, 0xc7, 0x06, 0xb0, 0, 0, 0, 0, 0, 0xcf};

	for (unsigned v = 0x20; v < 0x100; v++) {
		uint8_t *h = s->m.ram + HANDLERS + 32 * v;
		uint16_t at = COUNTERS + 4 * v, entry = HANDLERS + 32 * v;

		memcpy(h, "\xf0\x66\xff\x06", 4); /* lock incl [at] */
		memcpy(h + 4, &at, 2);
		memcpy(h + 6, eoi, sizeof(eoi));
		memset(s->m.ram + 4 * v, 0, 4);
		memcpy(s->m.ram + 4 * v, &entry, 2);
	}
}

static void set_cpu(struct stand *s, unsigned i)
{
	struct kvm_regs regs = {.rip = CODE_GPA, .rsp = 0x7000 + 0x400 * i, .rflags = 2};
	struct kvm_mp_state running = {.mp_state = KVM_MP_STATE_RUNNABLE};
	struct kvm_lapic_state apic;
	struct kvm_sregs sregs;

	CHECK_EQ(ioctl(s->vcpu[i], KVM_GET_SREGS, &sregs), 0);
	sregs.cs.base = sregs.cs.selector = 0;
	sregs.es.base = APIC;
	CHECK_EQ(ioctl(s->vcpu[i], KVM_SET_SREGS, &sregs), 0);
	CHECK_EQ(ioctl(s->vcpu[i], KVM_SET_REGS, &regs), 0);
	CHECK_EQ(ioctl(s->vcpu[i], KVM_SET_MP_STATE, &running), 0);
	CHECK_EQ(ioctl(s->vcpu[i], KVM_GET_LAPIC, &apic), 0);
	*(uint32_t *)(apic.regs + 0xf0) = 0x1ff;
	CHECK_EQ(ioctl(s->vcpu[i], KVM_SET_LAPIC, &apic), 0);
}

static void *run(void *opaque)
{
	int vcpu = *(int *)opaque;

	while (!ioctl(vcpu, KVM_RUN, 0))
		;
	return NULL;
}

static struct stand *stand_open(void)
{
	struct stand *s = calloc(1, sizeof(*s));
	static const uint8_t code[] = {0xfb, 0xf4, 0xeb, 0xfc};

	s->m = machine_open();
	CHECK_EQ(ioctl(s->m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	write_handlers(s);
	memcpy(s->m.ram + CODE_GPA, code, sizeof(code));
	for (unsigned i = 0; i < NR_CPUS; i++) {
		s->vcpu[i] = ioctl(s->m.vm, KVM_CREATE_VCPU, i);
		CHECK(s->vcpu[i] >= 0);
		s->run[i] = map_run(s->m.kvm, s->vcpu[i]);
		set_cpu(s, i);
	}
	for (unsigned i = 0; i < NR_LINES; i++) {
		struct kvm_irqfd arg = {.fd = eventfd(0, EFD_NONBLOCK), .gsi = FIRST_GSI + i};

		s->line[i] = arg.fd;
		s->data[i] = VECTOR + i;
		CHECK_EQ(ioctl(s->m.vm, KVM_IRQFD, &arg), 0);
	}
	return s;
}

static void start(struct stand *s)
{
	for (unsigned i = 0; i < NR_CPUS; i++)
		CHECK_EQ(pthread_create(&s->thread[i], NULL, run, &s->vcpu[i]), 0);
}

/* Vector 30h's handler never returns to HLT, but leaves: out %al, $0x80. */
static void stand_close(struct stand *s)
{
	memcpy(s->m.ram + HANDLERS + 32 * 0x30, "\xe6\x80\xf4", 3);
	for (unsigned i = 0; i < NR_CPUS; i++) {
		struct kvm_msi msi = {.address_lo = APIC | i << 12, .data = 0x30};

		if (!s->thread[i])
			continue;
		s->run[i]->immediate_exit = 1;
		CHECK_EQ(ioctl(s->m.vm, KVM_SIGNAL_MSI, &msi), 1);
		CHECK_EQ(pthread_join(s->thread[i], NULL), 0);
	}
	for (unsigned i = 0; i < NR_CPUS; i++)
		close(s->vcpu[i]);
	for (unsigned i = 0; i < NR_LINES; i++)
		close(s->line[i]);
	close(s->m.vm);
	close(s->m.kvm);
	free(s);
}

/* ---- routes ---- */

static struct kvm_irq_routing_entry message(uint32_t gsi, unsigned cpu, uint32_t data)
{
	return (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_MSI,
		.u.msi = {.address_lo = APIC | cpu << 12, .data = data},
	};
}

/* The lines' routes, then what nobody signals, at random. */
static void set_routes(struct stand *s, uint64_t *state)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry v[NR_LINES + 1 + NR_NOISE];
	} table = {0};
	unsigned n = 0;

	for (unsigned i = 0; i < NR_LINES; i++)
		table.v[n++] = message(FIRST_GSI + i, i % NR_CPUS,
				       __atomic_load_n(&s->data[i], __ATOMIC_SEQ_CST));
	table.v[n++] = (struct kvm_irq_routing_entry){
		.gsi = IOAPIC_LINE,
		.type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = {.irqchip = KVM_IRQCHIP_IOAPIC, .pin = IOAPIC_LINE},
	};
	for (unsigned i = 0; i < NR_NOISE; i++)
		if (rnd(state) % 2)
			table.v[n++] = message(NOISE_GSI + i, rnd(state) % NR_CPUS,
					       0xa0 + rnd(state) % 0x40);
	table.head.nr = n;
	CHECK_EQ(ioctl(s->m.vm, KVM_SET_GSI_ROUTING, &table), 0);
}

static void *change_routes(void *opaque)
{
	struct stand *s = opaque;
	uint64_t state = seed;

	while (!__atomic_load_n(&s->noise_stop, __ATOMIC_SEQ_CST)) {
		set_routes(s, &state);
		__atomic_fetch_add(&s->changes, 1, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

static void signal_line(struct stand *s, unsigned line)
{
	uint64_t one = 1;

	CHECK_EQ(write(s->line[line], &one, 8), 8);
}

static void await(struct stand *s, unsigned vector, uint32_t val)
{
	time_t end = time(NULL) + LIMIT_S;

	while (count_of(s, vector) != val) {
		CHECK(time(NULL) < end);
		sched_yield();
	}
}

struct signaller {
	struct stand *s;
	unsigned first; /* line; every other is its own */
	unsigned sent[NR_LINES];
	uint64_t state;
	pthread_t thread;
};

/* One at a time on a line, for those that come together are one. */
static void *signal_lines(void *opaque)
{
	struct signaller *g = opaque;

	for (unsigned n = 0; n < SIGNALS; n++) {
		unsigned line = rnd(&g->state) % (NR_LINES / 2) * 2 + g->first;

		signal_line(g->s, line);
		await(g->s, VECTOR + line, ++g->sent[line]);
	}
	return NULL;
}

/* Routes of other lines change all the time: each signal comes once, on its own vector. */
static void test_under_load(void)
{
	struct stand *s = stand_open();
	struct signaller g[2];
	uint64_t state = seed;
	pthread_t noise;

	set_routes(s, &state);
	start(s);
	CHECK_EQ(pthread_create(&noise, NULL, change_routes, s), 0);
	for (unsigned i = 0; i < 2; i++) {
		g[i] = (struct signaller){.s = s, .first = i, .state = seed + i};
		CHECK_EQ(pthread_create(&g[i].thread, NULL, signal_lines, &g[i]), 0);
	}
	for (unsigned i = 0; i < 2; i++)
		CHECK_EQ(pthread_join(g[i].thread, NULL), 0);
	__atomic_store_n(&s->noise_stop, true, __ATOMIC_SEQ_CST);
	CHECK_EQ(pthread_join(noise, NULL), 0);
	CHECK(s->changes > 10);
	for (unsigned v = 0x20; v < 0x100; v++) {
		bool line = v >= VECTOR && v < VECTOR + NR_LINES;

		CHECK_EQ(count_of(s, v), line ? g[v % 2].sent[v - VECTOR] : 0);
	}
	stand_close(s);
}

/* What was signalled before a route changed has gone by the old one, what is after goes by the new. */
static void test_redirected(void)
{
	struct stand *s = stand_open();
	unsigned sent[0x100] = {0};
	uint64_t state = seed;

	set_routes(s, &state);
	start(s);
	for (unsigned n = 0; n < REDIRECTED; n++) {
		unsigned line = rnd(&state) % NR_LINES, vector = s->data[line];

		signal_line(s, line);
		s->data[line] ^= OTHER;
		set_routes(s, &state);
		await(s, vector, ++sent[vector]);
		if (rnd(&state) % 2)
			continue;
		vector = s->data[line];
		signal_line(s, line);
		await(s, vector, ++sent[vector]);
	}
	for (unsigned v = 0x20; v < 0x100; v++)
		CHECK_EQ(count_of(s, v), sent[v]);
	stand_close(s);
}

static bool requested(int vcpu, unsigned vector)
{
	struct kvm_lapic_state apic;

	CHECK_EQ(ioctl(vcpu, KVM_GET_LAPIC, &apic), 0);
	return apic.regs[0x200 + vector / 32 * 16 + vector % 32 / 8] & 1 << vector % 8;
}

/* State that is read behind the write has the interrupt; so has a VM whose irqfd went in between. */
static void test_seen_at_once(void)
{
	struct stand *s = stand_open();
	struct kvm_irqfd arg = {
		.fd = s->line[1], .gsi = FIRST_GSI + 1, .flags = KVM_IRQFD_FLAG_DEASSIGN};
	uint64_t state = seed, n;

	set_routes(s, &state);
	CHECK(!requested(s->vcpu[0], VECTOR));
	signal_line(s, 0);
	CHECK(requested(s->vcpu[0], VECTOR));
	signal_line(s, 1);
	CHECK_EQ(ioctl(s->m.vm, KVM_IRQFD, &arg), 0);
	CHECK_ERR(read(arg.fd, &n, 8), EAGAIN);
	CHECK(requested(s->vcpu[1], VECTOR + 1));
	/* A signal from before the irqfd was there counts, too. */
	arg.flags = 0;
	arg.gsi = FIRST_GSI + 3;
	signal_line(s, 1);
	CHECK(!requested(s->vcpu[1], VECTOR + 3));
	CHECK_EQ(ioctl(s->m.vm, KVM_IRQFD, &arg), 0);
	CHECK(requested(s->vcpu[1], VECTOR + 3));
	stand_close(s);
}

/* ---- resampling ---- */

static void set_pin(struct stand *s, uint64_t redirection)
{
	struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};

	CHECK_EQ(ioctl(s->m.vm, KVM_GET_IRQCHIP, &chip), 0);
	chip.chip.ioapic.redirtbl[IOAPIC_LINE].bits = redirection;
	CHECK_EQ(ioctl(s->m.vm, KVM_SET_IRQCHIP, &chip), 0);
}

static void await_resample(int fd)
{
	time_t end = time(NULL) + LIMIT_S;
	uint64_t n = 0;

	while (read(fd, &n, 8) != 8) {
		CHECK(time(NULL) < end);
		sched_yield();
	}
	CHECK_EQ(n, 1);
}

/* Each signal holds the line until the guest's EOI: one interrupt, one word on each resamplefd of the line. */
static void test_resample(void)
{
	struct stand *s = stand_open();
	struct kvm_irqfd arg = {.gsi = IOAPIC_LINE, .flags = KVM_IRQFD_FLAG_RESAMPLE};
	int fd[2], back[2];
	uint64_t state = seed, one = 1;

	set_routes(s, &state);
	set_pin(s, LEVEL | 0x60);
	for (unsigned i = 0; i < 2; i++) {
		arg.fd = fd[i] = eventfd(0, EFD_NONBLOCK);
		arg.resamplefd = back[i] = eventfd(0, EFD_NONBLOCK);
		CHECK_EQ(ioctl(s->m.vm, KVM_IRQFD, &arg), 0);
	}
	CHECK_ERR(ioctl(s->m.vm, KVM_IRQFD, &arg), EBUSY);
	start(s);
	for (unsigned n = 1; n <= RESAMPLED; n++) {
		CHECK_EQ(write(fd[n % 2], &one, 8), 8);
		await(s, 0x60, n);
		await_resample(back[0]);
		await_resample(back[1]);
	}
	CHECK_EQ(count_of(s, 0x60), RESAMPLED);
	stand_close(s);
}

/* A device that has not been served signals again from its resamplefd: the line comes up again. */
static void test_resample_again(void)
{
	struct stand *s = stand_open();
	struct kvm_irqfd arg = {.gsi = IOAPIC_LINE, .flags = KVM_IRQFD_FLAG_RESAMPLE};
	uint64_t state = seed, one = 1;

	set_routes(s, &state);
	set_pin(s, LEVEL | 0x60);
	arg.fd = eventfd(0, EFD_NONBLOCK);
	arg.resamplefd = eventfd(0, EFD_NONBLOCK);
	CHECK_EQ(ioctl(s->m.vm, KVM_IRQFD, &arg), 0);
	start(s);
	CHECK_EQ(write(arg.fd, &one, 8), 8);
	for (unsigned n = 1; n < RESAMPLED; n++) {
		await_resample(arg.resamplefd);
		CHECK_EQ(write(arg.fd, &one, 8), 8);
	}
	await_resample(arg.resamplefd);
	CHECK_EQ(count_of(s, 0x60), RESAMPLED);
	/* Gone with its irqfd is the line that it holds. */
	set_pin(s, 1u << 16 | LEVEL | 0x60);
	CHECK_EQ(write(arg.fd, &one, 8), 8);
	arg.flags = KVM_IRQFD_FLAG_DEASSIGN;
	CHECK_EQ(ioctl(s->m.vm, KVM_IRQFD, &arg), 0);
	set_pin(s, LEVEL | 0x60);
	usleep(20000);
	CHECK_EQ(count_of(s, 0x60), RESAMPLED);
	stand_close(s);
}

static void test_refused(void)
{
	struct stand *s = stand_open();
	struct kvm_irqfd arg = {.fd = eventfd(0, 0), .gsi = 5, .flags = KVM_IRQFD_FLAG_RESAMPLE};
	struct machine split = machine_open();

	arg.resamplefd = -1;
	CHECK_ERR(ioctl(s->m.vm, KVM_IRQFD, &arg), EBADF);
	arg.resamplefd = s->m.vm;
	CHECK_ERR(ioctl(s->m.vm, KVM_IRQFD, &arg), EINVAL);
	arg.resamplefd = eventfd(0, 0);
	CHECK_EQ(enable_cap(split.vm, KVM_CAP_SPLIT_IRQCHIP, 24), 0);
	CHECK_ERR(ioctl(split.vm, KVM_IRQFD, &arg), EINVAL);
	CHECK_EQ(ioctl(s->m.vm, KVM_IRQFD, &arg), 0);
	/* Deassigning looks at the eventfd and the GSI: there need be none. */
	arg.flags = KVM_IRQFD_FLAG_DEASSIGN;
	arg.gsi = 6;
	CHECK_EQ(ioctl(s->m.vm, KVM_IRQFD, &arg), 0);
	arg.fd = -1;
	CHECK_ERR(ioctl(s->m.vm, KVM_IRQFD, &arg), EBADF);
	stand_close(s);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		seed = strtoull(argv[1], NULL, 0);
	test_seen_at_once();
	test_refused();
	test_redirected();
	test_under_load();
	test_resample();
	test_resample_again();
	return 0;
}
