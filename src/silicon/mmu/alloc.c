/* SPDX-License-Identifier: MIT */
/* Making a TLB: pages of zeroes, which cost memory only once used. Ordinary C, for it calls libc. */
#include "silicon/mmu/direct.h"
#include "silicon/mmu/tlb.h"

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
	struct direct *d = mmap(NULL, sizeof(*d), PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

	if (d == MAP_FAILED)
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
