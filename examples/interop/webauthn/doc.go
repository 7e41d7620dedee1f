// SPDX-License-Identifier: Apache-2.0

// Package webauthn asks go-webauthn what it thinks of this repository's key
// statements. It is a module of its own so that nobody else needs go-webauthn.
package webauthn
