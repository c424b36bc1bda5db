/* SPDX-License-Identifier: MIT */
/* Differences from the host CPU that are of design, each under its exact condition (docs/errata.md). */
#ifndef TESTS_INSN_DESIGN_H
#define TESTS_INSN_DESIGN_H

#include "gen.h"
#include "guest.h"

/*
 * Where a rule's condition holds, make the host's outcome what the guest's has to be, so that all the rest is
 * compared as ever. True if any did.
 */
bool design_apply(const struct testcase *t, const struct segments *segs, struct state *host,
		  const struct state *guest);
/* Silicon may have stored ahead of the state that it shows at a fault; the guest never has. */
bool design_stores_ahead(const struct testcase *t);

#endif
