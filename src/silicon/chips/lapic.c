/* SPDX-License-Identifier: MIT */
/*
 * The local APIC's registers, priorities and state.
 *
 * registers[] has a row for each 16-byte slot of the page: who may read and write it in which
 * mode, which bits an x2APIC WRMSR may set, and the function behind a write. MMIO and MSR accesses
 * go through it alike; MMIO forgives what an MSR access answers with #GP.
 *
 * A pending vector is deliverable if its priority class is over PPR's, which is the higher one of
 * TPR's and of the highest vector in service.
 */
#include "silicon/chips/lapic_internal.h"

#include <errno.h>
#include <string.h>

/* Version 14h, highest LVT entry in 23:16, suppression of EOI broadcasts in 24. */
#define VERSION		     0x14
#define VERSION_DIRECTED_EOI BIT(24)
#define X2APIC_ICR_RESERVED  (GENMASK(31, 20) | GENMASK(17, 16) | BIT(13))
#define APIC_BASE_RESERVED   0x2ffull
#define APIC_BASE_MODE	     (APIC_BASE_ENABLED | APIC_BASE_X2APIC)

#define LVT_BITS      (0xffu | LVT_SEND_PENDING | LAPIC_LVT_MASKED)
#define LVT_MODE_BITS (LVT_BITS | LVT_DELIVERY_MASK)
#define LVT_LINT_BITS (LVT_MODE_BITS | LVT_LOW_ACTIVE | LVT_REMOTE_IRR | LVT_LEVEL_TRIGGER)

static const uint16_t lvts[] = {
	LAPIC_LVT_TIMER, LAPIC_LVT_THERMAL, LAPIC_LVT_PC,   LAPIC_LVT_LINT0,
	LAPIC_LVT_LINT1, LAPIC_LVT_ERROR,   LAPIC_LVT_CMCI,
};

static void changed(struct lapic *lapic)
{
	if (lapic->ops->changed)
		lapic->ops->changed(lapic->opaque);
}

/* ---- Priorities ---- */

static int highest(const struct lapic *lapic, unsigned reg)
{
	for (int i = 7; i >= 0; i--) {
		uint32_t word = lapic_reg(lapic, reg + i * 16);

		if (word)
			return i * 32 + 31 - __builtin_clz(word);
	}
	return -1;
}

int lapic_highest_isr(const struct lapic *lapic)
{
	return highest(lapic, LAPIC_ISR);
}

int lapic_highest_irr(const struct lapic *lapic)
{
	if (!__atomic_load_n(&lapic->irr_hint, __ATOMIC_SEQ_CST))
		return -1;
	return highest(lapic, LAPIC_IRR);
}

static uint8_t update_ppr(struct lapic *lapic)
{
	int isr = lapic_highest_isr(lapic);
	uint8_t tpr = (uint8_t)lapic_reg(lapic, LAPIC_TPR);
	uint8_t serving = isr < 0 ? 0 : isr & 0xf0;
	uint8_t ppr = (tpr & 0xf0) >= serving ? tpr : serving;

	set_reg(lapic, LAPIC_PPR, ppr);
	return ppr;
}

int lapic_pending_vector(struct lapic *lapic)
{
	int irr;

	if (!lapic_hw_enabled(lapic))
		return -1;
	irr = lapic_highest_irr(lapic);
	if (irr < 0 || (irr & 0xf0) <= update_ppr(lapic))
		return -1;
	return irr;
}

static void clear_irr(struct lapic *lapic, uint8_t vector)
{
	__atomic_store_n(&lapic->irr_hint, false, __ATOMIC_SEQ_CST);
	clear_vector(lapic, LAPIC_IRR, vector);
	if (highest(lapic, LAPIC_IRR) >= 0)
		__atomic_store_n(&lapic->irr_hint, true, __ATOMIC_SEQ_CST);
}

int lapic_ack(struct lapic *lapic)
{
	int vector = lapic_pending_vector(lapic);

	if (vector < 0)
		return -1;
	clear_irr(lapic, (uint8_t)vector);
	set_vector(lapic, LAPIC_ISR, (uint8_t)vector);
	update_ppr(lapic);
	return vector;
}

int lapic_ack_ended(struct lapic *lapic)
{
	int vector = lapic_pending_vector(lapic);

	if (vector < 0)
		return -1;
	clear_irr(lapic, (uint8_t)vector);
	update_ppr(lapic);
	return vector;
}

