/* SPDX-License-Identifier: MIT */
/*
 * All that the KVM ioctls tell of a VM, in a file, at points that are hard to save at; and a VM made from such a file.
 *
 *   states save FILE POINT    run the guest (guest.h) to the point, save, run it to its end, add its result
 *   states restore FILE       make the VM, read all of its state again (it must be what was written), run it to its end
 *
 * POINT: vector, string, smm, fault, halt. A file is records of {what, length} and bytes; GUEST's are whole pages.
 */
#include "../api/long_mode.h"
#include "../api/vm_state.h"
#include "guest.h"

#include <signal.h>
#include <stddef.h>
#include <sys/time.h>

#define PAGE	   4096
#define MEMORY	   0x40000
#define MSR_SMBASE 0x9e

/* In the order in which they are written back. */
static struct state {
	struct vm_state vm;
	uint64_t result;
	uint8_t memory[MEMORY];
} saved, again;

#define PART(name, member)                                                 \
	{                                                                  \
		name, offsetof(struct state, member), sizeof(saved.member) \
	}
#define VM_PART(member) PART(#member, vm.member)
static const struct part {
	char name[16];
	size_t offset, size;
} parts[] = {VM_PART(cpuid), VM_PART(tsc_khz), VM_PART(regs),	       VM_PART(xsave),
	     VM_PART(xcrs),  VM_PART(sregs),   VM_PART(msrs),	       VM_PART(mp),
	     VM_PART(lapic), VM_PART(events),  VM_PART(debug),	       VM_PART(chips),
	     VM_PART(pit),   VM_PART(clock),   PART("result", result), PART("memory", memory)};
#define NR_PARTS (sizeof(parts) / sizeof(parts[0]))

static struct machine m;

/* ---- the machine ---- */

static void put_gate(unsigned vector, const uint8_t *to)
{
	long_mode_gate(m.ram, vector, CODE + (to - guest_code));
}

static void fill_memory(void)
{
	_Static_assert(CODE == LONG_CODE, "the guest stands where long_mode.h puts it");
	long_mode_memory(m.ram, guest_code, guest_code_end);
	put_gate(14, guest_fault);
	put_gate(0x50, guest_timer);
	memcpy(m.ram + SMM_CODE, smm_code, sizeof(smm_code));
}

/* Only what any host can lend. */
static void plain_cpuid(struct vm_state_cpuid *c)
{
	c->head.nent = 128;
	CHECK_EQ(ioctl(m.kvm, KVM_GET_SUPPORTED_CPUID, c), 0);
	for (unsigned i = 0; i < c->head.nent; i++) {
		if (c->entries[i].function == 1)
			c->entries[i].ecx &= 1 << 21 | 1 << 24; /* x2APIC, TSC deadline */
		if (c->entries[i].function == 7)
			c->entries[i].ebx = c->entries[i].ecx = c->entries[i].edx = 0;
	}
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_CPUID2, c), 0);
}

static void start_guest(void)
{
	fill_memory();
	plain_cpuid(&saved.vm.cpuid);
	long_mode_start(m.vcpu, CODE, LONG_STACK);
	CHECK_EQ(msr_set(m.vcpu, MSR_SMBASE, SMBASE), 1);
}

/* ---- its state ---- */

static void compare(void)
{
	static struct state was;
	unsigned wrong = 0;

	was = saved;
	again.result = was.result;
	vm_state_stop(&was.vm);
	vm_state_stop(&again.vm);
	for (unsigned i = 0; i < NR_PARTS; i++)
		if (memcmp((char *)&was + parts[i].offset, (char *)&again + parts[i].offset,
			   parts[i].size)) {
			fprintf(stderr, "states: %s is not read as it was written\n",
				parts[i].name);
			wrong++;
		}
	CHECK(!wrong);
}

/* ---- files ---- */

static void write_file(const char *name)
{
	FILE *file = fopen(name, "wb");

	CHECK(file);
	for (unsigned i = 0; i < NR_PARTS; i++) {
		uint64_t size = parts[i].size;

		CHECK_EQ(fwrite(parts[i].name, sizeof(parts[i].name), 1, file), 1);
		CHECK_EQ(fwrite(&size, sizeof(size), 1, file), 1);
		CHECK_EQ(fwrite((char *)&saved + parts[i].offset, size, 1, file), 1);
	}
	CHECK_EQ(fclose(file), 0);
}

