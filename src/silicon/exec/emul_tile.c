/* SPDX-License-Identifier: MIT */
/*
 * Intel AMX (SDM, classes AMX-E1 to E6), on cpu->amx.
 *
 * Mode and control registers are judged by legal.c. Then come, in silicon's order, #UD of tiles that are not configured or do not fit,
 * #NM of IA32_XFD, and memory. Rows are moved one by one: the row where an access failed stands in the configuration, and the
 * instruction goes on there.
 */
#include "silicon/cpu/amx.h"
#include "silicon/exec/emul.h"
#include "silicon/exec/tile_math.h"

#include <Zydis/Mnemonic.h>

static bool tile_valid(const struct cpu *cpu, unsigned tile)
{
	return amx_rows(cpu->amx, tile);
}

/* All that uses the tiles' data, once nothing is #UD. */
static enum result data_enabled(struct cpu *cpu)
{
	if (!(cpu->msr.xfd & XCR0_TILEDATA))
		return RESULT_OK;
	return emul_xfd_fault(cpu, XCR0_TILEDATA);
}

/* The instruction is done: so are all rows. */
static enum result finish(struct cpu *cpu, const struct insn *insn)
{
	cpu->amx->config[AMX_CONFIG_START] = 0;
	return insn_next(cpu, insn);
}

/* ---- configuration ---- */

enum result emul_ldtilecfg(struct cpu *cpu, const struct insn *insn)
{
	uint8_t config[AMX_CONFIG_SIZE];
	gva_t addr;
	enum result r =
		seg_linear(cpu, insn->seg, insn_ea(cpu, insn), sizeof(config), ACCESS_READ, &addr);

	if (!r)
		r = mmu_read_bytes(cpu, addr, config, sizeof(config));
	if (r)
		return r;
	if (!amx_config_valid(config))
		return fault_gp(cpu, 0);
	amx_configure(cpu->amx, config);
	return insn_next(cpu, insn);
}

enum result emul_sttilecfg(struct cpu *cpu, const struct insn *insn)
{
	gva_t addr;
	enum result r = seg_linear(cpu, insn->seg, insn_ea(cpu, insn), AMX_CONFIG_SIZE,
				   ACCESS_WRITE, &addr);

	if (!r)
		r = mmu_write_bytes(cpu, addr, cpu->amx->config, AMX_CONFIG_SIZE);
	return r ? r : insn_next(cpu, insn);
}

enum result emul_tilerelease(struct cpu *cpu, const struct insn *insn)
{
	amx_configure(cpu->amx, NULL);
	return insn_next(cpu, insn);
}

/* ---- moves ---- */

enum result emul_tilezero(struct cpu *cpu, const struct insn *insn)
{
	enum result r;

	if (!tile_valid(cpu, insn->reg))
		return fault_ud(cpu);
	r = data_enabled(cpu);
	if (r)
		return r;
	__builtin_memset(cpu->amx->tile[insn->reg], 0, AMX_TILE_SIZE);
	cpu->amx->data = true;
	return finish(cpu, insn);
}

/* Rows are a stride apart, which is the index register's product. */
static enum result row_address(struct cpu *cpu, const struct insn *insn, unsigned row,
			       unsigned size, enum access_op op, gva_t *ret)
{
	uint64_t stride = insn_slot(cpu, insn->index) * insn->scale;
	uint64_t off = insn->disp + insn_slot(cpu, insn->base) + row * stride;

	return seg_linear(cpu, insn->seg, off & emul_mask(insn->addrsize), size, op, ret);
}

static enum result rows_prepare(struct cpu *cpu, const struct insn *insn)
{
	const struct amx *amx = cpu->amx;

	if (amx->config[AMX_CONFIG_START] >= amx_rows(amx, insn->reg) ||
	    amx_colsb(amx, insn->reg) % 4)
		return fault_ud(cpu);
	return data_enabled(cpu);
}

static enum result load_row(struct cpu *cpu, const struct insn *insn, unsigned row)
{
	unsigned colsb = amx_colsb(cpu->amx, insn->reg);
	uint8_t bytes[AMX_ROW_BYTES] = {0};
	gva_t addr;
	enum result r = row_address(cpu, insn, row, colsb, ACCESS_READ, &addr);

