/* SPDX-License-Identifier: MIT */
/*
 * KVM_RUN on a thread with little stack, as with KVM, which has the kernel's: all calls of the first run (decoding,
 * thunks, faults, exits) must do with LIMIT bytes. Prints what they took.
 */
#include "api_test.h"

#include <pthread.h>

#define STACK (256 * 1024)
#ifdef __SANITIZE_ADDRESS__
#define LIMIT (128 * 1024)
#else
#define LIMIT (16 * 1024)
#endif
#define PAINT 0xa5

/* Decoded, borrowed, emulated, faulting; string, x87, vector; port and MMIO exits. */
static const uint8_t code[] = {
	0x0f, 0x6f, 0x06, 0x00, 0x20,	    /* movq mm0, [0x2000] */
	0xd9, 0x06, 0x00, 0x20,		    /* flds [0x2000] */
	0xf3, 0xaa,			    /* rep stosb */
	0x66, 0x0f, 0xa2,		    /* cpuid */
	0xf0, 0x66, 0xff, 0x06, 0xfe, 0x2f, /* lock inc dword [0x2ffe] */
	0xcd, 0x20,			    /* int 0x20 */
	0x0f, 0x0b,			    /* ud2: to the same handler */
	0xf4,				    /* hlt */
};

static void *run(void *opaque)
{
	struct machine *m = opaque;

	for (;;) {
		CHECK_EQ(ioctl(m->vcpu, KVM_RUN, 0), 0);
		if (m->run->exit_reason == KVM_EXIT_HLT)
			return NULL;
		CHECK_EQ(m->run->exit_reason, KVM_EXIT_IO);
	}
}

static size_t used(const uint8_t *stack)
{
	size_t i = 0;

	while (i < STACK && stack[i] == PAINT)
		i++;
	return STACK - i;
}

int main(void)
{
	struct machine m = machine_open();
	struct kvm_sregs sregs;
	pthread_attr_t attr;
	pthread_t thread;
	uint8_t *stack;

	/* int 0x20: out 0x80, al; iret. #UD: hlt. */
	memcpy(m.ram + 4 * 0x20, "\x00\x05\x00\x00", 4);
	memcpy(m.ram + 4 * 6, "\x10\x05\x00\x00", 4);
	memcpy(m.ram + 0x500, "\xe6\x80\xcf", 3);
	m.ram[0x510] = 0xf4;
	machine_code(&m, code, sizeof(code));
	CHECK_EQ(ioctl(m.vcpu, KVM_GET_SREGS, &sregs), 0);
	sregs.cr0 &= ~0x60000000ull;
	sregs.cr4 |= 0x600;
	CHECK_EQ(ioctl(m.vcpu, KVM_SET_SREGS, &sregs), 0);

	stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(stack, PAINT, STACK);
	CHECK_EQ(pthread_attr_init(&attr), 0);
	CHECK_EQ(pthread_attr_setstack(&attr, stack, STACK), 0);
	CHECK_EQ(pthread_create(&thread, &attr, run, &m), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	printf("%zu bytes of stack\n", used(stack));
	CHECK(used(stack) <= LIMIT);
	return 0;
}
