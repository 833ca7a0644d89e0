// SPDX-License-Identifier: Apache-2.0
// Much for a compiler to do.
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <random>
#include <regex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

int main()
{
	std::map<std::string, std::vector<int>> lists;
	std::unordered_map<int, std::string> names;
	std::function<int(int)> plus = [&](int x) { return x + (int)names.size(); };
	std::vector<int> numbers(10);
	std::set<double> seen;
	std::mt19937 random;

	std::sort(numbers.begin(), numbers.end(), [](int a, int b) { return a > b; });
	std::cout << std::regex_match("abcd", std::regex("a(b|c)*d")) << lists.size() << '\n';
	return plus((int)seen.size()) + (int)random();
}
