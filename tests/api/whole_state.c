/* SPDX-License-Identifier: MIT */
/*
 * The state is whole at every exit: a guest goes through all that is hard to save in (string instructions half done, accesses of several
 * fragments, pending exceptions with payload, SMM, an NMI's handler, HLT, interrupt shadows), and at each exit, or after each single
 * instruction, all that the ioctls tell is taken to a new VM, which goes on. It must read there as it was, and the guest must come to the
 * same number, with the same accesses in the same order, as one that was never moved.
 *
 * A one-shot timer that has expired may tell so again where it is restored, as in KVM: the guest stops it, and does not count.
 *
 * What is half done at an exit is finished by KVM_RUN with immediate_exit first, as KVM api.rst wants it: that may give the next fragment
 * of the same access, and runs nothing further.
 */
#include "long_mode.h"
#include "vm_state.h"

#include <signal.h>
#include <sys/time.h>

#define RAM	      0x40000
#define SMBASE	      0x20000
#define SMM_CODE      (SMBASE + 0x8000)
#define NMI_STACK     0xf000
#define BUFFER	      0x12000
#define RESULT	      0x7008
#define PORT_STRING   0x92
#define PORT_SMI      0x93 /* the program raises an SMI, */
#define PORT_FAULT    0x95 /* makes a page fault pending, */
#define PORT_NMI      0x96 /* an NMI, */
#define PORT_IN_NMI   0x97 /* and one more in its handler */
#define PORT_BREAK    0x98 /* and a debug exception */
#define PORT_END      0x9f
#define FAULT_ADDRESS 0x123456789000
#define MSR_SMBASE    0x9e

#define MIX "imul r12, r12, 0x5851f42d\n add r12, 0x14057b7e\n"

