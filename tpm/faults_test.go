package tpm_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

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
			t.Run(fmt.Sprintf("%T %v", cause, cause), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { // retries wait
					r := newRig(t, sim)
					key := create(t, r.Store, "key", tpm.KeyOptions{})
					r.faults.Add(fault(cause))
					_, err := key.Sign(t.Context(), []byte("input"))
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

// fault makes every TPM2_Sign fail with cause.
func fault(cause error) tpmtest.Fault {
	f := tpmtest.Fault{Command: ccSign, Times: -1}
	switch cause := cause.(type) {
	case tpm2.TPMRC:
		f.RC = cause
	case syscall.Errno:
		f.Err = &os.PathError{Op: "write", Path: "/dev/tpmrm0", Err: cause}
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

// TestOpenFaults: what can be wrong when the device is opened.
func TestOpenFaults(t *testing.T) {
	for _, cause := range []error{
		syscall.EACCES, syscall.EPERM, syscall.EBUSY, syscall.ENOENT, syscall.ENODEV, syscall.ENXIO, io.ErrUnexpectedEOF,
	} {
		t.Run(cause.Error(), func(t *testing.T) {
			faults := tpmtest.Inject(t, nil)
			faults.Add(tpmtest.Fault{Dial: true, Times: -1, Err: &os.PathError{Op: "open", Path: "/dev/tpm0", Err: cause}})
			_, err := tpm.Open(t.Context(), tpm.Config{Dial: faults.Dial, Dir: t.TempDir()})
			wantError(t, err, keystore.ErrUnavailable, cause)
			t.Log(err)
		})
	}
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

// TestLockout: the error says when the TPM recovers, and the TPM is not asked
// again for the same.
func TestLockout(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim, withPIN("wrong"))
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

// TestEachCommandFails lets every command of every operation fail in every way,
// one at a time. The operation then either works or gives an error with a
// sentinel; afterwards it works; and nothing is left in the TPM.
func TestEachCommandFails(t *testing.T) {
	sim := tpmtest.Simulator(t)
	lost := errors.New("lost")
	ways := map[string]tpmtest.Fault{
		"TPM_RC_FAILURE":       {RC: tpm2.TPMRCFailure},
		"TPM_RC_REFERENCE_H0":  {RC: tpm2.TPMRCReferenceH0},
		"TPM_RC_OBJECT_MEMORY": {RC: tpm2.TPMRCObjectMemory},
		"TPM_RC_RETRY":         {RC: tpm2.TPMRCRetry},
		"TPM_RC_INITIALIZE":    {RC: tpm2.TPMRCInitialize},
		"EFAULT":               {Err: syscall.EFAULT},
		"lost":                 {Err: lost, Lost: true},
		"short":                {Answer: func([]byte) []byte { return []byte{0x80} }},
		"lost answer":          {Err: lost, Lost: true, Executed: true},
		"torn answer":          {Executed: true, Answer: func(real []byte) []byte { return real[:len(real)-1] }},
		"success without more": {Executed: true, Answer: func([]byte) []byte {
			return []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0, 0}
		}},
	}
	kinds := []tpm.KeyOptions{{}, {PCRs: []int{7}, PIN: true}}
	for name, way := range ways {
		for _, kind := range kinds {
			t.Run(fmt.Sprintf("%s %+v", name, kind), func(t *testing.T) {
				failEach(t, sim, way, kind)
			})
		}
	}
}

func failEach(t *testing.T, sim *tpmtest.Sim, way tpmtest.Fault, kind tpm.KeyOptions) {
	// With Exclusive, since what was made by a command whose answer was lost can
	// be found in no other way.
	exclusive := func(c *tpm.Config) { c.Exclusive = way.Executed || way.Answer != nil }
	defer func() {
		if t.Failed() {
			sim.Manufacture() // so that the next test does not find what this one left
		}
	}()
	r := newRig(t, sim, withPIN("1234"), exclusive)
	create(t, r.Store, "other", tpm.KeyOptions{})
	create(t, r.Store, "key", kind)
	r.Close()
	path := filepath.Join(r.config.Dir, "key.pem")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var total, failed int
	for operation := range 6 {
		for skip, hit := 0, true; hit; skip++ {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			s := r.reopen(t)
			var key keystore.Key
			switch operation { // what is loaded before
			case 0:
				err = os.Remove(path)
				open(t, s, "other")
			case 2:
				key = open(t, s, "key")
				open(t, s, "other") // "key" is not loaded any more, but saved
			case 3:
				open(t, s, "key")
			case 5:
				err = s.Persist(t.Context(), "key", handle)
			}
			if err != nil {
				t.Fatal(err)
			}
			do := func() (err error) {
				switch operation {
				case 0:
					_, err = s.CreateKey(t.Context(), "key", kind)
				case 1:
					_, err = s.Open(t.Context(), "key")
				case 2:
					_, err = key.Sign(t.Context(), []byte("input"))
				case 3:
					err = s.Delete(t.Context(), "key")
				case 4:
					err = s.Persist(t.Context(), "key", handle)
				case 5:
					err = s.Unpersist(t.Context(), "key")
				}
				return err
			}
			fault := way
			fault.Skip = skip
			injection := r.faults.Add(fault)
			err := do()
			hit = injection.Fired() > 0
			r.faults.Clear()
			switch {
			case !hit && err != nil:
				t.Fatal(err)
			case err != nil:
				failed++
				hasSentinel(t, err)
				if names, _ := s.List(t.Context()); operation == 0 && len(names) != 1 {
					t.Errorf("a failed Create left %q", names)
				}
				if err := do(); err != nil && !errors.Is(err, keystore.ErrExists) {
					t.Errorf("operation %d, command %d: afterwards: %v", operation, skip, err)
				}
			}
			if hit {
				total++
			}
			if operation != 3 {
				sign(t, open(t, s, "key"))
			}
			if operation >= 4 {
				if err := s.Delete(t.Context(), "key"); err != nil {
					t.Error(err)
				}
			}
			s.Close()
			noLeaks(t, sim)
			if h := persistent(t, sim); len(h) != 0 {
				t.Fatalf("operation %d, command %d: persistent keys %x left", operation, skip, h)
			}
			if t.Failed() {
				t.Fatalf("operation %d, command %d: %v", operation, skip, err)
			}
		}
	}
	t.Logf("%d failures injected, %d of them were seen by the caller", total, failed)
	if total < 15 {
		t.Errorf("only %d failures injected", total)
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

// TestStrangeAnswers: answers that are well-formed by themselves, and none to the
// command.
func TestStrangeAnswers(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	tag := func(tag uint16) func([]byte) []byte {
		return func(real []byte) []byte {
			real = bytes.Clone(real)
			binary.BigEndian.PutUint16(real, tag)
			return real
		}
	}
	for name, answer := range map[string]func(real []byte) []byte{
		"tag without sessions": tag(0x8001),
		"tag of TPM 1.2":       tag(0x00c4),
		"error with sessions":  func([]byte) []byte { return []byte{0x80, 2, 0, 0, 0, 10, 0, 0, 1, 1} },
		"larger than announced": func(real []byte) []byte {
			return append(bytes.Clone(real), 0)
		},
		"huge": func(real []byte) []byte {
			huge := append(bytes.Clone(real), make([]byte, 1<<20)...)
			binary.BigEndian.PutUint32(huge[2:], uint32(len(huge)))
			return huge
		},
		"nothing": func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			r.faults.Add(tpmtest.Fault{Command: ccSign, Executed: true, Answer: answer, Times: 2})
			_, err := key.Sign(t.Context(), []byte("input"))
			wantError(t, err, keystore.ErrUnavailable)
			if !strings.Contains(err.Error(), "garbled") {
				t.Errorf("%q does not say that the answer was garbled", err)
			}
			sign(t, key)
		})
	}
}

// TestAnswersOfOthers gives every command the answer to every other: an error or
// the right outcome, and no signature that is wrong.
func TestAnswersOfOthers(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, o := range []tpm.KeyOptions{{}, {PCRs: []int{7}, PIN: true}} {
		r := newRig(t, sim, withPIN("1234"), func(c *tpm.Config) { c.Exclusive = true })
		sign(t, create(t, r.Store, "key", o))
		create(t, r.Store, "other", tpm.KeyOptions{})
		exchanges := make(map[tpm2.TPMCC]tpmtest.Exchange)
		for _, e := range r.calls.Exchanges() {
			exchanges[e.Code] = e
		}
		r.Close()
		hit := true
		for skip := 0; hit; skip++ {
			for _, e := range exchanges {
				s := r.reopen(t)
				in := r.faults.Add(tpmtest.Fault{Skip: skip, Executed: true, Answer: func([]byte) []byte { return e.Response }})
				key, err := s.Open(t.Context(), "key")
				var signature []byte
				if err == nil {
					signature, err = key.Sign(t.Context(), []byte("input"))
				}
				if err != nil {
					hasSentinel(t, err)
				} else if !verify(key, []byte("input"), signature) {
					t.Errorf("%+v: with the answer to %v for command %d, the signature %x does not verify", o, tpmtest.Names([]tpm2.TPMCC{e.Code}), skip, signature)
				}
				hit = in.Fired() == 1
				r.faults.Clear()
				s.Close()
			}
		}
		noLeaks(t, sim)
	}
}
