// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// completing is the command that the scripts of completion call, with the words up to the
// cursor. It prints the candidates for the last of them, one on a line, each with a tab and
// what it is, and perhaps a line that has a shell complete files or folders.
const (
	completing  = "__complete"
	fileNames   = ":files"
	folderNames = ":dirs"
)

// values are those of flags that have a few. Others say by the name of their value what it
// is.
var values = map[string][]string{
	"alg":                  {"ES256", "ES384"},
	"grant":                {grantClient, grantRefresh, grantDevice},
	"method":               {"auto", "pop", "dpop"},
	"profile":              {"draft-12", "draft-10", "oid4vci-1", "keycloak"},
	"resource-attestation": {"listed", "always", "never"},
	"store":                {"simulator", "soft", "tcp:", "unix:", "swtpm:path="},
}

// complete prints the candidates for the last word.
func (p *program) complete(words []string) {
	if len(words) == 0 {
		return
	}
	for _, c := range candidates(words[:len(words)-1], words[len(words)-1]) {
		fmt.Fprintln(p.stdout, c)
	}
}

// candidates returns those for word, which follows before.
func candidates(before []string, word string) []string {
	c, rest := find(before)
	if c == nil {
		return commandNames(before, word)
	}
	fs, operand := c.flags()
	if fs == nil {
		return nil
	}
	if name, prefix, is := strings.Cut(word, "="); is && strings.HasPrefix(name, "-") {
		return prefixed(name+"=", flagValues(fs.Lookup(strings.TrimLeft(name, "-")), rest, prefix))
	}
	if f := waiting(fs, rest); f != nil {
		return flagValues(f, rest, word)
	}
	if strings.HasPrefix(word, "-") || operand == "" {
		return flagNames(fs, word)
	}
	if c.name == "completion" {
		return matching([]string{"bash", "zsh", "fish"}, word)
	}
	return []string{fileNames}
}

// commandNames returns the words of commands that follow before.
func commandNames(before []string, word string) (list []string) {
	typed := strings.Join(before, " ")
	for _, c := range commands {
		if typed != "" && !strings.HasPrefix(c.name, typed+" ") {
			continue
		}
		next, _, more := strings.Cut(strings.TrimPrefix(c.name[len(typed):], " "), " ")
		about := c.summary
		if more {
			about = "manage keys"
		}
		if candidate := next + "\t" + about; strings.HasPrefix(next, word) && !slices.Contains(list, candidate) {
			list = append(list, candidate)
		}
	}
	return list
}

// flags returns a command's flags, and what has to follow them.
func (c *command) flags() (fs *flag.FlagSet, operand string) {
	p := &program{stdout: new(strings.Builder), stderr: new(strings.Builder)}
	p.log = newLog(p.stderr)
	p.parsed = func(set *flag.FlagSet, missing string) { fs, operand = set, missing }
	_ = c.run(context.Background(), p, nil) // ends where the flags are parsed
	return fs, operand
}

// waiting returns the flag whose value the next word is; nil if none waits.
func waiting(fs *flag.FlagSet, words []string) *flag.Flag {
	for i := 0; i < len(words); i++ {
		name := strings.TrimLeft(words[i], "-")
		f := fs.Lookup(name)
		if f == nil || name == words[i] || isBool(f) {
			continue
		}
		if i++; i == len(words) {
			return f
		}
	}
	return nil
}

func isBool(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

func flagNames(fs *flag.FlagSet, word string) (list []string) {
	fs.VisitAll(func(f *flag.Flag) {
		if _, usage := flag.UnquoteUsage(f); strings.HasPrefix("-"+f.Name, word) {
			list = append(list, "-"+f.Name+"\t"+brief(usage))
		}
	})
	return list
}

// brief returns so much of a text as stands beside a candidate.
func brief(text string) string {
	const most = 70
	if characters := []rune(text); len(characters) > most {
		return string(characters[:most-1]) + "…"
	}
	return text
}

func flagValues(f *flag.Flag, words []string, prefix string) []string {
	if f == nil {
		return nil
	}
	switch kind, _ := flag.UnquoteUsage(f); {
	case f.Name == "store":
		devices, _ := filepath.Glob("/dev/tpm*")
		if list := matching(append(devices, values["store"]...), prefix); len(list) > 0 {
			return list
		}
		return []string{fileNames}
	case values[f.Name] != nil:
		return matching(values[f.Name], prefix)
	case f.Name == "name":
		return matching(keyNames(words), prefix)
	case kind == "file":
		return []string{fileNames}
	case kind == "folder":
		return []string{folderNames}
	}
	return nil
}

// keyNames returns the names of keys in -keys. No store is opened for it.
func keyNames(words []string) (names []string) {
	folder := os.Getenv("INSTANCEKEY_KEYS")
	for i, word := range words {
		switch name, value, is := strings.Cut(word, "="); {
		case strings.TrimLeft(name, "-") != "keys" || name == "keys":
		case is:
			folder = value
		case i+1 < len(words):
			folder = words[i+1]
		}
	}
	if folder == "" {
		return nil
	}
	files, _ := filepath.Glob(filepath.Join(folder, "*.pem"))
	for _, file := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(file), ".pem"))
	}
	return names
}

func matching(list []string, prefix string) (match []string) {
	for _, word := range list {
		if strings.HasPrefix(word, prefix) {
			match = append(match, word)
		}
	}
	return match
}

// prefixed puts a flag and its = before the candidates for its value.
func prefixed(flag string, list []string) []string {
	for i, word := range list {
		if !strings.HasPrefix(word, ":") {
			list[i] = flag + word
		}
	}
	return list
}