static void read_file(const char *name)
{
	FILE *file = fopen(name, "rb");
	char part[16];
	uint64_t size;

	CHECK(file);
	for (unsigned i = 0; i < NR_PARTS; i++) {
		CHECK_EQ(fread(part, sizeof(part), 1, file), 1);
		CHECK_EQ(fread(&size, sizeof(size), 1, file), 1);
		CHECK(!strncmp(part, parts[i].name, sizeof(part)));
		CHECK_EQ(size, parts[i].size);
		CHECK_EQ(fread((char *)&saved + parts[i].offset, size, 1, file), 1);
	}
	fclose(file);
}

/* ---- running ---- */

static void make_fault(void)
{
	struct kvm_vcpu_events e;

	CHECK_EQ(ioctl(m.vcpu, KVM_GET_VCPU_EVENTS, &e), 0);
	e.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	e.exception.pending = 1;
	e.exception.nr = 14;
	e.exception.has_error_code = 1;
	e.exception.error_code = 2;
	e.exception_has_payload = 1;
	e.exception_payload = FAULT_ADDRESS;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_VCPU_EVENTS, &e), 0);
}

/* What is half done is done; nothing further is run. */
static void complete(void)
{
	m.run->immediate_exit = 1;
	CHECK_ERR(ioctl(m.vcpu, KVM_RUN, 0), EINTR);
	m.run->immediate_exit = 0;
}

static void answer(unsigned port)
{
	if (port == PORT_STRING)
		memset((char *)m.run + m.run->io.data_offset, 0x5a,
		       (size_t)m.run->io.size * m.run->io.count);
	complete();
	if (port == PORT_SMI)
		CHECK_EQ(ioctl(m.vcpu, KVM_SMI, 0), 0);
	if (port == PORT_FAULT)
		make_fault();
}

/* The next port, or 0 for an interrupted HLT. */
static unsigned run_on(void)
{
	if (ioctl(m.vcpu, KVM_RUN, 0)) {
		CHECK_EQ(errno, EINTR);
		return 0;
	}
	CHECK_EQ(m.run->exit_reason, KVM_EXIT_IO);
	return m.run->io.port;
}

static uint64_t run_to_end(void)
{
	uint64_t result;
	unsigned port;

	while ((port = run_on()) != PORT_END)
		if (port)
			answer(port);
	memcpy(&result, m.ram + RESULT, 8);
	return result;
}

static void on_alarm(int number)
{
	(void)number;
}

static void save_halt(void)
{
	struct itimerval soon = {.it_value.tv_usec = 50000};
	struct sigaction action = {.sa_handler = on_alarm};

	CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
	CHECK_EQ(setitimer(ITIMER_REAL, &soon, NULL), 0);
	CHECK_EQ(run_on(), 0);
}

static const struct point {
	const char *name;
	unsigned port;
} points[] = {{"vector", PORT_VECTOR},
	      {"string", PORT_STRING},
	      {"smm", PORT_SMM},
	      {"fault", PORT_FAULT},
	      {"halt", PORT_HALT}};

static void save(const char *file, const char *name)
{
	const struct point *point = points;
	unsigned port;

	while (strcmp(point->name, name))
		CHECK(++point < points + sizeof(points) / sizeof(points[0]));
	start_guest();
	while ((port = run_on()) != point->port)
		answer(port);
	answer(port);
	if (port == PORT_HALT)
		save_halt();
	vm_state_get(&m, &saved.vm, NULL);
	memcpy(saved.memory, m.ram, MEMORY);
	saved.result = run_to_end();
	write_file(file);
	printf("%s: %#llx\n", name, (unsigned long long)saved.result);
}

static void restore(const char *file)
{
	uint64_t result;

	read_file(file);
	memcpy(m.ram, saved.memory, MEMORY);
	vm_state_set(&m, &saved.vm);
	vm_state_get(&m, &again.vm, &saved.vm);
	memcpy(again.memory, m.ram, MEMORY);
	compare();
	result = run_to_end();
	if (result != saved.result)
		fprintf(stderr, "states: the guest comes to %#llx, not %#llx\n",
			(unsigned long long)result, (unsigned long long)saved.result);
	CHECK(result == saved.result);
}

int main(int argc, char **argv)
{
	m = vm_state_machine(MEMORY);
	if (argc == 4 && !strcmp(argv[1], "save"))
		save(argv[2], argv[3]);
	else if (argc == 3 && !strcmp(argv[1], "restore"))
		restore(argv[2]);
	else
		return 2;
	return 0;
}
