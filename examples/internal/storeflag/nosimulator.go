// SPDX-License-Identifier: Apache-2.0

//go:build !cgo

package storeflag

import "github.com/google/go-tpm/tpm2/transport"

// SimulatorBuiltIn reports whether this program has the TPM simulator.
const SimulatorBuiltIn = false

func (s *Store) startSimulator() (transport.TPM, error) { return nil, ErrNoSimulator }
