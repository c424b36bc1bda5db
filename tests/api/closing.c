/* SPDX-License-Identifier: MIT */
/*
 * Everything of a VM is closed and unmapped in random order, by several threads, while its vCPUs run and others make
 * ioctls: closing [ROUNDS [SEED]]. KVM_RUN goes on, as in KVM, whose files live as long as a call is in them; in the end no
 * thread, file or mapping is left.
 */
#include "usage.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>

#define NR_CPUS	   3
#define NR_CLOSERS 2
#define MAX_THINGS 32
#define WARM	   10
#define SLACK	   40 /* mappings that come and go: the allocator's, threads' */
#define PORT	   0x300

enum thing_kind { A_FILE, A_MAPPING };

struct thing {
	enum thing_kind kind;
	int fd;
	void *at;
	size_t size;
};

struct stand {
	struct machine m;
	int vcpu[NR_CPUS];
	pthread_t thread[NR_CPUS], other[2], closer[NR_CLOSERS];
	unsigned running, stop;
	int irqfd, ioeventfd;
	struct thing thing[MAX_THINGS];
	unsigned nr_things, next;
	uint64_t seed;
};

static uint64_t rnd(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 33;
}

/* ---- who uses it ---- */

struct runner {
	struct stand *s;
	int vcpu;
};

/* A number that was closed may be another file's by now. */
static bool gone(void)
{
	return errno == EBADF || errno == ENOTTY;
}

/* The first error ends the thread. */
static void *run(void *opaque)
{
	struct runner *r = opaque;
	long ret = 0;

	while (!__atomic_load_n(&r->s->stop, __ATOMIC_SEQ_CST) && !ret)
		ret = ioctl(r->vcpu, KVM_RUN, 0);
	CHECK(!ret || errno == EINTR || errno == EFAULT || gone());
	__atomic_fetch_sub(&r->s->running, 1, __ATOMIC_SEQ_CST);
	free(r);
	return NULL;
}

/* Ioctls on the VM, until it is closed. */
static void *call(void *opaque)
{
	struct stand *s = opaque;
	struct kvm_msi msi = {.address_lo = 0xfee00000, .data = 0x30};
	struct kvm_irq_level line = {.irq = 4};
	long ret = 0;

	while (!__atomic_load_n(&s->stop, __ATOMIC_SEQ_CST) && ret >= 0) {
		line.level ^= 1;
		ret = ioctl(s->m.vm, KVM_SIGNAL_MSI, &msi);
		if (ret >= 0)
			ret = ioctl(s->m.vm, KVM_IRQ_LINE, &line);
		if (ret >= 0)
			ret = set_region(s->m.vm, 1, 0, 0x100000, line.level ? 4096 : 0, s->m.ram);
	}
	CHECK(ret >= 0 || gone());
	return NULL;
}

static void *signal_irqfd(void *opaque)
{
	struct stand *s = opaque;
	uint64_t one = 1;

	while (!__atomic_load_n(&s->stop, __ATOMIC_SEQ_CST) && write(s->irqfd, &one, 8) == 8)
		sched_yield();
	return NULL;
}

/* ---- who takes it away ---- */

static void add_fd(struct stand *s, int fd)
{
	CHECK(fd >= 0);
	CHECK(s->nr_things < MAX_THINGS);
	s->thing[s->nr_things++] = (struct thing){.kind = A_FILE, .fd = fd};
}

static void add_mapping(struct stand *s, void *at, size_t size)
{
	CHECK(s->nr_things < MAX_THINGS);
	s->thing[s->nr_things++] = (struct thing){.kind = A_MAPPING, .at = at, .size = size};
}

static void shuffle(struct stand *s)
{
	for (unsigned i = s->nr_things; i > 1; i--) {
		unsigned j = rnd(&s->seed) % i;
		struct thing t = s->thing[i - 1];

		s->thing[i - 1] = s->thing[j];
		s->thing[j] = t;
	}
}

static void *take_away(void *opaque)
{
	struct stand *s = opaque;
	unsigned i;

	while ((i = __atomic_fetch_add(&s->next, 1, __ATOMIC_SEQ_CST)) < s->nr_things) {
		struct thing *t = &s->thing[i];

		if (i % 4 == 3)
			usleep(i * 20);
		if (t->kind == A_FILE)
			CHECK_EQ(close(t->fd), 0);
		else
			CHECK_EQ(munmap(t->at, t->size), 0);
	}
	return NULL;
}

/* ---- a round ---- */

/* out %al, $0x300 in a loop; sti, hlt in a loop; the third exits to user space all the time. */
static const uint8_t codes[NR_CPUS][8] = {
	{0xba, 0x00, 0x03, 0xee, 0xeb, 0xfd},
	{0xfb, 0xf4, 0xeb, 0xfc},
	{0xe6, 0x80, 0xeb, 0xfc},
};