/* R15: memory that is not RAM, from its end on. R12: all that was computed. R13: told to handlers. */
GUEST_CODE(
	guest,
	"mov ecx, 0x80f\n mov eax, 0x1ff\n xor edx, edx\n wrmsr\n mov r12d, 1\n mov r15d, "
	"0x40000\n fninit\n fldpi\n"
	"mov eax, 0x1122\n mov dr0, rax\n mov eax, 0x3344\n mov dr3, rax\n"
	/* strings: to and from memory that is not RAM, and ports */
	"mov esi, 0x8000\n lea rdi, [r15+8]\n mov ecx, 6\n rep movsq\n" MIX
	"lea rsi, [r15+3]\n mov edi, 0x12ffc\n mov ecx, 7\n rep movsb\n mov rax, [0x12ffc]\n add "
	"r12, rax\n" MIX "mov edi, 0x12000\n mov ecx, 5\n lea rax, [r12+7]\n std\n lea rdi, "
	"[r15+64]\n rep stosd\n cld\n" MIX
	"mov edi, 0x12fe0\n mov ecx, 50\n mov edx, 0x92\n rep insb\n mov rax, [0x12ffd]\n add r12, "
	"rax\n" MIX "mov esi, 0x12fe0\n mov ecx, 5\n rep outsw\n add r12, rsi\n add r12, rcx\n" MIX
	"lea rsi, [r15+16]\n mov edi, 0x12000\n mov ecx, 9\n lea rdi, [r15+16]\n repe cmpsb\n add "
	"r12, rcx\n" MIX
	"lea rdi, [r15+5]\n xor eax, eax\n mov ecx, 4\n repne scasb\n add r12, rcx\n" MIX
	/* fragments: over a page's end, of 16 bytes, from RAM into what is none */
	"mov rax, [r15+0xffd]\n add r12, rax\n mov [r15+0xffb], r12\n movups xmm0, [r15+8]\n "
	"movups [r15+0x1ff9], xmm0\n"
	"mov rax, [r15-3]\n add r12, rax\n mov [r15-5], r12\n mov eax, [r15-4]\n add r12, rax\n" MIX
	"add [r15+32], r12\n xchg [r15+40], r12\n lock xadd [r15+48], r12\n lock inc dword ptr "
	"[r15+56]\n"
	"lea rsp, [r15+0x108]\n push r12\n pop rax\n mov esp, 0x10000\n add r12, rax\n" MIX
	"mov rax, r12\n lock cmpxchg [r15+72], rsp\n add r12, rax\n lea rax, guest_sub[rip]\n mov "
	"[r15+80], rax\n" MIX
	"fld qword ptr [r15+88]\n fstp tbyte ptr [r15+0xffa]\n bts dword ptr [r15+96], 5\n" MIX
	/* a shadow: an interrupt is waiting, and comes behind the instruction behind STI */
	"mov ecx, 0x830\n mov eax, 0x40051\n xor edx, edx\n wrmsr\n mov r13d, 0\n sti\n mov r13d, "
	"5\n nop\n cli\n" MIX "mov ecx, 0x830\n mov eax, 0x40051\n wrmsr\n mov r13d, 0\n sti\n mov "
	"r13, [r15+120]\n mov r13d, 6\n cli\n" MIX
	"mov ax, ss\n mov ss, ax\n mov rax, [r15+128]\n add r12, rax\n" MIX
	/* what the program brings about */
	"out 0x95, al\n add r12, r14\n" MIX "out 0x98, al\n add r12, r14\n" MIX
	"out 0x93, al\n 4: pause\n cmp byte ptr [0x7000], 0\n je 4b\n" MIX
	"out 0x96, al\n 5: pause\n cmp byte ptr [0x7001], 2\n jne 5b\n" MIX
	/* HLT, which a timer ends */
	"mov ecx, 0x83e\n mov eax, 0xb\n xor edx, edx\n wrmsr\n mov ecx, 0x832\n mov eax, 0x50\n "
	"wrmsr\n"
	"mov r13d, 0\n mov ecx, 0x838\n mov eax, 20000000\n wrmsr\n"
	"6: cli\n cmp r13d, 0\n jne 7f\n sti\n hlt\n jmp 6b\n"
	"7: mov rax, dr0\n add r12, rax\n mov rax, dr3\n add r12, rax\n sub rsp, 16\n fstp tbyte "
	"ptr [rsp]\n add r12, [rsp]\n"
	"movups [rsp], xmm0\n add r12, [rsp]\n add r12, [rsp+8]\n add r12, r13\n mov [0x7008], "
	"r12\n out 0x9f, al\n ud2\n"
	"guest_sub: ret\n"
	"guest_fault: mov r14, cr2\n add rsp, 8\n iretq\n"
	"guest_debug: mov r14, dr6\n iretq\n"
	"guest_ipi: add r12, r13\n push rax\n push rcx\n push rdx\n jmp 8f\n"
	"guest_timer: push rax\n push rcx\n push rdx\n mov r13d, 7\n mov ecx, 0x838\n xor eax, "
	"eax\n xor edx, edx\n wrmsr\n"
	"8: mov ecx, 0x80b\n xor eax, eax\n xor edx, edx\n wrmsr\n pop rdx\n pop rcx\n pop rax\n "
	"iretq\n"
	"guest_nmi: out 0x97, al\n add r12, [r15+0xffe]\n inc byte ptr [0x7001]\n iretq");
extern const uint8_t guest_fault[], guest_debug[], guest_ipi[], guest_timer[], guest_nmi[];

/* out %al,$0x94; mov 0x7fff(%bx),%eax with BX = 0xfff0: MMIO; movb $1,0x7000; rsm */
static const uint8_t smm_code[] = {0xe6, 0x94, 0x67, 0x66, 0xa1, 0x03, 0x00, 0x04,
				   0x00, 0x67, 0x66, 0xa3, 0x03, 0x00, 0x04, 0x00,
				   0xc6, 0x06, 0x00, 0x70, 0x01, 0x0f, 0xaa};

static struct machine m;
static bool stepping;
static unsigned moves, fragments, accesses;
static uint64_t seen; /* all accesses, in their order */

/* ---- machines ---- */

