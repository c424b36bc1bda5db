/* SPDX-License-Identifier: MIT */
/*
 * APIC virtualization (SDM, APIC virtualization and virtual interrupts): the virtual-APIC page in place of a local APIC.
 *
 * Registers stand in guest memory, in the page that the VMCS names. Accesses to the APIC-access page are led there where the
 * controls virtualize them, and end in an exit elsewhere; what a write brings with it (TPR, EOI, self-IPI) follows behind
 * the instruction.
 */
#include "silicon/sys/apic_page.h"
#include "silicon/vmx/vmx_internal.h"

static gpa_t page_of(const struct cpu *cpu)
{
	return get(vmx_of(cpu), VMCS_VAPIC_ADDR);
}

uint32_t vapic_read(struct cpu *cpu, unsigned offset)
{
	return sys_apic_read(cpu, page_of(cpu), offset);
}

void vapic_write(struct cpu *cpu, unsigned offset, uint32_t val)
{
	sys_apic_write(cpu, page_of(cpu), offset, val);
}

/* ---- bits of VIRR and VISR ---- */

static void set_bit(struct cpu *cpu, unsigned base, uint8_t vector, bool on)
{
	unsigned offset = base + vector / 32 * 16;
	uint32_t val = vapic_read(cpu, offset), bit = 1u << (vector & 31);

	vapic_write(cpu, offset, on ? val | bit : val & ~bit);
}

static uint8_t highest(struct cpu *cpu, unsigned base)
{
	return sys_apic_highest(cpu, page_of(cpu), base);
}

static uint8_t rvi(const struct vmx *v)
{
	return get(v, VMCS_INTR_STATUS);
}

static uint8_t svi(const struct vmx *v)
{
	return get(v, VMCS_INTR_STATUS) >> 8;
}

static void set_status(struct vmx *v, uint8_t request, uint8_t service)
{
	put(v, VMCS_INTR_STATUS, request | service << 8);
}

/* ---- TPR, PPR, EOI ---- */

static void virtualize_ppr(struct cpu *cpu)
{
	uint8_t tpr = vapic_read(cpu, LAPIC_TPR);

	vapic_write(cpu, LAPIC_PPR, sys_apic_ppr(tpr, svi(vmx_of(cpu))));
}

bool vapic_pending(struct cpu *cpu)
{
	return ctl2(vmx_of(cpu), CPU2_VID) &&
	       rvi(vmx_of(cpu)) >> 4 > (vapic_read(cpu, LAPIC_PPR) >> 4 & 0xf);
}

uint8_t vapic_deliver(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);
	uint8_t vector = rvi(v);

	set_bit(cpu, LAPIC_ISR, vector, true);
	vapic_write(cpu, LAPIC_PPR, vector & 0xf0);
	set_bit(cpu, LAPIC_IRR, vector, false);
	set_status(v, highest(cpu, LAPIC_IRR), vector);
	return vector;
}

bool vapic_tpr_written(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);

	if (ctl2(v, CPU2_VID)) {
		virtualize_ppr(cpu);
		return false;
	}
	if ((vapic_read(cpu, LAPIC_TPR) >> 4 & 0xf) >= (get(v, VMCS_TPR_THRESHOLD) & 0xf))
		return false;
	vmx_exit(cpu, REASON_TPR_BELOW, 0);
	return true;
}

static bool eoi_written(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);
	uint8_t vector = svi(v);

	set_bit(cpu, LAPIC_ISR, vector, false);
	set_status(v, rvi(v), highest(cpu, LAPIC_ISR));
	virtualize_ppr(cpu);
	if (!(get(v, VMCS_EOI_EXIT0 + vector / 64) >> (vector & 63) & 1))
		return false;
	vmx_exit(cpu, REASON_EOI, vector);
	return true;
}

static void request(struct cpu *cpu, uint8_t vector)
{
	struct vmx *v = vmx_of(cpu);

	set_bit(cpu, LAPIC_IRR, vector, true);
	set_status(v, max(rvi(v), vector), svi(v));
}

