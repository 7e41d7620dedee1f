package tpm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

const (
	nonceSize = 16 // bytes; half a SHA-256 digest, as TPM 2.0 Part 1 recommends

	// idleTime is how long an unused session stays open. An open one makes
	// signing one command, but sessions are few, and one that lies idle makes
	// other programs' fail in the end (TPM_RC_CONTEXT_GAP).
	idleTime = 5 * time.Second

	// maxPIN is the size of an authorization value: a SHA-256 digest.
	maxPIN = 32
)

// session is an authorization session for one key: an HMAC session for one with
// a PIN, a policy session for one that is bound to PCRs. With a PIN it is salted
// to the parent, so that neither the PIN nor what would let it be guessed is on
// the bus. It is kept between signatures.
type session struct {
	tpm2.Session
	handle  tpm2.TPMHandle
	keyName []byte
	pin     []byte // each command's HMAC and encryption need it
	used    time.Time
	idle    *time.Timer
}

// end forgets the PIN. The session in the TPM is another matter.
func (s *session) end() {
	s.idle.Stop()
	clear(s.pin)
}

// hasSession reports whether a session is open for k, so that k's PIN is not
// needed.
func (c *call) hasSession(k *keyfile.File) bool {
	return c.session != nil && bytes.Equal(c.session.keyName, k.Name.Buffer)
}

// authorize returns the session for a command with k. It returns errNeedPIN if a
// session has to be opened for a key with a PIN and there is none. The caller
// flushes the session when the command has failed, since its state is unknown
// then.
func (c *call) authorize(k *keyfile.File, needsPIN bool, pin []byte) (tpm2.Session, error) {
	if !c.hasSession(k) {
		if needsPIN && pin == nil {
			return nil, errNeedPIN
		}
		if !needsPIN && !k.UsesPolicy {
			return tpm2.PasswordAuth(nil), nil
		}
		if err := c.openSession(k, pin); err != nil {
			return nil, err
		}
	}
	s := c.session
	s.used = time.Now()
	if err := c.satisfy(k.Policy, s.handle); err != nil {
		c.flushSession()
		return nil, err
	}
	return s, nil
}

func (c *call) openSession(k *keyfile.File, pin []byte) error {
	c.flushSession()
	open := tpm2.HMACSession
	if k.UsesPolicy {
		open = tpm2.PolicySession
	}
	pin = bytes.Clone(pin) // the caller clears its own
	auth, err := c.startSession(open, k, pin)
	if err != nil {
		clear(pin)
		return err
	}
	c.session = &session{Session: auth, handle: auth.Handle(), keyName: k.Name.Buffer, pin: pin, used: time.Now()}
	c.session.watch(c.device)
	return nil
}

// sessionKind is tpm2.HMACSession or tpm2.PolicySession.
type sessionKind func(transport.TPM, tpm2.TPMIAlgHash, int, ...tpm2.AuthOption) (tpm2.Session, func() error, error)

// startSession starts a session that is authorized by pin, unless that is nil,
// and goes on using the slice.
func (c *call) startSession(start sessionKind, k *keyfile.File, pin []byte) (tpm2.Session, error) {
	var options []tpm2.AuthOption
	if pin != nil {
		p, err := c.loadParent(k.Parent, k.ParentName)
		if err != nil {
			return nil, err
		}
		defer c.release(p)
		options = []tpm2.AuthOption{
			tpm2.Auth(pin),
			tpm2.Salted(p.Handle, p.public),
			tpm2.AESEncryption(128, tpm2.EncryptIn),
		}
	}
	auth, _, err := start(c, k.NameAlg, nonceSize, options...)
	if err == nil {
		err = c.adopt(auth.Handle())
	}
	if err != nil {
		return nil, fmt.Errorf("open a session: %w", err)
	}
	return auth, nil
}

// watch flushes the session when it has been idle for idleTime. The timer is not
// put off by each use, which would cost every signature: it looks when the last
// one was, and waits for what is left.
func (s *session) watch(d *device) {
	s.idle = time.AfterFunc(idleTime, func() {
		if d.acquire(context.Background()) != nil {
			return // closed, and flushed thereby
		}
		defer func() { <-d.slot }()
		if d.session != s {
			return
		}
		if left := idleTime - time.Since(s.used); left > 0 {
			s.idle.Reset(left)
			return
		}
		newTidyingCall(d).flushSession()
	})
}

func (c *call) flushSession() {
	if c.session == nil {
		return
	}
	c.session.end()
	c.flush(c.session.handle)
	c.session = nil
}

// checkPIN refuses what cannot be an authorization value. The TPM takes zero
// bytes at the end as not there, and go-tpm all that follows a zero byte.
func checkPIN(pin []byte) error {
	switch {
	case len(pin) == 0:
		return errors.New("the PIN is empty")
	case len(pin) > maxPIN:
		return fmt.Errorf("the PIN has %d bytes: use 1 to %d", len(pin), maxPIN)
	case bytes.IndexByte(pin, 0) >= 0:
		return errors.New("the PIN has a zero byte")
	}
	return nil
}
