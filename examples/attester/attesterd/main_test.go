// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/examples/attester"
	"github.com/instancekey/instancekey/examples/internal/factory"
)

var quiet = slog.New(slog.DiscardHandler)

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestKeysAreKept: what is made into a file is read from it the next time.
func TestKeysAreKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.pem")
	made, err := akCA(file)
	if err != nil {
		t.Fatal(err)
	}
	read, err := akCA(file)
	if err != nil || !read.Certificate().Equal(made.Certificate()) {
		t.Errorf("another CA, %v", err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if other, err := akCA(""); err != nil || other.Certificate().Equal(made.Certificate()) {
		t.Errorf("the same CA without a file, %v", err)
	}
	if _, err := akCA(write(t, "bad.pem", []byte("not PEM"))); err == nil || !strings.Contains(err.Error(), "bad.pem") {
		t.Errorf("bad file: %v", err)
	}

	file = filepath.Join(t.TempDir(), "key.json")
	key, err := signingKey(file)
	if err != nil {
		t.Fatal(err)
	}
	again, err := signingKey(file)
	if err != nil || again.KeyID != key.KeyID || !again.Key.(*ecdsa.PrivateKey).Equal(key.Key) {
		t.Errorf("another key, %v", err)
	}
	if _, err := signingKey(write(t, "bad.json", []byte("{}"))); err == nil {
		t.Error("a bad file was taken for a key")
	}
}

// operatorFiles are those of an attester that knows one device.
func operatorFiles(t *testing.T) (files evidenceFiles, ek string) {
	t.Helper()
	maker, err := factory.NewTPMMaker(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	srk := tpm2.ECCSRKTemplate
	srk.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]},
	})
	digest := sha256.Sum256([]byte("an EK"))
	ek = hex.EncodeToString(digest[:])
	roots := write(t, "root.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: maker.Root.Raw}))
	return evidenceFiles{
		roots: filepath.Dir(roots),
		registry: write(t, "registry.json", fmt.Appendf(nil, `{"models": {"m": {"hwmodel": "X1"}}, "devices": [{"ek": %q, "model": "m", "srk": %q}]}`,
			ek, base64.StdEncoding.EncodeToString(tpm2.Marshal(srk)))),
		reference: write(t, "reference.json", []byte(`{"policy": "p", "pcrs": [0], "software": []}`)),
		ca:        filepath.Join(t.TempDir(), "ca.pem"),
	}, ek
}

func TestEvidenceFiles(t *testing.T) {
	files, _ := operatorFiles(t)
	verifier, _, err := files.load(quiet)
	if err != nil {
		t.Fatal(err)
	}
	if pcrs := verifier.PCRs(); len(pcrs) != 1 || pcrs[0] != 0 {
		t.Errorf("PCRs %v", pcrs)
	}
	if verifier, _, err := new(evidenceFiles).load(quiet); verifier != nil || err != nil {
		t.Errorf("no files: %v, %v", verifier, err)
	}
	bad := write(t, "bad", []byte("{"))
	for name, change := range map[string]func(*evidenceFiles){
		"-tpm-roots":       func(f *evidenceFiles) { f.roots = "" },
		"no such file":     func(f *evidenceFiles) { f.roots = "missing" },
		"no certificates":  func(f *evidenceFiles) { f.roots = t.TempDir() },
		"registry":         func(f *evidenceFiles) { f.registry = bad },
		"reference values": func(f *evidenceFiles) { f.reference = bad },
		"PEM":              func(f *evidenceFiles) { f.ca = bad },
	} {
		spoilt := files
		change(&spoilt)
		if verifier, _, err := spoilt.load(quiet); verifier != nil || err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, %v", name, verifier, err)
		}
	}
}

func TestProvision(t *testing.T) {
	files, ek := operatorFiles(t)
	verifier, _, err := files.load(quiet)
	if err != nil {
		t.Fatal(err)
	}
	key, err := signingKey("")
	if err != nil {
		t.Fatal(err)
	}
	cfg := attester.Config{Clients: []string{"abca-client"}, Key: key, Evidence: verifier, Logger: slog.New(slog.DiscardHandler)}
	dir := t.TempDir()
	if err := provision(cfg, ek, dir, time.Hour); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "key.pem"))
	if block, _ := pem.Decode(text); err != nil || block == nil || block.Type != "TSS2 PRIVATE KEY" {
		t.Errorf("key.pem: %s, %v", text, err)
	}
	attestation, err := os.ReadFile(filepath.Join(dir, "attestation.jwt"))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jwt.ParseSigned(strings.TrimSpace(string(attestation)), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := parsed.Claims(key.Public(), &claims); err != nil || claims["sub"] != "abca-client" || claims["hwmodel"] != "WDE" {
		t.Errorf("claims %v, %v", claims, err)
	}

	if err := provision(cfg, ek, dir, time.Hour); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over an existing key: %v", err)
	}
	if after, _ := os.ReadFile(filepath.Join(dir, "key.pem")); string(after) != string(text) {
		t.Error("the existing key is gone")
	}
	// A folder that is not there is made, and no half of a device is left.
	made := filepath.Join(t.TempDir(), "devices", "1")
	if err := provision(cfg, ek, made, time.Hour); err != nil {
		t.Error(err)
	}
	half := t.TempDir()
	writeIn(t, half, "attestation.jwt", "old")
	if err := provision(cfg, ek, half, time.Hour); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over an existing attestation: %v", err)
	}
	if _, err := os.Stat(filepath.Join(half, "key.pem")); err == nil {
		t.Error("a key was left that there is no attestation for")
	}
	if err := provision(cfg, ek, "", time.Hour); err == nil {
		t.Error("no folder at all was taken")
	}
	cfg.Clients = append(cfg.Clients, "other")
	if err := provision(cfg, ek, t.TempDir(), time.Hour); err == nil {
		t.Error("two clients, one key")
	}
}

// TestVendorClaims: one JSON object, and nothing else.
func TestVendorClaims(t *testing.T) {
	claims, err := vendorClaims(write(t, "claims.json", []byte(`{"wallet_name": "Meter", "big": 123456789012345678901}`+"\n")))
	if err != nil || claims["wallet_name"] != "Meter" || fmt.Sprint(claims["big"]) != "123456789012345678901" {
		t.Errorf("%v, %v", claims, err)
	}
	if claims, err := vendorClaims(""); claims != nil || err != nil {
		t.Errorf("no file: %v, %v", claims, err)
	}
	for _, bad := range []string{"", "null", "[]", `"x"`, "{}{}", "{} x", "{"} {
		if claims, err := vendorClaims(write(t, "bad.json", []byte(bad))); err == nil || !strings.Contains(err.Error(), "bad.json") {
			t.Errorf("%q: %v, %v", bad, claims, err)
		}
	}
	if _, err := vendorClaims("missing"); err == nil {
		t.Error("a missing file passed")
	}
}
