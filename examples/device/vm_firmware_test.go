// SPDX-License-Identifier: Apache-2.0

//go:build devicevm && linux

package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// A boot is a way from the firmware to the kernel, and what PROTOCOL.md says of it.
type bootPath struct {
	name      string
	variables string                                                    // with the keys of Secure Boot
	makeDisk  func(t *testing.T, esp, kernel, initrd, arguments string) // the firmware's
	pcrs      []int                                                     // that have to be as they were
	authority func(t *testing.T) []*x509.Certificate
	change    func(t *testing.T, esp string) // makes what is signed another one
	refusal   string                         // of what finds that
}

var bootPaths = []bootPath{
	{"UKI with own keys", "OVMF_VARS_4M.snakeoil.fd", makeUKI, []int{4}, func(t *testing.T) []*x509.Certificate {
		return certificatesIn(t, pemBytes(t, ownCertificate), "")
	}, func(t *testing.T, esp string) {
		image := filepath.Join(esp, "EFI", "BOOT", "BOOTX64.EFI")
		content := fileBytes(t, image)
		at := bytes.Index(content, []byte(" quiet panic=-1"))
		if at < 0 {
			t.Fatal("the image has no command line")
		}
		copy(content[at:], " debug")
		write(t, image, string(content))
	}, "Access Denied"},
	{"shim and GRUB", "OVMF_VARS_4M.ms.fd", makeGRUB, []int{4, 8, 9}, func(t *testing.T) []*x509.Certificate {
		return slices.Concat(
			certificatesIn(t, fileBytes(t, filepath.Join(ovmf, "OVMF_VARS_4M.ms.fd")), "Microsoft Corporation UEFI CA 2011"),
			certificatesIn(t, fileBytes(t, shim), "Debian Secure Boot CA"))
	}, func(t *testing.T, esp string) {
		kernel := filepath.Join(esp, "vmlinuz")
		content := fileBytes(t, kernel)
		content[len(content)/2] ^= 1
		write(t, kernel, string(content))
	}, "bad shim signature"},
}

// TestDeviceFirmware has a firmware boot a kernel with Secure Boot, and a device in it
// attested, with its firmware's log, by the reference values that PROTOCOL.md recommends:
//
//	make device-firmware
//
// With other arguments for the kernel it is refused, and what was changed after it was signed is
// not booted.
func TestDeviceFirmware(t *testing.T) {
	kernel := os.Getenv("LINUX_KERNEL")
	if kernel == "" {
		t.Fatal("LINUX_KERNEL does not name the image of a Linux kernel: use make device-firmware")
	}
	initrd := firmwareInitrd(t)
	for _, path := range bootPaths {
		t.Run(path.name, func(t *testing.T) {
			dir := t.TempDir()
			verifier, update := manufactured(t, dir)
			w := newWorldOf(t, newPlace, verifier)
			reference := map[string]any{
				"policy": "tag:example.com,2026:vm", "pcrs": append([]int{0, 7}, path.pcrs...),
				"software": []any{}, "attest_unknown_software": true, "attest_without_secure_boot": true,
			}
			set := func() {
				text, _ := json.Marshal(reference)
				parsed, err := evidence.ParseReference(text)
				if err != nil {
					t.Fatalf("%v: %s", err, text)
				}
				update(parsed)
			}
			set()
			// What the first boot has measured is what the second has to.
			var log []byte
			attests := w.attester.handler
			w.attester.serve(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if sent := logIn(body); len(sent) > 0 && log == nil {
					log = sent
				}
				r.Body = io.NopCloser(bytes.NewReader(body))
				attests.ServeHTTP(rw, r)
			}))
			arguments := "console=ttyS0 quiet panic=-1 attester=" + w.attester.URL
			start := func(arguments string, changes ...func(*testing.T, string)) string {
				began := time.Now()
				esp := filepath.Join(dir, "esp")
				if err := os.RemoveAll(esp); err != nil {
					t.Fatal(err)
				}
				path.makeDisk(t, esp, kernel, initrd, arguments)
				for _, change := range changes {
					change(t, esp)
				}
				said := bootFirmware(t, dir, esp, path.variables, w.attester.Listener.Addr().String())
				t.Logf("%v: %s", time.Since(began).Round(time.Second), said)
				return said
			}
			verdict := func(said string) (swname string, status any, oemboot any) {
				t.Helper()
				jwt, found := strings.CutPrefix(said, "attested ")
				proof := transporttest.ParseProof(jwt)
				if !found || proof == nil {
					t.Fatalf("the device says %q", said)
				}
				submods, _ := proof.Claims["submods"].(map[string]any)
				platform, _ := submods["platform"].(map[string]any)
				swname, _ = proof.Claims["swname"].(string)
				return swname, platform["ear_status"], proof.Claims["oemboot"]
			}

			if swname, status, _ := verdict(start(arguments)); swname != "" || status != "contraindicated" {
				t.Errorf("without reference values: %q, %v", swname, status)
			}
			if err := os.WriteFile(filepath.Join(dir, "log"), log, 0o600); err != nil {
				t.Fatal(err)
			}
			firstEvents := eventsByTool(t, filepath.Join(dir, "log"), path.pcrs)
			var authorities []string
			for _, certificate := range path.authority(t) {
				digest := sha256.Sum256(certificate.Raw)
				authorities = append(authorities, hex.EncodeToString(digest[:]))
			}
			reference["software"] = []any{map[string]any{"swname": "gateway-os", "swversion": "1", "verdict": "affirming", "first_events": firstEvents}}
			reference["secure_boot_authorities"] = authorities
			delete(reference, "attest_unknown_software")
			delete(reference, "attest_without_secure_boot")
			set()
			if swname, status, oemboot := verdict(start(arguments)); swname != "gateway-os" || status != "affirming" || oemboot != true {
				t.Errorf("%q, %v, oemboot %v", swname, status, oemboot)
			}
			if said := start(arguments + " init_on_alloc=0"); !strings.HasPrefix(said, "refused ") || !strings.Contains(said, "policy_violation") {
				t.Errorf("with another command line: %q", said)
			}
			asked := w.attester.count("/challenge")
			if said := start(arguments, path.change); !strings.HasPrefix(said, notBooted) || !strings.Contains(said, path.refusal) {
				t.Errorf("changed after it was signed: %q", said)
			}
			if n := w.attester.count("/challenge"); n != asked || n == 0 {
				t.Errorf("the attester was asked %d times, and %d after what is not booted", asked, n)
			}
		})
	}
}

