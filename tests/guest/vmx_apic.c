/* SPDX-License-Identifier: MIT */
/*
 * The virtual local APIC of VMX: TPR shadow, APIC-access page, APIC-register virtualization, virtual-interrupt delivery,
 * posted interrupts, x2APIC mode. A guest makes one access and calls; what it read, what the virtual-APIC page and
 * the VMCS hold then, and the exit, are the SDM's (APIC virtualization and virtual interrupts).
 */
#include "vmx_host.h"

#define VAPIC	 0x215000u
#define MSR_MAP	 0x216000u
#define DESC	 0x217000u /* of posted interrupts */
#define ACCESSED 0x220000u /* the APIC-access page */
#define L2_IDT	 0x330000u

#define VMCALL_EXIT  18
#define TPR_BELOW    43
#define APIC_ACCESS  44
#define VIRTUAL_EOI  45
#define APIC_WRITE   56
#define INTR_GP	     0x80000b0du
#define TYPE_READ    (0u << 12)
#define TYPE_WRITE   (1u << 12)
#define TYPE_FETCH   (2u << 12)
#define TYPE_DELIVER (3u << 12)

/* Controls by the SDM's numbers. */
#define EXT_INTS   1u
#define POSTED	   0x80u
#define TPR_SHADOW (1ull << 21)
#define MSR_MAPS   (1ull << 28)
#define PAGE	   1u
#define X2APIC	   0x10u
#define REGISTERS  0x100u
#define DELIVERY   0x200u
#define ACK	   0x8000u

#define TPR  0x80
#define PPR  0xa0
#define EOI  0xb0
#define ISR  0x100
#define IRR  0x200
#define ICR  0x300
#define ICR2 0x310
#define SELF 0x3f0

GUEST(reads, 64, "mov eax, [rdi]\n vmcall");
GUEST(writes, 64, "mov [rdi], eax\n vmcall");
GUEST(reads_cr8, 64, "mov rax, cr8\n vmcall");
GUEST(writes_cr8, 64, "mov cr8, rax\n vmcall");
GUEST(reads_msr, 64, "rdmsr\n vmcall");
GUEST(writes_msr, 64, "wrmsr\n vmcall");
GUEST(waits, 64, "nop\n nop\n vmcall");
GUEST(opens, 64, "sti\n nop\n vmcall");
GUEST(sleeps, 64, "sti\n hlt\n nop\n vmcall");
GUEST(breaks, 64, "int3");
GUEST(calls, 64, "call rdi");

#define enter(h, name) run(h, name, name##_end - name)
#define LENGTH(name)   (name##_end - name - 3) /* without the VMCALL */

static void start_apic(struct host *h, uint64_t cpu, uint64_t cpu2)
{
	start(h);
	put(h, VMCS_PIN_CTLS, PIN_ONES | (cpu2 & DELIVERY ? EXT_INTS : 0));
	put(h, VMCS_CPU_CTLS, CPU_ONES | CPU2_ON | MSR_MAPS | cpu);
	put(h, VMCS_CPU2_CTLS, cpu2);
	put(h, VMCS_EXCEPTION_BITMAP, 1 << 13);
	put(h, VMCS_VAPIC_ADDR, VAPIC);
	put(h, VMCS_MSR_BITMAP, MSR_MAP);
	put(h, VMCS_APIC_ACCESS_ADDR, ACCESSED);
	memset(h->f->ram + VAPIC, 0, 0x2000);
	memset(h->f->ram + ACCESSED, 0xee, 0x1000);
	memset(h->f->cpu->gpr, 0, sizeof(h->f->cpu->gpr));
}

static void put_reg(struct host *h, unsigned reg, uint32_t val)
{
	flat_poke(h->f, VAPIC + reg, val, 4);
}

static uint32_t get_reg(struct host *h, unsigned reg)
{
	return flat_peek(h->f, VAPIC + reg, 4);
}

/* A bit of ISR or IRR. */
static void put_vector(struct host *h, unsigned base, unsigned vector)
{
	put_reg(h, base + vector / 32 * 16, 1u << vector % 32);
}

