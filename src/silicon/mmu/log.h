/* SPDX-License-Identifier: MIT */
/*
 * A log of a vCPU's writes to RAM, kept before they are made, so that they can be undone, made again by other
 * means, and compared (lock-step: docs/run.md). Room header of mmu/, for exec/ too.
 *
 * A TLB with ->log set hands out no write tags while the log records, so that each write takes the slow path and
 * is noted. Whole lines are compared, and so a write that is too wide is seen; only the bytes that were
 * written are undone. Accessed and dirty bits may be set earlier or later, for each TLB has walked at another time:
 * pages in which they were set are remembered, and a difference of nothing but them is none.
 *
 * vCPU thread only, general registers only.
 */
#ifndef SILICON_MMU_LOG_H
#define SILICON_MMU_LOG_H

#include "silicon/mmu/mmu.h"

#define MMU_LOG_ENTRIES 1024u
#define MMU_LOG_BYTES	(128u << 10)
#define MMU_LOG_LINE	64u
#define MMU_LOG_TABLES	1024u /* bits of a hash */

struct mmu_logged {
	uint8_t *hva;
	gva_t addr; /* linear; of what the processor itself writes: 0 */
	gpa_t gpa;
	uint32_t size;
	uint32_t at; /* of its lines in the buffers */
};

struct mmu_log {
	bool recording;
	bool over; /* not all was noted: this cannot be undone */
	uint32_t nr;
	uint32_t used;
	uint64_t tables[MMU_LOG_TABLES / 64]; /* by hashed host page */
	struct mmu_logged entry[MMU_LOG_ENTRIES];
	uint8_t old[MMU_LOG_BYTES];  /* lines before the first write */
	uint8_t made[MMU_LOG_BYTES]; /* and after the last */
};

/* A difference that was found. */
struct mmu_log_difference {
	const struct mmu_logged *entry;
	const uint8_t *hva; /* of 8 aligned bytes in or beside it */
	uint64_t made, now;
};

/* Forget the old and record. */
void mmu_log_begin(struct mmu_log *log);
/* True if an instruction more may be too much. */
bool mmu_log_full(const struct mmu_log *log);
/* Stop recording, keep what was made, and undo it. */
void mmu_log_end(struct mmu_log *log);
/* Undo again what has been made anew since. */
void mmu_log_undo(const struct mmu_log *log);
/* True if memory is as it was at mmu_log_end(), before it undid. */
bool mmu_log_same(const struct mmu_log *log, struct mmu_log_difference *ret);

/* ---- for the room; log may be NULL ---- */

/* Before a write to RAM. */
void mmu_log_write(struct mmu_log *log, uint8_t *hva, gva_t addr, gpa_t gpa, uint32_t size);
/* Before accessed or dirty bits are set. */
void mmu_log_table(struct mmu_log *log, uint8_t *hva, gpa_t gpa, uint32_t size);

static inline bool mmu_log_recording(const struct mmu_log *log)
{
	return unlikely(log && log->recording);
}

#endif
