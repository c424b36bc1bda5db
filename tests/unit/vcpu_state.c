/* SPDX-License-Identifier: MIT */
/* Register, event and MSR ioctls: what goes in comes out, and what Linux refuses is refused, unchanged. */
#include "vcpu_fixture.h"

#include <stdlib.h>

/* The model's own CPUID, so that nothing is gated. */
static int setup_cpuid(void **state)
{
	struct kvm_cpuid2 *list = calloc(1, sizeof(*list) + 256 * sizeof(list->entries[0]));
	int r = setup(state);

	list->nent = 256;
	if (!r)
		r = cpuid_get_supported(vcpu->cpu.model, 0, list) || vcpu_set_cpuid2(vcpu, list);
	free(list);
	return r;
}

static struct kvm_sregs sregs(void)
{
	struct kvm_sregs s;

	assert_int_equal(vcpu_get_sregs(vcpu, &s), 0);
	return s;
}

static void refused(struct kvm_sregs s)
{
	struct kvm_sregs before = sregs(), after;

	s.cr2 = 0x1234;
	assert_int_equal(vcpu_set_sregs(vcpu, &s), -EINVAL);
	after = sregs();
	assert_memory_equal(&before, &after, sizeof(before));
}

static void taken(struct kvm_sregs s)
{
	struct kvm_sregs after;

	assert_int_equal(vcpu_set_sregs(vcpu, &s), 0);
	after = sregs();
	assert_memory_equal(&s, &after, sizeof(s));
}

/* SDM, processor state following RESET. */
static void test_reset_state(void **state)
{
	struct kvm_sregs s = sregs();
	struct kvm_regs r = regs();

	assert_int_equal(r.rip, 0xfff0);
	assert_int_equal(r.rflags, 2);
	assert_int_equal(s.cs.selector, 0xf000);
	assert_int_equal(s.cs.base, 0xffff0000);
	assert_int_equal(s.cs.limit, 0xffff);
	assert_int_equal(s.cr0, 0x60000010);
	assert_int_equal(s.idt.limit, 0xffff);
	assert_int_equal(s.apic_base, 0xfee00900);
}

static void test_regs(void **state)
{
	struct kvm_regs in, out;

	for (unsigned i = 0; i < sizeof(in) / 8; i++)
		((uint64_t *)&in)[i] = 0x1111111111111111ull * (i % 15 + 1);
	in.rflags = 0x246 | 1 << 11;
	assert_int_equal(vcpu_set_regs(vcpu, &in), 0);
	out = regs();
	assert_memory_equal(&in, &out, sizeof(in));
	in.rflags = 0; /* bit 1 always reads as 1 */
	assert_int_equal(vcpu_set_regs(vcpu, &in), 0);
	assert_int_equal(regs().rflags, 2);
}

static void test_sregs_cr0(void **state)
{
	struct kvm_sregs s = sregs();

	s.cr0 = CR0_ET | CR0_NW;
	refused(s);
	s.cr0 = CR0_ET | CR0_PG;
	refused(s);
	s.cr0 = CR0_ET | BIT(32);
	refused(s);
	s.cr0 = CR0_ET | CR0_PE;
	taken(s);
}

static void test_sregs_long_mode(void **state)
{
	struct kvm_sregs s = sregs();

	s.cr0 = CR0_ET | CR0_PE | CR0_PG;
	s.efer = EFER_LME | EFER_LMA;
	s.cs.l = 1;
	refused(s); /* no PAE */
	s.cr4 = CR4_PAE;
	s.efer = EFER_LME;
	refused(s); /* no LMA */
	s.efer = EFER_LME | EFER_LMA;
	s.cr3 = BIT(vcpu->cpu.maxphyaddr);
	refused(s);
	s.cr3 = 0x1000;
	taken(s);
	assert_true(cpu_64bit(&vcpu->cpu));
	s.cr0 = CR0_ET | CR0_PE;
	refused(s); /* LMA and CS.L without paging */
}