static bool get_vector(struct host *h, unsigned base, unsigned vector)
{
	return get_reg(h, base + vector / 32 * 16) >> vector % 32 & 1;
}

/* One access to the APIC-access page. */
static uint32_t read_page(struct host *h, unsigned offset)
{
	h->f->cpu->gpr[RDI] = ACCESSED + offset;
	return enter(h, reads);
}

static uint32_t write_page(struct host *h, unsigned offset, uint32_t val)
{
	h->f->cpu->gpr[RDI] = ACCESSED + offset;
	h->f->cpu->gpr[RAX] = val;
	return enter(h, writes);
}

/* ---- TPR shadow ---- */

static void cr8(void **state)
{
	struct host *h = host_open();

	start_apic(h, TPR_SHADOW, 0);
	put_reg(h, TPR, 0x5f);
	assert_int_equal(enter(h, reads_cr8), VMCALL_EXIT);
	assert_int_equal(h->f->cpu->gpr[RAX], 5);
	start_apic(h, TPR_SHADOW, 0);
	h->f->tpr = 3;
	h->f->cpu->gpr[RAX] = 7;
	assert_int_equal(enter(h, writes_cr8), VMCALL_EXIT);
	assert_int_equal(get_reg(h, TPR), 0x70);
	assert_int_equal(h->f->tpr, 3);
	/* Without it, the hypervisor's own. */
	start_apic(h, 0, 0);
	h->f->cpu->gpr[RAX] = 7;
	assert_int_equal(enter(h, writes_cr8), VMCALL_EXIT);
	assert_int_equal(get_reg(h, TPR), 0);
	assert_int_equal(h->f->tpr, 7);
	/* CR8 has four bits. */
	start_apic(h, TPR_SHADOW, 0);
	h->f->cpu->gpr[RAX] = 0x10;
	assert_int_equal(enter(h, writes_cr8), 0);
	assert_int_equal(get(h, VMCS_EXIT_INTR_INFO), INTR_GP);
	host_close(h);
}

/* Below the threshold: behind the instruction. */
static void threshold(void **state)
{
	struct host *h = host_open();

	for (unsigned tpr = 0; tpr < 16; tpr++) {
		start_apic(h, TPR_SHADOW, 0);
		put_reg(h, TPR, 0xf0);
		put(h, VMCS_TPR_THRESHOLD, 6);
		h->f->cpu->gpr[RAX] = tpr;
		assert_int_equal(enter(h, writes_cr8), tpr < 6 ? TPR_BELOW : VMCALL_EXIT);
		assert_int_equal(get(h, VMCS_RIP), L2_CODE + LENGTH(writes_cr8));
		assert_int_equal(get_reg(h, TPR), tpr << 4);
		start_apic(h, TPR_SHADOW, PAGE);
		put_reg(h, TPR, 0xf0);
		put(h, VMCS_TPR_THRESHOLD, 6);
		assert_int_equal(write_page(h, TPR, tpr << 4 | 0xf),
				 tpr < 6 ? TPR_BELOW : VMCALL_EXIT);
		assert_int_equal(get_reg(h, TPR), tpr << 4 | 0xf);
	}
	/* With the page, entry does not check it, and exits first thing. */
	start_apic(h, TPR_SHADOW, PAGE);
	put(h, VMCS_TPR_THRESHOLD, 1);
	assert_int_equal(enter(h, waits), TPR_BELOW);
	assert_int_equal(get(h, VMCS_RIP), L2_CODE);
	host_close(h);
}

/* ---- the APIC-access page ---- */

/* Registers by the controls that let the guest read and write them; what is written at all is an exit, but for some. */
enum { BY_REGISTERS = 1, ALWAYS = 2, BY_DELIVERY = 4 };

