/* SPDX-License-Identifier: MIT */
/*
 * SVM by hypervisors that loop, as KVM does: VMRUN and #VMEXIT in translated code, GIF, and interrupts that come in between.
 * Each by the APM's words, in all tempos.
 */
#include "svm_host.h"
#include "silicon/exec/exec.h"
#include "silicon/exec/run.h"

#define ROUNDS 3000
#define VECTOR 0x40

/* The port's reader makes something pending in one of its reads. */
struct port {
	unsigned nr, at;
};

static uint64_t pends(struct flat *f, uint16_t port, unsigned size)
{
	struct port *p = f->opaque;

	if (++p->nr == p->at)
		pend_interrupt(f, VECTOR);
	return 0;
}

static struct host *rounds_open(struct port *p, uint64_t (*in)(struct flat *, uint16_t, unsigned))
{
	struct host *h = host_open();

	flat_exec(h->f);
	h->f->opaque = p;
	h->f->port_in = in;
	h->f->endless = true;
	for (unsigned i = R8; i <= R11; i++)
		h->f->cpu->gpr[i] = 0;
	h->f->cpu->gpr[RBX] = 0;
	return h;
}

static enum cpu_exit_kind go(struct host *h)
{
	h->f->cpu->gpr[RCX] = ROUNDS;
	h->f->cpu->retired = 0;
	return cpu_run(h->f->cpu);
}

#define guest(h, name) flat_write((h)->f, L2_CODE, name, name##_end - name)

/* ---- to and fro ---- */

GUEST(steps_guest, 64,
      "sti; nop; cli\n"
      "1: mov eax,0x201000; vmrun; mov rdx,[0x2010c8]; mov [0x201578],rdx; mov rdx,[0x201070]; "
      "add rbx,rdx; dec ecx; jnz 1b; hlt");
GUEST(leaves_often, 64, "1: inc r8; cpuid; add r9,r8; jmp 1b");

/* Blocks that lead to the other world are not stepped time and again, and the loop is not asked for it. */
static void few_steps(const struct flat *f)
{
	const struct run *run = f->cpu->exec->run;

	if (run && run->opt.chain && run->opt.hot == RUN_HOT && !run->lockstep)
		assert_in_range(run->count[COUNT_STEPPED] + run->count[COUNT_COLD], 0, ROUNDS / 16);
}

/* Each exit shows the next RIP; registers that no VMCB has are both worlds'. Neither VMRUN nor what exits retires. */
static void exits(void **state)
{
	struct host *h = rounds_open(NULL, NULL);

	put(h, MISC1, 1u << 18, 4);
	guest(h, leaves_often);
	load(h->f, steps_guest);
	assert_int_equal(go(h), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(h->f), -1);
	assert_int_equal(h->f->cpu->gpr[R8], ROUNDS);
	assert_int_equal(h->f->cpu->gpr[R9], ROUNDS * (ROUNDS - 1) / 2);
	assert_int_equal(h->f->cpu->gpr[RBX], ROUNDS * 0x72);
	assert_int_equal(h->f->cpu->retired, 3 + 7 * ROUNDS + 3 * ROUNDS - 2 + 1);
	assert_false(h->f->cpu->virt->gif);
	few_steps(h->f);
	host_close(h);
}

/* ---- GIF ---- */

GUEST(shuts, 64, "1: clgi; in al,0x10; stgi; shuts_next: inc rbx; dec ecx; jnz 1b; hlt");
extern const uint8_t shuts_next[];

/* What comes while GIF is 0 is taken behind STGI, which has no shadow. */
static void interrupt_behind_stgi(void **state)
{
	static const unsigned at[] = {1, 2, 10, ROUNDS - 1};

	for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
		struct port p = {.at = at[i]};
		struct host *h = rounds_open(&p, pends);

		load(h->f, shuts);
		set_flags(h->f, FLAG_IF);
		assert_int_equal(go(h), CPU_EXIT_HLT);
		assert_int_equal(flat_handler(h->f), VECTOR);
		assert_int_equal(h->f->cpu->gpr[RBX], at[i] - 1);
		assert_int_equal(on_stack(h->f, 0, 8), FLAT_CODE + (shuts_next - shuts));
		host_close(h);
	}
}