static void test_sregs_efer_cr4(void **state)
{
	struct kvm_sregs s = sregs();

	s.efer = EFER_SVME;
	refused(s);
	s.efer = BIT(20);
	refused(s);
	s.efer = EFER_NX | EFER_SCE;
	taken(s);
	s.cr4 = CR4_VMXE;
	refused(s);
	s.cr4 = BIT(15);
	refused(s);
}

static void test_sregs_interrupt_bitmap(void **state)
{
	struct kvm_sregs s = sregs(), out;
	struct kvm_vcpu_events e;

	s.interrupt_bitmap[1] = BIT(5);
	assert_int_equal(vcpu_set_sregs(vcpu, &s), 0);
	out = sregs();
	assert_int_equal(out.interrupt_bitmap[1], BIT(5));
	assert_int_equal(vcpu_get_events(vcpu, &e), 0);
	assert_int_equal(e.interrupt.injected, 1);
	assert_int_equal(e.interrupt.nr, 69);
}

static void test_sregs_segments(void **state)
{
	struct kvm_sregs s = sregs();

	s.ds = (struct kvm_segment){.base = 0x12345,
				    .limit = 0xfffff,
				    .selector = 0x10,
				    .type = 3,
				    .present = 1,
				    .dpl = 3,
				    .db = 1,
				    .s = 1,
				    .g = 1,
				    .avl = 1};
	s.ldt = (struct kvm_segment){.unusable = 1};
	taken(s);
}

static void test_sregs2_pdptrs(void **state)
{
	struct kvm_sregs2 s;

	assert_int_equal(vcpu_get_sregs2(vcpu, &s), 0);
	assert_int_equal(s.flags, 0);
	s.flags = 2;
	assert_int_equal(vcpu_set_sregs2(vcpu, &s), -EINVAL);
	s.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
	assert_int_equal(vcpu_set_sregs2(vcpu, &s), -EINVAL); /* no PAE paging */
	s.cr0 = CR0_ET | CR0_PE | CR0_PG;
	s.cr4 = CR4_PAE;
	s.pdptrs[2] = 0x5001;
	assert_int_equal(vcpu_set_sregs2(vcpu, &s), 0);
	memset(&s, 0, sizeof(s));
	assert_int_equal(vcpu_get_sregs2(vcpu, &s), 0);
	assert_int_equal(s.flags, KVM_SREGS2_FLAGS_PDPTRS_VALID);
	assert_int_equal(s.pdptrs[2], 0x5001);
}

static void test_debugregs(void **state)
{
	struct kvm_debugregs d = {.db = {1, 2, 3, 4}, .dr6 = 0xffff0ff1, .dr7 = 0x401}, out;

	assert_int_equal(vcpu_set_debugregs(vcpu, &d), 0);
	assert_int_equal(vcpu_get_debugregs(vcpu, &out), 0);
	assert_memory_equal(&d, &out, sizeof(d));
	d.flags = 1;
	assert_int_equal(vcpu_set_debugregs(vcpu, &d), -EINVAL);
	d.flags = 0;
	d.dr6 = BIT(32);
	assert_int_equal(vcpu_set_debugregs(vcpu, &d), -EINVAL);
	d.dr6 = 0;
	d.dr7 = BIT(32);
	assert_int_equal(vcpu_set_debugregs(vcpu, &d), -EINVAL);
}

/* ---- XSAVE ---- */

static uint64_t *bv(struct kvm_xsave *x)
{
	return (uint64_t *)((uint8_t *)x + 512);
}

static void test_xsave(void **state)
{
	struct kvm_xsave x, out;

	assert_int_equal(vcpu_get_xsave(vcpu, &x), 0);
	assert_int_equal(*(uint16_t *)&x, 0x37f);
	assert_int_equal(x.region[6], 0x1f80);
	memset((uint8_t *)&x + 160, 0x5a, 256); /* XMM */
	*bv(&x) = 3;
	assert_int_equal(vcpu_set_xsave(vcpu, &x), 0);
	assert_int_equal(vcpu_get_xsave(vcpu, &out), 0);
	assert_memory_equal((uint8_t *)&x + 160, (uint8_t *)&out + 160, 256);
	*bv(&x) = 1; /* SSE in its initial state, whatever the bytes say */
	assert_int_equal(vcpu_set_xsave(vcpu, &x), 0);
	assert_int_equal(vcpu_get_xsave(vcpu, &out), 0);
	assert_int_equal(((uint8_t *)&out)[160], 0);
}

