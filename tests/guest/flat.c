/* SPDX-License-Identifier: MIT */
/* The machine of flat.h: its RAM, its fake platform, its modes and page tables. */
#include "flat.h"
#include "host/host.h"
#include "silicon/cpu/amx.h"
#include "silicon/models/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char *why)
{
	fprintf(stderr, "flat: %s\n", why);
	abort();
}

/* ---- the fake platform ---- */

static void log_event(struct flat *f, enum flat_event_kind kind, uint64_t addr, unsigned size,
		      uint64_t data)
{
	if (f->nr_events == FLAT_MAX_EVENTS && !f->endless)
		die("too many events");
	f->nr_events %= FLAT_MAX_EVENTS;
	f->events[f->nr_events++] =
		(struct flat_event){.kind = kind, .addr = addr, .size = size, .data = data};
}

static uint64_t sized(uint64_t val, unsigned size)
{
	return val & (~0ull >> (64 - 8 * size));
}

static void memory(void *opaque, gpa_t gpa, struct ram_page *ret)
{
	struct flat *f = opaque;

	f->nr_memory_calls++;
	*ret = (struct ram_page){0};
	if (f->smram && f->cpu->in_smm && gpa - f->smram_base < FLAT_SMRAM)
		*ret = (struct ram_page){.hva = f->smram + (gpa - f->smram_base), .writable = true};
	else if (gpa < f->ram_size)
		*ret = (struct ram_page){.hva = f->ram + gpa, .writable = true, .log = f->log};
	else if (gpa == FLAT_ROM)
		*ret = (struct ram_page){.hva = f->rom};
}

static void mark_dirty(void *opaque, gpa_t gpa)
{
	struct flat *f = opaque;

	if (gpa < f->ram_size)
		f->marked[gpa >> PAGE_SHIFT]++;
	if (f->on_mark)
		f->on_mark(f, gpa);
}

static bool in_process(gpa_t gpa)
{
	return gpa - FLAT_DEVICE < FLAT_MMIO_SIZE;
}

static uint64_t mmio_value(struct flat *f, gpa_t gpa, unsigned size)
{
	uint64_t val = sized(f->mmio_in ? f->mmio_in(f, gpa, size) : ~0ull, size);

	log_event(f, FLAT_MMIO_READ, gpa, size, val);
	return val;
}

static enum platform_answer mmio_read(void *opaque, gpa_t gpa, unsigned size, uint64_t *ret)
{
	if (!in_process(gpa))
		return PLATFORM_USER;
	*ret = mmio_value(opaque, gpa, size);
	return PLATFORM_DONE;
}

static enum platform_answer mmio_write(void *opaque, gpa_t gpa, unsigned size, uint64_t val)
{
	if (!in_process(gpa))
		return PLATFORM_USER;
	log_event(opaque, FLAT_MMIO_WRITE, gpa, size, val);
	return PLATFORM_DONE;
}

static uint64_t port_value(struct flat *f, uint16_t port, unsigned size)
{
	uint64_t val = sized(f->port_in ? f->port_in(f, port, size) : ~0ull, size);

	log_event(f, FLAT_PORT_READ, port, size, val);
	return val;
}

static enum platform_answer pio_read(void *opaque, uint16_t port, unsigned size, uint64_t *ret)
{
	struct flat *f = opaque;

	if (f->ports_exit)
		return PLATFORM_USER;
	*ret = port_value(f, port, size);
	return PLATFORM_DONE;
}

static enum platform_answer pio_write(void *opaque, uint16_t port, unsigned size, uint64_t val)
{
	struct flat *f = opaque;

	if (f->ports_exit)
		return PLATFORM_USER;
	log_event(f, FLAT_PORT_WRITE, port, size, val);
	return PLATFORM_DONE;
}

static enum platform_answer msr_gate(void *opaque, uint32_t index, bool write)
{
	return PLATFORM_DONE;
}

static bool is_flat_msr(uint32_t index)
{
	return index >> 8 == 0x400000;
}

static enum platform_answer msr_read(void *opaque, uint32_t index, uint64_t *ret)
{
	struct flat *f = opaque;

	if (!is_flat_msr(index))
		return PLATFORM_USER;
	*ret = f->msr_value;
	return PLATFORM_DONE;
}

