/* SPDX-License-Identifier: MIT */
/*
 * A tiny machine for tests of silicon/, without kvm/: one vCPU, RAM from gpa 0, a page of ROM, a logging MMIO window, ports
 * that log. The platform is fake and records everything that the processor asks.
 *
 *	struct flat *f = flat_new(FLAT_RAM);
 *	flat_long(f);				// 64-bit mode, identity mapped, CPL 0
 *	flat_code(f, "\x48\xff\xc0\xf4", 4);	// inc rax; hlt
 *	assert(flat_run(f, 100) == CPU_EXIT_HLT);
 *	assert(f->cpu->gpr[RAX] == 1);
 *	flat_free(f);
 *
 * Layout of RAM: below, FLAT_* constants. Everything outside of them is the test's.
 */
#ifndef TESTS_GUEST_FLAT_H
#define TESTS_GUEST_FLAT_H

#include "silicon/cpu/cpu.h"
#include "silicon/mmu/mmu.h"

#define FLAT_RAM	0x1000000ul /* usual size: 16 MiB */
#define FLAT_IVT	0x0	    /* real mode's vectors, 256 * 4 */
#define FLAT_GDT	0x1000
#define FLAT_IDT	0x2000	     /* 256 gates of 8 or 16 bytes */
#define FLAT_TSS	0x4000	     /* 32- or 64-bit; I/O bitmap at its end refuses all */
#define FLAT_HANDLERS	0x6000	     /* vector n's handler: FLAT_HANDLERS + 16 * n, a HLT */
#define FLAT_CODE	0x8000	     /* flat_code() puts code here and points RIP at it */
#define FLAT_STACK	0x20000	     /* top of the CPL 0 stack; grows down to 0x10000 */
#define FLAT_USER_STACK 0x30000	     /* top of the CPL 3 stack */
#define FLAT_TABLES	0x40000	     /* page tables, up to 0x80000 */
#define FLAT_DATA	0x100000     /* free */
#define FLAT_ROM	0xe0000000ul /* one page, f->rom */
#define FLAT_MMIO	0xf0000000ul /* the window, FLAT_MMIO_SIZE bytes; user space answers */
#define FLAT_DEVICE	0xf1000000ul /* a window of the same size that answers in the process */
#define FLAT_MMIO_SIZE	0x10000
#define FLAT_SMRAM	0x10000 /* bytes of f->smram */

/* Selectors of the GDT (flat_real excepted). */
#define FLAT_CS16      0x08
#define FLAT_DS16      0x10
#define FLAT_CS32      0x18
#define FLAT_CS64      0x20 /* SYSCALL's pair: CS and */
#define FLAT_DS32      0x28 /* SS */
#define FLAT_CS32_USER 0x33
#define FLAT_DS_USER   0x3b
#define FLAT_CS64_USER 0x43
#define FLAT_TR	       0x48 /* two slots */

/* Page-table bits. */
#define PTE_P	BIT(0)
#define PTE_W	BIT(1)
#define PTE_U	BIT(2)
#define PTE_PWT BIT(3)
#define PTE_PCD BIT(4)
#define PTE_A	BIT(5)
#define PTE_D	BIT(6)
#define PTE_PS	BIT(7)
#define PTE_G	BIT(8)
#define PTE_NX	BIT(63)

enum flat_event_kind { FLAT_PORT_READ, FLAT_PORT_WRITE, FLAT_MMIO_READ, FLAT_MMIO_WRITE };

struct flat_event {
	enum flat_event_kind kind;
	uint64_t addr;
	unsigned size;
	uint64_t data;
};

#define FLAT_MAX_EVENTS 1024
#define FLAT_MAX_PAGES	8192

struct flat {
	struct cpu *cpu;
	uint8_t *ram;
	size_t ram_size;
	uint8_t *rom; /* one page */
	/* What SMM sees at smram_base instead of RAM, FLAT_SMRAM bytes; NULL: no difference. */
	uint8_t *smram;
	gpa_t smram_base;
	/* What the fake platform was asked, in order (also what user space was). */
	struct flat_event events[FLAT_MAX_EVENTS];
	unsigned nr_events;
	/* Answers: read() of ports, FLAT_MMIO and FLAT_DEVICE; default: all ones. */
	uint64_t (*port_in)(struct flat *f, uint16_t port, unsigned size);
	uint64_t (*mmio_in)(struct flat *f, gpa_t gpa, unsigned size);
	bool ports_exit; /* ports are answered by user space: CPU_EXIT_IO_READ, _WRITES */
	/* Dirty log: while log is set, RAM pages are logged; marked[gfn] counts mark_dirty(). */
	bool log;
	uint32_t marked[FLAT_MAX_PAGES];
	unsigned nr_memory_calls;
	int interrupt; /* pending vector, or -1 */
	unsigned nr_acked;
	uint8_t tpr;
	uint64_t tsc;	    /* advances by 100 with each reading */
	uint64_t msr_value; /* platform MSRs: 0x4000_0000 range reads and writes this one */
	uint64_t doorbell;  /* what was last written to AVIC's */
	gpa_t next_table;   /* allocator of page-table pages */
	void (*free_exec)(struct flat *f); /* flat_run.c */
	/*
	 * The guest may run for ever: ATTN_REQUEST ends cpu_run(), and events beyond the last replace the first.
	 */
	bool endless;
	void *opaque;				    /* the test's */
	void (*on_mark)(struct flat *f, gpa_t gpa); /* also called by mark_dirty() */
};

