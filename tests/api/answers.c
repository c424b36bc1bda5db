/* SPDX-License-Identifier: MIT */
/*
 * answers [FILE]: what each ioctl of KVM on x86 answers to calls that are wrong, or have nothing to say: on every kind of
 * fd, with pointers to nothing, to zeros and to ones, a second time, from another process, from another thread, and after its VM's
 * fd was closed. One line per answer: ioctl, fd, state, argument, result.
 *
 * Without FILE the lines are printed: so they were recorded on a real KVM (`make check-api-host` compares two runs). With
 * FILE, lines recorded there, every answer must be as recorded; a `*` as the result is an answer that follows the
 * processor and is not compared.
 */
#include "api_test.h"

#include <pthread.h>
#include <sys/wait.h>

enum { SYS = 1, VM = 2, VCPU = 4 };

static const struct ioctl {
	const char *name;
	unsigned long number;
	int kinds;
} ioctls[] = {
	{"KVM_CHECK_EXTENSION", 0xae03, SYS | VM},
	{"KVM_CLEAR_DIRTY_LOG", 0xc018aec0, VM},
	{"KVM_CREATE_DEVICE", 0xc00caee0, VM},
	{"KVM_CREATE_GUEST_MEMFD", 0xc040aed4, VM},
	{"KVM_CREATE_IRQCHIP", 0xae60, VM},
	{"KVM_CREATE_PIT", 0xae64, VM},
	{"KVM_CREATE_PIT2", 0x4040ae77, VM},
	{"KVM_CREATE_VCPU", 0xae41, VM},
	{"KVM_CREATE_VM", 0xae01, SYS},
	{"KVM_ENABLE_CAP", 0x4068aea3, VM | VCPU},
	{"KVM_GET_API_VERSION", 0xae00, SYS},
	{"KVM_GET_CLOCK", 0x8030ae7c, VM},
	{"KVM_GET_CPUID2", 0xc008ae91, VCPU},
	{"KVM_GET_DEBUGREGS", 0x8080aea1, VCPU},
	{"KVM_GET_DEVICE_ATTR", 0x4018aee2, SYS | VCPU},
	{"KVM_GET_DIRTY_LOG", 0x4010ae42, VM},
	{"KVM_GET_EMULATED_CPUID", 0xc008ae09, SYS},
	{"KVM_GET_FPU", 0x81a0ae8c, VCPU},
	{"KVM_GET_IRQCHIP", 0xc208ae62, VM},
	{"KVM_GET_LAPIC", 0x8400ae8e, VCPU},
	{"KVM_GET_MP_STATE", 0x8004ae98, VCPU},
	{"KVM_GET_MSRS", 0xc008ae88, SYS | VCPU},
	{"KVM_GET_MSR_FEATURE_INDEX_LIST", 0xc004ae0a, SYS},
	{"KVM_GET_MSR_INDEX_LIST", 0xc004ae02, SYS},
	{"KVM_GET_NESTED_STATE", 0xc080aebe, VCPU},
	{"KVM_GET_PIT", 0xc048ae65, VM},
	{"KVM_GET_PIT2", 0x8070ae9f, VM},
	{"KVM_GET_REGS", 0x8090ae81, VCPU},
	{"KVM_GET_SREGS", 0x8138ae83, VCPU},
	{"KVM_GET_SREGS2", 0x8140aecc, VCPU},
	{"KVM_GET_STATS_FD", 0xaece, VM | VCPU},
	{"KVM_GET_SUPPORTED_CPUID", 0xc008ae05, SYS},
	{"KVM_GET_SUPPORTED_HV_CPUID", 0xc008aec1, SYS | VCPU},
	{"KVM_GET_TSC_KHZ", 0xaea3, VM | VCPU},
	{"KVM_GET_VCPU_EVENTS", 0x8040ae9f, VCPU},
	{"KVM_GET_VCPU_MMAP_SIZE", 0xae04, SYS},
	{"KVM_GET_XCRS", 0x8188aea6, VCPU},
	{"KVM_GET_XSAVE", 0x9000aea4, VCPU},
	{"KVM_GET_XSAVE2", 0x9000aecf, VCPU},
	{"KVM_HAS_DEVICE_ATTR", 0x4018aee3, SYS | VCPU},
	{"KVM_HYPERV_EVENTFD", 0x4018aebd, VM},
	{"KVM_INTERRUPT", 0x4004ae86, VCPU},
	{"KVM_IOEVENTFD", 0x4040ae79, VM},
	{"KVM_IRQFD", 0x4020ae76, VM},
	{"KVM_IRQ_LINE", 0x4008ae61, VM},
	{"KVM_IRQ_LINE_STATUS", 0xc008ae67, VM},
	{"KVM_KVMCLOCK_CTRL", 0xaead, VCPU},
	{"KVM_MEMORY_ENCRYPT_OP", 0xc008aeba, VM},
	{"KVM_MEMORY_ENCRYPT_REG_REGION", 0x8010aebb, VM},
	{"KVM_MEMORY_ENCRYPT_UNREG_REGION", 0x8010aebc, VM},
	{"KVM_NMI", 0xae9a, VCPU},
	{"KVM_PRE_FAULT_MEMORY", 0xc040aed5, VCPU},
	{"KVM_REGISTER_COALESCED_MMIO", 0x4010ae67, VM},
	{"KVM_REINJECT_CONTROL", 0xae71, VM},
	{"KVM_RESET_DIRTY_RINGS", 0xaec7, VM},
	{"KVM_RUN", 0xae80, VCPU},
	{"KVM_SET_BOOT_CPU_ID", 0xae78, VM},
	{"KVM_SET_CLOCK", 0x4030ae7b, VM},
	{"KVM_SET_CPUID", 0x4008ae8a, VCPU},
	{"KVM_SET_CPUID2", 0x4008ae90, VCPU},
	{"KVM_SET_DEBUGREGS", 0x4080aea2, VCPU},
	{"KVM_SET_DEVICE_ATTR", 0x4018aee1, VCPU},
	{"KVM_SET_FPU", 0x41a0ae8d, VCPU},
	{"KVM_SET_GSI_ROUTING", 0x4008ae6a, VM},
	{"KVM_SET_GUEST_DEBUG", 0x4048ae9b, VCPU},
	{"KVM_SET_IDENTITY_MAP_ADDR", 0x4008ae48, VM},
	{"KVM_SET_IRQCHIP", 0x8208ae63, VM},
	{"KVM_SET_LAPIC", 0x4400ae8f, VCPU},
	{"KVM_SET_MEMORY_ATTRIBUTES", 0x4020aed2, VM},
	{"KVM_SET_MP_STATE", 0x4004ae99, VCPU},
	{"KVM_SET_MSRS", 0x4008ae89, VCPU},
	{"KVM_SET_NESTED_STATE", 0x4080aebf, VCPU},
	{"KVM_SET_NR_MMU_PAGES", 0xae44, VM},
	{"KVM_SET_PIT", 0x8048ae66, VM},
	{"KVM_SET_PIT2", 0x4070aea0, VM},
	{"KVM_SET_PMU_EVENT_FILTER", 0x4020aeb2, VM},
	{"KVM_SET_REGS", 0x4090ae82, VCPU},
	{"KVM_SET_SIGNAL_MASK", 0x4004ae8b, VCPU},
	{"KVM_SET_SREGS", 0x4138ae84, VCPU},
	{"KVM_SET_SREGS2", 0x4140aecd, VCPU},
	{"KVM_SET_TSC_KHZ", 0xaea2, VM | VCPU},
	{"KVM_SET_TSS_ADDR", 0xae47, VM},
	{"KVM_SET_USER_MEMORY_REGION", 0x4020ae46, VM},
	{"KVM_SET_USER_MEMORY_REGION2", 0x40a0ae49, VM},
	{"KVM_SET_VAPIC_ADDR", 0x4008ae93, VCPU},
	{"KVM_SET_VCPU_EVENTS", 0x4040aea0, VCPU},
	{"KVM_SET_XCRS", 0x4188aea7, VCPU},
	{"KVM_SET_XSAVE", 0x5000aea5, VCPU},
	{"KVM_SIGNAL_MSI", 0x4020aea5, VM},
	{"KVM_SMI", 0xaeb7, VCPU},
	{"KVM_TPR_ACCESS_REPORTING", 0xc028ae92, VCPU},
	{"KVM_TRANSLATE", 0xc018ae85, VCPU},
	{"KVM_UNREGISTER_COALESCED_MMIO", 0x4010ae68, VM},
	{"KVM_X86_GET_MCE_CAP_SUPPORTED", 0x8008ae9d, SYS},
	{"KVM_X86_SETUP_MCE", 0x4008ae9c, VCPU},
	{"KVM_X86_SET_MCE", 0x4040ae9e, VCPU},
	{"KVM_X86_SET_MSR_FILTER", 0x4188aec6, VM},
	{"KVM_XEN_HVM_CONFIG", 0x4038ae7a, VM},
	{"KVM_XEN_HVM_EVTCHN_SEND", 0x400caed0, VM},
	{"KVM_XEN_HVM_GET_ATTR", 0xc048aec8, VM},
	{"KVM_XEN_HVM_SET_ATTR", 0x4048aec9, VM},
	{"KVM_XEN_VCPU_GET_ATTR", 0xc048aeca, VCPU},
	{"KVM_XEN_VCPU_SET_ATTR", 0x4048aecb, VCPU},
};