static const struct {
	uint16_t first, last;
	uint8_t read, write;
} page_rows[] = {
	{0x000, 0x010, 0, 0},
	{0x020, 0x020, BY_REGISTERS, BY_REGISTERS},
	{0x030, 0x030, BY_REGISTERS, 0},
	{0x040, 0x070, 0, 0},
	{0x080, 0x080, ALWAYS, ALWAYS},
	{0x090, 0x0a0, 0, 0},
	{0x0b0, 0x0b0, BY_REGISTERS, BY_REGISTERS | BY_DELIVERY},
	{0x0c0, 0x0c0, 0, 0},
	{0x0d0, 0x0f0, BY_REGISTERS, BY_REGISTERS},
	{0x100, 0x270, BY_REGISTERS, 0},
	{0x280, 0x280, BY_REGISTERS, BY_REGISTERS},
	{0x290, 0x2f0, 0, 0},
	{0x300, 0x300, BY_REGISTERS, BY_REGISTERS | BY_DELIVERY},
	{0x310, 0x380, BY_REGISTERS, BY_REGISTERS},
	{0x390, 0x3d0, 0, 0},
	{0x3e0, 0x3e0, BY_REGISTERS, BY_REGISTERS},
	{0x3f0, 0xff0, 0, 0},
};

static bool allowed(uint8_t who, uint64_t cpu2)
{
	return who == ALWAYS || ((who & BY_REGISTERS) && (cpu2 & REGISTERS)) ||
	       ((who & BY_DELIVERY) && (cpu2 & DELIVERY));
}

static void read_register(struct host *h, unsigned reg, bool ok, uint64_t cpu2)
{
	uint32_t reason;

	start_apic(h, TPR_SHADOW, PAGE | cpu2);
	put_reg(h, reg, 0x12345600 | reg >> 4);
	reason = read_page(h, reg);
	if (reason != (ok ? VMCALL_EXIT : APIC_ACCESS))
		fail_msg("read of %x with %lx: %u", reg, cpu2, reason);
	if (ok)
		assert_int_equal(h->f->cpu->gpr[RAX], 0x12345600 | reg >> 4);
	else
		assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), TYPE_READ | reg);
}

/* 1Eh, an illegal vector for a self-IPI among what ICR takes. */
static void write_register(struct host *h, unsigned reg, bool ok, uint64_t cpu2)
{
	bool quiet = reg == TPR || reg == ICR2 || (reg == EOI && (cpu2 & DELIVERY));
	uint32_t reason;

	start_apic(h, TPR_SHADOW, PAGE | cpu2);
	reason = write_page(h, reg, 0xe);
	if (reason != (!ok ? APIC_ACCESS : quiet ? VMCALL_EXIT : APIC_WRITE))
		fail_msg("write of %x with %lx: %u", reg, cpu2, reason);
	if (!quiet || !ok)
		assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), reg | (ok ? 0 : TYPE_WRITE));
	assert_int_equal(get(h, VMCS_RIP), L2_CODE + (ok ? LENGTH(writes) : 0));
	if (ok)
		assert_int_equal(get_reg(h, reg),
				 reg == EOI || reg == ICR2 ? quiet ? 0 : 0xe : 0xe);
}

static void page_registers(void **state)
{
	static const uint64_t cpu2[] = {0, REGISTERS, DELIVERY, REGISTERS | DELIVERY};
	struct host *h = host_open();

	for (unsigned i = 0; i < ARRAY_SIZE(page_rows); i++)
		for (unsigned reg = page_rows[i].first; reg <= page_rows[i].last; reg += 0x10)
			for (unsigned c = 0; c < ARRAY_SIZE(cpu2); c++) {
				read_register(h, reg, allowed(page_rows[i].read, cpu2[c]), cpu2[c]);
				write_register(h, reg, allowed(page_rows[i].write, cpu2[c]),
					       cpu2[c]);
			}
	host_close(h);
}

