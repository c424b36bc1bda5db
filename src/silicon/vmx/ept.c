/* SPDX-License-Identifier: MIT */
/*
 * EPT (SDM, the extended page table mechanism): four levels, accessed and dirty bits, mode-based execute control,
 * page-modification log.
 *
 * As in mmu/walk.c: read down to the leaf, judge, and only then set bits, each by compare and exchange against the value
 * that was judged. What is refused becomes an exit by virt_refuse().
 */
#include "host/guard.h"
#include "silicon/mmu/log.h"
#include "silicon/mmu/tlb.h"
#include "silicon/vmx/vmx_internal.h"

#define EPT_R	 BIT(0)
#define EPT_W	 BIT(1)
#define EPT_X	 BIT(2)
#define EPT_PS	 BIT(7)
#define EPT_A	 BIT(8)
#define EPT_D	 BIT(9)
#define EPT_XU	 BIT(10)
#define EPT_ADDR GENMASK(51, 12)

#define EPTP_AD	      BIT(6)
#define EPTP_RESERVED GENMASK(11, 7)

#define EPTQ_USER_FETCH BIT(6)

struct ept_step {
	gpa_t gpa;
	uint8_t *hva;
	uint64_t val;
	bool writable, log;
};

struct ept_walk {
	struct cpu *cpu;
	struct stage2 *s;
	const struct vmx *v;
	bool ad, mbec;
	uint8_t op; /* enum access_op; of tables with A and D bits on: writes */
	unsigned level;
	struct ept_step step[5];
	uint64_t all; /* AND of all entries */
};

bool eptp_ok(const struct cpu *cpu, uint64_t eptp)
{
	uint64_t caps = vmx_of(cpu)->caps.msr[VMX_EPT_VPID];
	unsigned type = eptp & 7;

	if (!(type == 0 && (caps & EPT_UC)) && !(type == 6 && (caps & EPT_WB)))
		return false;
	if ((eptp >> 3 & 7) != 3 || ((eptp & EPTP_AD) && !(caps & EPT_AD)))
		return false;
	return !(eptp & EPTP_RESERVED) && !(eptp >> cpu->maxphyaddr);
}

/* ---- what is refused ---- */

static enum result refuse(struct ept_walk *w, enum vmx_reason reason, uint64_t qualification)
{
	vmx_of(w->cpu)->refused_linear = w->s->linear ? w->s->addr : 0;
	if (w->s->linear && w->s->op)
		mmu_refused_page(w->cpu, w->s->addr);
	return virt_refuse(w->cpu, reason, qualification, w->s->gpa);
}

static uint64_t nmi_unblocked(const struct cpu *cpu)
{
	return vmx_iret_unblocked(cpu) ? EPTQ_NMI_UNBLOCKED : 0;
}

static enum result misconfigured(struct ept_walk *w)
{
	return refuse(w, REASON_EPT_MISCONFIG, 0);
}

/* Rights as the qualification shows them: of the entries that were read. */
static enum result violation(struct ept_walk *w)
{
	uint64_t q = 0;

	if (w->op & ACCESS_READ)
		q |= EPTQ_READ;
	if (w->op & ACCESS_WRITE)
		q |= EPTQ_WRITE;
	if (w->op & ACCESS_FETCH)
		q |= EPTQ_FETCH;
	q |= (w->all & (EPT_R | EPT_W | EPT_X)) << 3;
	if (w->mbec && (w->all & EPT_XU))
		q |= EPTQ_USER_FETCH;
	if (w->s->linear)
		q |= EPTQ_LINEAR | (w->s->table ? 0 : EPTQ_TRANSLATED);
	q |= nmi_unblocked(w->cpu);
	return refuse(w, REASON_EPT_VIOLATION, q);
}

/* ---- the entries ---- */

static bool present(const struct ept_walk *w, uint64_t val)
{
	return val & (EPT_R | EPT_W | EPT_X | (w->mbec ? EPT_XU : 0));
}

static bool is_leaf(const struct ept_walk *w, uint64_t val)
{
	return w->level == 1 || (w->level < 4 && (val & EPT_PS));
}