// eventsByTool returns the digests of the events of each PCR, as tpm2_eventlog has them.
func eventsByTool(t *testing.T, log string, pcrs []int) map[string][]string {
	t.Helper()
	output, err := exec.Command("tpm2_eventlog", log).Output()
	if err != nil {
		t.Fatal(err)
	}
	events := make(map[string][]string)
	pcr, wanted := "", false
	for line := range strings.Lines(string(output)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch strings.TrimPrefix(key, "- ") {
		case "PCRIndex":
			pcr = value
			wanted = slices.ContainsFunc(pcrs, func(n int) bool { return fmt.Sprint(n) == pcr })
		case "AlgorithmId":
			wanted = wanted && value == "sha256"
		case "Digest":
			if wanted {
				events[pcr] = append(events[pcr], strings.Trim(value, `"`))
				wanted = false // of the same event, what follows is its data
			}
		case "pcrs":
			wanted = false
		}
	}
	for _, n := range pcrs {
		if len(events[fmt.Sprint(n)]) == 0 {
			t.Fatalf("tpm2_eventlog shows no event of PCR %d:\n%s", n, output)
		}
	}
	t.Logf("events: %v", events)
	return events
}

// certificatesIn returns the certificates in a file of any kind with that common name, or all.
func certificatesIn(t *testing.T, content []byte, name string) (found []*x509.Certificate) {
	t.Helper()
	for at := range content {
		if rest := content[at:]; len(rest) > 4 && rest[0] == 0x30 && rest[1] == 0x82 {
			size := 4 + int(rest[2])<<8 + int(rest[3])
			if size > len(rest) {
				continue
			}
			if c, err := x509.ParseCertificate(rest[:size]); err == nil && (name == "" || c.Subject.CommonName == name) && !slices.ContainsFunc(found, c.Equal) {
				found = append(found, c)
			}
		}
	}
	if len(found) == 0 {
		t.Fatalf("no certificate of %q", name)
	}
	return found
}

func fileBytes(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (make device-firmware installs it on Debian)", err)
	}
	return content
}

func pemBytes(t *testing.T, path string) []byte {
	t.Helper()
	block, _ := pem.Decode(fileBytes(t, path))
	if block == nil {
		t.Fatalf("%s is not PEM", path)
	}
	return block.Bytes
}
