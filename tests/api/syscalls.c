/* SPDX-License-Identifier: MIT */
/*
 * docs/seccomp.md is true: a program that allows itself only what the page lists, once KVM_RUN has come back first, and is
 * ended at any other system call, goes on with its guests. (strace shows which call it was.)
 *	syscalls PAGE
 * Its own calls are of the list, too. The rows for watching and for ends are not needed here.
 */
#include "api_test.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

struct name {
	const char *name;
	int number;
};

#define NAME(name)                \
	{                         \
#name, SYS_##name \
	}

/* Names that the page may have. */
static const struct name names[] = {
	NAME(fstat),
	NAME(rt_sigprocmask),
	NAME(gettid),
	NAME(futex),
	NAME(timerfd_settime),
	NAME(write),
	NAME(madvise),
	NAME(arch_prctl),
	NAME(openat),
	NAME(fcntl),
	NAME(prlimit64),
	NAME(pread64),
	NAME(close),
	NAME(sched_yield),
	NAME(clock_gettime),
	NAME(rt_tgsigqueueinfo),
	NAME(getpid),
	NAME(getuid),
	NAME(rt_sigreturn),
	NAME(sigaltstack),
	NAME(mmap),
	NAME(mprotect),
	NAME(munmap),
	NAME(rt_sigaction),
	NAME(epoll_wait),
	NAME(read),
	NAME(getdents64),
	NAME(newfstatat),
	NAME(readlink),
	NAME(memfd_create),
	NAME(ftruncate),
	NAME(clone3),
	NAME(epoll_create1),
	NAME(epoll_ctl),
	NAME(eventfd2),
	NAME(timerfd_create),
	NAME(brk),
	NAME(lseek),
	NAME(preadv2),
	NAME(ioctl),
	NAME(clone),
	NAME(rseq),
	NAME(set_robust_list),
	NAME(exit),
	NAME(exit_group),
	NAME(tgkill),
	NAME(clock_nanosleep),
	NAME(prctl),
	NAME(sched_getaffinity),
};

#define NR_NAMES (sizeof(names) / sizeof(names[0]))

/* The program's own: making threads and ending them, signals to itself, and time to let pass. */
static const char *const own[] = {"ioctl",	     "clone3", "clone",	     "rseq",
				  "set_robust_list", "exit",   "exit_group", "tgkill",
				  "clock_nanosleep", "prctl"};

static bool allowed[NR_NAMES];

static void allow(const char *name, size_t length)
{
	for (unsigned i = 0; i < NR_NAMES; i++)
		if (strlen(names[i].name) == length && !memcmp(names[i].name, name, length))
			allowed[i] = true;
}

/* Every `word` of a table row's second column. */
static void read_page(const char *path)
{
	FILE *page = fopen(path, "re");
	char line[1024];
	unsigned n = 0;

	CHECK(page);
	while (fgets(line, sizeof(line), page)) {
		char *at = line[0] == '|' ? strchr(line + 1, '|') : NULL;

		while (at && (at = strchr(at, '`'))) {
			size_t length = strcspn(++at, "`");

			allow(at, length);
			at += length + 1;
		}
	}
	fclose(page);
	for (unsigned i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		allow(own[i], strlen(own[i]));
	for (unsigned i = 0; i < NR_NAMES; i++)
		n += allowed[i];
	CHECK(n > 30);
}

static void lock_up(void)
{
	struct sock_filter f[NR_NAMES * 2 + 8];
	struct sock_fprog program = {.filter = f};
	unsigned n = 0;

	f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
					      offsetof(struct seccomp_data, nr));
	for (unsigned i = 0; i < NR_NAMES; i++) {
		if (!allowed[i])
			continue;
		f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, names[i].number, 0,
						      1);
		f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	program.len = n;
	CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	/* All threads: the service thread, too. */
	CHECK_EQ(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program),
		 0);
}

/* ---- what a program does after its first KVM_RUN ---- */

static void *run_once(void *opaque)
{
	struct machine *m = opaque;

	CHECK_EQ(ioctl(m->vcpu, KVM_RUN, 0), 0);
	return NULL;
}

static void in_thread(struct machine *m)
{
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, run_once, m), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
}

static void eventfds(struct machine *m)
{
	struct kvm_ioeventfd io = {.addr = 0x300, .len = 1, .flags = KVM_IOEVENTFD_FLAG_PIO};
	struct kvm_irqfd irq = {.gsi = 5, .fd = eventfd(0, EFD_NONBLOCK)};
	uint64_t one = 1;

	io.fd = eventfd(0, EFD_NONBLOCK);
	CHECK_EQ(ioctl(m->vm, KVM_IOEVENTFD, &io), 0);
	CHECK_EQ(ioctl(m->vm, KVM_IRQFD, &irq), 0);
	CHECK_EQ(write(irq.fd, &one, 8), 8);
	usleep(2000);
	irq.flags = KVM_IRQFD_FLAG_DEASSIGN;
	CHECK_EQ(ioctl(m->vm, KVM_IRQFD, &irq), 0);
	close(irq.fd);
}