/* ---- writes to the page ---- */

/* Destination shorthand self, fixed, edge, what is reserved 0; level and destination mode are not asked for. */
#define ICR_ASKED      0xffffb700u
#define ICR_SELF_FIXED 0x40000u

static bool vector_ok(uint32_t vector)
{
	return (vector & 0xff) > 15;
}

static bool self_ipi(uint32_t icr)
{
	return (icr & ICR_ASKED) == ICR_SELF_FIXED && vector_ok(icr);
}

static bool apic_write_exit(struct cpu *cpu, unsigned offset)
{
	vmx_exit(cpu, REASON_APIC_WRITE, offset);
	return true;
}

/* SDM, APIC-write emulation. */
bool vapic_written(struct cpu *cpu, unsigned offset)
{
	bool vid = ctl2(vmx_of(cpu), CPU2_VID);

	switch (offset & ~3u) {
	case LAPIC_TPR:
		vapic_write(cpu, LAPIC_TPR, vapic_read(cpu, LAPIC_TPR) & 0xff);
		return vapic_tpr_written(cpu);
	case LAPIC_EOI:
		if (!vid)
			break;
		vapic_write(cpu, LAPIC_EOI, 0);
		return eoi_written(cpu);
	case LAPIC_ICR:
		if (!vid || !self_ipi(vapic_read(cpu, LAPIC_ICR)))
			break;
		request(cpu, vapic_read(cpu, LAPIC_ICR));
		return false;
	case LAPIC_ICR2:
		vapic_write(cpu, LAPIC_ICR2, vapic_read(cpu, LAPIC_ICR2) & 0xff000000);
		return false;
	}
	return apic_write_exit(cpu, offset & ~3u);
}

static bool is_lvt_or_timer(unsigned reg)
{
	return (reg >= LAPIC_LVT_TIMER && reg <= LAPIC_LVT_ERROR) || reg == LAPIC_TIMER_INITIAL ||
	       reg == LAPIC_TIMER_DIVIDE;
}

/* Registers that APIC-register virtualization lets the guest read. */
static bool readable(unsigned reg)
{
	if (reg >= LAPIC_ISR && reg <= 0x270)
		return true;
	return reg == LAPIC_ID || reg == LAPIC_VERSION || reg == LAPIC_TPR || reg == LAPIC_EOI ||
	       reg == LAPIC_LDR || reg == LAPIC_DFR || reg == LAPIC_SVR || reg == LAPIC_ESR ||
	       reg == LAPIC_ICR || reg == LAPIC_ICR2 || is_lvt_or_timer(reg);
}

static bool writable(unsigned reg)
{
	return reg == LAPIC_ID || reg == LAPIC_TPR || reg == LAPIC_EOI || reg == LAPIC_LDR ||
	       reg == LAPIC_DFR || reg == LAPIC_SVR || reg == LAPIC_ESR || reg == LAPIC_ICR ||
	       reg == LAPIC_ICR2 || is_lvt_or_timer(reg);
}

static bool virtualized(const struct vmx *v, unsigned offset, bool write)
{
	unsigned reg = offset & 0xff0;

	if (!ctl(v, CPU_TPR_SHADOW) || (offset & 0xf) > 3)
		return false;
	if (reg == LAPIC_TPR)
		return true;
	if (ctl2(v, CPU2_APIC_REGS))
		return write ? writable(reg) : readable(reg);
	return write && ctl2(v, CPU2_VID) && (reg == LAPIC_EOI || reg == LAPIC_ICR);
}

/* The exit qualification's access types. */
static unsigned access_type(const struct stage2 *s)
{
	if (!s->linear || s->table)
		return 15;
	return s->op & ACCESS_FETCH ? 2 : s->op & ACCESS_WRITE ? 1 : 0;
}

enum result vapic_access(struct cpu *cpu, struct stage2 *s)
{
	struct vmx *v = vmx_of(cpu);
	unsigned offset = s->out & ~PAGE_MASK;
	bool write = s->op & ACCESS_WRITE;