static enum platform_answer msr_write(void *opaque, uint32_t index, uint64_t val)
{
	struct flat *f = opaque;

	if (index == 0xc001011b)
		f->doorbell = val;
	else if (!is_flat_msr(index))
		return PLATFORM_USER;
	else
		f->msr_value = val;
	return PLATFORM_DONE;
}

static void cpuid(void *opaque, uint32_t leaf, uint32_t subleaf, uint32_t ret[4])
{
	struct flat *f = opaque;
	const struct cpuid_row *row = model_cpuid(f->cpu->model, leaf, subleaf);

	if (!row)
		row = model_cpuid(f->cpu->model, leaf, 0);
	memset(ret, 0, 4 * sizeof(*ret));
	if (row)
		memcpy(ret, row->reg, sizeof(row->reg));
}

static int interrupt_pending(void *opaque)
{
	return ((struct flat *)opaque)->interrupt;
}

static int interrupt_ack(void *opaque)
{
	struct flat *f = opaque;
	int vector = f->interrupt;

	f->interrupt = -1;
	f->nr_acked++;
	return vector;
}

static uint8_t get_tpr(void *opaque)
{
	return ((struct flat *)opaque)->tpr;
}

static void set_tpr(void *opaque, uint8_t tpr)
{
	((struct flat *)opaque)->tpr = tpr;
}

static uint64_t tsc(void *opaque)
{
	return ((struct flat *)opaque)->tsc += 100;
}

static enum platform_answer hypercall(void *opaque, bool foreign, uint64_t *ret)
{
	if (foreign) {
		fault_ud(((struct flat *)opaque)->cpu);
		return PLATFORM_FAULT;
	}
	*ret = -1000ull;
	return PLATFORM_DONE;
}

static bool service(void *opaque)
{
	struct flat *f = opaque;

	cpu_lower(f->cpu, ATTN_REQUEST);
	return f->endless;
}

static void window_open(void *opaque)
{
}

static const struct platform platform = {
	.memory = memory,
	.mark_dirty = mark_dirty,
	.mmio_read = mmio_read,
	.mmio_write = mmio_write,
	.pio_read = pio_read,
	.pio_write = pio_write,
	.msr_gate = msr_gate,
	.msr_read = msr_read,
	.msr_write = msr_write,
	.cpuid = cpuid,
	.interrupt_pending = interrupt_pending,
	.interrupt_ack = interrupt_ack,
	.get_tpr = get_tpr,
	.set_tpr = set_tpr,
	.tsc = tsc,
	.hypercall = hypercall,
	.service = service,
	.window_open = window_open,
};

/* ---- user space's part ---- */

static void take_writes(struct flat *f)
{
	for (unsigned i = 0; i < f->cpu->out.nr; i++) {
		const struct out_write *w = &f->cpu->out.v[i];

		log_event(f, w->is_port ? FLAT_PORT_WRITE : FLAT_MMIO_WRITE, w->addr, w->size,
			  w->data);
	}
	f->cpu->out.nr = 0;
}

bool flat_answer(struct flat *f)
{
	const struct cpu_exit *e = &f->cpu->exit;

	switch (e->kind) {
	case CPU_EXIT_MMIO_READ:
		answers_add(f->cpu, ANSWER_MMIO, e->addr, e->size, mmio_value(f, e->addr, e->size),
			    false);
		return true;
	case CPU_EXIT_IO_READ:
		answers_add(f->cpu, ANSWER_IO, e->addr, e->size, port_value(f, e->addr, e->size),
			    false);
		return true;
	case CPU_EXIT_WRITES:
		take_writes(f);
		return true;
	default:
		return false;
	}
}

/* ---- making a machine ---- */

static void set_model(struct cpu *cpu)
{
	const char *why = "";
	const struct cpu_model *model = model_find(NULL, &why);

	if (!model)
		die(why);
	cpu->model = model;
	memcpy(cpu->model_features, model->features, sizeof(model->features));
	memcpy(cpu->guest_features, model->features, sizeof(model->features));
	cpu->maxphyaddr = model->maxphyaddr;
	cpu->xcr0_allowed = model->xcr0;
	cpu->fpu.xfeatures = model->xcr0 & ~(XCR0_PKRU | XCR0_AMX);
	cpu->cr4_reserved = ~(GENMASK(12, 0) | GENMASK(18, 16) | GENMASK(21, 20));
}

