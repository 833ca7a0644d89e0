// SPDX-License-Identifier: Apache-2.0
// Trees for the collector, sorting, a map, threads that talk by a channel.
package main

import (
	"fmt"
	"sort"
	"sync"
)

type tree struct{ left, right *tree }

func grow(depth int) *tree {
	if depth == 0 {
		return &tree{}
	}
	return &tree{grow(depth - 1), grow(depth - 1)}
}

func (t *tree) size() int {
	if t.left == nil {
		return 1
	}
	return 1 + t.left.size() + t.right.size()
}

func main() {
	nodes := 0
	for i := 0; i < 40; i++ {
		nodes += grow(16).size()
	}
	numbers, x := make([]int, 4000000), 1
	for i := range numbers {
		x = (x*1103515245 + 12345) & 0x7fffffff
		numbers[i] = x
	}
	sort.Ints(numbers)
	seen := map[string]int{}
	for i := 0; i < 3000000; i++ {
		seen[fmt.Sprint("k", i%50000)]++
	}
	var done sync.WaitGroup
	work := make(chan int, 16)
	for i := 0; i < 4; i++ {
		done.Add(1)
		go func() {
			for range work {
			}
			done.Done()
		}()
	}
	for i := 0; i < 1000000; i++ {
		work <- i
	}
	close(work)
	done.Wait()
	fmt.Println(nodes, numbers[0], len(seen))
}
