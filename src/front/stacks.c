/* SPDX-License-Identifier: MIT */
/*
 * Samples of where guests are, as folded stacks: what flamegraph.pl, inferno and speedscope read. Addresses get names from
 * symbol files in any of the forms that people have: an ELF file with a symbol table (vmlinux), System.map or
 * /proc/kallsyms of the guest, a perf map of code made at run time.
 */
#include "front/trace.h"

#include <ctype.h>
#include <elf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct symbol {
	uint64_t start, size; /* size 0: up to the next one */
	char *name;
};

struct stacks {
	struct symbol *symbols;
	size_t nr_symbols;
	bool sorted;
	char **lines;
	size_t nr_lines;
};

static void *grow(void *v, size_t nr, size_t size)
{
	/* At powers of two. */
	if (nr & (nr - 1))
		return v;
	v = realloc(v, (nr ? nr * 2 : 1) * size);
	if (!v)
		exit(launcher_error("out of memory"));
	return v;
}

struct stacks *stacks_new(void)
{
	struct stacks *s = calloc(1, sizeof(*s));

	if (!s)
		exit(launcher_error("out of memory"));
	return s;
}

/* ---- symbols ---- */

static void add_symbol(struct stacks *s, uint64_t start, uint64_t size, const char *name)
{
	s->symbols = grow(s->symbols, s->nr_symbols, sizeof(*s->symbols));
	s->symbols[s->nr_symbols++] = (struct symbol){start, size, strdup(name)};
	s->sorted = false;
}

static bool inside(uint64_t at, uint64_t size, uint64_t all)
{
	return at <= all && size <= all - at;
}

static void add_elf_table(struct stacks *s, const uint8_t *file, uint64_t size,
			  const Elf64_Shdr *table, const Elf64_Shdr *names)
{
	const Elf64_Sym *sym = (const void *)(file + table->sh_offset);

	if (!inside(table->sh_offset, table->sh_size, size) ||
	    !inside(names->sh_offset, names->sh_size, size) || !names->sh_size ||
	    file[names->sh_offset + names->sh_size - 1])
		return;
	for (uint64_t i = 0; i < table->sh_size / sizeof(*sym); i++)
		if (ELF64_ST_TYPE(sym[i].st_info) == STT_FUNC && sym[i].st_value &&
		    sym[i].st_name < names->sh_size)
			add_symbol(s, sym[i].st_value, sym[i].st_size,
				   (const char *)file + names->sh_offset + sym[i].st_name);
}

static void add_elf(struct stacks *s, const uint8_t *file, uint64_t size)
{
	const Elf64_Ehdr *ehdr = (const void *)file;
	const Elf64_Shdr *sh;

	if (size < sizeof(*ehdr) || ehdr->e_ident[EI_CLASS] != ELFCLASS64 || ehdr->e_shoff % 8 ||
	    !inside(ehdr->e_shoff, (uint64_t)ehdr->e_shnum * sizeof(*sh), size))
		return;
	sh = (const void *)(file + ehdr->e_shoff);
	for (unsigned i = 0; i < ehdr->e_shnum; i++)
		if (sh[i].sh_type == SHT_SYMTAB && sh[i].sh_link < ehdr->e_shnum)
			add_elf_table(s, file, size, &sh[i], &sh[sh[i].sh_link]);
}

/*
 * "ADDRESS LETTER NAME" of System.map and kallsyms, or "START SIZE NAME" of a perf map, where the second word is a number
 * of more than one digit somewhere.
 */
struct text_line {
	unsigned long long start;
	char second[20], name[256];
};

static void add_map_line(struct stacks *s, const struct text_line *l)
{
	add_symbol(s, l->start, strtoull(l->second, NULL, 16), l->name);
}

static void add_kallsyms_line(struct stacks *s, const struct text_line *l)
{
	if (strchr("tTwW", l->second[0]))
		add_symbol(s, l->start, 0, l->name);
}

static bool map_seen;

static void look_for_map(struct stacks *s, const struct text_line *l)
{
	map_seen |= l->second[1] != 0;
}

