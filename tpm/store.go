// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/keystore"
)

// Config says which TPM a Store uses and where its key files are. At most one
// of Device, Dial and TPM may be set.
type Config struct {
	// Device is the TPM's device file, or the socket of a program that speaks plain TPM
	// commands, such as swtpm's "--server". Write a socket as "unix:PATH" or
	// "tcp:HOST:PORT". "" means the TPM Base Services on Windows, which has no
	// device files, and /dev/tpmrm0 on Linux, which several programs can share. If that is
	// not there, the only /dev/tpmrm* is meant: Linux gives a driver that comes back
	// another number. The Store follows such a change for each device file.
	//
	// Open assumes that a socket serves one program at a time, as swtpm's does, so a
	// socket implies Exclusive. For a socket that leads to a resource manager use Dial.
	// If another program has the socket, Open fails with ErrInUse after 5 seconds.
	Device string

	// Dial opens a connection, in place of Device: see [NewConn]. Open calls Dial, and
	// the Store calls it again when a connection was lost, never concurrently. The Store
	// closes what Dial has returned. The context ends when Dial has returned. That must
	// not end the connection.
	Dial func(context.Context) (transport.TPMCloser, error)

	// TPM is an open connection, in place of Device and Dial. The Store never closes it
	// and cannot reopen it. Nobody else may use it between Open and Close.
	TPM transport.TPM

	// Dir is the folder of the key files, NAME.pem. Open makes the folder, with mode
	// 0700, if it does not exist. Nobody but its owner may write to it. On Windows an
	// access control list of the owner, SYSTEM and Administrators stands for the mode.
	// "" is an error.
	Dir string

	// PIN returns the PIN of a key: 1 to 32 bytes, none of them zero. The Store calls it
	// when it creates a key with a PIN. It calls it for a signature or evidence, too, if
	// the key's PIN was not used for 30 seconds: for that time the Store keeps in memory
	// a PIN that the TPM has accepted. One goroutine at a time calls PIN. PIN must return
	// when ctx ends. The Store overwrites the returned slice with zeros after use. If PIN
	// returns an error, the operation fails with keystore.ErrAuth. nil means that Create
	// makes keys without a PIN, and that keys with a PIN give keystore.ErrAuth.
	PIN func(ctx context.Context, name string) ([]byte, error)

	// OwnerAuth and EndorsementAuth are the authorization values of the owner
	// and the endorsement hierarchy, without zero bytes. The zero value is
	// empty, as on most devices.
	OwnerAuth, EndorsementAuth []byte

	// EKCertificates are certificates (DER) that the attester gets beside those in the
	// TPM. Some makers do not put the certificate of the endorsement key into the TPM,
	// but publish it on a web site, for example. Put it here, with the links from it to
	// the maker's root. If there are any here, and neither these nor the TPM's are for
	// this TPM, enrolment fails. If there are none at all, enrolment goes without: it is
	// for attesters that have a list of devices. There may be 15 at the most.
	EKCertificates [][]byte

	// EventLog returns the log of what was measured into the PCRs, of at most 1 MiB: use
	// LinuxEventLog or WindowsEventLog. The Store calls EventLog only to collect evidence
	// with a quote of PCRs. If EventLog returns an error, that fails with
	// keystore.ErrUnavailable. nil means that evidence has no log.
	EventLog func(context.Context) ([]byte, error)

	// UserspaceLog and IMALog return, in the same manner, what was measured since the
	// firmware has gone: by the operating system's programs (LinuxUserspaceLog), and of
	// the files that were run or read by Linux's IMA (LinuxIMALog). They are asked for
	// after the PCRs were quoted, so that nothing that the quote covers is missing.
	UserspaceLog, IMALog func(context.Context) ([]byte, error)

	// Exclusive says that no other program uses the TPM, and that there is no resource
	// manager between Store and TPM. Each time it connects, the Store then flushes every
	// transient object and session: a process that was killed may have left them.
	Exclusive bool
}

// String says which TPM and folder, and no authorization value.
func (cfg Config) String() string {
	device := cfg.Device
	switch {
	case cfg.Dial != nil:
		device = "Dial"
	case cfg.TPM != nil:
		device = "TPM"
	case device == "":
		device = "default"
	}
	return fmt.Sprintf("tpm.Config{device %s, folder %s}", device, cfg.Dir)
}