/* Have the owner look again, if PPR fell from old and so made something deliverable. */
static void reconsider(struct lapic *lapic, uint8_t old)
{
	if (update_ppr(lapic) < old && lapic_pending_vector(lapic) >= 0)
		lapic->ops->raised(lapic->opaque);
}

int lapic_eoi(struct lapic *lapic)
{
	int vector = lapic_highest_isr(lapic);
	uint8_t ppr = update_ppr(lapic);

	/* Guests end interrupts that never were, while they probe. */
	if (vector < 0)
		return -1;
	clear_vector(lapic, LAPIC_ISR, (uint8_t)vector);
	lapic->ops->eoi(lapic->opaque, (uint8_t)vector,
			test_vector(lapic, LAPIC_TMR, (uint8_t)vector));
	reconsider(lapic, ppr);
	return vector;
}

bool lapic_accepts_pic(const struct lapic *lapic)
{
	uint32_t lvt = lapic_reg(lapic, LAPIC_LVT_LINT0);

	if (!lapic_hw_enabled(lapic))
		return true;
	return (lvt & (LVT_DELIVERY_MASK | LAPIC_LVT_MASKED)) == LVT_EXTINT;
}

uint8_t lapic_get_tpr(const struct lapic *lapic)
{
	return (uint8_t)lapic_reg(lapic, LAPIC_TPR) >> 4;
}

void lapic_set_tpr_reg(struct lapic *lapic, uint8_t tpr)
{
	uint8_t ppr = update_ppr(lapic);

	set_reg(lapic, LAPIC_TPR, tpr);
	reconsider(lapic, ppr);
}

void lapic_set_tpr(struct lapic *lapic, uint8_t cr8)
{
	lapic_set_tpr_reg(lapic, (uint8_t)(cr8 << 4));
}

/* ---- Identity ---- */

static void set_xapic_id(struct lapic *lapic)
{
	set_reg(lapic, LAPIC_ID, lapic->config.id << 24);
}

static uint32_t x2apic_ldr(const struct lapic *lapic)
{
	uint32_t id = lapic->config.id;

	return id >> 4 << 16 | 1u << (id & 0xf);
}

static void set_x2apic_id(struct lapic *lapic)
{
	set_reg(lapic, LAPIC_ID, lapic->config.id);
	set_reg(lapic, LAPIC_LDR, x2apic_ldr(lapic));
}

static void set_version(struct lapic *lapic)
{
	uint32_t val = VERSION | (lvt_count(lapic) - 1) << 16;

	if (lapic->config.directed_eoi)
		val |= VERSION_DIRECTED_EOI;
	set_reg(lapic, LAPIC_VERSION, val);
}

bool lapic_base_valid(uint64_t old, uint64_t val, uint64_t reserved, bool host)
{
	uint64_t from = old & APIC_BASE_MODE, to = val & APIC_BASE_MODE;

	if (val & (reserved | APIC_BASE_RESERVED) || to == APIC_BASE_X2APIC)
		return false;
	if (host)
		return true;
	/* Out of x2APIC mode only by disabling, into it only from xAPIC mode. */
	if (from == APIC_BASE_MODE && to == APIC_BASE_ENABLED)
		return false;
	return from || to != APIC_BASE_MODE;
}

static void change_base(struct lapic *lapic, uint64_t val)
{
	uint64_t diff = lapic->base ^ val;

	__atomic_store_n(&lapic->base, val, __ATOMIC_RELAXED);
	if (diff & val & APIC_BASE_ENABLED)
		set_xapic_id(lapic);
	if (diff & APIC_BASE_X2APIC && val & APIC_BASE_X2APIC)
		set_x2apic_id(lapic);
	else if (diff & APIC_BASE_X2APIC && val & APIC_BASE_ENABLED)
		set_xapic_id(lapic);
}

bool lapic_set_base(struct lapic *lapic, uint64_t val, bool host)
{
	uint64_t reserved = lapic->config.reserved_gpa;

	if (!lapic->config.x2apic)
		reserved |= APIC_BASE_X2APIC;
	if (!lapic_base_valid(lapic->base, val, reserved, host))
		return false;
	change_base(lapic, val);
	changed(lapic);
	return true;
}

