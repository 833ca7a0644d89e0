(* SPDX-License-Identifier: Apache-2.0 *)
(* Recursion, a hash table, sorting. *)
let rec fib n = if n < 2 then n else fib (n - 1) + fib (n - 2)

let () =
  let seen = Hashtbl.create 16 in
  for i = 1 to 4000000 do
    Hashtbl.replace seen (i * 7919 mod 100003) i
  done;
  let sorted = List.sort compare (List.init 1500000 (fun i -> i * 7919 mod 1000003)) in
  Printf.printf "%d %d %d\n" (fib 41) (Hashtbl.length seen) (List.hd sorted)
