// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/instancekey/instancekey/examples/internal/storeflag"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/tpm"
)

func TestDoctorNoDevice(t *testing.T) {
	notOnWindows(t, "device files")
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for store, words := range map[string][]string{
		filepath.Join(dir, "tpmrm0"):           {"is not there", "firmware setup", "-store"},
		dir:                                    {"not a device file", "/dev/tpmrm0"},
		socket:                                 {"is a socket", "-store unix:" + socket},
		writeFile(t, "file", ""):               {"not a device file"},
		"unix:" + filepath.Join(dir, "nobody"): {"no TPM at"},
		"tcp:127.0.0.1:1":                      {"no TPM at"},
	} {
		t.Run(store, func(t *testing.T) {
			keys := t.TempDir()
			d := examined(t, "-store", store, "-keys", keys)
			d.failed("device")
			if device := d.findings[len(d.findings)-3]; device.Check != "device" || device.Status != statusFail {
				t.Errorf("found %+v", device)
			}
			d.want("key folder", statusWarn, "without a TPM")
			d.want("system clock", statusOK)
			d.findings = slices.DeleteFunc(d.findings, func(f finding) bool { return f.Status != statusFail })
			d.want("device", statusFail, words...)
		})
	}
}

// A device file that is no TPM.
func TestDoctorOtherDevice(t *testing.T) {
	notOnWindows(t, "device files")
	d := examined(t, "-store", "/dev/null")
	d.failed("TPM")
	d.want("device", statusOK, "/dev/null is a device file")
	d.want("TPM", statusFail, "does not work")
}

// device returns the path of a device file. It is no TPM; the doctor is to be
// given one that it opens instead.
func device(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.Symlink("/dev/null", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// openedWith returns what a doctor opens in the place of a device file.
func openedWith(t *testing.T, d tpmtest.Device) func(context.Context, *storeflag.Flags) (*storeflag.Store, error) {
	return func(ctx context.Context, f *storeflag.Flags) (*storeflag.Store, error) {
		store, err := tpm.Open(ctx, tpm.Config{Dial: d.Dial, Dir: t.TempDir()})
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { store.Close() })
		return &storeflag.Store{Store: store, Name: f.Store}, nil
	}
}

// What the system says when the device is opened, as package tpm passes it on.
func TestDoctorRefused(t *testing.T) {
	notOnWindows(t, "device files: TestTBSRefused")
	for cause, tt := range map[syscall.Errno]struct {
		check string
		words []string
	}{
		syscall.EACCES: {"permission", []string{"permission denied", "usermod -a -G tss USER"}},
		syscall.EPERM:  {"permission", []string{"not permitted", "usermod -a -G tss USER"}},
		syscall.EBUSY:  {"in use", []string{"device or resource busy", "use /dev/tpmrm0"}},
		syscall.ENODEV: {"device", []string{"no such device", "firmware setup"}},
		syscall.ENOENT: {"device", []string{"firmware setup"}},
	} {
		t.Run(cause.Error(), func(t *testing.T) {
			path := device(t, "tpm0")
			faults := tpmtest.Inject(t, nil)
			injection := faults.Add(tpmtest.Fault{Dial: true, Times: -1, Err: &os.PathError{Op: "open", Path: path, Err: cause}})
			d, found := newDoctor(t, doctorFlags{clientFlags: clientFlags{store: storeflag.Flags{Store: path}}})
			d.open = openedWith(t, faults)
			if d.examineTPM(t.Context()) || !d.failed || injection.Fired() != 1 {
				t.Errorf("the TPM works: %t, opened %d times", !d.failed, injection.Fired())
			}
			got := found()
			got.failed(tt.check)
			got.findings = slices.DeleteFunc(got.findings, func(f finding) bool { return f.Status != statusFail })
			got.want(tt.check, statusFail, tt.words...)
		})
	}
	t.Run("socket", func(t *testing.T) {
		d, found := newDoctor(t, doctorFlags{})
		d.opened(fmt.Errorf("tpm: open: %w: somebody", tpm.ErrInUse))
		found().failed("in use")
	})
}

// The name of the device file tells the raw device from the shared one.
func TestDoctorSharing(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, tt := range []struct {
		name    string
		managed bool
		status  status
		words   []string
	}{
		{"tpm0", false, statusWarn, []string{"the raw device", "tpmrm0"}},
		{"tpm1", false, statusWarn, []string{"tpmrm1"}},
		{"tpmrm0", true, statusOK, []string{"programs share"}},
		{"tpm0", true, statusOK, []string{"programs share"}}, // whatever it is called
	} {
		t.Run(fmt.Sprint(tt.name, tt.managed), func(t *testing.T) {
			var chip tpmtest.Device = sim
			if tt.managed {
				chip = tpmtest.NewResourceManager(t, sim)
			}
			d, found := newDoctor(t, doctorFlags{clientFlags: clientFlags{store: storeflag.Flags{Store: device(t, tt.name)}}})
			d.open = openedWith(t, chip)
			if !d.examineTPM(t.Context()) {
				t.Error("the TPM does not work")
			}
			got := found()
			got.failed()
			got.want("resource manager", tt.status, tt.words...)
			if !slices.Equal(got.checks(), tpmChecks) {
				t.Errorf("checked %q", got.checks())
			}
		})
	}
}