// GoString returns what String returns.
func (cfg Config) GoString() string { return cfg.String() }

// MarshalText returns what String returns, for JSON and logs.
func (cfg Config) MarshalText() ([]byte, error) { return []byte(cfg.String()), nil }

// A Store keeps keys in a TPM. It is a [keystore.Store], safe for concurrent
// use, and must be closed.
type Store struct {
	config Config
	folder folder
	device *device
	// pin is held by whoever asks for a PIN, so that one user is not asked for the
	// same PIN by many goroutines. Who waits for it can be cancelled.
	pin chan struct{}
	// pins are the parents of keys whose files do not name them yet, by holderOf.
	pins  sync.Map
	notes notes
}

var _ keystore.Store = (*Store)(nil)

// Open connects to the TPM and opens the folder. It sends no command unless
// cfg.Exclusive is set or implied. Errors match keystore.ErrUnavailable where the TPM or
// the folder cannot be used; see the package's table for the causes.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	dir, err := openFolder(cfg.Dir)
	if err != nil {
		return nil, err
	}
	cfg.OwnerAuth = slices.Clone(cfg.OwnerAuth)
	cfg.EndorsementAuth = slices.Clone(cfg.EndorsementAuth)
	cfg.EKCertificates = slices.Clone(cfg.EKCertificates)
	s := &Store{config: cfg, folder: dir, device: newDevice(cfg), pin: make(chan struct{}, 1)}
	_, err = run(ctx, s.device, func(*call) (struct{}, error) { return struct{}{}, nil })
	if err != nil {
		if ctx.Err() != nil {
			go s.device.close() // waits for the command that still runs
		} else {
			s.device.close()
		}
		return nil, explain("open", err)
	}
	return s, nil
}

func (cfg Config) check() error {
	chosen := 0
	for _, set := range []bool{cfg.Device != "", cfg.Dial != nil, cfg.TPM != nil} {
		if set {
			chosen++
		}
	}
	if chosen > 1 {
		return errors.New("tpm: set only one of Config.Device, Dial and TPM")
	}
	if network, address, ok := socketAddress(cfg.Device); ok {
		if err := checkSocket(network, address); err != nil {
			return fmt.Errorf("tpm: Config.Device %.100q: %w: use unix:PATH or tcp:HOST:PORT", cfg.Device, err)
		}
	}
	if cfg.Dir == "" {
		return errors.New("tpm: Config.Dir is empty: name the folder for the key files")
	}
	if slices.Contains(cfg.OwnerAuth, 0) || slices.Contains(cfg.EndorsementAuth, 0) {
		return errors.New("tpm: a hierarchy's authorization value has a zero byte: set another with tpm2_changeauth")
	}
	if len(cfg.EKCertificates) >= maxEKCertificates {
		return fmt.Errorf("tpm: Config.EKCertificates: %d certificates, and %d are the most", len(cfg.EKCertificates), maxEKCertificates-1)
	}
	for _, der := range cfg.EKCertificates {
		if _, err := x509.ParseCertificate(der); err != nil {
			return fmt.Errorf("tpm: Config.EKCertificates: not a certificate in DER: %w", err)
		}
	}
	return nil
}

// Close waits for the command that is running, takes the Store's objects and sessions out
// of the TPM, and closes a connection that the Store has opened. Calls that still wait
// for their turn, and all later calls, fail with keystore.ErrClosed. Closing again does
// nothing. The error matches keystore.ErrUnavailable if something was left in the TPM, or
// if the TPM does not answer. Close waits 70 seconds at the most, and 20 seconds for an
// operation whose caller has given up.
func (s *Store) Close() error {
	err := s.device.close()
	s.notes.close()
	if err != nil {
		return fmt.Errorf("tpm: close: %w", err)
	}
	return nil
}

// String says where the key files are.
func (s *Store) String() string { return "tpm.Store in " + s.folder.String() }

// GoString returns what String returns: no authorization value is shown.
func (s *Store) GoString() string { return s.String() }

// MarshalText returns what String returns, for JSON and logs.
func (s *Store) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
