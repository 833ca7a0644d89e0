// SPDX-License-Identifier: Apache-2.0
// A million numbers sorted as strings, as JavaScript does unless told otherwise.
let x = 12345;
const a = Array.from({ length: 1000000 }, () => (x = (Math.imul(x, 1103515245) + 12345) & 0x7fffffff));
a.sort();
console.log(a[0], a[a.length - 1]);