/* An INIT that the owner held back is looked for again; without one nobody is asked. */
static void init_behind_stgi(void **state)
{
	struct port p = {0};
	struct host *h = rounds_open(&p, pends);
	struct cpu *cpu = h->f->cpu;

	load(h->f, shuts);
	assert_int_equal(go(h), CPU_EXIT_HLT);
	assert_int_equal(cpu->gpr[RBX], ROUNDS);
	cpu->activity = ACTIVITY_RUN;
	load(h->f, shuts);
	cpu->gpr[RCX] = ROUNDS;
	assert_int_equal(flat_run_once(h->f, 6 * 7 + 1), CPU_EXIT_REQUEST);
	assert_false(cpu->virt->gif);
	cpu->virt->init_waits = true;
	assert_int_equal(cpu_run(cpu), CPU_EXIT_REQUEST);
	assert_int_equal(cpu->rip, FLAT_CODE + (shuts_next - shuts));
	assert_int_equal(cpu->gpr[RBX], ROUNDS + 7);
	assert_false(cpu->virt->init_waits);
	host_close(h);
}

/* Without EFER.SVME there is no GIF: what it held back comes then. */
GUEST(gives_up, 64,
      "clgi; sti; nop; in al,0x10; mov ecx,0xc0000080; rdmsr; and eax,0xffffefff; wrmsr; "
      "gives_up_next: nop; hlt");
extern const uint8_t gives_up_next[];

static void interrupt_behind_svme(void **state)
{
	struct port p = {.at = 1};
	struct host *h = rounds_open(&p, pends);

	h->f->endless = false;
	load(h->f, gives_up);
	assert_int_equal(go(h), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(h->f), VECTOR);
	assert_int_equal(on_stack(h->f, 0, 8), FLAT_CODE + (gives_up_next - gives_up));
	host_close(h);
}

/* ---- interrupts about VMRUN ---- */

/* The rounds' host, whose guests run with V_INTR_MASKING and exit for interrupts. */
static struct host *masked_open(struct port *p)
{
	struct host *h = rounds_open(p, pends);

	put(h, MISC1, 1, 4);
	put(h, 0x60, 1 << 24, 8);
	return h;
}

/* The interrupt was taken once, with RIP there. */
static void ends_at(struct host *h, uint64_t offset)
{
	assert_int_equal(on_stack(h->f, 0, 8), FLAT_CODE + offset);
	assert_int_equal(h->f->nr_acked, 1);
	host_close(h);
}

GUEST(runs_open, 64,
      "1: clgi; in al,0x10; mov eax,0x201000; sti; vmrun; cli; mov r9,[0x201070]; "
      "mov qword ptr [0x201578],0x300000; stgi; sti; inc rbx; runs_open_next: nop; cli; "
      "dec ecx; jnz 1b; hlt");
extern const uint8_t runs_open_next[];
GUEST(calls_host, 64, "inc r8; vmmcall");

/*
 * STI's shadow ends with VMRUN, and GIF is 1 in the guest: what came before is an exit ahead of the guest's first instruction,
 * and is taken where the host opens.
 */
static void interrupt_at_vmrun(void **state)
{
	static const unsigned at[] = {1, 2, 10, ROUNDS - 1};

	for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
		struct port p = {.at = at[i]};
		struct host *h = masked_open(&p);
		struct cpu *cpu = h->f->cpu;

		guest(h, calls_host);
		load(h->f, runs_open);
		assert_int_equal(go(h), CPU_EXIT_HLT);
		assert_int_equal(flat_handler(h->f), VECTOR);
		assert_int_equal(cpu->gpr[R9], 0x60);
		assert_int_equal(cpu->gpr[R8], at[i] - 1);
		assert_int_equal(cpu->gpr[RBX], at[i]);
		assert_int_equal(get(h, 0x68, 8), 0);
		ends_at(h, runs_open_next - runs_open);
	}
}

