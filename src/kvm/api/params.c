/* SPDX-License-Identifier: MIT */
/*
 * The parameters of the KVM modules: the rows of tables/params.def and the values that they have in this process, set
 * once at start.
 */
#include "kvm/api/api_internal.h"
#include "silicon/cpu/behaviour.h"
#include "silicon/models/model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { BOOL, INT };
enum set { FIXED, FREE, KEPT };

enum param {
#define PARAM(module, name, kind, value, set, summary) PARAM_##module##_##name,
#include "params.def"
#undef PARAM
	NR_PARAMS,
};

static const struct row {
	const char *module, *name, *summary;
	enum kind kind;
	long value;
	enum set set;
} rows[NR_PARAMS] = {
#define PARAM(module, name, kind, value, set, summary) {#module, #name, summary, kind, value, set},
#include "params.def"
#undef PARAM
};

static long values[NR_PARAMS] = {
#define PARAM(module, name, kind, value, set, summary) value,
#include "params.def"
#undef PARAM
};

/* "MODULE.NAME", the NAME of a length. */
static const struct row *row_find(const char *text)
{
	for (unsigned i = 0; i < NR_PARAMS; i++) {
		size_t len = strlen(rows[i].module);

		if (!strncmp(text, rows[i].module, len) && text[len] == '.' &&
		    !strcmp(text + len + 1, rows[i].name))
			return &rows[i];
	}
	return NULL;
}

/* As the kernel reads a parameter: Y y 1, N n 0; or a number. */
static bool value_parse(const struct row *row, const char *text, long *ret)
{
	char *end;

	if (row->kind == BOOL) {
		if (!*text || text[1] || !strchr("YyNn10", *text))
			return false;
		*ret = strchr("Yy1", *text) != NULL;
		return true;
	}
	errno = 0;
	*ret = strtol(text, &end, 0);
	/* Some of KVM's numbers were flags once. */
	if (!errno && *text && !text[1] && strchr("YyNn", *text)) {
		*ret = strchr("Yy", *text) != NULL;
		return true;
	}
	return !errno && *text && !*end && *ret >= 0 && *ret <= INT32_MAX;
}

/* Without EPT kvm_intel has nothing that builds on it, whatever it was told. */
static long value_of(enum param param)
{
	switch (param) {
	case PARAM_kvm_intel_unrestricted_guest:
	case PARAM_kvm_intel_eptad:
		return values[PARAM_kvm_intel_ept] && values[param];
	case PARAM_kvm_intel_pml:
		return value_of(PARAM_kvm_intel_eptad) && values[param];
	default:
		return values[param];
	}
}

static int value_text(const struct row *row, long value, char *buf, size_t size)
{
	if (row->kind == BOOL)
		return snprintf(buf, size, "%s", value ? "Y" : "N");
	return snprintf(buf, size, "%ld", value);
}

#define CODE_CACHE_MOST 128

/* Numbers that not all will do for. */
static bool within(enum param param, long value)
{
	switch (param) {
	case PARAM_anykvm_behaviour:
		return value >= BEHAVIOUR_OLDEST && value <= behaviour_newest();
	case PARAM_anykvm_code_cache:
		return value >= 1 && value <= CODE_CACHE_MOST;
	default:
		return true;
	}
}

static int set_one(const char *name, const char *text)
{
	const struct row *row = row_find(name);
	char only[32];
	long value;

	if (!row) {
		host_log("unknown parameter '%s'; `anykvm run --help` lists them", name);
		return -EINVAL;
	}
	if (!value_parse(row, text, &value)) {
		host_log("parameter %s: '%s' is no %s", name, text,
			 row->kind == BOOL ? "Y or N" : "number");
		return -EINVAL;
	}
	if (!within(row - rows, value)) {
		host_log("parameter %s (%s): '%s' is out of range", name, row->summary, text);
		return -EINVAL;
	}
	if (row->set == FIXED && value != row->value) {
		value_text(row, row->value, only, sizeof(only));
		host_log("parameter %s (%s): only %s is supported, not '%s'", name, row->summary,
			 only, text);
		return -EINVAL;
	}
	values[row - rows] = value;
	return 0;
}

