// SPDX-License-Identifier: Apache-2.0
// Recursion, a hash map, sorting, a string: compiled as it runs.
import java.util.Arrays;
import java.util.HashMap;
import java.util.Random;

public class Mix {
	static int fib(int n) {
		return n < 2 ? n : fib(n - 1) + fib(n - 2);
	}

	public static void main(String[] args) {
		HashMap<String, Integer> map = new HashMap<>();
		for (int i = 0; i < 5000000; i++)
			map.merge("k" + i % 200000, 1, Integer::sum);
		long[] numbers = new long[3000000];
		Random random = new Random(1);
		for (int round = 0; round < 4; round++) {
			Arrays.setAll(numbers, i -> random.nextLong());
			Arrays.sort(numbers);
		}
		StringBuilder text = new StringBuilder();
		for (int i = 0; i < 8000000; i++)
			text.append((char) ('a' + i % 26));
		System.out.println(fib(42) + " " + map.size() + " " + numbers[0] + " " + text.toString().hashCode());
	}
}