static void close_machine(struct machine *old)
{
	munmap(old->run, ioctl(old->kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
	close(old->vcpu);
	close(old->vm);
	close(old->kvm);
	munmap(old->ram, RAM);
}

static void set_stepping(void)
{
	struct kvm_guest_debug debug = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP};

	if (stepping)
		CHECK_EQ(ioctl(m.vcpu, KVM_SET_GUEST_DEBUG, &debug), 0);
}

static void gate(unsigned vector, const uint8_t *to)
{
	long_mode_gate(m.ram, vector, LONG_CODE + (to - guest));
}

static void start(void)
{
	m = vm_state_machine(RAM);
	long_mode_memory(m.ram, guest, guest_end);
	gate(1, guest_debug);
	gate(2, guest_nmi);
	gate(14, guest_fault);
	gate(0x50, guest_timer);
	gate(0x51, guest_ipi);
	memcpy(m.ram + SMM_CODE, smm_code, sizeof(smm_code));
	long_mode_cpuid(m.kvm, m.vcpu, 1 << 21);
	long_mode_start(m.vcpu, LONG_CODE, LONG_STACK);
	CHECK_EQ(msr_set(m.vcpu, MSR_SMBASE, SMBASE), 1);
	set_stepping();
	moves = fragments = accesses = 0;
	seen = 1;
}

/* ---- moving ---- */

static void compare(const void *was, const void *is, size_t size, const char *name)
{
	const uint8_t *a = was, *b = is;

	for (size_t i = 0; i < size; i++)
		if (a[i] != b[i]) {
			fprintf(stderr, "whole_state: move %u: %s: byte %zu was %#x, is %#x\n",
				moves, name, i, a[i], b[i]);
			exit(1);
		}
}

#define COMPARE(part) compare(&was->part, &is->part, sizeof(was->part), #part)

static void compare_states(struct vm_state *was, struct vm_state *is)
{
	vm_state_stop(was);
	vm_state_stop(is);
	COMPARE(cpuid);
	COMPARE(tsc_khz);
	COMPARE(regs);
	COMPARE(xsave);
	COMPARE(xcrs);
	COMPARE(sregs);
	COMPARE(msrs);
	COMPARE(mp);
	COMPARE(lapic);
	COMPARE(events);
	COMPARE(debug);
	COMPARE(chips);
	COMPARE(pit);
}

/* Older ioctls for the same. */
static void compare_others(const struct machine *old)
{
	struct kvm_sregs sregs[2];
	struct kvm_fpu fpu[2];
	struct kvm_pit_state pit[2];

	CHECK_EQ(ioctl(old->vcpu, KVM_GET_SREGS, &sregs[0]), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_SREGS, &sregs[1]), 0);
	compare(&sregs[0], &sregs[1], sizeof(sregs[0]), "KVM_GET_SREGS");
	CHECK_EQ(ioctl(old->vcpu, KVM_GET_FPU, &fpu[0]), 0);
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_FPU, &fpu[1]), 0);
	compare(&fpu[0], &fpu[1], sizeof(fpu[0]), "KVM_GET_FPU");
	CHECK_EQ(ioctl(old->vm, KVM_GET_PIT, &pit[0]), 0);
	CHECK_EQ(ioctl(m.vm, KVM_GET_PIT, &pit[1]), 0);
	CHECK_EQ(pit[0].channels[0].count, pit[1].channels[0].count);
}

static void move(void)
{
	static struct vm_state was, is;
	struct machine old = m;

	moves++;
	vm_state_get(&old, &was, NULL);
	m = vm_state_machine(RAM);
	memcpy(m.ram, old.ram, RAM);
	vm_state_set(&m, &was);
	vm_state_get(&m, &is, &was);
	compare_states(&was, &is);
	compare_others(&old);
	set_stepping();
	close_machine(&old);
}

/* ---- the program's part ---- */

static void note(uint64_t val)
{
	seen = (seen ^ val) * 0x9e3779b97f4a7c15;
	seen ^= seen >> 29;
}

/* Bytes that depend on where and how often was read. */
static void fill(uint8_t *data, size_t size, uint64_t addr)
{
	accesses++;
	for (size_t i = 0; i < size; i++)
		data[i] = (addr + i) * 29 + accesses * 7;
}

static void take(const uint8_t *data, size_t size)
{
	accesses++;
	for (size_t i = 0; i < size; i++)
		note(data[i]);
}