/* Without the TPR shadow all accesses exit; without the page, none do. */
static void page_alone(void **state)
{
	struct host *h = host_open();

	for (unsigned reg = 0x20; reg <= 0x80; reg += 0x60) {
		start_apic(h, 0, PAGE);
		assert_int_equal(read_page(h, reg), APIC_ACCESS);
		assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), TYPE_READ | reg);
		start_apic(h, 0, PAGE);
		assert_int_equal(write_page(h, reg, 1), APIC_ACCESS);
		assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), TYPE_WRITE | reg);
		start_apic(h, TPR_SHADOW, 0);
		assert_int_equal(read_page(h, reg), VMCALL_EXIT);
		assert_int_equal(h->f->cpu->gpr[RAX], 0xeeeeeeee);
	}
	/* Beside the first four of each 16 bytes, no register is. */
	start_apic(h, TPR_SHADOW, PAGE | REGISTERS);
	assert_int_equal(read_page(h, TPR + 4), APIC_ACCESS);
	assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), TYPE_READ | (TPR + 4));
	/* Instructions, and events that are delivered. */
	start_apic(h, TPR_SHADOW, PAGE | REGISTERS);
	h->f->cpu->gpr[RDI] = ACCESSED + TPR;
	assert_int_equal(enter(h, calls), APIC_ACCESS);
	assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), TYPE_FETCH | TPR);
	start_apic(h, TPR_SHADOW, PAGE | REGISTERS);
	put(h, VMCS_RSP, ACCESSED + 0x100);
	assert_int_equal(enter(h, breaks), APIC_ACCESS);
	assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION) & 0xf000, TYPE_DELIVER);
	assert_int_equal(get(h, VMCS_IDT_INFO), 0x80000603);
	assert_int_equal(get(h, VMCS_EXIT_INSN_LEN), 1);
	host_close(h);
}

/* ---- virtual-interrupt delivery ---- */

#define HANDLER(vector) (FLAT_HANDLERS + 16 * (vector))

/* At the vector's handler, a HLT that exits. */
static void start_delivery(struct host *h, uint64_t cpu2, uint8_t request, uint8_t service)
{
	start_apic(h, TPR_SHADOW | HLT_EXIT, DELIVERY | cpu2);
	put(h, VMCS_EXIT_CTLS, EXIT_64 | ACK);
	put(h, VMCS_INTR_STATUS, request | service << 8);
	put(h, VMCS_RFLAGS, 0x202);
	if (request)
		put_vector(h, IRR, request);
	if (service)
		put_vector(h, ISR, service);
}

static void is_delivered(struct host *h, uint32_t reason, uint8_t vector, uint8_t next)
{
	assert_int_equal(reason, 12);
	assert_int_equal(get(h, VMCS_RIP), HANDLER(vector));
	assert_int_equal(get(h, VMCS_INTR_STATUS), next | vector << 8);
	assert_false(get_vector(h, IRR, vector));
	assert_true(get_vector(h, ISR, vector));
	assert_int_equal(get_reg(h, PPR), vector & 0xf0);
}

static void delivery(void **state)
{
	struct host *h = host_open();

	start_delivery(h, 0, 0x51, 0);
	put_vector(h, IRR, 0x41);
	is_delivered(h, enter(h, waits), 0x51, 0x41);
	/* By the priority of TPR and of what is in service: above 3, not 4 or 5. */
	for (unsigned tpr = 3; tpr <= 5; tpr++)
		for (unsigned service = 0; service < 2; service++) {
			start_delivery(h, 0, 0x41, service ? tpr << 4 : 0);
			put_reg(h, TPR, service ? 0 : tpr << 4);
			if (tpr == 3) {
				is_delivered(h, enter(h, waits), 0x41, 0);
				continue;
			}
			assert_int_equal(enter(h, waits), VMCALL_EXIT);
			assert_int_equal(get_reg(h, PPR), tpr << 4);
			assert_true(get_vector(h, IRR, 0x41));
		}
	/* IF, and the shadow of STI. */
	start_delivery(h, 0, 0x41, 0);
	put(h, VMCS_RFLAGS, 2);
	assert_int_equal(enter(h, waits), VMCALL_EXIT);
	start_delivery(h, 0, 0x41, 0);
	put(h, VMCS_RFLAGS, 2);
	is_delivered(h, enter(h, opens), 0x41, 0);
	assert_int_equal(flat_peek(h->f, get(h, VMCS_RSP), 8), L2_CODE + 2);
	/* The window's exit goes first. */
	start_delivery(h, 0, 0x41, 0);
	put(h, VMCS_CPU_CTLS, get(h, VMCS_CPU_CTLS) | 4);
	assert_int_equal(enter(h, waits), 7);
	assert_true(get_vector(h, IRR, 0x41));
	/* A halted guest wakes. */
	start_delivery(h, 0, 0x41, 0);
	put(h, VMCS_ACTIVITY, 1);
	is_delivered(h, enter(h, waits), 0x41, 0);
	host_close(h);
}