static void test_xsave_refused(void **state)
{
	struct kvm_xsave x, before, after;

	assert_int_equal(vcpu_get_xsave(vcpu, &before), 0);
	x = before;
	*bv(&x) = BIT(62);
	assert_int_equal(vcpu_set_xsave(vcpu, &x), -EINVAL);
	*bv(&x) = 3;
	bv(&x)[1] = BIT(63); /* compacted */
	assert_int_equal(vcpu_set_xsave(vcpu, &x), -EINVAL);
	bv(&x)[1] = 0;
	bv(&x)[3] = 1; /* reserved */
	assert_int_equal(vcpu_set_xsave(vcpu, &x), -EINVAL);
	bv(&x)[3] = 0;
	x.region[6] = BIT(16); /* MXCSR */
	assert_int_equal(vcpu_set_xsave(vcpu, &x), -EINVAL);
	assert_int_equal(vcpu_get_xsave(vcpu, &after), 0);
	assert_memory_equal(&before, &after, sizeof(before));
}

static void test_fpu(void **state)
{
	struct kvm_fpu in = {.fcw = 0x27f,
			     .fsw = 0x3800,
			     .ftwx = 0x80,
			     .last_opcode = 0x123,
			     .last_ip = 0x1122334455,
			     .last_dp = 0x66},
		       out;

	memset(in.fpr[0], 0x11, 10);
	memset(in.xmm[15], 0x22, 16);
	assert_int_equal(vcpu_set_fpu(vcpu, &in), 0);
	assert_int_equal(vcpu_get_fpu(vcpu, &out), 0);
	assert_memory_equal(&in, &out, sizeof(in));
}

static void test_xcrs(void **state)
{
	struct kvm_xcrs x;

	assert_int_equal(vcpu_get_xcrs(vcpu, &x), 0);
	assert_int_equal(x.nr_xcrs, 1);
	assert_int_equal(x.xcrs[0].value, 1);
	x.xcrs[0].value = 2; /* without x87 */
	assert_int_equal(vcpu_set_xcrs(vcpu, &x), -EINVAL);
	x.xcrs[0].value = 5; /* AVX without SSE */
	assert_int_equal(vcpu_set_xcrs(vcpu, &x), -EINVAL);
	x.xcrs[0].value = 1 | BIT(9); /* PKRU is not offered */
	assert_int_equal(vcpu_set_xcrs(vcpu, &x), -EINVAL);
	x.xcrs[0].value = 3;
	x.flags = 1;
	assert_int_equal(vcpu_set_xcrs(vcpu, &x), -EINVAL);
	x.flags = 0;
	x.nr_xcrs = KVM_MAX_XCRS + 1;
	assert_int_equal(vcpu_set_xcrs(vcpu, &x), -EINVAL);
	x.nr_xcrs = 1;
	assert_int_equal(vcpu_set_xcrs(vcpu, &x), 0);
	assert_int_equal(vcpu->cpu.xcr0, 3);
}

/* ---- events ---- */

static struct kvm_vcpu_events events(void)
{
	struct kvm_vcpu_events e;

	assert_int_equal(vcpu_get_events(vcpu, &e), 0);
	return e;
}