static void add_vcpu(struct stand *s, unsigned i)
{
	struct kvm_mp_state running = {.mp_state = KVM_MP_STATE_RUNNABLE};
	struct kvm_regs regs = {.rip = 0x1000 * (i + 1), .rsp = 0x7000 + 0x100 * i, .rflags = 2};
	struct kvm_sregs sregs;
	int stats;

	s->vcpu[i] = ioctl(s->m.vm, KVM_CREATE_VCPU, i);
	CHECK(s->vcpu[i] >= 0);
	memcpy(s->m.ram + 0x1000 * (i + 1), codes[i], sizeof(codes[i]));
	CHECK_EQ(ioctl(s->vcpu[i], KVM_GET_SREGS, &sregs), 0);
	sregs.cs.base = sregs.cs.selector = 0;
	CHECK_EQ(ioctl(s->vcpu[i], KVM_SET_SREGS, &sregs), 0);
	CHECK_EQ(ioctl(s->vcpu[i], KVM_SET_REGS, &regs), 0);
	CHECK_EQ(ioctl(s->vcpu[i], KVM_SET_MP_STATE, &running), 0);
	add_mapping(s, map_run(s->m.kvm, s->vcpu[i]), ioctl(s->m.kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
	add_fd(s, s->vcpu[i]);
	stats = ioctl(s->vcpu[i], KVM_GET_STATS_FD, 0);
	add_fd(s, stats);
	if (rnd(&s->seed) % 2)
		add_fd(s, dup(s->vcpu[i]));
}

static void add_eventfds(struct stand *s)
{
	struct kvm_irqfd irq = {.gsi = 5};
	struct kvm_ioeventfd io = {.addr = PORT, .len = 1, .flags = KVM_IOEVENTFD_FLAG_PIO};

	irq.fd = s->irqfd = eventfd(0, EFD_NONBLOCK);
	io.fd = s->ioeventfd = eventfd(0, EFD_NONBLOCK);
	CHECK_EQ(ioctl(s->m.vm, KVM_IRQFD, &irq), 0);
	CHECK_EQ(ioctl(s->m.vm, KVM_IOEVENTFD, &io), 0);
	add_fd(s, io.fd);
}

static void open_stand(struct stand *s)
{
	s->m = machine_open();
	CHECK_EQ(ioctl(s->m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	for (unsigned i = 0; i < NR_CPUS; i++)
		add_vcpu(s, i);
	add_eventfds(s);
	add_fd(s, s->m.vm);
	add_fd(s, s->m.kvm);
	add_fd(s, ioctl(s->m.vm, KVM_GET_STATS_FD, 0));
	if (rnd(&s->seed) % 2)
		add_fd(s, dup(s->m.vm));
	/* The guest's own memory goes in some rounds, too: EFAULT, as in KVM. */
	if (rnd(&s->seed) % 4 == 0)
		add_mapping(s, s->m.ram, RAM_SIZE);
}

static bool ram_listed(const struct stand *s)
{
	for (unsigned i = 0; i < s->nr_things; i++)
		if (s->thing[i].at == s->m.ram)
			return true;
	return false;
}

static void start(struct stand *s)
{
	s->running = NR_CPUS;
	for (unsigned i = 0; i < NR_CPUS; i++) {
		struct runner *r = malloc(sizeof(*r));

		*r = (struct runner){.s = s, .vcpu = s->vcpu[i]};
		CHECK_EQ(pthread_create(&s->thread[i], NULL, run, r), 0);
	}
	CHECK_EQ(pthread_create(&s->other[0], NULL, call, s), 0);
	CHECK_EQ(pthread_create(&s->other[1], NULL, signal_irqfd, s), 0);
	usleep(rnd(&s->seed) % 2000);
	for (unsigned i = 0; i < NR_CLOSERS; i++)
		CHECK_EQ(pthread_create(&s->closer[i], NULL, take_away, s), 0);
}

/* A signal that comes before its thread is in KVM_RUN does nothing: send more. */
static void join(struct stand *s)
{
	for (unsigned i = 0; i < NR_CLOSERS; i++)
		CHECK_EQ(pthread_join(s->closer[i], NULL), 0);
	__atomic_store_n(&s->stop, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&s->running, __ATOMIC_SEQ_CST)) {
		for (unsigned i = 0; i < NR_CPUS; i++)
			pthread_kill(s->thread[i], SIGUSR1);
		usleep(200);
	}
	for (unsigned i = 0; i < NR_CPUS; i++)
		CHECK_EQ(pthread_join(s->thread[i], NULL), 0);
	for (unsigned i = 0; i < 2; i++)
		CHECK_EQ(pthread_join(s->other[i], NULL), 0);
}

static void one_round(uint64_t seed)
{
	struct stand s = {.seed = seed};
	bool has_ram;

	open_stand(&s);
	has_ram = !ram_listed(&s);
	shuffle(&s);
	start(&s);
	join(&s);
	close(s.irqfd);
	if (has_ram)
		munmap(s.m.ram, RAM_SIZE);
}

/* The last fd is a duplicate that no ioctl was ever made on: what stood before the VM is there again once it is closed. */
static void test_duplicate_last(void)
{
	unsigned fds = count_fds(), threads = count_threads();
	struct machine m = machine_open();
	int copy = dup(m.vm);

	MACHINE_CODE(&m, 0xf4);
	munmap(m.run, ioctl(m.kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
	close(m.kvm);
	close(m.vm);
	close(m.vcpu);
	CHECK_EQ(count_threads(), threads + 1);
	close(copy);
	CHECK_EQ(count_fds(), fds);
	CHECK_EQ(count_threads(), threads);
}

static void nothing(int signo)
{
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 1 ? atoi(argv[1]) : 150, fds = 0, threads = 0, maps = 0;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	struct sigaction act = {.sa_handler = nothing};

	sigaction(SIGUSR1, &act, NULL);
	one_round(seed); /* libraries make threads at their first use, too */
	test_duplicate_last();
	for (unsigned i = 0; i < rounds; i++) {
		one_round(seed + i);
		if (i != WARM)
			continue;
		fds = count_fds();
		threads = count_threads();
		maps = count_maps();
	}
	CHECK_EQ(count_fds(), fds);
	CHECK_EQ(count_threads(), threads);
	CHECK(count_maps() <= maps + SLACK);
	return 0;
}
