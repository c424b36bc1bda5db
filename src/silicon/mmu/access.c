/* SPDX-License-Identifier: MIT */
/*
 * Guest memory accesses: the inline hit, then the slow path, which owns the order.
 *
 *	split at the page -> for each part: walk, memory lookup -> for each part: dirty log, TLB -> data breakpoints
 *	-> bytes move: RAM | answer recorded earlier | device in the process | exit to user space
 *
 * An access over two pages walks both without side effects first, so that a fault on the second leaves
 * no A or D bit on the first. Past the last check only the program can spoil an access, by taking
 * its RAM away between two pages; the access is then made again whole.
 */
#include "host/guard.h"
#include "host/host.h"
#include "silicon/mmu/log.h"
#include "silicon/mmu/tlb.h"
#include "silicon/mmu/codemap.h"

#include <string.h>

/* An access with its parts in one or two pages. */
struct span {
	unsigned nr;
	struct access part[2];
};

static enum result exit_memory(struct cpu *cpu, const struct access *a)
{
	return mmu_exit(cpu, CPU_EXIT_MEMORY, a->gpa, a->size);
}

/* Implicit accesses are the supervisor's, and SMAP does not ask EFLAGS.AC about them. */
static enum access_state implicit_state(const struct cpu *cpu)
{
	return cpu->cr4 & CR4_SMAP ? ACCESS_SUPER_SMAP : ACCESS_SUPER;
}

/* ---- split, walk, lookup ---- */

/* Outside of 64-bit mode 4 GiB wraps, but the system's own accesses of IA-32e mode reach above. */
static gva_t next_page(const struct cpu *cpu, gva_t addr)
{
	gva_t next = (addr & PAGE_MASK) + PAGE_SIZE;

	return cpu->mode.code == CODE_64 || addr >> 32 ? next : (uint32_t)next;
}

static struct span split(const struct cpu *cpu, gva_t addr, uint32_t size, enum access_op op,
			 enum access_state state)
{
	uint32_t room = PAGE_SIZE - (addr & ~PAGE_MASK);
	uint32_t first = min(size, room);

	return (struct span){
		.nr = first < size ? 2 : 1,
		.part =
			{
				{.addr = addr, .size = first, .op = op, .state = state},
				{.addr = next_page(cpu, addr),
				 .size = size - first,
				 .op = op,
				 .state = state},
			},
	};
}

static enum result translate(struct cpu *cpu, struct access *a, bool dry)
{
	struct walk_context ctx = mmu_context(cpu);

	if (cpu_long_mode(cpu) && !gva_canonical(cpu, a->addr))
		return fault_gp(cpu, 0);
	return mmu_walk(cpu, &ctx, a, dry);
}

static enum result look_up(struct cpu *cpu, struct access *a)
{
	struct ram_page page;

	tlb_memory(cpu, a->gpa, &page);
	a->hva = page.hva ? page.hva + (a->gpa & ~PAGE_MASK) : NULL;
	a->writable = page.writable;
	a->log = page.log;
	return page.closed ? exit_memory(cpu, a) : RESULT_OK;
}

static enum result translate_parts(struct cpu *cpu, struct span *s, bool dry)
{
	enum result r = RESULT_OK;

	for (unsigned i = 0; i < s->nr && !r; i++)
		r = translate(cpu, &s->part[i], dry);
	return r;
}

static enum result translate_span(struct cpu *cpu, struct span *s)
{
	enum result r = s->nr == 2 ? translate_parts(cpu, s, true) : RESULT_OK;

	if (!r)
		r = translate_parts(cpu, s, false);
	for (unsigned i = 0; i < s->nr && !r; i++)
		r = look_up(cpu, &s->part[i]);
	return r;
}

/* Another processor may have code there. */
static void announce(struct cpu *cpu, const struct access *a)
{
	const uint8_t *page = (const uint8_t *)((uintptr_t)a->hva & PAGE_MASK);
	unsigned off = a->addr & ~PAGE_MASK;

	codemap_begin(cpu, page, GENMASK((off + a->size - 1) / 64, off / 64));
}

