/* SPDX-License-Identifier: MIT */
/* A store that goes through a buffer fails: no register may have changed. */
#include "../clients/tiny.h"

/* Over two pages, the second of which the program takes away: instructions that change a register, too. */
static const struct {
	const char *what;
	uint8_t code[8];
	unsigned size;
} insns[] = {
	{"xadd [0x2fff], ax", {0x0f, 0xc1, 0x06, 0xff, 0x2f, 0xf4}, 6},
	{"xchg [0x2fff], ax", {0x87, 0x06, 0xff, 0x2f, 0xf4}, 5},
	{"add [0x2fff], ax", {0x01, 0x06, 0xff, 0x2f, 0xf4}, 5},
	{"fstp dword [0x2ffe]", {0xd9, 0x1e, 0xfe, 0x2f, 0xf4}, 5},
};

static void state_of(struct tiny *t, struct kvm_regs *regs, struct kvm_fpu *fpu)
{
	assert_int_equal(ioctl(t->vcpu, KVM_GET_REGS, regs), 0);
	assert_int_equal(ioctl(t->vcpu, KVM_GET_FPU, fpu), 0);
}

static void refused(unsigned i)
{
	struct kvm_regs before = {.rip = TINY_BASE, .rflags = 2, .rax = 0xfffe, .rsp = 0x2000},
			after;
	struct kvm_fpu fpu = {.fcw = 0x37f, .mxcsr = 0x1f80, .ftwx = 0x80, .fsw = 7 << 11},
		       fpu_after;
	uint8_t *last;
	struct tiny t;

	tiny_create(&t, insns[i].code, insns[i].size);
	last = t.mem + 0x3000 - TINY_BASE;
	last[-1] = 0x7f;
	assert_int_equal(ioctl(t.vcpu, KVM_SET_REGS, &before), 0);
	assert_int_equal(ioctl(t.vcpu, KVM_SET_FPU, &fpu), 0);
	state_of(&t, &before, &fpu);
	mprotect(last, 4096, PROT_READ);
	assert_int_equal(ioctl(t.vcpu, KVM_RUN, 0), -1);
	assert_int_equal(errno, EFAULT);
	state_of(&t, &after, &fpu_after);
	assert_memory_equal(&after, &before, sizeof(after));
	assert_memory_equal(&fpu_after, &fpu, sizeof(fpu));
	assert_int_equal(last[-1], 0x7f);
	mprotect(last, 4096, PROT_READ | PROT_WRITE);
	assert_int_equal(ioctl(t.vcpu, KVM_RUN, 0), 0);
	assert_int_equal(t.run->exit_reason, KVM_EXIT_HLT);
	tiny_destroy(&t);
}

static void all(void **state)
{
	for (unsigned i = 0; i < sizeof(insns) / sizeof(insns[0]); i++)
		refused(i);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(all)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
