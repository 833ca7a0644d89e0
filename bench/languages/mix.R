# SPDX-License-Identifier: Apache-2.0
# Matrices, a loop, sorting, a fit.
set.seed(1)
a <- matrix(rnorm(490000), 700)
for (i in 1:4) b <- solve(a) %*% a
s <- 0
for (i in 1:8000000) s <- s + i %% 7
x <- sort(rnorm(4e6))
print(c(dim(b), s, x[1] < 0, coef(lm(x[1:300000] ~ seq_len(300000)))[2] > 0))
