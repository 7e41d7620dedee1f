// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"sync"

	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// maxRefusals bounds what is remembered of refused values. A TPM locks itself long
// before.
const maxRefusals = 4096

// refused is what TPMs have refused since the process began. Each wrong value counts
// toward the lockout of a whole TPM, so none is tried twice, in whatever Store.
var refused = newRefusals()

// refusals remembers authorization values that were wrong, as digests that are
// worth nothing outside of this process. Safe for concurrent use.
type refusals struct {
	secret []byte

	mu     sync.Mutex
	values map[digest]error // by holder and value
	empty  map[digest]error // of the empty value, by holder
	latest map[digest]error // of any other, by holder
}

type digest [sha256.Size]byte

func newRefusals() *refusals {
	r := &refusals{secret: make([]byte, sha256.Size), values: make(map[digest]error), empty: make(map[digest]error), latest: make(map[digest]error)}
	rand.Read(r.secret)
	return r
}

// holderOf is whose values a key file's are: those of its private part, since
// another PIN makes another one.
func holderOf(k *keyfile.File) digest {
	return sha256.Sum256(append(k.Public.Bytes(), k.Private.Buffer...))
}

// holderOfObject is the same for an object in the TPM.
func holderOfObject(o *object) digest { return sha256.Sum256(o.Name.Buffer) }

// note remembers that value, which may be empty, was refused with err.
func (r *refusals) note(holder digest, value []byte, err error) {
	err = fmt.Errorf("the TPM has refused this before, and it is not tried again: %w", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.values)+len(r.empty) >= maxRefusals {
		clear(r.values)
		clear(r.empty)
		clear(r.latest)
	}
	if len(value) == 0 {
		r.empty[holder] = err
		return
	}
	r.values[r.digestOf(holder, value)] = err
	r.latest[holder] = err
}

// of returns the error that says that value was refused, or nil.
func (r *refusals) of(holder digest, value []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(value) == 0 {
		return r.empty[holder] // asked for each signature
	}
	return r.values[r.digestOf(holder, value)]
}

// last returns the error of the last PIN that was refused, for those who have
// waited for the same PIN: it is another one then than before.
func (r *refusals) last(holder digest) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.latest[holder]
}

func (r *refusals) digestOf(holder digest, value []byte) (d digest) {
	mac := hmac.New(sha256.New, r.secret)
	mac.Write(holder[:])
	mac.Write(value)
	mac.Sum(d[:0])
	return d
}
