/* SPDX-License-Identifier: MIT */
/*
 * CPUID instructions of the program, where the host has no CPUID faulting: found in the code of the program and its
 * libraries, and made UD2 (one byte differs), which ends in SIGILL and is answered there.
 *
 * A site is one only if it is proven: the bytes 0F A2 are looked for, the function around them is taken from the
 * unwind table (.eh_frame_hdr), and decoding from its start must arrive at them. What is not proven stays, and is
 * counted. The C library and ld.so keep the host's CPUID. Pages are copied on write, so that children inherit and
 * files stay as they are.
 */
#include "front/files.h"

#include <Zydis/Zydis.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>

/* What is known of one loaded object. */
struct object {
	const char *name;
	const uint8_t *base;
	const uint8_t *unwind; /* .eh_frame_hdr */
	const struct dl_phdr_info *info;
};

/* Objects seen, by their base: dlopen() brings new ones. */
#define MAX_SEEN 512
static const uint8_t *seen[MAX_SEEN];
static unsigned nr_seen, nr_sites, nr_unproven;
static pthread_mutex_t seen_lock = PTHREAD_MUTEX_INITIALIZER;

/* The head of .eh_frame_hdr, with the one encoding that linkers make of its table. */
struct unwind_head {
	uint8_t version, frame_enc, count_enc, table_enc;
	int32_t frame;
	uint32_t count;
	struct {
		int32_t start, fde; /* from the head's address */
	} row[];
};

#define ENC_UDATA4	0x03
#define ENC_PC_SDATA4	0x1b
#define ENC_DATA_SDATA4 0x3b

static const struct unwind_head *unwind_of(const struct object *o)
{
	const struct unwind_head *head = (const void *)o->unwind;

	if (!head || head->version != 1 || head->frame_enc != ENC_PC_SDATA4 ||
	    head->count_enc != ENC_UDATA4 || head->table_enc != ENC_DATA_SDATA4)
		return NULL;
	return head;
}

/* The function around addr by the unwind table: its start, and its end in *ret_end; NULL: not known. */
static const uint8_t *function_around(const struct object *o, const uint8_t *addr,
				      const uint8_t **ret_end)
{
	const struct unwind_head *head = unwind_of(o);
	unsigned low = 0, high = head ? head->count : 0;
	const uint8_t *start;
	const int32_t *fde;

	while (low < high) {
		unsigned mid = (low + high) / 2;

		if (o->unwind + head->row[mid].start <= addr)
			low = mid + 1;
		else
			high = mid;
	}
	if (!low)
		return NULL;
	start = o->unwind + head->row[low - 1].start;
	/* Length, CIE, start and size, the start relative to itself in all that compilers make. */
	fde = (const int32_t *)(o->unwind + head->row[low - 1].fde);
	if ((const uint8_t *)&fde[2] + fde[2] != start)
		return NULL;
	*ret_end = start + (uint32_t)fde[3];
	return addr < *ret_end ? start : NULL;
}

/* Decoding from the function's start arrives at a CPUID whose last two bytes are at addr. */
static bool proven(const struct object *o, const uint8_t *addr)
{
	const uint8_t *end = NULL, *at = function_around(o, addr, &end);
	ZydisDecodedInstruction insn;
	ZydisDecoder decoder;

	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	while (at && at <= addr) {
		if (!ZYAN_SUCCESS(
			    ZydisDecoderDecodeInstruction(&decoder, NULL, at, end - at, &insn)))
			return false;
		if (at + insn.length == addr + 2)
			return insn.mnemonic == ZYDIS_MNEMONIC_CPUID;
		at += insn.length;
	}
	return false;
}

static bool make_ud2(const uint8_t *addr)
{
	uint8_t *page = (uint8_t *)((uintptr_t)(addr + 1) & PAGE_MASK);

	if (host_cpuid_site_add(addr))
		return false;
	if (mprotect(page, PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC))
		return false;
	((volatile uint8_t *)addr)[1] = 0x0b;
	mprotect(page, PAGE_SIZE, PROT_READ | PROT_EXEC);
	return true;
}

static void look_through(const struct object *o, const uint8_t *start, size_t size)
{
	const uint8_t *end = start + size, *at = start;

	while ((at = memmem(at, end - at, "\x0f\xa2", 2))) {
		if (proven(o, at) && make_ud2(at))
			nr_sites++;
		else
			nr_unproven++;
		at += 2;
	}
}

/* ld.so, the C library, the kernel's own page; and this library. */
static bool left_alone(const struct dl_phdr_info *info)
{
	const char *name = strrchr(info->dlpi_name, '/');

	name = name ? name + 1 : info->dlpi_name;
	return !strncmp(name, "ld-linux", 8) || !strncmp(name, "libc.so", 7) ||
	       !strncmp(name, "linux-vdso", 10) || !strncmp(name, "libanykvm", 9);
}

static bool first_sight(const struct dl_phdr_info *info)
{
	const uint8_t *mark = (const uint8_t *)info->dlpi_phdr;

	for (unsigned i = 0; i < nr_seen; i++)
		if (seen[i] == mark)
			return false;
	if (nr_seen < MAX_SEEN)
		seen[nr_seen++] = mark;
	return true;
}

static int look_at(struct dl_phdr_info *info, size_t size, void *opaque)
{
	struct object o = {.name = info->dlpi_name, .base = (void *)info->dlpi_addr, .info = info};
	const ElfW(Phdr) *ph = info->dlpi_phdr;

	if (!first_sight(info) || left_alone(info))
		return 0;
	for (unsigned i = 0; i < info->dlpi_phnum; i++)
		if (ph[i].p_type == PT_GNU_EH_FRAME)
			o.unwind = o.base + ph[i].p_vaddr;
	for (unsigned i = 0; i < info->dlpi_phnum; i++)
		if (ph[i].p_type == PT_LOAD && ph[i].p_flags & PF_X && ph[i].p_flags & PF_R)
			look_through(&o, o.base + ph[i].p_vaddr, ph[i].p_filesz);
	return 0;
}

void patch_all(void)
{
	pthread_mutex_lock(&seen_lock);
	dl_iterate_phdr(look_at, NULL);
	pthread_mutex_unlock(&seen_lock);
}

void patch_counts(unsigned *ret_sites, unsigned *ret_unproven)
{
	*ret_sites = nr_sites;
	*ret_unproven = nr_unproven;
}

/* As a jump where there is nothing to do afterwards: the C library looks at who calls. */
__export void *dlopen(const char *name, int flags)
{
	void *handle;

	if (!host_cpuid_patched())
		return door_next()->dlopen(name, flags);
	handle = door_next()->dlopen(name, flags);
	if (handle)
		patch_all();
	return handle;
}