/* The last check is passed: the access will be made. How many writes to others' code were under way before it. */
static unsigned commit_span(struct cpu *cpu, struct span *s)
{
	unsigned before = codemap_under_way(cpu);

	for (unsigned i = 0; i < s->nr; i++) {
		struct access *a = &s->part[i];
		bool write = a->op & ACCESS_WRITE;

		if (write && a->log && a->hva && a->writable)
			platform_call(cpu, mark_dirty, a->gpa);
		if (write && mmu_log_recording(cpu->tlb->log) && a->hva && a->writable)
			mmu_log_write(cpu->tlb->log, a->hva, a->addr, a->gpa, a->size);
		tlb_fill(cpu, a, write || !a->log);
		if (write && a->hva && a->writable && codemap_shared(cpu))
			announce(cpu, a);
		if (cpu->tlb->watching && a->op != ACCESS_FETCH)
			mmu_check_data_bp(cpu, a->addr, a->size, write);
	}
	return before;
}

/* ---- data breakpoints: SDM, debug registers ---- */

static bool bp_matches(const struct cpu *cpu, unsigned n, gva_t addr, uint32_t size, bool write)
{
	static const uint8_t lengths[4] = {1, 2, 8, 4};
	uint64_t dr7 = cpu_dr7(cpu);
	unsigned type = dr7 >> (16 + 4 * n) & 3;
	unsigned len = lengths[dr7 >> (18 + 4 * n) & 3];
	gva_t at = cpu_dr(cpu, n) & ~(gva_t)(len - 1);

	if (type != 3 && !(type == 1 && write))
		return false;
	return addr < at + len && at < addr + size;
}

/* Breakpoints that are not enabled are reported, too, beside one that is. */
void mmu_check_data_bp(struct cpu *cpu, gva_t addr, uint32_t size, bool write)
{
	uint64_t hits = 0;
	bool enabled = false;

	for (unsigned n = 0; n < 4; n++) {
		if (!bp_matches(cpu, n, addr, size, write))
			continue;
		hits |= BIT(n);
		enabled |= cpu_dr7(cpu) >> 2 * n & 3;
	}
	if (!enabled)
		return;
	cpu->pending_dr6 |= hits;
	cpu_raise(cpu, ATTN_DEBUG);
}

/* ---- bytes: RAM ---- */

static inline bool load_sized(const uint8_t *hva, void *dst, uint32_t size)
{
	if (likely(size == 8))
		return host_load_64(hva, dst);
	if (size == 4)
		return host_load_32(hva, dst);
	if (size == 1)
		return host_load_8(hva, dst);
	if (size == 2)
		return host_load_16(hva, dst);
	return host_copy_guarded(dst, hva, size);
}

static inline bool store_sized(uint8_t *hva, const void *src, uint32_t size)
{
	if (likely(size == 8))
		return host_store_64(hva, *(const host_any_64 *)src);
	if (size == 4)
		return host_store_32(hva, *(const host_any_32 *)src);
	if (size == 1)
		return host_store_8(hva, *(const uint8_t *)src);
	if (size == 2)
		return host_store_16(hva, *(const host_any_16 *)src);
	return host_copy_guarded(hva, src, size);
}

/* ---- bytes: devices, in fragments of up to 8 ---- */

static enum result mmio_read_fragment(struct cpu *cpu, gpa_t gpa, unsigned size, uint64_t *ret)
{
	const struct answer *answer = answers_take(cpu, ANSWER_MMIO, gpa, size);

	if (answer) {
		*ret = answer->data;
		return RESULT_OK;
	}
	if (cpu->answers.nr == MAX_ANSWERS)
		return mmu_exit(cpu, CPU_EXIT_EMULATION, gpa, size);
	if (platform_call(cpu, mmio_read, gpa, size, ret) != PLATFORM_DONE)
		return mmu_exit(cpu, CPU_EXIT_MMIO_READ, gpa, size);
	answers_record(cpu, ANSWER_MMIO, gpa, size, *ret);
	return RESULT_OK;
}

