/* SPDX-License-Identifier: MIT */
/*
 * Checks of VM entry against a second list (vmx_cases.h): each row refuses what it is to refuse, and nothing else. What
 * becomes of the instruction, tests/guest/vmx_entry.c sees.
 */
#include "flat.h"
#include "vmx_cases.h"
#include "silicon/vmx/vmx.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

/* Rows that need more than a few fields. */
static const char *const apart[] = {"v86_base",	      "v86_limit",    "v86_ar",
				    "rflags_vm",      "host_ss_null", "host_size_legacy",
				    "host32_guest64", "host32_pcide", "host32_rip",
				    "entry_smm",      "form_fields"};

struct bench {
	struct flat *f;
	struct vmx vmx;
};

static void put(struct bench *b, enum vmcs_field f, uint64_t val)
{
	b->vmx.vmcs[f] = val;
}

static void set_up(struct bench *b)
{
	static const struct vmx_options all = {true, true, true, true, true,
					       true, true, true, true};
	uint32_t revision = VMX_REVISION;
	struct vmx_caps caps;

	b->f = flat_new(FLAT_RAM);
	flat_long(b->f);
	b->f->cpu->maxphyaddr = WIDTH;
	b->f->cpu->cr4_reserved = ~0x377fffull;
	vmx_caps_default(NULL, &all, &caps);
	memset(&b->vmx, 0, sizeof(b->vmx));
	vmx_init(b->f->cpu, &b->vmx, &caps);
	b->vmx.on = true;
	b->vmx.current = 0x3000;
	for (unsigned i = 0; i < ARRAY_SIZE(enters); i++)
		put(b, enters[i].f, enters[i].val);
	flat_poke(b->f, PAGE_A + 0x80, 0x3f, 4); /* VTPR */
	flat_poke(b->f, PAGE_A + 0x1000, revision, 4);
}

static void tear_down(struct bench *b)
{
	b->f->cpu->virt = NULL;
	flat_free(b->f);
}

static bool is(const char *name, const char *row)
{
	return name && !strcmp(name, row);
}

static void test_enters(void **state)
{
	static struct bench b;

	set_up(&b);
	assert_null(vmx_check_name(b.f->cpu));
	tear_down(&b);
}

static void test_cases(void **state)
{
	static struct bench b;

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct one *c = &cases[i];
		const char *name;

		set_up(&b);
		for (unsigned k = 0; k < ARRAY_SIZE(c->set); k++)
			if (c->set[k].f || c->set[k].val || !k)
				put(&b, c->set[k].f, c->set[k].val);
		name = vmx_check_name(b.f->cpu);
		if (is(name, c->row) != c->bad)
			fail_msg("case %u, %s: %s, refused by %s", i, c->row,
				 c->bad ? "bad" : "good", name ? name : "nothing");
		tear_down(&b);
	}
}

/* ---- those apart ---- */

static void v86(struct bench *b)
{
	set_up(b);
	put(b, VMCS_ENTRY_CTLS, 0x11fb);
	put(b, VMCS_RFLAGS, 0x23002);
	for (unsigned s = SEG_ES; s <= SEG_GS; s++) {
		put(b, VMCS_ES_SEL + s, 0x100);
		put(b, VMCS_ES_BASE + s, 0x1000);
		put(b, VMCS_ES_LIMIT + s, 0xffff);
		put(b, VMCS_ES_AR + s, 0xf3);
	}
}

/* It enters as start made it, but not with this field. */
static void one_field(void (*start)(struct bench *b), enum vmcs_field f, uint64_t val,
		      const char *row)
{
	static struct bench b;

	start(&b);
	assert_null(vmx_check_name(b.f->cpu));
	put(&b, f, val);
	assert_string_equal(vmx_check_name(b.f->cpu), row);
	tear_down(&b);
}

