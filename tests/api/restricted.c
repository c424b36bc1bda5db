/* SPDX-License-Identifier: MIT */
/*
 * Guests whose state VM entry would refuse, with kvm_intel.unrestricted_guest=0 ("restricted") and without: with it KVM
 * emulates them, and gives up on an exception and on instructions that its emulator lacks, until the state is as the SDM's
 * checks on guest segment registers want it.
 */
#include "api_test.h"
#include "long_mode.h"

#define TSS_SEL 0x18

static bool restricted;

/* ---- 64-bit code, whose handlers of #UD and #PF say so by a port ---- */

GUEST_CODE(known, "mov eax, 0x18; ltr ax; ud2");
GUEST_CODE(unknown, "inc eax; swapgs; out 0x80, al");
GUEST_CODE(faulting, "inc eax; mov rax, [0x7f000000]; out 0x80, al");
GUEST_CODE(software, "inc eax; int 6");
GUEST_CODE(undefined, "ud2");
GUEST_CODE(handlers, "out 0x86, al; .skip 14; out 0x8e, al");

struct code {
	const uint8_t *from, *to;
};

#define CODE(name) ((struct code){name, name##_end})

#define HANDLERS 0x9000
#define IO_NONE	 0x80
#define IO_UD	 0x86
#define IO_PF	 0x8e

static struct machine long_machine(struct code code)
{
	struct machine m = machine_open();

	m.vcpu = ioctl(m.vm, KVM_CREATE_VCPU, 0);
	CHECK(m.vcpu >= 0);
	m.run = map_run(m.kvm, m.vcpu);
	long_mode_memory(m.ram, code.from, code.to);
	memcpy(m.ram + HANDLERS, handlers, handlers_end - handlers);
	long_mode_gate(m.ram, 6, HANDLERS);
	long_mode_gate(m.ram, 14, HANDLERS + 16);
	/* One page is not mapped; a TSS. */
	long_mode_put(m.ram, LONG_TABLES + 0x2000 + (0x7f000000 >> 21) * 8, 0);
	long_mode_put(m.ram, LONG_GDT + TSS_SEL, 0x0000890000000067);
	long_mode_put(m.ram, LONG_GDT + TSS_SEL + 8, 0);
	long_mode_cpuid(m.kvm, m.vcpu, 1u << 21);
	long_mode_start(m.vcpu, LONG_CODE, LONG_STACK - 0x100);
	return m;
}

static void machine_close(struct machine *m)
{
	munmap(m->run, ioctl(m->kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
	close(m->vcpu);
	close(m->vm);
	close(m->kvm);
	munmap(m->ram, RAM_SIZE);
}

static struct kvm_sregs sregs_of(const struct machine *m)
{
	struct kvm_sregs s;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_SREGS, &s), 0);
	return s;
}

static void set_tr(const struct machine *m, bool unusable)
{
	struct kvm_sregs s = sregs_of(m);

	s.gdt.limit = 39;
	s.tr.unusable = unusable;
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_SREGS, &s), 0);
}

static void run_to_port(struct machine *m, unsigned port)
{
	RUN_TO(m, KVM_EXIT_IO);
	CHECK_EQ(m->run->io.port, port);
}

/* The program is told, with the instruction if that is why; its exception waits, shown as Linux shows it. */
static void run_to_error(struct machine *m, uint64_t rip, unsigned vector, const uint8_t *insn,
			 unsigned size)
{
	struct kvm_vcpu_events e;
	struct kvm_regs regs;

	RUN_TO(m, KVM_EXIT_INTERNAL_ERROR);
	CHECK_EQ(m->run->emulation_failure.suberror, KVM_INTERNAL_ERROR_EMULATION);
	CHECK_EQ(m->run->emulation_failure.flags,
		 insn ? KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES : 0);
	if (insn)
		CHECK_EQ(memcmp(m->run->emulation_failure.insn_bytes, insn, size), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_REGS, &regs), 0);
	CHECK_EQ(regs.rip, rip);
	CHECK_EQ(ioctl(m->vcpu, KVM_GET_VCPU_EVENTS, &e), 0);
	CHECK_EQ(e.exception.nr, vector);
	CHECK(e.exception.pending && e.exception.injected);
}

