/* SPDX-License-Identifier: MIT */
/* Values and code of random guests on flat.h's machine. */
#ifndef FUZZ_GUEST_MAKE_H
#define FUZZ_GUEST_MAKE_H

#include "fuzz.h"

#define MAKE_RAM   0x140000ul /* bytes: flat.h's layout and a bit */
#define MAKE_BYTES 256	      /* of code at least; the last instruction may be longer */

struct code {
	uint8_t v[MAKE_BYTES + 32];
	unsigned nr;
};

/* An address where something ends, begins or is not. */
uint64_t make_edge(struct rng *r);
/* An edge, or a number of some other kind. */
uint64_t make_value(struct rng *r);
/* Append to c until it is full. */
void make_code(struct code *c, struct rng *r);

#endif
