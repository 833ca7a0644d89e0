# SPDX-License-Identifier: Apache-2.0
# A hash, sorting, a regular expression.
my (%seen, $x);
for (1 .. 3000000) {
	$x = ($x * 1103515245 + 12345) & 0x7fffffff;
	$seen{$x % 50000}++;
}
my $text = join ' ', sort keys %seen;
my $found = 0;
for (1 .. 20) {
	$found++ while $text =~ /(\d)(\d)\1/g;
}
print scalar(keys %seen), " $found\n";
