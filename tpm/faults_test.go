// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestFaults runs through the table of faults: each cause, when it does not go
// away, is an error that matches the sentinel and the cause and gives the
// advice; and when it is gone the key signs again.
func TestFaults(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, line := range tpm.Faults() {
		for _, cause := range line.Causes {
			t.Run(fmt.Sprintf("%s %T %v", line.About, cause, cause), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { // retries wait
					r := newRig(t, sim)
					key := create(t, r.Store, "key", tpm.KeyOptions{})
					command, use := asked(t, r, key, line.About)
					r.faults.Add(fault(command, cause))
					err := use(t.Context())
					wantError(t, err, line.Sentinel, cause)
					if !strings.Contains(err.Error(), line.Advice) {
						t.Errorf("%q does not say %q", err, line.Advice)
					}
					r.faults.Clear()
					sign(t, key)
				})
			})
		}
	}
}

// asked returns a command that asks the TPM for a subject, and what sends it.
func asked(t *testing.T, r *rig, key keystore.Key, about string) (tpm2.TPMCC, func(context.Context) error) {
	create := func(ctx context.Context) error {
		_, err := r.CreateKey(ctx, "another", tpm.KeyOptions{})
		return err
	}
	switch about {
	case "the owner hierarchy":
		return ccCreatePrimary, create
	case "the parent":
		return ccLoad, create
	case "the key's file":
		unpin(t, filepath.Join(r.config.Dir, "key.pem"))
		return ccLoad, func(ctx context.Context) error {
			_, err := r.Open(ctx, "key")
			return err
		}
	case "the endorsement hierarchy":
		return ccCreatePrimary, func(ctx context.Context) error {
			_, err := key.(keystore.AttestableKey).Enrolment(ctx)
			return err
		}
	default:
		return ccSign, func(ctx context.Context) error {
			_, err := key.Sign(ctx, []byte("input"))
			return err
		}
	}
}

// unpin makes a key file one that another program could have written.
func unpin(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fault makes a command fail with cause each time.
func fault(command tpm2.TPMCC, cause error) tpmtest.Fault {
	f := tpmtest.Fault{Command: command, Times: -1}
	switch cause := cause.(type) {
	case tpm2.TPMRC:
		f.RC = cause
	case syscall.Errno:
		f.Err = &os.PathError{Op: "write", Path: "/dev/tpmrm0", Err: cause}
	case tpm.TBSCode:
		f.Err = cause
	default: // the one of our own: garbled
		f.Answer = func([]byte) []byte { return []byte("garbled") }
	}
	return f
}

// wantError checks that err matches all of want and no other sentinel, and has
// the package's prefix once.
func wantError(t *testing.T, err error, want ...error) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %v", want)
	}
	for _, target := range want {
		if !errors.Is(err, target) {
			t.Errorf("%q does not match %v", err, target)
		}
	}
	matches := 0
	for _, sentinel := range sentinels {
		if errors.Is(err, sentinel) {
			matches++
		}
	}
	if matches > 1 {
		t.Errorf("%q matches %d sentinels", err, matches)
	}
	if !strings.HasPrefix(err.Error(), "tpm: ") || strings.Count(err.Error(), "tpm: ") != 1 {
		t.Errorf("%q has not the prefix once", err)
	}
}

var sentinels = []error{
	keystore.ErrNotFound, keystore.ErrExists, keystore.ErrKeyLost, keystore.ErrCorrupt, keystore.ErrLockedOut,
	keystore.ErrAuth, keystore.ErrPolicy, keystore.ErrUnavailable, keystore.ErrClosed,
}

// TestDocumentedFaults: the table in the package's documentation says of each
// fault what the code does.
func TestDocumentedFaults(t *testing.T) {
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	doc := strings.Join(strings.Fields(strings.ReplaceAll(string(text), "//", " ")), " ")
	for _, line := range tpm.Faults() {
		causes := []string{"everything else"}
		if len(line.Causes) > 0 {
			causes = nil
		}
		for _, cause := range line.Causes {
			causes = append(causes, causeName(cause))
		}
		if line.About != "" {
			causes[len(causes)-1] += " of " + line.About
		}
		entry := fmt.Sprintf("%s %s: %s", strings.Join(causes, ", "), sentinelNames[line.Sentinel], line.Advice)
		if !strings.Contains(doc, entry) {
			t.Errorf("the documentation does not say %q", entry)
		}
	}
}

// causeName is what the table calls a cause.
func causeName(cause error) string {
	switch cause := cause.(type) {
	case syscall.Errno:
		return errnoNames[cause]
	case tpm2.TPMRC:
		name, _, _ := strings.Cut(strings.TrimPrefix(cause.Error(), "TPM_RC_"), " ")
		return strings.TrimSuffix(name, ":")
	case tpm.TBSCode:
		return cause.Error()
	default: // the one of our own
		return "garbled or forged answers"
	}
}

var sentinelNames = map[error]string{
	keystore.ErrExists: "ErrExists", keystore.ErrKeyLost: "ErrKeyLost", keystore.ErrLockedOut: "ErrLockedOut",
	keystore.ErrAuth: "ErrAuth", keystore.ErrPolicy: "ErrPolicy", keystore.ErrUnavailable: "ErrUnavailable",
}

