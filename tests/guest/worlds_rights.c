/* SPDX-License-Identifier: MIT */
/*
 * Worlds and what hangs from their translations: rights to write, faults, code, lock-step, and, asked of the counters only,
 * that anything is kept at all (SDM, caching translation information; APM, TLB control).
 */
#include "silicon/exec/lockstep.h"
#include "silicon/mmu/tlb.h"
#include "worlds.h"

/* ---- write rights, code ---- */

GUEST2(writes, "inc dword ptr [rdi]");

/* The dirty log is told of each guest's first write after it was armed again, whoever ran last. */
static void dirty_log(void **state)
{
	for (unsigned i = 0; i < 4; i++) {
		struct bench *b = bench_open(i & 1);
		unsigned gfn = (PAGES + 0x1000) >> 12;

		b->second = i & 2 ? 1 : 0;
		bench_set(b, writes);
		b->f->log = true;
		mmu_flush_all(b->f->cpu);
		for (unsigned n = 0; n < 4; n++) {
			b->f->marked[gfn] = 0;
			mmu_flush_writes(b->f->cpu);
			assert_int_equal(bench_enter(b), bench_called(b));
			assert_true(b->f->marked[gfn]);
			assert_int_equal(bench_enter(b), bench_called(b));
		}
		assert_int_equal(flat_peek(b->f, PAGES + 0x1000, 4), VALUE(1) + 8);
		bench_close(b);
	}
}

/* The second stage takes the right to write away, and a flush makes it known. */
static void write_protects(void **state)
{
	for (unsigned amd = 0; amd < 2; amd++) {
		struct bench *b = bench_open(amd);

		b->second = 1;
		bench_set(b, writes);
		for (unsigned n = 0; n < 3; n++) {
			assert_int_equal(bench_enter(b), bench_called(b));
			bench_map_second(b, 1, 1, 1, 5);
			if (amd)
				bench_vmcb_put(b, 0x5c, 3, 1);
			else
				bench_inv(b, true, 1, SECOND(1) | 0x1e, 0);
			assert_int_equal(bench_enter(b), amd ? 0x400 : 48);
			assert_int_equal(bench_enter(b), amd ? 0x400 : 48);
			bench_vmcb_put(b, 0x5c, 0, 1);
			/* Rights that are given need no flush. */
			bench_map_second(b, 1, 1, 1, 7);
		}
		assert_int_equal(flat_peek(b->f, PAGES + 0x1000, 4), VALUE(1) + 3);
		bench_close(b);
	}
}

/* Of X alone: what else was cached may be as old as it likes, and is not the same in both tempos of lock-step. */
GUEST2(reads_x, "mov ecx, [rdi]");

/* What is refused is cached no more: the next access sees the tables as they are. */
static void refusals_flush(void **state)
{
	for (unsigned amd = 0; amd < 2; amd++) {
		struct bench *b = bench_open(amd);

		b->second = 1;
		for (unsigned n = 0; n < 3; n++) {
			bench_map_second(b, 1, 1, 2 + n, 5);
			bench_set(b, writes);
			assert_int_equal(bench_enter(b), amd ? 0x400 : 48);
			bench_set(b, reads_x);
			assert_int_equal(bench_enter(b), bench_called(b));
			assert_int_equal((uint32_t)b->f->cpu->gpr[RCX], VALUE(2 + n));
		}
		bench_close(b);
	}
}

GUEST(host_writes, 64, "inc dword ptr [rdi]\n hlt");

static void page_faults_flush(void **state)
{
	struct bench *b = bench_open(false);
	struct cpu *cpu = b->f->cpu;

	flat_set_cr0(b->f, cpu->cr0 | CR0_WP);
	for (unsigned n = 0; n < 4; n++) {
		bench_map(b, 0, 4 + n, 5);
		load(b->f, host_writes);
		cpu->gpr[RDI] = X;
		bench_host_runs(b);
		assert_int_equal(flat_handler(b->f), VEC_PF);
		cpu->gpr[RSP] = FLAT_STACK;
		load(b->f, host_reads);
		cpu->gpr[RSI] = X;
		bench_host_runs(b);
		assert_int_equal((uint32_t)cpu->gpr[RCX], VALUE(4 + n));
	}
	bench_close(b);
}

GUEST(host_patches, 64, "mov [rdi], bl\n hlt");
GUEST2(loads, "mov ecx, 0");

GUEST2(loops, "mov ecx, 200\n 1: add rbx, rcx\n mov [rdi], rbx\n dec ecx\n jnz 1b");

/* Lock-step holds run against step in guests, too, up to their exits. */
static void paired_in_lockstep(void **state)
{
	for (unsigned amd = 0; amd < 2; amd++) {
		struct bench *b = bench_open(amd);
		struct cpu *cpu = b->f->cpu;
		const struct lockstep *ls;

		b->second = 1;
		bench_set(b, loops);
		cpu->gpr[RBX] = 0;
		bench_enter(b);
		ls = cpu->exec->run ? cpu->exec->run->lockstep : NULL;
		if (ls) {
			uint64_t before = ls->nr_paired;

			cpu->gpr[RBX] = 0;
			assert_int_equal(bench_enter(b), bench_called(b));
			assert_true(ls->nr_paired - before > 750);
			assert_false(ls->stopped);
			assert_int_equal(cpu->gpr[RBX], 20100);
		}
		bench_close(b);
	}
}

/* By the host's own store: nothing but the guest's code page tells of it. */
static void patched_code(void **state)
{
	for (unsigned amd = 0; amd < 2; amd++) {
		struct bench *b = bench_open(amd);

		bench_set(b, loads);
		for (unsigned n = 0; n < 12; n++) {
			load(b->f, host_patches);
			b->f->cpu->gpr[RDI] = L2_CODE + 1;
			b->f->cpu->gpr[RBX] = n;
			bench_host_runs(b);
			for (unsigned i = 0; i < ROUNDS; i++) {
				assert_int_equal(bench_enter(b), bench_called(b));
				assert_int_equal((uint32_t)b->f->cpu->gpr[RCX], n);
			}
		}
		bench_close(b);
	}
}

/* ---- and that all this is worth it ---- */

static uint64_t fills(const struct bench *b)
{
	const struct tlb *tlb = b->f->cpu->tlb;

	return tlb->count.fills + (tlb->other ? tlb->other->count.fills : 0);
}

/* An exit and the entry behind it fill nothing again. */
static void entries_are_kept(void **state)
{
	const char *tempo = getenv("ANYKVM_TEMPO");

	if (getenv("ANYKVM_ONE_TLB") ||
	    (tempo && (strstr(tempo, "tlb2") || strstr(tempo, "lockstep"))))
		skip();
	for (unsigned i = 0; i < 4; i++) {
		struct bench *b = bench_open(i & 1);
		uint64_t before;

		b->second = i & 2 ? 1 : 0;
		bench_set(b, reads);
		for (unsigned n = 0; n < 4; n++)
			bench_sees(b, 1);
		before = fills(b);
		bench_sees(b, 1);
		assert_int_equal(fills(b), before);
		bench_close(b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dirty_log),	      cmocka_unit_test(write_protects),
		cmocka_unit_test(refusals_flush),     cmocka_unit_test(page_faults_flush),
		cmocka_unit_test(paired_in_lockstep), cmocka_unit_test(patched_code),
		cmocka_unit_test(entries_are_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
