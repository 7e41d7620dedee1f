// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

const (
	nonceSize = 16 // bytes; half a SHA-256 digest, as TPM 2.0 Part 1 recommends

	// maxPIN is the size of an authorization value: a SHA-256 digest.
	maxPIN = 32
)

// session is an authorization session. It is kept between signatures and serves all
// keys of its kind: what is secret in it is its salt, and a key's PIN is set for
// each command.
type session struct {
	tpm2.Session
	kind    sessionKind
	handle  tpm2.TPMHandle    // Session's, which forgets it when the TPM says that it has ended
	primary *keyfile.Template // the primary key that it is salted to
	once    bool              // it ends with the next command
	soon    bool              // it was opened soon after another was used
	setPIN  func([]byte)
	uses    int // but by TPM2_Create
	used    time.Time
}

// sessionKind says which sessions there are: HMAC sessions for keys with a PIN, and
// policy sessions for keys that are bound to PCRs. One that a PIN is used in is
// salted to the key's parent, so that neither the PIN nor what would let it be guessed
// is on the bus.
type sessionKind struct {
	policy   bool
	hash     tpm2.TPMIAlgHash
	saltedTo string // Name of the parent; "": not salted
}

// kindFor returns the kind of session that a command with k is authorized by.
func kindFor(k *keyfile.File, needsPIN bool) sessionKind {
	if !k.UsesPolicy {
		return hmacKind(k.Parent.Name)
	}
	kind := sessionKind{policy: true, hash: k.NameAlg}
	if needsPIN {
		kind.saltedTo = string(k.Parent.Name)
	}
	return kind
}

func hmacKind(parentName []byte) sessionKind {
	return sessionKind{hash: tpm2.TPMAlgSHA256, saltedTo: string(parentName)}
}

// serves reports whether a session of this kind will do where another is wanted.
func (kind sessionKind) serves(wanted sessionKind) bool {
	if wanted.saltedTo == "" {
		kind.saltedTo = ""
	}
	return kind == wanted
}

// noPassword is the authorization by an empty password. It has no state.
var noPassword = tpm2.PasswordAuth(nil)

// authorize returns the session for a command with k, in which k's policy is yet to
// be satisfied. It returns errNeedPIN if there is no PIN for a key that has one. When
// the command has failed, the caller calls rejected.
func (c *call) authorize(k *keyfile.File, needsPIN bool, pin []byte) (tpm2.Session, error) {
	if !needsPIN && !k.UsesPolicy {
		return noPassword, nil
	}
	if needsPIN {
		if pin = c.rememberPIN(k, pin); pin == nil {
			return nil, errNeedPIN
		}
	}
	return c.authorizeBy(k, kindFor(k, needsPIN), pin)
}

// authorizeBy returns a session of the kind, with the PIN for the next command.
func (c *call) authorizeBy(k *keyfile.File, kind sessionKind, pin []byte) (tpm2.Session, error) {
	if pin != nil && kind.saltedTo == "" {
		return nil, fmt.Errorf("%w: the Name of the key's parent is not known", keystore.ErrUnavailable)
	}
	s, err := c.openSession(k, kind)
	if err != nil {
		return nil, err
	}
	s.setPIN(pin)
	return s, nil
}

// rejected ends the session of a command that has failed, whose state is not known
// then, and forgets a PIN that is wrong.
func (c *call) rejected(k *keyfile.File, auth tpm2.Session, err error) {
	c.flushSession(auth)
	if errors.Is(err, tpm2.TPMRCAuthFail) || errors.Is(err, tpm2.TPMRCBadAuth) {
		c.forgetPIN(k)
	}
}

// openSession returns a session of the kind, which may be salted to k's parent.
func (c *call) openSession(k *keyfile.File, wanted sessionKind) (*session, error) {
	if wanted.saltedTo == "" || c.findSession(wanted) != nil {
		return c.openSessionUnder(nil, wanted)
	}
	p, err := c.loadParent(k.Parent)
	if err != nil {
		return nil, err
	}
	defer c.release(p)
	return c.openSessionUnder(p, wanted)
}

