// SPDX-License-Identifier: Apache-2.0

package tpmtest

import (
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// manufacture gives the TPM whose state is in dir what a vendor's TPM comes with: an RSA-2048 endorsement key at
// 0x81010001 with its certificate in NV index 0x01c00002, a P-384 one at 0x81010016 and 0x01c00016, and a platform
// certificate at 0x01c08000.
func (s *SW) manufacture(dir string) {
	s.t.Helper()
	if _, err := exec.LookPath("swtpm_setup"); err != nil {
		unavailable(s.t, "swtpm_setup is not installed (Debian: apt-get install swtpm-tools)")
	}
	// A CA of its own, since the system's belongs to the user tss.
	s.ca = s.t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(s.ca, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			s.t.Fatalf("tpmtest: %v", err)
		}
		return path
	}
	ca := write("localca.conf", "statedir = "+s.ca+
		"\nsigningkey = "+s.ca+"/signkey.pem\nissuercert = "+s.ca+"/issuercert.pem\ncertserial = "+s.ca+"/certserial\n")
	options := write("localca.options", "--platform-manufacturer Example\n--platform-version 2.1\n--platform-model Gateway-1\n")
	setup := write("setup.conf", "create_certs_tool = swtpm_localca\ncreate_certs_tool_config = "+ca+
		"\ncreate_certs_tool_options = "+options+"\nactive_pcr_banks = sha256\n")
	cmd := exec.Command("swtpm_setup", "--tpm2", "--tpmstate", dir, "--create-ek-cert", "--create-platform-cert",
		"--lock-nvram", "--overwrite", "--config", setup)
	dieWithParent(cmd)
	if output, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("tpmtest: swtpm_setup: %v: %s", err, output)
	}
}

// CA returns the certificates (DER) of the CA that has issued the endorsement key's: the root, then the issuer.
func (s *SW) CA(t testing.TB) [][]byte {
	t.Helper()
	var chain [][]byte
	for _, name := range []string{"swtpm-localca-rootca-cert.pem", "issuercert.pem"} {
		text, err := os.ReadFile(filepath.Join(s.ca, name))
		if err != nil {
			t.Fatalf("tpmtest: a TPM without EKCertificates has no CA: %v", err)
		}
		block, _ := pem.Decode(text)
		if block == nil {
			t.Fatalf("tpmtest: %s is no PEM", name)
		}
		chain = append(chain, block.Bytes)
	}
	return chain
}
