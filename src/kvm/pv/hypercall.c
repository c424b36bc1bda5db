/* SPDX-License-Identifier: MIT */
/*
 * Hypercalls: whose they are (Xen's, Hyper-V's or KVM's own), and KVM's own (Linux's
 * Documentation/virt/kvm/x86/hypercalls.rst). A row says which feature announces it.
 *
 * The other vendor's instruction is patched in place, as KVM does unless KVM_X86_QUIRK_FIX_HYPERCALL_INSN is
 * disabled; then it is #UD.
 */
#include "host/host.h"
#include "kvm/pv/hv.h"
#include "kvm/pv/pv_internal.h"
#include "kvm/pv/xen.h"
#include "silicon/chips/message.h"
#include "silicon/mmu/mmu.h"
#include "silicon/models/model.h"

#include <errno.h>
#include <linux/kvm_para.h>
#include <string.h>

/* ICR fields of KVM_HC_SEND_IPI. */
#define ICR_VECTOR   0xff
#define ICR_DELIVERY 0x700
#define ICR_LOGICAL  0x800
#define ICR_ASSERT   0x4000
#define ICR_LEVEL    0x8000
#define ICR_SHORT    0xc0000

#define ALWAYS 32 /* no feature announces it */

/* ---- helpers of the room ---- */

void pv_hypercall_insn(const struct vcpu *vcpu, uint8_t insn[3])
{
	insn[0] = 0x0f;
	insn[1] = 0x01;
	insn[2] = model_intel(vcpu->cpu.model) ? 0xc1 : 0xd9;
}

bool pv_hypercall_64bit(const struct vcpu *vcpu)
{
	return cpu_64bit(&vcpu->cpu);
}

struct vcpu *pv_find_apic_id(const struct vm *vm, uint32_t id)
{
	unsigned nr = vm_nr_vcpus(vm);

	for (unsigned i = 0; i < nr; i++)
		if (vm->vcpus[i]->id == id)
			return vm->vcpus[i];
	return NULL;
}

bool pv_interrupt(struct vcpu *vcpu, uint8_t vector)
{
	const struct apic_message msg = {.vector = vector, .delivery = APIC_FIXED, .level = true};

	return vcpu->lapic && lapic_accept(vcpu->lapic, &msg);
}

/* ---- KVM's own ---- */

static int64_t poll_irq(struct vcpu *vcpu, const uint64_t arg[4])
{
	return 0;
}

static int64_t kick_cpu(struct vcpu *vcpu, const uint64_t arg[4])
{
	struct vcpu *to = pv_find_apic_id(vcpu->vm, arg[1]);

	if (to)
		vcpu_request(to, REQ_UNHALT);
	vcpu_yield_to(vcpu, to);
	return 0;
}

/* The host's wall clock and the guest's TSC at one moment. */
static int64_t clock_pairing(struct vcpu *vcpu, const uint64_t arg[4])
{
	struct kvm_clock_pairing pair = {0};
	uint64_t tsc, ns;

	if (arg[1] != KVM_CLOCK_PAIRING_WALLCLOCK)
		return -KVM_EOPNOTSUPP;
	clock_pair(vcpu->vm, &tsc, &ns);
	pair.tsc = vcpu_tsc_at(vcpu, tsc);
	pair.sec = ns / 1000000000;
	pair.nsec = ns % 1000000000;
	return vm_write_guest(vcpu->vm, arg[0], &pair, sizeof(pair)) ? -KVM_EFAULT : 0;
}

static int64_t ipi_word(struct vcpu *vcpu, uint64_t bits, uint64_t first,
			const struct apic_message *msg)
{
	int64_t count = 0;

	for (; bits; bits &= bits - 1) {
		struct vcpu *to = pv_find_apic_id(vcpu->vm, first + __builtin_ctzll(bits));

		if (to && to->lapic)
			count += lapic_accept(to->lapic, msg);
	}
	return count;
}

static int64_t send_ipi(struct vcpu *vcpu, const uint64_t arg[4])
{
	uint64_t icr = arg[3];
	uint32_t first = arg[2], step = pv_hypercall_64bit(vcpu) ? 64 : 32;
	const struct apic_message msg = {
		.vector = icr & ICR_VECTOR,
		.delivery = (icr & ICR_DELIVERY) >> 8,
		.level = icr & ICR_ASSERT,
		.trigger = icr & ICR_LEVEL,
	};

	if (icr & (ICR_LOGICAL | ICR_SHORT))
		return -KVM_EINVAL;
	return ipi_word(vcpu, arg[0], first, &msg) +
	       ipi_word(vcpu, arg[1], (uint64_t)first + step, &msg);
}

static int64_t sched_yield_to(struct vcpu *vcpu, const uint64_t arg[4])
{
	vcpu_yield_to(vcpu, pv_find_apic_id(vcpu->vm, arg[0]));
	return 0;
}

