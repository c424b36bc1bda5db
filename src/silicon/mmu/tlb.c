/* SPDX-License-Identifier: MIT */
/*
 * Filling and flushing the software TLB (tlb.h has its form).
 *
 * INVLPG must drop every piece of a large page. Where large pages were filled is remembered coarsely
 * (a hash, never forgotten until a full flush): there it looks at each page of a 4 MiB granule, or for
 * 1 GiB pages flushes the half.
 */
#include "silicon/mmu/tlb.h"
#include "silicon/mmu/direct.h"
#include "silicon/mmu/log.h"
#include "silicon/mmu/codemap.h"

#include <string.h>

#define BASIS_CR0  (CR0_PG | CR0_WP)
#define BASIS_CR4  (CR4_PSE | CR4_PAE | CR4_PGE | CR4_LA57 | CR4_SMEP | CR4_PKE)
#define BASIS_EFER (EFER_NX | EFER_LMA)

/* ---- flushes ---- */

void tlb_forget_memory(struct tlb *tlb)
{
	if (++tlb->gen_memory < TLB_GENERATIONS)
		return;
	memset(tlb->memory, 0, sizeof(tlb->memory));
	tlb->gen_memory = 1;
}

/* The mode may have changed with nobody saying so: by RESET#, SMI, or who restores a state. */
static void follow_mode(struct cpu *cpu)
{
	struct tlb *tlb = cpu->tlb;

	if (unlikely(tlb->worlds[tlb->world].id.guest != cpu_guest(cpu)))
		mmu_switch_world(cpu);
}

void mmu_flush_all(struct cpu *cpu)
{
	follow_mode(cpu);
	tlb_forget_memory(cpu->tlb);
	mmu_flush_translations(cpu);
	if (!cpu->tlb->other)
		return;
	tlb_forget_memory(cpu->tlb->other);
	tlb_flush(cpu->tlb->other);
}

void tlb_flush(struct tlb *tlb)
{
	tlb_forget_contexts(tlb);
	tlb_flush_half(tlb, 0);
	tlb_flush_half(tlb, 1);
	tlb->huge = 0;
	tlb->pkru_used = 0;
	memset(tlb->large, 0, sizeof(tlb->large));
}

void mmu_flush_translations(struct cpu *cpu)
{
	cpu->tlb->half_shift = cpu->msr.efer & EFER_LMA ? 63 : 31;
	tlb_flush(cpu->tlb);
	tlb_name_present(cpu);
}

void tlb_flush_local(struct tlb *tlb)
{
	tlb_forget_paths(tlb);
	for (unsigned half = 0; half < 2; half++)
		if (tlb->local[half])
			tlb_flush_half(tlb, half);
}

static void renew_writes(struct tlb *tlb)
{
	if (tlb->next_gen + 2 > TLB_GENERATIONS) {
		tlb_start_over(tlb);
		return;
	}
	tlb->gen_write[0] = tlb->next_gen++;
	tlb->gen_write[1] = tlb->next_gen++;
	tlb_forget_writes(tlb);
}

static void flush_writes(struct tlb *tlb)
{
	direct_flush_writes(tlb->direct);
	renew_writes(tlb);
}

void mmu_flush_writes(struct cpu *cpu)
{
	flush_writes(cpu->tlb);
	if (cpu->tlb->other)
		flush_writes(cpu->tlb->other);
}

static void flush_writes_to(struct tlb *tlb, const uint8_t *hva)
{
	direct_flush_writes_to(tlb->direct, hva);
	renew_writes(tlb);
}

/* Here all write tags go, but not those that translated code uses. */
void tlb_flush_writes_to(struct tlb *tlb, const uint8_t *hva)
{
	flush_writes_to(tlb, hva);
	if (tlb->other)
		flush_writes_to(tlb->other, hva);
}

/* ---- one page ---- */

static bool is_page(uint64_t tag, gva_t addr)
{
	return !((tag ^ addr) & PAGE_MASK);
}

void tlb_drop_page(struct tlb *tlb, gva_t addr, unsigned salt)
{
	unsigned index = tlb_index(addr, salt);

	for (unsigned state = 0; state < NR_ACCESS_STATES; state++) {
		struct tlb_entry *e = &tlb->table[state][index];

		if (is_page(e->tag_read, addr) || is_page(e->tag_write, addr) ||
		    is_page(e->tag_fetch, addr))
			*e = (struct tlb_entry){0};
	}
}

static void drop_page(struct tlb *tlb, gva_t addr)
{
	direct_flush_page(tlb->direct, addr);
	tlb_drop_page(tlb, addr, tlb_salt_at(tlb, addr));
}

