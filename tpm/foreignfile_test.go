// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// eccPrimary and rsaPrimary are the parents that the format knows, with the template
// H-2 and its like for RSA.
var eccPrimary, rsaPrimary = func() (ecc, rsa tpm2.TPMTPublic) {
	ecc, rsa = tpm2.ECCSRKTemplate, tpm2.RSASRKTemplate
	ecc.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	rsa.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{})
	return ecc, rsa
}()

func signingTemplate() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true, NoDA: true},
		Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256}),
	}
}

// under makes a key under a primary key of a hierarchy.
func under(t *testing.T, sim *tpmtest.Sim, hierarchy tpm2.TPMHandle, parent, template tpm2.TPMTPublic) *tpm2.CreateResponse {
	t.Helper()
	p, err := tpm2.CreatePrimary{PrimaryHandle: hierarchy, InPublic: tpm2.New2B(parent)}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	defer flush(t, sim, p.ObjectHandle)
	made, err := tpm2.Create{ParentHandle: tpm2.NamedHandle{Handle: p.ObjectHandle, Name: p.Name}, InPublic: tpm2.New2B(template)}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// encodeKey writes a TSS2 key whose INTEGER of the parent has these octets.
func encodeKey(made *tpm2.CreateResponse, parent []byte, optional ...func(*cryptobyte.Builder)) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(keyfile.OIDLoadableKey)
		b.AddASN1(asn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Boolean(true) })
		for _, f := range optional {
			f(b)
		}
		b.AddASN1(asn1.INTEGER, func(b *cryptobyte.Builder) { b.AddBytes(parent) })
		b.AddASN1OctetString(tpm2.Marshal(made.OutPublic))
		b.AddASN1OctetString(tpm2.Marshal(made.OutPrivate))
	})
	return pem.EncodeToMemory(&pem.Block{Type: "TSS2 PRIVATE KEY", Bytes: b.BytesOrPanic()})
}

var ownerParent = []byte{0x40, 0, 0, 1}

func put(t *testing.T, r *rig, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(r.config.Dir, name+".pem")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestForms: each way in which a key is written down is the same key.
func TestForms(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r, o := besides(t, sim)
	o.tool("tpm2_createprimary", "-Q", "-C", "o", "-G", "ecc", "-g", "sha256", "-c", o.file("srk"),
		"-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt")
	o.tool("tpm2_evictcontrol", "-Q", "-C", "o", "-c", o.file("srk"), "0x81000001")
	defer o.tool("tpm2_evictcontrol", "-Q", "-C", "o", "-c", "0x81000001")
	made := under(t, sim, tpm2.TPMRHOwner, eccPrimary, signingTemplate())
	legacy := eccPrimary
	legacy.ObjectAttributes.FixedTPM, legacy.ObjectAttributes.FixedParent = false, false
	old := signingTemplate()
	old.ObjectAttributes.FixedTPM, old.ObjectAttributes.FixedParent = false, false
	for name, text := range map[string][]byte{
		"negative parent":       encodeKey(made, []byte{0x81, 0, 0, 1}),
		"persistent parent":     encodeKey(made, []byte{0, 0x81, 0, 0, 1}),
		"parent 0":              encodeKey(made, []byte{0}),
		"owner":                 encodeKey(made, ownerParent),
		"rsaParent FALSE":       encodeKey(made, ownerParent, rsaParent(false)),
		"rsaParent":             encodeKey(under(t, sim, tpm2.TPMRHOwner, rsaPrimary, signingTemplate()), ownerParent, rsaParent(true)),
		"old blob":              encodeOldKey(under(t, sim, tpm2.TPMRHOwner, legacy, old), ownerParent),
		"old blob without more": encodeOldKey(under(t, sim, tpm2.TPMRHOwner, legacy, old), nil),
	} {
		t.Run(name, func(t *testing.T) {
			path := put(t, r, "key", text)
			for range 2 {
				s := r.reopen(t)
				key := open(t, s, "key")
				sign(t, key)
				prove(t, key)
				s.Close()
			}
			after, err := os.ReadFile(path)
			if err != nil || !bytes.HasPrefix(after, text) || bytes.Count(after, []byte("BEGIN")) != 2 {
				t.Errorf("the file is\n%s\nand was\n%s\n%v", after, text, err)
			}
		})
	}
}

func rsaParent(is bool) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.Tag(5).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Boolean(is) })
	}
}

