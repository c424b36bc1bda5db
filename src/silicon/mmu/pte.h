/* SPDX-License-Identifier: MIT */
/*
 * Bits of page-table entries (SDM and APM, paging), as the tables of a processor and nested paging's have them. EPT's
 * are its own.
 */
#ifndef SILICON_MMU_PTE_H
#define SILICON_MMU_PTE_H

#include "silicon/cpu/types.h"

#define PTE_P	 BIT(0)
#define PTE_W	 BIT(1)
#define PTE_U	 BIT(2)
#define PTE_A	 BIT(5)
#define PTE_D	 BIT(6)
#define PTE_PS	 BIT(7)
#define PTE_G	 BIT(8)
#define PTE_NX	 BIT(63)
#define PTE_ADDR GENMASK(51, 12)

#define PTE_PK_SHIFT 59

/* Of 5-level paging, the deepest. */
#define PTE_LEVELS 5

#endif
