// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/instancekey/instancekey/tpm"
)

const adviceNoTPM = "enable the TPM in the firmware setup (it may be called PTT or fTPM there), see whether the kernel has its driver (dmesg | grep -i tpm), or correct -store"

// deviceFile reports whether what -store names may be a TPM: a path must be that of a
// device file. If it may be, opened says what it is.
func (d *doctor) deviceFile() bool {
	path := d.flags.store.Store
	if !filepath.IsAbs(path) {
		d.device = path
		return true
	}
	info, err := os.Stat(path)
	others, _ := filepath.Glob("/dev/tpmrm[0-9]*")
	switch {
	case errors.Is(err, fs.ErrNotExist) && path == "/dev/tpmrm0" && len(others) == 1:
		d.device = others[0] + " stands for " + path + ", which is not there: its driver has come back"
		return true
	case errors.Is(err, fs.ErrNotExist):
		d.fail("device", adviceNoTPM, "%s is not there; %s", path, otherDevices())
	case err != nil:
		d.fail("device", adviceNoTPM, "%v", err)
	case info.Mode()&fs.ModeSocket != 0:
		d.fail("device", "use -store unix:"+path, "%s is a socket", path)
	case info.Mode()&fs.ModeCharDevice == 0:
		d.fail("device", "name a device such as /dev/tpmrm0", "%s is not a device file; %s", path, otherDevices())
	default:
		d.device = fmt.Sprintf("%s is a device file (mode %04o)", path, info.Mode().Perm())
		return true
	}
	return false
}

func otherDevices() string {
	devices, _ := filepath.Glob("/dev/tpm*")
	if len(devices) == 0 {
		return "there is no /dev/tpm*"
	}
	return "there is " + strings.Join(devices, ", ")
}

// opened says what the error of opening the device means, and that the device is one if
// the error is not about that.
func (d *doctor) opened(err error) bool {
	path := d.flags.store.Store
	denied := errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM)
	if err == nil || denied || errors.Is(err, syscall.EBUSY) || errors.Is(err, tpm.ErrInUse) {
		d.ok("device", "%s", d.device)
	}
	switch {
	case denied && !filepath.IsAbs(path):
		d.fail("permission", "run as the user of the TPM's socket, or have the socket opened to this one: chown or chmod it", "%s", cause(err))
		return false
	case denied:
		d.fail("permission", "add the user to the group of the device, tss on most systems (usermod -a -G tss USER), and log in again", "%s", cause(err))
		return false
	case errors.Is(err, syscall.EBUSY):
		d.ok("permission", "this user may use the TPM")
		d.fail("in use", "use /dev/tpmrm0, which programs share, and not /dev/tpm0; or stop the other program", "another program has the TPM: %s", cause(err))
		return false
	case errors.Is(err, tpm.ErrInUse):
		d.ok("permission", "this user may use the TPM")
		d.fail("in use", "stop the other program: one at a time can use a TPM on a socket", "another program has the TPM: %s", cause(err))
		return false
	case err != nil && !filepath.IsAbs(path) && path != "tbs":
		d.fail("device", "start the TPM, such as swtpm, or correct -store", "%s", cause(err))
		return false
	case err != nil && path == "tbs":
		d.fail("device", "see what Windows says of the TPM (tpm.msc), or correct -store", "%s", cause(err))
		return false
	case err != nil:
		d.fail("device", adviceNoTPM, "%s", cause(err))
		return false
	}
	d.ok("permission", "this user may use the TPM")
	d.ok("in use", "no other program keeps the TPM to itself")
	return true
}

// cause leaves out what an error of the operating system was wrapped in: advice
// that is given here too.
func cause(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Error()
	}
	return err.Error()
}