static void answer_mmio(void)
{
	note(m.run->mmio.phys_addr);
	note(m.run->mmio.len);
	if (m.run->mmio.is_write)
		take(m.run->mmio.data, m.run->mmio.len);
	else
		fill(m.run->mmio.data, m.run->mmio.len, m.run->mmio.phys_addr);
}

static void answer_io(void)
{
	uint8_t *data = (uint8_t *)m.run + m.run->io.data_offset;
	size_t size = (size_t)m.run->io.size * m.run->io.count;

	note(m.run->io.port);
	if (m.run->io.direction == KVM_EXIT_IO_OUT)
		take(data, m.run->io.port == PORT_STRING ? size : 0);
	else
		fill(data, size, m.run->io.port);
}

/* The port, or 0. */
static unsigned answer(void)
{
	switch (m.run->exit_reason) {
	case KVM_EXIT_MMIO:
		answer_mmio();
		return 0;
	case KVM_EXIT_IO:
		answer_io();
		return m.run->io.port;
	default:
		CHECK_EQ(m.run->exit_reason, KVM_EXIT_DEBUG);
		return 0;
	}
}

/* What is half done is done; of a string no more than the element. */
static void settle(void)
{
	unsigned nr = 0;

	m.run->immediate_exit = 1;
	while (!ioctl(m.vcpu, KVM_RUN, 0)) {
		CHECK(++nr <= 4);
		answer();
	}
	CHECK_EQ(errno, EINTR);
	m.run->immediate_exit = 0;
	fragments += nr;
}

static void make_pending(unsigned vector, uint64_t payload)
{
	struct kvm_vcpu_events e;

	CHECK_EQ(ioctl(m.vcpu, KVM_GET_VCPU_EVENTS, &e), 0);
	e.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	e.exception.pending = 1;
	e.exception.nr = vector;
	e.exception.has_error_code = vector == 14;
	e.exception.error_code = vector == 14 ? 2 : 0;
	e.exception_has_payload = 1;
	e.exception_payload = payload;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_VCPU_EVENTS, &e), 0);
}

static void act(unsigned port)
{
	static bool second;

	switch (port) {
	case PORT_SMI:
		CHECK_EQ(ioctl(m.vcpu, KVM_SMI, 0), 0);
		break;
	case PORT_FAULT:
		make_pending(14, FAULT_ADDRESS);
		break;
	case PORT_BREAK:
		make_pending(1, 4);
		break;
	case PORT_NMI:
		second = true;
		CHECK_EQ(ioctl(m.vcpu, KVM_NMI, 0), 0);
		break;
	case PORT_IN_NMI:
		if (second)
			CHECK_EQ(ioctl(m.vcpu, KVM_NMI, 0), 0);
		second = false;
	}
}

/* In HLT nothing exits: a signal does, again and again. */
static void set_alarm(long us)
{
	struct itimerval timer = {.it_interval.tv_usec = us, .it_value.tv_usec = us};

	CHECK_EQ(setitimer(ITIMER_REAL, &timer, NULL), 0);
}

static void on_alarm(int number)
{
}

static uint64_t run(bool moving)
{
	uint64_t result;
	unsigned port = 0;

	start();
	set_alarm(3000);
	while (port != PORT_END) {
		bool halted = ioctl(m.vcpu, KVM_RUN, 0);

		CHECK(!halted || errno == EINTR);
		port = halted ? 0 : answer();
		settle();
		act(port);
		if (moving)
			move();
	}
	set_alarm(0);
	memcpy(&result, m.ram + RESULT, 8);
	close_machine(&m);
	printf("%s%s: %u moves, %u accesses, %u fragments of them in settling: %#lx\n",
	       moving ? "moved" : "at rest", stepping ? ", single steps" : "", moves, accesses,
	       fragments, result);
	return result + seen;
}

int main(void)
{
	struct sigaction action = {.sa_handler = on_alarm};
	uint64_t result;

	setvbuf(stdout, NULL, _IOLBF, 0);
	CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
	for (unsigned i = 0; i < 2; i++) {
		/* In single steps REP INS brings its bytes one by one, so other ones. */
		stepping = i;
		result = run(false);
		CHECK_EQ(run(true), result);
	}
	return 0;
}
