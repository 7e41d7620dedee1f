package main

import (
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"path/filepath"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
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
}

func (p *program) showKey(f *keyFlags, store *storeflag.Store, key keystore.Key) error {
	jwk, err := keystore.JWK(key.Public())
	if err != nil {
		return err
	}
	thumbprint, err := keystore.Thumbprint(key.Public())
	if err != nil {
		return err
	}
	view := keyView{f.name, key.Algorithm(), thumbprint, jwk, "memory", store.Protection}
	if store.Dir != "" {
		view.Place = filepath.Join(store.Dir, f.name+".pem")
	}
	if _, ok := store.Store.(*tpm.Store); ok {
		if err := view.readKeyFile(); err != nil {
			return err
		}
	}
	if f.json {
		return json.NewEncoder(p.stdout).Encode(view)
	}
	_, err = fmt.Fprintln(p.stdout, jwtview.Indent(view))
	return err
}

// readKeyFile adds what a TPM key's file says about it. The file has been read
// and checked by tpm.Store before.
func (v *keyView) readKeyFile() error {
	text, err := readFile(v.Place)
	if err != nil {
		return err
	}
	key, err := keyfile.Decode(text)
	if err != nil {
		return fmt.Errorf("%s: %w", v.Place, err)
	}
	public, err := key.Pubkey.Contents()
	if err != nil {
		return fmt.Errorf("%s: %w", v.Place, err)
	}
	if !public.ObjectAttributes.FixedTPM {
		v.Protection += ", imported: whoever made it has had it"
	}
	if !key.EmptyAuth {
		v.Protection += ", with a PIN"
	}
	if !public.ObjectAttributes.UserWithAuth {
		v.Protection += ", bound to what the device has booted (PCRs)"
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "TPM2 PERSISTENT HANDLE" && len(block.Bytes) == 4 {
			v.Place += fmt.Sprintf(", and in the TPM at 0x%08x", binary.BigEndian.Uint32(block.Bytes))
		}
	}
	return nil
}