var errnoNames = map[syscall.Errno]string{
	syscall.ENOMEM: "ENOMEM", syscall.EFAULT: "EFAULT", syscall.EINVAL: "EINVAL", syscall.EACCES: "EACCES",
	syscall.EPERM: "EPERM", syscall.EBUSY: "EBUSY", syscall.ENOENT: "ENOENT", syscall.ENXIO: "ENXIO",
	syscall.ENODEV: "ENODEV", syscall.ECONNREFUSED: "ECONNREFUSED",
}

// TestBusy: the TPM is asked again until it answers.
func TestBusy(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, code := range []tpm2.TPMRC{tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, sim)
			key := create(t, r.Store, "key", tpm.KeyOptions{})
			r.faults.Add(tpmtest.Fault{Command: ccSign, Times: 12, RC: code})
			r.calls.Reset()
			sign(t, key)
			if n := r.calls.Count(ccSign); n != 13 || n != r.calls.Count() {
				t.Errorf("%v: %d times TPM2_Sign of %d commands, want 13 of 13", code, n, r.calls.Count())
			}
		})
	}
}

// TestBusyForEver: the wait ends with the context, and says what it was for.
func TestBusyForEver(t *testing.T) {
	sim := tpmtest.Simulator(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sim)
		key := create(t, r.Store, "key", tpm.KeyOptions{})
		r.faults.Add(tpmtest.Fault{Command: ccSign, Times: -1, RC: tpm2.TPMRCRetry})
		ctx, cancel := context.WithTimeout(t.Context(), tpm.Patience/3)
		defer cancel()
		_, err := key.Sign(ctx, []byte("input"))
		wantError(t, err, context.DeadlineExceeded, tpm2.TPMRCRetry)
	})
}

// TestBusyBound: a TPM that stays busy is waited for 30 seconds by an operation of
// several commands, too, and a second more for what has to be taken back.
func TestBusyBound(t *testing.T) {
	sim := tpmtest.Simulator(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, sim, withPIN("1234"))
		key := create(t, r.Store, "key", tpm.KeyOptions{PIN: true})
		sign(t, key)
		r.faults.Add(tpmtest.Fault{Times: -1, RC: tpm2.TPMRCRetry})
		start := time.Now()
		_, err := key.Sign(t.Context(), []byte("input"))
		wantError(t, err, keystore.ErrUnavailable, tpm2.TPMRCRetry)
		if took := time.Since(start); took < tpm.Patience || took > tpm.Patience+3*time.Second {
			t.Errorf("took %v, want %v and little more", took, tpm.Patience)
		}
		r.faults.Clear()
		sign(t, key)
	})
}

// TestLockout: the error says when the TPM recovers, and the TPM is not asked
// again for the same.
func TestLockout(t *testing.T) {
	sim := tpmtest.Simulator(t)
	tries := 0
	r := newRig(t, sim, func(c *tpm.Config) {
		c.PIN = func(context.Context, string) ([]byte, error) { // another one each time: none is tried twice
			tries++
			return fmt.Append(nil, "wrong ", tries), nil
		}
	})
	right := r.config
	withPIN("right")(&right)
	s, err := tpm.Open(t.Context(), right)
	if err != nil {
		t.Fatal(err)
	}
	create(t, s, "key", tpm.KeyOptions{PIN: true})
	s.Close()

	key := open(t, r.Store, "key")
	for i := 0; ; i++ {
		r.calls.Reset()
		_, err := key.Sign(t.Context(), []byte("input"))
		if n := r.calls.Count(ccSign); n != 1 {
			t.Fatalf("TPM2_Sign was sent %d times, want once", n)
		}
		if errors.Is(err, keystore.ErrLockedOut) {
			wantError(t, err, keystore.ErrLockedOut, tpm2.TPMRCLockout)
			var locked *tpm.LockoutError
			if !errors.As(err, &locked) || locked.Recovery <= 0 {
				t.Errorf("%q does not say when the TPM recovers", err)
			}
			return
		}
		wantError(t, err, keystore.ErrAuth, tpm2.TPMRCAuthFail)
		if i == 50 {
			t.Fatal("the TPM does not lock itself")
		}
	}
}

// TestLockoutAnywhere: the recovery time is told whichever command has met the
// lockout, such as TPM2_Load under a parent that is not exempt.
func TestLockoutAnywhere(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	create(t, r.Store, "key", tpm.KeyOptions{})
	s := r.reopen(t)
	defer s.Close()
	r.faults.Add(tpmtest.Fault{Command: ccLoad, RC: tpm2.TPMRCLockout})
	_, err := s.Open(t.Context(), "key")
	wantError(t, err, keystore.ErrLockedOut, tpm2.TPMRCLockout)
	if locked := new(tpm.LockoutError); !errors.As(err, &locked) || locked.Recovery <= 0 {
		t.Errorf("%q does not say when the TPM recovers", err)
	}
}
