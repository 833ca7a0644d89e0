# SPDX-License-Identifier: Apache-2.0
"""NumPy and its OpenBLAS: matrices, Fourier transforms, sorting."""
import numpy

random = numpy.random.default_rng(1)
a = random.random((1200, 1200))
for _ in range(6):
    a = a @ a
    a /= a.max()
x = random.random(1 << 22)
for _ in range(4):
    x = numpy.abs(numpy.fft.fft(x))
    x /= x.max()
print(a.sum(), x.sum(), numpy.sort(random.random(8000000))[0], numpy.linalg.svd(random.random((500, 500)))[1][0])
