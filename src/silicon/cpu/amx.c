/* SPDX-License-Identifier: MIT */
/* Tiles as state: configured, released, moved to and from XSAVE images. What computes with them is in exec/. */
#include "silicon/cpu/amx.h"
#include "silicon/cpu/cpu.h"

#include <string.h>

#define PALETTES 2 /* none, and the one that there is */
#define RESERVED 2 /* first reserved byte, up to the shapes */

static bool is_zero(const uint8_t *bytes, unsigned from, unsigned to)
{
	uint8_t any = 0;

	for (unsigned i = from; i < to; i++)
		any |= bytes[i];
	return !any;
}

static bool shape_valid(unsigned rows, unsigned colsb)
{
	return rows <= AMX_ROWS && colsb <= AMX_ROW_BYTES && !rows == !colsb;
}

/* Palette 0 asks for no tiles, whatever else there is. */
bool amx_config_valid(const uint8_t config[AMX_CONFIG_SIZE])
{
	const uint8_t *colsb = config + AMX_CONFIG_COLSB, *rows = config + AMX_CONFIG_ROWS;

	if (!config[AMX_CONFIG_PALETTE])
		return true;
	if (config[AMX_CONFIG_PALETTE] >= PALETTES ||
	    !is_zero(config, RESERVED, AMX_CONFIG_COLSB) ||
	    !is_zero(config, AMX_CONFIG_COLSB + 2 * AMX_TILES, AMX_CONFIG_ROWS) ||
	    !is_zero(config, AMX_CONFIG_ROWS + AMX_TILES, AMX_CONFIG_SIZE))
		return false;
	for (unsigned i = 0; i < AMX_TILES; i++)
		if (!shape_valid(rows[i], colsb[2 * i] | colsb[2 * i + 1] << 8))
			return false;
	return true;
}

static void set_config(struct amx *amx, const uint8_t *config)
{
	if (config && config[AMX_CONFIG_PALETTE])
		memcpy(amx->config, config, sizeof(amx->config));
	else
		memset(amx->config, 0, sizeof(amx->config));
}

void amx_configure(struct amx *amx, const uint8_t *config)
{
	set_config(amx, config);
	if (amx->data)
		memset(amx->tile, 0, sizeof(amx->tile));
	amx->data = false;
}

uint64_t amx_xinuse(const struct amx *amx)
{
	if (!amx)
		return 0;
	return (amx->config[AMX_CONFIG_PALETTE] ? XCR0_TILECFG : 0) |
	       (amx->data ? XCR0_TILEDATA : 0);
}

void amx_load_config(struct amx *amx, const uint8_t *image)
{
	set_config(amx, image && amx_config_valid(image) ? image : NULL);
}

void amx_load_data(struct amx *amx, const uint8_t *image)
{
	if (image)
		memcpy(amx->tile, image, sizeof(amx->tile));
	else if (amx->data)
		memset(amx->tile, 0, sizeof(amx->tile));
	amx->data = image;
}

void amx_copy(struct amx *to, const struct amx *from)
{
	memcpy(to->config, from->config, sizeof(to->config));
	amx_load_data(to, from->data ? from->tile[0] : NULL);
}

bool amx_same(const struct amx *a, const struct amx *b)
{
	return !memcmp(a->config, b->config, sizeof(a->config)) && a->data == b->data &&
	       (!a->data || !memcmp(a->tile, b->tile, sizeof(a->tile)));
}