int api_params_set(const char *params)
{
	char *copy = strdup(params), *rest = copy, *word;
	int r = copy ? 0 : -ENOMEM;

	while (!r && (word = strtok_r(rest, ", ", &rest))) {
		char *equal = strchr(word, '=');

		if (equal)
			*equal = 0;
		r = set_one(word, equal ? equal + 1 : "1");
	}
	free(copy);
	return r;
}

bool api_param_nth(unsigned nr, struct api_param *ret)
{
	if (nr >= NR_PARAMS)
		return false;
	ret->module = rows[nr].module;
	ret->name = rows[nr].name;
	ret->summary = rows[nr].summary;
	ret->fixed = rows[nr].set == FIXED;
	value_text(&rows[nr], value_of(nr), ret->value, sizeof(ret->value));
	return true;
}

bool api_params_vmx(struct vmx_options *ret)
{
	*ret = (struct vmx_options){
		.ept = values[PARAM_kvm_intel_ept],
		.ept_ad = values[PARAM_kvm_intel_eptad],
		.unrestricted = value_of(PARAM_kvm_intel_unrestricted_guest),
		.vpid = values[PARAM_kvm_intel_vpid],
		.flexpriority = values[PARAM_kvm_intel_flexpriority],
		.apicv = values[PARAM_kvm_intel_enable_apicv],
		.preemption_timer = values[PARAM_kvm_intel_preemption_timer],
		.pml = values[PARAM_kvm_intel_pml],
		.shadow = values[PARAM_kvm_intel_enable_shadow_vmcs],
	};
	return values[PARAM_kvm_intel_nested];
}

void api_params_apply(struct vm_params *ret, bool intel)
{
	ret->tdp = values[intel ? PARAM_kvm_intel_ept : PARAM_kvm_amd_npt];
	ret->restricted = intel && !value_of(PARAM_kvm_intel_unrestricted_guest);
	ret->ignore_msrs = values[PARAM_kvm_ignore_msrs];
	ret->report_ignored_msrs = values[PARAM_kvm_report_ignored_msrs];
	ret->report_missed_checks = values[PARAM_anykvm_report_missed_checks];
	ret->tsc_tolerance_ppm = values[PARAM_kvm_tsc_tolerance_ppm];
	ret->tsc_ratio_bits = intel ? 16 : 8;
	ret->behaviour = values[PARAM_anykvm_behaviour];
	ret->code_most = values[PARAM_anykvm_code_cache];
	ret->halt_poll_ns = values[PARAM_kvm_halt_poll_ns];
	ret->halt_poll_grow = values[PARAM_kvm_halt_poll_ns_grow];
	ret->halt_poll_grow_start = values[PARAM_kvm_halt_poll_ns_grow_start];
	ret->halt_poll_shrink = values[PARAM_kvm_halt_poll_ns_shrink];
}

/* What nested hypervisors of AMD's find; without nesting, nothing. Without the feature, what builds on it goes, too. */
static const struct {
	enum param param;
	enum feature feature;
} hiding[] = {
	{PARAM_kvm_amd_nested, FEAT_SVM},
	{PARAM_kvm_amd_npt, FEAT_NPT},
	{PARAM_anykvm_nested_avic, FEAT_AVIC},
	{PARAM_kvm_amd_lbrv, FEAT_LBRV},
	{PARAM_kvm_amd_nrips, FEAT_NRIPS},
	{PARAM_kvm_amd_vgif, FEAT_VGIF},
	{PARAM_kvm_amd_vls, FEAT_V_VMSAVE_VMLOAD},
	{PARAM_kvm_amd_vnmi, FEAT_VNMI},
	{PARAM_kvm_amd_vgif, FEAT_VNMI},
	{PARAM_kvm_amd_pause_filter_count, FEAT_PAUSEFILTER},
	{PARAM_kvm_amd_pause_filter_count, FEAT_PFTHRESHOLD},
	{PARAM_kvm_amd_pause_filter_thresh, FEAT_PFTHRESHOLD},
};

void api_params_hide(struct cpu_model *model)
{
	for (unsigned i = 0; i < ARRAY_SIZE(hiding); i++)
		if (!values[hiding[i].param])
			feature_put(model->features, hiding[i].feature, false);
}