static enum result mmio_read(struct cpu *cpu, gpa_t gpa, uint8_t *dst, uint32_t size)
{
	for (uint32_t at = 0; at < size; at += 8) {
		unsigned now = min(size - at, 8u);
		uint64_t val = 0;
		enum result r = mmio_read_fragment(cpu, gpa + at, now, &val);

		if (r)
			return r;
		memcpy(dst + at, &val, now);
	}
	return RESULT_OK;
}

static void mmio_write(struct cpu *cpu, gpa_t gpa, const uint8_t *src, uint32_t size)
{
	for (uint32_t at = 0; at < size; at += 8) {
		unsigned now = min(size - at, 8u);
		uint64_t val = 0;

		memcpy(&val, src + at, now);
		if (platform_call(cpu, mmio_write, gpa + at, now, val) == PLATFORM_DONE)
			continue;
		cpu->out.v[cpu->out.nr++] =
			(struct out_write){.size = now, .addr = gpa + at, .data = val};
	}
}

static bool is_ram(const struct access *a)
{
	return a->hva && (a->writable || !(a->op & ACCESS_WRITE));
}

/* Every fragment that may have to wait for user space must find its place. */
static bool writes_fit(const struct cpu *cpu, const struct span *s)
{
	unsigned fragments = 0;

	for (unsigned i = 0; i < s->nr; i++)
		if (!is_ram(&s->part[i]))
			fragments += (s->part[i].size + 7) / 8;
	return cpu->out.nr + fragments <= MAX_WRITES;
}

/* ---- the slow path ---- */

static enum result read_span(struct cpu *cpu, struct span *s, uint8_t *dst)
{
	enum result r = RESULT_OK;

	for (unsigned i = 0; i < s->nr && !r; i++) {
		struct access *a = &s->part[i];

		if (!a->hva)
			r = mmio_read(cpu, a->gpa, dst, a->size);
		else if (!load_sized(a->hva, dst, a->size))
			r = exit_memory(cpu, a);
		dst += a->size;
	}
	return r;
}

static enum result write_span(struct cpu *cpu, struct span *s, const uint8_t *src)
{
	if (!writes_fit(cpu, s))
		return mmu_exit(cpu, CPU_EXIT_EMULATION, s->part[0].gpa, s->part[0].size);
	for (unsigned i = 0; i < s->nr; i++) {
		struct access *a = &s->part[i];

		if (!is_ram(a))
			mmio_write(cpu, a->gpa, src, a->size);
		else if (!store_sized(a->hva, src, a->size))
			return exit_memory(cpu, a);
		src += a->size;
	}
	return RESULT_OK;
}

/*
 * Both parts of an access over two pages are in the TLB: A and D bits are set, and there is nothing to notice, as where one
 * page has it all.
 */
static bool hit_parts(const struct cpu *cpu, struct span *s)
{
	if (s->nr != 2 || s->part[0].state == ACCESS_USER_ALIGN)
		return false;
	for (unsigned i = 0; i < 2; i++) {
		struct access *a = &s->part[i];

		a->hva = a->op & ACCESS_WRITE ? tlb_state_write(cpu, a->state, a->addr, a->size)
					      : tlb_state_read(cpu, a->state, a->addr, a->size);
		if (!a->hva)
			return false;
	}
	return true;
}

static bool read_parts(const struct cpu *cpu, struct span *s, uint8_t *dst)
{
	const struct access *a = s->part;

	return hit_parts(cpu, s) && load_sized(a[0].hva, dst, a[0].size) &&
	       load_sized(a[1].hva, dst + a[0].size, a[1].size);
}

static bool write_parts(const struct cpu *cpu, struct span *s, const uint8_t *src)
{
	const struct access *a = s->part;

	return hit_parts(cpu, s) && store_sized(a[0].hva, src, a[0].size) &&
	       store_sized(a[1].hva, src + a[0].size, a[1].size);
}

static __noinline enum result read_slow(struct cpu *cpu, enum access_state state, gva_t addr,
					void *dst, uint32_t size)
{
	struct span s = split(cpu, addr, size, ACCESS_READ, state);
	enum result r;

	if (read_parts(cpu, &s, dst))
		return RESULT_OK;
	r = translate_span(cpu, &s);
	if (r)
		return r;
	commit_span(cpu, &s);
	return read_span(cpu, &s, dst);
}

