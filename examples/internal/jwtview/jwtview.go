// SPDX-License-Identifier: Apache-2.0

// Package jwtview shows people what is in a JWT.
package jwtview

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// A View is what can be read of a JWT without any key, and nothing with which
// it could be used: the signature is left out. It says nothing about whether
// the JWT is genuine.
type View struct {
	Header json.RawMessage `json:"header"`
	Claims json.RawMessage `json:"claims"`
}

// Decode reads a signed JWT in compact form. Errors do not quote it.
func Decode(compact string) (View, error) {
	parts := strings.Split(strings.TrimSpace(compact), ".")
	if len(parts) != 3 {
		return View{}, errors.New("not a signed JWT in compact form")
	}
	header, err := decodePart(parts[0])
	if err != nil {
		return View{}, fmt.Errorf("JWT header %w", err)
	}
	claims, err := decodePart(parts[1])
	if err != nil {
		return View{}, fmt.Errorf("JWT claims %w", err)
	}
	return View{header, claims}, nil
}

func decodePart(part string) (json.RawMessage, error) {
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return nil, errors.New("are not base64url")
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, errors.New("are not a JSON object")
	}
	return text, nil
}

// String returns the view on several lines.
func (v View) String() string { return Indent(v) }

// Indent returns any value as JSON on several lines.
func Indent(value any) string {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false) // URLs are to be read
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return err.Error()
	}
	return strings.TrimSuffix(out.String(), "\n")
}
