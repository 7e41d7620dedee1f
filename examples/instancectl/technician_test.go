// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/internal/privatefile/privatefiletest"
	"github.com/instancekey/instancekey/internal/tpmtest"
)

// plain runs a command line without looking for secrets in what it prints.
func plain(t *testing.T, args ...string) result {
	t.Helper()
	var stdout, stderr strings.Builder
	status := run(t.Context(), args, &stdout, &stderr)
	return result{status, stdout.String(), stderr.String()}
}

// TestOutStdout: -out - is the secret alone on standard output.
func TestOutStdout(t *testing.T) {
	t.Chdir(t.TempDir())
	s := startServers(t, nil)
	for name, args := range map[string][]string{
		"token":  s.token("-store", "soft", "-self", s.self, "-out", "-"),
		"attest": {"attest", "-store", "soft", "-client-id", clientID, "-self", s.self, "-name", "k", "-out", "-"},
	} {
		r := plain(t, args...)
		if r.status != 0 || strings.Count(r.stdout, ".") != 2 || strings.Count(r.stdout, "\n") != 1 || !strings.HasPrefix(r.stdout, "eyJ") {
			t.Errorf("%s: status %d, stdout %q", name, r.status, r.stdout)
		}
		if r.stderr == "" || strings.Contains(r.stderr, strings.TrimSpace(r.stdout)) {
			t.Errorf("%s: stderr %q", name, r.stderr)
		}
	}
	if _, err := os.Lstat("-"); err == nil {
		t.Error("a file of the name - was made")
	}
}