// encodeOldKey writes what openssl_tpm2_engine wrote before there was a draft.
func encodeOldKey(made *tpm2.CreateResponse, parent []byte) []byte {
	var b cryptobyte.Builder
	explicit := func(b *cryptobyte.Builder, tag uint8, f func(*cryptobyte.Builder)) {
		b.AddASN1(asn1.Tag(tag).ContextSpecific().Constructed(), f)
	}
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(keyfile.OIDOldLoadableKey)
		explicit(b, 0, func(b *cryptobyte.Builder) { b.AddASN1Boolean(true) })
		if parent != nil {
			explicit(b, 1, func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.INTEGER, func(b *cryptobyte.Builder) { b.AddBytes(parent) })
			})
		}
		explicit(b, 2, func(b *cryptobyte.Builder) { b.AddASN1OctetString(tpm2.Marshal(made.OutPublic)) })
		b.AddASN1OctetString(tpm2.Marshal(made.OutPrivate))
	})
	return pem.EncodeToMemory(&pem.Block{Type: "TSS2 KEY BLOB", Bytes: b.BytesOrPanic()})
}

// TestAroundTheKey: what stands around a key is no hindrance, and stays octet for
// octet, whatever is done with the key.
func TestAroundTheKey(t *testing.T) {
	sim := tpmtest.Simulator(t)
	certificate := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Headers: map[string]string{"Of": "the key"}, Bytes: []byte{1, 2, 3}}))
	const parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
	for name, around := range map[string]func(key string) string{
		"byte order mark":    func(key string) string { return "\xef\xbb\xbf" + key },
		"comments":           func(key string) string { return "# before\n\n" + key + "\n# after, without an end" },
		"dashes":             func(key string) string { return "----- my key -----\n" + key + "----------\n" },
		"EC PARAMETERS":      func(key string) string { return parameters + key },
		"certificate before": func(key string) string { return certificate + key },
		"certificate after":  func(key string) string { return key + "subject=CN = key\n" + certificate },
		"Ctrl-Z":             func(key string) string { return key + "\x1a" },
		"no newline":         func(key string) string { return strings.TrimSuffix(key, "\n") },
		"CRLF":               func(key string) string { return strings.ReplaceAll("# a file\n"+key+certificate, "\n", "\r\n") },
		"headers": func(key string) string {
			return strings.Replace(key, "KEY-----\n", "KEY-----\nComment: mine\nFor: example.com\n\n", 1)
		},
		"headers and CRLF": func(key string) string {
			return strings.ReplaceAll(strings.Replace(key, "KEY-----\n", "KEY-----\nComment: mine\n\n", 1), "\n", "\r\n")
		},
		"one line": func(key string) string { return oneLine(key) },
		"everything": func(key string) string {
			return "\xef\xbb\xbf# file\n" + parameters + certificate + key + "\n# end\n" + certificate + "\x1a"
		},
		"a damaged other one": func(key string) string { return "-----BEGIN X-----\n!\n-----END X-----\n" + key },
	} {
		t.Run(name, func(t *testing.T) {
			// The flag is wrong, so that the key's own block changes.
			k := foreignKey{password: "", noDA: false, emptyAuth: false}
			key := string(k.file(t, sim))
			text := around(key)
			start := strings.Index(text, "-----BEGIN TSS2")
			end := strings.Index(text, "-----END TSS2")
			before, after := text[:start], text[end:]

			r := newRig(t, sim)
			path := put(t, r, "key", []byte(text))
			check := func(what string, ours int) {
				t.Helper()
				now, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if !strings.HasPrefix(string(now), before) || !strings.Contains(string(now), after) {
					t.Errorf("%s has made\n%q of\n%q", what, now, text)
				}
				if n := strings.Count(string(now), "-----BEGIN TPM2 "); n != ours {
					t.Errorf("after %s there are %d blocks of ours, want %d", what, n, ours)
				}
				if headers := strings.Count(text, ": "); strings.Count(string(now), ": ") != headers {
					t.Errorf("%s has lost headers:\n%s", what, now)
				}
				if strings.Contains(name, "CRLF") && strings.Count(string(now[:strings.Index(string(now), "-----BEGIN TPM2")+1]), "\n") != strings.Count(string(now), "\r\n") {
					t.Errorf("%s has changed ends of lines: %q", what, now)
				}
			}
			describe(t, r.Store, "key")
			opened := open(t, r.Store, "key")
			if now, err := os.ReadFile(path); err != nil || string(now) != text {
				t.Fatalf("Open has changed the file: %v", err)
			}
			sign(t, opened)
			check("Sign", 1)
			if describe(t, r.Store, "key").PIN {
				t.Error("the flag was not corrected")
			}
			if err := r.Persist(t.Context(), "key", handle); err != nil {
				t.Fatal(err)
			}
			check("Persist", 2)
			sign(t, open(t, r.Store, "key"))
			if err := r.Unpersist(t.Context(), "key"); err != nil {
				t.Fatal(err)
			}
			check("Unpersist", 1)
			sign(t, open(t, r.Store, "key"))
		})
	}
}