/* ---- Writes to registers; false: there is no such register ---- */

static bool write_id(struct lapic *lapic, uint32_t val)
{
	set_reg(lapic, LAPIC_ID, val & 0xff000000);
	changed(lapic);
	return true;
}

static bool write_tpr(struct lapic *lapic, uint32_t val)
{
	if (lapic->ops->tpr_access)
		lapic->ops->tpr_access(lapic->opaque, true);
	lapic_set_tpr_reg(lapic, (uint8_t)val);
	return true;
}

static bool write_eoi(struct lapic *lapic, uint32_t val)
{
	lapic_eoi(lapic);
	return true;
}

static bool write_ldr(struct lapic *lapic, uint32_t val)
{
	set_reg(lapic, LAPIC_LDR, val & 0xff000000);
	changed(lapic);
	return true;
}

static bool write_dfr(struct lapic *lapic, uint32_t val)
{
	set_reg(lapic, LAPIC_DFR, val | 0x0fffffff);
	changed(lapic);
	return true;
}

static void mask_lvts(struct lapic *lapic)
{
	for (unsigned i = 0; i < lvt_count(lapic); i++)
		set_reg(lapic, lvts[i], lapic_reg(lapic, lvts[i]) | LAPIC_LVT_MASKED);
}

static bool write_svr(struct lapic *lapic, uint32_t val)
{
	uint32_t mask = 0x3ff;

	if (lapic->config.directed_eoi)
		mask |= LAPIC_SVR_NO_BROADCAST;
	set_reg(lapic, LAPIC_SVR, val & mask);
	if (!(val & LAPIC_SVR_ENABLED))
		mask_lvts(lapic);
	changed(lapic);
	return true;
}

/* Latch what was noted since the last write. */
static bool write_esr(struct lapic *lapic, uint32_t val)
{
	set_reg(lapic, LAPIC_ESR, __atomic_exchange_n(&lapic->errors, 0, __ATOMIC_SEQ_CST));
	return true;
}

/* Owner. IPIs by the two halves of ICR. */
static void send_ipi(struct lapic *lapic, uint32_t low, uint32_t high)
{
	struct apic_message msg = {
		.dest = lapic_x2apic(lapic) ? high : high >> 24,
		.vector = low & 0xff,
		.delivery = low >> 8 & 7,
		.logical = low & BIT(11),
		.level = low & BIT(14),
		.trigger = low & BIT(15),
		.shorthand = low >> 18 & 3,
	};

	if (msg.delivery <= APIC_LOWEST && msg.vector < FIRST_VECTOR)
		lapic_error(lapic, ESR_SEND_VECTOR);
	else
		lapic->ops->send(lapic->opaque, &msg);
}

/* Messages arrive at once: the delivery status is never seen busy. */
static bool write_icr(struct lapic *lapic, uint32_t val)
{
	val &= ~(uint32_t)ICR_BUSY;
	set_reg(lapic, LAPIC_ICR, val);
	send_ipi(lapic, val, lapic_reg(lapic, LAPIC_ICR2));
	return true;
}

static bool write_icr2(struct lapic *lapic, uint32_t val)
{
	set_reg(lapic, LAPIC_ICR2, val & 0xff000000);
	return true;
}

static bool write_self_ipi(struct lapic *lapic, uint32_t val)
{
	send_ipi(lapic, APIC_TO_SELF << 18 | val, 0);
	return true;
}

/* A disabled local APIC keeps its LVT entries masked. */
static void write_lvt(struct lapic *lapic, unsigned reg, uint32_t val, uint32_t bits)
{
	if (!lapic_sw_enabled(lapic))
		val |= LAPIC_LVT_MASKED;
	set_reg(lapic, reg, val & bits);
}

static bool write_lvt_timer(struct lapic *lapic, uint32_t val)
{
	uint32_t modes = lapic->config.tsc_deadline ? TIMER_MODES : TIMER_PERIODIC;

	write_lvt(lapic, LAPIC_LVT_TIMER, val, LVT_BITS | modes);
	timer_update_mode(lapic);
	return true;
}

static bool write_lvt_cmci(struct lapic *lapic, uint32_t val)
{
	if (!lapic->config.cmci)
		return false;
	write_lvt(lapic, LAPIC_LVT_CMCI, val, LVT_MODE_BITS);
	return true;
}

