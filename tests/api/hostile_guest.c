/* SPDX-License-Identifier: MIT */
/*
 * Guests that do nonsense: each ends in the exit that KVM gives, or spins until a signal; the memory around
 * guest RAM stays as it was. 64-bit mode, with a handler for every vector: faults with and without error
 * code skip two bytes (the length of WRMSR), interrupts are acknowledged.
 */
#include "api_test.h"

#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <time.h>

#define GUARD	      0x10000u
#define CANARY	      0xa5
#define TABLES	      0x2000 /* PML4, PDPT, PD */
#define GDT	      0x5000
#define IDT	      0x6000
#define HANDLERS      0x7000
#define CODE	      0x8000
#define STACK	      0xf000
#define ROM_GPA	      0x20000
#define SMRAM_SIZE    0x10000
#define HOLE	      0x200000ull /* no slot, no device */
#define LIMIT_MS      1000	  /* for a loaded machine */
#define DONE_PORT     0x99
#define MAX_EXITS     4000
#define TRIES	      50 /* on a busy machine LIMIT_MS may be over before the guest has begun */
#define BIT_CANONICAL (1ull << 47)

#define GUEST(name, text)                                                                \
	asm(".pushsection .rodata\n.intel_syntax noprefix\n" #name ":\n" text "\n" #name \
	    "_end:\n.att_syntax prefix\n.popsection\n");                                 \
	extern const uint8_t name[], name##_end[]

static uint8_t *guarded, *rom, *smram;

/* ---- the machine ---- */

/* Vector n's handler: an error code is there for 8, 10 to 14 and 17. */
GUEST(skip_with_error, "add rsp, 8\n add qword ptr [rsp], 2\n iretq");
GUEST(skip, "add qword ptr [rsp], 2\n iretq");
GUEST(acknowledge, "push rbx\n mov ebx, 0xfee000b0\n mov dword ptr [rbx], 0\n pop rbx\n iretq");

#define COPY(m, gpa, name) memcpy((m)->ram + (gpa), name, name##_end - name)

static void put64(struct machine *m, unsigned gpa, uint64_t val)
{
	memcpy(m->ram + gpa, &val, 8);
}

static void put_gate(struct machine *m, unsigned vector, unsigned handler)
{
	put64(m, IDT + 16 * vector, (handler & 0xffff) | 8ull << 16 | 0x8eull << 40);
	put64(m, IDT + 16 * vector + 8, 0);
}

static void fill_memory(struct machine *m)
{
	/* The first GiB by 2 MiB pages, and the APICs' at 3 to 4 GiB. */
	put64(m, TABLES, TABLES + 0x1000 + 7);
	put64(m, TABLES + 0x1000, TABLES + 0x2000 + 7);
	put64(m, TABLES + 0x1000 + 8 * 3, 0xc0000087);
	for (unsigned i = 0; i < 512; i++)
		put64(m, TABLES + 0x2000 + 8 * i, (uint64_t)i << 21 | 0x87);
	put64(m, GDT + 8, 0x00af9b000000ffff);
	put64(m, GDT + 16, 0x00cf93000000ffff);
	COPY(m, HANDLERS, skip_with_error);
	COPY(m, HANDLERS + 0x40, skip);
	COPY(m, HANDLERS + 0x80, acknowledge);
	for (unsigned i = 0; i < 256; i++) {
		bool error = i == 8 || (i >= 10 && i <= 14) || i == 17;

		put_gate(m, i, HANDLERS + (i >= 32 ? 0x80 : error ? 0 : 0x40));
	}
}

static void go_long(struct machine *m)
{
	struct kvm_segment code = {
		.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	struct kvm_segment data = {
		.limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_regs regs = {.rip = CODE, .rsp = STACK, .rflags = 2, .r8 = 6364136223846793005};
	struct kvm_sregs s;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_SREGS, &s), 0);
	s.cr3 = TABLES;
	s.cr0 = 0x80010031;
	s.cr4 = 0x620;
	s.efer = 0xd01;
	s.gdt = (struct kvm_dtable){.base = GDT, .limit = 23};
	s.idt = (struct kvm_dtable){.base = IDT, .limit = 0xfff};
	s.cs = code;
	s.ds = s.es = s.ss = s.fs = s.gs = data;
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_SREGS, &s), 0);
	CHECK_EQ(ioctl(m->vcpu, KVM_SET_REGS, &regs), 0);
}

static struct machine hostile_open(bool irqchip)
{
	struct machine m = {.kvm = open_kvm()};
	struct kvm_pit_config pit = {0};

