// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/attester"
	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/internal/privatefile"
	"github.com/instancekey/instancekey/keystore"
)

// checkFiles reads what the flags name, and makes nothing.
func checkFiles(files *evidenceFiles, keyFile, claimsFile string, log *slog.Logger) error {
	errs := []error{files.check(log)}
	if exists(keyFile) {
		key, err := signingKey(keyFile)
		if err == nil {
			_, err = attester.New(attester.Config{URL: "https://attester.invalid", Clients: []string{"client"}, Key: key})
		}
		errs = append(errs, err)
	}
	_, err := vendorClaims(claimsFile)
	return errors.Join(append(errs, err)...)
}

func (f *evidenceFiles) check(log *slog.Logger) error {
	wanted, err := f.wanted()
	if !wanted {
		return err
	}
	_, wrong := f.read(log)
	if exists(f.ca) {
		_, err := akCA(f.ca)
		wrong = append(wrong, err)
	}
	return errors.Join(wrong...)
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return file != "" && !errors.Is(err, fs.ErrNotExist)
}

// signingKey reads a private JWK, or makes one: into the file, if one is named.
func signingKey(file string) (jose.JSONWebKey, error) {
	if file != "" {
		data, err := os.ReadFile(file)
		if err == nil {
			var key jose.JSONWebKey
			if err := json.Unmarshal(data, &key); err != nil {
				return key, fmt.Errorf("%s: %w", file, err)
			}
			return key, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return jose.JSONWebKey{}, err
		}
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return jose.JSONWebKey{}, err
	}
	kid, err := keystore.Thumbprint(&private.PublicKey)
	if err != nil {
		return jose.JSONWebKey{}, err
	}
	key := jose.JSONWebKey{Key: private, KeyID: kid, Algorithm: string(jose.ES256), Use: "sig"}
	if file == "" {
		return key, nil
	}
	data, err := json.Marshal(key)
	if err != nil {
		return key, err
	}
	return key, privatefile.Create(file, append(data, '\n'))
}

// vendorClaims reads claims for all attestations, none if no file is named.
func vendorClaims(file string) (map[string]any, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var claims map[string]any
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber() // large numbers stay as they are
	if err := decoder.Decode(&claims); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if _, err := decoder.Token(); err != io.EOF || claims == nil {
		return nil, fmt.Errorf("%s: not one JSON object", file)
	}
	return claims, nil
}

// akCA reads the CA for attestation keys, certificate and key in one PEM file,
// or makes one likewise.
func akCA(file string) (*evidence.CA, error) {
	if file != "" {
		pair, err := tls.LoadX509KeyPair(file, file)
		if err == nil {
			key, ok := pair.PrivateKey.(crypto.Signer)
			if !ok {
				return nil, fmt.Errorf("%s: the key cannot sign", file)
			}
			return evidence.NewCA(pair.Leaf, key)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	ca, err := evidence.CreateCA(time.Now())
	if err != nil || file == "" {
		return ca, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(ca.Key())
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: ca.Certificate().Raw})
	pem.Encode(&text, &pem.Block{Type: "PRIVATE KEY", Bytes: key})
	return ca, privatefile.Create(file, text.Bytes())
}

// provision makes key and attestation for one device: key.pem and attestation.jwt,
// which must not be there.
func provision(cfg attester.Config, ek, dir string, lifetime time.Duration) error {
	if cfg.URL == "" {
		cfg.URL = "https://attester.invalid" // is nowhere in what is made
	}
	server, err := attester.New(cfg)
	if err != nil {
		return err
	}
	if len(cfg.Clients) != 1 {
		return errors.New("-provision is for one client: give one -client-id")
	}
	key, attestation := filepath.Join(dir, "key.pem"), filepath.Join(dir, "attestation.jwt")
	if err := roomFor(dir, key, attestation); err != nil { // before the key is made, which nobody else has
		return err
	}
	made, err := server.Provision(cfg.Clients[0], ek, lifetime)
	if err != nil {
		return err
	}
	if err := privatefile.Create(key, made.Key); err != nil {
		return err
	}
	if err := privatefile.Create(attestation, []byte(made.Attestation+"\n")); err != nil {
		return errors.Join(err, os.Remove(key)) // which is worth nothing without
	}
	fmt.Printf("provisioned %s %s\n", key, attestation)
	return nil
}

// roomFor makes a folder for files that are not there yet.
func roomFor(dir string, files ...string) error {
	if dir == "" {
		return errors.New("-out is empty: name the folder for what -provision makes")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("-out: %w", err)
	}
	for _, file := range files {
		if _, err := os.Lstat(file); err == nil {
			return fmt.Errorf("-out: %s: %w: name another folder for each device", file, fs.ErrExist)
		}
	}
	return nil
}
