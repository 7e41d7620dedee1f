// SPDX-License-Identifier: Apache-2.0

package softkey

import (
	"crypto"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/instancekey/instancekey/keystore"
)

// memory keeps keys for the life of the process.
type memory struct {
	mu      sync.Mutex
	signers map[string]crypto.Signer
}

func newMemory() *memory { return &memory{signers: make(map[string]crypto.Signer)} }

func (m *memory) create(name string, signer crypto.Signer) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.signers[name] != nil {
		return fmt.Errorf("softkey: key %q: %w", name, keystore.ErrExists)
	}
	m.signers[name] = signer
	return nil
}

func (m *memory) open(name string) (keystore.Key, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	signer := m.signers[name]
	if signer == nil {
		return nil, fmt.Errorf("softkey: key %q: %w", name, keystore.ErrNotFound)
	}
	return keystore.FromSigner(signer)
}

func (m *memory) delete(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.signers, name)
	return nil
}

func (m *memory) list() ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.signers)), nil
}

func (m *memory) String() string { return "memory" }