	m.vm = create_vm(m.kvm);
	guarded = map_ram(RAM_SIZE + 2 * GUARD);
	memset(guarded, CANARY, RAM_SIZE + 2 * GUARD);
	m.ram = guarded + GUARD;
	memset(m.ram, 0, RAM_SIZE);
	rom = map_ram(0x1000);
	CHECK_EQ(set_region(m.vm, 0, 0, 0, RAM_SIZE, m.ram), 0);
	/* Without memory a self-made SMI would be the VM's end. Its handler: rsm. */
	smram = map_ram(SMRAM_SIZE);
	memcpy(smram + 0x8000, "\x0f\xaa", 2);
	CHECK_EQ(set_region(m.vm, 1 << 16, 0, 0x30000, SMRAM_SIZE, smram), 0);
	CHECK_EQ(set_region(m.vm, 1, KVM_MEM_READONLY, ROM_GPA, 0x1000, rom), 0);
	if (irqchip) {
		CHECK_EQ(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
		CHECK_EQ(ioctl(m.vm, KVM_CREATE_PIT2, &pit), 0);
	}
	m.vcpu = ioctl(m.vm, KVM_CREATE_VCPU, 0);
	CHECK(m.vcpu >= 0);
	m.run = map_run(m.kvm, m.vcpu);
	set_supported_cpuid(m.kvm, m.vcpu);
	fill_memory(&m);
	go_long(&m);
	return m;
}

static void hostile_close(struct machine *m)
{
	for (unsigned i = 0; i < GUARD; i++)
		CHECK(guarded[i] == CANARY && guarded[GUARD + RAM_SIZE + i] == CANARY);
	munmap(m->run, ioctl(m->kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
	munmap(guarded, RAM_SIZE + 2 * GUARD);
	munmap(rom, 0x1000);
	munmap(smram, SMRAM_SIZE);
	close(m->vcpu);
	close(m->vm);
	close(m->kvm);
}

static void nothing(int sig)
{
}

static long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Run on through accesses and signals: the first other exit, or KVM_EXIT_INTR if the guest spins. */
static uint32_t run_on(struct machine *m)
{
	long end = now_ms() + LIMIT_MS;

	for (unsigned exits = 0; exits < MAX_EXITS && now_ms() < end; exits++) {
		long r = ioctl(m->vcpu, KVM_RUN, 0);

		CHECK(r == 0 || errno == EINTR);
		if (r)
			continue;
		if (m->run->exit_reason == KVM_EXIT_IO && m->run->io.port == DONE_PORT)
			return KVM_EXIT_IO;
		if (m->run->exit_reason == KVM_EXIT_MMIO && !m->run->mmio.is_write)
			memset(m->run->mmio.data, exits, 8);
		else if (m->run->exit_reason != KVM_EXIT_MMIO && m->run->exit_reason != KVM_EXIT_IO)
			return m->run->exit_reason;
	}
	return KVM_EXIT_INTR;
}

static struct kvm_regs regs_of(const struct machine *m)
{
	struct kvm_regs r;

	CHECK_EQ(ioctl(m->vcpu, KVM_GET_REGS, &r), 0);
	return r;
}

#define START(m, name) COPY(m, CODE, name)

/* ---- where code is ---- */

GUEST(jump_to_hole, "mov eax, 0x200000\n jmp rax");
GUEST(jump_to_apic, "mov eax, 0xfee00000\n jmp rax");
GUEST(jump_beyond, "mov eax, 0x3fe00000\n jmp rax");
GUEST(jump_noncanonical, "mov rax, 0x800000000000\n jmp rax");

static void test_jump_into_mmio(const uint8_t *code, size_t size, bool irqchip)
{
	struct machine m = hostile_open(irqchip);

	memcpy(m.ram + CODE, code, size);
	CHECK_EQ(run_on(&m), KVM_EXIT_INTERNAL_ERROR);
	CHECK_EQ(m.run->internal.suberror, KVM_INTERNAL_ERROR_EMULATION);
	/* Again, for as long as the program likes. */
	CHECK_EQ(run_on(&m), KVM_EXIT_INTERNAL_ERROR);
	hostile_close(&m);
}

static void test_code_at_the_end_of_ram(void)
{
	static const uint8_t cut[] = {0x48, 0xb8}; /* mov rax, imm64 runs off */
	struct machine m = hostile_open(false);
	struct kvm_regs r = {.rip = RAM_SIZE - 2, .rsp = STACK, .rflags = 2};

	memcpy(m.ram + RAM_SIZE - 2, cut, 2);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_REGS, &r), 0);
	CHECK_EQ(run_on(&m), KVM_EXIT_INTERNAL_ERROR);
	CHECK_EQ(m.run->internal.suberror, KVM_INTERNAL_ERROR_EMULATION);
	hostile_close(&m);
}

/* ---- page tables ---- */

GUEST(load_cr3, "mov cr3, rbx\n hlt");
GUEST(lose_idt,
      "sub rsp, 16\n mov qword ptr [rsp + 2], 0\n mov word ptr [rsp], 0\n lidt [rsp]\n ud2");

static uint32_t run_with_cr3(uint64_t cr3, struct machine *ret)
{
	struct machine m = hostile_open(false);
	struct kvm_regs r = regs_of(&m);
	uint32_t reason;

	START(&m, load_cr3);
	/* In ROM: a PML4 that maps as the first one does, accessed bits clear. */
	*(uint64_t *)rom = TABLES + 0x1000 + 7;
	r.rbx = cr3;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_REGS, &r), 0);
	reason = run_on(&m);
	*ret = m;
	return reason;
}

