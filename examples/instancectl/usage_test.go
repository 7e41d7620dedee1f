// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/internal/privatefile/privatefiletest"
)

func TestBadUsage(t *testing.T) {
	s := startServers(t, nil)
	dir := filepath.Join(t.TempDir(), "keys")
	missing := filepath.Join(t.TempDir(), "missing")
	garbage := writeFile(t, "garbage", "eyJ garbage")
	public := writeFile(t, "public.jwk", `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`)
	symmetric := writeFile(t, "oct.jwk", `{"kty":"oct","k":"c2VjcmV0"}`)

	all := func(args ...string) []string {
		return s.token(append([]string{"-store", "soft", "-keys", dir}, args...)...)
	}
	self := func(args ...string) []string { return all(append([]string{"-self", s.self}, args...)...) }
	tests := map[string]struct {
		args []string
		want string
	}{
		"nothing":               {nil, "usage: instancectl COMMAND"},
		"unknown command":       {[]string{"tokens"}, `unknown command "tokens": did you mean token?`},
		"unknown at all":        {[]string{"frobnicate"}, `unknown command "frobnicate"`},
		"key verb alone":        {[]string{"create"}, "did you mean key create?"},
		"flag before command":   {[]string{"-store", "soft", "doctor"}, "the command comes first"},
		"key alone":             {[]string{"key"}, "usage: instancectl COMMAND"},
		"key of a new kind":     {[]string{"key", "rotate"}, `unknown command "key rotate"`},
		"create where":          {[]string{"key", "create", "-store", "soft", "-name", "k"}, "-keys is missing"},
		"no time at all":        {[]string{"key", "list", "-store", "soft", "-keys", dir, "-timeout", "0s"}, "-timeout"},
		"TCTI of another kind":  {[]string{"key", "list", "-store", "mssim:", "-keys", dir}, "use the device, or swtpm"},
		"refresh to stdout":     {self("-refresh", "-"), "-refresh"},
		"key without name":      {[]string{"key", "create", "-store", "soft"}, "-name is missing"},
		"key with a path":       {[]string{"key", "create", "-store", "soft", "-name", "../k"}, "invalid key name"},
		"key with a NUL":        {[]string{"key", "create", "-store", "soft", "-name", "k\x00"}, "invalid key name"},
		"key with a long name":  {[]string{"key", "create", "-store", "soft", "-name", strings.Repeat("k", 129)}, "invalid key name"},
		"key without store":     {[]string{"key", "create", "-name", "k"}, "-store is missing"},
		"key in unknown store":  {[]string{"key", "list", "-store", "hsm"}, `-store "hsm"`},
		"key of unknown alg":    {[]string{"key", "create", "-store", "soft", "-name", "k", "-alg", "HS256"}, "-alg"},
		"persist in software":   {[]string{"key", "persist", "-store", "soft", "-name", "k", "0x81010002"}, "only keys in a TPM"},
		"unpersist in software": {[]string{"key", "unpersist", "-store", "soft", "-name", "k"}, "only keys in a TPM"},
		"import in software":    {[]string{"key", "import", "-store", "soft", "-name", "k", garbage}, "only keys in a TPM"},
		"doctor without store":  {[]string{"doctor"}, "-store is missing"},
		"doctor for software":   {[]string{"doctor", "-store", "soft", "-keys", dir}, "only keys in a TPM"},
		"doctor over http":      {[]string{"doctor", "-store", "simulator", "-keys", dir, "-issuer", "http://as.example.com"}, "-issuer"},
		"doctor of no CA":       {[]string{"doctor", "-store", "simulator", "-keys", dir, "-ca", missing}, "-ca"},
		"evidence of what":      {[]string{"evidence", "-store", "simulator", "-keys", dir}, "-name is missing"},
		"evidence of no PCR":    {[]string{"evidence", "-store", "simulator", "-keys", dir, "-name", "k", "-pcrs", "24"}, "-pcrs"},
		"persist where":         {[]string{"key", "persist", "-store", "soft", "-name", "k"}, "HANDLE is missing, such as 0x81000100"},
		"persist at nothing":    {[]string{"key", "persist", "-store", "simulator", "-keys", dir, "-name", "k", "here"}, `HANDLE "here"`},
		"import what":           {[]string{"key", "import", "-store", "simulator", "-name", "k"}, "FILE is missing"},
		"import of no file":     {[]string{"key", "import", "-store", "simulator", "-keys", dir, "-name", "k", missing}, missing},
		"flag after HANDLE":     {[]string{"key", "persist", "-store", "simulator", "0x81000100", "-name", "k"}, "flags come first"},
		"show where":            {[]string{"key", "show", "-store", "soft", "-name", "k"}, "-keys is missing"},
		"list where":            {[]string{"key", "list", "-store", "soft"}, "-keys is missing"},
		"delete where":          {[]string{"key", "delete", "-store", "soft", "-name", "k"}, "-keys is missing"},
		"persist from where":    {[]string{"key", "persist", "-store", "simulator", "-name", "k", "0x81000100"}, "-keys is missing"},
		"unpersist from where":  {[]string{"key", "unpersist", "-store", "simulator", "-name", "k"}, "-keys is missing"},
		"evidence from where":   {[]string{"evidence", "-store", "simulator", "-name", "k"}, "-keys is missing"},
		"attestation for what":  {s.token("-store", "soft", "-attestation", garbage), "-keys is missing"},
		"attest what there is":  {[]string{"attest", "-store", "soft", "-client-id", "c", "-name", "k", "-attestation", garbage}, "-keys is missing"},
		"refresh for what":      {s.token("-store", "soft", "-self", s.self, "-grant", "refresh_token", "-refresh", s.self), "-keys is missing"},
		"help on nothing":       {[]string{"help", "tokens"}, "usage: instancectl COMMAND"},
		"extra argument":        {self("extra"), "unexpected argument"},
		"unknown flag":          {self("-x"), "-x"},
		"no store":              {s.token("-self", s.self), "-store is missing"},
		"no client_id":          {self("-client-id", ""), "-client-id is missing"},
		"no issuer":             {self("-issuer", ""), "-issuer is missing"},
		"issuer no URL":         {self("-issuer", "nonsense"), "-issuer is not an absolute"},
		"issuer over http":      {self("-issuer", "http://as.example.com"), "-issuer is http"},
		"issuer's port":         {self("-issuer", "https://127.0.0.1:99999"), `-issuer has "99999" for a port`},
		"attester's port":       {all("-attester", "https://127.0.0.1:0"), `-attester has "0" for a port`},
		"resource's port":       {self("-resource", "https://127.0.0.1:65536"), "-resource has"},
		"name of no key":        {self("-name", "a b"), "-name"},
		"attest of no key":      {[]string{"attest", "-store", "soft", "-client-id", "c", "-self", s.self, "-name", ".k"}, "-name"},
		"scope in quotes":       {self("-scope", `"read"`), "-scope"},
		"scope of two lines":    {self("-scope", "read\nwrite"), "-scope"},
		"issuer with a query":   {self("-issuer", s.Issuer+"?"), "-issuer has a query"},
		"no attester":           {all(), "exactly one of"},
		"two attesters":         {self("-attester", s.AttesterURL), "exactly one of"},
		"attester over http":    {all("-attester", "http://attester.example.com"), "-attester"},
		"no such attestation":   {all("-attestation", missing), "-attestation"},
		"no such self":          {all("-self", missing), "-self"},
		"self no JWK":           {all("-self", garbage), "is not a JWK"},
		"self public":           {all("-self", public), "not a private EC key"},
		"self symmetric":        {all("-self", symmetric), "not a private EC key"},
		"no such CA":            {self("-ca", missing), "-ca"},
		"CA no certificate":     {self("-ca", garbage), "no PEM certificate"},
		"unknown method":        {self("-method", "basic"), "-method"},
		"unknown profile":       {self("-profile", "draft-03"), "-profile"},
		"unknown grant":         {self("-grant", "password"), "-grant"},
		"refresh without file":  {self("-grant", "refresh_token"), "needs -refresh"},
		"no such refresh":       {self("-grant", "refresh_token", "-refresh", missing), "-refresh"},
		"refresh and scope":     {self("-grant", "refresh_token", "-refresh", garbage, "-scope", "read"), "-scope"},
		"no tokens":             {self("-n", "0"), "-n and -c"},
		"none at a time":        {self("-c", "0"), "-n and -c"},
		"no time":               {self("-timeout", "0s"), "-timeout"},
		"out in no folder":      {self("-out", filepath.Join(missing, "x")), "-out"},
		"out is a folder":       {self("-out", t.TempDir()), "-out"},
		"resource over http":    {self("-resource", "http://api.example.com"), "-resource"},
		"resource with a query": {self("-resource", s.Issuer+"/api?x=1"), "-resource has a query"},
		"attester with a query": {all("-attester", s.AttesterURL+"?x"), "-attester has a query"},
		"attest for no URL":     {[]string{"attest", "-store", "soft", "-client-id", "c", "-self", s.self, "-issuer", "as"}, "-issuer is not an absolute"},
		"attest what":           {[]string{"attest", "-store", "soft", "-client-id", "c", "-self", s.self}, "-name"},
		"attest out nowhere":    {[]string{"attest", "-store", "soft", "-client-id", "c", "-self", s.self, "-name", "k", "-out", filepath.Join(missing, "x")}, "-out"},
	}
	if runtime.GOOS != "windows" {
		tests["TBS here"] = struct {
			args []string
			want string
		}{[]string{"key", "list", "-store", "tbs", "-keys", dir}, "only Windows"}
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := instancectl(t, tt.args...)
			if r.status != 2 || r.stdout != "" || !strings.Contains(r.stderr, tt.want) {
				t.Errorf("status %d, stdout %q, stderr %q, want %q", r.status, r.stdout, r.stderr, tt.want)
			}
		})
	}
	if s.Requests() != 0 {
		t.Errorf("%d requests were sent", s.Requests())
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the key folder was made: %v", err)
	}
}

