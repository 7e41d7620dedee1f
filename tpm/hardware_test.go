// SPDX-License-Identifier: Apache-2.0

//go:build hardware && linux

package tpm_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/keystore/keystoretest"
	"github.com/instancekey/instancekey/tpm"
)

// TestHardware runs on a real device, which a simulator's tests do not:
//
//	TPM_DEVICE=/dev/tpmrm0 go test -tags hardware -run TestHardware -v ./tpm
//
// It makes some 100 keys and leaves none, uses one free persistent handle for a
// while, extends no PCR and tries no wrong PIN. TestLinuxKernel runs it on a
// kernel of its own.
func TestHardware(t *testing.T) {
	device := os.Getenv("TPM_DEVICE")
	if device == "" {
		t.Fatal("TPM_DEVICE does not name a TPM's device file, such as /dev/tpmrm0")
	}
	h := hardware{device}
	t.Run("conformance", func(t *testing.T) { keystoretest.RunPersistent(t, h.places()) })
	t.Run("conformance PIN", func(t *testing.T) { keystoretest.RunPersistent(t, h.places(withPIN("1234"))) })
	t.Run("commands", h.commands)
	t.Run("many", h.many)
	t.Run("evidence", h.evidence)
	if os.Getenv("TPM_MACHINE") != "" { // the machine is there for this test alone
		t.Run("IMA", h.ima)
		t.Run("busy", h.busy)
		t.Run("suspend", h.suspend)
		t.Run("driver", h.driver)
	}
}

type hardware struct{ device string }