// oneLine puts all of a key's base64 in one line.
func oneLine(key string) string {
	block, _ := pem.Decode([]byte(key))
	whole := strings.Split(strings.TrimSpace(string(pem.EncodeToMemory(block))), "\n")
	return whole[0] + "\n" + strings.Join(whole[1:len(whole)-1], "") + "\n" + whole[len(whole)-1] + "\n"
}

// TestOtherKinds: a healthy key of a kind that cannot be used here is no damaged one,
// and nobody is told to delete it.
func TestOtherKinds(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	change := func(f func(*tpm2.TPMTPublic)) tpm2.TPMTPublic {
		template := signingTemplate()
		f(&template)
		return template
	}
	rsa := change(func(p *tpm2.TPMTPublic) {
		p.Type, p.Parameters = tpm2.TPMAlgRSA, tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: 2048})
	})
	ecdsaWith := func(hash tpm2.TPMIAlgHash) tpm2.TPMTPublic {
		return change(func(p *tpm2.TPMTPublic) {
			p.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
				CurveID: tpm2.TPMECCNistP256,
				Scheme:  tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: hash})},
			})
		})
	}
	p521 := change(func(p *tpm2.TPMTPublic) {
		p.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP521})
	})
	kinds := map[string][]byte{
		"RSA":            encodeKey(under(t, sim, tpm2.TPMRHOwner, eccPrimary, rsa), ownerParent),
		"SHA-384":        encodeKey(under(t, sim, tpm2.TPMRHOwner, eccPrimary, ecdsaWith(tpm2.TPMAlgSHA384)), ownerParent),
		"storage key":    encodeKey(under(t, sim, tpm2.TPMRHOwner, eccPrimary, eccPrimary), ownerParent),
		"null hierarchy": encodeKey(under(t, sim, tpm2.TPMRHNull, eccPrimary, signingTemplate()), []byte{0x40, 0, 0, 7}),
		"endorsement":    encodeKey(under(t, sim, tpm2.TPMRHEndorsement, eccPrimary, signingTemplate()), []byte{0x40, 0, 0, 0xb}),
	}
	fake := under(t, sim, tpm2.TPMRHOwner, eccPrimary, signingTemplate())
	p521.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: make([]byte, 66)}, Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, 66)},
	})
	fake.OutPublic = tpm2.New2B(p521)
	kinds["P-521"] = encodeKey(fake, ownerParent)
	for name, text := range kinds {
		put(t, r, "key", text)
		for what, do := range map[string]func() error{
			"Open":     func() error { _, err := r.Open(t.Context(), "key"); return err },
			"Describe": func() error { _, err := r.Describe(t.Context(), "key"); return err },
			"Persist":  func() error { return r.Persist(t.Context(), "key", handle) },
		} {
			err := do()
			wantError(t, err, keystore.ErrUnavailable, errors.ErrUnsupported)
			if strings.Contains(err.Error(), "delete") || !strings.Contains(err.Error(), "program that made it") {
				t.Errorf("%s, %s: %q gives the wrong advice", name, what, err)
			}
		}
		if err := r.Delete(t.Context(), "key"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestUnnamedParent: tpm2_encodeobject writes the owner hierarchy for every parent
// that is a context. What tpm2_createprimary makes by itself is found all the same.
func TestUnnamedParent(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for name, tt := range map[string]struct {
		primary []string
		pin     bool
	}{
		"ecc":     {[]string{"-G", "ecc"}, false},
		"ecc PIN": {[]string{"-G", "ecc"}, true},
		"default": {nil, false},
		"rsa PIN": {[]string{"-G", "rsa"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			sim.Manufacture()
			r, o := besides(t, sim, func(c *tpm.Config) {
				if tt.pin {
					withPIN("1234")(c)
				}
			})
			o.tool("tpm2_createprimary", append([]string{"-Q", "-C", "o", "-c", o.file("parent")}, tt.primary...)...)
			args := []string{"-Q", "-C", o.file("parent"), "-G", "ecc256:ecdsa-sha256", "-a", plain, "-u", o.file("pub"), "-r", o.file("priv")}
			if tt.pin {
				args = append(args, "-p", "1234")
			}
			o.tool("tpm2_create", args...)
			path := filepath.Join(r.config.Dir, "key.pem")
			o.tool("tpm2_encodeobject", "-C", o.file("parent"), "-u", o.file("pub"), "-r", o.file("priv"), "-o", path)
			if err := os.Chmod(path, 0o600); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				s := r.reopen(t)
				key := open(t, s, "key")
				sign(t, key)
				prove(t, key)
				s.Close()
			}
			r.calls.Reset()
			s := r.reopenAfter(t)
			sign(t, open(t, s, "key"))
			if n := r.calls.Count(ccCreatePrimary); n != 1 {
				t.Errorf("TPM2_CreatePrimary was sent %d times once the parent was known, want 1", n)
			}
			s.Close()
			sim.Manufacture()
			s = r.reopenAfter(t)
			_, err := s.Open(t.Context(), "key")
			wantError(t, err, keystore.ErrKeyLost) // which is certain now
		})
	}
}

// TestUnknownParent: a file that does not name its parent is not taken for lost
// because none of the parents that are known has made the key.
func TestUnknownParent(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	other := eccPrimary
	other.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: []byte("another")}})
	put(t, r, "key", encodeKey(under(t, sim, tpm2.TPMRHOwner, other, signingTemplate()), ownerParent))
	_, err := r.Open(t.Context(), "key")
	if wantError(t, err, keystore.ErrUnavailable, tpm2.TPMRCIntegrity); strings.Contains(err.Error(), "delete the key") || !strings.Contains(err.Error(), "tpm2_encodeobject -C HANDLE") {
		t.Errorf("%q gives the wrong advice", err)
	}
}

// TestFilesOfKeyfiles: what github.com/foxboron/go-tpm-keyfiles writes, and so
// ssh-tpm-agent, with its description.
func TestFilesOfKeyfiles(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, bits := range []int{256, 384} {
		for _, pin := range []string{"", "1234"} {
			conn, err := sim.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			options := []keyfile.TPMKeyOption{keyfile.WithDescription("root@gateway")}
			if pin != "" {
				options = append(options, keyfile.WithUserAuth([]byte(pin)))
			}
			made, err := keyfile.NewLoadableKey(conn, tpm2.TPMAlgECC, bits, nil, options...)
			if err != nil {
				t.Fatal(err)
			}
			r := newRig(t, sim, withPIN("1234"))
			path := put(t, r, "key", made.Bytes())
			key := open(t, r.Store, "key")
			sign(t, key)
			prove(t, key)
			if after, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(after, made.Bytes()) {
				t.Errorf("P-%d, PIN %q: the file is %s, %v", bits, pin, after, err)
			}
			if n := wrongTries(t, sim); n != 0 {
				t.Errorf("P-%d, PIN %q: %d wrong tries", bits, pin, n)
			}
			r.Close()
		}
	}
}