static void *zeroed(size_t size)
{
	void *p = aligned_alloc(PAGE_SIZE, ALIGN_UP(size, PAGE_SIZE));

	if (!p)
		die("no memory");
	return memset(p, 0, size);
}

struct flat *flat_new(size_t ram_size)
{
	struct flat *f = zeroed(sizeof(*f));

	if (host_fault_thread_init())
		die("no fault handler");
	f->cpu = zeroed(sizeof(*f->cpu));
	f->ram_size = ram_size;
	f->ram = zeroed(ram_size);
	f->rom = zeroed(PAGE_SIZE);
	f->interrupt = -1;
	f->next_table = FLAT_TABLES;
	f->cpu->platform = &platform;
	f->cpu->opaque = f;
	f->cpu->tlb = tlb_create();
	if (f->cpu->tlb && !getenv("ANYKVM_ONE_TLB"))
		tlb_add_guest(f->cpu->tlb);
	if (!f->cpu->tlb)
		die("no TLB");
	set_model(f->cpu);
	if (amx_create(f->cpu))
		die("no memory");
	cpu_reset(f->cpu, false);
	mmu_update_mode(f->cpu);
	return f;
}

void flat_free(struct flat *f)
{
	if (f->free_exec)
		f->free_exec(f);
	amx_destroy(f->cpu);
	tlb_destroy(f->cpu->tlb);
	free(f->cpu);
	free(f->ram);
	free(f->rom);
	free(f);
}

/* ---- bytes ---- */

void flat_write(struct flat *f, gpa_t gpa, const void *bytes, size_t size)
{
	if (gpa > f->ram_size || size > f->ram_size - gpa)
		die("write beyond RAM");
	memcpy(f->ram + gpa, bytes, size);
}

void flat_code(struct flat *f, const void *bytes, size_t size)
{
	flat_write(f, FLAT_CODE, bytes, size);
	f->cpu->rip = FLAT_CODE;
	f->cpu->activity = ACTIVITY_RUN;
	answers_reset(f->cpu);
}

uint64_t flat_peek(struct flat *f, gpa_t gpa, unsigned size)
{
	uint64_t val = 0;

	if (gpa > f->ram_size - size)
		die("peek beyond RAM");
	memcpy(&val, f->ram + gpa, size);
	return val;
}

void flat_poke(struct flat *f, gpa_t gpa, uint64_t val, unsigned size)
{
	flat_write(f, gpa, &val, size);
}

/* ---- registers that others derive from ---- */

static void follow(struct flat *f)
{
	cpu_update_mode(f->cpu);
	cpu_update_attention(f->cpu);
	mmu_update_mode(f->cpu);
	mmu_flush_all(f->cpu);
}

static bool legacy_pae(const struct cpu *cpu)
{
	return cpu_paging(cpu) && (cpu->cr4 & CR4_PAE) && !(cpu->msr.efer & EFER_LMA);
}

void flat_set_cr0(struct flat *f, uint64_t val)
{
	f->cpu->cr0 = val;
	follow(f);
}

void flat_set_cr3(struct flat *f, uint64_t val)
{
	f->cpu->cr3 = val;
	follow(f);
	if (legacy_pae(f->cpu) && mmu_load_pdptes(f->cpu, val))
		die("bad PDPTEs");
}

void flat_set_cr4(struct flat *f, uint64_t val)
{
	f->cpu->cr4 = val;
	follow(f);
}

void flat_set_efer(struct flat *f, uint64_t val)
{
	f->cpu->msr.efer = val;
	follow(f);
}

/* ---- descriptors ---- */

static const uint64_t gdt[] = {
	[FLAT_CS16 / 8] = 0x00009b000000ffff,
	[FLAT_DS16 / 8] = 0x000093000000ffff,
	[FLAT_CS32 / 8] = 0x00cf9b000000ffff,
	[FLAT_CS64 / 8] = 0x00af9b000000ffff,
	[FLAT_DS32 / 8] = 0x00cf93000000ffff,
	[FLAT_CS32_USER / 8] = 0x00cffb000000ffff,
	[FLAT_DS_USER / 8] = 0x00cff3000000ffff,
	[FLAT_CS64_USER / 8] = 0x00affb000000ffff,
	[FLAT_TR / 8] = 0x00008b0000000067 | (uint64_t)FLAT_TSS << 16,
	[FLAT_TR / 8 + 1] = 0,
};