static void test_events_refused(void **state)
{
	struct kvm_vcpu_events e = events();

	e.flags = 0x40;
	assert_int_equal(vcpu_set_events(vcpu, &e), -EINVAL);
	e.flags = KVM_VCPUEVENT_VALID_PAYLOAD; /* the capability is off */
	assert_int_equal(vcpu_set_events(vcpu, &e), -EINVAL);
	e.flags = KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
	assert_int_equal(vcpu_set_events(vcpu, &e), -EINVAL);
	e.flags = 0;
	e.exception.injected = 1;
	e.exception.nr = 32;
	assert_int_equal(vcpu_set_events(vcpu, &e), -EINVAL);
	e.exception.nr = 2;
	assert_int_equal(vcpu_set_events(vcpu, &e), -EINVAL);
	e.exception.nr = 13;
	e.flags = KVM_VCPUEVENT_VALID_SMM;
	e.smi.smm = 1;
	vcpu->mp_state = KVM_MP_STATE_INIT_RECEIVED;
	assert_int_equal(vcpu_set_events(vcpu, &e), -EINVAL);
	vcpu->mp_state = KVM_MP_STATE_RUNNABLE;
	e = events();
	assert_int_equal(e.exception.injected, 0);
}

static void test_events_exception(void **state)
{
	struct kvm_vcpu_events e = events();

	e.exception.injected = 1;
	e.exception.nr = 13;
	e.exception.has_error_code = 1;
	e.exception.error_code = 0x18;
	assert_int_equal(vcpu_set_events(vcpu, &e), 0);
	e = events();
	assert_int_equal(e.exception.injected, 1);
	assert_int_equal(e.exception.pending, 0);
	assert_int_equal(e.exception.nr, 13);
	assert_int_equal(e.exception.error_code, 0x18);
}

/* A pending page fault's address reaches CR2 only at delivery, if the program knows of payloads. */
static void test_events_payload(void **state)
{
	struct kvm_vcpu_events e;
	struct kvm_sregs s;

	vm->exception_payload = true;
	e = events();
	assert_true(e.flags & KVM_VCPUEVENT_VALID_PAYLOAD);
	e.flags = KVM_VCPUEVENT_VALID_PAYLOAD;
	e.exception.pending = e.exception.injected = 1;
	e.exception.nr = 14;
	e.exception.has_error_code = 1;
	e.exception_has_payload = 1;
	e.exception_payload = 0xdead000;
	assert_int_equal(vcpu_set_events(vcpu, &e), 0);
	e = events();
	assert_int_equal(e.exception.pending, 1);
	assert_int_equal(e.exception.injected, 0);
	assert_int_equal(e.exception_payload, 0xdead000);
	assert_int_equal(sregs().cr2, 0);
	vm->exception_payload = false;
	e = events();
	assert_int_equal(e.exception.injected, 1);
	assert_int_equal(e.exception.pending, 1);
	assert_int_equal(e.exception_has_payload, 0);
	s = sregs();
	assert_int_equal(s.cr2, 0xdead000);
}

static void test_events_nmi_shadow(void **state)
{
	struct kvm_vcpu_events e = events();

	assert_int_equal(vcpu_nmi(vcpu, NULL), 0);
	e = events();
	assert_int_equal(e.nmi.pending, 1);
	e.nmi.pending = 0;
	e.nmi.masked = 1;
	e.interrupt.shadow = KVM_X86_SHADOW_INT_STI;
	e.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
	assert_int_equal(vcpu_set_events(vcpu, &e), 0);
	e = events();
	assert_int_equal(e.nmi.pending, 0);
	assert_int_equal(e.nmi.masked, 1);
	assert_int_equal(e.interrupt.shadow, KVM_X86_SHADOW_INT_STI);
}

static void test_triple_fault_event(void **state)
{
	struct kvm_vcpu_events e;

	vm->triple_fault_event = true;
	LOAD(0xf4);
	e = events();
	e.flags = KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
	e.triple_fault.pending = 1;
	assert_int_equal(vcpu_set_events(vcpu, &e), 0);
	assert_int_equal(events().triple_fault.pending, 1);
	RUN_TO(KVM_EXIT_SHUTDOWN);
	assert_int_equal(events().triple_fault.pending, 0);
}