/* Arguments: nothing, nowhere, room for everything full of zeros, or of ones. */
#define ROOM 0x40000

static uint8_t *zeros, *ones;

static const char *const argument_names[] = {"null", "bad", "zeros", "ones"};

static unsigned long argument(unsigned nr)
{
	switch (nr) {
	case 0:
		return 0;
	case 1:
		return (unsigned long)BAD_POINTER;
	case 2:
		memset(zeros, 0, ROOM);
		return (unsigned long)zeros;
	default:
		memset(ones, 0xff, ROOM);
		return (unsigned long)ones;
	}
}

/* The recorded answers, or NULL: print. */
static FILE *recorded;
static unsigned nr_wrong, nr_compared;

static const char *result_name(long result, char *buf, size_t size)
{
	static const struct {
		int error;
		const char *name;
	} errors[] = {
		{EINVAL, "EINVAL"}, {EFAULT, "EFAULT"}, {ENOTTY, "ENOTTY"},
		{ENXIO, "ENXIO"},   {EEXIST, "EEXIST"}, {E2BIG, "E2BIG"},
		{EIO, "EIO"},	    {EBUSY, "EBUSY"},	{ENODEV, "ENODEV"},
		{ENOENT, "ENOENT"}, {EPERM, "EPERM"},	{EBADF, "EBADF"},
		{EINTR, "EINTR"},   {ENOMEM, "ENOMEM"}, {EOPNOTSUPP, "ENOTSUPP"},
		{EAGAIN, "EAGAIN"},
	};

	snprintf(buf, size, "%ld", result);
	for (unsigned i = 0; result < 0 && i < sizeof(errors) / sizeof(errors[0]); i++)
		if (errno == errors[i].error)
			return errors[i].name;
	if (result < 0)
		snprintf(buf, size, "errno %d", errno);
	return buf;
}