static bool write_lvt_thermal(struct lapic *lapic, uint32_t val)
{
	write_lvt(lapic, LAPIC_LVT_THERMAL, val, LVT_MODE_BITS);
	return true;
}

static bool write_lvt_pc(struct lapic *lapic, uint32_t val)
{
	write_lvt(lapic, LAPIC_LVT_PC, val, LVT_MODE_BITS);
	return true;
}

static bool write_lvt_lint0(struct lapic *lapic, uint32_t val)
{
	write_lvt(lapic, LAPIC_LVT_LINT0, val, LVT_LINT_BITS);
	changed(lapic);
	return true;
}

static bool write_lvt_lint1(struct lapic *lapic, uint32_t val)
{
	write_lvt(lapic, LAPIC_LVT_LINT1, val, LVT_LINT_BITS);
	return true;
}

static bool write_lvt_error(struct lapic *lapic, uint32_t val)
{
	write_lvt(lapic, LAPIC_LVT_ERROR, val, LVT_BITS);
	return true;
}

/* ---- The register table ---- */

enum reg_access {
	RX = 1, /* readable by MMIO (xAPIC) */
	RM = 2, /* readable by RDMSR (x2APIC) */
	WX = 4,
	WM = 8,
	RO = RX | RM,
	RW = RO | WX | WM,
};

struct reg_row {
	uint8_t access;
	uint32_t reserved; /* bits that WRMSR may not set */
	bool (*write)(struct lapic *lapic, uint32_t val);
};

#define ROW(reg) [(reg) >> 4]
#define ROWS8(reg, row)                                                                      \
	ROW(reg) = row, ROW((reg) + 16) = row, ROW((reg) + 32) = row, ROW((reg) + 48) = row, \
	ROW((reg) + 64) = row, ROW((reg) + 80) = row, ROW((reg) + 96) = row,                 \
	ROW((reg) + 112) = row
#define READ_ONLY           \
	{                   \
		RO, 0, NULL \
	}

/* ICR is here for MMIO only; as an MSR it has 64 bits. */
static const struct reg_row registers[LAPIC_STATE_SIZE / 16] = {
	ROW(LAPIC_ID) = {RO | WX, 0, write_id},
	ROW(LAPIC_VERSION) = READ_ONLY,
	ROW(LAPIC_TPR) = {RW, ~0xffu, write_tpr},
	ROW(LAPIC_APR) = {RX, 0, NULL},
	ROW(LAPIC_PPR) = READ_ONLY,
	ROW(LAPIC_EOI) = {WX | WM, ~0u, write_eoi},
	ROW(LAPIC_LDR) = {RO | WX, 0, write_ldr},
	ROW(LAPIC_DFR) = {RX | WX, 0, write_dfr},
	ROW(LAPIC_SVR) = {RW, ~0x13ffu, write_svr},
	ROWS8(LAPIC_ISR, READ_ONLY),
	ROWS8(LAPIC_TMR, READ_ONLY),
	ROWS8(LAPIC_IRR, READ_ONLY),
	ROW(LAPIC_ESR) = {RW, ~0u, write_esr},
	ROW(LAPIC_LVT_CMCI) = {RW, ~(uint32_t)LVT_MODE_BITS, write_lvt_cmci},
	ROW(LAPIC_ICR) = {RX | WX, 0, write_icr},
	ROW(LAPIC_ICR2) = {RX | WX, 0, write_icr2},
	ROW(LAPIC_LVT_TIMER) = {RW, ~(uint32_t)(LVT_BITS | TIMER_MODES), write_lvt_timer},
	ROW(LAPIC_LVT_THERMAL) = {RW, ~(uint32_t)LVT_MODE_BITS, write_lvt_thermal},
	ROW(LAPIC_LVT_PC) = {RW, ~(uint32_t)LVT_MODE_BITS, write_lvt_pc},
	ROW(LAPIC_LVT_LINT0) = {RW, ~(uint32_t)LVT_LINT_BITS, write_lvt_lint0},
	ROW(LAPIC_LVT_LINT1) = {RW, ~(uint32_t)LVT_LINT_BITS, write_lvt_lint1},
	ROW(LAPIC_LVT_ERROR) = {RW, ~(uint32_t)LVT_BITS, write_lvt_error},
	ROW(LAPIC_TIMER_INITIAL) = {RW, 0, timer_write_initial},
	ROW(LAPIC_TIMER_CURRENT) = READ_ONLY,
	ROW(LAPIC_TIMER_DIVIDE) = {RW, ~0xbu, timer_write_divide},
	ROW(LAPIC_SELF_IPI) = {WM, ~0xffu, write_self_ipi},
};