static void set_seg(struct flat *f, enum seg_id id, uint16_t sel)
{
	uint64_t desc = flat_peek(f, FLAT_GDT + (sel & ~7u), 8);
	struct segment *s = &f->cpu->seg[id];

	s->sel = sel;
	s->base = (desc >> 16 & 0xffffff) | (desc >> 32 & 0xff000000);
	s->limit = (desc & 0xffff) | (desc >> 32 & 0xf0000);
	s->attr = desc >> 40 & 0xf0ff;
	if (s->attr & SEG_G)
		s->limit = s->limit << 12 | 0xfff;
}

static void set_segs(struct flat *f, uint16_t cs, uint16_t data)
{
	set_seg(f, SEG_CS, cs);
	for (enum seg_id id = SEG_ES; id <= SEG_GS; id++)
		if (id != SEG_CS)
			set_seg(f, id, data);
}

static void put_gate16(struct flat *f, uint8_t vector, gva_t addr, unsigned dpl)
{
	uint64_t gate = (addr & 0xffff) | FLAT_CS16 << 16 | (0x86ull | dpl << 5) << 40;

	flat_poke(f, FLAT_IDT + 8 * vector, gate, 8);
}

static void put_gate32(struct flat *f, uint8_t vector, gva_t addr, unsigned dpl)
{
	uint64_t gate = (addr & 0xffff) | FLAT_CS32 << 16 | (0x8eull | dpl << 5) << 40 |
			(addr >> 16 & 0xffff) << 48;

	flat_poke(f, FLAT_IDT + 8 * vector, gate, 8);
}

static void put_gate64(struct flat *f, uint8_t vector, gva_t addr, unsigned dpl)
{
	uint64_t gate = (addr & 0xffff) | FLAT_CS64 << 16 | (0x8eull | dpl << 5) << 40 |
			(addr >> 16 & 0xffff) << 48;

	flat_poke(f, FLAT_IDT + 16 * vector, gate, 8);
	flat_poke(f, FLAT_IDT + 16 * vector + 8, addr >> 32, 8);
}

void flat_gate(struct flat *f, uint8_t vector, gva_t addr, unsigned dpl)
{
	if (f->cpu->mode.real)
		flat_poke(f, FLAT_IVT + 4 * vector, addr, 4);
	else if (f->cpu->mode.lma)
		put_gate64(f, vector, addr, dpl);
	else if (f->cpu->mode.code == CODE_16)
		put_gate16(f, vector, addr, dpl);
	else
		put_gate32(f, vector, addr, dpl);
}

static void default_gates(struct flat *f)
{
	for (unsigned vector = 0; vector < 256; vector++) {
		flat_gate(f, vector, FLAT_HANDLERS + 16 * vector, 0);
		flat_poke(f, FLAT_HANDLERS + 16 * vector, 0xf4, 1);
	}
}

static void start_at(struct flat *f, uint64_t rsp)
{
	memset(f->cpu->gpr, 0, sizeof(f->cpu->gpr));
	f->cpu->gpr[RSP] = rsp;
	f->cpu->rip = FLAT_CODE;
}

/* Protected mode's tables; segments follow. */
static void set_tables(struct flat *f)
{
	struct cpu *cpu = f->cpu;

	flat_write(f, FLAT_GDT, gdt, sizeof(gdt));
	cpu->gdtr = (struct dtable){.base = FLAT_GDT, .limit = sizeof(gdt) - 1};
	cpu->idtr = (struct dtable){.base = FLAT_IDT, .limit = 256 * 16 - 1};
	flat_poke(f, FLAT_TSS + 4, FLAT_STACK, 4);
	flat_poke(f, FLAT_TSS + 0x66, 0x68, 2);
	set_seg(f, SEG_TR, FLAT_TR);
	cpu->seg[SEG_LDTR] = (struct segment){.attr = SEG_UNUSABLE};
}