/* It is told again and again, and the exception goes in once the state is right. */
static void gives_up(struct code code, unsigned vector, bool bytes, unsigned port)
{
	struct machine m = long_machine(code);
	uint64_t rip = LONG_CODE + (code.from == undefined ? 0 : 2);

	set_tr(&m, true);
	run_to_error(&m, rip, vector, bytes ? code.from + (rip - LONG_CODE) : NULL, 2);
	run_to_error(&m, rip, vector, NULL, 0);
	set_tr(&m, false);
	run_to_port(&m, port);
	machine_close(&m);
}

static void runs_on(struct code code, unsigned port)
{
	struct machine m = long_machine(code);

	set_tr(&m, true);
	run_to_port(&m, port);
	machine_close(&m);
}

static void test_64bit(void)
{
	/* Until TR is loaded nothing but the known is met. */
	runs_on(CODE(known), IO_UD);
	if (!restricted) {
		runs_on(CODE(unknown), IO_NONE);
		runs_on(CODE(faulting), IO_PF);
		runs_on(CODE(software), IO_UD);
		runs_on(CODE(undefined), IO_UD);
		return;
	}
	gives_up(CODE(unknown), 6, true, IO_UD);
	gives_up(CODE(faulting), 14, false, IO_PF);
	gives_up(CODE(software), 6, true, IO_UD);
	gives_up(CODE(undefined), 6, true, IO_UD);
}

/* An exception that the program brings along. */
static void test_brought(void)
{
	struct machine m = long_machine(CODE(undefined));
	struct kvm_vcpu_events e;

	set_tr(&m, true);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_VCPU_EVENTS, &e), 0);
	e.exception.injected = 1;
	e.exception.nr = 14;
	e.exception.has_error_code = 1;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_VCPU_EVENTS, &e), 0);
	if (restricted) {
		RUN_TO(&m, KVM_EXIT_INTERNAL_ERROR);
		CHECK_EQ(m.run->emulation_failure.suberror, KVM_INTERNAL_ERROR_EMULATION);
		set_tr(&m, false);
	}
	run_to_port(&m, IO_PF);
	machine_close(&m);
}

/* ---- each check, by the SDM; a segment that is not present is unusable to KVM ---- */

enum field { TYPE, S, PRESENT, UNUSABLE, SELECTOR, NOTHING };
enum segment { CS, DS, ES, FS, GS, SS, TR, LDT };

static const struct {
	enum segment seg;
	enum field field;
	unsigned value;
	bool valid;
	enum field also; /* NOTHING if none: a second change of the segment */
	unsigned also_value;
} changes[] = {
	{TR, NOTHING, 0, true, NOTHING, 0},	 {TR, UNUSABLE, 1, false, NOTHING, 0},
	{TR, TYPE, 9, false, NOTHING, 0},	 {TR, TYPE, 3, true, NOTHING, 0},
	{TR, SELECTOR, 0x1c, false, NOTHING, 0}, {TR, SELECTOR, 0x18, true, NOTHING, 0},
	{TR, PRESENT, 0, false, NOTHING, 0},	 {LDT, UNUSABLE, 1, true, TYPE, 3},
	{LDT, UNUSABLE, 0, true, TYPE, 2},	 {LDT, UNUSABLE, 0, false, TYPE, 3},
	{LDT, UNUSABLE, 0, true, PRESENT, 0},	 {LDT, UNUSABLE, 0, false, SELECTOR, 4},
	{SS, SELECTOR, 0x13, false, NOTHING, 0}, {SS, UNUSABLE, 1, true, TYPE, 1},
	{SS, TYPE, 1, false, NOTHING, 0},	 {SS, TYPE, 7, true, NOTHING, 0},
	{SS, TYPE, 2, false, NOTHING, 0},	 {SS, PRESENT, 0, true, NOTHING, 0},
	{SS, S, 0, false, NOTHING, 0},		 {CS, SELECTOR, 0xb, false, NOTHING, 0},
	{CS, TYPE, 10, false, NOTHING, 0},	 {CS, TYPE, 9, true, NOTHING, 0},
	{CS, PRESENT, 0, false, NOTHING, 0},	 {DS, SELECTOR, 0x13, false, NOTHING, 0},
	{DS, SELECTOR, 0x13, false, TYPE, 9},	 {DS, SELECTOR, 0x13, true, TYPE, 15},
	{DS, SELECTOR, 0x13, true, UNUSABLE, 1}, {DS, S, 0, false, NOTHING, 0},
	{DS, PRESENT, 0, true, NOTHING, 0},	 {ES, S, 0, false, NOTHING, 0},
	{ES, UNUSABLE, 1, true, NOTHING, 0},	 {FS, S, 0, false, NOTHING, 0},
	{FS, UNUSABLE, 1, true, NOTHING, 0},	 {GS, S, 0, false, NOTHING, 0},
	{GS, UNUSABLE, 1, true, NOTHING, 0},
};

