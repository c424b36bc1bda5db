/* SPDX-License-Identifier: MIT */
/* Making and freeing a vCPU's decoded instructions and thunks. */
#include "silicon/exec/decode.h"
#include "silicon/exec/exec.h"
#include "silicon/exec/run.h"
#include "silicon/exec/thunk.h"

#include <stdlib.h>
#include <sys/mman.h>

static struct insn *insns_alloc(size_t nr)
{
	size_t size = nr * sizeof(struct insn);
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED)
		return NULL;
	return mem;
}

void cache_large_pages(const struct exec_cache *c)
{
	madvise(c->insn, CACHE_SIZE, MADV_HUGEPAGE);
	madvise(c->pool, POOL_INSNS * sizeof(struct insn), MADV_HUGEPAGE);
}

static uint32_t component_offset(const struct exec_cache *c, unsigned component)
{
	return host_xcr0() & BIT(component) ? c->host_xstate[component].offset : 0;
}

/* CPUID is slow where the host is a virtual machine itself. */
static void xsave_offsets(struct exec_cache *c)
{
	for (unsigned i = 0; i < NR_XSTATES; i++) {
		uint32_t r[4];

		host_cpuid(0xd, i, r);
		c->host_xstate[i] =
			(struct xstate){.size = r[0], .offset = r[1], .aligned = r[2] & 2};
	}
	c->xoff_avx = component_offset(c, 2);
	c->xoff_k = component_offset(c, 5);
	c->xoff_zmm_hi = component_offset(c, 6);
	c->xoff_hi16 = component_offset(c, 7);
}

struct exec_cache *exec_create(void)
{
	struct exec_cache *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	xsave_offsets(c);
	c->insn = insns_alloc(CACHE_INSNS + 1);
	c->pool = insns_alloc(POOL_INSNS);
	c->guess = calloc(1, GUESSES);
	c->memo = decode_memo_create();
	if (!c->memo || !c->insn || !c->pool || !c->guess || thunk_init(c)) {
		exec_destroy(c);
		return NULL;
	}
	return c;
}

void exec_destroy(struct exec_cache *c)
{
	if (!c)
		return;
	run_destroy(c->run);
	thunk_free(c);
	if (c->insn)
		munmap(c->insn, CACHE_SIZE);
	if (c->pool)
		munmap(c->pool, POOL_INSNS * sizeof(struct insn));
	free(c->guess);
	free(c->memo);
	free(c);
}
