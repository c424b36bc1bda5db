/* SPDX-License-Identifier: MIT */
/* Loaded by run_cpu.c when it runs already. */
__attribute__((visibility("default"))) unsigned module_vendor(void);

unsigned module_vendor(void)
{
	unsigned a = 0, b, c, d;

	asm volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
	return b;
}
