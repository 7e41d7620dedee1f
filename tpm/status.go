// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"crypto/x509"
	"time"
)

// Status is what a TPM says of itself, for those who look for what is wrong with a
// device. An attacker on the TPM's bus can forge all of it.
type Status struct {
	Manufacturer  string // of the TCG Vendor ID Registry, such as "INTC"
	Model         string // what the manufacturer calls it; may be empty
	Firmware      string // version, such as "7.2.3.1"
	Specification string // of the TPM 2.0 Library, such as "2.0 revision 1.59"

	// Managed says that a resource manager is between, as behind /dev/tpmrm0, so
	// that other programs can use the TPM at the same time. It shows when an
	// object is loaded: false means nothing if StorageRootKey has an Err.
	Managed bool

	Lockout            Lockout
	Owner, Endorsement Hierarchy

	// What is free in the TPM while the Store has nothing in it. A resource
	// manager swaps objects in and out, so that they do not run out behind it.
	FreeObjects, FreeSessions, FreePersistent int

	StorageRootKey StorageRootKey
	EKCertificates []EKCertificate // of the TPM, then those of Config; empty: there are none
	EKLinks        []EKCertificate // that lead from these to their maker's root
	PCRBanks       []string        // the hashes of the active banks, such as "SHA-256"
	Clock          Clock
}

// Lockout is the state of a TPM's protection against guessing PINs
// ("dictionary attack", TPM 2.0 Part 1), which is one for all keys.
type Lockout struct {
	Active      bool // keys without noDA do not work now: those with a PIN, and those of other programs
	Failures    int  // wrong tries and, with such keys, power cuts
	MaxFailures int  // so many lead to a lockout
	// Interval is how long the TPM has to stay switched on until it forgives one
	// failure, which also ends a lockout. 0: it protects nothing.
	Interval time.Duration
	AuthSet  bool // tpm2_dictionarylockout needs a password (lockoutAuth)
	// AuthRecovery is how long tpm2_dictionarylockout refuses to work after it
	// got a wrong password. 0: until the next start.
	AuthRecovery time.Duration
}

// Hierarchy is the state of one of a TPM's hierarchies of keys.
type Hierarchy struct {
	Enabled bool
	AuthSet bool // it has a password, see Config.OwnerAuth and EndorsementAuth
}

// StorageRootKey says whether there is what keys are wrapped with.
type StorageRootKey struct {
	// Name is the Name (TPM 2.0 Part 1) of the ECC key that new keys are
	// wrapped with. It changes when the TPM is cleared; keys from before are
	// lost then. nil if Err is set.
	Name []byte
	// Public is the TPMT_PUBLIC of that key: what an attester needs to wrap a
	// key for this TPM. nil if Err is set.
	Public []byte
	// Err is why that key cannot be made. It matches a sentinel.
	Err error
	// Persistent is the kind of key at 0x81000001, such as "RSA-2048" or
	// "ECC P-256", which the keys of other programs may need. "" is none.
	Persistent string
}

// EKCertificate is a manufacturer's certificate for an endorsement key, by which
// an attester knows a genuine TPM, or a link from such a certificate to the
// manufacturer's root.
type EKCertificate struct {
	// Index is the NV index (TCG EK Credential Profile). Links are from 0x01c00100 on,
	// one after the other, and have that index. 0: from Config.EKCertificates.
	Index       uint32
	Certificate *x509.Certificate // nil: what is there cannot be read, or is none for such a key
}

// Clock is the TPM's own clock and its counters (TPM 2.0 Part 1, "Timing
// Components"). It does not know what day it is.
type Clock struct {
	Running  time.Duration // since the TPM was switched on
	Resets   uint32        // starts since the TPM was cleared
	Restarts uint32        // resumptions since the last of these
	// Safe says that the clock has not been put back. After a power cut it may
	// have been, until it has caught up.
	Safe bool
}

// Status asks the TPM about itself, for a technician's tools. It changes nothing
// and leaves nothing in the TPM, except that a key that is loaded makes room. It
// costs eight commands, and three or more for each NV index with certificates of
// endorsement keys, or with links from them, which is read.
//
// That the storage root key cannot be made is no error of Status but is in
// StorageRootKey.
func (s *Store) Status(ctx context.Context) (Status, error) {
	status, err := run(ctx, s.device, func(c *call) (Status, error) { return c.status(s.config.EKCertificates) })
	return status, explain("ask the TPM for its status", err)
}
