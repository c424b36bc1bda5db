/* SPDX-License-Identifier: MIT */
/*
 * System-management mode by the API (KVM api.rst: KVM_SMI, KVM_CAP_X86_SMM, KVM_CAP_MULTI_ADDRESS_SPACE, the smi member
 * of struct kvm_vcpu_events, KVM_RUN_X86_SMM). Answers as Linux 6.12 gives them.
 */
#include "api_test.h"

#include <linux/kvm_para.h>

#define PAGE	   4096
#define SMBASE	   0x100000
#define SMRAM_SIZE 0x10000
#define SMRAM_SLOT (1 << 16 | 1)
#define MSR_SMBASE 0x9e
#define SMI_COUNT  0x34
#define APIC_BASE  0x1b
#define X2APIC_ICR 0x830

static struct kvm_vcpu_events events(const struct machine *m)
{
	struct kvm_vcpu_events e;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_VCPU_EVENTS, &e), 0);
	return e;
}

static int set_events(const struct machine *m, struct kvm_vcpu_events e)
{
	return ioctl(m->vcpu, KVM_SET_VCPU_EVENTS, &e);
}

/* A guest with code, and SMRAM in the other address space whose handler is mov $7,%al; out %al,$0x81; rsm. */
static uint8_t *add_smram(struct machine *m)
{
	static const uint8_t handler[] = {0xb0, 7, 0xe6, 0x81, 0x0f, 0xaa};
	uint8_t *smram = map_ram(SMRAM_SIZE);

	memcpy(smram + 0x8000, handler, sizeof(handler));
	CHECK_EQ(set_region(m->vm, SMRAM_SLOT, 0, SMBASE, SMRAM_SIZE, smram), 0);
	CHECK_EQ(msr_set(m->vcpu, MSR_SMBASE, SMBASE), 1);
	return smram;
}

/* out %al,$0x80; jmp back */
static struct machine open_loop(bool irqchip)
{
	struct machine m = machine_open();

	if (irqchip)
		CHECK_EQ(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	MACHINE_CODE(&m, 0xe6, 0x80, 0xeb, 0xfc);
	return m;
}

static void close_machine(struct machine *m)
{
	close(m->vcpu);
	close(m->vm);
	close(m->kvm);
}

#define RUN_TO_PORT(m, number)                       \
	do {                                         \
		RUN_TO(m, KVM_EXIT_IO);              \
		CHECK_EQ((m)->run->io.port, number); \
	} while (0)

static void test_caps(void)
{
	struct machine m = machine_open();

	CHECK_EQ(ioctl(m.kvm, KVM_CHECK_EXTENSION, KVM_CAP_X86_SMM), 1);
	CHECK_EQ(ioctl(m.vm, KVM_CHECK_EXTENSION, KVM_CAP_X86_SMM), 1);
	CHECK_EQ(ioctl(m.kvm, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE), 2);
	CHECK_EQ(ioctl(m.vm, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE), 2);
	CHECK_ERR(set_region(m.vm, 2 << 16, 0, SMBASE, PAGE, m.ram), EINVAL);
	close(m.vm);
}

static void test_smi(void)
{
	struct machine m = open_loop(false);

	add_smram(&m);
	CHECK_EQ(msr_get(m.vcpu, SMI_COUNT), 0);
	RUN_TO_PORT(&m, 0x80);
	CHECK_EQ(m.run->flags & KVM_RUN_X86_SMM, 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_SMI, 0), 0);
	CHECK_EQ(events(&m).smi.pending, 1);
	RUN_TO_PORT(&m, 0x81);
	CHECK_EQ(m.run->flags & KVM_RUN_X86_SMM, KVM_RUN_X86_SMM);
	CHECK_EQ(events(&m).smi.smm, 1);
	CHECK_EQ(events(&m).smi.pending, 0);
	CHECK_EQ(events(&m).nmi.masked, 1);
	CHECK_EQ(msr_get(m.vcpu, SMI_COUNT), 1);
	RUN_TO_PORT(&m, 0x80);
	CHECK_EQ(m.run->flags & KVM_RUN_X86_SMM, 0);
	CHECK_EQ(events(&m).smi.smm, 0);
	CHECK_EQ(events(&m).nmi.masked, 0);
	close_machine(&m);
}

