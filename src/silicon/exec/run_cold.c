/* SPDX-License-Identifier: MIT */
/*
 * The cold path of every site (run.h): the instruction's handler, on the whole state in memory, and where control goes
 * on behind it. That is the block, if nothing changed that the block rests on; another block, if its instruction led
 * there and nothing waits; or the loop.
 */
#include "silicon/exec/borrow.h"
#include "silicon/exec/decode.h"
#include "silicon/exec/emul.h"
#include "silicon/exec/run_parts.h"
#include "silicon/mmu/tlb.h"
#include "silicon/sys/sys.h"

#define GROUPS 2 /* at most of a site */

static bool stay(const struct run *run, const struct run_site *site, unsigned len, uint64_t gen)
{
	const struct cpu *cpu = run->cpu;
	const struct direct *d = cpu->tlb->direct;

	return site->next && !(site->flags & SITE_APART) && cpu->rip == site->rip + len &&
	       !run_attention(cpu) && !cpu->out.nr && !d->code->nr_written && d->gen == gen;
}

#define LAST_PAGE32 0xfffff000 /* what goes on behind it is not its successor */

/* 64-bit code, or flat 32-bit code on a 32-bit stack. */
static bool flat(const struct cpu *cpu)
{
	const struct mode *mode = &cpu->mode;

	return mode->code == CODE_64 || (mode->code == CODE_32 && mode->flat &&
					 mode->stack_bytes == 4 && cpu->rip < LAST_PAGE32);
}

bool run_translatable(const struct cpu *cpu)
{
	return flat(cpu) && cpu->mode.access != ACCESS_USER_ALIGN && !cpu->answers.nr;
}

void run_look_around(struct run *run)
{
	const struct direct *d = run->cpu->tlb->direct;

	run_notice_writes(run);
	if (d->gen == run->seen_gen[run_mode(run)])
		return;
	run->seen_gen[run_mode(run)] = d->gen;
	run_jumps_follow(run);
}

/* What the accesses that a site checks are off, before its instruction. */
static void groups_look(const struct run *run, const struct run_site *site, uint64_t root[])
{
	const struct cpu *cpu = run->cpu;

	for (unsigned i = 0; i < site->nr_groups; i++) {
		const struct run_group *g = &run->group[site->group + i];

		root[i] = g->root + (g->seg ? cpu->seg[g->seg].base : 0) +
			  (g->base == REG_NONE ? 0 : cpu->gpr[g->base]);
		root[GROUPS + i] = root[i] + g->low +
				   (g->index == REG_NONE ? 0 : cpu->gpr[g->index] << g->scale);
	}
}

static void go_plain(struct run *run, const struct run_group *g)
{
	uint32_t disp = g->plain - (g->cold + 4);

	__builtin_memcpy(run->code.rw + g->cold, &disp, 4);
	run->code.rw[g->cold - 1] = 0xe9; /* JMP: it may have been a call */
}

/* Set the slots that the site's checks would have set. False: they would not have held. */
static bool groups_set(struct run *run, const struct run_site *site, const uint64_t root[],
		       uint64_t frame[])
{
	for (unsigned i = 0; i < site->nr_groups; i++) {
		const struct run_group *g = &run->group[site->group + i];
		const struct direct_map *map = &run->cpu->tlb->direct->map[run->access][g->kind];
		uint64_t low = root[GROUPS + i];
		unsigned index = low >> PAGE_SHIFT & (DIRECT_ENTRIES - 1);

		if ((map->neg[index] + low + g->size - 1) & PAGE_MASK) {
			go_plain(run, g);
			return false;
		}
		frame[g->slot] = root[i] + map->addend[index];
	}
	return true;
}

/* The code at RIP, if to go on there needs nothing of the loop. */
static const uint8_t *code_onward(struct run *run)
{
	struct cpu *cpu = run->cpu;
	const uint8_t *host, *code;
	uint32_t block;

	cpu->exec->key = decode_key(cpu);
	if (!run->opt.chain || run_attention(cpu) || cpu->out.nr || !run_translatable(cpu))
		return NULL;
	run_look_around(run);
	code = run_jump_find(run, run_key(cpu), cpu->rip);
	if (likely(code))
		return code;
	block = run_find(run, run_key(cpu), &host);
	if (block == RUN_NONE)
		return NULL;
	run_jump_add(run, block);
	return run->code.rx + run->block[block].entry;
}

/* Where the instruction led to. */
static const uint8_t *onward(struct run *run)
{
	const uint8_t *code = code_onward(run);

	if (code)
		run->cpu->retired++;
	return code;
}

/* What run_cold() finds. */
struct cold_before {
	uint64_t gen; /* of the TLB */
	bool live;    /* vector state is in the registers */
	uint64_t root[2 * GROUPS];
};

