/* SPDX-License-Identifier: MIT */
/*
 * Hyper-V's direct flush (TLFS, nested virtualization) on an AMD processor: TLB flush hypercalls of a guest's guest that KVM
 * answers itself, where three places say so, the synthetic exit behind them, and the vCPUs that they reach. The guest's guests are
 * 32-bit code with paging, put into guest mode by their nested state; offsets in the VMCB are the APM's numbers.
 */
#include "nested_state.h"
#include "pv.h"

#include <pthread.h>

#define MSR_OS_ID  0x40000000
#define MSR_ASSIST 0x40000073

#define VMCB	 0x3000u
#define IOPM	 0x4000u
#define DIR	 0x7000u
#define TABLE	 0x8000u
#define ASSIST	 0x9000u /* one page for each vCPU */
#define LOCKS	 0xb000u
#define HOST_RIP 0xb800u
#define OLD	 0xd000u
#define NEW	 0xe000u
#define WINDOW	 0xf000u /* linear: OLD, then NEW */
#define STACK	 0xc000u
#define CODE_B	 0x1800u
#define NOTHING	 0x40000000ull
#define SVME	 (1ull << 12)

#define EXIT_VMMCALL 0x81
#define EXIT_ENL     0xf0000000

#define CODE(name, text)                                                                     \
	asm(".pushsection .rodata\n.code32\n" #name ":\n" text "\n" #name "_end:\n.code64\n" \
	    ".popsection\n");                                                                \
	extern const uint8_t name[], name##_end[]

/* Map the window anew, then HvFlushVirtualAddressSpace, fast, of all processors. */
CODE(flush, "movl $0xe003, 0x803c\n mov $0x10002, %eax\n xor %edx, %edx\n xor %ebx, %ebx\n"
	    "xor %ecx, %ecx\n xor %edi, %edi\n mov $1, %esi\n vmmcall\n out %eax, $0x80");
/* The same call with its input in memory. */
CODE(slow, "mov $2, %eax\n xor %edx, %edx\n xor %ebx, %ebx\n mov $0xc800, %ecx\n"
	   "xor %edi, %edi\n xor %esi, %esi\n vmmcall\n out %eax, $0x80");
/* One that is no flush: HvNotifyLongSpinWait. */
CODE(spin, "mov $0x10008, %eax\n xor %edx, %edx\n xor %ebx, %ebx\n xor %ecx, %ecx\n vmmcall\n"
	   "out %eax, $0x80");
CODE(look, "1: mov 0xf000, %eax\n cmp $1, %eax\n je 1b\n out %eax, $0x80");
CODE(host, "out %eax, $0x81");

static void put32(const struct machine *m, uint32_t at, uint32_t val)
{
	memcpy(m->ram + at, &val, sizeof(val));
}

static void put(struct nested_state *s, unsigned at, uint64_t val, unsigned size)
{
	memcpy(s->data + at, &val, size);
}

/* Hypervisors and their guests share the tables, of 64 KiB. */
static void tables(const struct machine *m)
{
	put32(m, DIR, TABLE | 3);
	for (uint32_t i = 0; i < 16; i++)
		put32(m, TABLE + 4 * i, i << 12 | 3);
	put32(m, TABLE + 4 * (WINDOW >> 12), OLD | 3);
	put32(m, OLD, 1);
	put32(m, NEW, 2);
	memcpy(m->ram + HOST_RIP, host, host_end - host);
}