func (h hardware) open(t *testing.T, dir string, change ...func(*tpm.Config)) *tpm.Store {
	t.Helper()
	config := tpm.Config{Device: h.device, Dir: dir}
	for _, f := range change {
		f(&config)
	}
	s, err := tpm.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (h hardware) places(change ...func(*tpm.Config)) func(*testing.T) func(*testing.T) keystore.Store {
	return func(t *testing.T) func(*testing.T) keystore.Store {
		dir := filepath.Join(t.TempDir(), "keys")
		return func(t *testing.T) keystore.Store { return h.open(t, dir, change...) }
	}
}

// commandsAtChip are the numbers of commands that a warm signature takes behind
// Linux's resource manager, as the package's documentation has them.
var commandsAtChip = []struct {
	options            tpm.KeyOptions
	loaded, persistent int
}{
	{tpm.KeyOptions{}, 4, 1},
	{tpm.KeyOptions{Algorithm: "ES384"}, 4, 1},
	{tpm.KeyOptions{PIN: true}, 6, 3},
	{tpm.KeyOptions{PCRs: []int{7}}, 12, 6},
	{tpm.KeyOptions{PCRs: []int{7}, PIN: true}, 18, 9},
}

// commands signs with each kind of key, loaded and persistent. Each signature is
// between two marks, so that whoever sees what comes to the chip can count.
func (h hardware) commands(t *testing.T) {
	s := h.open(t, t.TempDir(), withPIN("1234"))
	free := h.freeHandle(t)
	for i, kind := range commandsAtChip {
		key := create(t, s, "key", kind.options)
		for range 2 {
			sign(t, key)
		}
		h.mark(t, 2*i)
		sign(t, key)
		h.mark(t, 2*i)
		if err := s.Persist(t.Context(), "key", free); err != nil {
			t.Fatal(err)
		}
		key = open(t, s, "key")
		sign(t, key)
		h.mark(t, 2*i+1)
		start := time.Now()
		sign(t, key)
		t.Logf("%+v, persistent: %v", kind.options, time.Since(start).Round(time.Millisecond))
		h.mark(t, 2*i+1)
		if err := s.Delete(t.Context(), "key"); err != nil {
			t.Fatal(err)
		}
	}
}

// mark has the TPM give a number of random octets that says which signature comes
// or has come.
func (h hardware) mark(t *testing.T, number int) {
	t.Helper()
	conn, err := linuxtpm.Open(h.device)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := (tpm2.GetRandom{BytesRequested: uint16(number + 1)}).Execute(conn); err != nil {
		t.Fatal(err)
	}
}

// freeHandle returns a persistent handle that nothing is at.
func (h hardware) freeHandle(t *testing.T) uint32 {
	t.Helper()
	conn, err := linuxtpm.Open(h.device)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for handle := tpm2.TPMHandle(0x81010001); handle < 0x81020000; handle++ {
		if _, err := (tpm2.ReadPublic{ObjectHandle: handle}).Execute(conn); errors.Is(err, tpm2.TPMRCHandle) {
			return uint32(handle)
		}
	}
	t.Fatal("no persistent handle is free")
	return 0
}

// many has more Stores, keys and sessions than the TPM has room for, all at once.
func (h hardware) many(t *testing.T) {
	var wg sync.WaitGroup
	for range 5 {
		s := h.open(t, t.TempDir(), withPIN("1234"))
		for i, kind := range kinds {
			key := create(t, s, fmt.Sprint(i), kind)
			wg.Go(func() {
				for range 3 {
					signature, err := key.Sign(t.Context(), []byte("input"))
					if err != nil || !verify(key, []byte("input"), signature) {
						t.Errorf("%+v: %x, %v", kind, signature, err)
					}
				}
			})
		}
	}
	wg.Wait()
}

// evidence has the TPM prove where keys live and what was booted.
func (h hardware) evidence(t *testing.T) {
	s := h.open(t, t.TempDir(), withPIN("1234"), func(c *tpm.Config) {
		if _, err := tpm.LinuxEventLog(t.Context()); err == nil {
			c.EventLog = tpm.LinuxEventLog
		} else {
			t.Log(err)
		}
	})
	for i, kind := range kinds {
		key := create(t, s, fmt.Sprint(i), kind)
		evidence := prove(t, key, 0, 4, 7)
		t.Logf("%+v: a statement of %d octets, a log of %d", kind, len(evidence.Statement), len(evidence.EventLog))
		if len(enrol(t, key).AK) == 0 {
			t.Error("no attestation key")
		}
		sign(t, key)
	}
}

// busy opens the device that is not shared twice.
func (h hardware) busy(t *testing.T) {
	raw := hardware{"/dev/tpm0"}
	s := raw.open(t, t.TempDir(), func(c *tpm.Config) { c.Exclusive = true })
	sign(t, create(t, s, "key", tpm.KeyOptions{}))
	_, err := tpm.Open(t.Context(), tpm.Config{Device: "/dev/tpm0", Dir: t.TempDir()})
	wantError(t, err, keystore.ErrUnavailable, syscall.EBUSY)
}

// suspend lets the machine sleep while keys are loaded and sessions are open: they
// go on signing, and nobody is told.
func (h hardware) suspend(t *testing.T) {
	s := h.open(t, t.TempDir(), withPIN("1234"))
	for i, kind := range kinds {
		key := create(t, s, fmt.Sprint(i), kind)
		for range 2 {
			sign(t, key)
			sleepTwoSeconds(t)
			sign(t, key)
		}
	}
}

// driver takes the chip away from its driver and gives it back, while a Store has it open.
// The kernel may give it another number then: keys sign all the same. While it is away
// they are unavailable, and neither lost nor in need of another Store.
func (h hardware) driver(t *testing.T) {
	folder := filepath.Dir(findOne(t, "/sys/bus/*/drivers/tpm_*/MSFT0101:00"))
	write := func(name string) {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("MSFT0101:00"), 0); err != nil {
			t.Fatal(err)
		}
	}
	s := h.open(t, t.TempDir(), withPIN("1234"))
	if _, err := tpm.LinuxEventLog(t.Context()); err != nil {
		t.Error(err)
	}
	for i, kind := range kinds {
		key := create(t, s, fmt.Sprint(i), kind)
		for _, isSeen := range []bool{false, true, false} {
			write("unbind")
			if isSeen {
				for range 2 {
					_, err := key.Sign(t.Context(), []byte("input"))
					wantError(t, err, keystore.ErrUnavailable)
					if errors.Is(err, keystore.ErrKeyLost) {
						t.Error(err)
					}
				}
			}
			write("bind")
			for range 2 {
				sign(t, key)
			}
			if _, err := tpm.LinuxEventLog(t.Context()); err != nil {
				t.Error(err)
			}
			t.Logf("%+v, seen %t: %s", kind, isSeen, findOne(t, "/dev/tpmrm*"))
		}
	}
	if now := findOne(t, "/dev/tpmrm*"); now == h.device {
		t.Errorf("%s has its number again", now)
	}
	sign(t, create(t, h.open(t, t.TempDir()), "key", tpm.KeyOptions{})) // by a program that has just started
}

func findOne(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %q, %v", pattern, found, err)
	}
	return found[0]
}

// sleepTwoSeconds suspends the machine to RAM, and has its clock wake it up.
func sleepTwoSeconds(t *testing.T) {
	t.Helper()
	for _, step := range []struct{ path, text string }{
		{"/sys/class/rtc/rtc0/wakealarm", "0"},
		{"/sys/class/rtc/rtc0/wakealarm", "+2"},
		{"/sys/power/state", "mem"},
	} {
		if err := os.WriteFile(step.path, []byte(step.text), 0); err != nil {
			t.Fatal(err)
		}
	}
}
