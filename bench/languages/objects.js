// SPDX-License-Identifier: Apache-2.0
// Objects to JSON and back, a map, regular expressions: much garbage.
let found = 0;
for (let round = 0; round < 12; round++) {
	const made = [];
	for (let i = 0; i < 120000; i++)
		made.push({ id: i, name: "n" + i, tags: [i, i * 2, "x" + (i % 7)] });
	const text = JSON.stringify(made);
	const byName = new Map(JSON.parse(text).map((e) => [e.name, e]));
	for (const word of text.match(/"n\d+"/g))
		found += byName.has(word.slice(1, -1));
}
console.log(found);
