/* SPDX-License-Identifier: MIT */
/*
 * Making a model: a dump's rows, or the host's own, in three passes.
 *
 *   1. copy the rows; the XSAVE layout (leaf 0xd) is always the host's, for borrowed code saves
 *      and restores with it;
 *   2. clear every word that holds feature bits, then set those that tables/lending.def lets
 *      through: nothing unlisted can leak into a model;
 *   3. mend what follows from features: XCR0, sizes, address widths, AMD's copy of leaf 1.
 */
#include "silicon/models/model_internal.h"

#include <string.h>

enum lending {
	HIDE,
	BORROW,
	BORROW_AVX,
	BORROW_AVX512,
	EMULATE,
	ALWAYS,
	NATIVE,
	VENDOR,
	IMMUNE,
	INTEL,
	TILES,
	HOST,
};

static const uint8_t lending[NR_FEATURES] = {
#define LEND(feature, way) [FEAT_##feature] = way,
#include "lending.def"
#undef LEND
};

static const struct feature_bit {
	uint32_t leaf;
	uint8_t subleaf, reg, bit;
} feature_bits[NR_FEATURES] = {
#define FEATURE(name, leaf, subleaf, reg, bit) {leaf, subleaf, reg, bit},
#include "features.def"
#undef FEATURE
};

/* Components of XCR0. */
#define XCR0_X87    BIT(0)
#define XCR0_SSE    BIT(1)
#define XCR0_AVX    BIT(2)
#define XCR0_AVX512 (BIT(5) | BIT(6) | BIT(7))
#define XCR0_AMX    (BIT(17) | BIT(18))

/*
 * Tiles are emulated, so their state is where Intel's processors have it, whatever the host's layout: behind all that
 * borrowed code knows.
 */
#define XSTATE_TILECFG 17
static const struct cpuid_row tile_states[] = {
	{0xd, XSTATE_TILECFG, {64, 2752, 2, 0}},
	{0xd, XSTATE_TILECFG + 1, {8192, 2816, 6, 0}},
};

/* IA32_ARCH_CAPABILITIES: attacks that find nothing to read or to steer in emulated silicon. */
#define CAP_RDCL_NO	   BIT(0)
#define CAP_IBRS_ALL	   BIT(1)
#define CAP_SKIP_L1DFLUSH  BIT(3)
#define CAP_SSB_NO	   BIT(4)
#define CAP_MDS_NO	   BIT(5)
#define CAP_PSCHANGE_MC_NO BIT(6)
#define CAP_TAA_NO	   BIT(8)
#define CAP_MMIO_STALE_NO  (BIT(13) | BIT(14) | BIT(15))
#define CAP_BHI_NO	   BIT(20)
#define CAP_PBRSB_NO	   BIT(24)
#define CAP_GDS_NO	   BIT(26)
#define CAP_RFDS_NO	   BIT(27)
#define CAP_ITS_NO	   BIT(62)
#define CAP_BOTH	   (CAP_RDCL_NO | CAP_SSB_NO | CAP_MDS_NO | CAP_PSCHANGE_MC_NO | CAP_TAA_NO)
#define CAP_INTEL                                                                           \
	(CAP_IBRS_ALL | CAP_SKIP_L1DFLUSH | CAP_MMIO_STALE_NO | CAP_BHI_NO | CAP_PBRSB_NO | \
	 CAP_GDS_NO | CAP_RFDS_NO | CAP_ITS_NO)

/* Leaves that describe the host's caches, names and words; the rest of a host model is empty. */
static const struct host_leaf {
	uint32_t leaf;
	uint8_t nr_subleaves;
} host_leaves[] = {
	{0x0, 1},	 {0x1, 1},	  {0x2, 1},	   {0x4, 6},	    {0x6, 1},
	{0x7, 3},	 {0x1d, 2},	  {0x1e, 1},	   {0x80000000, 1}, {0x80000001, 1},
	{0x80000002, 1}, {0x80000003, 1}, {0x80000004, 1}, {0x80000005, 1}, {0x80000006, 1},
	{0x80000007, 1}, {0x80000008, 1}, {0x8000000a, 1}, {0x80000019, 1}, {0x8000001a, 1},
	{0x8000001d, 6}, {0x80000021, 1},
};

static uint32_t host_max(const struct model_host *host, uint32_t base)
{
	uint32_t r[4];

	host->cpuid(base, 0, r);
	return r[CPUID_EAX] >= base ? r[CPUID_EAX] : 0;
}

/* The host's answer, zero past its last leaf (where Intel repeats another one). */
static void host_read(const struct model_host *host, uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
	uint32_t top = host_max(host, leaf & 0x80000000);

	memset(r, 0, 4 * sizeof(*r));
	if (leaf > top)
		return;
	if (leaf == 7 && subleaf) {
		host->cpuid(7, 0, r);
		top = r[CPUID_EAX];
		memset(r, 0, 4 * sizeof(*r));
		if (subleaf > top)
			return;
	}
	host->cpuid(leaf, subleaf, r);
}

