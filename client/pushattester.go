// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// PushAttester gives an attestation that the Client Attester has provisioned
// beforehand, step (f). Exactly one of its fields is set.
//
// A Client with a PushAttester never creates a key, since the attestation is for a key
// that exists. If the Store does not have the key, New returns an error that matches
// keystore.ErrNotFound. New goes by the type of Config.Attester. If your own Attester
// wraps a PushAttester, open the key with Store.Open and set Config.Key.
type PushAttester struct {
	// Attestation is the Client Attestation JWT itself.
	Attestation string
	// File is the name of a file that contains the JWT, alone on its line. PushAttester
	// reads the file each time an attestation is needed. So the attestation can be
	// replaced while the program runs: rename a new file over the old one. The file is a
	// plain file, or a symbolic link to one.
	File string
}

// Attest implements Attester. The error is ErrAttesterUnavailable if the file cannot be
// read or is empty, and if it still contains the rejected attestation: a newer one may
// come.
func (p PushAttester) Attest(ctx context.Context, req AttestRequest) (string, error) {
	if err := p.check(); err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	attestation := p.Attestation
	if p.File != "" {
		content, err := readProvisioned(p.File)
		if err != nil {
			return "", fmt.Errorf("%w: provisioned attestation: %w", ErrAttesterUnavailable, err)
		}
		attestation = content
	}
	attestation = strings.TrimSpace(attestation)
	if attestation == req.Rejected {
		return "", fmt.Errorf("%w: the server wants a fresher attestation than the provisioned one; provision a new one", ErrAttesterUnavailable)
	}
	return attestation, nil
}

func (p PushAttester) check() error {
	if (p.Attestation == "") == (p.File == "") {
		return errors.New("client: PushAttester needs either Attestation or File")
	}
	return nil
}

// readProvisioned reads the file of a provisioned attestation. It may be a symbolic
// link, as mounted secrets are, to a plain file: others may never end.
func readProvisioned(name string) (string, error) {
	info, err := os.Stat(name)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a plain file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxAttestation+1))
	if err == nil && len(bytes.TrimSpace(content)) == 0 {
		err = fmt.Errorf("%s is empty", name)
	}
	return string(content), err
}

// String keeps the attestation out of logs.
func (p PushAttester) String() string {
	if p.File != "" {
		return "client.PushAttester{File: " + p.File + "}"
	}
	return "client.PushAttester{Attestation: redacted}"
}

// GoString is String.
func (p PushAttester) GoString() string { return p.String() }

// LogValue is String.
func (p PushAttester) LogValue() slog.Value { return slog.StringValue(p.String()) }

// MarshalJSON writes String.
func (p PushAttester) MarshalJSON() ([]byte, error) { return json.Marshal(p.String()) }
