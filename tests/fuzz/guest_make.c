/* SPDX-License-Identifier: MIT */
/*
 * What random guests are made of: code, in which opcodes that are easily wrong come often, and values, of which many are
 * addresses where something of flat.h's machine begins or ends. All follows from the generator's state.
 */
#include "guest_make.h"
#include "../guest/flat.h"

/* ---- values ---- */

uint64_t make_edge(struct rng *r)
{
	static const uint64_t at[] = {
		0,
		MAKE_RAM,
		FLAT_ROM,
		FLAT_ROM + 0x1000,
		FLAT_MMIO,
		FLAT_MMIO + 0x1000,
		FLAT_DEVICE,
		FLAT_GDT,
		FLAT_IDT,
		FLAT_TSS,
		FLAT_CODE,
		FLAT_STACK,
		FLAT_TABLES,
		FLAT_DATA,
		BIT(16),
		BIT(20),
		BIT(31),
		BIT(32),
		BIT(47),
		-BIT(47),
		BIT(63),
		BIT(52),
		0xfee00000,
		0xfec00000,
		FLAT_USER_STACK,
	};

	return at[below(r, ARRAY_SIZE(at))] + (int64_t)below(r, 64) - 32;
}

uint64_t make_value(struct rng *r)
{
	switch (below(r, 6)) {
	case 0:
		return rnd(r);
	case 1:
		return below(r, 16);
	case 2:
		return -(uint64_t)below(r, 64);
	case 3:
		return BIT(below(r, 64));
	case 4:
		return FLAT_DATA + below(r, 0x1000);
	default:
		return make_edge(r);
	}
}

/* ---- code ---- */

static void byte(struct code *c, uint8_t val)
{
	if (c->nr < sizeof(c->v))
		c->v[c->nr++] = val;
}

static void bytes(struct code *c, uint64_t val, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		byte(c, val >> (8 * i));
}

static void modrm(struct code *c, struct rng *r, unsigned reg)
{
	unsigned mod = below(r, 4), rm = below(r, 8);

	byte(c, mod << 6 | reg << 3 | rm);
	if (mod != 3 && rm == 4)
		byte(c, rnd(r));
	if (mod == 1)
		byte(c, rnd(r));
	else if (mod == 2 || (mod == 0 && rm == 5))
		bytes(c, make_edge(r), 4);
}

static void prefixes(struct code *c, struct rng *r)
{
	static const uint8_t all[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x3e, 0x64, 0x65};

	while (one_in(r, 4))
		byte(c, all[below(r, sizeof(all))]);
	if (one_in(r, 3))
		byte(c, 0x40 + below(r, 16));
}

static void immediate(struct code *c, struct rng *r)
{
	bytes(c, make_value(r), below(r, 5));
}

static void any_one_byte(struct code *c, struct rng *r)
{
	prefixes(c, r);
	byte(c, rnd(r));
	modrm(c, r, below(r, 8));
	immediate(c, r);
}

static void any_two_byte(struct code *c, struct rng *r)
{
	prefixes(c, r);
	byte(c, 0x0f);
	if (one_in(r, 6))
		byte(c, one_in(r, 2) ? 0x38 : 0x3a);
	byte(c, rnd(r));
	modrm(c, r, below(r, 8));
	immediate(c, r);
}

static void any_vex(struct code *c, struct rng *r)
{
	if (one_in(r, 2)) {
		byte(c, 0xc5);
		byte(c, rnd(r));
	} else {
		byte(c, 0xc4);
		byte(c, 0xe0 | (1 + below(r, 3)));
		byte(c, rnd(r));
	}
	byte(c, rnd(r));
	modrm(c, r, below(r, 8));
	immediate(c, r);
}

static void any_evex(struct code *c, struct rng *r)
{
	byte(c, 0x62);
	byte(c, 0xf0 | (1 + below(r, 3)));
	byte(c, rnd(r) | 4);
	byte(c, rnd(r));
	byte(c, rnd(r));
	modrm(c, r, below(r, 8));
	immediate(c, r);
}

static void any_bytes(struct code *c, struct rng *r)
{
	bytes(c, rnd(r), 1 + below(r, 8));
}

static void load_register(struct code *c, unsigned reg, uint32_t val)
{
	byte(c, 0xb8 + reg);
	bytes(c, val, 4);
}

static void msr_access(struct code *c, struct rng *r)
{
	static const uint32_t bases[] = {0x0,	     0x200,	 0x400,	     0x800,
					 0x40000000, 0x4b564d00, 0xc0000080, 0xc0000100,
					 0xc0010000, 0xc0011020};

	load_register(c, RCX, bases[below(r, ARRAY_SIZE(bases))] + below(r, 0x80));
	if (one_in(r, 2))
		load_register(c, RDX, one_in(r, 2) ? 0 : make_value(r));
	if (one_in(r, 2))
		load_register(c, RAX, make_value(r));
	byte(c, 0x0f);
	byte(c, one_in(r, 3) ? 0x32 : 0x30);
}

