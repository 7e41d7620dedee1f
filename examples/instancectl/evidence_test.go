// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/examples/internal/exampletest"
	"github.com/instancekey/instancekey/internal/tpmtest"
)

func shownEvidence(t *testing.T, args ...string) evidenceView {
	t.Helper()
	views := exampletest.Lines[evidenceView](t, ok(t, append([]string{"evidence", "-json"}, args...)...).stdout)
	if len(views) != 1 {
		t.Fatalf("%d lines", len(views))
	}
	return views[0]
}

func TestEvidence(t *testing.T) {
	eachTPM(t, func(t *testing.T, s *served) {
		keys := filepath.Join(t.TempDir(), "keys")
		args := []string{"-store", s.store, "-keys", keys, "-name", "k"}
		made := view(t, ok(t, append([]string{"key", "create", "-json"}, args...)...))
		s.with(t, func(conn transport.TPM) { tpmtest.ExtendPCR(t, conn, 7, "secure boot") })

		got := shownEvidence(t, args...)
		if got.Key.Thumbprint != made.Thumbprint || !slices.Equal(got.Key.Attributes, []string{"fixedTPM", "fixedParent", "sensitiveDataOrigin", "userWithAuth", "noDA", "sign"}) {
			t.Errorf("key %+v", got.Key)
		}
		if len(got.EK.SHA256) != 64 || len(got.EK.Certificates) != 0 || !strings.HasPrefix(got.AttestationKey, "000b") || !strings.HasPrefix(got.Key.Name, "000b") {
			t.Errorf("evidence %+v", got)
		}
		if got.Quote == nil || len(got.Quote.PCRs) != 8 || got.Quote.PCRs["0"] != strings.Repeat("0", 64) || got.Quote.PCRs["7"] == strings.Repeat("0", 64) {
			t.Fatalf("quote %+v", got.Quote)
		}
		if got.Quote.Statement.Binding != got.Key.Statement.Binding || len(got.Key.Statement.Binding) != 64 || got.Quote.Statement.Signer != got.Key.Statement.Signer {
			t.Errorf("statements %+v and %+v", got.Key.Statement, got.Quote.Statement)
		}
		if got.EventLogSize != 0 {
			t.Errorf("the log of this machine, of %d bytes", got.EventLogSize)
		}
		text := ok(t, append([]string{"evidence", "-pcrs", ""}, args...)...).stdout
		if !strings.Contains(text, `"attestation_key_name": "`+got.AttestationKey) || strings.Contains(text, `"quote"`) {
			t.Errorf("for people, without PCRs: %s", text)
		}
	})
}

// A key with a PIN, in a TPM as its maker delivers it.
func TestEvidenceGenuine(t *testing.T) {
	s := serve(t, tpmtest.SWTPM(t, tpmtest.SWConfig{EKCertificates: true}))
	args := []string{"-store", s.store, "-keys", t.TempDir(), "-name", "k"}
	pin := writeFile(t, "pin", "1234")
	ok(t, append([]string{"key", "create", "-pin-file", pin, "-pcrs", "7"}, args...)...)
	got := shownEvidence(t, append(args, "-pin-file", pin, "-pcrs", "0,23")...)
	if len(got.Quote.PCRs) != 2 || got.Quote.PCRs["23"] == "" {
		t.Errorf("quote %+v", got.Quote)
	}
	if len(got.EK.Certificates) != 1 || !strings.Contains(got.EK.Certificates[0].Issuer, "swtpm-localca") || got.EK.Certificates[0].NotAfter == "" {
		t.Errorf("certificates %+v", got.EK.Certificates)
	}
	if slices.Contains(got.Key.Attributes, "userWithAuth") || slices.Contains(got.Key.Attributes, "noDA") {
		t.Errorf("attributes %q", got.Key.Attributes)
	}
	r := instancectl(t, append([]string{"evidence"}, args...)...)
	if r.status != 1 || r.stdout != "" || !strings.Contains(r.stderr, "PIN") {
		t.Errorf("without the PIN: %+v", r)
	}
	s.with(t, func(conn transport.TPM) { tpmtest.ChangeHierarchyAuth(t, conn, tpm2.TPMRHEndorsement, "", "password") })
	r = instancectl(t, append([]string{"evidence", "-pin-file", pin}, args...)...)
	if r.status != 1 || r.stdout != "" || !strings.Contains(r.stderr, "-endorsement-auth-file") {
		t.Errorf("without the password: %+v", r)
	}
}

func TestEvidenceInSoftware(t *testing.T) {
	keys := t.TempDir()
	ok(t, "key", "create", "-store", "soft", "-keys", keys, "-name", "k")
	r := instancectl(t, "evidence", "-store", "soft", "-keys", keys, "-name", "k")
	if r.status != 2 || r.stdout != "" || !strings.Contains(r.stderr, "only keys in a TPM") {
		t.Errorf("%+v", r)
	}
	r = instancectl(t, "evidence", "-store", "soft", "-keys", keys, "-name", "none")
	if r.status != 1 || !strings.Contains(r.stderr, "no such key") {
		t.Errorf("%+v", r)
	}
}
