/* SPDX-License-Identifier: MIT */
/* Making a TLB: pages of zeroes, which cost memory only once used. Ordinary C, for it calls libc. */
#include "host/host.h"
#include "silicon/mmu/direct.h"
#include "silicon/mmu/tlb.h"
#include "silicon/mmu/codemap.h"

#include <sys/mman.h>

struct tlb *tlb_create(void)
{
	struct tlb *tlb = mmap(NULL, sizeof(*tlb), PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (tlb == MAP_FAILED)
		return NULL;
	tlb->half_shift = 63;
	tlb->next_gen = 1;
	for (unsigned half = 0; half < 2; half++) {
		tlb->gen[half] = tlb->next_gen++;
		tlb->gen_write[half] = tlb->next_gen++;
	}
	tlb->gen_memory = 1;
	tlb_forget_code(tlb);
	return tlb;
}

void tlb_add_guest(struct tlb *tlb)
{
	struct tlb *guest = tlb_create();

	if (!guest)
		return;
	guest->guest = true;
	guest->other = tlb;
	tlb->other = guest;
}

static void destroy(struct tlb *tlb)
{
	direct_destroy(tlb->direct);
	munmap(tlb, sizeof(*tlb));
}

void tlb_remove_guest(struct tlb *tlb)
{
	if (tlb->other)
		destroy(tlb->other);
	tlb->other = NULL;
}

/* The root's goes last: the other's tables share with its. */
void tlb_destroy(struct tlb *tlb)
{
	if (!tlb)
		return;
	if (tlb->guest)
		tlb = tlb->other;
	tlb_remove_guest(tlb);
	destroy(tlb);
}

static struct direct_code *code_create(void)
{
	struct direct_code *c =
		mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return c == MAP_FAILED ? NULL : c;
}

/* All else of it is 0, and untouched. */
static void clear(struct direct_map *map)
{
	map->neg[0] = direct_cleared(0);
	for (unsigned index = DIRECT_TOP; index < DIRECT_ENTRIES; index++)
		map->neg[index] = direct_cleared(index);
}

struct direct *direct_create(struct direct *beside)
{
	struct direct *d = host_low_alloc(sizeof(*d));

	if (!d)
		return NULL;
	madvise(d, sizeof(*d), MADV_DONTFORK);
	d->code = beside ? beside->code : code_create();
	d->owns_code = !beside;
	if (!d->code) {
		direct_destroy(d);
		return NULL;
	}
	for (unsigned state = 0; state < ACCESS_USER_ALIGN; state++)
		for (unsigned kind = 0; kind < NR_DIRECT_KINDS; kind++)
			clear(&d->map[state][kind]);
	return d;
}

void direct_destroy(struct direct *d)
{
	if (!d)
		return;
	if (d->owns_code && d->code)
		munmap(d->code, sizeof(*d->code));
	munmap(d, sizeof(*d));
}

struct codemap *codemap_create(void)
{
	struct codemap *w = mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return w == MAP_FAILED ? NULL : w;
}

void codemap_destroy(struct codemap *w)
{
	if (w)
		munmap(w, sizeof(*w));
}

bool codemap_join(struct codemap *w, struct cpu *cpu)
{
	if (w->nr_members == CODEMAP_MEMBERS)
		return false;
	cpu->codemap = w;
	cpu->codemap_index = w->nr_members;
	w->member[cpu->codemap_index] = (struct codemap_member){.cpu = cpu};
	__atomic_store_n(&w->nr_members, cpu->codemap_index + 1, __ATOMIC_SEQ_CST);
	return true;
}

void codemap_leave(struct cpu *cpu)
{
	if (cpu->codemap && cpu->codemap_index + 1 == cpu->codemap->nr_members)
		__atomic_store_n(&cpu->codemap->nr_members, cpu->codemap_index, __ATOMIC_SEQ_CST);
	cpu->codemap = NULL;
}
