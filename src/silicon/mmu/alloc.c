/* SPDX-License-Identifier: MIT */
/* Making a TLB: pages of zeroes, which cost memory only once used. Ordinary C, for it calls libc. */
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
	if (tlb)
		munmap(tlb, sizeof(*tlb));
}