func TestHelp(t *testing.T) {
	storeless := []string{"version", "report", "completion"}
	for _, c := range commands {
		r := ok(t, append(strings.Fields(c.name), "-h")...)
		if r.stdout != "" || !strings.HasPrefix(r.stderr, "usage: instancectl "+c.name+" [flags]") || strings.Contains(r.stderr, "-store") == slices.Contains(storeless, c.name) || !strings.Contains(r.stderr, "-timeout") {
			t.Errorf("%s -h printed %q", c.name, r.stderr)
		}
	}
}

func TestHelpAll(t *testing.T) {
	for _, args := range []string{"-h", "-help", "--help", "help", "key -h", "key help", "help key"} {
		r := ok(t, strings.Fields(args)...)
		if !strings.HasPrefix(r.stderr, "usage: instancectl COMMAND") || !strings.Contains(r.stderr, "exit status: 0") {
			t.Errorf("%s printed %q", args, r.stderr)
		}
	}
	if r := ok(t, "help", "token"); !strings.HasPrefix(r.stderr, "usage: instancectl token") || !strings.Contains(r.stderr, "invalid_attestation") {
		t.Errorf("help token printed %q", r.stderr)
	}
}

// A secret that others can read is used, with a warning that names the flag.
func TestReadableSecret(t *testing.T) {
	s := startServers(t, nil)
	refresh := writeFile(t, "refresh", "bare-token")
	key := makeKey(t)
	for flag, file := range map[string]string{"-self": s.self, "-refresh": refresh} {
		for mode, want := range map[os.FileMode]int{0o600: 0, 0o640: 1, 0o604: 1} {
			privatefiletest.SetMode(t, file, mode)
			r := instancectl(t, s.token(append(key, "-self", s.self, "-grant", "refresh_token", "-refresh", refresh)...)...)
			if got := strings.Count(r.stderr, flag+": others can read"); got != want {
				t.Errorf("%s with mode %o: %d warnings, want %d: %s", flag, mode, got, want, r.stderr)
			}
		}
	}
}

// Without -keys only a command that can make a key warns of losing it.
func TestWarnsOfKeys(t *testing.T) {
	s := startServers(t, nil)
	for name, test := range map[string]struct {
		args []string
		want int
	}{
		"attest":     {[]string{"attest", "-store", "soft", "-client-id", "c", "-self", s.self, "-name", "k"}, 1},
		"key delete": {[]string{"key", "delete", "-store", "soft", "-name", "k"}, 0},
	} {
		r := instancectl(t, test.args...)
		if got := strings.Count(r.stderr, "gone when this command ends"); got != test.want {
			t.Errorf("%s: %d warnings: %s", name, got, r.stderr)
		}
	}
}
