// SPDX-License-Identifier: Apache-2.0

// Command mutants breaks single lines of the module, one at a time, and runs for each
// the test that has to notice. list.txt has them all, in blocks:
//
//	= FOLDER/FILE.go
//	> a line above the one that is meant, where its text occurs more than once
//	- the line, without its indentation
//	+ what is put in its place; nothing if the line is only taken away
//	@ the test that fails then, in the same package; with a slash, its subtest
//
// A mutant that the test does not notice has survived, and mutants fails: a line that
// nobody would miss is not tested. It also fails where a line is no more, or a mutant
// does not build: who changes the line looks for what would be its mutant now.
// The tree is left as it is; go's -overlay shows the changed file to the compiler.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	root := flag.String("root", ".", "`folder` of the module")
	list := flag.String("list", "internal/mutants/list.txt", "`file` with the mutants, in the module")
	only := flag.String("only", "", "only those whose file, line or test match this `regexp`")
	parallel := flag.Int("parallel", 2, "how `many` at a time")
	find := flag.Bool("find", false, "run all tests of the package, and say which fail")
	check := flag.Bool("check", false, "only see whether each line is there")
	flag.Parse()

	text, err := os.ReadFile(filepath.Join(*root, *list))
	if err != nil {
		return err
	}
	mutants, err := parse(string(text))
	if err != nil {
		return err
	}
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	mutants = slices.DeleteFunc(mutants, func(m mutant) bool { return !pattern.MatchString(m.String()) })
	if len(mutants) == 0 {
		return fmt.Errorf("none matches %s", *only)
	}

	bench := &bench{root: *root, find: *find}
	if bench.dir, err = os.MkdirTemp("", "mutants"); err != nil {
		return err
	}
	defer os.RemoveAll(bench.dir)
	start := time.Now()
	results := make([]result, len(mutants))
	for i, m := range mutants {
		results[i].mutant = m
		_, results[i].err = bench.mutated(m)
	}
	if !*check {
		if !*find {
			bench.healthy(ctx, results, *parallel)
		}
		each(*parallel, results, func(r *result) {
			if r.err == nil && ctx.Err() == nil {
				r.verdict, r.detail, r.err = bench.try(ctx, r.mutant)
				fmt.Printf("%-9s %s%s\n", r.verdict, r.mutant, r.detail)
			}
		})
	}
	return summary(ctx, results, time.Since(start))
}

// each calls f for each result, so many at a time.
func each(parallel int, results []result, f func(*result)) {
	var workers sync.WaitGroup
	next := make(chan *result)
	for range max(1, parallel) {
		workers.Go(func() {
			for r := range next {
				f(r)
			}
		})
	}
	for i := range results {
		next <- &results[i]
	}
	close(next)
	workers.Wait()
}

// summary tells what has to be done, and fails if that is anything.
func summary(ctx context.Context, results []result, took time.Duration) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	counts := make(map[string]int)
	var bad []string
	for _, r := range results {
		switch {
		case r.err != nil:
			bad = append(bad, fmt.Sprintf("%s: %v", r.mutant, r.err))
		case r.verdict == survived:
			bad = append(bad, fmt.Sprintf("%s: survived", r.mutant))
		}
		counts[r.verdict]++
	}
	fmt.Printf("%d mutants, %d killed, %d survived, %d not tried, in %s\n", len(results),
		counts[killed], counts[survived], len(results)-counts[killed]-counts[survived], took.Round(time.Second))
	if len(bad) > 0 {
		return fmt.Errorf("%d to look after:\n%s", len(bad), strings.Join(bad, "\n"))
	}
	return nil
}