static const struct hypercall {
	uint32_t nr;
	uint8_t feature; /* bit of KVM_CPUID_FEATURES that announces it, or ALWAYS */
	int64_t (*call)(struct vcpu *vcpu, const uint64_t arg[4]);
} hypercalls[] = {
	{KVM_HC_VAPIC_POLL_IRQ, ALWAYS, poll_irq},
	{KVM_HC_KICK_CPU, KVM_FEATURE_PV_UNHALT, kick_cpu},
	{KVM_HC_CLOCK_PAIRING, ALWAYS, clock_pairing},
	{KVM_HC_SEND_IPI, KVM_FEATURE_PV_SEND_IPI, send_ipi},
	{KVM_HC_SCHED_YIELD, KVM_FEATURE_PV_SCHED_YIELD, sched_yield_to},
};

static int64_t call_kvm(struct vcpu *vcpu, uint64_t nr, const uint64_t arg[4])
{
	for (unsigned i = 0; i < ARRAY_SIZE(hypercalls); i++)
		if (hypercalls[i].nr == nr &&
		    (hypercalls[i].feature == ALWAYS || pv_has(vcpu, hypercalls[i].feature)))
			return hypercalls[i].call(vcpu, arg);
	return -KVM_ENOSYS;
}

/* Conversion between private and shared memory is the program's to do: 1 if it goes there, else a result. */
static int64_t map_gpa_range(struct vcpu *vcpu, const uint64_t arg[4])
{
	uint64_t gfn = arg[0] >> PAGE_SHIFT, pages = arg[1];
	struct pv_exit *exit = &vcpu->pv->exit;

	if (!(__atomic_load_n(&vcpu->vm->hypercall_exits, __ATOMIC_RELAXED) &
	      BIT(KVM_HC_MAP_GPA_RANGE)))
		return -KVM_ENOSYS;
	if (arg[0] & ~PAGE_MASK || !pages || gfn + pages <= gfn)
		return -KVM_EINVAL;
	*exit = (struct pv_exit){.reason = KVM_EXIT_HYPERCALL};
	exit->hypercall.nr = KVM_HC_MAP_GPA_RANGE;
	memcpy(exit->hypercall.args, arg, 3 * sizeof(arg[0]));
	exit->hypercall.flags = pv_hypercall_64bit(vcpu) ? KVM_EXIT_HYPERCALL_LONG_MODE : 0;
	return 1;
}

static enum platform_answer own_call(struct vcpu *vcpu, uint64_t *ret)
{
	const struct cpu *cpu = &vcpu->cpu;
	uint64_t mask = pv_hypercall_64bit(vcpu) ? ~0ull : UINT32_MAX;
	uint64_t nr = cpu->gpr[RAX] & mask;
	const uint64_t arg[4] = {cpu->gpr[RBX] & mask, cpu->gpr[RCX] & mask, cpu->gpr[RDX] & mask,
				 cpu->gpr[RSI] & mask};
	int64_t r;

	if (cpu->mode.cpl)
		r = -KVM_EPERM;
	else if (nr == KVM_HC_MAP_GPA_RANGE)
		r = map_gpa_range(vcpu, arg);
	else
		r = call_kvm(vcpu, nr, arg);
	if (!cpu->mode.cpl && nr == KVM_HC_MAP_GPA_RANGE && r == 1)
		return PLATFORM_USER;
	stats_add(vcpu->stats, STAT_VCPU_hypercalls, 1);
	*ret = (uint64_t)r & mask;
	return PLATFORM_DONE;
}

/* ---- whose ---- */

/* Put the right instruction in the wrong one's place. False: cpu->fault says why not. */
static bool patch(struct vcpu *vcpu)
{
	struct cpu *cpu = &vcpu->cpu;
	uint8_t insn[3];
	gva_t addr = cpu->rip;

	if (vcpu->vm->disabled_quirks & KVM_X86_QUIRK_FIX_HYPERCALL_INSN) {
		fault_ud(cpu);
		return false;
	}
	if (!cpu_64bit(cpu))
		addr = (uint32_t)(cpu->seg[SEG_CS].base + addr);
	pv_hypercall_insn(vcpu, insn);
	return mmu_write_bytes(cpu, addr, insn, sizeof(insn)) != RESULT_FAULT;
}

enum platform_answer pv_hypercall(struct vcpu *vcpu, bool foreign, uint64_t *ret)
{
	if (foreign && !patch(vcpu))
		return PLATFORM_FAULT;
	if (pv_xen_calls_enabled(vcpu->vm))
		return pv_xen_call(vcpu, ret);
	if (pv_hv_calls_enabled(vcpu))
		return pv_hv_call(vcpu, ret);
	return own_call(vcpu, ret);
}

const struct pv_exit *pv_hypercall_exit(const struct vcpu *vcpu)
{
	return &vcpu->pv->exit;
}

uint64_t pv_hypercall_result(struct vcpu *vcpu, const struct kvm_run *run)
{
	stats_add(vcpu->stats, STAT_VCPU_hypercalls, 1);
	switch (vcpu->pv->exit.reason) {
	case KVM_EXIT_HYPERV:
		if (!pv_hypercall_64bit(vcpu))
			vcpu->cpu.gpr[RDX] = run->hyperv.u.hcall.result >> 32;
		return run->hyperv.u.hcall.result;
	case KVM_EXIT_XEN:
		return run->xen.u.hcall.result;
	default:
		return run->hypercall.ret;
	}
}