/* The row of offset if need is allowed there, or NULL. */
static const struct reg_row *find_row(const struct lapic *lapic, unsigned offset, uint8_t need)
{
	const struct reg_row *row;

	if (offset >= LAPIC_STATE_SIZE)
		return NULL;
	row = &registers[offset >> 4];
	if (row->write == write_lvt_cmci && !lapic->config.cmci)
		return NULL;
	return row->access & need ? row : NULL;
}

static uint32_t read_reg(struct lapic *lapic, unsigned reg)
{
	switch (reg) {
	case LAPIC_TPR:
		if (lapic->ops->tpr_access)
			lapic->ops->tpr_access(lapic->opaque, false);
		break;
	case LAPIC_PPR:
		return update_ppr(lapic);
	case LAPIC_TIMER_CURRENT:
		return timer_current(lapic);
	case LAPIC_APR:
		return 0;
	}
	return lapic_reg(lapic, reg);
}

/* ---- MMIO ---- */

static bool page_present(const struct lapic *lapic)
{
	return (lapic_get_base(lapic) & APIC_BASE_MODE) == APIC_BASE_ENABLED;
}

bool lapic_mmio_read(struct lapic *lapic, unsigned offset, unsigned size, uint64_t *ret)
{
	unsigned shift = (offset & 0xf) * 8;

	if (!page_present(lapic)) {
		*ret = ~0ull;
		return lapic->config.mmio_hole;
	}
	*ret = 0;
	if ((offset & 0xf) + size > 4)
		return true;
	if (find_row(lapic, offset, RX))
		*ret = read_reg(lapic, offset & 0xff0) >> shift & (BIT(8 * size) - 1);
	else if (!find_row(lapic, offset, WX))
		lapic_error(lapic, ESR_REGISTER);
	return true;
}

bool lapic_mmio_write(struct lapic *lapic, unsigned offset, unsigned size, uint64_t val)
{
	const struct reg_row *row = find_row(lapic, offset, WX);

	if (!page_present(lapic))
		return lapic->config.mmio_hole;
	if (size != 4 || offset & 0xf)
		return true;
	if (row)
		row->write(lapic, (uint32_t)val);
	else if (!find_row(lapic, offset, RX))
		lapic_error(lapic, ESR_REGISTER);
	return true;
}

/* ---- MSRs ---- */

uint64_t lapic_get_icr(const struct lapic *lapic)
{
	return lapic_reg(lapic, LAPIC_ICR) | (uint64_t)lapic_reg(lapic, LAPIC_ICR2) << 32;
}

bool lapic_set_icr(struct lapic *lapic, uint64_t val)
{
	if (val & X2APIC_ICR_RESERVED)
		return false;
	val &= ~ICR_BUSY;
	set_reg(lapic, LAPIC_ICR, (uint32_t)val);
	set_reg(lapic, LAPIC_ICR2, val >> 32);
	send_ipi(lapic, (uint32_t)val, val >> 32);
	return true;
}

bool lapic_msr_read(struct lapic *lapic, uint32_t index, uint64_t *ret)
{
	unsigned offset = (index - LAPIC_MSR_FIRST) << 4;

	if (!lapic_x2apic(lapic))
		return false;
	if (offset == LAPIC_ICR) {
		*ret = lapic_get_icr(lapic);
		return true;
	}
	if (!find_row(lapic, offset, RM))
		return false;
	*ret = read_reg(lapic, offset);
	return true;
}

bool lapic_msr_write(struct lapic *lapic, uint32_t index, uint64_t val)
{
	unsigned offset = (index - LAPIC_MSR_FIRST) << 4;
	const struct reg_row *row;

	if (!lapic_x2apic(lapic))
		return false;
	if (offset == LAPIC_ICR)
		return lapic_set_icr(lapic, val);
	row = find_row(lapic, offset, WM);
	if (!row || val >> 32 || val & row->reserved)
		return false;
	return row->write(lapic, (uint32_t)val);
}

