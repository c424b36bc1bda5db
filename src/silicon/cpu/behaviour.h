/* SPDX-License-Identifier: MIT */
/*
 * Versions of what a guest can notice (tables/behaviour.def; docs/compatibility.md): a saved guest goes on as the version that it
 * was started with, whatever came later.
 */
#ifndef SILICON_CPU_BEHAVIOUR_H
#define SILICON_CPU_BEHAVIOUR_H

#include "host/compiler.h"

enum behaviour {
#define BEHAVIOUR(version, name, summary) BEHAVIOUR_##name,
#include "behaviour.def"
#undef BEHAVIOUR
	NR_BEHAVIOURS,
};

#define BEHAVIOUR_OLDEST 1

/* The newest version that there is. */
static inline unsigned behaviour_newest(void)
{
	unsigned newest = BEHAVIOUR_OLDEST;

#define BEHAVIOUR(version, name, summary) newest = version;
#include "behaviour.def"
#undef BEHAVIOUR
	return newest;
}

/* The rows that hold in a version, a bit each. */
static inline uint64_t behaviour_of(unsigned version)
{
	uint64_t rows = 0;

#define BEHAVIOUR(since, name, summary) rows |= version >= (since) ? BIT(BEHAVIOUR_##name) : 0;
#include "behaviour.def"
#undef BEHAVIOUR
	return rows;
}

#endif