static void each_line(struct stacks *s, const char *file, uint64_t size,
		      void (*call)(struct stacks *s, const struct text_line *l))
{
	struct text_line l;
	char line[320];

	while (size) {
		const char *end = memchr(file, '\n', size);
		size_t len = end ? (size_t)(end - file) : size;

		snprintf(line, sizeof(line), "%.*s", (int)min(len, sizeof(line) - 1), file);
		if (sscanf(line, "%llx %19s %255s", &l.start, l.second, l.name) == 3 && l.start)
			call(s, &l);
		len += !!end;
		file += len;
		size -= len;
	}
}

static void add_text(struct stacks *s, const char *file, uint64_t size)
{
	map_seen = false;
	each_line(s, file, size, look_for_map);
	each_line(s, file, size, map_seen ? add_map_line : add_kallsyms_line);
}

/* Files below /proc tell no size, so it is read to its end. */
static char *read_file(const char *path, uint64_t *ret_size)
{
	FILE *f = fopen(path, "re");
	char *text = NULL;
	size_t got = 0, n;

	if (!f)
		return NULL;
	do {
		text = realloc(text, got + (1 << 20));
		if (!text)
			exit(launcher_error("out of memory"));
		n = fread(text + got, 1, 1 << 20, f);
		got += n;
	} while (n);
	if (ferror(f)) {
		free(text);
		text = NULL;
	}
	fclose(f);
	*ret_size = got;
	return text;
}

int stacks_symbols(struct stacks *s, const char *path)
{
	size_t before = s->nr_symbols;
	uint64_t size = 0;
	char *file = read_file(path, &size);

	if (!file)
		return launcher_error("cannot read %s: %s", path, strerror(errno));
	if (size > SELFMAG && !memcmp(file, ELFMAG, SELFMAG))
		add_elf(s, (uint8_t *)file, size);
	else
		add_text(s, file, size);
	free(file);
	if (s->nr_symbols == before)
		return launcher_error("%s has no symbols of functions; give a vmlinux, a "
				      "System.map or kallsyms, or a perf map",
				      path);
	return 0;
}

static int by_start(const void *a, const void *b)
{
	const struct symbol *x = a, *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

static const char *name_of(struct stacks *s, uint64_t addr)
{
	size_t lo = 0, hi = s->nr_symbols;
	const struct symbol *sym;

	if (!s->sorted && s->nr_symbols)
		qsort(s->symbols, s->nr_symbols, sizeof(*s->symbols), by_start);
	s->sorted = true;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (s->symbols[mid].start <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo)
		return NULL;
	sym = &s->symbols[lo - 1];
	return sym->size && addr - sym->start >= sym->size ? NULL : sym->name;
}

/* ---- stacks ---- */

static void print_frame(struct stacks *s, FILE *f, uint64_t addr)
{
	const char *name = name_of(s, addr);

	if (name)
		fprintf(f, ";%s", name);
	else
		fprintf(f, ";0x%llx", (unsigned long long)addr);
}

void stacks_add(struct stacks *s, const struct ev_sample *sample)
{
	unsigned nr = min(sample->nr, 0u + WATCH_MAX_FRAMES);
	char *line = NULL;
	size_t size;
	FILE *f = open_memstream(&line, &size);

	if (!f)
		exit(launcher_error("out of memory"));
	fprintf(f, "vcpu%u;%s", sample->vcpu_id, sample->cpl == 3 ? "user" : "kernel");
	/* A return address lies behind its call. */
	for (unsigned i = nr; i--;)
		print_frame(s, f, sample->rip[i] - (i > 0));
	fclose(f);
	s->lines = grow(s->lines, s->nr_lines, sizeof(*s->lines));
	s->lines[s->nr_lines++] = line;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int stacks_write(struct stacks *s, const char *path)
{
	struct whole w;
	size_t i, same;

	if (!whole_open(&w, path))
		return launcher_error("cannot write %s: %s", path, strerror(errno));
	if (s->nr_lines)
		qsort(s->lines, s->nr_lines, sizeof(*s->lines), by_text);
	for (i = 0; i < s->nr_lines; i += same) {
		for (same = 1; i + same < s->nr_lines && !strcmp(s->lines[i], s->lines[i + same]);
		     same++)
			;
		fprintf(w.f, "%s %zu\n", s->lines[i], same);
	}
	if (whole_close(&w, true))
		return 0;
	return launcher_error("cannot write %s: %s; it is not kept", path, strerror(errno));
}
