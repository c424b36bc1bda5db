/* SPDX-License-Identifier: MIT */
/*
 * AVIC (APM, advanced virtual interrupt controller): a page of the hypervisor's memory in place of a guest's local APIC.
 *
 * Accesses to the guest's APIC page are led to the backing page where the APM's table of guest accesses allows them, and end
 * in an exit (AVIC_NOACCEL) before anything is done elsewhere. What a write brings with it follows behind the instruction: TPR,
 * EOI and the interrupt command are carried out, other registers are the hypervisor's to look at, by an exit behind the write.
 * IPIs find their targets by the two tables that the VMCB names: a bit of IRR is set in each one's page, and whose
 * processor runs it is rung for (MSR C001_011BH); where a table does not know, or nobody runs the target, is an exit
 * (AVIC_INCOMPLETE_IPI).
 *
 * Other processors set bits of IRR meanwhile, so these change by LOCK CMPXCHG. Interrupts are looked for at VMRUN, when the
 * doorbell rings, and whenever something opens.
 */
#include "silicon/mmu/mmu.h"
#include "silicon/mmu/pte.h"
#include "silicon/svm/svm_internal.h"
#include "silicon/sys/apic_page.h"

#define MSR_DOORBELL 0xc001011b

/* Bit n: the register at 10H * n. */
#define REG(offset)	  BIT((offset) / 16)
#define REGS(first, last) GENMASK((last) / 16, (first) / 16)
#define ACCELERATED	  (REG(LAPIC_TPR) | REG(LAPIC_EOI) | REG(LAPIC_ICR) | REG(LAPIC_ICR2))
/* RRR, LDR, DFR, SVR; ESR; the LVT with the timer's initial count; its divider. */
#define TRAPPED                                                   \
	(REG(LAPIC_ID) | REGS(0xc0, LAPIC_SVR) | REG(LAPIC_ESR) | \
	 REGS(LAPIC_LVT_TIMER, LAPIC_TIMER_INITIAL) | REG(LAPIC_TIMER_DIVIDE))
#define READABLE                                                                        \
	(ACCELERATED | TRAPPED | REG(LAPIC_VERSION) | REG(LAPIC_APR) | REG(LAPIC_PPR) | \
	 REGS(LAPIC_ISR, 0x270))

static gpa_t page_of(const struct cpu *cpu)
{
	return svm_of_const(cpu)->vmcb.control.avic_page & PTE_ADDR;
}

static uint32_t reg_read(struct cpu *cpu, unsigned offset)
{
	return sys_apic_read(cpu, page_of(cpu), offset);
}

static void reg_write(struct cpu *cpu, unsigned offset, uint32_t val)
{
	sys_apic_write(cpu, page_of(cpu), offset, val);
}

/* ---- IRR, ISR, TMR ---- */

/* A vector's bit in the page of any guest. False: no memory. */
static bool bit_change(struct cpu *cpu, gpa_t page, unsigned base, uint8_t vector, bool on)
{
	gpa_t gpa = page + base + vector / 32 * 16;
	uint32_t old, bit = 1u << (vector & 31);
	enum result r;

	do {
		if (mmu_read_phys_bytes(cpu, gpa, &old, sizeof(old)))
			return false;
		r = mmu_cmpxchg_phys(cpu, gpa, old, on ? old | bit : old & ~bit);
	} while (r == RESULT_AGAIN);
	return !r;
}

static uint8_t highest(struct cpu *cpu, unsigned base)
{
	return sys_apic_highest(cpu, page_of(cpu), base);
}

/* ---- priorities ---- */

static uint8_t priority(struct cpu *cpu)
{
	return sys_apic_ppr(reg_read(cpu, LAPIC_TPR), highest(cpu, LAPIC_ISR));
}

static void update_priority(struct cpu *cpu)
{
	reg_write(cpu, LAPIC_PPR, priority(cpu));
}

bool svm_avic_pending(struct cpu *cpu)
{
	return highest(cpu, LAPIC_IRR) >> 4 > priority(cpu) >> 4;
}

uint8_t svm_avic_take(struct cpu *cpu)
{
	uint8_t vector = highest(cpu, LAPIC_IRR);

	bit_change(cpu, page_of(cpu), LAPIC_IRR, vector, false);
	bit_change(cpu, page_of(cpu), LAPIC_ISR, vector, true);
	update_priority(cpu);
	return vector;
}

uint8_t svm_avic_get_tpr(struct cpu *cpu)
{
	return reg_read(cpu, LAPIC_TPR);
}

void svm_avic_set_tpr(struct cpu *cpu, uint8_t tpr)
{
	reg_write(cpu, LAPIC_TPR, tpr);
	update_priority(cpu);
	cpu_raise(cpu, ATTN_VIRT);
}

/* ---- IPIs ---- */

enum ipi_failure {
	IPI_TYPE,	 /* neither fixed nor edge-triggered */
	IPI_NOT_RUNNING, /* IRR is set; somebody has to run it */
	IPI_TARGET,	 /* a table has no valid entry for it */
	IPI_PAGE,	 /* its backing page is no memory */
	IPI_VECTOR,	 /* below 16 */
};

