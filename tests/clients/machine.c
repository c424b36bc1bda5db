// SPDX-License-Identifier: MIT
/*
 * machine [-n VCPUS] [-t] [-m MIB] KERNEL INITRD COMMAND-LINE: a virtual machine monitor of few lines, all of whose devices are KVM's
 * but a serial port that writes to stdout. It asks nothing of the host while the guest runs, so that under
 * `anykvm run --deterministic` two runs are the same (docs/deterministic.md).
 *
 * One thread runs all vCPUs, as that mode has it: who gets EINTR asks for the next. With -t each vCPU has a thread of its own,
 * and works in the usual mode, too. The kernel is a bzImage with a 64-bit entry; ACPI tells it of its processors. Ends with status
 * 0 when the guest resets (reboot=t).
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_VCPUS   64
#define ACPI_AT	    0xe0000
#define PARAMS_AT   0x10000
#define PAGES_AT    0x20000 /* page tables */
#define GDT_AT	    0x30000
#define LINE_AT	    0x40000
#define KERNEL_AT   0x1000000
#define BASE_MEMORY 0x9fc00
#define COM1	    0x3f8
#define COM1_IRQ    4
#define ENTRY_64    0x200
#define SHUTDOWN_OK 0
#define MAX_CPUID   200

static int kvm, vm, run_size;
static uint8_t *ram;
static size_t ram_size;
static unsigned nr_vcpus = 1;
static pthread_mutex_t devices = PTHREAD_MUTEX_INITIALIZER;

static struct vcpu {
	int fd;
	struct kvm_run *run;
	pthread_t thread;
} vcpus[MAX_VCPUS];

static long check(long r, const char *what)
{
	if (r < 0)
		err(2, "%s", what);
	return r;
}

/* ---- the serial port: a 16550A without input ---- */

static struct {
	uint8_t ier, lcr, mcr, scr, dll, dlm;
	bool empty_told; /* the interrupt of an empty transmitter was taken */
} com;

static void com_interrupt(void)
{
	struct kvm_irq_level level = {.irq = COM1_IRQ};

	level.level = com.ier & 2 && !com.empty_told;
	check(ioctl(vm, KVM_IRQ_LINE, &level), "KVM_IRQ_LINE");
}

static void com_write(unsigned reg, uint8_t val)
{
	bool latch = com.lcr & 0x80;

	switch (reg) {
	case 0:
		if (latch) {
			com.dll = val;
		} else {
			putchar(val);
			com.empty_told = false;
		}
		break;
	case 1:
		if (latch) {
			com.dlm = val;
		} else {
			com.empty_told &= (com.ier & 2) != 0;
			com.ier = val & 15;
		}
		break;
	case 3:
		com.lcr = val;
		break;
	case 4:
		com.mcr = val;
		break;
	case 7:
		com.scr = val;
		break;
	}
	com_interrupt();
}

static uint8_t com_identify(void)
{
	if (!(com.ier & 2) || com.empty_told)
		return 0xc1;
	com.empty_told = true;
	com_interrupt();
	return 0xc2;
}

static uint8_t com_read(unsigned reg)
{
	bool latch = com.lcr & 0x80;

	switch (reg) {
	case 0:
		return latch ? com.dll : 0;
	case 1:
		return latch ? com.dlm : com.ier;
	case 2:
		return com_identify();
	case 3:
		return com.lcr;
	case 4:
		return com.mcr;
	case 5:
		return 0x60;
	case 6:
		return 0xb0;
	default:
		return com.scr;
	}
}

/* ---- exits ---- */

static void port(struct kvm_run *run)
{
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	bool mine = run->io.port >= COM1 && run->io.port < COM1 + 8 && run->io.size == 1;

	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		if (run->io.direction == KVM_EXIT_IO_OUT && mine)
			com_write(run->io.port - COM1, *data);
		else if (run->io.direction == KVM_EXIT_IO_IN && mine)
			*data = com_read(run->io.port - COM1);
		else if (run->io.direction == KVM_EXIT_IO_IN)
			memset(data, run->io.port >= 0x600 && run->io.port < 0x610 ? 0 : 0xff,
			       run->io.size);
	}
}