/* A lower TPR lets in what waited: by CR8, by the page, by x2APIC's MSR. */
static void lowered(void **state)
{
	struct host *h = host_open();

	for (unsigned i = 0; i < 3; i++) {
		start_delivery(h, i == 1 ? PAGE : i == 2 ? X2APIC : 0, 0x41, 0);
		put_reg(h, TPR, 0x50);
		h->f->cpu->gpr[RCX] = 0x808;
		is_delivered(h,
			     i == 1   ? write_page(h, TPR, 0)
			     : i == 2 ? enter(h, writes_msr)
				      : enter(h, writes_cr8),
			     0x41, 0);
	}
	host_close(h);
}

static uint32_t write_eoi(struct host *h, bool x2apic)
{
	h->f->cpu->gpr[RCX] = 0x80b;
	return x2apic ? enter(h, writes_msr) : write_page(h, EOI, 0);
}

static void end_of_interrupt(void **state)
{
	struct host *h = host_open();

	for (unsigned i = 0; i < 2; i++) {
		start_delivery(h, i ? X2APIC : PAGE, 0, 0x81);
		put_vector(h, ISR, 0x31);
		assert_int_equal(write_eoi(h, i), VMCALL_EXIT);
		assert_int_equal(get(h, VMCS_INTR_STATUS), 0x3100);
		assert_false(get_vector(h, ISR, 0x81));
		assert_int_equal(get_reg(h, PPR), 0x30);
		assert_int_equal(get_reg(h, EOI), 0);
		/* The exit that the bitmap asks for, all else done. */
		start_delivery(h, i ? X2APIC : PAGE, 0, 0x81);
		put(h, VMCS_EOI_EXIT0 + 0x81 / 64, 1ull << 0x81 % 64);
		assert_int_equal(write_eoi(h, i), VIRTUAL_EOI);
		assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), 0x81);
		assert_int_equal(get(h, VMCS_INTR_STATUS), 0);
		assert_int_equal(get(h, VMCS_RIP),
				 L2_CODE + (i ? LENGTH(writes_msr) : LENGTH(writes)));
		/* Of the others it asks nothing. */
		start_delivery(h, i ? X2APIC : PAGE, 0, 0x81);
		put(h, VMCS_EOI_EXIT0 + 0x81 / 64, ~(1ull << 0x81 % 64));
		assert_int_equal(write_eoi(h, i), VMCALL_EXIT);
		/* What waited behind it comes in. */
		start_delivery(h, i ? X2APIC : PAGE, 0x61, 0x81);
		is_delivered(h, write_eoi(h, i), 0x61, 0);
	}
	host_close(h);
}

