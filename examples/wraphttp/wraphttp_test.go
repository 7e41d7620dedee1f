// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/examples/attester"
	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/examples/reference"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/softkey"
)

func TestRun(t *testing.T) {
	for name, args := range map[string]func(t *testing.T) []string{
		"no flags": func(*testing.T) []string { return nil },
		"soft":     func(*testing.T) []string { return []string{"-store", "soft"} },
		"files":    func(t *testing.T) []string { return []string{"-keys", t.TempDir()} },
		"simulator": func(t *testing.T) []string {
			return []string{"-store", "unix:" + tpmtest.ServeUnix(t, tpmtest.Simulator(t)), "-keys", t.TempDir()}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			status := run(t.Context(), args(t), &stdout, &stderr)
			if status != 0 || stdout.String() != "The token endpoint answered 200 OK.\n" {
				t.Errorf("status %d, output %q, %q", status, stdout.String(), stderr.String())
			}
		})
	}
}

func TestBadUsage(t *testing.T) {
	for name, args := range map[string][]string{
		"unknown flag":   {"-x"},
		"argument":       {"x"},
		"issuer alone":   {"-issuer", "https://as.example.com"},
		"attester alone": {"-attester", "https://attester.example.com"},
		"TPM, no keys":   {"-store", "/dev/tpmrm0"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			if status := run(t.Context(), args, &stdout, &stderr); status != 2 || stdout.String() != "" || stderr.String() == "" {
				t.Errorf("status %d, output %q, %q", status, stdout.String(), stderr.String())
			}
		})
	}
}

// countingTransport stands for what a program's client has already.
type countingTransport struct{ requests, authenticated int }

func (c *countingTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	c.requests++
	if req.Header.Get("OAuth-Client-Attestation") != "" {
		c.authenticated++
	}
	return http.DefaultTransport.RoundTrip(req)
}

// The existing client's Transport sends all requests, its Timeout stays, and it
// is itself left as it was.
func TestWrap(t *testing.T) {
	servers, err := reference.Start(reference.Config{
		Attester:   attester.Config{Clients: []string{"c"}, Logger: slog.New(slog.DiscardHandler)},
		AuthServer: authserver.Config{Clients: []authserver.Client{{ID: "c"}}, Challenges: &authserver.ChallengeConfig{Endpoint: true}, Logger: slog.New(slog.DiscardHandler)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := servers.Close(); err != nil {
			t.Error(err)
		}
	})
	base := new(countingTransport)
	errNoRedirect := errors.New("no redirects")
	existing := &http.Client{
		Transport:     base,
		Timeout:       time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return errNoRedirect },
	}
	cfg := client.Config{
		Issuer:   servers.Issuer,
		ClientID: "c",
		Store:    softkey.New(),
		Attester: client.HTTPAttester{URL: servers.AttesterURL},
	}
	status, err := example(t.Context(), cfg, existing)
	if err != nil || status != "200 OK" {
		t.Fatalf("%q, %v", status, err)
	}
	// Metadata, challenge, token.
	if base.requests != 3 || base.authenticated != 1 || servers.Requests() != 3 {
		t.Errorf("%d requests, %d authenticated; the server has seen %d", base.requests, base.authenticated, servers.Requests())
	}
	if existing.Transport != base {
		t.Error("the existing client was changed")
	}

	cfg.Base = base
	c, err := client.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wrapped := wrap(c, existing)
	if wrapped.Timeout != time.Minute || !errors.Is(wrapped.CheckRedirect(nil, nil), errNoRedirect) {
		t.Error("Timeout or CheckRedirect was lost")
	}
}

// The promise of this example: everything it takes is less than 40 lines.
func TestShort(t *testing.T) {
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, essential, found := strings.Cut(string(source), "// wrap returns")
	if lines := strings.Count(essential, "\n"); !found || lines >= 40 {
		t.Errorf("%d lines", lines)
	}
}