static void end(int status)
{
	fflush(stdout);
	_exit(status);
}

static void handle(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		port(run);
		break;
	case KVM_EXIT_MMIO:
		if (!run->mmio.is_write)
			memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
		break;
	case KVM_EXIT_SHUTDOWN:
		end(SHUTDOWN_OK);
		break;
	default:
		fflush(stdout);
		errx(2, "exit reason %u", run->exit_reason);
	}
}

static void run_vcpu(struct vcpu *vcpu)
{
	if (ioctl(vcpu->fd, KVM_RUN, 0)) {
		if (errno != EINTR && errno != EAGAIN)
			err(2, "KVM_RUN");
		return;
	}
	pthread_mutex_lock(&devices);
	handle(vcpu);
	pthread_mutex_unlock(&devices);
}

static void *vcpu_main(void *vcpu)
{
	for (;;)
		run_vcpu(vcpu);
	return NULL;
}

/* ---- memory ---- */

static void put(uint64_t at, const void *from, size_t size)
{
	if (at + size > ram_size)
		errx(2, "does not fit into the guest's memory");
	memcpy(ram + at, from, size);
}

static uint8_t *read_file(const char *path, size_t *ret_size)
{
	int fd = check(open(path, O_RDONLY), path);
	struct stat st;
	uint8_t *mem;

	check(fstat(fd, &st), path);
	mem = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (mem == MAP_FAILED)
		err(2, "%s", path);
	close(fd);
	*ret_size = st.st_size;
	return mem;
}

