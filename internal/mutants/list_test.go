// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"
)

func TestApply(t *testing.T) {
	const source = "func f() {\n\tif a {\n\t\treturn\n\t}\n\tif b {\n\t\treturn\n\t}\n}\n"
	for name, test := range map[string]struct {
		mutant mutant
		want   string // a line of the result; "" with a fault
		fault  string
	}{
		"changed":           {mutant{line: "if b {", instead: "if false {"}, "\tif false {", ""},
		"taken away":        {mutant{line: "if b {"}, "\t", ""},
		"gone":              {mutant{line: "if c {", instead: "x"}, "", "the line is gone"},
		"twice":             {mutant{line: "return", instead: "x"}, "", "occurs 2 times"},
		"twice, with above": {mutant{line: "return", above: "if b {", instead: "panic(1)"}, "\t\tpanic(1)", ""},
		"above is gone":     {mutant{line: "return", above: "if c {", instead: "x"}, "", "above it is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := test.mutant.apply(source)
			if test.fault != "" {
				if err == nil || !strings.Contains(err.Error(), test.fault) {
					t.Errorf("error %v, want %q", err, test.fault)
				}
				return
			}
			if err != nil || !strings.Contains("\n"+got, "\n"+test.want+"\n") || len(strings.Split(got, "\n")) != len(strings.Split(source, "\n")) || got == source {
				t.Errorf("%v:\n%s", err, got)
			}
		})
	}
}

func TestParse(t *testing.T) {
	mutants, err := parse("# words\n\n= a/b.go\n> above\n- old\n+ new\n@ TestX/y z\n- only\n+\n@ TestY\n")
	want := []mutant{{5, "a/b.go", "above", "old", "new", "TestX/y z"}, {8, "a/b.go", "", "only", "", "TestY"}}
	if err != nil || len(mutants) != 2 || mutants[0] != want[0] || mutants[1] != want[1] {
		t.Errorf("%+v, %v", mutants, err)
	}
	for _, bad := range []string{"- x\n+ y\n@ T", "= f\n- x\n+ x\n@ T", "= f\n- x\n+ y\n", "= f\n@ T", "x"} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// TestList: the list is long, and each file in it is there. Whether the lines are is
// for "make mutants" to say, lest each change of a line be a change here.
func TestList(t *testing.T) {
	text, err := os.ReadFile("list.txt")
	if err != nil {
		t.Fatal(err)
	}
	mutants, err := parse(string(text))
	if err != nil || len(mutants) < 80 {
		t.Fatalf("%d mutants, %v", len(mutants), err)
	}
	for _, m := range mutants {
		if _, err := os.Stat("../../" + m.file); err != nil {
			t.Errorf("%s: %v", m, err)
		}
	}
}
