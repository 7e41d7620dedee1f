// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/instancekey/instancekey/keystore"
)

// The logs of Linux.
const (
	// linuxEventLog is the log of the firmware of the machine's own TPM, the
	// first one.
	linuxEventLog = "/sys/kernel/security/tpm0/binary_bios_measurements"

	// linuxUserspaceLog is systemd's, who describes it in
	// https://systemd.io/TPM2_PCR_MEASUREMENTS.
	linuxUserspaceLog = "/run/log/systemd/tpm2-measure.log"

	// linuxIMALog is that of the Integrity Measurement Architecture.
	linuxIMALog = "/sys/kernel/security/ima/binary_runtime_measurements"

	// maxEventLog is some 20 times the size of a usual log, in bytes.
	maxEventLog = 1 << 20
)

// LinuxEventLog reads the measured-boot log that the firmware has handed to the
// Linux kernel, for Config.EventLog. It shows in detail what the machine has
// booted. Give it only to a Store on this machine's own TPM: with any other, a
// simulator or one on a socket, it does not explain the PCRs.
//
// It fails if the log has more than 1 MiB. On most systems root alone may read it.
func LinuxEventLog(ctx context.Context) ([]byte, error) {
	path := theOnly("/sys/kernel/security/tpm[0-9]*/binary_bios_measurements")
	if path == "" {
		path = linuxEventLog
	}
	return readLog(ctx, path, "the firmware left no log, or securityfs is not mounted")
}

// theOnly returns the file that matches the pattern, or "" if none does, or several do: the
// number of a TPM is not always 0.
func theOnly(pattern string) string {
	if files, err := filepath.Glob(pattern); err == nil && len(files) == 1 {
		return files[0]
	}
	return ""
}

// LinuxUserspaceLog reads the log of what systemd has measured, for
// Config.UserspaceLog, while nothing is being written to it. See [LinuxEventLog].
func LinuxUserspaceLog(ctx context.Context) ([]byte, error) {
	return readLog(ctx, linuxUserspaceLog, "systemd has measured nothing, which it does on machines that start from a unified kernel image alone, or is older than 255")
}

// LinuxIMALog reads the list of the files that Linux's IMA has measured, for
// Config.IMALog. See [LinuxEventLog]. It grows with each other file; an attester
// takes some thousand.
func LinuxIMALog(ctx context.Context) ([]byte, error) {
	return readLog(ctx, linuxIMALog, "the kernel has no IMA, or securityfs is not mounted")
}

func readLog(ctx context.Context, path, notThere string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", err, notThere)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w: run as root, or have a service that does hand the log over", err)
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := awaitWriter(ctx, file); err != nil {
		return nil, fmt.Errorf("%s is being written to: %w", path, err)
	}
	log, err := io.ReadAll(io.LimitReader(file, maxEventLog+1))
	if err == nil {
		err = checkEventLog(log)
	}
	return log, err
}

func checkEventLog(log []byte) error {
	if len(log) > maxEventLog {
		return fmt.Errorf("%d bytes and more, where %d are the limit", len(log), maxEventLog)
	}
	return nil
}

// askForLog returns what a function of Config gives, nil if it is not set.
func askForLog(ctx context.Context, name string, read func(context.Context) ([]byte, error)) ([]byte, error) {
	if read == nil {
		return nil, nil
	}
	log, err := read(ctx)
	if err == nil {
		err = checkEventLog(log)
	}
	switch {
	case err == nil:
		return log, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("reading the %s: %w", name, ctx.Err())
	}
	return nil, fmt.Errorf("%w: %s: %w", keystore.ErrUnavailable, name, err)
}
