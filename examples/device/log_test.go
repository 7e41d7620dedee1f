// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// lines counts the lines with all of that in them.
func (r *running) lines(parts ...string) (n int) {
	for line := range strings.Lines(r.log.String()) {
		all := true
		for _, part := range parts {
			all = all && (strings.Contains(line, part) || strings.Contains(line, strings.ReplaceAll(part, `\`, `\\`))) // as it is quoted
		}
		if all {
			n++
		}
	}
	return n
}

func (r *running) says(want int, parts ...string) {
	r.t.Helper()
	if n := r.lines(parts...); n != want {
		r.t.Errorf("%d lines with %q, want %d, in\n%s", n, parts, want, &r.log)
	}
}

// TestLogTellsChanges (D10): a year of calls is no line, and trouble is one, and one more
// when it is over.
func TestLogTellsChanges(t *testing.T) {
	w := newWorld(t)
	w.store = "soft"
	d := w.start(w.args()...)
	for range 20 {
		d.calls()
	}
	d.says(1, "level=INFO", "starting")
	d.says(1, "level=INFO", "new key made", "thumbprint=")
	d.says(1, "level=INFO", "attested")
	d.says(1, "level=INFO", "calls work")
	d.says(0, "msg=called")

	for round := range 2 {
		w.resource.set(true)
		for n := range 9 {
			d.fails(n + 1)
		}
		d.says(round+1, "level=WARN", "calls fail", "again_in=")
		w.resource.set(false)
		d.calls()
		d.says(round+2, "level=INFO", "calls work")
	}

	// An attester that is away is no trouble of the calls, and one line in all.
	w.attester.set(true)
	if err := os.RemoveAll(filepath.Join(w.state, "attestations")); err != nil {
		t.Fatal(err)
	}
	d.terminates()
	d = w.start(w.args()...)
	for n := range 5 {
		d.fails(n + 1)
	}
	d.says(1, "level=INFO", "key opened")
	d.says(1, "level=WARN", "no new attestation")
	d.says(1, "level=WARN", "calls fail")
	w.attester.set(false)
	d.calls()
	d.says(1, "level=INFO", "attested")
	d.says(1, "level=INFO", "calls work")
	d.terminates()

	d = w.start(w.args("-log", "debug")...)
	for range 3 {
		d.calls()
	}
	d.says(3, "level=DEBUG", "called")
	w.resource.set(true)
	for n := range 3 {
		d.fails(n + 1)
	}
	d.says(1, "level=WARN", "calls fail")
	d.says(2, "level=DEBUG", "calls fail")
	d.terminates()
	d = w.start(w.args("-log", "error")...)
	d.fails(1)
	if said := d.log.String(); said != "" {
		t.Errorf("it says %s", said)
	}
	d.terminates()
}

// TestPrivateAuthority (D9, A7): -ca names the roots, and who does not know the server's is
// told what to do.
func TestPrivateAuthority(t *testing.T) {
	w := newWorld(t)
	w.store = "soft"
	server := httptest.NewUnstartedServer(w.resource)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that fail are what is tested
	server.StartTLS()
	defer server.Close()
	w.resource.URL = server.URL
	d := w.start(w.args()...)
	d.fails(1)
	d.fails(2)
	d.says(1, "calls fail", "cure=", "-ca", "restart")
	d.terminates()

	ca := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	d = w.start(w.args("-ca", ca)...)
	d.calls()
	d.terminates()

	for name, content := range map[string]string{"empty": "", "no PEM": "certificate", "": ""} {
		file := filepath.Join(t.TempDir(), "ca.pem")
		if name != "" {
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		d := w.start(w.args("-ca", file)...)
		d.ends(statusFailed)
		d.says(1, "level=ERROR", "-ca", file)
	}
}

// TestTimeIsKept: the newest time heard is in -state, where the next start looks for it.
func TestTimeIsKept(t *testing.T) {
	var certificate []byte // httptest has one for all
	w := newWorldOf(t, func(t *testing.T) *place {
		p := new(place)
		p.Server = httptest.NewUnstartedServer(p)
		p.Config.ErrorLog = log.New(io.Discard, "", 0)
		p.StartTLS()
		t.Cleanup(p.Close)
		certificate = p.Certificate().Raw
		return p
	}, nil)
	w.store = "soft"
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(w.state, "time")
	if err := os.MkdirAll(w.state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("yesterday\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := w.start(w.args("-ca", ca)...)
	d.calls()
	d.says(1, "level=WARN", "newest time of earlier runs is not known", "file="+file)
	d.terminates()
	// A time far ahead is what certificates are judged by, and the error names the file.
	if err := os.WriteFile(file, []byte(time.Now().AddDate(90, 0, 0).Format(time.RFC3339)), 0o600); err != nil {
		t.Fatal(err)
	}
	d = w.start(w.args("-ca", ca)...)
	d.fails(1)
	d.says(1, "calls fail", file, "delete that file")
	d.terminates()
}
