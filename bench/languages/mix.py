# SPDX-License-Identifier: Apache-2.0
"""Recursion, a dictionary, sorting."""


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


seen = {}
for i in range(6000000):
    seen[i * 7919 % 100003] = seen.get(i % 1000, 0) + 1
words = sorted(str(i * 7919 % 1000003) for i in range(2000000))
print(fib(35), len(seen), words[0])