struct ipi {
	struct cpu *cpu;
	const struct vmcb_control *c;
	uint32_t low, high;  /* ICR */
	uint64_t targets[4]; /* physical APIC IDs */
};

#define ICR_TYPE     0x700u
#define ICR_LOGICAL  BIT(11)
#define ICR_BUSY     BIT(12)
#define ICR_LEVEL    BIT(15)
#define ICR_SHORT(v) ((v) >> 18 & 3)
#define ID_BROADCAST 0xff
#define DFR_FLAT     0xf

#define PHYSICAL_RUNNING BIT(62)
#define PHYSICAL_VALID	 BIT(63)
#define PHYSICAL_HOST_ID 0xffull
#define LOGICAL_VALID	 BIT(31)

enum shorthand { SHORT_NONE, SHORT_SELF, SHORT_ALL, SHORT_OTHERS };

static bool incomplete(const struct ipi *ipi, enum ipi_failure why, unsigned index)
{
	svm_exit(ipi->cpu, SVM_EXIT_AVIC_INCOMPLETE_IPI, (uint64_t)ipi->high << 32 | ipi->low,
		 (uint64_t)why << 32 | index, 0, NULL);
	return true;
}

static void target_put(struct ipi *ipi, uint8_t id, bool on)
{
	if (on)
		ipi->targets[id / 64] |= BIT(id % 64);
	else
		ipi->targets[id / 64] &= ~BIT(id % 64);
}

static bool is_target(const struct ipi *ipi, unsigned id)
{
	return ipi->targets[id / 64] >> id % 64 & 1;
}

/* What the physical table says; 0 where it ends. */
static uint64_t physical_entry(const struct ipi *ipi, unsigned id)
{
	gpa_t table = ipi->c->avic_physical & PTE_ADDR;
	uint64_t entry;

	if (id > (ipi->c->avic_physical & AVIC_MAX_INDEX) ||
	    mmu_read_phys_bytes(ipi->cpu, table + 8 * id, &entry, sizeof(entry)))
		return 0;
	return entry;
}

static uint8_t own_id(struct cpu *cpu)
{
	return reg_read(cpu, LAPIC_ID) >> 24;
}

/* All that the table knows. */
static bool find_all(struct ipi *ipi, bool self)
{
	for (unsigned id = 0; id <= (ipi->c->avic_physical & AVIC_MAX_INDEX); id++)
		target_put(ipi, id, physical_entry(ipi, id) & PHYSICAL_VALID);
	if (!self)
		target_put(ipi, own_id(ipi->cpu), false);
	return true;
}

static bool find_physical(struct ipi *ipi, uint8_t id)
{
	if (id == ID_BROADCAST)
		return find_all(ipi, true);
	if (!(physical_entry(ipi, id) & PHYSICAL_VALID))
		return !incomplete(ipi, IPI_TARGET, id);
	target_put(ipi, id, true);
	return true;
}

static bool find_member(struct ipi *ipi, unsigned index)
{
	gpa_t table = ipi->c->avic_logical & PTE_ADDR;
	uint32_t entry;

	if (mmu_read_phys_bytes(ipi->cpu, table + 4 * index, &entry, sizeof(entry)) ||
	    !(entry & LOGICAL_VALID) || !(physical_entry(ipi, entry & 0xff) & PHYSICAL_VALID))
		return !incomplete(ipi, IPI_TARGET, index);
	target_put(ipi, entry & 0xff, true);
	return true;
}

/* A bit each: of eight in all, or of four in one of fifteen clusters. */
static bool find_logical(struct ipi *ipi, uint8_t destination)
{
	unsigned model = reg_read(ipi->cpu, LAPIC_DFR) >> 28, first = 0, members = destination;

	if (model != DFR_FLAT) {
		first = destination >> 4 << 2;
		members = destination & 0xf;
	}
	if (model != DFR_FLAT && (model || destination >> 4 == 0xf))
		return !incomplete(ipi, IPI_TARGET, first);
	for (unsigned i = 0; i < 8; i++)
		if (members >> i & 1 && !find_member(ipi, first + i))
			return false;
	return true;
}

/* False: the exit is made. */
static bool find_targets(struct ipi *ipi)
{
	switch (ICR_SHORT(ipi->low)) {
	case SHORT_SELF:
		target_put(ipi, own_id(ipi->cpu), true);
		return true;
	case SHORT_ALL:
	case SHORT_OTHERS:
		return find_all(ipi, ICR_SHORT(ipi->low) == SHORT_ALL);
	}
	return ipi->low & ICR_LOGICAL ? find_logical(ipi, ipi->high >> 24)
				      : find_physical(ipi, ipi->high >> 24);
}

enum delivered { DELIVERED, NOT_RUNNING, NO_PAGE };