static void control_register(struct code *c, struct rng *r)
{
	static const uint8_t opcodes[] = {0x20, 0x22, 0x22, 0x22, 0x21, 0x23};
	static const uint8_t nr[] = {0, 3, 4, 2, 8, 1, 7, 6};

	byte(c, 0x0f);
	byte(c, opcodes[below(r, sizeof(opcodes))]);
	byte(c, 0xc0 | nr[below(r, sizeof(nr))] << 3 | below(r, 8));
}

/* Opcodes that deserve more than one chance in 256. */
static void favourite(struct code *c, struct rng *r)
{
	static const struct {
		uint8_t nr, v[3];
		bool modrm;
	} all[] = {
		{1, {0xcf}},
		{2, {0x0f, 0x05}},
		{2, {0x0f, 0x07}},
		{2, {0x0f, 0x34}},
		{2, {0x0f, 0x35}},
		{1, {0xcb}},
		{1, {0xca}},
		{1, {0x9a}},
		{1, {0xea}},
		{1, {0xff}, true},
		{2, {0x0f, 0x01}, true},
		{2, {0x0f, 0x00}, true},
		{1, {0x8e}, true},
		{1, {0x8c}, true},
		{2, {0x0f, 0xae}, true},
		{2, {0x0f, 0xc7}, true},
		{3, {0x0f, 0x01, 0xd1}},
		{3, {0x0f, 0x01, 0xd0}},
		{2, {0xf3, 0xa4}},
		{2, {0xf3, 0xa5}},
		{2, {0xf3, 0xaa}},
		{2, {0xf2, 0xae}},
		{2, {0xf3, 0xa6}},
		{2, {0xf3, 0x6c}},
		{2, {0xf3, 0x6e}},
		{2, {0xf3, 0x6d}},
		{1, {0x9d}},
		{1, {0x9c}},
		{1, {0xc8}},
		{1, {0xc9}},
		{1, {0xcd}},
		{1, {0xcc}},
		{1, {0xf1}},
		{1, {0xce}},
		{1, {0xfb}},
		{1, {0x17}},
		{1, {0x07}},
		{2, {0x0f, 0xa1}},
		{2, {0x0f, 0xb2}, true},
		{1, {0xc4}, true},
		{2, {0x0f, 0x02}, true},
		{2, {0x0f, 0x03}, true},
		{3, {0x0f, 0x38, 0x82}, true},
		{1, {0xd8}, true},
		{1, {0xdd}, true},
		{1, {0xd9}, true},
		{1, {0x60}},
		{1, {0x61}},
		{1, {0x62}, true},
		{1, {0x63}, true},
		{1, {0xe4}},
		{1, {0xef}},
		{1, {0xf4}},
		{2, {0x0f, 0xc3}, true},
		{2, {0x0f, 0x09}},
		{3, {0x0f, 0x01, 0xf8}},
		{3, {0x0f, 0x01, 0xcb}},
	};
	unsigned i = below(r, ARRAY_SIZE(all));

	prefixes(c, r);
	for (unsigned n = 0; n < all[i].nr; n++)
		byte(c, all[i].v[n]);
	if (all[i].modrm)
		modrm(c, r, below(r, 8));
	immediate(c, r);
}

static void set_register(struct code *c, struct rng *r)
{
	unsigned reg = below(r, 8);

	byte(c, 0x48);
	byte(c, 0xb8 + reg);
	bytes(c, make_value(r), 8);
}

/* Back or forth by some bytes, often into the middle of an instruction. */
static void short_jump(struct code *c, struct rng *r)
{
	byte(c, one_in(r, 3) ? 0xe0 + below(r, 4) : one_in(r, 6) ? 0xeb : 0x70 + below(r, 16));
	byte(c, one_in(r, 2) ? below(r, 40) : -below(r, 80));
}

static void prefix_flood(struct code *c, struct rng *r)
{
	static const uint8_t all[] = {0x66, 0x67, 0xf2, 0xf3, 0x2e, 0x64, 0x48, 0x4f};
	unsigned n = 10 + below(r, 8);

	while (n--)
		byte(c, all[below(r, sizeof(all))]);
}

void make_code(struct code *c, struct rng *r)
{
	static void (*const makers[])(struct code *, struct rng *) = {
		any_one_byte, any_one_byte, any_two_byte,     any_two_byte, any_vex,   any_evex,
		any_bytes,    msr_access,   control_register, favourite,    favourite, favourite,
		set_register, prefix_flood, short_jump,	      short_jump,
	};

	while (c->nr < MAKE_BYTES)
		makers[below(r, ARRAY_SIZE(makers))](c, r);
}
