; SPDX-License-Identifier: Apache-2.0
; Recursion, strings in a hash table, lists: a collector that moves code and data alike.
(defun fib (n)
  (declare (fixnum n))
  (if (< n 2) n (+ (fib (- n 1)) (fib (- n 2)))))
(let ((seen (make-hash-table :test 'equal)) (lists nil))
  (dotimes (i 2000000)
    (incf (gethash (format nil "k~d" (mod i 5000)) seen 0)))
  (dotimes (round 20)
    (setf lists nil)
    (dotimes (i 500000)
      (push (list i (* 2 i)) lists))
    (setf lists (sort lists #'< :key #'first)))
  (print (list (fib 40) (hash-table-count seen) (length lists))))