static void registers(int vcpu, uint32_t rip)
{
	struct kvm_segment data = {
		.limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_regs regs = {.rip = rip, .rsp = STACK, .rflags = 2};
	struct kvm_sregs s;

	CHECK_EQ(ioctl(vcpu, KVM_GET_SREGS, &s), 0);
	s.ds = s.es = s.ss = s.cs = data;
	s.cs.type = 11;
	s.cs.selector = 8;
	s.cr0 = 0x80000011;
	s.cr3 = DIR;
	s.efer = SVME;
	CHECK_EQ(ioctl(vcpu, KVM_SET_SREGS, &s), 0);
	CHECK_EQ(ioctl(vcpu, KVM_SET_REGS, &regs), 0);
}

/* Of a VMCB what software owns of it, and the host's state, which is the guest's but for RIP. */
static struct nested_state nested(uint32_t control, uint64_t vm_id, uint32_t vp_id,
				  uint64_t partition)
{
	struct nested_state s = {.head.size = NESTED_HEAD + 4096, .head.format = 1};

	s.head.flags = KVM_STATE_NESTED_GUEST_MODE | KVM_STATE_NESTED_GIF_SET;
	s.head.hdr.svm.vmcb_pa = VMCB;
	put(&s, 0x10, 3, 4); /* VMRUN, VMMCALL */
	put(&s, 0x40, IOPM, 8);
	put(&s, 0x58, 1, 4);
	put(&s, 0x3e0, control, 4);
	put(&s, 0x3e4, vp_id, 4);
	put(&s, 0x3e8, vm_id, 8);
	put(&s, 0x3f0, partition, 8);
	for (unsigned seg = 0; seg < 4; seg++) {
		put(&s, 0x400 + 16 * seg, seg == 1 ? 8 : 16, 2);
		put(&s, 0x402 + 16 * seg, seg == 1 ? 0xc9b : 0xc93, 2);
		put(&s, 0x404 + 16 * seg, ~0u, 4);
	}
	put(&s, 0x4d0, SVME, 8);
	put(&s, 0x550, DIR, 8);
	put(&s, 0x558, 0x80000011, 8);
	put(&s, 0x560, 0x400, 8);
	put(&s, 0x568, 0xffff0ff0, 8);
	put(&s, 0x570, 2, 8);
	put(&s, 0x578, HOST_RIP, 8);
	put(&s, 0x5d8, STACK, 8);
	return s;
}

static void prepare(const struct machine *m, int vcpu, unsigned nr, uint32_t rip,
		    struct nested_state s)
{
	set_hyperv_cpuid(m->kvm, vcpu);
	registers(vcpu, rip);
	CHECK_EQ(msr_set(vcpu, MSR_OS_ID, 1), 1);
	CHECK_EQ(msr_set(vcpu, MSR_ASSIST, (ASSIST + nr * 0x1000) | 1), 1);
	put32(m, ASSIST + nr * 0x1000 + 32, 1);
	CHECK_EQ(ioctl(vcpu, KVM_SET_NESTED_STATE, &s), 0);
}

static struct machine open_with(const uint8_t *code, const uint8_t *end, struct nested_state s)
{
	struct machine m = machine_irqchip();

	MACHINE_CODE(&m, 0xf4);
	tables(&m);
	memcpy(m.ram + CODE_GPA, code, end - code);
	prepare(&m, m.vcpu, 0, CODE_GPA, s);
	return m;
}

#define OPEN(code, s) open_with(code, code##_end, s)

/* The guest's guest goes on behind its call, with this status. */
static void answered(const struct machine *m, uint32_t status)
{
	uint32_t val;

	RUN_TO(m, KVM_EXIT_IO);
	CHECK_EQ(m->run->io.port, 0x80);
	memcpy(&val, (uint8_t *)m->run + m->run->io.data_offset, sizeof(val));
	CHECK_EQ(val, status);
}

/* The hypervisor gets an exit. */
static void left(const struct machine *m, uint64_t code, uint64_t info)
{
	RUN_TO(m, KVM_EXIT_IO);
	CHECK_EQ(m->run->io.port, 0x81);
	CHECK(!memcmp(m->ram + VMCB + 0x70, &code, 8));
	CHECK(!memcmp(m->ram + VMCB + 0x78, &info, 8));
}

static void test_answers(void)
{
	struct machine m = OPEN(flush, nested(1, 1, 1, LOCKS));

	answered(&m, 0);
	m = OPEN(slow, nested(1, 1, 1, LOCKS));
	answered(&m, 0);
	/* A lock is held: the hypervisor hears of it, behind the call and its result. */
	m = OPEN(flush, nested(1, 1, 1, LOCKS));
	put32(&m, LOCKS, 1);
	left(&m, EXIT_ENL, 1);
	CHECK_EQ(*(uint64_t *)(m.ram + VMCB + 0x578), CODE_GPA + (flush_end - flush) - 2);
	CHECK_EQ(*(uint64_t *)(m.ram + VMCB + 0x5f8), 0);
	/* There is no such page. */
	m = OPEN(flush, nested(1, 1, 1, NOTHING));
	answered(&m, 3);
}

/* The hypervisor's, unless the call is a flush, and VMCB and assist page say that it goes past it. */
static void test_not_taken(void)
{
	struct machine m = OPEN(spin, nested(1, 1, 1, LOCKS));

	left(&m, EXIT_VMMCALL, 0);
	m = OPEN(flush, nested(0, 1, 1, LOCKS));
	left(&m, EXIT_VMMCALL, 0);
	m = OPEN(flush, nested(1, 1, 1, LOCKS));
	put32(&m, ASSIST + 32, 0);
	registers(m.vcpu, CODE_GPA);
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_NESTED_STATE,
		       &(struct nested_state[]){nested(1, 1, 1, LOCKS)}),
		 0);
	left(&m, EXIT_VMMCALL, 0);
}

/* ---- two of them ---- */

struct other {
	int vcpu;
	struct kvm_run *run;
	uint32_t seen;
};

static void *run_other(void *arg)
{
	struct other *o = arg;

	CHECK_EQ(ioctl(o->vcpu, KVM_RUN, 0), 0);
	CHECK_EQ(o->run->exit_reason, KVM_EXIT_IO);
	memcpy(&o->seen, (uint8_t *)o->run + o->run->io.data_offset, sizeof(o->seen));
	return NULL;
}

/* The same machine of the hypervisor's: what one maps anew the other sees, which never stops to look. */
static void test_other(void)
{
	struct machine m = OPEN(flush, nested(1, 7, 1, LOCKS));
	struct other o = {.vcpu = ioctl(m.vm, KVM_CREATE_VCPU, 1)};
	struct kvm_mp_state runs = {.mp_state = KVM_MP_STATE_RUNNABLE};
	pthread_t thread;

	CHECK(o.vcpu >= 0);
	o.run = map_run(m.kvm, o.vcpu);
	memcpy(m.ram + CODE_B, look, look_end - look);
	CHECK_EQ(ioctl(o.vcpu, KVM_SET_MP_STATE, &runs), 0);
	prepare(&m, o.vcpu, 1, CODE_B, nested(1, 7, 2, LOCKS));
	CHECK_EQ(pthread_create(&thread, NULL, run_other, &o), 0);
	usleep(50000);
	answered(&m, 0);
	pthread_join(thread, NULL);
	CHECK_EQ(o.seen, 2);
}

int main(void)
{
	test_answers();
	test_not_taken();
	test_other();
	return 0;
}