static __noinline enum result write_slow(struct cpu *cpu, enum access_state state, gva_t addr,
					 const void *src, uint32_t size)
{
	struct span s = split(cpu, addr, size, ACCESS_WRITE, state);
	unsigned before;
	enum result r;

	if (write_parts(cpu, &s, src))
		return RESULT_OK;
	r = translate_span(cpu, &s);
	if (r)
		return r;
	before = commit_span(cpu, &s);
	r = write_span(cpu, &s, src);
	codemap_end(cpu, before);
	return r;
}

static inline enum result read_state(struct cpu *cpu, enum access_state state, gva_t addr,
				     unsigned size, uint64_t *ret)
{
	const uint8_t *hva = tlb_state_read(cpu, state, addr, size);
	uint64_t val = 0;
	enum result r = RESULT_OK;

	if (likely(hva)) {
		if (!load_sized(hva, &val, size))
			r = mmu_exit(cpu, CPU_EXIT_MEMORY, GPA_NONE, size);
	} else {
		r = read_slow(cpu, state, addr, &val, size);
	}
	if (!r)
		*ret = val;
	return r;
}

static inline enum result write_state(struct cpu *cpu, enum access_state state, gva_t addr,
				      unsigned size, uint64_t val)
{
	uint8_t *hva = tlb_state_write(cpu, state, addr, size);

	if (unlikely(!hva))
		return write_slow(cpu, state, addr, &val, size);
	if (!store_sized(hva, &val, size))
		return mmu_exit(cpu, CPU_EXIT_MEMORY, GPA_NONE, size);
	return RESULT_OK;
}

/* ---- explicit and implicit accesses ---- */

static bool misaligned(const struct cpu *cpu, gva_t addr, unsigned size)
{
	return cpu->mode.access == ACCESS_USER_ALIGN && size <= 8 && (addr & (size - 1));
}

enum result mmu_read(struct cpu *cpu, gva_t addr, unsigned size, uint64_t *ret)
{
	if (unlikely(misaligned(cpu, addr, size)))
		return fault_raise_error(cpu, VEC_AC, 0);
	return read_state(cpu, cpu->mode.access, addr, size, ret);
}

enum result mmu_write(struct cpu *cpu, gva_t addr, unsigned size, uint64_t val)
{
	if (unlikely(misaligned(cpu, addr, size)))
		return fault_raise_error(cpu, VEC_AC, 0);
	return write_state(cpu, cpu->mode.access, addr, size, val);
}

enum result mmu_read_sys(struct cpu *cpu, gva_t addr, unsigned size, uint64_t *ret)
{
	return read_state(cpu, implicit_state(cpu), addr, size, ret);
}

enum result mmu_write_sys(struct cpu *cpu, gva_t addr, unsigned size, uint64_t val)
{
	return write_state(cpu, implicit_state(cpu), addr, size, val);
}

static bool cmpxchg_sized(uint8_t *hva, unsigned size, uint64_t *old, uint64_t new)
{
	switch (size) {
	case 1:
		return host_cmpxchg_8(hva, (uint8_t *)old, new);
	case 2:
		return host_cmpxchg_16(hva, (uint16_t *)old, new);
	case 4:
		return host_cmpxchg_32(hva, (uint32_t *)old, new);
	}
	return host_cmpxchg_64(hva, old, new);
}

static enum result cmpxchg_parts(struct cpu *cpu, struct span *s, uint64_t *old, uint64_t new)
{
	unsigned size = s->part[0].size + (s->nr == 2 ? s->part[1].size : 0);
	uint64_t val = 0;
	enum result r = read_span(cpu, s, (uint8_t *)&val);

	if (r)
		return r;
	if (val == (*old & (~0ull >> (64 - 8 * size))))
		return write_span(cpu, s, (const uint8_t *)&new);
	*old = val;
	return RESULT_OK;
}

/* A tag says that there is nothing to notice: as a plain write. */
static enum result cmpxchg_hit(struct cpu *cpu, uint8_t *hva, unsigned size, uint64_t *old,
			       uint64_t new)
{
	return cmpxchg_sized(hva, size, old, new) ? RESULT_OK
						  : mmu_exit(cpu, CPU_EXIT_MEMORY, GPA_NONE, size);
}

