/* SPDX-License-Identifier: MIT */
/* Loaded by run_cpu.c when it runs already. */
#include <cpuid.h>

__attribute__((visibility("default"))) unsigned module_vendor(void);

unsigned module_vendor(void)
{
	unsigned a, b, c, d;

	__cpuid(0, a, b, c, d);
	return b;
}