static void test_v86(void **state)
{
	one_field(v86, VMCS_DS_BASE, 0x1010, "v86_base");
	one_field(v86, VMCS_SS_LIMIT, 0xfffff, "v86_limit");
	one_field(v86, VMCS_CS_AR, 0x9b, "v86_ar");
}

static void test_v86_in_long_mode(void **state)
{
	one_field(v86, VMCS_ENTRY_CTLS, ENTRY, "rflags_vm");
}

/* A 32-bit hypervisor. */
static void host32(struct bench *b)
{
	set_up(b);
	b->f->cpu->mode.lma = false;
	put(b, VMCS_EXIT_CTLS, EXIT & ~0x200ull);
	put(b, VMCS_ENTRY_CTLS, 0x11fb);
	put(b, VMCS_CS_AR, 0xc09b);
}

static void test_host32(void **state)
{
	one_field(host32, VMCS_HOST_SS_SEL, 0, "host_ss_null");
	one_field(host32, VMCS_EXIT_CTLS, EXIT, "host_size_legacy");
	one_field(host32, VMCS_HOST_CR4, 0x22020, "host32_pcide");
	one_field(host32, VMCS_HOST_RIP, 1ull << 32, "host32_rip");
}

/* From long mode the host must be 64-bit, and from 32-bit mode the guest may not be: two rows stand before. */
static void test_order(void **state)
{
	one_field(host32, VMCS_ENTRY_CTLS, ENTRY, "host_size_legacy");
}

/* Entry to SMM is no control that may be 1 outside of the dual-monitor treatment. */
static void test_entry_smm(void **state)
{
	one_field(set_up, VMCS_ENTRY_CTLS, ENTRY | 0x400, "entry_reserved");
}

/* Where a second form of the VMCS is offered that has fields for EPT and for HLT exits. */
static void with_form(struct bench *b)
{
	static const struct vmcs_limit limits[] = {
		{VMCS_PIN_CTLS, VMX_PIN, VMX_TRUE_PIN, PIN},
		{VMCS_CPU_CTLS, VMX_CPU, VMX_TRUE_CPU, CPU | 0x80},
		{VMCS_CPU2_CTLS, VMX_CPU2, VMX_CPU2, 2},
		{VMCS_VMFUNC_CTLS, VMX_VMFUNC, VMX_VMFUNC, 0},
	};
	static const struct vmcs_form form = {.limits = limits, .nr_limits = ARRAY_SIZE(limits)};

	set_up(b);
	vmx_form_offer(b->f->cpu, &form);
	put(b, VMCS_CPU_CTLS, CPU | 0x80);
}

static void test_form(void **state)
{
	one_field(with_form, VMCS_PIN_CTLS, PIN | 1, "form_fields");
	one_field(with_form, VMCS_CPU_CTLS, CPU | 0x200, "form_fields");
	one_field(with_form, VMCS_CPU2_CTLS, 0x4002, "form_fields");
	one_field(with_form, VMCS_VMFUNC_CTLS, 1, "form_fields");
}

static bool listed(const char *row, bool bad)
{
	for (unsigned i = 0; i < ARRAY_SIZE(apart); i++)
		if (is(row, apart[i]))
			return true;
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
		if (is(row, cases[i].row) && cases[i].bad == bad)
			return true;
	return false;
}

static void test_every_row_has_both(void **state)
{
	for (unsigned n = 0; vmx_check_nth(n); n++) {
		if (!listed(vmx_check_nth(n), true))
			fail_msg("no case that %s refuses", vmx_check_nth(n));
		if (!listed(vmx_check_nth(n), false))
			fail_msg("no case that %s lets pass", vmx_check_nth(n));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_enters),
		cmocka_unit_test(test_cases),
		cmocka_unit_test(test_v86),
		cmocka_unit_test(test_v86_in_long_mode),
		cmocka_unit_test(test_host32),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_entry_smm),
		cmocka_unit_test(test_form),
		cmocka_unit_test(test_every_row_has_both),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