static void test_mp_state(void **state)
{
	struct kvm_mp_state mp = {.mp_state = KVM_MP_STATE_HALTED};

	assert_int_equal(vcpu_set_mp_state(vcpu, &mp), -EINVAL); /* no local APIC */
	mp.mp_state = 77;
	assert_int_equal(vcpu_set_mp_state(vcpu, &mp), -EINVAL);
	mp.mp_state = KVM_MP_STATE_RUNNABLE;
	assert_int_equal(vcpu_set_mp_state(vcpu, &mp), 0);
}

/* ---- MSRs ---- */

struct msr_list {
	struct kvm_msrs head;
	struct kvm_msr_entry e[4];
};

static void test_msrs(void **state)
{
	struct msr_list m = {.head.nmsrs = 3,
			     .e = {{.index = 0x174, .data = 0x10},
				   {.index = 0xc0000082, .data = 0x1000},
				   {.index = 0x277, .data = 0x0606060606060606}}};

	assert_int_equal(vcpu_set_msrs(vcpu, &m), 3);
	memset(m.e, 0xff, sizeof(m.e));
	m.e[0].index = 0x174;
	m.e[1].index = 0xc0000082;
	m.e[2].index = 0x277;
	assert_int_equal(vcpu_get_msrs(vcpu, &m), 3);
	assert_int_equal(m.e[0].data, 0x10);
	assert_int_equal(m.e[1].data, 0x1000);
	assert_int_equal(m.e[2].data, 0x0606060606060606);
}

/* As many as were dealt with before the first bad one. */
static void test_msrs_stop_at_unknown(void **state)
{
	struct msr_list m = {.head.nmsrs = 3,
			     .e = {{.index = 0x174}, {.index = 0x12345}, {.index = 0x277}}};

	guard();
	assert_int_equal(vcpu_get_msrs(vcpu, &m), 1);
	m.head.nmsrs = 256;
	assert_int_equal(vcpu_get_msrs(vcpu, &m), -E2BIG);
	assert_int_equal(vcpu_get_msrs(vcpu, NULL), -EFAULT);
}

static void test_tsc(void **state)
{
	struct msr_list m = {.head.nmsrs = 1, .e = {{.index = 0x10, .data = 1ull << 40}}};
	struct kvm_device_attr attr = {.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET};
	uint64_t offset = 12345;

	guard();
	assert_int_equal(vcpu_set_msrs(vcpu, &m), 1);
	assert_int_equal(vcpu_get_msrs(vcpu, &m), 1);
	assert_true(m.e[0].data - (1ull << 40) < 10000000000ull);
	assert_int_equal(vcpu_has_device_attr(vcpu, &attr), 0);
	attr.addr = (uintptr_t)&offset;
	assert_int_equal(vcpu_set_device_attr(vcpu, &attr), 0);
	offset = 0;
	assert_int_equal(vcpu_get_device_attr(vcpu, &attr), 0);
	assert_int_equal(offset, 12345);
	attr.addr = 0;
	assert_int_equal(vcpu_get_device_attr(vcpu, &attr), -EFAULT);
	attr.attr = 9;
	assert_int_equal(vcpu_has_device_attr(vcpu, &attr), -ENXIO);
	attr.group = 9;
	assert_int_equal(vcpu_set_device_attr(vcpu, &attr), -ENXIO);
}

static void test_tsc_khz(void **state)
{
	long khz = vcpu_get_tsc_khz(vcpu, NULL);

	assert_true(khz > 0);
	assert_int_equal(vcpu_set_tsc_khz(vcpu, (void *)0x7fffffffl), -EINVAL);
	assert_int_equal(vcpu_set_tsc_khz(vcpu, (void *)(khz / 2)), 0);
	assert_int_equal(vcpu_get_tsc_khz(vcpu, NULL), khz / 2);
	assert_null(vcpu->cpu.tsc_offset);
	assert_int_equal(vcpu_set_tsc_khz(vcpu, NULL), 0);
	assert_int_equal(vcpu_get_tsc_khz(vcpu, NULL), khz);
	assert_ptr_equal(vcpu->cpu.tsc_offset, &vcpu->tsc_offset);
}

