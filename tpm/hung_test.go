// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"context"
	"crypto/elliptic"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestHung: a TPM that does not answer, at whatever command of whatever operation,
// keeps nobody longer than his deadline: neither the caller whose command it is nor one
// who waits behind him. When it answers again, everything works.
func TestHung(t *testing.T) {
	sim := tpmtest.Simulator(t)
	_, wrapped := wrap(t, sim, elliptic.P256())
	kind := tpm.KeyOptions{PIN: true, PCRs: []int{7}}
	for name, do := range map[string]func(ctx context.Context, s *tpm.Store, key keystore.AttestableKey) error{
		"create": func(ctx context.Context, s *tpm.Store, _ keystore.AttestableKey) error {
			_, err := s.CreateKey(ctx, "new", kind)
			return err
		},
		"open": func(ctx context.Context, s *tpm.Store, _ keystore.AttestableKey) error {
			_, err := s.Open(ctx, "other")
			return err
		},
		"sign": func(ctx context.Context, _ *tpm.Store, key keystore.AttestableKey) error {
			_, err := key.Sign(ctx, []byte("input"))
			return err
		},
		"delete": func(ctx context.Context, s *tpm.Store, _ keystore.AttestableKey) error {
			return s.Delete(ctx, "persistent")
		},
		"persist": func(ctx context.Context, s *tpm.Store, _ keystore.AttestableKey) error {
			return s.Persist(ctx, "other", handle)
		},
		"unpersist": func(ctx context.Context, s *tpm.Store, _ keystore.AttestableKey) error {
			return s.Unpersist(ctx, "persistent")
		},
		"import": func(ctx context.Context, s *tpm.Store, _ keystore.AttestableKey) error {
			_, err := s.Import(ctx, "imported", wrapped)
			return err
		},
		"status": func(ctx context.Context, s *tpm.Store, _ keystore.AttestableKey) error {
			_, err := s.Status(ctx)
			return err
		},
		"describe": func(ctx context.Context, s *tpm.Store, _ keystore.AttestableKey) error {
			_, err := s.Describe(ctx, "persistent")
			return err
		},
		"evidence": func(ctx context.Context, _ *tpm.Store, key keystore.AttestableKey) error {
			_, err := key.Evidence(ctx, keystore.EvidenceRequest{Binding: binding, PCRs: []int{7}})
			return err
		},
		"enrolment": func(ctx context.Context, _ *tpm.Store, key keystore.AttestableKey) error {
			_, err := key.Enrolment(ctx)
			return err
		},
		"activate": func(ctx context.Context, _ *tpm.Store, key keystore.AttestableKey) error {
			_, err := key.Activate(ctx, []byte("no credential"), []byte("no secret"))
			if err != nil && ctx.Err() == nil {
				err = nil // it is none
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			for skip, hung := 0, true; hung; skip++ {
				synctest.Test(t, func(t *testing.T) { hung = hangs(t, sim, skip, do) })
			}
		})
	}
}

// hangs lets the command after skip others hang, and reports whether there was one.
func hangs(t *testing.T, sim *tpmtest.Sim, skip int, do func(context.Context, *tpm.Store, keystore.AttestableKey) error) bool {
	const patience, handle2 = time.Second, handle + 1
	r := newRig(t, sim, withPIN("1234"))
	create(t, r.Store, "persistent", tpm.KeyOptions{})
	if err := r.Persist(t.Context(), "persistent", handle2); err != nil {
		t.Fatal(err)
	}
	create(t, r.Store, "other", tpm.KeyOptions{})
	key := attestable(t, create(t, r.Store, "key", tpm.KeyOptions{PIN: true, PCRs: []int{7}}))
	time.Sleep(tpm.IdleTime + time.Second) // the session has ended

	block := r.faults.Add(tpmtest.Fault{Block: true, Skip: skip})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	start := time.Now()
	err := do(ctx, r.Store, key)
	hung := block.Fired() > 0
	if !hung && err != nil {
		t.Errorf("without a fault: %v", err)
	}
	if hung {
		if took := time.Since(start); took > patience {
			t.Errorf("command %d: it took %v, want %v at the most", skip, took, patience)
		}
		// An operation may be done without an answer to the last command.
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("command %d: %v", skip, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		start := time.Now()
		_, err := key.Sign(ctx, []byte("input"))
		wantError(t, err, context.DeadlineExceeded)
		if took := time.Since(start); took != patience {
			t.Errorf("command %d: who waited behind it took %v, want %v", skip, took, patience)
		}
	}
	r.faults.Clear()
	sign(t, key)
	for _, name := range []string{"persistent", "other"} {
		if err := r.Delete(t.Context(), name); err != nil {
			t.Errorf("command %d: %v", skip, err)
		}
	}
	if h := persistent(t, sim); len(h) != 0 {
		t.Errorf("command %d: persistent keys %x are left", skip, h)
		sim.Manufacture()
	}
	return hung
}

// TestHungIdle: a TPM that does not answer when an idle session is ended keeps nobody
// longer than his deadline, and is given up after a minute.
func TestHungIdle(t *testing.T) {
	sim := tpmtest.Simulator(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sim, withPIN("1234"), func(c *tpm.Config) { c.Exclusive = true })
		key := create(t, r.Store, "key", tpm.KeyOptions{PIN: true})
		sign(t, key)
		block := r.faults.Add(tpmtest.Fault{Command: ccFlush, Block: true})
		time.Sleep(tpm.IdleTime)
		<-block.Blocked()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := key.Sign(ctx, []byte("input"))
		wantError(t, err, context.DeadlineExceeded)
		time.Sleep(tpm.LongestCommand)
		synctest.Wait()
		if _, open := r.calls.Dials(); open != 0 {
			t.Errorf("%d connections are open to a TPM that does not answer", open)
		}
		block.Release()
		sign(t, key)
	})
}
