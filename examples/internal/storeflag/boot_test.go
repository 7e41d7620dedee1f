// SPDX-License-Identifier: Apache-2.0

package storeflag_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/examples/internal/exampletest"
	"github.com/instancekey/instancekey/examples/internal/storeflag"
	"github.com/instancekey/instancekey/keystore"
)

// Boot is called at each start, and its log goes into evidence.
func TestBoot(t *testing.T) {
	exampletest.NeedSimulator(t)
	boots := 0
	flags := storeflag.Flags{Store: "simulator", Boot: func(tpm transport.TPM) ([]byte, error) {
		boots++
		return []byte("log"), nil
	}}
	for want := 1; want <= 2; want++ {
		store, err := flags.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		key, err := store.Create(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		collected, err := key.(keystore.AttestableKey).Evidence(t.Context(), keystore.EvidenceRequest{Binding: make([]byte, sha256.Size), PCRs: []int{0}})
		if err != nil || !bytes.Equal(collected.EventLog, []byte("log")) {
			t.Errorf("log %q: %v", collected.EventLog, err)
		}
		if boots != want {
			t.Errorf("booted %d times, not %d", boots, want)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}

	broken := errors.New("does not boot")
	flags.Boot = func(transport.TPM) ([]byte, error) { return nil, broken }
	if _, err := flags.Open(t.Context()); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	flags.Boot = nil
	store, err := flags.Open(t.Context()) // hangs if the broken one was not closed
	if err != nil {
		t.Fatal(err)
	}
	store.Close()
}
