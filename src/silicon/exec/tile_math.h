/* SPDX-License-Identifier: MIT */
/*
 * Dot products of tiles by the host's AVX2 and FMA (tables/lending.def asks for both). Ordinary C: for callers that
 * have put vector state away. Private to exec/.
 */
#ifndef SILICON_EXEC_TILE_MATH_H
#define SILICON_EXEC_TILE_MATH_H

#include "host/compiler.h"

/* dst += a * b. Rows have 64 bytes; what is beyond the shape in dst becomes zero, in a and b it is not looked at. */
struct tile_dot {
	uint32_t (*dst)[16];
	const uint32_t (*a)[16], (*b)[16];
	unsigned rows;	/* of dst and a */
	unsigned depth; /* doublewords in a row of a, rows of b */
	unsigned cols;	/* doublewords in a row of dst and b */
};

/* Four bytes by four in each doubleword, without saturation. */
void tile_dot_bytes(const struct tile_dot *dot, bool a_signed, bool b_signed);
/* Two BF16 by two: rounded to nearest even, denormals are zero, no exceptions, MXCSR is not looked at. */
void tile_dot_bf16(const struct tile_dot *dot);

#endif