/* By KVM_SET_VCPU_EVENTS; and moved in the middle of the handler to another vCPU's state. */
static void test_events(void)
{
	struct machine m = open_loop(true);
	struct kvm_vcpu_events e;
	struct kvm_mp_state mp = {.mp_state = KVM_MP_STATE_INIT_RECEIVED};

	add_smram(&m);
	e = events(&m);
	CHECK_EQ(e.flags & KVM_VCPUEVENT_VALID_SMM, KVM_VCPUEVENT_VALID_SMM);
	e.smi.pending = 1;
	CHECK_EQ(set_events(&m, e), 0);
	CHECK_ERR(ioctl(m.vcpu, KVM_SET_MP_STATE, &mp), EINVAL);
	RUN_TO_PORT(&m, 0x81);
	CHECK_ERR(ioctl(m.vcpu, KVM_SET_MP_STATE, &mp), EINVAL);
	mp.mp_state = KVM_MP_STATE_SIPI_RECEIVED;
	CHECK_ERR(ioctl(m.vcpu, KVM_SET_MP_STATE, &mp), EINVAL);
	/* Finish the OUT; then leave SMM and enter it again by ioctl. */
	m.run->immediate_exit = 1;
	CHECK_ERR(ioctl(m.vcpu, KVM_RUN, 0), EINTR);
	m.run->immediate_exit = 0;
	e = events(&m);
	CHECK_EQ(e.smi.smm, 1);
	e.smi.smm = 0;
	CHECK_EQ(set_events(&m, e), 0);
	CHECK_EQ(events(&m).smi.smm, 0);
	e.smi.smm = 1;
	e.smi.smm_inside_nmi = 1;
	CHECK_EQ(set_events(&m, e), 0);
	CHECK_EQ(events(&m).smi.smm_inside_nmi, 1);
	RUN_TO_PORT(&m, 0x80);
	CHECK_EQ(events(&m).smi.smm, 0);
	CHECK_EQ(events(&m).smi.smm_inside_nmi, 0);
	CHECK_EQ(events(&m).nmi.masked, 1);
	/* A vCPU that has received INIT cannot be in SMM. */
	mp.mp_state = KVM_MP_STATE_INIT_RECEIVED;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_MP_STATE, &mp), 0);
	e = events(&m);
	e.smi.smm = 1;
	CHECK_ERR(set_events(&m, e), EINVAL);
	e.smi.smm = 0;
	e.smi.pending = 1;
	CHECK_ERR(set_events(&m, e), EINVAL);
	e.smi.pending = 0;
	CHECK_EQ(set_events(&m, e), 0);
	close_machine(&m);
}

/* INIT waits in SMM. */
static void test_latched_init(void)
{
	struct machine m = open_loop(true);
	struct kvm_vcpu_events e;
	struct kvm_regs regs;

	add_smram(&m);
	RUN_TO_PORT(&m, 0x80);
	CHECK_EQ(ioctl(m.vcpu, KVM_SMI, 0), 0);
	RUN_TO_PORT(&m, 0x81);
	e = events(&m);
	e.smi.latched_init = 1;
	CHECK_EQ(set_events(&m, e), 0);
	CHECK_EQ(events(&m).smi.latched_init, 1);
	/* After RSM the processor starts at its reset vector, where nothing is. */
	RUN_TO(&m, KVM_EXIT_INTERNAL_ERROR);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_REGS, &regs), 0);
	CHECK_EQ(regs.rip, 0xfff0);
	CHECK_EQ(events(&m).smi.latched_init, 0);
	close_machine(&m);
}

/* HLT ends with an SMI; RSM goes on behind it. */
static void test_halted(void)
{
	struct machine m = machine_open();

	CHECK_EQ(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	MACHINE_CODE(&m, 0xf4, 0xe6, 0x80); /* hlt; out %al,$0x80 */
	add_smram(&m);
	CHECK_EQ(ioctl(m.vcpu, KVM_SMI, 0), 0);
	RUN_TO_PORT(&m, 0x81);
	CHECK_EQ(ioctl(m.vcpu, KVM_SMI, 0), 0);
	RUN_TO_PORT(&m, 0x81); /* the second at once after RSM, before HLT */
	m.run->immediate_exit = 1;
	CHECK_ERR(ioctl(m.vcpu, KVM_RUN, 0), EINTR);
	m.run->immediate_exit = 0;
	CHECK_EQ(ioctl(m.vcpu, KVM_SMI, 0), 0);
	RUN_TO_PORT(&m, 0x81);
	CHECK_EQ(msr_get(m.vcpu, SMI_COUNT), 3);
	close_machine(&m);
}

/* mov $0x830,%ecx; xor %edx,%edx; mov $0x44200,%eax (to itself, SMI); wrmsr; out %al,$0x80 */
static void test_icr(void)
{
	struct machine m = machine_open();
	struct kvm_cpuid_entry2 leaf1 = {.function = 1, .ecx = 1 << 21, .edx = 1 << 9 | 1 << 5};
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entry;
	} cpuid = {.head.nent = 1, .entry = leaf1};

	CHECK_EQ(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	MACHINE_CODE(&m, 0x66, 0xb9, 0x30, 0x08, 0, 0, 0x66, 0x31, 0xd2, 0x66, 0xb8, 0, 0x42, 4, 0,
		     0x0f, 0x30, 0xe6, 0x80);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_CPUID2, &cpuid), 0);
	CHECK_EQ(msr_set(m.vcpu, APIC_BASE, msr_get(m.vcpu, APIC_BASE) | 1 << 10), 1);
	add_smram(&m);
	RUN_TO_PORT(&m, 0x81);
	CHECK_EQ(m.run->flags & KVM_RUN_X86_SMM, KVM_RUN_X86_SMM);
	RUN_TO_PORT(&m, 0x80);
	close_machine(&m);
}

