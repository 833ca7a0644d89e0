-- SPDX-License-Identifier: Apache-2.0
-- Recursion, sorting, floating point.
local function fib(n)
	if n < 2 then
		return n
	end
	return fib(n - 1) + fib(n - 2)
end

local numbers, sum = {}, 0.0
for i = 1, 3000000 do
	numbers[i] = i * 7919 % 1000003
end
table.sort(numbers)
for i = 1, 30000000 do
	sum = sum + math.sin(i)
end
print(fib(34), numbers[1], sum)