static enum delivered deliver(const struct ipi *ipi, unsigned id)
{
	uint64_t entry = physical_entry(ipi, id);
	bool self = id == own_id(ipi->cpu);
	gpa_t page = self ? page_of(ipi->cpu) : entry & PTE_ADDR;

	if (page >> ipi->cpu->maxphyaddr || !bit_change(ipi->cpu, page, LAPIC_IRR, ipi->low, true))
		return NO_PAGE;
	if (self)
		return DELIVERED; /* svm_attend() looks behind the instruction */
	/* The bit is there before its processor is looked for: who stops to run meanwhile finds it. */
	entry = physical_entry(ipi, id);
	if (!(entry & PHYSICAL_RUNNING))
		return NOT_RUNNING;
	sys_msr_set(ipi->cpu, MSR_DOORBELL, MSR_GUEST, entry & PHYSICAL_HOST_ID);
	return DELIVERED;
}

/* True: an exit is made. */
static bool deliver_all(const struct ipi *ipi)
{
	int waits = -1;

	for (unsigned id = 0; id < 256; id++) {
		enum delivered d = is_target(ipi, id) ? deliver(ipi, id) : DELIVERED;

		if (d == NO_PAGE)
			return incomplete(ipi, IPI_PAGE, id);
		if (d == NOT_RUNNING && waits < 0)
			waits = id;
	}
	return waits >= 0 && incomplete(ipi, IPI_NOT_RUNNING, waits);
}

static bool command_written(struct cpu *cpu)
{
	struct ipi ipi = {
		.cpu = cpu,
		.c = &svm_of(cpu)->vmcb.control,
		.low = reg_read(cpu, LAPIC_ICR) & ~ICR_BUSY,
		.high = reg_read(cpu, LAPIC_ICR2),
	};

	reg_write(cpu, LAPIC_ICR, ipi.low);
	if (ipi.low & (ICR_TYPE | ICR_LEVEL))
		return incomplete(&ipi, IPI_TYPE, 0);
	if ((ipi.low & 0xff) < 16)
		return incomplete(&ipi, IPI_VECTOR, 0);
	return !find_targets(&ipi) || deliver_all(&ipi);
}

/* ---- accesses ---- */

static bool not_accelerated(struct cpu *cpu, unsigned offset, uint8_t vector)
{
	svm_exit(cpu, SVM_EXIT_AVIC_NOACCEL, AVIC_WRITE | offset, vector, 0, NULL);
	return true;
}

/* A level-triggered one is the hypervisor's to end. */
static bool ended(struct cpu *cpu)
{
	uint8_t vector = highest(cpu, LAPIC_ISR);

	if (!vector)
		return false;
	if (reg_read(cpu, LAPIC_TMR + vector / 32 * 16) >> (vector & 31) & 1)
		return not_accelerated(cpu, LAPIC_EOI, vector);
	bit_change(cpu, page_of(cpu), LAPIC_ISR, vector, false);
	update_priority(cpu);
	return false;
}

bool svm_avic_written(struct cpu *cpu)
{
	unsigned offset = svm_of(cpu)->avic_offset;

	svm_of(cpu)->avic_wrote = false;
	switch (offset) {
	case LAPIC_TPR:
		svm_avic_set_tpr(cpu, reg_read(cpu, LAPIC_TPR));
		return false;
	case LAPIC_EOI:
		return ended(cpu);
	case LAPIC_ICR:
		return command_written(cpu);
	case LAPIC_ICR2:
		return false;
	}
	return not_accelerated(cpu, offset, 0);
}

static bool allowed(unsigned offset, bool write)
{
	uint64_t regs = write ? ACCELERATED | TRAPPED : READABLE;

	return !(offset & 0xc) && offset < 0x400 && regs >> offset / 16 & 1;
}

bool svm_avic_hit(const struct cpu *cpu, gpa_t gpa)
{
	const struct vmcb_control *c = &svm_of_const(cpu)->vmcb.control;

	return svm_avic(cpu, c) && !((gpa ^ c->avic_bar) & PTE_ADDR);
}

enum result svm_avic_access(struct cpu *cpu, struct stage2 *s)
{
	struct svm *svm = svm_of(cpu);
	unsigned offset = s->gpa & ~PAGE_MASK;
	bool write = s->op & ACCESS_WRITE;

	s->apart = true;
	if (!s->linear || s->table || s->op == ACCESS_FETCH || s->op == ACCESS_RMW ||
	    !allowed(offset, write))
		return virt_refuse(cpu, SVM_EXIT_AVIC_NOACCEL,
				   (offset & 0xff0) | (write ? AVIC_WRITE : 0), 0);
	s->out = page_of(cpu) + offset;
	s->rights = write ? ACCESS_READ | ACCESS_WRITE : ACCESS_READ;
	s->dirty = true;
	s->page_shift = PAGE_SHIFT;
	if (write && !s->dry) {
		svm->avic_wrote = true;
		svm->avic_offset = offset & 0xff0;
		cpu_raise(cpu, ATTN_VIRT);
	}
	return RESULT_OK;
}