static bool host_vendor(const struct model_host *host, enum vendor *ret)
{
	uint32_t r[4];

	host_read(host, 0, 0, r);
	if (r[CPUID_EBX] == 0x756e6547) /* "Genu"ineIntel */
		*ret = VENDOR_INTEL;
	else if (r[CPUID_EBX] == 0x68747541 || r[CPUID_EBX] == 0x6f677948) /* AMD, Hygon */
		*ret = VENDOR_AMD;
	else
		return false;
	return true;
}

static struct cpuid_row *row_find(struct model_built *b, uint32_t leaf, uint32_t subleaf)
{
	for (unsigned i = 0; i < b->model.nr_cpuid; i++)
		if (b->rows[i].leaf == leaf && b->rows[i].subleaf == subleaf)
			return &b->rows[i];
	return NULL;
}

static struct cpuid_row *row_get(struct model_built *b, uint32_t leaf, uint32_t subleaf)
{
	struct cpuid_row *row = row_find(b, leaf, subleaf);

	if (row || b->model.nr_cpuid == MODEL_MAX_ROWS)
		return row;
	row = &b->rows[b->model.nr_cpuid++];
	*row = (struct cpuid_row){.leaf = leaf, .subleaf = subleaf};
	return row;
}

static void rows_from_host(const struct model_host *host, struct model_built *b)
{
	for (unsigned i = 0; i < ARRAY_SIZE(host_leaves); i++) {
		const struct host_leaf *l = &host_leaves[i];

		for (uint32_t sub = 0; sub < l->nr_subleaves; sub++) {
			uint32_t r[4];

			host_read(host, l->leaf, sub, r);
			if (r[0] | r[1] | r[2] | r[3])
				memcpy(row_get(b, l->leaf, sub)->reg, r, sizeof(r));
		}
	}
}

static void rows_from_spec(const struct model_spec *spec, struct model_built *b)
{
	for (unsigned i = 0; i < spec->nr_rows; i++)
		if (spec->rows[i].leaf != 0xd || spec->rows[i].subleaf == 1)
			b->rows[b->model.nr_cpuid++] = spec->rows[i];
}

static bool host_has(const struct model_host *host, const struct feature_bit *f)
{
	uint32_t r[4];

	/* Intel's processors have AMD's additions to MMX as a part of SSE, and no bit for them. */
	if (f == &feature_bits[FEAT_MMXEXT])
		f = &feature_bits[FEAT_SSE];
	host_read(host, f->leaf, f->subleaf, r);
	return r[f->reg] >> f->bit & 1;
}

/* True if the bit's leaf is the vendor's own, and not beyond the model's last. */
static bool vendors_own(struct model_built *b, const struct feature_bit *f)
{
	struct cpuid_row *top = row_find(b, f->leaf & 0x80000000, 0);
	enum vendor owner = f->leaf >= 0x80000000 ? VENDOR_AMD : VENDOR_INTEL;

	return b->model.vendor == owner && top && f->leaf <= top->reg[CPUID_EAX];
}

/* What tiles are computed with. */
static bool host_has_tile_math(const struct model_host *host)
{
	uint64_t state = XCR0_X87 | XCR0_SSE | XCR0_AVX;

	return (host->xcr0 & state) == state && host_has(host, &feature_bits[FEAT_XSAVE]) &&
	       host_has(host, &feature_bits[FEAT_AVX2]) && host_has(host, &feature_bits[FEAT_FMA]);
}

static bool offered(struct model_built *b, const struct model_host *host, enum feature feat,
		    bool in_dump)
{
	const struct feature_bit *f = &feature_bits[feat];
	uint64_t state = 0;

	switch ((enum lending)lending[feat]) {
	case BORROW_AVX512:
		state = XCR0_AVX512;
		/* fallthrough */
	case BORROW_AVX:
		state |= XCR0_AVX | XCR0_SSE | XCR0_X87;
		/* fallthrough */
	case BORROW:
		return in_dump && (host->xcr0 & state) == state && host_has(host, f);
	case EMULATE:
		return in_dump;
	case ALWAYS:
		return true;
	case NATIVE:
		return in_dump || !b->model.raw;
	case VENDOR:
	case IMMUNE:
		return vendors_own(b, f);
	case INTEL:
		return b->model.vendor == VENDOR_INTEL;
	case TILES:
		return in_dump && host_has_tile_math(host);
	case HOST:
		return b->model.vendor == VENDOR_INTEL && host_has(host, f);
	case HIDE:
		break;
	}
	return false;
}

static void features_apply(const struct model_host *host, struct model_built *b)
{
	uint64_t dump[FEATURE_WORDS] = {0};
	struct cpuid_row *row;

	for (unsigned i = 0; i < NR_FEATURES; i++) {
		const struct feature_bit *f = &feature_bits[i];

		row = row_find(b, f->leaf, f->subleaf);
		if (row)
			feature_put(dump, i, row->reg[f->reg] >> f->bit & 1);
	}
	for (unsigned i = 0; i < NR_FEATURES; i++) {
		row = row_find(b, feature_bits[i].leaf, feature_bits[i].subleaf);
		if (row)
			row->reg[feature_bits[i].reg] = 0;
	}
	for (unsigned i = 0; i < NR_FEATURES; i++) {
		const struct feature_bit *f = &feature_bits[i];

		if (!offered(b, host, i, feature_has(dump, i)))
			continue;
		feature_put(b->model.features, i, true);
		row = row_get(b, f->leaf, f->subleaf);
		if (row)
			row->reg[f->reg] |= 1u << f->bit;
	}
}

