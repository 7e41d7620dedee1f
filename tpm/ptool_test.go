// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestFilesOfPtool: a key that tpm2_ptool exports from a PKCS#11 token. Its
// authorization value is not the user's PIN but 32 characters, which the tool prints.
func TestFilesOfPtool(t *testing.T) {
	if _, err := exec.LookPath("tpm2_ptool"); err != nil {
		const why = "tpm2_ptool is not installed (Debian: apt-get install libtpm2-pkcs11-tools)"
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	sim := tpmtest.Simulator(t)
	var auth []byte
	r, o := besides(t, sim, func(c *tpm.Config) {
		c.PIN = func(context.Context, string) ([]byte, error) { return bytes.Clone(auth), nil }
	})
	ptool := func(args ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "tpm2_ptool", append(args, "--path", o.dir)...)
		cmd.Dir = o.dir
		cmd.Env = append(os.Environ(), "TPM2TOOLS_TCTI="+o.tcti, "TPM2_PKCS11_TCTI="+o.tcti)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("tpm2_ptool %q: %v\n%s%s", args, err, out, errs.Bytes())
		}
		return out
	}
	ptool("init")
	ptool("addtoken", "--pid", "1", "--label", "token", "--sopin", "so", "--userpin", "user")
	ptool("addkey", "--algorithm", "ecc256", "--label", "token", "--key-label", "key", "--userpin", "user")
	out := ptool("export", "--label", "token", "--key-label", "key", "--userpin", "user", "--format", "pem")
	printed := regexp.MustCompile(`object-auth: (\w+)`).FindSubmatch(out)
	if printed == nil {
		t.Fatalf("no authorization value in %q", out)
	}
	auth = printed[1]
	files, err := filepath.Glob(filepath.Join(o.dir, "*.pem"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	forgive(t, sim)
	path := put(t, r, "key", text)
	for range 2 {
		s := r.reopen(t)
		key := open(t, s, "key")
		sign(t, key)
		prove(t, key)
		s.Close()
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(after, text) {
		t.Errorf("the file is %s, %v", after, err)
	}
	if n := wrongTries(t, sim); n != 0 {
		t.Errorf("%d wrong tries", n)
	}
	auth = []byte("another")
	tpm.ForgetRefusals()
	for range 3 {
		_, err := open(t, r.Store, "key").Sign(t.Context(), []byte("input"))
		wantError(t, err, keystore.ErrAuth)
	}
	if n := wrongTries(t, sim); n != 1 {
		t.Errorf("%d wrong tries with a wrong value, want 1", n)
	}
	cleanUp(t, sim)
}