/* ---- modes ---- */

static void start_over(struct flat *f)
{
	cpu_reset(f->cpu, true);
	f->next_table = FLAT_TABLES;
	memset(f->ram + FLAT_TABLES, 0, min(f->ram_size, 0x80000ul) - FLAT_TABLES);
	follow(f);
}

void flat_real(struct flat *f)
{
	start_over(f);
	f->cpu->seg[SEG_CS].sel = 0;
	f->cpu->seg[SEG_CS].base = 0;
	f->cpu->seg[SEG_SS].sel = 0x1000;
	f->cpu->seg[SEG_SS].base = 0x10000;
	f->cpu->idtr = (struct dtable){.base = FLAT_IVT, .limit = 0x3ff};
	start_at(f, 0xfff0);
	follow(f);
	default_gates(f);
}

void flat_prot16(struct flat *f)
{
	start_over(f);
	set_tables(f);
	set_segs(f, FLAT_CS16, FLAT_DS16);
	start_at(f, 0xfff0);
	flat_set_cr0(f, CR0_PE | CR0_ET | CR0_NE);
	f->cpu->idtr.limit = 256 * 8 - 1;
	default_gates(f);
}

void flat_prot32(struct flat *f)
{
	start_over(f);
	set_tables(f);
	set_segs(f, FLAT_CS32, FLAT_DS32);
	flat_poke(f, FLAT_TSS + 8, FLAT_DS32, 2);
	start_at(f, FLAT_STACK);
	flat_set_cr0(f, CR0_PE | CR0_ET | CR0_NE);
	f->cpu->idtr.limit = 256 * 8 - 1;
	default_gates(f);
}

gpa_t flat_alloc_table(struct flat *f)
{
	gpa_t table = f->next_table;

	f->next_table += PAGE_SIZE;
	if (f->next_table > 0x80000)
		die("no room for page tables");
	memset(f->ram + table, 0, PAGE_SIZE);
	return table;
}

static void identity(struct flat *f, uint64_t page)
{
	for (gva_t addr = 0; addr < BIT(32); addr += page)
		flat_map(f, addr, addr, PTE_P | PTE_W | PTE_U, page);
}

void flat_paging32(struct flat *f)
{
	flat_prot32(f);
	f->cpu->cr3 = flat_alloc_table(f);
	f->cpu->cr4 |= CR4_PSE | CR4_PGE;
	flat_set_cr0(f, f->cpu->cr0 | CR0_PG | CR0_WP);
	identity(f, 0x400000);
	follow(f);
}

void flat_pae(struct flat *f)
{
	gpa_t root;

	flat_prot32(f);
	root = flat_alloc_table(f);
	f->cpu->cr4 |= CR4_PAE | CR4_PGE;
	flat_set_efer(f, EFER_NX);
	flat_set_cr0(f, f->cpu->cr0 | CR0_PG | CR0_WP);
	f->cpu->cr3 = root;
	identity(f, 0x200000);
	flat_set_cr3(f, root);
}

void flat_long(struct flat *f)
{
	struct cpu *cpu = f->cpu;

	start_over(f);
	set_tables(f);
	set_segs(f, FLAT_CS64, FLAT_DS32);
	start_at(f, FLAT_STACK);
	cpu->cr3 = flat_alloc_table(f);
	cpu->cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT;
	cpu->msr.efer = EFER_LME | EFER_LMA | EFER_NX | EFER_SCE;
	flat_set_cr0(f, CR0_PE | CR0_ET | CR0_NE | CR0_MP | CR0_WP | CR0_PG);
	identity(f, 0x200000);
	follow(f);
	default_gates(f);
}

void flat_compat(struct flat *f)
{
	flat_long(f);
	set_seg(f, SEG_CS, FLAT_CS32);
	follow(f);
}

void flat_user(struct flat *f)
{
	bool is64 = f->cpu->mode.code == CODE_64;

	set_segs(f, is64 ? FLAT_CS64_USER : FLAT_CS32_USER, FLAT_DS_USER);
	f->cpu->gpr[RSP] = FLAT_USER_STACK;
	f->cpu->sflags &= ~FLAG_IOPL;
	follow(f);
}

/* ---- page tables ---- */