/* Outside of one page of RAM nothing of the host's is atomic: read, compare, write, alone. */
static enum result cmpxchg_apart(struct cpu *cpu, struct span *s, uint64_t *old, uint64_t new)
{
	enum result r;

	cpu_alone(cpu, true);
	r = cmpxchg_parts(cpu, s, old, new);
	cpu_alone(cpu, false);
	return r;
}

static enum result cmpxchg_slow(struct cpu *cpu, gva_t addr, unsigned size, uint64_t *old,
				uint64_t new)
{
	struct span s = split(cpu, addr, size, ACCESS_RMW, implicit_state(cpu));
	enum result r = translate_span(cpu, &s);
	unsigned before;

	if (r)
		return r;
	before = commit_span(cpu, &s);
	if (s.nr == 2 || !is_ram(&s.part[0]))
		r = cmpxchg_apart(cpu, &s, old, new);
	else if (!cmpxchg_sized(s.part[0].hva, size, old, new))
		r = exit_memory(cpu, &s.part[0]);
	codemap_end(cpu, before);
	return r;
}

enum result mmu_cmpxchg_sys(struct cpu *cpu, gva_t addr, unsigned size, uint64_t *old, uint64_t new)
{
	uint8_t *hva = tlb_state_write(cpu, implicit_state(cpu), addr, size);

	if (likely(hva))
		return cmpxchg_hit(cpu, hva, size, old, new);
	return cmpxchg_slow(cpu, addr, size, old, new);
}

/* A hit moves the bytes at once: nothing of it needs checking. */
enum result mmu_read_bytes(struct cpu *cpu, gva_t addr, void *dst, uint32_t size)
{
	const uint8_t *hva = tlb_hit_read(cpu, addr, size);

	if (hva && load_sized(hva, dst, size))
		return RESULT_OK;
	return read_slow(cpu, cpu->mode.access, addr, dst, size);
}

enum result mmu_write_bytes(struct cpu *cpu, gva_t addr, const void *src, uint32_t size)
{
	uint8_t *hva = tlb_hit_write(cpu, addr, size);

	if (hva && store_sized(hva, src, size))
		return RESULT_OK;
	return write_slow(cpu, cpu->mode.access, addr, src, size);
}

/* ---- probes and pointers ---- */

/* There is a tag for it, as for a plain access. */
static bool tagged(const struct cpu *cpu, enum access_state state, gva_t addr, uint32_t size,
		   enum access_op op)
{
	if (op == ACCESS_FETCH)
		return false;
	return op & ACCESS_WRITE ? tlb_state_write(cpu, state, addr, size)
				 : tlb_state_read(cpu, state, addr, size);
}

/* Tags are filled, but nothing is marked dirty and no breakpoint matches: the access is still to come. */
static enum result probe_slow(struct cpu *cpu, enum access_state state, gva_t addr, uint32_t size,
			      enum access_op op)
{
	struct span s = split(cpu, addr, size, op, state);
	enum result r = translate_span(cpu, &s);

	for (unsigned i = 0; i < s.nr && !r; i++)
		tlb_fill(cpu, &s.part[i], !s.part[i].log);
	return r;
}

static enum result probe_state(struct cpu *cpu, enum access_state state, gva_t addr, uint32_t size,
			       enum access_op op)
{
	if (tagged(cpu, state, addr, size, op))
		return RESULT_OK;
	return probe_slow(cpu, state, addr, size, op);
}

enum result mmu_probe(struct cpu *cpu, gva_t addr, uint32_t size, enum access_op op)
{
	return probe_state(cpu, cpu->mode.access, addr, size, op);
}

enum result mmu_probe_sys(struct cpu *cpu, gva_t addr, uint32_t size, enum access_op op)
{
	return probe_state(cpu, implicit_state(cpu), addr, size, op);
}

/* A locked write that changes nothing: the program may have taken the memory away. */
static bool takes_writes(uint8_t *hva)
{
	uint8_t was = 0;

	return host_load_8(hva, &was) && host_cmpxchg_8(hva, &was, was);
}

