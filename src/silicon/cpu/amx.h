/* SPDX-License-Identifier: MIT */
/*
 * Tiles (SDM, Intel AMX; palette 1: eight tiles of 16 rows of 64 bytes). They are the guest's alone: no state of the host's
 * stands for them, so a host needs no tiles. A vCPU has them if its model has; else cpu->amx is NULL.
 *
 * ->config is what STTILECFG stores, all zero while nothing is configured: then every tile has no rows, and no
 * instruction takes it. ->tile is laid out as the XSAVE component, all zero unless ->data.
 */
#ifndef SILICON_CPU_AMX_H
#define SILICON_CPU_AMX_H

#include "host/compiler.h"

struct cpu;

#define AMX_TILES	8
#define AMX_ROWS	16
#define AMX_ROW_BYTES	64
#define AMX_CONFIG_SIZE 64
#define AMX_TILE_SIZE	(AMX_ROWS * AMX_ROW_BYTES)
#define AMX_DATA_SIZE	(AMX_TILES * AMX_TILE_SIZE)

/* Bytes of a configuration. */
#define AMX_CONFIG_PALETTE 0
#define AMX_CONFIG_START   1
#define AMX_CONFIG_COLSB   16 /* two for each tile */
#define AMX_CONFIG_ROWS	   48

struct amx {
	uint8_t config[AMX_CONFIG_SIZE];
	uint8_t tile[AMX_TILES][AMX_TILE_SIZE];
	bool data; /* the tiles are not in their initial state: XINUSE[18] */
	/* No state: what XRSTOR reads, until all of it is there. */
	uint8_t staged_config[AMX_CONFIG_SIZE];
	uint8_t staged_tile[AMX_TILES][AMX_TILE_SIZE];
};

static inline unsigned amx_rows(const struct amx *amx, unsigned tile)
{
	return amx->config[AMX_CONFIG_ROWS + tile];
}

static inline unsigned amx_colsb(const struct amx *amx, unsigned tile)
{
	const uint8_t *colsb = amx->config + AMX_CONFIG_COLSB + 2 * tile;

	return colsb[0] | colsb[1] << 8;
}

static inline uint8_t *amx_row(struct amx *amx, unsigned tile, unsigned row)
{
	return amx->tile[tile] + row * AMX_ROW_BYTES;
}

/* vCPU thread only; vector state may be live. */

/* What LDTILECFG takes. */
bool amx_config_valid(const uint8_t config[AMX_CONFIG_SIZE]);
/* LDTILECFG with a valid configuration, TILERELEASE with NULL. */
void amx_configure(struct amx *amx, const uint8_t *config);
/* Components in use, as bits of XCR0; amx may be NULL. */
uint64_t amx_xinuse(const struct amx *amx);
/*
 * As XRSTOR loads the components: from the bytes of an image, or the initial state with NULL. A configuration that
 * LDTILECFG would refuse is none.
 */
void amx_load_config(struct amx *amx, const uint8_t *image);
void amx_load_data(struct amx *amx, const uint8_t *image);
/* All of the state, no more. */
void amx_copy(struct amx *to, const struct amx *from);
bool amx_same(const struct amx *a, const struct amx *b);

/* Ordinary C. Tiles for this processor, if ->model has them: 0 or -ENOMEM. */
int amx_create(struct cpu *cpu);
void amx_destroy(struct cpu *cpu);

#endif
