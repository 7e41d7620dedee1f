// SPDX-License-Identifier: Apache-2.0

package authserver

import (
	"crypto/sha256"
	"sync"
	"time"
)

// rememberedAttestations bounds the memory of verified attestations: about 20 MB
// when full.
const (
	rememberedAttestations = 10_000
	maxRemembered          = 8 << 10 // bytes of one attestation
)

// remembered are attestations that passed items 1 to 5 of section 7.1. An instance
// sends the same one with each request, and to check its signature again costs
// more than all the rest. Who comes after many others is forgotten, and verified
// again. It is safe for concurrent use.
type remembered struct {
	mu       sync.Mutex
	capacity int
	// What is looked up moves from old to young; when young has half of the
	// capacity, it becomes old, and what was old is forgotten.
	young, old map[[sha256.Size]byte]*verifiedAttestation
}

func newRemembered(capacity int) *remembered {
	return &remembered{capacity: capacity, young: make(map[[sha256.Size]byte]*verifiedAttestation)}
}

// get returns nil for an attestation that is not remembered, or whose attester's
// certificates are not valid at that time.
func (r *remembered) get(compact string, now time.Time) *verifiedAttestation {
	key := sha256.Sum256([]byte(compact))
	r.mu.Lock()
	defer r.mu.Unlock()
	verified := r.young[key]
	if verified == nil {
		if verified = r.old[key]; verified == nil {
			return nil
		}
		r.add(key, verified)
	}
	if !verified.notAfter.IsZero() && (now.Before(verified.notBefore) || now.After(verified.notAfter)) {
		return nil
	}
	return verified
}

// put remembers an attestation, if it is of the usual size.
func (r *remembered) put(compact string, verified *verifiedAttestation) {
	if len(compact) > maxRemembered {
		return
	}
	key := sha256.Sum256([]byte(compact))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(key, verified)
}

func (r *remembered) add(key [sha256.Size]byte, verified *verifiedAttestation) {
	if len(r.young) >= r.capacity/2 {
		r.old, r.young = r.young, make(map[[sha256.Size]byte]*verifiedAttestation)
	}
	r.young[key] = verified
}