static void make_memory(size_t mib)
{
	struct kvm_userspace_memory_region region = {0};

	ram_size = mib << 20;
	ram = mmap(NULL, ram_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ram == MAP_FAILED)
		err(2, "memory");
	region.memory_size = ram_size;
	region.userspace_addr = (uintptr_t)ram;
	check(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
}

/* ---- ACPI: the least that Linux takes ---- */

struct table {
	char signature[4];
	uint32_t length;
	uint8_t revision, checksum;
	char oem[6], oem_table[8];
	uint32_t oem_revision;
	char creator[4];
	uint32_t creator_revision;
} __attribute__((packed));

static uint8_t sum(const void *from, size_t size)
{
	const uint8_t *p = from;
	uint8_t all = 0;

	while (size--)
		all += *p++;
	return -all;
}

/* Returns where it was put; *at goes behind. body is what follows the header. */
static uint64_t put_table(uint64_t *at, const char *signature, uint8_t revision, const void *body,
			  size_t size)
{
	struct table head = {.length = sizeof(head) + size,
			     .revision = revision,
			     .oem = "TESTS",
			     .oem_table = "MACHINE"};
	uint64_t where = *at;

	memcpy(head.signature, signature, 4);
	memcpy(head.creator, "TEST", 4);
	put(where, &head, sizeof(head));
	put(where + sizeof(head), body, size);
	((struct table *)(ram + where))->checksum = sum(ram + where, head.length);
	*at = (where + head.length + 15) & ~15ull;
	return where;
}

static uint64_t put_madt(uint64_t *at)
{
	uint8_t body[8 + 8 * MAX_VCPUS + 12] = {0x00, 0x00, 0xe0, 0xfe, 1}, *p = body + 8;
	const uint8_t ioapic[12] = {1, 12, 0, 0, 0x00, 0x00, 0xc0, 0xfe};

	for (unsigned i = 0; i < nr_vcpus; i++, p += 8)
		memcpy(p, (uint8_t[8]){0, 8, i, i, 1}, 8);
	memcpy(p, ioapic, sizeof(ioapic));
	return put_table(at, "APIC", 4, body, p + sizeof(ioapic) - body);
}

static uint64_t put_fadt(uint64_t *at)
{
	uint64_t dsdt = put_table(at, "DSDT", 2, "", 0);
	uint8_t body[268 - sizeof(struct table)] = {0};

#define FADT(offset) (body + (offset) - sizeof(struct table))
	memcpy(FADT(40), &dsdt, 4);
	memcpy(FADT(46), &(uint16_t){9}, 2);	 /* SCI */
	memcpy(FADT(56), &(uint32_t){0x600}, 4); /* PM1a events, control */
	memcpy(FADT(64), &(uint32_t){0x604}, 4);
	*FADT(88) = 4;
	*FADT(89) = 2;
	memcpy(FADT(109), &(uint16_t){1 << 2 | 1 << 5}, 2); /* no VGA, no CMOS RTC */
	memcpy(FADT(112), &(uint32_t){1 | 1 << 4 | 1 << 5}, 4);
	memcpy(FADT(140), &dsdt, 8);
#undef FADT
	return put_table(at, "FACP", 5, body, sizeof(body));
}

static void put_acpi(void)
{
	struct {
		char signature[8];
		uint8_t checksum;
		char oem[6];
		uint8_t revision;
		uint32_t rsdt, length;
		uint64_t xsdt;
		uint8_t extended, reserved[3];
	} __attribute__((packed)) rsdp = {.revision = 2, .length = 36, .oem = "TESTS"};
	uint64_t at = ACPI_AT + 64, tables[2] = {put_fadt(&at), put_madt(&at)};

	memcpy(rsdp.signature, "RSD PTR ", 8);
	rsdp.xsdt = put_table(&at, "XSDT", 1, tables, sizeof(tables));
	rsdp.checksum = sum(&rsdp, 20);
	rsdp.extended = sum(&rsdp, 36);
	put(ACPI_AT, &rsdp, sizeof(rsdp));
}

/* ---- the kernel, by the boot protocol of Linux's Documentation/arch/x86/boot.rst ---- */

struct e820 {
	uint64_t at, size;
	uint32_t type;
} __attribute__((packed));

static void load(const char *kernel, const char *initrd, const char *line)
{
	const struct e820 map[] = {
		{0, BASE_MEMORY, 1}, {ACPI_AT, 0x20000, 2}, {1 << 20, ram_size - (1 << 20), 1}};
	uint8_t params[4096] = {0};
	size_t size, initrd_size;
	uint8_t *image = read_file(kernel, &size), *disk = read_file(initrd, &initrd_size);
	size_t setup = ((image[0x1f1] ? image[0x1f1] : 4) + 1) * 512;
	uint32_t initrd_at = (ram_size - initrd_size) & ~0xfffu;

	if (memcmp(image + 0x202, "HdrS", 4) || !(image[0x236] & 1))
		errx(2, "%s: no kernel with a 64-bit entry", kernel);
	memcpy(params + 0x1f1, image + 0x1f1, 0x202 + image[0x201] - 0x1f1);
	params[0x210] = 0xff;
	params[0x211] |= 1;
	memcpy(params + 0x218, &initrd_at, 4);
	memcpy(params + 0x21c, &(uint32_t){initrd_size}, 4);
	memcpy(params + 0x228, &(uint32_t){LINE_AT}, 4);
	memcpy(params + 0x070, &(uint64_t){ACPI_AT}, 8);
	params[0x1e8] = 3;
	memcpy(params + 0x2d0, map, sizeof(map));
	put(PARAMS_AT, params, sizeof(params));
	put(LINE_AT, line, strlen(line) + 1);
	put(KERNEL_AT, image + setup, size - setup);
	put(initrd_at, disk, initrd_size);
	put_acpi();
}

/* 4 GiB one to one in pages of 2 MiB. */
static void put_page_tables(void)
{
	uint64_t *tables = (uint64_t *)(ram + PAGES_AT);

	tables[0] = (PAGES_AT + 0x1000) | 3;
	for (uint64_t i = 0; i < 4; i++)
		tables[512 + i] = (PAGES_AT + 0x2000 + i * 0x1000) | 3;
	for (uint64_t i = 0; i < 2048; i++)
		tables[1024 + i] = i << 21 | 0x83;
}

/* ---- processors ---- */

static void set_cpuid(unsigned id)
{
	struct kvm_cpuid2 *cpuid =
		calloc(1, sizeof(*cpuid) + MAX_CPUID * sizeof(cpuid->entries[0]));

	cpuid->nent = MAX_CPUID;
	check(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid), "KVM_GET_SUPPORTED_CPUID");
	for (unsigned i = 0; i < cpuid->nent; i++) {
		struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		if (e->function == 1) {
			e->ebx = (e->ebx & 0xff00) | id << 24 | nr_vcpus << 16;
			e->ecx |= 1u << 31; /* a hypervisor */
		}
		if (e->function == 0xb || e->function == 0x1f)
			e->edx = id;
	}
	check(ioctl(vcpus[id].fd, KVM_SET_CPUID2, cpuid), "KVM_SET_CPUID2");
	free(cpuid);
}