/* Fixed, edge, shorthand self, vector 16 and up; everything else is the hypervisor's. */
static void self_ipis(void **state)
{
	static const struct {
		uint32_t icr;
		bool self;
	} some[] = {
		{0x40041, true},  {0x40010, true},  {0x4000f, false}, {0x00041, false},
		{0x80041, false}, {0x48041, false}, {0x40441, false}, {0x41041, false},
		{0x44041, true},  {0x40841, true},  {0x42041, false}, {0x140041, false},
		{0x50041, false},
	};
	struct host *h = host_open();

	for (unsigned i = 0; i < ARRAY_SIZE(some); i++) {
		start_delivery(h, PAGE, 0, 0);
		put(h, VMCS_RFLAGS, 2);
		assert_int_equal(write_page(h, ICR, some[i].icr),
				 some[i].self ? VMCALL_EXIT : APIC_WRITE);
		assert_int_equal(get_reg(h, ICR), some[i].icr);
		assert_int_equal(get(h, VMCS_INTR_STATUS), some[i].self ? some[i].icr & 0xff : 0);
		if (!some[i].self)
			assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), ICR);
	}
	start_delivery(h, PAGE, 0, 0);
	is_delivered(h, write_page(h, ICR, 0x40041), 0x41, 0);
	host_close(h);
}

/* ---- x2APIC mode ---- */

static uint32_t read_msr(struct host *h, uint32_t index)
{
	h->f->cpu->gpr[RCX] = index;
	return enter(h, reads_msr);
}

static uint32_t write_msr(struct host *h, uint32_t index, uint64_t val)
{
	h->f->cpu->gpr[RCX] = index;
	h->f->cpu->gpr[RAX] = (uint32_t)val;
	h->f->cpu->gpr[RDX] = val >> 32;
	return enter(h, writes_msr);
}

static void x2apic_reads(void **state)
{
	struct host *h = host_open();

	start_apic(h, TPR_SHADOW, X2APIC);
	put_reg(h, TPR, 0x42);
	assert_int_equal(read_msr(h, 0x808), VMCALL_EXIT);
	assert_int_equal(h->f->cpu->gpr[RAX], 0x42);
	assert_int_equal(h->f->cpu->gpr[RDX], 0);
	/* All of 800h to 8ffh, and 64 bits of each, with APIC-register virtualization. */
	for (unsigned i = 0x800; i <= 0x8ff; i++) {
		start_apic(h, TPR_SHADOW, X2APIC | REGISTERS);
		flat_poke(h->f, VAPIC + (i & 0xff) * 16, 0x8765432100000000 | i, 8);
		assert_int_equal(read_msr(h, i), VMCALL_EXIT);
		assert_int_equal(h->f->cpu->gpr[RAX], i);
		assert_int_equal(h->f->cpu->gpr[RDX], 0x87654321);
	}
	/* The bitmaps come first. */
	start_apic(h, TPR_SHADOW, X2APIC | REGISTERS);
	h->f->ram[MSR_MAP + 0x808 / 8] = 1;
	assert_int_equal(read_msr(h, 0x808), 31);
	host_close(h);
}

static void x2apic_writes(void **state)
{
	struct host *h = host_open();

	for (unsigned i = 0; i < 2; i++) {
		start_apic(h, TPR_SHADOW, X2APIC | (i ? DELIVERY : 0));
		put(h, VMCS_EXIT_CTLS, EXIT_64 | ACK);
		put(h, VMCS_TPR_THRESHOLD, i ? 0 : 4);
		put_reg(h, TPR, 0xf0);
		assert_int_equal(write_msr(h, 0x808, 0x31), i ? VMCALL_EXIT : TPR_BELOW);
		assert_int_equal(get_reg(h, TPR), 0x31);
		assert_int_equal(get(h, VMCS_RIP), L2_CODE + LENGTH(writes_msr));
	}
	/* Bits that must be 0. */
	for (unsigned i = 0; i < 3; i++) {
		static const struct {
			uint32_t index;
			uint64_t val;
		} bad[] = {{0x808, 0x100}, {0x80b, 1}, {0x83f, 1ull << 32}};

		start_delivery(h, X2APIC, 0, 0x81);
		assert_int_equal(write_msr(h, bad[i].index, bad[i].val), 0);
		assert_int_equal(get(h, VMCS_EXIT_INTR_INFO), INTR_GP);
		assert_int_equal(get(h, VMCS_RIP), L2_CODE);
		assert_int_equal(get(h, VMCS_INTR_STATUS), 0x8100);
	}
	start_delivery(h, X2APIC, 0, 0);
	is_delivered(h, write_msr(h, 0x83f, 0x41), 0x41, 0);
	assert_int_equal(get_reg(h, SELF), 0x41);
	/* An illegal vector. */
	start_delivery(h, X2APIC, 0, 0);
	assert_int_equal(write_msr(h, 0x83f, 0xf), APIC_WRITE);
	assert_int_equal(get(h, VMCS_EXIT_QUALIFICATION), SELF);
	assert_int_equal(get(h, VMCS_RIP), L2_CODE + LENGTH(writes_msr));
	host_close(h);
}

