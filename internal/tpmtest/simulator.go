// SPDX-License-Identifier: Apache-2.0

package tpmtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-tpm-tools/simulator"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Sim is the Microsoft reference TPM in this process. Its connections are all the same TPM, with nothing between them.
// Safe for concurrent use: commands queue.
type Sim struct {
	t testing.TB

	mu        sync.Mutex
	sim       *simulator.Simulator
	off       bool
	primaries map[string]primary // by command
}

// simulatorOwner is the test that has the simulator; the simulator package itself only blocks.
var simulatorOwner struct {
	sync.Mutex
	name string
}

// Simulator starts a new Microsoft simulator: empty, with random seeds, started up. It waits for another test's to end,
// and stops at the end of this test.
//
// It makes each primary key once, which is always the same: when the same TPM2_CreatePrimary comes again, the key is loaded
// from a saved context, and the answer is that of the first time with another handle. An RSA key takes half a second
// otherwise, and those on a curve were half of the simulator's time.
func Simulator(t testing.TB) *Sim {
	t.Helper()
	simulatorOwner.Lock()
	owner := simulatorOwner.name
	simulatorOwner.Unlock()
	if owner != "" && strings.HasPrefix(t.Name()+"/", owner+"/") {
		t.Fatalf("tpmtest: %s has the simulator already; a process has one only", owner)
	}

	sim, err := simulator.Get()
	if err != nil {
		if strings.Contains(err.Error(), "CGO") {
			unavailable(t, "the Microsoft simulator needs cgo (a C compiler, libssl-dev, CGO_ENABLED=1)")
		}
		t.Fatalf("tpmtest: starting the Microsoft simulator: %v", err)
	}
	setOwner := func(name string) {
		simulatorOwner.Lock()
		simulatorOwner.name = name
		simulatorOwner.Unlock()
	}
	setOwner(t.Name())
	s := &Sim{t: t, sim: sim, primaries: make(map[string]primary)}
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		setOwner("")
		if err := sim.Close(); err != nil {
			t.Errorf("tpmtest: stopping the Microsoft simulator: %v", err)
		}
	})
	return s
}

// Send implements transport.TPM. Unlike the simulator package's, it leaves cmd as it is, and hands TPM_RC_RETRY on.
func (s *Sim) Send(cmd []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.off {
		return s.startup(cmd)
	}
	switch commandCode(cmd) {
	case tpm2.TPMCCCreatePrimary:
		return s.createPrimary(cmd)
	case tpm2.TPMCCClear, tpm2.TPMCCHierarchyControl, tpm2.TPMCCHierarchyChanegAuth, tpm2.TPMCCChangeEPS, tpm2.TPMCCChangePPS:
		clear(s.primaries)
	}
	return s.transmit(cmd)
}

func (s *Sim) transmit(cmd []byte) ([]byte, error) {
	// The simulator decrypts parameters where they lie.
	if _, err := s.sim.Write(bytes.Clone(cmd)); err != nil {
		return nil, err
	}
	rsp := make([]byte, maxFrameSize)
	n, err := s.sim.Read(rsp)
	return rsp[:n], err
}

// Dial implements Device.
func (s *Sim) Dial(context.Context) (transport.TPMCloser, error) {
	return &sharedConn{send: s.Send}, nil
}

// Reset reboots the machine that the TPM is in: orderly shutdown, TPM Reset, TPM2_Startup(CLEAR). Objects, sessions and
// saved contexts are gone; persistent keys and seeds stay.
func (s *Sim) Reset() {
	s.t.Helper()
	s.do("reset", (*simulator.Simulator).Reset)
}

// Manufacture puts a new TPM in the place of this one: other seeds, empty NV, default authorizations; started up.
func (s *Sim) Manufacture() {
	s.t.Helper()
	s.do("manufacture", (*simulator.Simulator).ManufactureReset)
}

// PowerOff reboots, too, but leaves out TPM2_Startup: every other command is answered with TPM_RC_INITIALIZE until one
// comes.
func (s *Sim) PowerOff() {
	s.t.Helper()
	s.Reset()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = true
}

func (s *Sim) do(what string, f func(*simulator.Simulator) error) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = false
	clear(s.primaries)
	if err := f(s.sim); err != nil {
		s.t.Fatalf("tpmtest: %s: %v", what, err)
	}
}

// startup stands in for the TPM between power-on and TPM2_Startup: the simulator package never shows that state, since
// its Reset sends TPM2_Startup itself.
func (s *Sim) startup(cmd []byte) ([]byte, error) {
	if commandCode(cmd) != tpm2.TPMCCStartup {
		return frame(uint32(tpm2.TPMRCInitialize)), nil
	}
	if len(cmd) != headerSize+2 || binary.BigEndian.Uint16(cmd[headerSize:]) != uint16(tpm2.TPMSUClear) {
		return frame(uint32(tpm2.TPMRCValue) | rcParameter1), nil // no state was saved
	}
	s.off = false
	return frame(uint32(tpm2.TPMRCSuccess)), nil
}

// rcParameter1 makes an error code say "of the first parameter". TPM 2.0 Part 2, 6.6.3.
const rcParameter1 = 0x140

// primary is what is remembered of a TPM2_CreatePrimary.
type primary struct{ response, context []byte }

// createPrimary is called with s.mu held.
func (s *Sim) createPrimary(cmd []byte) ([]byte, error) {
	if p, ok := s.primaries[string(cmd)]; ok {
		rsp, err := s.transmit(frame(uint32(tpm2.TPMCCContextLoad), p.context...))
		if err == nil && responseCode(rsp) == tpm2.TPMRCSuccess {
			made := bytes.Clone(p.response)
			copy(made[headerSize:], rsp[headerSize:]) // the handle
			return made, nil
		}
		delete(s.primaries, string(cmd)) // as without a free slot
	}
	rsp, err := s.transmit(cmd)
	if err != nil || responseCode(rsp) != tpm2.TPMRCSuccess || !hasPassword(cmd) {
		return rsp, err
	}
	saved, err := s.transmit(frame(uint32(tpm2.TPMCCContextSave), rsp[headerSize:headerSize+4]...))
	if err == nil && responseCode(saved) == tpm2.TPMRCSuccess {
		s.primaries[string(cmd)] = primary{rsp, saved[headerSize:]}
	}
	return rsp, nil
}

// hasPassword reports whether a command with one handle is authorized by a password, and not by a session, whose nonces
// never come again.
func hasPassword(cmd []byte) bool {
	const session = headerSize + 4 + 4 // behind the handle and the size of the authorization area
	return len(cmd) >= session+4 && tpm2.TPMHandle(binary.BigEndian.Uint32(cmd[session:])) == tpm2.TPMRSPW
}