static void start_at_kernel(int fd)
{
	const uint64_t gdt[] = {0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff};
	struct kvm_segment code = {
		.limit = ~0u, .selector = 0x10, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	struct kvm_segment data = {
		.limit = ~0u, .selector = 0x18, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_regs regs = {.rip = KERNEL_AT + ENTRY_64, .rsi = PARAMS_AT, .rflags = 2};
	struct kvm_sregs s;

	check(ioctl(fd, KVM_GET_SREGS, &s), "KVM_GET_SREGS");
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.gdt.base = GDT_AT;
	s.gdt.limit = sizeof(gdt) - 1;
	s.idt.limit = 0;
	s.cr3 = PAGES_AT;
	s.cr4 = 0x20;
	s.cr0 = 0x80000011;
	s.efer = 0x500;
	put(GDT_AT, gdt, sizeof(gdt));
	put_page_tables();
	check(ioctl(fd, KVM_SET_SREGS, &s), "KVM_SET_SREGS");
	check(ioctl(fd, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

/*
 * What firmware leaves: fast strings are on. Else a kernel without "x86: combine memmove FSRM and ERMS alternatives" (Debian's 6.1),
 * which finds FSRM in CPUID and takes ERMS away itself, copies past the ends of short moves, on real processors, too.
 */
static void set_msrs(int fd)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry[1];
	} msrs = {.head.nmsrs = 1, .entry = {{.index = 0x1a0, .data = 1}}};

	check(ioctl(fd, KVM_SET_MSRS, &msrs), "KVM_SET_MSRS");
}

static void make_vcpu(unsigned id)
{
	struct vcpu *vcpu = &vcpus[id];

	vcpu->fd = check(ioctl(vm, KVM_CREATE_VCPU, id), "KVM_CREATE_VCPU");
	vcpu->run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (vcpu->run == MAP_FAILED)
		err(2, "a vCPU's page");
	set_cpuid(id);
	set_msrs(vcpu->fd);
}

static void make_machine(size_t mib)
{
	struct kvm_pit_config pit = {0};

	kvm = check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	vm = check(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	run_size = check(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
	check(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
	check(ioctl(vm, KVM_CREATE_PIT2, &pit), "KVM_CREATE_PIT2");
	make_memory(mib);
	for (unsigned i = 0; i < nr_vcpus; i++)
		make_vcpu(i);
}

int main(int argc, char **argv)
{
	bool threads = false;
	size_t mib = 256;
	int opt;

	while ((opt = getopt(argc, argv, "n:m:t")) != -1) {
		if (opt == 'n')
			nr_vcpus = atoi(optarg);
		else if (opt == 'm')
			mib = atoi(optarg);
		else if (opt == 't')
			threads = true;
		else
			return 2;
	}
	if (argc - optind != 3 || !nr_vcpus || nr_vcpus > MAX_VCPUS)
		errx(2, "usage: machine [-n VCPUS] [-t] [-m MIB] KERNEL INITRD COMMAND-LINE");
	setvbuf(stdout, NULL, _IOLBF, 0);
	make_machine(mib);
	load(argv[optind], argv[optind + 1], argv[optind + 2]);
	start_at_kernel(vcpus[0].fd);
	for (unsigned i = 1; threads && i < nr_vcpus; i++)
		if (pthread_create(&vcpus[i].thread, NULL, vcpu_main, &vcpus[i]))
			errx(2, "no thread");
	for (unsigned i = 0;; i = threads ? 0 : (i + 1) % nr_vcpus)
		run_vcpu(&vcpus[i]);
}
