/* SPDX-License-Identifier: MIT */
/*
 * CPUID feature bits as names: FEATURE(name, leaf, subleaf, register, bit) rows in
 * tables/features.def, numbered in order; a bitmap of them (cpu->model_features, cpu->guest_features)
 * answers "does it have this".
 */
#ifndef SILICON_MODELS_FEATURES_H
#define SILICON_MODELS_FEATURES_H

#include "host/compiler.h"

enum cpuid_reg { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };

enum feature {
#define FEATURE(name, leaf, subleaf, reg, bit) FEAT_##name,
#include "features.def"
#undef FEATURE
	NR_FEATURES,
};

#define FEATURE_WORDS 8
_Static_assert(NR_FEATURES <= FEATURE_WORDS * 64, "grow FEATURE_WORDS");

static inline bool feature_has(const uint64_t *map, enum feature f)
{
	return map[f / 64] >> (f % 64) & 1;
}

static inline void feature_put(uint64_t *map, enum feature f, bool on)
{
	if (on)
		map[f / 64] |= BIT(f % 64);
	else
		map[f / 64] &= ~BIT(f % 64);
}

#endif