/* ---- flat.c: the machine ---- */

/* A machine after RESET#, ram_size bytes of zeroed RAM. Aborts where memory is short. */
struct flat *flat_new(size_t ram_size);
void flat_free(struct flat *f);

/* Modes. Each sets all registers for it, CPL 0, interrupts off, RSP at FLAT_STACK, RIP at FLAT_CODE. */
void flat_real(struct flat *f);	  /* CS = 0, IVT and handlers */
void flat_prot16(struct flat *f); /* 16-bit segments, base 0, limit 64 KiB */
void flat_prot32(struct flat *f); /* flat 32-bit, no paging, GDT, IDT, TSS */
void flat_paging32(
	struct flat *f); /* and 2-level paging, the first 4 GiB identity mapped (4 MiB pages) */
void flat_pae(struct flat *f);	/* and PAE paging, the first 4 GiB identity mapped (2 MiB pages) */
void flat_long(struct flat *f); /* 64-bit, 4 GiB identity mapped (2 MiB pages) */
/* Go to CPL 3 of the present mode (not real, not prot16): selectors, stack, IOPL 0. */
void flat_user(struct flat *f);
/*
 * Take the U bit from the first 2 MiB (tables, code, stacks). Everything is mapped for users at first, so with SMEP or
 * SMAP nothing but a triple fault would come of it.
 */
void flat_supervisor(struct flat *f);
/* flat_long() entered compatibility mode: 32-bit code segment. */
void flat_compat(struct flat *f);

/* Put bytes at FLAT_CODE and point RIP there. */
void flat_code(struct flat *f, const void *bytes, size_t size);
void flat_write(struct flat *f, gpa_t gpa, const void *bytes, size_t size);
uint64_t flat_peek(struct flat *f, gpa_t gpa, unsigned size);
void flat_poke(struct flat *f, gpa_t gpa, uint64_t val, unsigned size);

/* ---- page tables (of the present CR3 and mode; the TLB is not flushed) ---- */

/*
 * Map one page at addr to gpa with these leaf bits (PTE_P not implied); upper levels get P, W and U.
 * size is 4 KiB, 2 or 4 MiB, or 1 GiB. A large page in the way is split, keeping its mapping.
 */
void flat_map(struct flat *f, gva_t addr, gpa_t gpa, uint64_t bits, uint64_t size);
/* gpa of the entry for addr at a level: 1 = PTE ... 5; 0 if the walk ends above. */
gpa_t flat_entry(struct flat *f, gva_t addr, unsigned level);
uint64_t flat_get_entry(struct flat *f, gva_t addr, unsigned level);
void flat_set_entry(struct flat *f, gva_t addr, unsigned level, uint64_t val);
/* A zeroed page for tables. */
gpa_t flat_alloc_table(struct flat *f);

/* Set one register and what derives from it, TLB flush included; no checks. */
void flat_set_cr0(struct flat *f, uint64_t val);
void flat_set_cr3(struct flat *f, uint64_t val);
void flat_set_cr4(struct flat *f, uint64_t val);
void flat_set_efer(struct flat *f, uint64_t val);

/* An IDT gate (or IVT entry) that points to addr; dpl 0..3. By default all go to FLAT_HANDLERS. */
void flat_gate(struct flat *f, uint8_t vector, gva_t addr, unsigned dpl);

/* ---- flat_run.c: with exec/ ---- */

/* Give the machine exec/ in the tempo that ANYKVM_TEMPO names; done by the others here. flat_free() takes it back. */
void flat_exec(struct flat *f);

/*
 * Run at most budget instructions. MMIO and port reads that user space must answer are answered by
 * mmio_in() and port_in(), writes are logged; other exits come back. CPU_EXIT_REQUEST: the budget is used up.
 */
enum cpu_exit_kind flat_run(struct flat *f, uint64_t budget);
/* The same, one step of it: the first exit of any kind comes back unanswered. */
enum cpu_exit_kind flat_run_once(struct flat *f, uint64_t budget);
/* Answer cpu->exit (or take cpu->out) as user space would; false if it is not an access. */
bool flat_answer(struct flat *f);
/* The vector whose default handler RIP stands in (after its HLT), or -1. */
int flat_handler(struct flat *f);

#endif
