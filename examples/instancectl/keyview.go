// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/examples/internal/jwtview"
	"github.com/instancekey/instancekey/examples/internal/storeflag"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// keyView is what is shown of a key.
type keyView struct {
	Name       string          `json:"name"`
	Algorithm  string          `json:"alg"`
	Thumbprint string          `json:"thumbprint"` // RFC 7638, SHA-256
	JWK        jose.JSONWebKey `json:"jwk"`
	Place      string          `json:"place"`
	Protection string          `json:"protection"`
	keyLabel                   // of one that token or attest has named
}

func (p *program) showKey(ctx context.Context, f *keyFlags, store *storeflag.Store, key keystore.Key) error {
	jwk, err := keystore.JWK(key.Public())
	if err != nil {
		return err
	}
	thumbprint, err := keystore.Thumbprint(key.Public())
	if err != nil {
		return err
	}
	view := keyView{f.name, key.Algorithm(), thumbprint, jwk, "memory", store.Protection, readLabel(store.Dir, f.name)}
	if store.Dir != "" {
		view.Place = filepath.Join(store.Dir, f.name+".pem")
	}
	if s, ok := store.Store.(*tpm.Store); ok {
		description, err := s.Describe(ctx, f.name)
		if err != nil {
			return err
		}
		view.describe(description)
	}
	if f.json {
		return json.NewEncoder(p.stdout).Encode(view)
	}
	_, err = fmt.Fprintln(p.stdout, jwtview.Indent(view))
	return err
}

// describe adds what a TPM key's file says about the key.
func (v *keyView) describe(d tpm.Description) {
	v.Place = d.File
	if d.Handle != 0 {
		v.Place += fmt.Sprintf(", and in the TPM at 0x%08x", d.Handle)
	}
	v.Protection = strings.Join(append([]string{v.Protection}, protection(d)...), ", ")
}

// protection says what protects a key beyond the TPM, or does not.
func protection(d tpm.Description) []string {
	var words []string
	switch {
	case d.Imported:
		words = append(words, "imported: whoever made it has had it")
	case d.Duplicable:
		words = append(words, "duplicable: it need not stay in this TPM")
	}
	if d.PIN {
		words = append(words, "with a PIN")
	}
	if len(d.PCRs) > 0 {
		list := strings.Trim(strings.Join(strings.Fields(fmt.Sprint(d.PCRs)), ","), "[]")
		words = append(words, "bound to what the device has booted (PCRs "+list+")")
	}
	return words
}
