<?php
// SPDX-License-Identifier: Apache-2.0
// Recursion, an array, a string.
ini_set('memory_limit', '1G');

function fib($n)
{
	return $n < 2 ? $n : fib($n - 1) + fib($n - 2);
}

$seen = [];
for ($i = 0; $i < 2000000; $i++) {
	$seen["k" . $i * 7919 % 1000003] = $i;
}
ksort($seen);
$text = '';
for ($i = 0; $i < 3000000; $i++) {
	$text .= chr(97 + $i % 26);
}
echo fib(33), " ", count($seen), " ", md5($text), " ", preg_match_all('/a.c/', $text), "\n";