static void nothing(int signo)
{
}

static void *kick(void *opaque)
{
	usleep(20000);
	pthread_kill(*(pthread_t *)opaque, SIGUSR1);
	return NULL;
}

/* A signal ends KVM_RUN in HLT; the mask is set anew. */
static void signals(struct machine *m)
{
	struct {
		struct kvm_signal_mask head;
		uint64_t mask;
	} mask = {.head.len = 8};
	pthread_t self = pthread_self(), thread;
	struct sigaction act = {.sa_handler = nothing};

	sigaction(SIGUSR1, &act, NULL);
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_SIGNAL_MASK, &mask), 0);
	CHECK_EQ(pthread_create(&thread, NULL, kick, &self), 0);
	CHECK_ERR(ioctl(m->vcpu, KVM_RUN, 0), EINTR);
	CHECK_EQ(pthread_join(thread, NULL), 0);
}

static void memory(struct machine *m)
{
	uint8_t *more = map_ram(1 << 20);
	struct kvm_dirty_log log = {.slot = 1, .dirty_bitmap = calloc(1, 64)};

	CHECK_EQ(set_region(m->vm, 1, KVM_MEM_LOG_DIRTY_PAGES, 0x100000, 1 << 20, more), 0);
	CHECK_EQ(ioctl(m->vm, KVM_GET_DIRTY_LOG, &log), 0);
	CHECK_EQ(set_region(m->vm, 1, 0, 0x100000, 0, more), 0);
	munmap(more, 1 << 20);
	free(log.dirty_bitmap);
}

/* Enough of a loop to be translated. dec %ecx, jnz, hlt. */
#define LOOP                                                                                      \
	0x66, 0xb9, 0x40, 0x42, 0x0f, 0x00, 0x66, 0x49, 0x75, 0xfc, 0xee, 0xe6, 0x80, 0xf4, 0xeb, \
		0xfd

static void another_vm(bool irqchip)
{
	struct machine m = machine_open();

	if (irqchip)
		CHECK_EQ(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	MACHINE_CODE(&m, LOOP);
	RUN_TO(&m, KVM_EXIT_IO);
	munmap(m.run, ioctl(m.kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
	munmap(m.ram, RAM_SIZE);
	close(m.vcpu);
	close(m.vm);
	close(m.kvm);
}

static void run_on(struct machine *m)
{
	struct kvm_mp_state running = {.mp_state = KVM_MP_STATE_RUNNABLE};
	struct kvm_regs regs;

	machine_start(m);
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_MP_STATE, &running), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_REGS, &regs), 0);
	regs.rdx = 0x300;
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_REGS, &regs), 0);
}

#define MSR_STEAL_TIME 0x4b564d03
#define STEAL_TIME     0x3001 /* enabled */

/*
 * The guest has its steal time told.
 *	mov $MSR_STEAL_TIME, %ecx; mov $STEAL_TIME, %eax; xor %edx, %edx; wrmsr; out %al, $0x80; out %al, $0x81; hlt
 */
static void steal_time(struct machine *m)
{
	static const uint8_t code[] = {0x66, 0xb9, 0x03, 0x4d, 0x56, 0x4b, 0x66, 0xb8,
				       0x01, 0x30, 0x00, 0x00, 0x66, 0x31, 0xd2, 0x0f,
				       0x30, 0xe6, 0x80, 0xe6, 0x81, 0xf4};

	if (!ioctl(m->kvm, KVM_CHECK_EXTENSION, KVM_CAP_STEAL_TIME))
		return;
	memcpy(m->ram + CODE_GPA, code, sizeof(code));
	run_on(m);
	RUN_TO(m, KVM_EXIT_IO);
	CHECK_EQ(m->run->io.port, 0x80);
	RUN_TO(m, KVM_EXIT_IO);
	CHECK_EQ(m->run->io.port, 0x81);
	CHECK_EQ(msr_get(m->vcpu, MSR_STEAL_TIME), STEAL_TIME);
}

/* What a program asks that is about to make another VM. */
static void questions(struct machine *m)
{
	struct cpuid_list c;

	for (unsigned cap = 0; cap < 300; cap++) {
		CHECK(ioctl(m->kvm, KVM_CHECK_EXTENSION, cap) >= 0);
		CHECK(ioctl(m->vm, KVM_CHECK_EXTENSION, cap) >= 0);
	}
	get_supported_cpuid(m->kvm, &c);
}

int main(int argc, char **argv)
{
	struct machine m = machine_open();

	CHECK_EQ(argc, 2);
	read_page(argv[1]);
	CHECK_EQ(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	MACHINE_CODE(&m, LOOP);
	RUN_TO(&m, KVM_EXIT_IO);
	lock_up();
	run_on(&m);
	eventfds(&m);
	RUN_TO(&m, KVM_EXIT_IO);
	CHECK_EQ(m.run->io.port, 0x80);
	signals(&m);
	memory(&m);
	run_on(&m);
	in_thread(&m);
	another_vm(false);
	another_vm(true);
	questions(&m);
	steal_time(&m);
	return 0;
}