static void test_tables_in_rom(void)
{
	struct machine m;

	CHECK_EQ(run_with_cr3(ROM_GPA, &m), KVM_EXIT_HLT);
	CHECK_EQ(*(uint64_t *)rom, TABLES + 0x1000 + 7);
	hostile_close(&m);
}

/* Nothing can be walked, not even for the handlers. */
static void test_tables_nowhere(uint64_t cr3)
{
	struct machine m;
	uint32_t reason = run_with_cr3(cr3, &m);

	CHECK(reason == KVM_EXIT_SHUTDOWN || reason == KVM_EXIT_INTERNAL_ERROR);
	hostile_close(&m);
}

/* PML4[0] is the PML4: the page at 0 is the table, all levels over. */
static void test_tables_of_themselves(void)
{
	struct machine m = hostile_open(false);
	struct kvm_regs r = regs_of(&m);
	uint32_t reason;

	put64(&m, 0xb000, 0xb000 + 7);
	START(&m, load_cr3);
	r.rbx = 0xb000;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_REGS, &r), 0);
	reason = run_on(&m);
	CHECK(reason == KVM_EXIT_SHUTDOWN || reason == KVM_EXIT_INTERNAL_ERROR);
	hostile_close(&m);
}

static void test_triple_fault(void)
{
	struct machine m = hostile_open(false);

	START(&m, lose_idt);
	CHECK_EQ(run_on(&m), KVM_EXIT_SHUTDOWN);
	hostile_close(&m);
}

/* ---- storms ---- */

/* ECX from ESI to EDI: WRMSR of noise, RDMSR; whatever faults is skipped. R9 counts. */
GUEST(msr_storm, "1: imul rax, r8\n inc rax\n mov rdx, rax\n shr rdx, 32\n mov ecx, esi\n"
		 "push rax\n wrmsr\n rdmsr\n pop rax\n inc r9\n inc esi\n cmp esi, edi\n jb 1b\n "
		 "out 0x99, al");
/* R10: base, R11: mask of offsets, EDI: how often. */
GUEST(mmio_storm,
      "1: imul rax, r8\n inc rax\n mov rdx, rax\n shr rdx, 32\n mov rcx, rax\n shr rcx, 13\n"
      "and rcx, r11\n mov [r10 + rcx], edx\n mov ebx, [r10 + rcx]\n dec edi\n jnz 1b\n out 0x99, "
      "al");
GUEST(port_storm,
      "1: imul rax, r8\n inc rax\n mov rdx, rax\n shr rdx, 40\n and rdx, r11\n add rdx, r10\n"
      "push rax\n out dx, al\n in al, dx\n out dx, ax\n in eax, dx\n pop rax\n dec edi\n jnz 1b\n "
      "out 0x99, al");

static void msr_range(uint32_t first, uint32_t last, uint64_t seed)
{
	struct machine m = hostile_open(seed & 1);
	struct kvm_regs r = regs_of(&m);

	START(&m, msr_storm);
	r.rax = seed;
	r.rsi = first;
	r.rdi = last;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_REGS, &r), 0);
	/* A paravirtual page may have hit the code: any end will do. */
	for (unsigned i = 0; i < TRIES && !regs_of(&m).r9; i++)
		run_on(&m);
	CHECK(regs_of(&m).r9 > 0);
	hostile_close(&m);
}

static void test_msrs(void)
{
	for (uint64_t seed = 1; seed < 5; seed++) {
		msr_range(0, 0x2000, seed);
		msr_range(0x40000000, 0x40000200, seed);
		msr_range(0x4b564d00, 0x4b564d10, seed);
		msr_range(0xc0000000, 0xc0000200, seed);
		msr_range(0xc0010000, 0xc0010200, seed);
		msr_range(0xc0011000, 0xc0011100, seed);
	}
}

