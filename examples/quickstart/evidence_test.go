// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/examples/internal/exampletest"
	"github.com/instancekey/instancekey/internal/tpmtest"
)

// steps runs the demonstration and returns its lines by their step.
func steps(t *testing.T, args ...string) map[string]line {
	t.Helper()
	status, stdout, stderr := quickstart(t, append(args, "-json")...)
	if status != 0 || stderr != "" {
		t.Fatalf("status %d, stderr %q", status, stderr)
	}
	if blob := regexp.MustCompile(`[A-Za-z0-9+/_-]{100,}`).FindString(stdout); blob != "" {
		t.Errorf("the output has the raw %.30s…", blob)
	}
	byStep := make(map[string]line)
	for _, l := range exampletest.Lines[line](t, stdout) {
		byStep[l.Step] = l
	}
	return byStep
}

var name = regexp.MustCompile(`^000b[0-9a-f]{64}$`) // of a TPM's object, SHA-256

func checkProof(t *testing.T, s map[string]line) *evidenceView {
	t.Helper()
	b := s["b"]
	if b.Evidence == nil || !*b.Evidence || b.Proof == nil || member(t, b.JWT.Claims, "evidence") != "…" {
		t.Fatalf("step b: %+v", b)
	}
	p := b.Proof
	if !p.Enrolled || !name.MatchString(p.AKName) || !name.MatchString(p.KeyName) || p.AKName == p.KeyName || p.EKIssuer != "Example TPM maker, root CA" {
		t.Errorf("proof %+v", p)
	}
	if ek := s["c"].Log["ek"]; ek != p.EK || len(ek) != 64 {
		t.Errorf("the device sent evidence of the EK %q, the attester verified %q", p.EK, ek)
	}
	return p
}

func TestEvidenceSimulator(t *testing.T) {
	exampletest.NeedSimulator(t)
	s := steps(t, "-store", "simulator")
	p := checkProof(t, s)
	if !slices.Equal(p.PCRs, []int{0, 4, 7}) || p.Events != 11 || s["b"].Note != "" || s["b"].Title != titleEvidence {
		t.Errorf("step b: %+v, %+v", s["b"].step, p)
	}
	if got := s["c"].Log["firmware_version"]; got != "Gateway firmware 2.0" {
		t.Errorf("firmware %q", got)
	}
	if got, want := s["d"].Attested, (attested{modelX1, "gateway-os", "2.0", true, "affirming"}); got == nil || *got != want {
		t.Errorf("attested %+v", got)
	}
	var claims map[string]json.RawMessage
	if err := json.Unmarshal(s["d"].JWT.Claims, &claims); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"eat_profile", "oemid", "hwmodel", "hwversion", "swname", "swversion", "oemboot", "measres", "submods"} {
		if claims[name] == nil {
			t.Errorf("attestation without %s", name)
		}
	}
	var policy bytes.Buffer
	if err := json.Compact(&policy, policyFile); err != nil || !bytes.Equal(s["5"].Policy, policy.Bytes()) {
		t.Errorf("policy %s: %v", s["5"].Policy, err)
	}
}

// The attester is gone after a run, and so are its certificates.
func TestNothingStaysBesideTheKey(t *testing.T) {
	exampletest.NeedSimulator(t)
	dir := filepath.Join(t.TempDir(), "keys")
	for range 2 {
		checkProof(t, steps(t, "-store", "simulator", "-keys", dir))
	}
	entries, err := os.ReadDir(dir)
	var files []string
	for _, entry := range entries {
		files = append(files, entry.Name())
	}
	if err != nil || !slices.Equal(files, []string{".simulator-seed", "quickstart.pem"}) {
		t.Errorf("files %q: %v", files, err)
	}
}

func TestEvidenceSWTPM(t *testing.T) {
	for name, cfg := range map[string]tpmtest.SWConfig{
		"EK certificates":     {EKCertificates: true},
		"no certificates":     {},
		"EK certificates TCP": {EKCertificates: true, TCP: true},
		"not started":         {NotStarted: true},
	} {
		t.Run(name, func(t *testing.T) {
			tpm := tpmtest.SWTPM(t, cfg)
			var before string
			if !cfg.NotStarted {
				before = contents(t, tpm)
			}
			network, address := tpm.Addr()
			s := steps(t, "-store", network+":"+address)
			p := checkProof(t, s)
			if len(p.PCRs) > 0 || p.Events > 0 || !strings.Contains(s["b"].Note, "not the demonstration's own") || s["b"].Title != titleKeyAlone {
				t.Errorf("step b: %+v, %+v", s["b"].step, p)
			}
			if s["d"].Attested != nil || s["5"].Policy != nil {
				t.Errorf("attested %+v, policy %s", s["d"].Attested, s["5"].Policy)
			}
			if after := contents(t, tpm); before != "" && after != before {
				t.Errorf("the TPM was\n%s\nand is\n%s", before, after)
			}
		})
	}
}

// contents tells what is in a TPM: its PCRs, NV indices, objects and sessions.
func contents(t *testing.T, tpm tpmtest.Device) string {
	t.Helper()
	conn, err := tpm.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var text bytes.Buffer
	pcrs, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
		Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(0, 1, 2, 3, 4, 5, 6, 7),
	}}}}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&text, "%x", tpm2.Marshal(pcrs.PCRValues))
	for _, of := range []tpm2.TPMHT{tpm2.TPMHTNVIndex, tpm2.TPMHTPersistent} {
		fmt.Fprintf(&text, "\n%#x", tpmtest.Handles(t, conn, of))
	}
	tpmtest.NoLeaks(t, conn)
	return text.String()
}

func TestNoEvidence(t *testing.T) {
	s := steps(t, "-store", "soft")
	if b := s["b"]; b.Evidence == nil || *b.Evidence || b.Proof != nil || !strings.Contains(b.Note, "a key in software") {
		t.Errorf("step b: %+v", b.step)
	}
}

// A demonstration asks the machine's own TPM for signatures, and for nothing else.
func TestMachinesOwnTPM(t *testing.T) {
	for _, store := range []string{"/dev/tpmrm0", "/dev/tpm0", "tbs"} {
		arranged, err := arrange(store)
		if err != nil {
			t.Fatal(err)
		}
		if arranged.boot != nil || arranged.verifier != nil || arranged.certify != nil || !strings.Contains(arranged.note, "does not look into it") {
			t.Errorf("%s: %+v", store, arranged)
		}
	}
	for _, store := range []string{"tcp:127.0.0.1:2321", "unix:/run/tpm"} {
		if arranged, err := arrange(store); err != nil || arranged.boot != nil {
			t.Errorf("%s: %+v, %v", store, arranged, err)
		}
	}
}