static void test_mce(void **state)
{
	uint64_t cap = 0x10a | BIT(8);
	struct kvm_x86_mce mce = {.status = BIT(63), .bank = 10, .addr = 0x1000};

	assert_int_equal(vcpu_setup_mce(vcpu, &cap), 0);
	assert_int_equal(vcpu_set_mce(vcpu, &mce), -EINVAL);
	mce.bank = 9;
	mce.status = 0;
	assert_int_equal(vcpu_set_mce(vcpu, &mce), -EINVAL);
	mce.status = BIT(63);
	assert_int_equal(vcpu_set_mce(vcpu, &mce), 0);
	assert_int_equal(vcpu->cpu.msr.mce_banks[4 * 9 + 2], 0x1000);
	cap = 0;
	assert_int_equal(vcpu_setup_mce(vcpu, &cap), -EINVAL);
	cap = 33;
	assert_int_equal(vcpu_setup_mce(vcpu, &cap), -EINVAL);
	cap = 10 | BIT(40);
	assert_int_equal(vcpu_setup_mce(vcpu, &cap), -EINVAL);
}

/* ---- what needs a local APIC ---- */

static void test_without_lapic(void **state)
{
	uint8_t page[0x400];
	struct kvm_vapic_addr va = {0};

	assert_int_equal(vcpu_get_lapic(vcpu, page), -EINVAL);
	assert_int_equal(vcpu_set_lapic(vcpu, page), -EINVAL);
	assert_int_equal(vcpu_set_vapic_addr(vcpu, &va), -EINVAL);
	assert_int_equal(vcpu_smi(vcpu, NULL), 0); /* needs none */
}

static void test_with_lapic(void **state)
{
	uint8_t page[0x400];
	struct kvm_vapic_addr va = {.vapic_addr = 0x900000};
	struct kvm_interrupt irq = {.irq = 0x20};
	struct kvm_tpr_access_ctl ctl = {.flags = 1};

	assert_int_equal(vcpu_get_lapic(vcpu, page), 0);
	assert_int_equal(*(uint32_t *)(page + 0xf0), 0xff); /* SVR after RESET */
	assert_int_equal(vcpu_set_lapic(vcpu, page), 0);
	assert_int_equal(vcpu_set_vapic_addr(vcpu, &va), -EINVAL); /* no memory there */
	va.vapic_addr = 0x900;
	assert_int_equal(vcpu_set_vapic_addr(vcpu, &va), 0);
	assert_int_equal(vcpu_interrupt(vcpu, &irq), -ENXIO);
	assert_int_equal(vcpu_tpr_access_reporting(vcpu, &ctl), -EINVAL);
}

static void test_translate(void **state)
{
	struct kvm_translation t = {.linear_address = 0x4321};

	assert_int_equal(vcpu_translate(vcpu, &t), 0);
	assert_int_equal(t.valid, 1);
	assert_int_equal(t.physical_address, 0x4321);
}

#define T(name)	    cmocka_unit_test_setup_teardown(name, setup_cpuid, teardown)
#define T_IRQ(name) cmocka_unit_test_setup_teardown(name, setup_irqchip, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_reset_state),
		T(test_regs),
		T(test_sregs_cr0),
		T(test_sregs_long_mode),
		T(test_sregs_efer_cr4),
		T(test_sregs_interrupt_bitmap),
		T(test_sregs_segments),
		T(test_sregs2_pdptrs),
		T(test_debugregs),
		T(test_xsave),
		T(test_xsave_refused),
		T(test_fpu),
		T(test_xcrs),
		T(test_events_refused),
		T(test_events_exception),
		T(test_events_payload),
		T(test_events_nmi_shadow),
		T(test_triple_fault_event),
		T(test_mp_state),
		T(test_msrs),
		T(test_msrs_stop_at_unknown),
		T(test_tsc),
		T(test_tsc_khz),
		T(test_mce),
		T(test_without_lapic),
		T_IRQ(test_with_lapic),
		T(test_translate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