static bool has_page(const struct tlb *tlb, gva_t addr)
{
	unsigned index = tlb_index(addr, tlb_salt_at(tlb, addr)), half = tlb_half(tlb, addr);
	uint64_t tag = (addr & PAGE_MASK) | tlb->gen[half];

	for (unsigned state = 0; state < NR_ACCESS_STATES; state++) {
		const struct tlb_entry *e = &tlb->table[state][index];

		if (e->tag_read == tag || e->tag_fetch == tag || is_page(e->tag_write, addr))
			return true;
	}
	return false;
}

void mmu_refused_page(struct cpu *cpu, gva_t addr)
{
	struct tlb *tlb = cpu->tlb;

	if (!has_page(tlb, addr))
		return;
	tlb_forget_code(tlb);
	drop_page(tlb, addr);
	direct_note_flush(tlb->direct, addr, PAGE_SHIFT);
}

static unsigned large_hash(gva_t addr)
{
	uint64_t granule = addr >> TLB_LARGE_SHIFT;

	return (granule ^ granule >> TLB_LARGE_BITS ^ granule >> 2 * TLB_LARGE_BITS) &
	       ((1 << TLB_LARGE_BITS) - 1);
}

static uint64_t huge_bit(gva_t addr)
{
	return BIT(addr >> TLB_HUGE_SHIFT & 63);
}

static void remember_large(struct tlb *tlb, const struct access *a)
{
	unsigned hash = large_hash(a->addr);

	if (a->page_shift >= TLB_HUGE_SHIFT)
		tlb->huge |= huge_bit(a->addr);
	else
		tlb->large[hash / 64] |= BIT(hash % 64);
}

static bool in_large(const struct tlb *tlb, gva_t addr)
{
	unsigned hash = large_hash(addr);

	return tlb->large[hash / 64] & BIT(hash % 64);
}

bool tlb_in_large(const struct tlb *tlb, gva_t addr)
{
	return tlb->huge & huge_bit(addr) || in_large(tlb, addr);
}

void tlb_flush_page(struct tlb *tlb, gva_t addr)
{
	gva_t granule = ALIGN_DOWN(addr, 1ull << TLB_LARGE_SHIFT);

	tlb_forget_paths(tlb);
	if (!tlb_half(tlb, addr))
		tlb_forget_globals(tlb);
	if (tlb->huge & huge_bit(addr)) {
		tlb_flush_half(tlb, tlb_half(tlb, addr));
		return;
	}
	tlb_forget_code(tlb);
	if (!in_large(tlb, addr)) {
		drop_page(tlb, addr);
		direct_note_flush(tlb->direct, addr, PAGE_SHIFT);
		return;
	}
	direct_note_flush(tlb->direct, addr, TLB_LARGE_SHIFT);
	for (gva_t page = 0; page < 1 << TLB_LARGE_SHIFT; page += PAGE_SIZE)
		drop_page(tlb, granule + page);
}

void mmu_flush_page(struct cpu *cpu, gva_t addr)
{
	tlb_flush_page(cpu->tlb, addr);
}

/* ---- filling ---- */

/* Data breakpoints do not cross pages: their addresses count as aligned to their length. */
static bool page_watched(const struct tlb *tlb, gva_t addr)
{
	for (unsigned n = 0; n < 4; n++)
		if ((tlb->basis.dr7 >> (16 + 4 * n) & 1) && is_page(tlb->basis.dr[n], addr))
			return true;
	return false;
}

static const uint8_t *host_page(const struct access *a)
{
	return (const uint8_t *)((uintptr_t)a->hva & PAGE_MASK);
}

static uint8_t tag_rights(const struct cpu *cpu, const struct access *a, bool may_write)
{
	const struct tlb *tlb = cpu->tlb;
	uint8_t rights = a->rights;

	if (!a->dirty || !a->writable || !may_write || mmu_log_recording(tlb->log))
		rights &= ~ACCESS_WRITE;
	if (rights & ACCESS_WRITE && a->hva && codemap_refuses(cpu, host_page(a)))
		rights &= ~ACCESS_WRITE;
	if (tlb->watching && page_watched(tlb, a->addr))
		rights &= ACCESS_FETCH;
	return rights;
}

/* For tests: all but this page and the one before are dropped. */
static void keep_two(struct tlb *tlb, gva_t page)
{
	if (page == tlb->kept[0])
		return;
	if (page != tlb->kept[1])
		drop_page(tlb, tlb->kept[1]);
	tlb->kept[1] = tlb->kept[0];
	tlb->kept[0] = page;
}