static void storm(const uint8_t *code, size_t size, uint64_t base, uint64_t mask, uint64_t seed)
{
	struct machine m = hostile_open(true);
	struct kvm_regs r = regs_of(&m);
	uint32_t end = KVM_EXIT_INTR;

	memcpy(m.ram + CODE, code, size);
	r.rax = seed;
	r.r10 = base;
	r.r11 = mask;
	r.rdi = 3000;
	r.rflags = seed & 1 ? 0x202 : 2;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_REGS, &r), 0);
	for (unsigned i = 0; i < TRIES && regs_of(&m).rdi == 3000; i++)
		end = run_on(&m);
	/* The PIT's interrupt comes at vector 0, whose handler skips two bytes: what is left may be the guest's end at once. */
	CHECK(regs_of(&m).rdi < 3000 ||
	      (r.rflags & 0x200 && (end == KVM_EXIT_SHUTDOWN || end == KVM_EXIT_INTERNAL_ERROR)));
	hostile_close(&m);
}

#define STORM(name, ...) storm(name, name##_end - name, __VA_ARGS__)

static void test_devices(void)
{
	for (uint64_t seed = 1; seed < 5; seed++) {
		STORM(mmio_storm, 0xfee00000, 0xff0, seed);
		STORM(mmio_storm, 0xfee00000, 0xfff, seed);
		STORM(mmio_storm, 0xfec00000, 0x1f, seed);
		STORM(mmio_storm, ROM_GPA, 0xfff, seed);
		STORM(mmio_storm, 0xfffff0, 0xf, seed);
		STORM(port_storm, 0x20, 1, seed);
		STORM(port_storm, 0xa0, 1, seed);
		STORM(port_storm, 0x40, 3, seed);
		STORM(port_storm, 0, 0xffff, seed);
	}
}

/* ---- two processors that send each other INITs, SIPIs and worse ---- */

struct peer {
	struct machine m;
	volatile bool stop;
};

static void *peer_main(void *opaque)
{
	struct peer *p = opaque;

	while (!p->stop) {
		long r = ioctl(p->m.vcpu, KVM_RUN, 0);

		CHECK(r == 0 || errno == EINTR || errno == EAGAIN);
		if (!r && p->m.run->exit_reason == KVM_EXIT_SHUTDOWN)
			go_long(&p->m);
	}
	return NULL;
}

static void test_two_processors(void)
{
	struct machine m = hostile_open(true);
	struct kvm_mp_state runnable = {.mp_state = KVM_MP_STATE_RUNNABLE};
	struct kvm_regs r = regs_of(&m);
	struct peer p = {.m = m};
	pthread_t thread;

	START(&m, mmio_storm);
	p.m.vcpu = ioctl(m.vm, KVM_CREATE_VCPU, 1);
	CHECK(p.m.vcpu >= 0);
	p.m.run = map_run(m.kvm, p.m.vcpu);
	set_supported_cpuid(p.m.kvm, p.m.vcpu);
	go_long(&p.m);
	CHECK_EQ(ioctl(p.m.vcpu, KVM_SET_MP_STATE, &runnable), 0);
	r.r10 = 0xfee00300; /* the command register alone, and the destination */
	r.r11 = 0x10;
	r.rdi = 100000;
	r.rflags = 0x202;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_REGS, &r), 0);
	CHECK_EQ(ioctl(p.m.vcpu, KVM_SET_REGS, &r), 0);
	CHECK_EQ(pthread_create(&thread, NULL, peer_main, &p), 0);
	run_on(&m);
	p.stop = true;
	p.m.run->immediate_exit = 1;
	while (pthread_tryjoin_np(thread, NULL)) {
		pthread_kill(thread, SIGUSR1);
		usleep(1000);
	}
	munmap(p.m.run, ioctl(m.kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
	close(p.m.vcpu);
	hostile_close(&m);
}

#define JUMP(name, irqchip) test_jump_into_mmio(name, name##_end - name, irqchip)

static void test_noncanonical_jump(void)
{
	struct machine m = hostile_open(false);

	START(&m, jump_noncanonical);
	/* #GP at the jump; its handler skips two bytes, the length of JMP RAX; then zeros up to the end. */
	run_on(&m);
	CHECK(regs_of(&m).rip < BIT_CANONICAL);
	hostile_close(&m);
}

int main(void)
{
	struct itimerval t = {.it_value.tv_usec = 10000, .it_interval.tv_usec = 10000};

	signal(SIGALRM, nothing);
	signal(SIGUSR1, nothing);
	setitimer(ITIMER_REAL, &t, NULL);
	JUMP(jump_to_hole, false);
	JUMP(jump_to_apic, true);
	JUMP(jump_beyond, false);
	test_noncanonical_jump();
	test_code_at_the_end_of_ram();
	test_tables_in_rom();
	test_tables_nowhere(HOLE);
	test_tables_nowhere(0xfee00000);
	test_tables_nowhere(0xffffff000);
	test_tables_of_themselves();
	test_triple_fault();
	test_msrs();
	test_devices();
	test_two_processors();
	return 0;
}