/* The guest neither reads nor writes SMBASE: #GP (vector 13 at the IVT leads to out %al,$0x8d). */
static void test_smbase(void)
{
	struct machine m = machine_open();

	MACHINE_CODE(&m, 0x66, 0xb9, 0x9e, 0, 0, 0, 0x0f, 0x32); /* mov $0x9e,%ecx; rdmsr */
	m.ram[13 * 4 + 1] = 0x20;
	m.ram[0x2000] = 0xe6;
	m.ram[0x2001] = 0x8d;
	CHECK_EQ(msr_get(m.vcpu, MSR_SMBASE), 0x30000);
	RUN_TO_PORT(&m, 0x8d);
	close_machine(&m);
}

/* Slots of the two spaces do not collide, and each has its own dirty log. */
static void test_spaces(void)
{
	struct machine m = open_loop(false);
	struct kvm_dirty_log log = {.slot = SMRAM_SLOT};
	uint8_t *smram = add_smram(&m), *under = map_ram(SMRAM_SIZE);
	uint64_t bits = ~0ull;

	CHECK_EQ(set_region(m.vm, 1, KVM_MEM_LOG_DIRTY_PAGES, SMBASE, SMRAM_SIZE, under), 0);
	CHECK_ERR(set_region(m.vm, 1 << 16 | 2, 0, SMBASE, PAGE, under), EEXIST);
	log.dirty_bitmap = &bits;
	CHECK_ERR(ioctl(m.vm, KVM_GET_DIRTY_LOG, &log), ENOENT);
	CHECK_EQ(set_region(m.vm, SMRAM_SLOT, KVM_MEM_LOG_DIRTY_PAGES, SMBASE, SMRAM_SIZE, smram),
		 0);
	RUN_TO_PORT(&m, 0x80);
	CHECK_EQ(ioctl(m.vcpu, KVM_SMI, 0), 0);
	RUN_TO_PORT(&m, 0x81);
	CHECK_EQ(ioctl(m.vm, KVM_GET_DIRTY_LOG, &log), 0);
	CHECK_EQ(bits, 1 << 15); /* the state-save area */
	log.slot = 1;
	CHECK_EQ(ioctl(m.vm, KVM_GET_DIRTY_LOG, &log), 0);
	CHECK_EQ(bits, 0);
	CHECK(smram[0xfefc] == 0x00 && smram[0xfefe] == 0x02); /* the revision, without long mode */
	log.slot = 2 << 16;
	CHECK_ERR(ioctl(m.vm, KVM_GET_DIRTY_LOG, &log), EINVAL);
	close_machine(&m);
}

/* An area without memory is the VM's end, as in KVM. */
static void test_no_area(void)
{
	struct machine m = open_loop(false);
	struct kvm_regs regs;

	CHECK_EQ(ioctl(m.vcpu, KVM_SMI, 0), 0);
	CHECK_ERR(ioctl(m.vcpu, KVM_RUN, 0), EIO);
	CHECK_ERR(ioctl(m.vcpu, KVM_GET_REGS, &regs), EIO);
	CHECK_ERR(ioctl(m.vm, KVM_CHECK_EXTENSION, KVM_CAP_X86_SMM), EIO);
	close_machine(&m);
}

/* A state that cannot be is a shutdown outside of SMM. */
static void test_bad_rsm(void)
{
	struct machine m = open_loop(false);
	uint8_t *smram = add_smram(&m);

	CHECK_EQ(ioctl(m.vcpu, KVM_SMI, 0), 0);
	RUN_TO_PORT(&m, 0x81);
	smram[0xffff] = 0x80; /* CR0.PG without PE */
	RUN_TO(&m, KVM_EXIT_SHUTDOWN);
	CHECK_EQ(m.run->flags & KVM_RUN_X86_SMM, 0);
	CHECK_EQ(events(&m).smi.smm, 0);
	close_machine(&m);
}

int main(void)
{
	test_caps();
	test_smi();
	test_events();
	test_latched_init();
	test_halted();
	test_icr();
	test_smbase();
	test_spaces();
	test_no_area();
	test_bad_rsm();
	return 0;
}