void tlb_fill(struct cpu *cpu, const struct access *a, bool may_write)
{
	struct tlb *tlb = cpu->tlb;
	gva_t page = a->addr & PAGE_MASK;
	struct tlb_entry *e = &tlb->table[a->state][tlb_index(page, tlb_salt_at(tlb, page))];
	unsigned half = tlb_half(tlb, page);
	bool fetched = e->tag_fetch == (page | tlb->gen[half]);
	uint8_t rights = direct_rights(tlb->direct, a, tag_rights(cpu, a, may_write), fetched);

	if (!a->hva || a->apart || a->state == ACCESS_USER_ALIGN)
		return;
	if (unlikely(tlb->two_pages))
		keep_two(tlb, page);
	e->tag_read = rights & ACCESS_READ ? page | tlb->gen[half] : 0;
	e->tag_write = rights & ACCESS_WRITE ? page | tlb->gen_write[half] : 0;
	e->tag_fetch = rights & ACCESS_FETCH ? page | tlb->gen[half] : 0;
	e->addend = (uint64_t)a->hva - a->addr;
	tlb->count.fills++;
	tlb->pkru_used |= 3u << 2 * a->key;
	direct_fill(tlb->direct, a, rights, half);
	if (!a->global)
		tlb->local[half] = true;
	else if (!half)
		tlb->global = true;
	if (a->page_shift > PAGE_SHIFT)
		remember_large(tlb, a);
}

const uint8_t *tlb_fetch_table(struct cpu *cpu, gva_t addr)
{
	enum access_state state = cpu->mode.access, table = state;
	const struct tlb_entry *e;
	struct tlb_code *code;

	if (table == ACCESS_USER_ALIGN)
		table = ACCESS_USER;
	e = tlb_entry(cpu, table, addr);
	if (e->tag_fetch != tlb_key(cpu->tlb, cpu->tlb->gen, addr, 16))
		return NULL;
	code = &cpu->tlb->code[state];
	code->base = addr & PAGE_MASK;
	code->host = (const uint8_t *)(code->base + e->addend);
	return code->host + (addr - code->base);
}

void tlb_memory(struct cpu *cpu, gpa_t gpa, struct ram_page *ret)
{
	struct tlb *tlb = cpu->tlb;
	uint64_t tag = (gpa & PAGE_MASK) | tlb->gen_memory;
	struct tlb_memory *m =
		&tlb->memory[(gpa >> PAGE_SHIFT ^ gpa >> (PAGE_SHIFT + TLB_MEMORY_BITS)) &
			     (TLB_MEMORY - 1)];

	if (m->tag != tag) {
		platform_call(cpu, memory, gpa & PAGE_MASK, &m->page);
		m->tag = tag;
	}
	*ret = m->page;
}

/* ---- what the cached translations rest on ---- */

static bool data_breakpoints(const struct tlb_basis *basis)
{
	for (unsigned n = 0; n < 4; n++)
		if ((basis->dr7 >> 2 * n & 3) && (basis->dr7 >> (16 + 4 * n) & 1))
			return true;
	return false;
}

static void find_basis(const struct cpu *cpu, struct tlb_basis *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->cr0 = cpu->cr0 & BASIS_CR0;
	ret->cr4 = cpu->cr4 & BASIS_CR4;
	ret->efer = cpu->msr.efer & BASIS_EFER;
	ret->pkru = cpu->cr4 & CR4_PKE ? cpu->pkru : 0;
	ret->maxphyaddr = cpu->maxphyaddr;
	ret->dr7 = cpu_dr7(cpu);
	if (!data_breakpoints(ret))
		ret->dr7 = 0;
	for (unsigned n = 0; ret->dr7 && n < 4; n++)
		ret->dr[n] = cpu_dr(cpu, n);
}

void mmu_update_mode(struct cpu *cpu)
{
	struct tlb_basis basis;
	struct tlb *tlb;

	cpu_update_access(cpu);
	follow_mode(cpu);
	tlb = cpu->tlb;
	find_basis(cpu, &basis);
	/* Keys that no page has had do not matter. */
	if (!((basis.pkru ^ tlb->basis.pkru) & tlb->pkru_used))
		tlb->basis.pkru = basis.pkru;
	if (!memcmp(&basis, &tlb->basis, sizeof(basis)))
		return;
	tlb->basis = basis;
	tlb->watching = basis.dr7;
	mmu_flush_translations(cpu);
}
