// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// typed are words up to the cursor, the last of them not yet whole, and the candidates for
// it. What they are is left out.
var typed = map[string]struct {
	words []string
	want  []string
}{
	"first letters":     {[]string{"to"}, []string{"token"}},
	"two commands":      {[]string{"key", "per"}, []string{"persist"}},
	"verbs":             {[]string{"key", "un"}, []string{"unpersist"}},
	"flag":              {[]string{"token", "-gr"}, []string{"-grant"}},
	"flag after values": {[]string{"token", "-dpop", "-n", "3", "-resource-a"}, []string{"-resource-attestation"}},
	"value":             {[]string{"attest", "-method", "p"}, []string{"pop"}},
	"value with =":      {[]string{"token", "-grant=d"}, []string{"-grant=device_code"}},
	"store":             {[]string{"key", "list", "-store", "un"}, []string{"unix:"}},
	"key":               {[]string{"key", "show", "-keys", "keys", "-name", "met"}, []string{"meter", "meter-2"}},
	"nothing":           {[]string{"frobnicate", "x"}, nil},
	"no value":          {[]string{"token", "-issuer", "h"}, nil},
	"file":              {[]string{"token", "-ca", "root"}, []string{":files"}},
	"folder":            {[]string{"token", "-keys", "ke"}, []string{":dirs"}},
	"operand":           {[]string{"key", "import", "-name", "k", "wr"}, []string{":files"}},
	"shell":             {[]string{"completion", "f"}, []string{"fish"}},
}

// inTypedFolder makes the folder in which typed is typed.
func inTypedFolder(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.MkdirAll("keys", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"keys/meter.pem", "keys/meter-2.pem", "keys/.seed", "root.pem", "wrapped.pem"} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestComplete(t *testing.T) {
	inTypedFolder(t)
	for name, tt := range typed {
		t.Run(name, func(t *testing.T) {
			r := ok(t, append([]string{completing}, tt.words...)...)
			var got []string
			for line := range strings.Lines(r.stdout) {
				candidate, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
				got = append(got, candidate)
			}
			if slices.Sort(got); !slices.Equal(got, tt.want) || r.stderr != "" {
				t.Errorf("%q: got %q, want %q; %s", tt.words, got, tt.want, r.stderr)
			}
		})
	}
	// Every flag of every command is a candidate.
	for _, c := range commands {
		help := ok(t, append(strings.Fields(c.name), "-h")...).stderr
		list := ok(t, append(append([]string{completing}, strings.Fields(c.name)...), "-")...).stdout
		if n := strings.Count(help, "\n  -"); n == 0 || n != strings.Count(list, "\n") {
			t.Errorf("%s: %d flags, and candidates %q", c.name, n, list)
		}
	}
	if r := ok(t, completing); r.stdout != "" {
		t.Errorf("no word at all: %q", r.stdout)
	}
}

// shells print the candidates for a line, one on a line; $SCRIPT is the script.
var shells = map[string]string{
	"bash": `source "$SCRIPT"
compopt() { :; }
COMP_LINE=$1; COMP_POINT=${#1}
_instancectl instancectl
printf '%s\n' "${COMPREPLY[@]}"`,
	"fish": `source $SCRIPT
complete -C $argv[1] | string replace -r '\t.*' ''`,
	// zsh's own functions want an editor; a terminal with one is for people to try.
	"zsh": `_describe() { print -l -- "${(@)${(@P)argv[3]}%%:[^=]*}"; }
_files() { [[ $1 == -/ ]] && print -l -- ${words[CURRENT]}*(/N) || print -l -- ${words[CURRENT]}*(N); }
source $SCRIPT
words=("${(@s: :)1}"); CURRENT=${#words}
_instancectl`,
}

// TestCompletionInShells: the scripts do in the shells what TestComplete does without.
func TestCompletionInShells(t *testing.T) {
	notOnWindows(t, "such shells")
	folder := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-s -w", "-o", filepath.Join(folder, "instancectl"), ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	t.Setenv("PATH", folder+string(os.PathListSeparator)+os.Getenv("PATH"))
	inTypedFolder(t)
	for shell, script := range shells {
		t.Run(shell, func(t *testing.T) {
			program, err := exec.LookPath(shell)
			if err != nil {
				if os.Getenv("CI") != "" {
					t.Fatal(err)
				}
				t.Skip(err)
			}
			file := writeFile(t, "completion", ok(t, "completion", shell).stdout)
			for name, tt := range typed {
				want := tt.want
				switch {
				case shell == "bash" && name == "value with =":
					want = []string{"device_code"} // bash has cut the word there
				case slices.Equal(want, []string{fileNames}):
					want = []string{map[string]string{"root": "root.pem", "wr": "wrapped.pem"}[tt.words[len(tt.words)-1]]}
				case slices.Equal(want, []string{folderNames}):
					want = []string{"keys"}
				}
				args := []string{"-c", script, shell, "instancectl " + strings.Join(tt.words, " ")}
				if shell == "fish" {
					args = []string{"-c", script, args[3]}
				}
				cmd := exec.CommandContext(t.Context(), program, args...)
				cmd.Env = append(os.Environ(), "SCRIPT="+file, "HOME="+folder)
				out, err := cmd.CombinedOutput()
				var got []string
				for word := range strings.FieldsSeq(string(out)) {
					got = append(got, strings.TrimSuffix(strings.ReplaceAll(word, `\:`, ":"), "/"))
				}
				if slices.Sort(got); !slices.Equal(got, want) {
					t.Errorf("%s: %q: got %q, want %q (%v)", name, args[len(args)-1], got, want, err)
				}
			}
		})
	}
}

func TestCompletionUsage(t *testing.T) {
	for _, args := range [][]string{{"completion"}, {"completion", "powershell"}} {
		if r := instancectl(t, args...); r.status != 2 || !strings.Contains(r.stderr, "bash, zsh or fish") {
			t.Errorf("%q: status %d, %s", args, r.status, r.stderr)
		}
	}
}
