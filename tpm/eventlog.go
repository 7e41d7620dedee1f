// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/instancekey/instancekey/keystore"
)

const (
	// linuxEventLog is the log of the firmware of the machine's own TPM, the
	// first one.
	linuxEventLog = "/sys/kernel/security/tpm0/binary_bios_measurements"

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
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return readEventLog(linuxEventLog)
}

func readEventLog(path string) ([]byte, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: the firmware left no log, or securityfs is not mounted", err)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w: run as root, or have a service that does hand the log over", err)
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
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

// eventLog returns what Config.EventLog gives, nil if it is not set.
func (s *Store) eventLog(ctx context.Context) ([]byte, error) {
	if s.config.EventLog == nil {
		return nil, nil
	}
	log, err := s.config.EventLog(ctx)
	if err == nil {
		err = checkEventLog(log)
	}
	switch {
	case err == nil:
		return log, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("reading the event log: %w", ctx.Err())
	}
	return nil, fmt.Errorf("%w: event log: %w", keystore.ErrUnavailable, err)
}
