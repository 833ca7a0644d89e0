// SPDX-License-Identifier: Apache-2.0
// Recursion, a dictionary, sorting: Mono's compiler.
using System;
using System.Collections.Generic;

class Mix
{
	static int Fib(int n)
	{
		return n < 2 ? n : Fib(n - 1) + Fib(n - 2);
	}

	static void Main()
	{
		var seen = new Dictionary<string, int>();
		for (int i = 0; i < 2000000; i++) {
			seen.TryGetValue("k" + i % 100000, out int n);
			seen["k" + i % 100000] = n + 1;
		}
		var random = new Random(1);
		var numbers = new double[4000000];
		for (int i = 0; i < numbers.Length; i++)
			numbers[i] = random.NextDouble();
		Array.Sort(numbers);
		Console.WriteLine($"{Fib(41)} {seen.Count} {numbers[0] < 1}");
	}
}