/* Component i as images have it. */
static void read_xstate(const struct model_host *host, unsigned i, uint32_t ret[4])
{
	if (i >= XSTATE_TILECFG)
		memcpy(ret, tile_states[i - XSTATE_TILECFG].reg, sizeof(tile_states[0].reg));
	else
		host_read(host, 0xd, i, ret);
}

/* XCR0 and leaf 0xd: the host's layout, cut to what the model's features need. */
static void mend_xsave(const struct model_host *host, struct model_built *b)
{
	struct cpuid_row *top = row_get(b, 0, 0);
	struct cpu_model *m = &b->model;
	uint32_t end = 576;

	m->xcr0 = XCR0_X87 | XCR0_SSE;
	if (feature_has(m->features, FEAT_AVX))
		m->xcr0 |= XCR0_AVX;
	if (feature_has(m->features, FEAT_AVX512F))
		m->xcr0 |= XCR0_AVX512;
	if (feature_has(m->features, FEAT_AMX_TILE))
		m->xcr0 |= XCR0_AMX;
	if (!feature_has(m->features, FEAT_XSAVE))
		return;
	top->reg[CPUID_EAX] = max(top->reg[CPUID_EAX], 0xdu);
	for (unsigned i = 2; i < 63; i++) {
		struct cpuid_row *row;

		if (!(m->xcr0 & BIT(i)) || !(row = row_get(b, 0xd, i)))
			continue;
		read_xstate(host, i, row->reg);
		end = max(end, row->reg[CPUID_EAX] + row->reg[CPUID_EBX]);
	}
	memcpy(row_get(b, 0xd, 0)->reg, (uint32_t[]){m->xcr0, 576, end, 0}, 16);
	memset(&row_get(b, 0xd, 1)->reg[CPUID_EBX], 0, 12);
}

/* Leaves that describe tiles, without tiles. */
static void mend_tiles(struct model_built *b)
{
	unsigned n = 0;

	if (feature_has(b->model.features, FEAT_AMX_TILE))
		return;
	for (unsigned i = 0; i < b->model.nr_cpuid; i++)
		if (b->rows[i].leaf != 0x1d && b->rows[i].leaf != 0x1e)
			b->rows[n++] = b->rows[i];
	b->model.nr_cpuid = n;
}

static void mend_widths(struct model_built *b)
{
	struct cpuid_row *row = row_get(b, 0x80000008, 0);
	uint32_t bits = row->reg[CPUID_EAX] & 0xff;
	uint32_t virt = feature_has(b->model.features, FEAT_LA57) ? 57 : 48;

	b->model.maxphyaddr = bits >= 36 && bits <= 52 ? bits : 40;
	row->reg[CPUID_EAX] = b->model.maxphyaddr | virt << 8;
}

static void mend_words(struct model_built *b)
{
	struct cpuid_row *leaf1 = row_get(b, 1, 0), *leaf7 = row_get(b, 7, 0);

	leaf1->reg[CPUID_EBX] &= 0x00ffffff;
	if (row_find(b, 7, 2))
		row_get(b, 7, 1);
	leaf7->reg[CPUID_EAX] = row_find(b, 7, 2) ? 2 : row_find(b, 7, 1) ? 1 : 0;
	/* AMD repeats leaf 1's first words: FPU to PGE without SEP, MCA to PSE36, MMX and FXSR. */
	if (b->model.vendor == VENDOR_AMD)
		row_get(b, 0x80000001, 0)->reg[CPUID_EDX] |= leaf1->reg[CPUID_EDX] & 0x0183f3ff;
}

const char *model_build(const struct model_spec *spec, const struct model_host *host,
			struct model_built *ret)
{
	enum vendor vendor = spec->vendor;

	memset(ret, 0, sizeof(*ret));
	if (!spec->rows && !host_vendor(host, &vendor))
		return "the host is neither an Intel nor an AMD processor";
	ret->model = (struct cpu_model){.name = spec->name, .title = spec->title};
	ret->model.vendor = vendor;
	ret->model.cpuid = ret->rows;
	ret->model.raw = spec->rows;
	ret->model.nr_raw = spec->nr_rows;
	ret->model.raw_msrs = spec->msrs;
	ret->model.arch_capabilities = CAP_BOTH | (vendor == VENDOR_INTEL ? CAP_INTEL : 0);
	if (spec->rows)
		rows_from_spec(spec, ret);
	else
		rows_from_host(host, ret);
	if (!spec->rows && !row_find(ret, 0xd, 1))
		host_read(host, 0xd, 1, row_get(ret, 0xd, 1)->reg);
	features_apply(host, ret);
	mend_xsave(host, ret);
	mend_tiles(ret);
	mend_widths(ret);
	mend_words(ret);
	return NULL;
}
