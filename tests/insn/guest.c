/* SPDX-License-Identifier: MIT */
/* One vCPU with fake memory; see guest.h. */
#include "guest.h"
#include "silicon/exec/exec.h"
#include "silicon/mmu/mmu.h"
#include "silicon/models/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define RAM_SIZE 0x1000000ul
#define TABLES	 0x800000ul /* PML4, PDPT, PD, then a page table for each 2 MiB of the first 8 */

struct guest {
	struct cpu *cpu;
	uint8_t *ram;
};

static void memory(void *opaque, gpa_t gpa, struct ram_page *ret)
{
	struct guest *g = opaque;

	memset(ret, 0, sizeof(*ret));
	if (gpa < RAM_SIZE) {
		ret->hva = g->ram + (gpa & PAGE_MASK);
		ret->writable = true;
	}
}

static const struct platform platform = {.memory = memory};

static uint64_t *entry(struct guest *g, unsigned page, unsigned index)
{
	return (uint64_t *)(g->ram + TABLES + page * PAGE_SIZE) + index;
}

bool guest_mapped(uint64_t addr)
{
	return (addr >= CODE_PAGE && addr < CODE_PAGE + 2 * PAGE_SIZE) ||
	       (addr >= DATA_PAGE && addr < DATA_PAGE + DATA_SIZE) ||
	       (addr >= STACK_PAGE && addr < STACK_PAGE + STACK_SIZE);
}

static void make_tables(struct guest *g)
{
	*entry(g, 0, 0) = (TABLES + PAGE_SIZE) | 7;
	*entry(g, 1, 0) = (TABLES + 2 * PAGE_SIZE) | 7;
	for (unsigned i = 0; i < 4; i++)
		*entry(g, 2, i) = (TABLES + (3 + i) * PAGE_SIZE) | 7;
	for (uint64_t addr = 0; addr < 4 * 0x200000; addr += PAGE_SIZE)
		if (guest_mapped(addr))
			*entry(g, 3 + addr / 0x200000, addr / PAGE_SIZE % 512) = addr | 7;
}

static void set_segment(struct segment *s, uint16_t sel, uint32_t base, uint32_t limit,
			uint32_t attr)
{
	*s = (struct segment){.sel = sel, .base = base, .limit = limit, .attr = attr};
}

static void set_mode(struct cpu *cpu, const struct segments *segs)
{
	uint32_t data = SEG_A | SEG_W | SEG_S | SEG_P | 3 << SEG_DPL_SHIFT, code;

	if (segs->bits > 16)
		data |= SEG_DB | SEG_G;
	code = data | SEG_CODE;
	if (segs->bits == 64)
		code = (code & ~SEG_DB) | SEG_L;
	for (int i = SEG_ES; i <= SEG_GS; i++)
		set_segment(&cpu->seg[i], segs->data_sel, segs->data_base, segs->limit, data);
	set_segment(&cpu->seg[SEG_SS], segs->stack_sel, segs->stack_base, segs->limit, data);
	set_segment(&cpu->seg[SEG_CS], segs->code_sel, segs->code_base, segs->limit, code);
	cpu->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	cpu->cr3 = TABLES;
	cpu->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE;
	cpu->msr.efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NX;
	cpu_update_mode(cpu);
	mmu_flush_all(cpu);
	mmu_update_mode(cpu);
}

static void die(const char *why)
{
	fprintf(stderr, "insn: %s\n", why);
	exit(1);
}

struct guest *guest_new(const struct segments *segments)
{
	const char *why = NULL;
	const struct cpu_model *model = model_find(NULL, &why);
	struct guest *g = calloc(1, sizeof(*g));
	struct cpu *cpu = aligned_alloc(64, ALIGN_UP(sizeof(*cpu), 64));

	if (!model || !g || !cpu)
		die(why ? why : "no memory");
	memset(cpu, 0, sizeof(*cpu));
	g->cpu = cpu;
	g->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cpu->platform = &platform;
	cpu->opaque = g;
	cpu->model = model;
	memcpy(cpu->model_features, model->features, sizeof(cpu->model_features));
	memcpy(cpu->guest_features, model->features, sizeof(cpu->guest_features));
	cpu->maxphyaddr = 46;
	cpu->tlb = tlb_create();
	cpu->exec = exec_create();
	if (g->ram == MAP_FAILED || !cpu->tlb || !cpu->exec)
		die("no memory");
	if (exec_set_tempo(cpu, getenv("ANYKVM_TEMPO")))
		die("this tempo cannot be had");
	cpu_reset(cpu, false);
	make_tables(g);
	cpu->xcr0 = host_xcr0() & (XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512);
	cpu->fpu.xfeatures = cpu->xcr0;
	set_mode(cpu, segments);
	return g;
}

void guest_free(struct guest *g)
{
	exec_destroy(g->cpu->exec);
	tlb_destroy(g->cpu->tlb);
	munmap(g->ram, RAM_SIZE);
	free(g->cpu);
	free(g);
}

uint64_t guest_xfeatures(const struct guest *g)
{
	return g->cpu->fpu.xfeatures;
}

uint8_t *guest_memory(const struct guest *g, uint64_t addr)
{
	return g->ram + addr;
}

static void take_fault(const struct cpu *cpu, struct state *out)
{
	out->vector = cpu->fault.vector;
	out->error = cpu->fault.error;
	out->cr2 = cpu->fault.payload;
}

void guest_run(struct guest *g, const struct state *in, struct state *out)
{
	struct cpu *cpu = g->cpu;
	enum result r;

	memcpy(cpu->gpr, in->gpr, sizeof(cpu->gpr));
	cpu->rip = in->rip;
	cpu_set_rflags(cpu, in->rflags);
	memcpy(cpu->fpu.area, in->x, sizeof(cpu->fpu.area));
	cpu->fpu.fop = cpu->fpu.fcs = cpu->fpu.fds = 0;
	cpu->fpu.fip = cpu->fpu.fdp = 0;
	do
		r = cpu_step_bare(cpu);
	while (r == RESULT_AGAIN);
	memcpy(out->gpr, cpu->gpr, sizeof(out->gpr));
	out->rip = cpu->rip;
	out->rflags = cpu_rflags(cpu);
	out->vector = -1;
	if (r == RESULT_FAULT)
		take_fault(cpu, out);
	else if (r != RESULT_OK)
		out->vector = 1000 + r;
	memcpy(out->x, cpu->fpu.area, sizeof(out->x));
}