static unsigned level_shift(unsigned level)
{
	return PAGE_SHIFT + 9 * (level - 1);
}

static uint64_t reserved(const struct ept_walk *w, bool leaf)
{
	uint64_t caps = w->v->caps.msr[VMX_EPT_VPID];
	uint64_t mask = w->cpu->maxphyaddr < 52 ? GENMASK(51, w->cpu->maxphyaddr) : 0;

	if (!leaf)
		return mask | GENMASK(6, 3) | (w->level == 4 ? EPT_PS : 0);
	if (w->level == 1)
		return mask;
	if (!(caps & (w->level == 2 ? EPT_2M : EPT_1G)))
		mask |= EPT_PS;
	return mask | GENMASK(level_shift(w->level) - 1, 12);
}

/* SDM, EPT misconfigurations. */
static bool well_formed(const struct ept_walk *w, uint64_t val)
{
	bool leaf = is_leaf(w, val);
	unsigned type = val >> 3 & 7;

	if ((val & EPT_W) && !(val & EPT_R))
		return false;
	if (!(val & EPT_R) && !(w->v->caps.msr[VMX_EPT_VPID] & EPT_EXEC_ONLY))
		return false;
	if (leaf && (type == 2 || type == 3 || type == 7))
		return false;
	return !(val & reserved(w, leaf));
}

/* A table outside of RAM reads as an entry that is not present. */
static enum result read_entry(struct ept_walk *w, gpa_t table, struct ept_step *step)
{
	uint64_t index = w->s->gpa >> level_shift(w->level) & 0x1ff;
	struct ram_page page;

	step->gpa = table + 8 * index;
	step->val = 0;
	step->hva = NULL;
	tlb_memory(w->cpu, step->gpa, &page);
	if (page.closed)
		return mmu_exit(w->cpu, CPU_EXIT_MEMORY, step->gpa, 8);
	if (!page.hva)
		return RESULT_OK;
	step->hva = page.hva + (step->gpa & ~PAGE_MASK);
	step->writable = page.writable;
	step->log = page.log;
	if (!host_load_64(step->hva, &step->val))
		return mmu_exit(w->cpu, CPU_EXIT_MEMORY, step->gpa, 8);
	return RESULT_OK;
}

static enum result descend(struct ept_walk *w, gpa_t table)
{
	w->all = ~0ull;
	for (w->level = 4;; w->level--) {
		struct ept_step *step = &w->step[w->level];
		enum result r = read_entry(w, table, step);

		if (r)
			return r;
		w->all &= step->val;
		if (!present(w, step->val))
			return violation(w);
		if (!well_formed(w, step->val))
			return misconfigured(w);
		if (is_leaf(w, step->val))
			return RESULT_OK;
		table = step->val & EPT_ADDR;
	}
}

/* ---- rights ---- */

static uint8_t rights(const struct ept_walk *w)
{
	uint64_t fetch = w->mbec && w->s->user && !w->s->table ? EPT_XU : EPT_X;
	uint8_t ret = 0;

	if (w->all & EPT_R)
		ret |= ACCESS_READ;
	if (w->all & EPT_W)
		ret |= ACCESS_WRITE;
	if (w->all & fetch)
		ret |= ACCESS_FETCH;
	return ret;
}

/* ---- accessed, dirty, and the log ---- */

static enum result set_bits(struct ept_walk *w, struct ept_step *step, uint64_t bits)
{
	uint64_t was = step->val;

	if ((step->val & bits) == bits || !step->hva || !step->writable)
		return RESULT_OK;
	if (step->log)
		platform_call(w->cpu, mark_dirty, step->gpa);
	mmu_log_table(w->cpu->tlb->log, step->hva, step->gpa, 8);
	if (!host_cmpxchg_64(step->hva, &was, step->val | bits))
		return mmu_exit(w->cpu, CPU_EXIT_MEMORY, step->gpa, 8);
	if (was != step->val)
		return RESULT_AGAIN;
	step->val |= bits;
	return RESULT_OK;
}

static bool makes_dirty(const struct ept_walk *w)
{
	return w->op & ACCESS_WRITE;
}

