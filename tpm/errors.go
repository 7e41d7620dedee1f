// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
)

// errGarbled: what came back is no answer to the command that was sent.
var errGarbled = errors.New("garbled answer")

// errNeedPIN asks the caller to come again with the key's PIN.
var errNeedPIN = errors.New("the key's PIN is needed")

// errMoved: the key is not at its persistent handle any more.
var errMoved = errors.New("another key is at the persistent handle now")

// subject is what the TPM was asked for when it gave an error. The same code means
// something else for each.
type subject string

const (
	anything       subject = ""
	theKey         subject = "the key" // its use
	theFile        subject = "the key's file"
	theParent      subject = "the parent"
	theOwner       subject = "the owner hierarchy"
	theEndorsement subject = "the endorsement hierarchy"
)

// subjectError is an error of the TPM about a subject.
type subjectError struct {
	about subject
	error
}

func (e *subjectError) Unwrap() error { return e.error }

// about notes what an error of the TPM is about, if it is one and that is not
// known yet.
func about(what subject, err error) error {
	if !errors.As(err, new(tpm2.TPMRC)) || errors.As(err, new(*subjectError)) {
		return err
	}
	return &subjectError{what, err}
}

func subjectOf(err error) subject {
	if e := new(subjectError); errors.As(err, &e) {
		return e.about
	}
	return anything
}

// isRefusal reports whether an error says that an authorization value is wrong.
func isRefusal(err error) bool {
	return errors.Is(err, tpm2.TPMRCAuthFail) || errors.Is(err, tpm2.TPMRCBadAuth)
}

// connError is an error of the connection and not of the TPM.
type connError struct{ error }

func (e *connError) Unwrap() error { return e.error }

// dialError is why there is no connection.
type dialError struct{ error }

func (e *dialError) Unwrap() error { return e.error }

// A LockoutError is the cause of keystore.ErrLockedOut. The TPM has seen too many wrong
// PINs or power cuts, with this key or another. It now refuses all keys without the
// attribute noDA: keys with a PIN, and keys that other programs have made.
type LockoutError struct {
	// Recovery is how long the TPM has to stay switched on until it forgives
	// one wrong PIN and answers again (Lockout.Interval of [Store.Status]). 0:
	// the TPM does not say.
	Recovery time.Duration
	code     error
}

// Error gives the TPM's response code and the time.
func (e *LockoutError) Error() string {
	if e.Recovery == 0 {
		return e.code.Error()
	}
	return fmt.Sprintf("%v; next try in at most %v", e.code, e.Recovery)
}

// Unwrap returns the TPM's response code.
func (e *LockoutError) Unwrap() error { return e.code }

// busyCodes ask for the same command again, later.
var busyCodes = []tpm2.TPMRC{tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate}

// fault says what an error of the TPM or the operating system means. The table
// in the package's documentation has a line for each.
type fault struct {
	about    subject
	causes   []error
	sentinel error
	advice   string
}

// wrongAuth are the codes for a password that is wrong or missing.
var wrongAuth = []error{tpm2.TPMRCAuthFail, tpm2.TPMRCBadAuth, tpm2.TPMRCAuthMissing, tpm2.TPMRCAuthUnavailable}