// TestOutLinks: a link stays a link, wherever it leads.
func TestOutLinks(t *testing.T) {
	needsLinks(t)
	s := startServers(t, nil)
	dir := t.TempDir()
	open, err := os.Create(filepath.Join(dir, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if _, err := open.WriteString("before\n"); err != nil {
		t.Fatal(err)
	}
	descriptor := fmt.Sprintf("/proc/self/fd/%d", open.Fd())
	for name, to := range map[string]string{"file": filepath.Join(dir, "there"), "relative": "there", "nothing": filepath.Join(dir, "new"), "descriptor": descriptor} {
		if name == "file" {
			if err := os.WriteFile(to, []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		link := filepath.Join(dir, "link-"+name)
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
		ok(t, s.token("-store", "soft", "-self", s.self, "-out", link)...)
		if got, err := os.Readlink(link); err != nil || got != to {
			t.Errorf("%s: the link was replaced: %q, %v", name, got, err)
		}
		if content, err := os.ReadFile(link); err != nil || strings.Count(string(content), ".") != 2 {
			t.Errorf("%s: %d bytes, %v", name, len(content), err)
		}
	}
	if content, err := os.ReadFile(open.Name()); err != nil || !strings.HasPrefix(string(content), "before\n") || strings.Count(string(content), ".") != 2 {
		t.Errorf("what was open holds %d bytes, %v", len(content), err)
	}
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	before := s.Requests()
	if r := instancectl(t, s.token("-store", "soft", "-self", s.self, "-out", loop)...); r.status != 2 || s.Requests() != before {
		t.Errorf("loop: status %d, %s", r.status, r.stderr)
	}
}

// TestDeadTPM: no command waits for ever for a TPM that does not answer.
func TestDeadTPM(t *testing.T) {
	network, address := "unix", filepath.Join(t.TempDir(), "tpm")
	if runtime.GOOS == "windows" { // Wine has no Unix sockets
		network, address = "tcp", "127.0.0.1:0"
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
		}
	}()
	self, _ := newSelf(t)
	client := []string{"-issuer", "http://127.0.0.1:1", "-client-id", "c", "-self", self}
	for _, args := range [][]string{
		{"key", "create", "-name", "k"}, {"key", "list"}, {"key", "show", "-name", "k"}, {"key", "delete", "-name", "k"}, {"key", "unpersist", "-name", "k"},
		{"evidence", "-name", "k"}, {"doctor"}, append([]string{"doctor"}, client...),
		append([]string{"token"}, client...), append([]string{"attest"}, client...), append([]string{"register"}, client...),
	} {
		r := instancectl(t, append(args, "-store", network+":"+listener.Addr().String(), "-keys", t.TempDir(), "-timeout", "100ms")...)
		if r.status != 1 || !strings.Contains(r.stderr, "not done after 100ms") || !strings.Contains(r.stderr, "-timeout") {
			t.Errorf("%q: status %d, stderr %s", args, r.status, r.stderr)
		}
	}
}

// TestEnvironment: INSTANCEKEY_STORE and INSTANCEKEY_KEYS, which flags override.
func TestEnvironment(t *testing.T) {
	first, second := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	t.Setenv("INSTANCEKEY_STORE", "soft")
	t.Setenv("INSTANCEKEY_KEYS", first)
	ok(t, "key", "create", "-name", "k")
	ok(t, "key", "create", "-name", "l", "-keys", second)
	for dir, want := range map[string]string{first: "k\n", second: "l\n"} {
		if r := ok(t, "key", "list", "-keys", dir); r.stdout != want {
			t.Errorf("%s holds %q, want %q", dir, r.stdout, want)
		}
	}
	t.Setenv("INSTANCEKEY_STORE", "hsm")
	if r := instancectl(t, "key", "list"); r.status != 2 {
		t.Errorf("status %d: %s", r.status, r.stderr)
	}
}

func TestVersion(t *testing.T) {
	if r := ok(t, "version"); !strings.HasPrefix(r.stdout, "instancectl ") || !strings.Contains(r.stdout, "go1.") {
		t.Errorf("it says %q", r.stdout)
	}
	if r := ok(t, "version", "-json"); !strings.HasPrefix(r.stdout, `{"version":`) {
		t.Errorf("it says %q", r.stdout)
	}
}

// TestReadablePIN: as TestReadableSecret.
func TestReadablePIN(t *testing.T) {
	pin := writeFile(t, "pin", "1234")
	for mode, want := range map[os.FileMode]int{0o600: 0, 0o644: 1} {
		privatefiletest.SetMode(t, pin, mode)
		r := instancectl(t, "key", "create", "-store", noTPM(t), "-keys", t.TempDir(), "-name", "k", "-pin-file", pin)
		if got := strings.Count(r.stderr, "-pin-file: others can read"); got != want {
			t.Errorf("mode %o: %d warnings, want %d: %s", mode, got, want, r.stderr)
		}
	}
}

// TestAttesterWithSlash: a slash too many is named.
func TestAttesterWithSlash(t *testing.T) {
	s := startServers(t, nil)
	r := instancectl(t, s.token("-store", "soft", "-attester", s.AttesterURL+"/")...)
	if r.status != 1 || !strings.Contains(r.stderr, "leave the slash out") {
		t.Errorf("status %d: %s", r.status, r.stderr)
	}
}

// TestDoctorChangedPCRs: that the device has booted something else than a key is bound
// to shows whether the key has a PIN or not, and no PIN is tried.
func TestDoctorChangedPCRs(t *testing.T) {
	sim := tpmtest.Simulator(t)
	s := serve(t, sim)
	args := []string{"-store", s.store, "-keys", t.TempDir()}
	pin := writeFile(t, "pin", "1234")
	ok(t, append([]string{"key", "create", "-name", "both", "-pcrs", "7,16", "-pin-file", pin}, args...)...)
	ok(t, append([]string{"key", "create", "-name", "boot", "-pcrs", "16"}, args...)...)
	ok(t, append([]string{"key", "create", "-name", "other", "-pcrs", "8", "-pin-file", pin}, args...)...)
	examined(t, args...).failed()

	tpmtest.ExtendPCR(t, sim, 16, "another boot loader")
	d := examined(t, args...)
	d.failed("key boot", "key both")
	d.want("key both", statusFail, "booted something else", "enrol with a new key")
	d.want("key other", statusOK, "no PIN was tried")
	d.want("lockout", statusOK, "0 of 3 failures")
}

// TestMessages: what goes wrong is told in one line and says what to type.
func TestMessages(t *testing.T) {
	sim := tpmtest.Simulator(t)
	s := serve(t, sim)
	keys := t.TempDir()
	ok(t, "key", "create", "-store", s.store, "-keys", keys, "-name", "pin", "-pin-file", writeFile(t, "pin", "1234"))
	ok(t, "key", "create", "-store", s.store, "-keys", keys, "-name", "plain")
	soft := t.TempDir()
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"no device":   {[]string{"key", "list", "-store", "/dev/nothing", "-keys", keys}, "correct -store"},
		"no socket":   {[]string{"key", "list", "-store", "unix:/no/such/socket", "-keys", keys}, "start it, or check the address"},
		"no PIN":      {[]string{"evidence", "-store", s.store, "-keys", keys, "-name", "pin"}, "use -pin-file FILE"},
		"name taken":  {[]string{"key", "create", "-store", s.store, "-keys", keys, "-name", "plain"}, "already exists"},
		"no key":      {[]string{"key", "show", "-store", s.store, "-keys", keys, "-name", "none"}, "no such key"},
		"no soft key": {[]string{"key", "show", "-store", "soft", "-keys", soft, "-name", "none"}, "no such key"},
	} {
		t.Run(name, func(t *testing.T) {
			r := instancectl(t, tt.args...)
			if r.status != 1 || r.stdout != "" || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, tt.want) {
				t.Errorf("status %d, stdout %q, stderr %q, want %q", r.status, r.stdout, r.stderr, tt.want)
			}
			if strings.Contains(r.stderr, "Config") || strings.Contains(r.stderr, "tpm: ") {
				t.Errorf("it speaks of the SDK: %s", r.stderr)
			}
		})
	}
}
