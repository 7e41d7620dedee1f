// SPDX-License-Identifier: Apache-2.0

//go:build hardware && linux

package tpm_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// ima signs beside a program that extends another PCR 30 times a second. An extend that
// comes during TPM2_PolicyPCR, with all that the resource manager does around it, is next
// at the chip, and voids the policy: TPM2_Sign fails, and another try takes a command more.
// A key at a persistent handle is not swapped, so that this takes half as long.
//
// Nobody can sign with such a key in fewer commands. What ours adds to that is seen beside
// a loop that does nothing but send the commands of a signature again, and verifies nothing:
// ours takes at most twice as long. With a PIN each command would need an HMAC of its own.
func (h hardware) ima(t *testing.T) {
	for _, o := range kinds[2:] {
		for _, persistent := range []bool{false, true} {
			t.Run(fmt.Sprintf("%+v persistent %t", o, persistent), func(t *testing.T) { h.besideExtends(t, o, persistent) })
		}
	}
}

func (h hardware) besideExtends(t *testing.T, o tpm.KeyOptions, persistent bool) {
	const signatures = 200
	dir := t.TempDir()
	s := h.open(t, dir, withPIN("1234"))
	create(t, s, "key", o)
	if persistent {
		if err := s.Persist(t.Context(), "key", 0x81000100); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Delete(context.Background(), "key"); err != nil {
				t.Error(err)
			}
		})
	}
	key, _, calls := h.recorded(t, dir)
	ways := map[string]func() (tries int){"ours": func() int {
		calls.Reset()
		sign(t, key)
		return calls.Count(ccSign)
	}}
	if !o.PIN {
		_, conn, calls := h.recorded(t, dir)
		ways["bare"] = resend(t, conn, calls.Exchanges())
	}
	measure := func(sign func() int) (took time.Duration, tries int) {
		start := time.Now()
		for range signatures {
			tries += sign()
		}
		return time.Since(start), tries
	}
	alone, beside := make(map[string]time.Duration), make(map[string]time.Duration)
	for way, sign := range ways {
		var tries int
		if alone[way], tries = measure(sign); tries != signatures {
			t.Errorf("%s: %d tries for %d signatures", way, tries, signatures)
		}
	}
	conn, err := linuxtpm.Open(h.device)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // not deferred: the extends go on until the cleanup
	extends := extendOften(t, conn)
	for way, sign := range ways {
		before := extends()
		var tries int
		beside[way], tries = measure(sign)
		t.Logf("%s: %d signatures took %v alone, and %v in %d tries beside %d extends: %.1f times as long",
			way, signatures, alone[way], beside[way], tries, extends()-before, float64(beside[way])/float64(alone[way]))
	}
	if extends() < 30 {
		t.Errorf("only %d extends", extends())
	}
	if bare, ok := beside["bare"]; ok && beside["ours"] > 2*bare {
		t.Errorf("%v beside extends, and the commands alone take %v", beside["ours"], bare)
	}
}

// recorded returns the key of a Store of its own that has just signed, with the connection,
// and what a signature has sent.
func (h hardware) recorded(t *testing.T, dir string) (keystore.Key, transport.TPM, *tpmtest.Recorder) {
	t.Helper()
	device := &lastConn{path: h.device}
	calls := tpmtest.Record(device)
	s := h.open(t, dir, withPIN("1234"), func(c *tpm.Config) { c.Device, c.Dial = "", calls.Dial })
	key := open(t, s, "key")
	sign(t, key)
	calls.Reset()
	sign(t, key)
	return key, device, calls
}

// resend returns a signature by the commands that one has sent before, TPM2_PolicyPCR and
// TPM2_Sign, and TPM2_PolicyRestart before another try: in a session that is not salted, so
// that they are always the same.
func resend(t *testing.T, conn transport.TPM, sent []tpmtest.Exchange) func() (tries int) {
	t.Helper()
	if len(sent) != 2 || sent[0].Code != ccPolicyPCR || sent[1].Code != ccSign {
		t.Fatalf("a signature took %d commands, want TPM2_PolicyPCR and TPM2_Sign", len(sent))
	}
	policy, signed := sent[0].Command, sent[1].Command
	session, _, err := tpm2.PolicySession(conn, tpm2.TPMAlgSHA256, 16)
	if err != nil {
		t.Fatal(err)
	}
	// The resource manager would swap the Store's session with each command, too. It goes
	// last, so that the other has not its handle, which the Store flushes when it is idle.
	if _, err := (tpm2.FlushContext{FlushHandle: tpm2.TPMHandle(binary.BigEndian.Uint32(policy[10:]))}).Execute(conn); err != nil {
		t.Fatal(err)
	}
	handle := binary.BigEndian.AppendUint32(nil, uint32(session.Handle()))
	copy(policy[10:], handle)
	const areaAt = 10 + 4 // behind the header and the key
	parameters := signed[areaAt+4+binary.BigEndian.Uint32(signed[areaAt:]):]
	area := append(handle, 0, 0, 1, 0, 0) // no nonce, continueSession, no HMAC
	body := append(binary.BigEndian.AppendUint32(nil, uint32(len(area))), area...)
	signature := slices.Concat(signed[:areaAt], body, parameters)
	binary.BigEndian.PutUint32(signature[2:], uint32(len(signature)))
	restart := binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMSTNoSessions))
	restart = binary.BigEndian.AppendUint32(restart, 14)
	restart = binary.BigEndian.AppendUint32(restart, uint32(tpm2.TPMCCPolicyRestart))
	restart = append(restart, handle...)
	send := func(command []byte) tpm2.TPMRC {
		answer, err := conn.Send(command)
		if err != nil {
			t.Fatal(err)
		}
		return tpm2.TPMRC(binary.BigEndian.Uint32(answer[6:]))
	}
	return func() (tries int) {
		for {
			tries++
			rc := send(policy)
			if rc == tpm2.TPMRCSuccess {
				rc = send(signature)
			}
			switch rc {
			case tpm2.TPMRCSuccess:
				return tries
			case tpm2.TPMRCPCRChanged:
			default:
				t.Fatal(rc)
			}
			if rc := send(restart); rc != tpm2.TPMRCSuccess {
				t.Fatal(rc)
			}
		}
	}
}

// lastConn is a device file, and the connection to it that was made last.
type lastConn struct {
	path string
	transport.TPMCloser
}

// Dial implements tpmtest.Device.
func (c *lastConn) Dial(context.Context) (transport.TPMCloser, error) {
	var err error
	c.TPMCloser, err = linuxtpm.Open(c.path)
	return c.TPMCloser, err
}