// faults is searched from the top.
var faults = []fault{
	{
		anything, []error{tpm2.TPMRCLockout},
		keystore.ErrLockedOut, "wrong PINs, or power cuts while a key without noDA was in use: wait with the TPM switched on, or clear the lockout with tpm2_dictionarylockout",
	}, {
		theOwner, wrongAuth,
		keystore.ErrAuth, "set Config.OwnerAuth to the password of the TPM's owner hierarchy",
	}, {
		theEndorsement, wrongAuth,
		keystore.ErrAuth, "set Config.EndorsementAuth to the password of the TPM's endorsement hierarchy",
	}, {
		theParent, wrongAuth,
		keystore.ErrAuth, "the key's parent has a password, which cannot be given here: make the key under a parent without",
	}, {
		anything, []error{tpm2.TPMRCAuthFail},
		keystore.ErrAuth, "check the PIN: every further try with a wrong one counts toward a lockout",
	}, {
		anything, []error{tpm2.TPMRCBadAuth, tpm2.TPMRCAuthMissing, tpm2.TPMRCAuthUnavailable},
		keystore.ErrAuth, "check the PIN",
	}, {
		anything, []error{tpm2.TPMRCPolicyFail, tpm2.TPMRCPolicy, tpm2.TPMRCPolicyCC, tpm2.TPMRCExpired},
		keystore.ErrPolicy, "the device has booted something else than the key is bound to: boot that again, or enrol with a new key",
	}, {
		anything, []error{tpm2.TPMRCPCRChanged},
		keystore.ErrUnavailable, "some program extends PCRs all the time: try again",
	}, {
		theFile, []error{tpm2.TPMRCIntegrity},
		keystore.ErrUnavailable, "none of the parents that are known here has made the key, which another TPM has, or this one before it was cleared, or another parent: name that with tpm2_encodeobject -C HANDLE, or enrol with a new key",
	}, {
		anything, []error{tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting},
		keystore.ErrUnavailable, "the TPM stayed busy: try again later, and look for another program that keeps it so",
	}, {
		anything, []error{tpm2.TPMRCNVRate, tpm2.TPMRCNVUnavailable},
		keystore.ErrUnavailable, "the TPM protects its memory from wear: try again in some minutes",
	}, {
		anything, []error{tpm2.TPMRCObjectMemory, tpm2.TPMRCSessionMemory, tpm2.TPMRCMemory, tpm2.TPMRCObjectHandles, tpm2.TPMRCSessionHandles, tpm2.TPMRCContextGap, syscall.ENOMEM},
		keystore.ErrUnavailable, "the TPM is full of other programs' objects or sessions: end the program that has them; on a raw device use /dev/tpmrm0, or Config.Exclusive if there are no other programs",
	}, {
		anything, []error{tpm2.TPMRCNVDefined},
		keystore.ErrExists, "something else is at the persistent handle: choose another",
	}, {
		anything, []error{tpm2.TPMRCNVSpace},
		keystore.ErrUnavailable, "the TPM has no room for another persistent key: remove one, or use the key without",
	}, {
		anything, []error{tpm2.TPMRCReferenceH0, tpm2.TPMRCReferenceH1, tpm2.TPMRCReferenceS0, tpm2.TPMRCReferenceS1, tpm2.TPMRCHandle, tpm2.TPMRCInitialize, tpm2.TPMRCIntegrity, syscall.EFAULT, syscall.EINVAL},
		keystore.ErrUnavailable, "the TPM lost its state again while it was being restored: look for what resets it, or for another program on the same device",
	}, {
		theEndorsement, []error{tpm2.TPMRCHierarchy, tpm2.TPMRCDisabled},
		keystore.ErrUnavailable, "the TPM's endorsement hierarchy is disabled: enable it in the firmware setup",
	}, {
		anything, []error{tpm2.TPMRCHierarchy, tpm2.TPMRCDisabled},
		keystore.ErrUnavailable, "the TPM's owner hierarchy is disabled: enable it in the firmware setup",
	}, {
		anything, []error{tpm2.TPMRCFailure},
		keystore.ErrUnavailable, "the TPM is in failure mode: switch the device off and on; if it comes back, the TPM is defective",
	}, {
		anything, []error{tpm2.TPMRCUpgrade, tpm2.TPMRCReboot, tpm2.TPMRCNeedsTest, tpm2.TPMRCCanceled},
		keystore.ErrUnavailable, "the TPM cannot work now: restart the device",
	}, {
		anything, append([]error{tpm2.TPMRCCommandCode}, lacking...),
		keystore.ErrUnavailable, "this TPM does not have the algorithm or the command: use ES256, which every TPM has",
	}, {
		anything, []error{syscall.EACCES},
		keystore.ErrUnavailable, "no permission for the TPM: add the user to the group tss (usermod -a -G tss USER) and log in again",
	}, {
		anything, []error{syscall.EPERM},
		keystore.ErrUnavailable, "the program's sandbox denies it the TPM: in a systemd unit write DeviceAllow=char-tpm rw, which holds for a TPM that comes later, too; give a container the device",
	}, {
		anything, []error{tbsAccessDenied},
		keystore.ErrUnavailable, "Windows keeps this user from the TPM: run as administrator, or as a service",
	}, {
		anything, []error{tbsCommandBlocked},
		keystore.ErrUnavailable, "Windows blocks this command of the TPM: run as administrator, or have an administrator take it off the list of blocked commands (group policy, System, Trusted Platform Module Services)",
	}, {
		anything, []error{tbsServiceNotRunning, tbsServiceDisabled, tbsServiceStartPending},
		keystore.ErrUnavailable, "the service TPM Base Services does not run: start it as administrator (sc.exe config tbs start= demand, and sc.exe start tbs), or try again if it is just starting",
	}, {
		anything, []error{tbsTooManyContexts, tbsTooManyResources},
		keystore.ErrUnavailable, "too many programs have the TPM open: end some of them, and use one Store in a process",
	}, {
		anything, []error{tbsCommandCanceled},
		keystore.ErrUnavailable, "Windows canceled the command, as it does before it sleeps: try again",
	}, {
		anything, []error{syscall.EBUSY},
		keystore.ErrUnavailable, "another program has the TPM: use /dev/tpmrm0, which programs share, and not /dev/tpm0",
	}, {
		anything, []error{syscall.ENOENT, syscall.ENXIO, syscall.ENODEV, syscall.ECONNREFUSED, tbsTPMNotFound},
		keystore.ErrUnavailable, "no TPM: enable it in the firmware setup (it may be called PTT or fTPM there), or check Config.Device",
	}, {
		anything, []error{errGarbled},
		keystore.ErrUnavailable, "something between the program and the TPM, or the TPM, is defective or hostile",
	}, {
		anything, nil,
		keystore.ErrUnavailable, "the TPM or the connection to it failed: check that the TPM is there and its driver or simulator runs",
	},
}

