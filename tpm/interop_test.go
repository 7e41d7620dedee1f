// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/sha512"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// others are the programs that this TPM is shared with.
type others struct {
	t    *testing.T
	tcti string
	dir  string
}

// besides opens a Store behind a resource manager, and gives the same TPM to
// other programs.
func besides(t *testing.T, sim *tpmtest.Sim, change ...func(*tpm.Config)) (*rig, *others) {
	rm := tpmtest.NewResourceManager(t, sim)
	path := tpmtest.ServeUnix(t, rm)
	return newRig(t, rm, change...), &others{t: t, tcti: tpmtest.TCTI(t, "unix", path), dir: t.TempDir()}
}

func (o *others) file(name string) string { return filepath.Join(o.dir, name) }

// tool runs one of tpm2-tools.
func (o *others) tool(name string, args ...string) {
	o.t.Helper()
	tpmtest.Tool(o.t, o.tcti, name, args...)
}

// openssl runs OpenSSL with its tpm2 provider.
func (o *others) openssl(args ...string) {
	o.t.Helper()
	run := func(args ...string) ([]byte, error) {
		cmd := exec.Command("openssl", args...)
		cmd.Env = append(os.Environ(), "TPM2OPENSSL_TCTI="+o.tcti)
		return cmd.CombinedOutput()
	}
	if out, err := run("list", "-provider", "tpm2", "-providers"); err != nil {
		why := "OpenSSL's tpm2 provider cannot be used (Debian: apt-get install tpm2-openssl): " + string(out)
		if os.Getenv("CI") != "" {
			o.t.Fatal(why)
		}
		o.t.Skip(why)
	}
	args = append([]string{args[0], "-provider", "tpm2", "-provider", "default", "-propquery", "?provider=tpm2"}, args[1:]...)
	if out, err := run(args...); err != nil {
		o.t.Fatalf("openssl %q: %v\n%s", args, err, out)
	}
}

// primary makes the storage root key of template H-2 for tpm2-tools.
func (o *others) primary() string {
	o.t.Helper()
	o.tool("tpm2_createprimary", "-C", "o", "-g", "sha256", "-G", "ecc", "-c", o.file("primary"),
		"-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt")
	return o.file("primary")
}

const plain = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign"

