/* SPDX-License-Identifier: MIT */
/* The log of log.h. The program may take its memory away at any time: then what is there counts as zeros. */
#include "silicon/mmu/log.h"
#include "host/guard.h"
#include "host/host.h"

#include <string.h>

#define RECENT 16u
#define AD_BITS \
	0x6000000360ull /* accessed and dirty, of one entry of 8 bytes or two of 4, and EPT's */
#define MOST	 (PAGE_SIZE + 2 * MMU_LOG_LINE)
#define PER_INSN 8u /* entries and largest accesses that one instruction may bring */

static uint8_t *line_of(const struct mmu_logged *e)
{
	return (uint8_t *)ALIGN_DOWN((uintptr_t)e->hva, (uintptr_t)MMU_LOG_LINE);
}

static uint32_t lines_size(const struct mmu_logged *e)
{
	return (uint8_t *)ALIGN_UP((uintptr_t)e->hva + e->size, (uintptr_t)MMU_LOG_LINE) -
	       line_of(e);
}

static void fetch_lines(const struct mmu_logged *e, uint8_t *buf)
{
	if (!host_copy_guarded(buf + e->at, line_of(e), lines_size(e)))
		memset(buf + e->at, 0, lines_size(e));
}

void mmu_log_begin(struct mmu_log *log)
{
	log->recording = true;
	log->over = false;
	log->nr = 0;
	log->used = 0;
}

bool mmu_log_full(const struct mmu_log *log)
{
	return log->nr + 64 * PER_INSN > MMU_LOG_ENTRIES ||
	       log->used + PER_INSN * MOST > MMU_LOG_BYTES;
}

void mmu_log_end(struct mmu_log *log)
{
	log->recording = false;
	for (uint32_t i = 0; i < log->nr; i++)
		fetch_lines(&log->entry[i], log->made);
	mmu_log_undo(log);
}

/* The oldest bytes last: they are what was there before all. */
void mmu_log_undo(const struct mmu_log *log)
{
	for (uint32_t i = log->nr; i-- > 0;) {
		const struct mmu_logged *e = &log->entry[i];

		(void)host_copy_guarded(e->hva, log->old + e->at + (e->hva - line_of(e)), e->size);
	}
}

/* ---- noting ---- */

static bool noted_lately(const struct mmu_log *log, const uint8_t *hva, uint32_t size)
{
	for (uint32_t i = log->nr; i-- > 0 && i + RECENT > log->nr;)
		if (log->entry[i].hva == hva && log->entry[i].size == size)
			return true;
	return false;
}

void mmu_log_write(struct mmu_log *log, uint8_t *hva, gva_t addr, gpa_t gpa, uint32_t size)
{
	struct mmu_logged *e;

	if (!mmu_log_recording(log) || noted_lately(log, hva, size))
		return;
	if (log->nr == MMU_LOG_ENTRIES || log->used + MOST > MMU_LOG_BYTES) {
		log->over = true;
		return;
	}
	e = &log->entry[log->nr++];
	*e = (struct mmu_logged){
		.hva = hva, .addr = addr, .gpa = gpa, .size = size, .at = log->used};
	log->used += lines_size(e);
	fetch_lines(e, log->old);
}

static unsigned table_hash(const uint8_t *hva)
{
	return ((uintptr_t)hva >> PAGE_SHIFT) * 0x9e3779b97f4a7c15ull >> 54;
}

void mmu_log_table(struct mmu_log *log, uint8_t *hva, gpa_t gpa, uint32_t size)
{
	unsigned hash = table_hash(hva);

	if (!log)
		return;
	log->tables[hash / 64] |= BIT(hash % 64);
	mmu_log_write(log, hva, 0, gpa, size);
}

/* ---- comparing ---- */

static bool tolerated(const struct mmu_log *log, const uint8_t *hva, uint64_t diff)
{
	unsigned hash = table_hash(hva);

	return !(diff & ~AD_BITS) && (log->tables[hash / 64] >> hash % 64 & 1);
}

static bool lines_same(const struct mmu_log *log, const struct mmu_logged *e,
		       struct mmu_log_difference *ret)
{
	const uint8_t *hva = line_of(e);

	for (uint32_t i = 0; i < lines_size(e); i += 8) {
		uint64_t now = 0, made;

		memcpy(&made, log->made + e->at + i, 8);
		(void)host_load_64(hva + i, &now);
		if (made == now || tolerated(log, hva + i, made ^ now))
			continue;
		*ret = (struct mmu_log_difference){
			.entry = e, .hva = hva + i, .made = made, .now = now};
		return false;
	}
	return true;
}

bool mmu_log_same(const struct mmu_log *log, struct mmu_log_difference *ret)
{
	for (uint32_t i = 0; i < log->nr; i++)
		if (!lines_same(log, &log->entry[i], ret))
			return false;
	return true;
}