GUEST(runs_shut, 64,
      "1: mov eax,0x201000; vmrun; mov qword ptr [0x201578],0x300000; stgi; sti; inc rbx; "
      "runs_shut_next: nop; cli; clgi; dec ecx; jnz 1b; hlt");
extern const uint8_t runs_shut_next[];
GUEST(guest_reads_port, 64, "inc r8; sti; nop; in al,0x10; inc r9; vmmcall");

/* The host's IF was 0 at VMRUN: with V_INTR_MASKING the guest goes on, whatever its own IF. */
static void interrupt_in_masked_guest(void **state)
{
	static const unsigned at[] = {1, 2, 10, ROUNDS - 1};

	for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
		struct port p = {.at = at[i]};
		struct host *h = masked_open(&p);
		struct cpu *cpu = h->f->cpu;

		guest(h, guest_reads_port);
		load(h->f, runs_shut);
		assert_int_equal(go(h), CPU_EXIT_HLT);
		assert_int_equal(flat_handler(h->f), VECTOR);
		assert_int_equal(get(h, 0x70, 8), 0x81);
		assert_int_equal(cpu->gpr[R8], at[i]);
		assert_int_equal(cpu->gpr[R9], at[i]);
		assert_int_equal(cpu->gpr[RBX], at[i]);
		ends_at(h, runs_shut_next - runs_shut);
	}
}

/* ---- SYSRET ---- */

#define SERVER 0x9000

GUEST(asks, 64,
      "1: mov eax,0x201000; sti; vmrun; cli; mov rdx,[0x2010c8]; mov [0x201578],rdx; dec ecx; "
      "jnz 1b; mov dword ptr [0x201060],0x1140100; mov byte ptr [0x201064],0x41; vmrun; hlt");
GUEST(user_calls, 64, "1: mov r15,rcx; syscall; mov rcx,r15; inc r8; jmp 1b");
GUEST(kernel_serves, 64, "mov rbp,rcx; mov rcx,r15; vmmcall; mov r15,rcx; mov rcx,rbp; sysretq");

/*
 * The guest's SYSRET opens its IF: a virtual interrupt, which waits since the entry before it, comes ahead of the next
 * instruction, an exit where it is intercepted.
 */
static void sysret_opens(void **state)
{
	struct host *h = rounds_open(NULL, NULL);
	struct cpu *cpu = h->f->cpu;

	cpu->msr.star = (uint64_t)(FLAT_CS32_USER | 3) << 48 | (uint64_t)FLAT_CS64 << 32;
	cpu->msr.lstar = SERVER;
	cpu->msr.sfmask = FLAG_IF;
	flat_set_efer(h->f, cpu->msr.efer | EFER_SCE);
	make_vmcb(h);
	put(h, MISC1, 1 | 1u << 4, 4);
	put(h, 0x60, 1 << 24, 8);
	put_segment(h, 0x410, FLAT_CS64_USER, 0xafb);
	put_segment(h, 0x420, FLAT_DS_USER, 0xcf3);
	put(h, 0x4cb, 3, 1);
	put(h, 0x570, 2 | FLAG_IF, 8);
	flat_write(h->f, L2_CODE, user_calls, user_calls_end - user_calls);
	flat_write(h->f, SERVER, kernel_serves, kernel_serves_end - kernel_serves);
	load(h->f, asks);
	assert_int_equal(go(h), CPU_EXIT_HLT);
	assert_int_equal(flat_handler(h->f), -1);
	assert_int_equal(get(h, 0x70, 8), 0x64);
	assert_int_equal(get(h, 0x578, 8), L2_CODE + 5);
	assert_int_equal(get(h, 0x4cb, 1), 3);
	assert_int_equal(cpu->gpr[R8], ROUNDS - 1);
	host_close(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exits),
		cmocka_unit_test(interrupt_behind_stgi),
		cmocka_unit_test(init_behind_stgi),
		cmocka_unit_test(interrupt_behind_svme),
		cmocka_unit_test(interrupt_at_vmrun),
		cmocka_unit_test(interrupt_in_masked_guest),
		cmocka_unit_test(sysret_opens),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
