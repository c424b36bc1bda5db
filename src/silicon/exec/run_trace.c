/* SPDX-License-Identifier: MIT */
/*
 * The first pass of translation: guest bytes to records (run_translate.h).
 *
 * A block ends at a branch, at an instruction that may lead anywhere, at the page's end, or when it is long. An
 * instruction that goes over the page's end is a block of its own, and belongs to both pages. Blocks are made of
 * pages' copies, so that what is compared later is what was translated.
 */
#include "silicon/exec/run_translate.h"

#include "host/guard.h"
#include "silicon/exec/decode.h"
#include "silicon/mmu/tlb.h"

#define LINE	 64ul
#define MAX_INSN 15u

/* ---- decoding ---- */

/* Bring the page's copy up to date where no block was made of it yet. */
static void cover(struct run_page *page, unsigned from, unsigned to)
{
	for (unsigned line = from / LINE; line <= (to - 1) / LINE; line++) {
		if (page->lines & BIT(line))
			continue;
		if (!host_copy_guarded(page->copy + line * LINE, page->hva + line * LINE, LINE))
			memset(page->copy + line * LINE, 0, LINE);
		page->lines |= BIT(line);
	}
}

/* Stepped lately, it stands decoded in step's cache. */
static bool decoded_by_step(struct translation *t, struct run_record *rec, const uint8_t *bytes,
			    unsigned nr)
{
	const struct exec_cache *c = t->cpu->exec;
	uint32_t number = cache_number(rec->rip);

	for (unsigned i = 0; i < 2; i++) {
		const struct insn *insn = cache_slot(c, number ^ i);

		if (insn->mode != c->key || !insn->len || insn->len > nr ||
		    memcmp(insn->bytes, bytes, insn->len))
			continue;
		rec->insn = *insn;
		return true;
	}
	return false;
}

static bool decode_bytes(struct translation *t, struct run_record *rec, const uint8_t *bytes,
			 unsigned nr)
{
	struct exec_cache *c = t->cpu->exec;

	if (!decoded_by_step(t, rec, bytes, nr) &&
	    !decode_insn(t->cpu, c->key, bytes, nr, &rec->insn))
		return false;
	if (ZYAN_SUCCESS(
		    ZydisDecoderDecodeFull(&c->decoder[CODE_64], bytes, nr, &rec->z, rec->ops)))
		return true;
	memset(&rec->z, 0, sizeof(rec->z));
	return rec->insn.trap;
}

static bool decode(struct translation *t, struct run_record *rec)
{
	unsigned off = rec->rip & ~PAGE_MASK, nr = min((unsigned)PAGE_SIZE - off, MAX_INSN);

	cover(t->page, off, off + nr);
	return decode_bytes(t, rec, t->page->copy + off, nr);
}

/* The instruction at the block's start, which goes over the page's end. False: the page behind is not there. */
static bool decode_over(struct translation *t, struct run_record *rec)
{
	const uint8_t *host = run_second_page(t->cpu);
	unsigned off = rec->rip & ~PAGE_MASK, nr = PAGE_SIZE - off;
	uint8_t bytes[MAX_INSN];

	t->second = host ? run_page_get(t->run, host) : NULL;
	if (!t->second)
		return false;
	cover(t->second, 0, MAX_INSN - nr);
	memcpy(bytes, t->page->copy + off, nr);
	memcpy(bytes + nr, t->second->copy, MAX_INSN - nr);
	return decode_bytes(t, rec, bytes, MAX_INSN);
}

/* ---- the way through the page ---- */

/* MOV to a control register but CR8, or to a debug register; reading one serializes nothing. */
static bool sets_system_register(const struct run_record *rec)
{
	const ZydisDecodedOperand *to = &rec->ops[0];

	if (rec->z.mnemonic != ZYDIS_MNEMONIC_MOV || to->type != ZYDIS_OPERAND_TYPE_REGISTER ||
	    to->reg.value == ZYDIS_REGISTER_CR8)
		return false;
	switch (ZydisRegisterGetClass(to->reg.value)) {
	case ZYDIS_REGCLASS_CONTROL:
	case ZYDIS_REGCLASS_DEBUG:
		return true;
	default:
		return false;
	}
}

/* SDM, serializing instructions. */
static const uint16_t serializing[] = {
	ZYDIS_MNEMONIC_CPUID,  ZYDIS_MNEMONIC_SERIALIZE, ZYDIS_MNEMONIC_IRET,
	ZYDIS_MNEMONIC_IRETD,  ZYDIS_MNEMONIC_IRETQ,	 ZYDIS_MNEMONIC_WRMSR,
	ZYDIS_MNEMONIC_INVLPG, ZYDIS_MNEMONIC_INVPCID,	 ZYDIS_MNEMONIC_INVD,
	ZYDIS_MNEMONIC_WBINVD, ZYDIS_MNEMONIC_LGDT,	 ZYDIS_MNEMONIC_LIDT,
	ZYDIS_MNEMONIC_LLDT,   ZYDIS_MNEMONIC_LTR,	 ZYDIS_MNEMONIC_RSM,
};

static bool serializes(const struct run_record *rec)
{
	for (unsigned i = 0; i < ARRAY_SIZE(serializing); i++)
		if (rec->z.mnemonic == serializing[i])
			return true;
	return sets_system_register(rec);
}

static bool leads_away(const struct run_record *rec)
{
	switch (rec->z.meta.category) {
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
		return true;
	default:
		return rec->insn.trap || rec->z.mnemonic == ZYDIS_MNEMONIC_HLT;
	}
}

static bool same_page(uint64_t a, uint64_t b)
{
	return !((a ^ b) & PAGE_MASK);
}

bool run_collect(struct translation *t)
{
	struct run *run = t->run;
	uint64_t rip = t->start;

	while (t->nr_records < run->opt.max_insns && same_page(rip, t->start)) {
		struct run_record *rec = &t->record[t->nr_records];

		rec->rip = rip;
		if (!decode(t, rec) && (t->nr_records || !decode_over(t, rec)))
			break;
		/* Decoding may have dropped the thunks that earlier records point to. */
		if (run->seen_drops != run->cpu->exec->nr_drops)
			return false;
		t->nr_records++;
		rec->serializes = serializes(rec);
		rec->ends = rec->serializes || leads_away(rec);
		if (rec->ends)
			break;
		rip += rec->insn.len;
	}
	return t->nr_records;
}