static void compare(const char *line)
{
	char want[256], *got;
	size_t len;

	do
		got = fgets(want, sizeof(want), recorded);
	while (got && *want == '#');
	if (!got) {
		fprintf(stderr, "not recorded: %s", line);
		nr_wrong++;
		return;
	}
	nr_compared++;
	len = strlen(want);
	if (len > 2 && want[len - 2] == '*' && !strncmp(line, want, len - 2))
		return;
	if (strcmp(line, want)) {
		fprintf(stderr, "answered: %srecorded: %s", line, want);
		nr_wrong++;
	}
}

static void tell(const char *name, const char *fd, const char *state, const char *arg, long result)
{
	char buf[32], line[256];

	snprintf(line, sizeof(line), "%s\t%s\t%s\t%s\t%s\n", name, fd, state, arg,
		 result_name(result, buf, sizeof(buf)));
	if (recorded)
		compare(line);
	else
		fputs(line, stdout);
}

/* A file descriptor is one more answer of its kind, whatever its number. */
static bool makes_fd(unsigned long number)
{
	return number == KVM_CREATE_VM || number == KVM_CREATE_VCPU || number == KVM_GET_STATS_FD;
}

static long call(int fd, const struct ioctl *row, unsigned long arg)
{
	long result;

	errno = 0;
	result = ioctl(fd, row->number, arg);
	if (result >= 0 && makes_fd(row->number)) {
		close((int)result);
		result = 0;
	}
	/* How much memory, how many CPUs: the machine's. */
	if (result > 0)
		result = 1;
	return result;
}

