; SPDX-License-Identifier: Apache-2.0
; Recursion and a hash table.
(define (fib n) (if (< n 2) n (+ (fib (- n 1)) (fib (- n 2)))))
(define (fill i table)
  (if (= i 0)
      table
      (begin (hash-set! table (modulo (* i 7919) 100003) i) (fill (- i 1) table))))
(display (list (fib 32) (hash-count (const #t) (fill 1000000 (make-hash-table)))))