/* The instruction committed: count it, and see where to go on. */
static const uint8_t *cold_done(struct run *run, const struct run_site *site,
				const struct insn *insn, const struct cold_before *before,
				uint64_t frame[])
{
	struct cpu *cpu = run->cpu;
	const uint8_t *next;

	if (unlikely(cpu->answers.nr))
		cpu->answers.nr = cpu->answers.used = 0;
	if (insn->sync) {
		run_serialize(run, insn->sync);
	} else if (stay(run, site, insn->len, before->gen) && decode_key(cpu) == cpu->exec->key &&
		   cpu->mode.access == run->access && flat(cpu) &&
		   groups_set(run, site, before->root, frame)) {
		cpu->retired += site->left;
		next = run->code.rx + site->next;
		goto out;
	}
	next = onward(run);
out:
	/* A store's second half may have put away what the block goes on with. */
	if (next && (before->live || insn->flags & INSN_FPU))
		fpu_load(cpu);
	return next;
}

static void refill_word(struct cpu *cpu, gva_t addr)
{
	direct_refill(cpu, cpu->mode.code == CODE_64 ? addr : (uint32_t)addr);
}

/* It may be the inline table alone that lacks the page: then nothing else would fill it. */
static void refill(struct cpu *cpu, const struct run_site *site, const struct insn *insn)
{
	if (site->flags & SITE_STRING) {
		direct_refill(cpu, cpu->gpr[RDI]);
		direct_refill(cpu, cpu->gpr[RSI]);
	}
	uint64_t off = insn->run == run_bit ? borrow_bit_ea(cpu, insn) : insn_ea(cpu, insn);

	if (site->flags & SITE_MEM)
		refill_word(cpu, off + (insn->seg >= SEG_FS ? cpu->seg[insn->seg].base : 0));
	if (site->flags & SITE_PUSH)
		refill_word(cpu, cpu->gpr[RSP] - cpu->mode.stack_bytes);
	if (site->flags & SITE_LEAVE)
		refill_word(cpu, cpu->gpr[RBP]);
	if (site->flags & SITE_POP)
		refill_word(cpu, cpu->gpr[RSP]);
}

/* Interrupts are held back over this instruction. Attention hears of that only where it does not end with it. */
static enum result run_shadowed(struct cpu *cpu, const struct insn *insn)
{
	enum result r;

	cpu->shadow = SHADOW_STI;
	r = insn->run(cpu, insn);
	if (r == RESULT_OK || r == RESULT_STOP)
		cpu->shadow &= ~SHADOW_STI;
	cpu_update_attention(cpu);
	return r;
}

/* Guest mode began or ended, with all of the state another's; whatever else starts anew is the loop's. */
static const uint8_t *elsewhere(struct run *run, bool guest)
{
	return cpu_guest(run->cpu) != guest && !run->cpu->answers.nr ? code_onward(run) : NULL;
}

/* The pointers to an x87 instruction that left them to the next one's cold path. */
static void record_x87(struct run *run, uint32_t number)
{
	const struct insn *insn = run_site_insn(run, number);
	struct cpu *cpu = run->cpu;

	cpu->fpu.fip = run_site_get(run, number).rip;
	cpu->fpu.fcs = cpu->seg[SEG_CS].sel;
	cpu->fpu.fop = (insn->opcode & 7) << 8 | insn->modrm;
}

const uint8_t *run_cold(struct cpu *cpu, uint32_t number, uint64_t frame[RUN_SLOTS])
{
	struct run *run = cpu->exec->run;
	struct cold_before before = {.gen = cpu->tlb->direct->gen, .live = cpu->fpu.live};
	const uint8_t *next = NULL;
	const struct insn *insn;
	struct run_site site;
	enum result r;
	bool guest;

	if (number & RUN_SITE_AT)
		number = run_site_at(run, (number & ~RUN_SITE_AT) - 1);
	site = run_site_get(run, number);
	if (site.behind_x87)
		record_x87(run, number - 1);
	insn = run_site_insn(run, number);
	fpu_settle(cpu);
	run->count[COUNT_CALLED]++;
	if (unlikely(run->nr_cold_of))
		run->nr_cold_of[2 * insn->op + !site.last]++;
	cpu->rip = site.rip;
	cpu->retired -= site.left;
	run->access = cpu->mode.access;
	groups_look(run, &site, before.root);
	if (site.flags & (SITE_STRING | SITE_MEM | SITE_PUSH | SITE_POP | SITE_LEAVE))
		refill(cpu, &site, insn);
	guest = cpu_guest(cpu);
	r = unlikely(site.flags & SITE_SHADOW) ? run_shadowed(cpu, insn) : insn->run(cpu, insn);
	if (likely(r == RESULT_OK))
		next = cold_done(run, &site, insn, &before, frame);
	else if (r == RESULT_AGAIN)
		next = elsewhere(run, guest);
	run->result = r;
	run->leave = LEAVE_COLD << LEAVE_SHIFT;
	return next;
}
