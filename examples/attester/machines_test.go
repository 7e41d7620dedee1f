// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

// redial is a connection to a TPM that can be given up for a new one. It sends a
// command again for which the TPM had no time: swtpm answers so to the first use
// of a key with dictionary-attack protection.
type redial struct {
	t      testing.TB
	device tpmtest.Device
	conn   transport.TPMCloser
}

func (r *redial) Send(command []byte) ([]byte, error) {
	if r.conn == nil {
		conn, err := r.device.Dial(context.Background())
		if err != nil {
			return nil, err
		}
		r.conn = conn
		r.t.Cleanup(func() { conn.Close() })
	}
	for {
		response, err := r.conn.Send(bytes.Clone(command))
		if err != nil || len(response) != 10 || binary.BigEndian.Uint32(response[6:]) != uint32(tpm2.TPMRCRetry) {
			return response, err
		}
	}
}

// A machine is a device that can be rebooted.
type machine struct {
	*world
	reset func()
}

// reboot restarts the TPM, and the device boots the same firmware as before.
func (m *machine) reboot() {
	m.t.Helper()
	m.reset()
	m.d.boot(m.d.firmware)
}

// onEachMachine runs a test on two TPMs, and with both kinds of attestation key.
func onEachMachine(t *testing.T, test func(t *testing.T, m *machine)) {
	rsaKey := rsaAK(2048, tpm2.TPMAlgSHA256)
	simulator := func(t *testing.T) *machine {
		sim := tpmtest.Simulator(t)
		return &machine{newWorld(t, tpmtest.Dial(t, sim), nil), sim.Reset}
	}
	t.Run("ECC on simulator", func(t *testing.T) { test(t, simulator(t)) })
	t.Run("RSA on simulator", func(t *testing.T) {
		m := simulator(t)
		m.d.akKey = rsaKey
		m.d.keep(rsaKey)
		test(t, m)
	})
	t.Run("ECC on swtpm", func(t *testing.T) {
		sw := tpmtest.SWTPM(t, tpmtest.SWConfig{})
		conn := &redial{t: t, device: sw}
		test(t, &machine{newWorld(t, conn, nil), func() {
			// In order, so that the TPM counts it as an attack on no key.
			if _, err := (tpm2.Shutdown{ShutdownType: tpm2.TPMSUClear}).Execute(conn); err != nil {
				t.Fatal(err)
			}
			sw.Restart()
			conn.conn = nil
		}})
	})
}