enum result mmu_probe_bounced(struct cpu *cpu, gva_t addr, uint32_t size, enum access_op op,
			      bool *ret_device)
{
	struct span s = split(cpu, addr, size, op, cpu->mode.access);
	enum result r;

	*ret_device = false;
	if (!(op & ACCESS_WRITE) && hit_parts(cpu, &s))
		return RESULT_OK;
	r = translate_span(cpu, &s);
	for (unsigned i = 0; i < s.nr && !r; i++) {
		struct access *a = &s.part[i];

		tlb_fill(cpu, a, !a->log);
		if (!is_ram(a))
			*ret_device = true;
		else if (op & ACCESS_WRITE && !takes_writes(a->hva))
			r = exit_memory(cpu, a);
	}
	if (!r && op & ACCESS_WRITE && !writes_fit(cpu, &s))
		r = mmu_exit(cpu, CPU_EXIT_EMULATION, s.part[0].gpa, s.part[0].size);
	return r;
}

static __noinline enum result pointer_slow(struct cpu *cpu, gva_t addr, uint32_t size,
					   enum access_op op, uint8_t **ret)
{
	struct span s = split(cpu, addr, size, op, cpu->mode.access);
	enum result r;

	*ret = NULL;
	if (misaligned(cpu, addr, size))
		return fault_raise_error(cpu, VEC_AC, 0);
	if (s.nr == 2)
		return RESULT_OK;
	r = translate_span(cpu, &s);
	if (r || !is_ram(&s.part[0]))
		return r;
	/* The write itself is still to come: it has been made by the time that attention is looked at. */
	if (commit_span(cpu, &s) != codemap_under_way(cpu))
		cpu_raise(cpu, ATTN_CODE);
	*ret = s.part[0].hva;
	return RESULT_OK;
}

enum result mmu_pointer(struct cpu *cpu, gva_t addr, uint32_t size, enum access_op op,
			uint8_t **ret)
{
	*ret = op & ACCESS_WRITE ? tlb_hit_write(cpu, addr, size) : tlb_hit_read(cpu, addr, size);
	return likely(*ret) ? RESULT_OK : pointer_slow(cpu, addr, size, op, ret);
}

/* ---- instruction fetch ---- */

static enum access_state fetch_state(const struct cpu *cpu)
{
	return cpu->mode.access == ACCESS_USER_ALIGN ? ACCESS_USER : cpu->mode.access;
}

/* In the TLB: instructions over two pages come again. */
static bool fetch_known(const struct cpu *cpu, const struct access *a, uint8_t *buf)
{
	const struct tlb_entry *e = tlb_entry(cpu, a->state, a->addr);

	return e->tag_fetch == tlb_key(cpu->tlb, cpu->tlb->gen, a->addr, a->size) &&
	       host_copy_guarded(buf, (const uint8_t *)(a->addr + e->addend), a->size);
}

/* Code outside of RAM is not executed, as KVM cannot either. */
static enum result fetch_part(struct cpu *cpu, struct access *a, uint8_t *buf)
{
	enum result r;

	if (fetch_known(cpu, a, buf))
		return RESULT_OK;
	r = translate(cpu, a, false);
	if (!r)
		r = look_up(cpu, a);
	if (r)
		return r;
	if (!a->hva)
		return mmu_exit(cpu, CPU_EXIT_EMULATION, a->gpa, a->size);
	tlb_fill(cpu, a, !a->log);
	return host_copy_guarded(buf, a->hva, a->size) ? RESULT_OK : exit_memory(cpu, a);
}

enum result mmu_fetch(struct cpu *cpu, gva_t addr, uint8_t buf[15], unsigned *ret_len)
{
	struct span s = split(cpu, addr, 15, ACCESS_FETCH, fetch_state(cpu));
	enum result r;

	cpu->fault.valid = false;
	r = fetch_part(cpu, &s.part[0], buf);
	if (r)
		return r;
	*ret_len = s.part[0].size;
	if (s.nr == 2 && !fetch_part(cpu, &s.part[1], buf + s.part[0].size))
		*ret_len = 15;
	return RESULT_OK;
}