/* ---- State ---- */

/* Word by word: others may set bits of IRR and TMR meanwhile. */
int lapic_get_state(struct lapic *lapic, void *regs)
{
	uint32_t *page = regs;

	for (unsigned reg = 0; reg < LAPIC_STATE_SIZE; reg += 4)
		page[reg / 4] = lapic_reg(lapic, reg);
	page[LAPIC_TIMER_CURRENT / 4] = timer_current(lapic);
	if (lapic_x2apic(lapic) && !lapic->config.x2apic_format)
		page[LAPIC_ID / 4] = lapic->config.id << 24;
	return 0;
}

int lapic_set_state(struct lapic *lapic, const void *regs)
{
	const uint32_t *page = regs;

	if (lapic_x2apic(lapic) && lapic->config.x2apic_format &&
	    page[LAPIC_ID / 4] != lapic->config.id)
		return -EINVAL;

	/* All checks passed. */
	timer_stop(lapic);
	for (unsigned reg = 0; reg < LAPIC_STATE_SIZE; reg += 4)
		set_reg(lapic, reg, page[reg / 4]);
	if (lapic_x2apic(lapic))
		set_x2apic_id(lapic);
	set_version(lapic);
	__atomic_store_n(&lapic->irr_hint, true, __ATOMIC_SEQ_CST);
	timer_update_mode(lapic);
	timer_load_divide(lapic);
	timer_restore(lapic);
	if (lapic_pending_vector(lapic) >= 0)
		lapic->ops->raised(lapic->opaque);
	changed(lapic);
	return 0;
}

void lapic_reset(struct lapic *lapic, bool init)
{
	bool x2apic;

	timer_stop(lapic);
	if (!init) {
		change_base(lapic, LAPIC_DEFAULT_BASE | APIC_BASE_ENABLED |
					   (lapic->config.bsp ? APIC_BASE_BSP : 0));
		set_xapic_id(lapic);
	}
	x2apic = lapic_x2apic(lapic);
	set_version(lapic);
	for (unsigned i = 0; i < lvt_count(lapic); i++)
		set_reg(lapic, lvts[i], LAPIC_LVT_MASKED);
	timer_update_mode(lapic);
	if (lapic->config.bsp && lapic->config.lint0_reenabled)
		set_reg(lapic, LAPIC_LVT_LINT0, LVT_EXTINT);
	set_reg(lapic, LAPIC_DFR, DFR_FLAT);
	set_reg(lapic, LAPIC_SVR, 0xff);
	set_reg(lapic, LAPIC_TPR, 0);
	if (!x2apic)
		set_reg(lapic, LAPIC_LDR, 0);
	set_reg(lapic, LAPIC_ESR, 0);
	set_reg(lapic, LAPIC_ICR, 0);
	set_reg(lapic, LAPIC_ICR2, 0);
	set_reg(lapic, LAPIC_TIMER_DIVIDE, 0);
	set_reg(lapic, LAPIC_TIMER_INITIAL, 0);
	for (unsigned reg = LAPIC_ISR; reg < LAPIC_ESR; reg += 16)
		set_reg(lapic, reg, 0);
	__atomic_store_n(&lapic->irr_hint, false, __ATOMIC_SEQ_CST);
	__atomic_store_n(&lapic->errors, 0, __ATOMIC_SEQ_CST);
	lapic->period = 0;
	lapic->deadline = 0;
	timer_load_divide(lapic);
	update_ppr(lapic);
	changed(lapic);
}

void lapic_configure(struct lapic *lapic, const struct lapic_config *config)
{
	bool had_cmci = lapic->config.cmci;

	lapic->config = *config;
	if (!lapic->config.bus_cycle_ns)
		lapic->config.bus_cycle_ns = 1;
	if (!config->x2apic)
		lapic->config.directed_eoi = false;
	if (lapic->config.cmci && !had_cmci)
		set_reg(lapic, LAPIC_LVT_CMCI, LAPIC_LVT_MASKED);
	set_version(lapic);
}

void lapic_init(struct lapic *lapic, const struct lapic_ops *ops, void *opaque,
		const struct lapic_config *config)
{
	memset(lapic, 0, sizeof(*lapic));
	lapic->ops = ops;
	lapic->opaque = opaque;
	lapic_configure(lapic, config);
	lapic_reset(lapic, false);
}
