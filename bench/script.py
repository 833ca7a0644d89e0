# SPDX-License-Identifier: Apache-2.0
"""The Python workload: attribute access, floats, dictionaries, strings, sorting. script.py SCALE"""
import sys


class Body:
    def __init__(self, x, v):
        self.x, self.v = x, v


def orbit(steps):
    bodies = [Body(float(i), 0.0) for i in range(6)]
    for _ in range(steps):
        for a in bodies:
            pull = 0.0
            for b in bodies:
                if a is not b:
                    d = b.x - a.x
                    pull += d / (d * d + 0.1)
            a.v += pull * 0.001
        for a in bodies:
            a.x += a.v * 0.001
    return sum(b.x for b in bodies)


def words(count):
    table = {}
    state = 1
    for _ in range(count):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        key = "w%d" % (state % 5003)
        table[key] = table.get(key, 0) + 1
    return ",".join(sorted(table, key=lambda k: (-table[k], k)))[:40]


def queens(n, row=0, columns=0, left=0, right=0):
    if row == n:
        return 1
    found = 0
    free = ~(columns | left | right) & ((1 << n) - 1)
    while free:
        bit = free & -free
        free ^= bit
        found += queens(n, row + 1, columns | bit, (left | bit) << 1, (right | bit) >> 1)
    return found


scale = float(sys.argv[1])
orbit(int(120000 * scale) + 1)
words(int(2000000 * scale) + 1)
for _ in range(max(1, int(24 * scale))):
    queens(8)
