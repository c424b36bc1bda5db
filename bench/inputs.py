#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""inputs.py DIR - write what the real programs work on: DIR/input.c, 5,000 lines of C, and DIR/input.sql.

The C is of the kinds that a compiler meets: tables, switches, loops, structures, calls. The SQL has the sections of
SQLite's own speed test: inserts with and without an index, ranges, text search, joins, updates, deletes.
"""
import random, sys

LINES = 5000


def function(number, rng):
    """One function of some 20 lines, in one of four styles."""
    mul, add, mask = rng.randrange(3, 999) | 1, rng.randrange(1, 9999), (1 << rng.randrange(4, 9)) - 1
    call = "f%d(s, x ^ %d)" % (rng.randrange(number), add) if number else "x"
    head = ["long f%d(struct state *s, long x)" % number, "{", "\tlong sum = %d;" % add, ""]
    cases = ["\t\tcase %d:" % k + "\n\t\t\tsum += x * %d + s->field[%d];\n\t\t\tbreak;" % (mul + k, k) for k in range(3)]
    body = [
        ["\tfor (int i = 0; i < %d; i++) {" % (mask + 1), "\t\tswitch ((x + i) & 3) {"] + "\n".join(cases).split("\n") +
        ["\t\tdefault:", "\t\t\tsum ^= i;", "\t\t}", "\t}"],
        ["\tfor (int i = 0; i < 64; i++)", "\t\ts->table[i & %d] = s->table[(i * %d) & 255] ^ x;" % (mask, mul),
         "\tif (s->table[x & 255] > %d)" % add, "\t\tsum += s->table[%d];" % (add & 255), "\telse", "\t\tsum -= x;"],
        ["\tdouble d = x;", "\twhile (d > 1.0) {", "\t\td = d * 0.5 - %d.25;" % (mul & 7), "\t\tsum += (long)d;", "\t}"],
        ["\tchar *p = s->text;", "\twhile (*p && p < s->text + %d) {" % mask, "\t\tif (*p >= 'a' && *p <= 'z')",
         "\t\t\t*p -= 32;", "\t\tsum = sum * %d + *p++;" % mul, "\t}"],
    ][number % 4]
    return head + body + ["\treturn sum + (x > %d ? %s : x);" % (add, call), "}", ""]


def c_lines():
    rng, number = random.Random(1), 0
    lines = ["struct state {", "\tlong field[8], table[256];", "\tchar text[256];", "};", ""]
    while len(lines) < LINES:
        lines += function(number, rng)
        number += 1
    return lines


def sql_lines():
    rng = random.Random(2)
    text = lambda: " ".join(rng.choice("one two three four five six seven eight nine".split()) for _ in range(6))
    yield "BEGIN; CREATE TABLE t1(a INTEGER, b INTEGER, c TEXT);"
    yield from ("INSERT INTO t1 VALUES(%d,%d,'%s');" % (i, rng.randrange(100000), text()) for i in range(12000))
    yield "COMMIT; BEGIN; CREATE TABLE t2(a INTEGER, b INTEGER, c TEXT); CREATE INDEX i2b ON t2(b);"
    yield from ("INSERT INTO t2 VALUES(%d,%d,'%s');" % (i, rng.randrange(100000), text()) for i in range(12000))
    yield "COMMIT;"
    yield from ("SELECT count(*), avg(b) FROM t1 WHERE b BETWEEN %d AND %d;" % (i * 900, i * 900 + 1000) for i in range(60))
    yield from ("SELECT count(*), avg(b) FROM t1 WHERE c LIKE '%%%s%%';" % w for w in "one three five nine".split())
    yield from ("SELECT count(*), avg(b) FROM t2 WHERE b BETWEEN %d AND %d;" % (i * 50, i * 50 + 200) for i in range(2000))
    yield "SELECT count(*), sum(t1.b) FROM t1 JOIN t2 ON t1.b = t2.b;"
    yield "BEGIN;"
    yield from ("UPDATE t2 SET b = b * 2 WHERE b BETWEEN %d AND %d;" % (i * 50, i * 50 + 20) for i in range(1000))
    yield "DELETE FROM t2 WHERE c LIKE '%seven%'; INSERT INTO t2 SELECT b, a, c FROM t1; COMMIT;"
    yield "SELECT a, b, c FROM t2 ORDER BY c, b, a LIMIT 20; SELECT c, count(*) FROM t1 GROUP BY c ORDER BY 2 DESC, 1 LIMIT 20;"


def main():
    for name, lines in (("input.c", c_lines()), ("input.sql", sql_lines())):
        with open("%s/%s" % (sys.argv[1], name), "w", encoding="ascii") as out:
            out.writelines(line + "\n" for line in lines)


main()