/* ---- posted interrupts ---- */

#define NOTIFICATION 0xf2

static void start_posted(struct host *h)
{
	start_delivery(h, 0, 0, 0);
	put(h, VMCS_PIN_CTLS, PIN_ONES | EXT_INTS | POSTED);
	put(h, VMCS_POSTED_VECTOR, NOTIFICATION);
	put(h, VMCS_PI_DESC_ADDR, DESC);
	memset(h->f->ram + DESC, 0, 64);
	flat_poke(h->f, DESC + 0x41 / 8, 1 << 0x41 % 8, 1);
	flat_poke(h->f, DESC + 0x33 / 8, 1 << 0x33 % 8, 1);
	flat_poke(h->f, DESC + 32, 0x1234567890000003, 8);
}

static void posted(void **state)
{
	struct host *h = host_open();

	start_posted(h);
	pend_interrupt(h->f, NOTIFICATION);
	is_delivered(h, enter(h, waits), 0x41, 0x33);
	assert_true(get_vector(h, IRR, 0x33));
	assert_int_equal(flat_peek(h->f, DESC + 0x41 / 8, 1), 0);
	assert_int_equal(flat_peek(h->f, DESC + 0x33 / 8, 1), 0);
	/* ON goes, SN and what is software's stay. */
	assert_int_equal(flat_peek(h->f, DESC + 32, 8), 0x1234567890000002);
	/* Any other vector is an exit, and leaves the descriptor alone. */
	start_posted(h);
	pend_interrupt(h->f, NOTIFICATION - 1);
	assert_int_equal(enter(h, waits), 1);
	assert_int_equal(get(h, VMCS_EXIT_INTR_INFO), 0x80000000 | (NOTIFICATION - 1));
	assert_int_equal(flat_peek(h->f, DESC + 32, 8), 0x1234567890000003);
	/* The same vector without the control. */
	start_posted(h);
	put(h, VMCS_PIN_CTLS, PIN_ONES | EXT_INTS);
	pend_interrupt(h->f, NOTIFICATION);
	assert_int_equal(enter(h, waits), 1);
	/* It wakes who sleeps, but does not end a sleep that it brings nothing for. */
	start_posted(h);
	put(h, VMCS_ACTIVITY, 1);
	pend_interrupt(h->f, NOTIFICATION);
	is_delivered(h, enter(h, waits), 0x41, 0x33);
	start_posted(h);
	put(h, VMCS_CPU_CTLS, CPU_ONES | CPU2_ON | TPR_SHADOW);
	put_reg(h, TPR, 0xf0);
	flat_write(h->f, L2_CODE, sleeps, sleeps_end - sleeps);
	pend_interrupt(h->f, NOTIFICATION);
	assert_int_equal(flat_run(h->f, 1000), CPU_EXIT_HLT);
	assert_true(h->f->cpu->virt->guest);
	assert_int_equal(h->f->cpu->activity, ACTIVITY_HLT);
	assert_true(get_vector(h, IRR, 0x41));
	host_close(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cr8),
		cmocka_unit_test(threshold),
		cmocka_unit_test(page_registers),
		cmocka_unit_test(page_alone),
		cmocka_unit_test(delivery),
		cmocka_unit_test(lowered),
		cmocka_unit_test(end_of_interrupt),
		cmocka_unit_test(self_ipis),
		cmocka_unit_test(x2apic_reads),
		cmocka_unit_test(x2apic_writes),
		cmocka_unit_test(posted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