	if (!r)
		r = mmu_read_bytes(cpu, addr, bytes, colsb);
	if (r)
		return r;
	__builtin_memcpy(amx_row(cpu->amx, insn->reg, row), bytes, sizeof(bytes));
	cpu->amx->data = true;
	/* What devices answered is in the tile. */
	if (cpu->answers.nr)
		answers_reset(cpu);
	return RESULT_OK;
}

/* The rows that the tile has not got become zero. */
enum result emul_tileload(struct cpu *cpu, const struct insn *insn)
{
	unsigned rows = amx_rows(cpu->amx, insn->reg);
	uint8_t *row = &cpu->amx->config[AMX_CONFIG_START];
	enum result r = rows_prepare(cpu, insn);

	while (!r && *row < rows) {
		r = load_row(cpu, insn, *row);
		*row += !r;
	}
	if (r)
		return r;
	__builtin_memset(amx_row(cpu->amx, insn->reg, rows), 0, (AMX_ROWS - rows) * AMX_ROW_BYTES);
	return finish(cpu, insn);
}

static enum result store_row(struct cpu *cpu, const struct insn *insn, unsigned row)
{
	unsigned colsb = amx_colsb(cpu->amx, insn->reg);
	gva_t addr;
	enum result r = row_address(cpu, insn, row, colsb, ACCESS_WRITE, &addr);

	return r ? r : mmu_write_bytes(cpu, addr, amx_row(cpu->amx, insn->reg, row), colsb);
}

enum result emul_tilestore(struct cpu *cpu, const struct insn *insn)
{
	unsigned rows = amx_rows(cpu->amx, insn->reg);
	uint8_t *row = &cpu->amx->config[AMX_CONFIG_START];
	enum result r = rows_prepare(cpu, insn);

	while (!r && *row < rows) {
		/* What is for user space goes there before more is stored. */
		if (cpu->out.nr)
			return RESULT_AGAIN;
		r = store_row(cpu, insn, *row);
		*row += !r;
	}
	return r ? r : finish(cpu, insn);
}

/* ---- dot products: reg += rm * vindex ---- */

static bool shapes_fit(const struct cpu *cpu, const struct insn *insn)
{
	const struct amx *amx = cpu->amx;
	unsigned dst = insn->reg, a = insn->rm, b = insn->vindex;

	return tile_valid(cpu, dst) && tile_valid(cpu, a) && tile_valid(cpu, b) &&
	       !((amx_colsb(amx, dst) | amx_colsb(amx, a)) % 4) &&
	       amx_rows(amx, dst) == amx_rows(amx, a) && amx_colsb(amx, dst) == amx_colsb(amx, b) &&
	       amx_colsb(amx, a) == 4 * amx_rows(amx, b);
}

static enum result dot_prepare(struct cpu *cpu, const struct insn *insn, struct tile_dot *dot)
{
	struct amx *amx = cpu->amx;

	if (!shapes_fit(cpu, insn))
		return fault_ud(cpu);
	*dot = (struct tile_dot){
		.dst = (void *)amx->tile[insn->reg],
		.a = (void *)amx->tile[insn->rm],
		.b = (void *)amx->tile[insn->vindex],
		.rows = amx_rows(amx, insn->reg),
		.depth = amx_rows(amx, insn->vindex),
		.cols = amx_colsb(amx, insn->reg) / 4,
	};
	return data_enabled(cpu);
}

static enum result dot_done(struct cpu *cpu, const struct insn *insn)
{
	cpu->amx->data = true;
	return finish(cpu, insn);
}

enum result emul_tdpb(struct cpu *cpu, const struct insn *insn)
{
	bool a_signed = insn->op == ZYDIS_MNEMONIC_TDPBSSD || insn->op == ZYDIS_MNEMONIC_TDPBSUD;
	bool b_signed = insn->op == ZYDIS_MNEMONIC_TDPBSSD || insn->op == ZYDIS_MNEMONIC_TDPBUSD;
	struct tile_dot dot;
	enum result r = dot_prepare(cpu, insn, &dot);

	if (r)
		return r;
	fpu_save(cpu);
	tile_dot_bytes(&dot, a_signed, b_signed);
	return dot_done(cpu, insn);
}

enum result emul_tdpbf16ps(struct cpu *cpu, const struct insn *insn)
{
	struct tile_dot dot;
	enum result r = dot_prepare(cpu, insn, &dot);

	if (r)
		return r;
	fpu_save(cpu);
	tile_dot_bf16(&dot);
	return dot_done(cpu, insn);
}