static struct machine machine_made(bool irqchip)
{
	struct machine m = machine_open();

	if (irqchip)
		CHECK_EQ(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	MACHINE_CODE(&m, 0xe6, 0x80, 0xe6, 0x80, 0xe6, 0x80, 0xe6, 0x80);
	return m;
}

static void machine_unmade(struct machine *m)
{
	munmap(m->run, ioctl(m->kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
	munmap(m->ram, RAM_SIZE);
	close(m->vcpu);
	close(m->vm);
	close(m->kvm);
}

static int fd_of(const struct machine *m, int kind)
{
	return kind == SYS ? m->kvm : kind == VM ? m->vm : m->vcpu;
}

static const char *kind_name(int kind)
{
	return kind == SYS ? "sys" : kind == VM ? "vm" : "vcpu";
}

/* On the fds that serve it: each argument, twice. */
static void test_arguments(const struct ioctl *row, bool irqchip)
{
	struct machine m = machine_made(irqchip);
	char name[16];

	for (int kind = SYS; kind <= VCPU; kind *= 2) {
		if (!(row->kinds & kind))
			continue;
		for (unsigned i = 0; i < 8; i++) {
			snprintf(name, sizeof(name), "%s%s", argument_names[i / 2],
				 i % 2 ? "-again" : "");
			tell(row->name, kind_name(kind), irqchip ? "irqchip" : "plain", name,
			     call(fd_of(&m, kind), row, argument(i / 2)));
		}
	}
	machine_unmade(&m);
}

static long call_in_child(int fd, const struct ioctl *row)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(call(fd, row, 0) < 0 ? errno : 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	errno = WEXITSTATUS(status);
	return errno ? -1 : 0;
}

struct thread_call {
	int fd;
	const struct ioctl *row;
	long result;
	int error;
};

static void *thread_call(void *opaque)
{
	struct thread_call *c = opaque;

	c->result = call(c->fd, c->row, argument(1));
	c->error = errno;
	return NULL;
}

static long call_in_thread(int fd, const struct ioctl *row)
{
	struct thread_call c = {.fd = fd, .row = row};
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, thread_call, &c), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	errno = c.error;
	return c.result;
}

/* On fds of other kinds; from another process, from another thread; on a vCPU whose VM's fd is closed. */
static void test_wrong_places(const struct ioctl *row)
{
	struct machine m = machine_made(false);

	for (int kind = SYS; kind <= VCPU; kind *= 2) {
		if (!(row->kinds & kind))
			tell(row->name, kind_name(kind), "wrong", "null",
			     call(fd_of(&m, kind), row, 0));
		else if (kind != SYS)
			tell(row->name, kind_name(kind), "child", "null",
			     call_in_child(fd_of(&m, kind), row));
		if (row->kinds & kind)
			tell(row->name, kind_name(kind), "thread", "bad",
			     call_in_thread(fd_of(&m, kind), row));
	}
	close(m.vm);
	m.vm = open("/dev/null", O_RDONLY);
	if (row->kinds & VCPU)
		tell(row->name, "vcpu", "closed", "bad", call(m.vcpu, row, argument(1)));
	machine_unmade(&m);
}

int main(int argc, char **argv)
{
	zeros = map_ram(ROOM);
	ones = map_ram(ROOM);
	if (argc > 1) {
		recorded = fopen(argv[1], "r");
		CHECK(recorded);
	}
	for (unsigned i = 0; i < sizeof(ioctls) / sizeof(ioctls[0]); i++) {
		test_arguments(&ioctls[i], false);
		test_arguments(&ioctls[i], true);
		test_wrong_places(&ioctls[i]);
	}
	if (recorded)
		printf("%u answers compared, %u differ\n", nr_compared, nr_wrong);
	return nr_wrong != 0;
}
