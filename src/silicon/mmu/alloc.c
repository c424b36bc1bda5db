/* SPDX-License-Identifier: MIT */
/* Making a TLB: pages of zeroes, which cost memory only once used. Ordinary C, for it calls libc. */
#include "host/host.h"
#include "silicon/mmu/direct.h"
#include "silicon/mmu/tlb.h"
#include "silicon/mmu/watch.h"

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

void tlb_destroy(struct tlb *tlb)
{
	if (!tlb)
		return;
	direct_destroy(tlb->direct);
	munmap(tlb, sizeof(*tlb));
}

struct direct *direct_create(void)
{
	struct direct *d = host_low_alloc(sizeof(*d));

	if (!d)
		return NULL;
	madvise(d, sizeof(*d), MADV_DONTFORK);
	for (unsigned state = 0; state < ACCESS_USER_ALIGN; state++)
		for (unsigned kind = 0; kind < NR_DIRECT_KINDS; kind++)
			d->map[state][kind].neg[0] = DIRECT_NEVER;
	return d;
}

void direct_destroy(struct direct *d)
{
	if (d)
		munmap(d, sizeof(*d));
}

struct watch *watch_create(void)
{
	struct watch *w = mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return w == MAP_FAILED ? NULL : w;
}

void watch_destroy(struct watch *w)
{
	if (w)
		munmap(w, sizeof(*w));
}

bool watch_join(struct watch *w, struct cpu *cpu)
{
	if (w->nr_members == WATCH_MEMBERS)
		return false;
	cpu->watch = w;
	cpu->watch_index = w->nr_members;
	w->member[cpu->watch_index] = (struct watch_member){.cpu = cpu};
	__atomic_store_n(&w->nr_members, cpu->watch_index + 1, __ATOMIC_SEQ_CST);
	return true;
}

void watch_leave(struct cpu *cpu)
{
	if (cpu->watch && cpu->watch_index + 1 == cpu->watch->nr_members)
		__atomic_store_n(&cpu->watch->nr_members, cpu->watch_index, __ATOMIC_SEQ_CST);
	cpu->watch = NULL;
}