// prepareSession opens the session that signing with k will need while the parent is
// there, which need not be loaded again then. What goes wrong is for the signature to
// say.
func (c *call) prepareSession(p *object, k *keyfile.File) {
	if kind := kindFor(k, k.NeedsPIN()); c.canAskPIN && k.NeedsPIN() && kind.saltedTo != "" {
		_, err := c.openSessionUnder(p, kind)
		_ = c.checked(err)
	}
}

// openSessionUnder is openSession while the parent is loaded.
func (c *call) openSessionUnder(p *object, wanted sessionKind) (*session, error) {
	s := c.findSession(wanted)
	if s == nil {
		var err error
		if s, err = c.startSession(p, wanted); err != nil {
			return nil, fmt.Errorf("open a session: %w", err)
		}
	}
	s.used = time.Now()
	c.used = s.used
	return s, nil
}

// succeeded takes note that the command has worked for which auth was.
func (c *call) succeeded(auth tpm2.Session) {
	s, ok := auth.(*session)
	if !ok {
		return // a password
	}
	s.uses++
	if s.once {
		c.sessions = slices.DeleteFunc(c.sessions, func(kept *session) bool { return kept == s })
	}
}

func (c *call) findSession(wanted sessionKind) *session {
	for _, s := range c.sessions {
		if s.kind.serves(wanted) {
			return s
		}
	}
	return nil
}

// startSession starts a session. There is one HMAC session and one policy session at
// a time: sessions are few. Where uses are so rare that it would be idle for nothing,
// it ends with the command that it is for.
func (c *call) startSession(p *object, kind sessionKind) (*session, error) {
	if err := checkFIPS("the sessions that keys with a PIN, or bound to PCRs, are used by", 0); err != nil {
		return nil, err
	}
	for _, s := range slices.Clone(c.sessions) {
		if s.kind.policy == kind.policy {
			c.flushSession(s)
		}
	}
	setAuth, setPIN := laterAuth(tpm2.Auth)
	options := []tpm2.AuthOption{setAuth}
	if kind.saltedTo != "" {
		options = append(options, tpm2.Salted(p.Handle, p.public), tpm2.AESEncryption(128, tpm2.EncryptIn))
	}
	soon := time.Since(c.used) < idleTime
	c.rare = c.rare && !soon
	started, err := start(c, kind, c.rare, options)
	if err != nil {
		return nil, err
	}
	if err := c.adopt(started.Handle()); err != nil {
		return nil, err
	}
	s := &session{Session: started, kind: kind, handle: started.Handle(), once: c.rare, soon: soon, setPIN: setPIN}
	if kind.saltedTo != "" {
		s.primary = p.primary
	}
	c.sessions = append(c.sessions, s)
	c.watch()
	return s, nil
}

// start sends TPM2_StartAuthSession. In go-tpm's terms a session that ends with its
// command is one that is started just in time.
func start(c *call, kind sessionKind, once bool, options []tpm2.AuthOption) (s tpm2.Session, err error) {
	switch {
	case once && kind.policy:
		satisfied := func(transport.TPM, tpm2.TPMISHPolicy, tpm2.TPM2BNonce) error { return nil } // by us
		s = tpm2.Policy(kind.hash, nonceSize, satisfied, options...)
	case once:
		s = tpm2.HMAC(kind.hash, nonceSize, options...)
	case kind.policy:
		s, _, err = tpm2.PolicySession(c, kind.hash, nonceSize, options...)
	default:
		s, _, err = tpm2.HMACSession(c, kind.hash, nonceSize, options...)
	}
	if once {
		err = s.Init(c)
	}
	return s, err
}

// laterAuth returns an option for a session of go-tpm, and a function that sets the
// authorization value afterwards, for the next command: the option keeps hold of the
// session's options, which it is called with.
func laterAuth[Option ~func(*Options), Options any](auth func([]byte) Option) (Option, func([]byte)) {
	var options *Options
	return func(o *Options) { options = o }, func(value []byte) { auth(value)(options) }
}

// flushSession ends a session, if it is one of those that are kept.
func (c *call) flushSession(auth tpm2.Session) {
	s, ok := auth.(*session)
	if !ok {
		return // a password
	}
	if i := slices.Index(c.sessions, s); i >= 0 {
		c.sessions = slices.Delete(c.sessions, i, i+1)
		c.flush(s.handle)
	}
}

func (c *call) flushSessions() {
	for len(c.sessions) > 0 {
		c.flushSession(c.sessions[0])
	}
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