/* SDM, page-modification logging: before a dirty bit is set, a place for it. */
static enum result log_page(struct ept_walk *w)
{
	struct vmx *v = vmx_of(w->cpu);
	uint64_t index = get(v, VMCS_PML_INDEX), gpa = w->s->gpa & PAGE_MASK;

	if (!ctl2(v, CPU2_PML) || !makes_dirty(w) || (w->step[w->level].val & EPT_D))
		return RESULT_OK;
	if (index > 511)
		return refuse(w, REASON_PML_FULL, nmi_unblocked(w->cpu));
	mmu_write_phys_bytes(w->cpu, get(v, VMCS_PML_ADDR) + 8 * index, &gpa, 8);
	put(v, VMCS_PML_INDEX, (uint16_t)(index - 1));
	return RESULT_OK;
}

static enum result set_accessed(struct ept_walk *w)
{
	enum result r = log_page(w);

	for (unsigned level = 4; !r && level >= w->level; level--) {
		bool dirty = level == w->level && makes_dirty(w);

		r = set_bits(w, &w->step[level], EPT_A | (dirty ? EPT_D : 0));
	}
	return r;
}

/* ---- the walk ---- */

static void finish(struct ept_walk *w)
{
	struct stage2 *s = w->s;
	uint64_t leaf = w->step[w->level].val;

	s->page_shift = level_shift(w->level);
	s->out = (leaf & EPT_ADDR & ~(BIT(s->page_shift) - 1)) |
		 (s->gpa & (BIT(s->page_shift) - 1));
	s->rights = rights(w);
	s->dirty = !w->ad || (leaf & EPT_D);
	s->apart = false;
}

static enum result walk(struct cpu *cpu, struct stage2 *s)
{
	const struct vmx *v = vmx_of(cpu);
	uint64_t eptp = get(v, VMCS_EPTP);
	struct ept_walk w = {
		.cpu = cpu,
		.s = s,
		.v = v,
		.ad = eptp & EPTP_AD,
		.mbec = ctl2(v, CPU2_MBEC),
		.op = s->op,
	};
	enum result r;

	if (s->table && w.ad && s->op)
		w.op |= ACCESS_WRITE;
	r = descend(&w, eptp & EPT_ADDR);
	if (!r && (w.op & ~rights(&w)))
		r = violation(&w);
	if (!r && w.ad && !s->dry)
		r = set_accessed(&w);
	if (!r)
		finish(&w);
	return r;
}

/* Bits of EPTP's that are 0, for what else the walk goes by. */
#define WORLD_MBEC BIT(8)
#define WORLD_PML  BIT(9)

void vmx_world(struct cpu *cpu, struct virt_world *ret)
{
	const struct vmx *v = vmx_of(cpu);

	*ret = (struct virt_world){.guest = true, .untagged = !ctl2(v, CPU2_VPID)};
	if (!ret->untagged)
		ret->id = get(v, VMCS_VPID);
	if (ctl2(v, CPU2_EPT))
		ret->second = get(v, VMCS_EPTP) | (ctl2(v, CPU2_MBEC) ? WORLD_MBEC : 0) |
			      (ctl2(v, CPU2_PML) ? WORLD_PML : 0);
	if (ctl2(v, CPU2_APIC_ACCESS))
		ret->apic = get(v, VMCS_APIC_ACCESS_ADDR) | 1;
}

static void identity(struct stage2 *s)
{
	s->out = s->gpa;
	s->rights = ACCESS_READ | ACCESS_WRITE | ACCESS_FETCH;
	s->page_shift = PAGE_SHIFT;
	s->dirty = true;
	s->apart = false;
}

enum result ept_translate(struct cpu *cpu, struct stage2 *s)
{
	const struct vmx *v = vmx_of(cpu);
	gpa_t apic = get(v, VMCS_APIC_ACCESS_ADDR);
	enum result r = RESULT_OK;

	if (!ctl2(v, CPU2_EPT))
		identity(s);
	else
		r = walk(cpu, s);
	if (r || !ctl2(v, CPU2_APIC_ACCESS) || (s->out & PAGE_MASK) != apic || !s->op)
		return r;
	return vapic_access(cpu, s);
}