// TestForeignFiles: key files of other programs open here. tpm2-tools 5.4 writes
// the flag emptyAuth the wrong way round: that costs a wrong try, where the TPM
// counts them, once in the life of the file, and nothing elsewhere.
func TestForeignFiles(t *testing.T) {
	sim := tpmtest.Simulator(t)
	toolKey := func(o *others, parent, attributes string, args ...string) {
		o.tool("tpm2_create", append([]string{"-Q", "-C", parent, "-G", "ecc256:ecdsa-sha256", "-a", attributes,
			"-u", o.file("pub"), "-r", o.file("priv")}, args...)...)
	}
	encode := func(o *others, parent string, args ...string) {
		o.tool("tpm2_encodeobject", append([]string{"-C", parent, "-u", o.file("pub"), "-r", o.file("priv"), "-o", o.file("key.pem")}, args...)...)
	}
	for name, tt := range map[string]struct {
		wrongTry, corrected bool // of the flag that says whether there is a password
		make                func(o *others)
	}{
		"openssl": {false, false, func(o *others) {
			o.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "group:P-256", "-out", o.file("key.pem"))
		}},
		"openssl P-384": {false, false, func(o *others) {
			o.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "group:P-384", "-out", o.file("key.pem"))
		}},
		"openssl password": {false, false, func(o *others) {
			o.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "group:P-256", "-pkeyopt", "user-auth:1234", "-out", o.file("key.pem"))
		}},
		"openssl persistent parent": {false, false, func(o *others) {
			o.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "group:P-256", "-pkeyopt", "parent:0x81000001", "-out", o.file("key.pem"))
		}},
		"openssl persistent parent password": {false, false, func(o *others) {
			o.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "group:P-256", "-pkeyopt", "parent:0x81000001", "-pkeyopt", "user-auth:1234", "-out", o.file("key.pem"))
		}},
		"tpm2-tools": {false, false, func(o *others) {
			parent := o.primary()
			toolKey(o, parent, plain+"|noda")
			encode(o, parent)
		}},
		"tpm2-tools no password": {false, true, func(o *others) { // the file says that there is one
			parent := o.primary()
			toolKey(o, parent, plain)
			encode(o, parent)
		}},
		"tpm2-tools password": {true, true, func(o *others) {
			parent := o.primary()
			toolKey(o, parent, plain, "-p", "1234")
			encode(o, parent, "-p")
		}},
		"tpm2-tools password noDA": {false, true, func(o *others) {
			parent := o.primary()
			toolKey(o, parent, plain+"|noda", "-p", "1234")
			encode(o, parent, "-p")
		}},
		"tpm2-tools persistent parent": {false, false, func(o *others) {
			toolKey(o, "0x81000001", plain+"|noda")
			encode(o, "0x81000001")
		}},
		"tpm2-tools persistent parent password": {true, true, func(o *others) {
			toolKey(o, "0x81000001", plain, "-p", "1234")
			encode(o, "0x81000001", "-p")
		}},
	} {
		for first, use := range map[string]func(*testing.T, keystore.Key) error{
			"Sign": func(t *testing.T, key keystore.Key) error {
				_, err := key.Sign(t.Context(), []byte("input"))
				return err
			},
			"Evidence": func(t *testing.T, key keystore.Key) error {
				_, err := attestable(t, key).Evidence(t.Context(), keystore.EvidenceRequest{Binding: binding})
				return err
			},
		} {
			t.Run(name+"/"+first, func(t *testing.T) {
				sim.Manufacture() // no wrong tries are counted
				r, o := besides(t, sim, func(c *tpm.Config) {
					if !strings.HasSuffix(name, "no password") {
						withPIN("1234")(c)
					}
				})
				// An RSA key, as Windows and many installers put it there.
				o.tool("tpm2_createprimary", "-Q", "-C", "o", "-G", "rsa2048", "-c", o.file("srk"))
				o.tool("tpm2_evictcontrol", "-Q", "-C", "o", "-c", o.file("srk"), "0x81000001")
				defer o.tool("tpm2_evictcontrol", "-Q", "-C", "o", "-c", "0x81000001")
				tt.make(o)
				text, err := os.ReadFile(o.file("key.pem"))
				if err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(r.config.Dir, "key.pem")
				if err := os.WriteFile(path, text, 0o600); err != nil {
					t.Fatal(err)
				}
				// One wrong try at the most, whatever is done first and however often
				// the process starts anew after it.
				wrong := 0
				if tt.wrongTry {
					wrong++
				}
				key := open(t, r.Store, "key")
				if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, text) {
					t.Errorf("Open has changed the file: %v\n%s\n%s", err, text, after)
				}
				if err := use(t, key); err != nil {
					t.Error(err)
				}
				for range 2 {
					key := open(t, r.reopenAfter(t), "key")
					sign(t, key)
					prove(t, key)
				}
				status, err := r.Status(t.Context())
				if err != nil || status.Lockout.Failures != wrong {
					t.Errorf("%d wrong tries were counted, want %d: %v", status.Lockout.Failures, wrong, err)
				}
				pinned, err := os.ReadFile(path)
				if err != nil || !bytes.Contains(pinned, []byte("TPM2 PARENT NAME")) {
					t.Errorf("the file was not pinned: %v\n%s\n%s", err, text, pinned)
				}
				if corrected := !bytes.HasPrefix(pinned, bytes.TrimSpace(text)); corrected != tt.corrected {
					t.Errorf("the flag was corrected: %t, want %t\n%s\n%s", corrected, tt.corrected, text, pinned)
				}
				open(t, r.Store, "key")
			})
		}
	}
}

// TestOurFilesElsewhere: key files that are made here can be used by OpenSSL and
// tpm2-tools.
func TestOurFilesElsewhere(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for name, options := range map[string]tpm.KeyOptions{
		"P-256": {}, "P-384": {Algorithm: "ES384"}, "PIN": {PIN: true},
	} {
		t.Run(name, func(t *testing.T) {
			r, o := besides(t, sim, withPIN("1234"))
			key := create(t, r.Store, "key", options)
			path := filepath.Join(r.config.Dir, "key.pem")
			input := []byte("input")
			if err := os.WriteFile(o.file("input"), input, 0o600); err != nil {
				t.Fatal(err)
			}
			hash, digest := "sha256", sha256.New()
			if options.Algorithm == "ES384" {
				hash, digest = "sha384", sha512.New384()
			}
			digest.Write(input)
			check := func(program string) {
				t.Helper()
				der, err := os.ReadFile(o.file("signature"))
				if err != nil {
					t.Fatal(err)
				}
				if !ecdsa.VerifyASN1(key.Public().(*ecdsa.PublicKey), digest.Sum(nil), der) {
					t.Errorf("the signature of %s does not verify", program)
				}
			}

			args := []string{"dgst", "-" + hash, "-sign", path, "-out", o.file("signature")}
			if options.PIN {
				args = append(args, "-passin", "pass:1234")
			}
			o.openssl(append(args, o.file("input"))...)
			check("OpenSSL")

			o.tool("tpm2_load", "-Q", "-r", path, "-c", o.file("context"))
			args = []string{"-Q", "-c", o.file("context"), "-g", hash, "-f", "plain", "-o", o.file("signature")}
			if options.PIN {
				args = append(args, "-p", "1234")
			}
			o.tool("tpm2_sign", append(args, o.file("input"))...)
			check("tpm2-tools")
			sign(t, key)
		})
	}
}

// reopenAfter opens a Store that is closed at the end of the test.
func (r *rig) reopenAfter(t *testing.T) *tpm.Store {
	s := r.reopen(t)
	t.Cleanup(func() { s.Close() })
	return s
}
