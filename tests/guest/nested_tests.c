/* SPDX-License-Identifier: MIT */
/*
 * Each bit that any model announces to guest hypervisors has a row in nested_tests.tsv, whose function is in that file: what is
 * offered and never tried is found here.
 */
#include "silicon/models/features.h"
#include "silicon/models/model.h"
#include "silicon/vmx/vmx.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const char *table, *tests; /* the file, and the folder that its rows are in */

static const struct {
	const char *word;
	enum vmx_msr msr;
	bool control;	/* its upper half counts */
	uint64_t given; /* bits that are no offers: must be 1, numbers */
} words[] = {
	{"pin", VMX_TRUE_PIN, true, 0x16},
	{"cpu", VMX_TRUE_CPU, true, 0x04006172},
	{"cpu2", VMX_CPU2, true, 0},
	{"exit", VMX_TRUE_EXIT, true, 0x36dfb & ~0x200ull},
	{"entry", VMX_TRUE_ENTRY, true, 0x11fb},
	{"ept_vpid", VMX_EPT_VPID, false, 0},
	{"misc", VMX_MISC, false, 0x1ff001f},
	{"basic", VMX_BASIC, false, 0x3dffffffffffff},
	{"vmfunc", VMX_VMFUNC, false, 0},
};

/* ---- the table ---- */

/* The row of a bit: its file and its function. */
static bool find_row(const char *word, unsigned bit, char *ret_file, char *ret_function)
{
	char line[512], in[16], what[128];
	FILE *rows = fopen(table, "r");
	unsigned nr;
	bool found = false;

	assert_non_null(rows);
	while (!found && fgets(line, sizeof(line), rows))
		found = sscanf(line, "%15[^\t#]\t%u\t%127[^\t]\t%127[^\t]\t%127[^\t\n]", in, &nr,
			       what, ret_file, ret_function) == 5 &&
			!strcmp(in, word) && nr == bit;
	fclose(rows);
	return found;
}

static bool has_function(const char *name, const char *function)
{
	char path[512], line[512], wanted[160];
	FILE *file;
	bool found = false;

	snprintf(path, sizeof(path), "%s/%s", tests, name);
	snprintf(wanted, sizeof(wanted), "static void %s(", function);
	file = fopen(path, "r");
	while (file && !found && fgets(line, sizeof(line), file))
		found = !strncmp(line, wanted, strlen(wanted));
	if (file)
		fclose(file);
	return found;
}

static void check_bits(const struct cpu_model *m, const char *word, uint64_t bits)
{
	char file[128], function[128];

	for (unsigned bit = 0; bit < 64; bit++) {
		if (!(bits >> bit & 1))
			continue;
		if (!find_row(word, bit, file, function))
			fail_msg("%s: %s, bit %u, has no test", m->name, word, bit);
		if (!has_function(file, function))
			fail_msg("%s, bit %u: no %s in %s", word, bit, function, file);
	}
}

/* ---- the models ---- */

static void intel(const struct cpu_model *m)
{
	static const struct vmx_options all = {true, true, true, true, true,
					       true, true, true, true};
	struct vmx_caps caps;

	vmx_caps_default(m, &all, &caps);
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
		uint64_t val = caps.msr[words[i].msr];

		check_bits(m, words[i].word,
			   (words[i].control ? val >> 32 : val) & ~words[i].given);
	}
}

static void amd(const struct cpu_model *m)
{
	const struct cpuid_row *row = model_cpuid(m, 0x8000000a, 0);
	uint64_t avic = 1 << 13;

	if (row)
		check_bits(m, "svm", row->reg[CPUID_EDX] | avic);
}

static void each_bit(void **state)
{
	const struct cpu_model *m;
	unsigned nr = 0;

	for (; (m = model_nth(nr)); nr++) {
		if (!model_intel(m))
			amd(m);
		else if (feature_has(m->features, FEAT_VMX))
			intel(m);
	}
	assert_true(nr > 10);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest all[] = {cmocka_unit_test(each_bit)};

	table = argv[1];
	tests = argv[2];
	return cmocka_run_group_tests(all, NULL, NULL);
}