static unsigned top_level(const struct cpu *cpu)
{
	if (cpu->msr.efer & EFER_LMA)
		return cpu->cr4 & CR4_LA57 ? 5 : 4;
	return cpu->cr4 & CR4_PAE ? 3 : 2;
}

static unsigned entry_size(const struct cpu *cpu)
{
	return cpu->cr4 & CR4_PAE ? 8 : 4;
}

static unsigned shift_of(const struct cpu *cpu, unsigned level)
{
	return PAGE_SHIFT + (entry_size(cpu) == 8 ? 9 : 10) * (level - 1);
}

static gpa_t entry_in(const struct cpu *cpu, gpa_t table, gva_t addr, unsigned level)
{
	unsigned bytes = entry_size(cpu), top = top_level(cpu);
	uint64_t index = addr >> shift_of(cpu, level);

	if (level == top && top == 3)
		return table + 8 * (index & 3);
	return table + bytes * (index & (PAGE_SIZE / bytes - 1));
}

static gpa_t root_of(const struct cpu *cpu)
{
	return cpu->cr3 & (top_level(cpu) == 3 ? GENMASK(31, 5) : GENMASK(51, 12));
}

static uint64_t split_large(struct flat *f, uint64_t large, unsigned level)
{
	unsigned bytes = entry_size(f->cpu);
	uint64_t step = BIT(shift_of(f->cpu, level - 1));
	uint64_t val = level == 2 ? large & ~PTE_PS : large;
	gpa_t table = flat_alloc_table(f);

	for (unsigned i = 0; i < PAGE_SIZE / bytes; i++)
		flat_poke(f, table + i * bytes, val + i * step, bytes);
	return table;
}

/* The table below an entry, made where there is none. */
static gpa_t table_below(struct flat *f, gpa_t entry, unsigned level)
{
	unsigned bytes = entry_size(f->cpu);
	uint64_t val = flat_peek(f, entry, bytes);
	uint64_t upper = PTE_P | PTE_W | PTE_U;

	if (level == 3 && top_level(f->cpu) == 3)
		upper = PTE_P;
	if (!(val & PTE_P))
		val = flat_alloc_table(f) | upper;
	else if ((val & PTE_PS) && level <= 3)
		val = split_large(f, val, level) | upper;
	flat_poke(f, entry, val, bytes);
	return val & GENMASK(51, 12);
}

void flat_map(struct flat *f, gva_t addr, gpa_t gpa, uint64_t bits, uint64_t size)
{
	unsigned bytes = entry_size(f->cpu), level = top_level(f->cpu);
	gpa_t table = root_of(f->cpu), entry;

	for (;; level--) {
		entry = entry_in(f->cpu, table, addr, level);
		if (BIT(shift_of(f->cpu, level)) == size)
			break;
		if (level == 1)
			die("no page of this size");
		table = table_below(f, entry, level);
	}
	if (size > PAGE_SIZE)
		bits |= PTE_PS;
	flat_poke(f, entry, gpa | bits, bytes);
}

void flat_supervisor(struct flat *f)
{
	for (gva_t addr = 0; addr < 0x200000; addr += PAGE_SIZE)
		flat_map(f, addr, addr, PTE_P | PTE_W, PAGE_SIZE);
	mmu_flush_all(f->cpu);
}

gpa_t flat_entry(struct flat *f, gva_t addr, unsigned level)
{
	unsigned at = top_level(f->cpu);
	gpa_t table = root_of(f->cpu);

	for (;; at--) {
		gpa_t entry = entry_in(f->cpu, table, addr, at);
		uint64_t val = flat_peek(f, entry, entry_size(f->cpu));

		if (at == level)
			return entry;
		if (!(val & PTE_P) || ((val & PTE_PS) && at <= 3) || at == 1)
			return 0;
		table = val & GENMASK(51, 12);
	}
}

uint64_t flat_get_entry(struct flat *f, gva_t addr, unsigned level)
{
	return flat_peek(f, flat_entry(f, addr, level), entry_size(f->cpu));
}

void flat_set_entry(struct flat *f, gva_t addr, unsigned level, uint64_t val)
{
	flat_poke(f, flat_entry(f, addr, level), val, entry_size(f->cpu));
}