	s->apart = true;
	if (!s->linear || s->table || s->op == ACCESS_FETCH || s->op == ACCESS_RMW ||
	    !virtualized(v, offset, write)) {
		v->refused_linear = s->linear ? s->addr : 0;
		return virt_refuse(cpu, REASON_APIC_ACCESS, offset | access_type(s) << 12, s->gpa);
	}
	s->out = get(v, VMCS_VAPIC_ADDR) + offset;
	s->rights = write ? ACCESS_READ | ACCESS_WRITE : ACCESS_READ;
	s->dirty = true;
	s->page_shift = PAGE_SHIFT;
	if (write && !s->dry) {
		v->apic_wrote = true;
		v->apic_offset = offset;
		cpu_raise(cpu, ATTN_VIRT);
	}
	return RESULT_OK;
}

/* ---- x2APIC mode ---- */

#define MSR_TPR	     0x808
#define MSR_EOI	     0x80b
#define MSR_SELF_IPI 0x83f

static unsigned msr_offset(uint32_t index)
{
	return (index & 0xff) << 4;
}

bool vapic_msr_read(struct cpu *cpu, uint32_t index)
{
	const struct vmx *v = vmx_of(cpu);
	unsigned offset = msr_offset(index);

	if (!ctl2(v, CPU2_X2APIC) || (index != MSR_TPR && !ctl2(v, CPU2_APIC_REGS)))
		return false;
	cpu->gpr[RAX] = vapic_read(cpu, offset);
	cpu->gpr[RDX] = vapic_read(cpu, offset + 4);
	vmx_retire(cpu);
	return true;
}

static bool msr_value_ok(uint32_t index, uint64_t val)
{
	if (index == MSR_EOI)
		return !val;
	return !(val >> 8);
}

bool vapic_msr_write(struct cpu *cpu, uint32_t index)
{
	struct vmx *v = vmx_of(cpu);
	uint64_t val = (uint32_t)cpu->gpr[RAX] | cpu->gpr[RDX] << 32;
	bool vid = ctl2(v, CPU2_VID);

	if (!ctl2(v, CPU2_X2APIC) ||
	    (index != MSR_TPR && !(vid && (index == MSR_EOI || index == MSR_SELF_IPI))))
		return false;
	if (!msr_value_ok(index, val))
		return vmx_raise(cpu, VEC_GP);
	vapic_write(cpu, msr_offset(index), val);
	vmx_retire(cpu);
	if (index == MSR_SELF_IPI && vector_ok(val))
		request(cpu, val);
	else
		vapic_written(cpu, msr_offset(index));
	if (cpu_guest(cpu))
		attend_update(cpu);
	return true;
}

/* ---- posted interrupts ---- */

/* End the notification in the hypervisor's own local APIC, in its present mode. */
static void end_notification(struct cpu *cpu)
{
	uint64_t base = 0;

	sys_msr_get(cpu, MSR_APIC_BASE, MSR_GUEST, &base);
	if (base & APIC_BASE_X2APIC)
		sys_msr_set(cpu, MSR_EOI, MSR_GUEST, 0);
	else
		platform_call(cpu, mmio_write, (base & PAGE_MASK) + LAPIC_EOI, 4, 0);
}

void vapic_take_posted(struct cpu *cpu)
{
	struct vmx *v = vmx_of(cpu);
	gpa_t desc = get(v, VMCS_PI_DESC_ADDR);
	uint32_t pir[8], zero[8] = {0}, control;

	end_notification(cpu);
	if (mmu_read_phys_bytes(cpu, desc + 32, &control, 4))
		return;
	control &= ~1u;
	mmu_write_phys_bytes(cpu, desc + 32, &control, 4);
	if (mmu_read_phys_bytes(cpu, desc, pir, sizeof(pir)))
		return;
	mmu_write_phys_bytes(cpu, desc, zero, sizeof(zero));
	for (unsigned i = 0; i < 256; i++)
		if (pir[i / 32] >> (i & 31) & 1)
			request(cpu, i);
	attend_update(cpu);
}
