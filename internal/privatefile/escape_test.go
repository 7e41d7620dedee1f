// SPDX-License-Identifier: Apache-2.0

package privatefile

import (
	"slices"
	"strings"
	"testing"
)

func TestEscape(t *testing.T) {
	for name, want := range map[string]string{
		"key": "key", "Key": "+key", "MyKey": "+my+key", "KEY": "#key#", "aKEYb": "a#key#b", "ID": "+i+d", "A1B": "+a1+b",
		"nul": "nul+", "NUL": "#nul#", "Nul": "+nul", "nul.pem": "nul+.pem", "nul.": "nul+.+", "nulx": "nulx", "x.nul": "x.nul",
		"com1": "com1+", "com10": "com10", "lpt1.x": "lpt1+.x", "com0": "com0+", "a.": "a.+", "a..": "a..+", "a.b": "a.b", "con-": "con-",
	} {
		if got := escape(name); got != want {
			t.Errorf("escape(%q) = %q, want %q", name, got, want)
		}
		if got, ok := unescape(strings.ToUpper(want)); !ok || got != name {
			t.Errorf("unescape(%q) = %q, %t, want %q", strings.ToUpper(want), got, ok, name)
		}
	}
	for _, file := range []string{"nul", "nul.x", "a.", "a+", "+", "#", "##", "#ab#", "#ab", "+1", "a++b", "#abc", "#abc##def#", "+a+b+c", "b+", "nul++", "a.+b+", "\u212a"} {
		if name, ok := unescape(file); ok {
			t.Errorf("unescape(%q) = %q, which is %q", file, name, escape(name))
		}
	}
}

// checkEscaped fails the test unless a file's name is one that Windows takes as it is.
func checkEscaped(t *testing.T, name string) string {
	t.Helper()
	file := escape(name)
	base, _, _ := strings.Cut(file, ".")
	if file != strings.ToLower(file) || slices.Contains(devices, base) || strings.HasSuffix(file, ".") || strings.HasPrefix(file, ".") ||
		strings.ContainsAny(file, "<>:\"/\\|?*~ %") || len(TempPrefix)+len(file)+len(".pem") > 255 {
		t.Errorf("%q is the file %q", name, file)
	}
	if got, ok := unescape(file); !ok || got != name {
		t.Errorf("%q is the file %q, which is %q (%t)", name, file, got, ok)
	}
	return file
}

// TestEscapeIsInjective on all short names, and on the longest.
func TestEscapeIsInjective(t *testing.T) {
	names := map[string]string{}
	var all func(prefix string, depth int)
	all = func(prefix string, depth int) {
		if prefix != "" {
			file := checkEscaped(t, prefix)
			if other, taken := names[file]; taken {
				t.Fatalf("%q and %q are both the file %q", prefix, other, file)
			}
			names[file] = prefix
		}
		if depth == 0 {
			return
		}
		for _, c := range "aBnuLX1.-_" {
			if prefix != "" || c != '.' {
				all(prefix+string(c), depth-1)
			}
		}
	}
	all("", 5)
	if len(names) < 90_000 {
		t.Errorf("%d names", len(names))
	}
	for _, part := range []string{"A", "Aa", "AAa", "AAAa", "a", "A1", "AA.", "."} {
		long := strings.Repeat(part, 128)[:128]
		if part != "." {
			checkEscaped(t, long)
		}
	}
}

func FuzzEscape(f *testing.F) {
	for _, name := range []string{"key", "NUL.pem", "com1", "A.b.C.", "lpt1.x"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if name == "" || len(name) > 128 || name[0] == '.' || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") != "" {
			if got, ok := unescape(name); ok && len(got) <= len(name) && escape(got) != strings.ToLower(name) {
				t.Errorf("unescape(%q) = %q", name, got)
			}
			return
		}
		for _, c := range name {
			if !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-", c) {
				return
			}
		}
		checkEscaped(t, name)
	})
}
