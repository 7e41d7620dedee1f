// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package storeflag

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"strconv"

	"github.com/google/go-tpm-tools/simulator"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/internal/privatefile"
	"github.com/instancekey/instancekey/tpm"
)

// SimulatorBuiltIn reports whether this program has the TPM simulator.
const SimulatorBuiltIn = true

// startSimulator starts the Microsoft simulator. There is one in a process: a
// second Store waits for the first one's Close.
func (s *Store) startSimulator() (transport.TPM, error) {
	var sim *simulator.Simulator
	var err error
	if s.Temporary {
		sim, err = simulator.Get()
	} else {
		var seed int64
		if seed, err = simulatorSeed(s.Dir); err != nil {
			return nil, err
		}
		sim, err = simulator.GetWithFixedSeedInsecure(seed)
	}
	if err != nil {
		return nil, fmt.Errorf("start the TPM simulator: %w", err)
	}
	s.closers = append(s.closers, sim.Close)
	return tpm.NewConn(sim), nil
}

// simulatorSeed returns the seed of the simulated TPM that a folder of key files
// belongs to: the simulator keeps nothing, but from the same seed it has the
// same storage root key, and loads the same keys. The file's name begins with a
// dot, as no key's does.
func simulatorSeed(dir string) (int64, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil { // tpm.Open says what else it must be
		return 0, err
	}
	name := filepath.Join(dir, ".simulator-seed")
	seed, _ := rand.Int(rand.Reader, big.NewInt(math.MaxInt64)) // never fails (crypto/rand)
	err := privatefile.Create(name, []byte(seed.String()))
	if err == nil || !errors.Is(err, fs.ErrExist) {
		return seed.Int64(), err
	}
	text, err := privatefile.Read(name, 100)
	if err != nil {
		return 0, err
	}
	old, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is not the seed of a simulated TPM: restore it, or empty the folder and enrol anew", name)
	}
	return old, nil
}
