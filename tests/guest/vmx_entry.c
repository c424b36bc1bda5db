/* SPDX-License-Identifier: MIT */
/*
 * Each check of VM entry by VMLAUNCH itself, over the cases of vmx_cases.h: what fails a check of the controls or of the host
 * state is VMfailValid with its error and the next instruction; of the guest state, an exit with its reason and
 * qualification (SDM, VM entries). What fails none enters, whatever the guest then comes to.
 */
#include "vmx_cases.h"
#include "vmx_host.h"

#define ERROR_CONTROLS 7
#define ERROR_HOST     8
#define EXIT_INVALID   0x80000021u
#define NO_EXIT	       0xffffu

/* The hypervisor's own state, where no check looks. */
static void put_unchecked(struct host *h)
{
	const struct cpu *cpu = h->f->cpu;

	put(h, VMCS_HOST_CR3, cpu->cr3);
	put(h, VMCS_HOST_TR_BASE, cpu->seg[SEG_TR].base);
	put(h, VMCS_HOST_GDTR_BASE, cpu->gdtr.base);
	put(h, VMCS_HOST_IDTR_BASE, cpu->idtr.base);
	put(h, VMCS_HOST_RSP, FLAT_STACK);
	put(h, VMCS_HOST_RIP, HOST_RIP);
	put(h, VMCS_EXIT_REASON, NO_EXIT);
}

/* With a VMCS that enters, of the cases' own numbers. */
static void start_case(struct host *h)
{
	start_empty(h);
	for (unsigned i = 0; i < ARRAY_SIZE(enters); i++)
		put(h, enters[i].f, enters[i].val);
	put_unchecked(h);
	flat_poke(h->f, PAGE_A + 0x80, 0x3f, 4); /* VTPR */
	flat_poke(h->f, PAGE_A + 0x1000, VMX_REVISION, 4);
}

static void put_case(struct host *h, const struct one *c)
{
	start_case(h);
	for (unsigned k = 0; k < ARRAY_SIZE(c->set); k++)
		if (c->set[k].f || c->set[k].val || !k)
			put(h, c->set[k].f, c->set[k].val);
}

/* ---- what is to come of it ---- */

static bool is_host(const char *row)
{
	return !strncmp(row, "host", 4);
}

/* The cases stand in the SDM's order: controls, host state, guest state. 0: an exit. */
static uint32_t error_of(unsigned nr)
{
	unsigned first = 0, last = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		if (!is_host(cases[i].row))
			continue;
		first = first ? first : i;
		last = i;
	}
	if (nr > last)
		return 0;
	return nr < first ? ERROR_CONTROLS : ERROR_HOST;
}

static uint64_t qualification_of(const char *row)
{
	static const char *const told[] = {
		[2] = "pdptes", [3] = "blocked_nmi_sti", [4] = "link_pointer"};

	for (unsigned i = 2; i < ARRAY_SIZE(told); i++)
		if (!strcmp(row, told[i]))
			return i;
	return 0;
}

static void check_failed(struct host *h, const char *row, uint32_t error)
{
	const struct cpu *cpu = h->f->cpu;

	if (h->vmx.vmcs[VMCS_INSN_ERROR] != error || h->vmx.vmcs[VMCS_EXIT_REASON] != NO_EXIT ||
	    cpu->rip != FLAT_CODE + (uint64_t)(launch_end - launch) ||
	    (cpu_rflags(cpu) & 0x8d5) != FLAG_ZF)
		fail_msg("%s: error %lu, reason %lx, rip %lx", row, h->vmx.vmcs[VMCS_INSN_ERROR],
			 h->vmx.vmcs[VMCS_EXIT_REASON], cpu->rip);
}

static void check_exited(struct host *h, const char *row)
{
	if (h->vmx.vmcs[VMCS_EXIT_REASON] != EXIT_INVALID || h->f->cpu->rip != HOST_RIP + 1 ||
	    h->vmx.vmcs[VMCS_EXIT_QUALIFICATION] != qualification_of(row) || h->vmx.launched)
		fail_msg("%s: reason %lx, qualification %lx, rip %lx", row,
			 h->vmx.vmcs[VMCS_EXIT_REASON], h->vmx.vmcs[VMCS_EXIT_QUALIFICATION],
			 h->f->cpu->rip);
}

static void check_refused(struct host *h, unsigned nr)
{
	uint32_t error = error_of(nr);

	if (error)
		check_failed(h, cases[nr].row, error);
	else
		check_exited(h, cases[nr].row);
	assert_false(cpu_guest(h->f->cpu));
}

/* It runs, or it had its exit: for what the guest met, or for its MSRs. */
static void check_entered(struct host *h, unsigned nr)
{
	uint64_t reason = h->vmx.vmcs[VMCS_EXIT_REASON];

	if (h->vmx.vmcs[VMCS_INSN_ERROR] || reason == EXIT_INVALID ||
	    (reason == NO_EXIT && !cpu_guest(h->f->cpu)))
		fail_msg("case %u, %s: error %lu, reason %lx", nr, cases[nr].row,
			 h->vmx.vmcs[VMCS_INSN_ERROR], reason);
}

static void entries(void **state)
{
	struct host *h = host_open();
	unsigned refused = 0, entered = 0;

	h->f->cpu->maxphyaddr = WIDTH;
	h->f->cpu->cr4_reserved = ~0x377fffull;
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		bool enters_at_all;

		put_case(h, &cases[i]);
		/* Some of the good meet another check. */
		enters_at_all = !vmx_check_name(h->f->cpu);
		flat_run(h->f, 200);
		if (cases[i].bad)
			check_refused(h, i);
		else if (enters_at_all)
			check_entered(h, i);
		refused += cases[i].bad;
		entered += enters_at_all;
	}
	print_message("vmx_entry: %u cases refused, %u entered\n", refused, entered);
	host_close(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(entries)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