static struct kvm_segment *segment_of(struct kvm_sregs *s, enum segment seg)
{
	struct kvm_segment *const all[] = {&s->cs, &s->ds, &s->es, &s->fs,
					   &s->gs, &s->ss, &s->tr, &s->ldt};

	return all[seg];
}

static void change(struct kvm_segment *seg, enum field field, unsigned value)
{
	if (field == TYPE)
		seg->type = value;
	else if (field == S)
		seg->s = value;
	else if (field == PRESENT)
		seg->present = value;
	else if (field == UNUSABLE)
		seg->unusable = value;
	else if (field == SELECTOR)
		seg->selector = value;
}

static void test_change(unsigned i)
{
	struct machine m = long_machine(CODE(undefined));
	struct kvm_sregs s = sregs_of(&m);
	struct kvm_segment *seg = segment_of(&s, changes[i].seg);

	change(seg, changes[i].field, changes[i].value);
	change(seg, changes[i].also, changes[i].also_value);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_SREGS, &s), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_RUN, 0), 0);
	if (m.run->exit_reason !=
	    (restricted && !changes[i].valid ? KVM_EXIT_INTERNAL_ERROR : KVM_EXIT_IO)) {
		fprintf(stderr, "change %u: exit %u\n", i, m.run->exit_reason);
		exit(1);
	}
	machine_close(&m);
}

/* ---- real mode: a virtual-8086 task where it is what one can be ---- */

enum refusal { NONE, LIMIT, BASE };

static void start_real(struct machine *m, const uint8_t code[4], enum refusal refusal)
{
	struct kvm_sregs s;

	*m = machine_open();
	machine_code(m, code, 4);
	/* Handlers of #DE, #UD and INT 20H. */
	memcpy(m->ram + HANDLERS, (uint8_t[]){0xe6, 0x86}, 2);
	for (unsigned vector = 0; vector <= 0x20; vector++)
		memcpy(m->ram + vector * 4, (uint16_t[]){HANDLERS, 0}, 4);
	s = sregs_of(m);
	if (refusal == LIMIT)
		s.ds.limit = 0xffffffff;
	if (refusal == BASE)
		s.es.base = 0x12345;
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_SREGS, &s), 0);
}

static void test_real(void)
{
	static const uint8_t ud2[4] = {0x0f, 0x0b}, aam[4] = {0xd4, 0}, soft[4] = {0xcd, 0x20};
	struct machine m;

	for (enum refusal refusal = NONE; refusal <= BASE; refusal++) {
		start_real(&m, ud2, refusal);
		if (restricted && refusal)
			run_to_error(&m, CODE_GPA, 6, ud2, 2);
		/* Behind it the exception goes in, emulated. */
		run_to_port(&m, IO_UD);
		machine_close(&m);
		start_real(&m, aam, refusal);
		run_to_port(&m, IO_UD);
		machine_close(&m);
		start_real(&m, soft, refusal);
		run_to_port(&m, IO_UD);
		machine_close(&m);
	}
}

int main(int argc, char **argv)
{
	restricted = argc > 1 && !strcmp(argv[1], "restricted");
	test_64bit();
	test_brought();
	for (unsigned i = 0; i < sizeof(changes) / sizeof(changes[0]); i++)
		test_change(i);
	test_real();
	return 0;
}