func (f fault) matches(err error) bool {
	if f.about != anything && f.about != subjectOf(err) {
		return false
	}
	for _, cause := range f.causes {
		if errors.Is(err, cause) {
			return true
		}
	}
	return f.causes == nil
}

// explain adds to an error what was being done, and to one that has no sentinel
// yet, what it means and what to do.
func explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	if explained(err) {
		return fmt.Errorf("tpm: %s: %w", doing, err)
	}
	for _, f := range faults {
		if f.matches(err) {
			return fmt.Errorf("tpm: %s: %w: %w: %s", doing, f.sentinel, err, f.advice)
		}
	}
	panic("unreachable: the last fault matches everything")
}

// explained reports whether err says by itself what it means.
func explained(err error) bool {
	// That of a connection is not the caller's: Dial may have its own deadline.
	ofConnection := errors.As(err, new(*connError)) || errors.As(err, new(*dialError))
	if !ofConnection && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return true
	}
	for _, known := range []error{
		keystore.ErrNotFound, keystore.ErrExists, keystore.ErrKeyLost, keystore.ErrCorrupt, keystore.ErrLockedOut,
		keystore.ErrAuth, keystore.ErrPolicy, keystore.ErrUnavailable, keystore.ErrClosed,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// understood reports whether err is an answer of the TPM or has another known
// cause.
func understood(err error) bool {
	return errors.As(err, new(tpm2.TPMRC)) || errors.As(err, new(*connError)) || errors.Is(err, errNeedPIN) || errors.Is(err, tbsCommandBlocked) || explained(err)
}

// repeatable reports whether an operation that failed with err may work when it
// is begun anew: on a new connection, with the key loaded again, or with the
// slots free that we had taken ourselves.
func repeatable(err error) bool {
	if errors.As(err, new(*connError)) || errors.Is(err, errMoved) {
		return true
	}
	var code tpm2.TPMFmt1Error
	if errors.Is(err, tpm2.TPMRCValue) && errors.As(err, &code) {
		// A handle that the TPM could not have given out, as after a reset.
		handle, _ := code.Handle()
		return handle
	}
	for _, code := range []tpm2.TPMRC{
		tpm2.TPMRCReferenceH0, tpm2.TPMRCReferenceH1, tpm2.TPMRCReferenceS0, tpm2.TPMRCReferenceS1, tpm2.TPMRCHandle,
		tpm2.TPMRCContextGap, tpm2.TPMRCSessionHandles, tpm2.TPMRCObjectMemory, tpm2.TPMRCSessionMemory, tpm2.TPMRCMemory,
	} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// withRecovery adds the recovery time to the error of a locked TPM.
func (c *call) withRecovery(err error) error {
	if !errors.Is(err, tpm2.TPMRCLockout) || errors.As(err, new(*LockoutError)) {
		return err
	}
	locked := &LockoutError{code: err}
	if seconds, err := c.property(tpm2.TPMPTLockoutInterval); err == nil {
		locked.Recovery = time.Duration(seconds) * time.Second
	}
	return locked
}
