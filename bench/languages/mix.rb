# SPDX-License-Identifier: Apache-2.0
# Recursion, a hash, sorting.
def fib(n) = n < 2 ? n : fib(n - 1) + fib(n - 2)

seen = Hash.new(0)
3_000_000.times { |i| seen["k#{i % 1000}"] += 1 }
sorted = (1..1_200_000).map { |i| i * 7919 % 1_000_003 }.sort_by { |v| -v }
puts fib(32), seen.size, sorted[0]
