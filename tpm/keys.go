package tpm

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
)

// KeyOptions says what key CreateKey makes.
type KeyOptions struct {
	// Algorithm is the JWS algorithm: "ES256", or "ES384" where the TPM has
	// P-384. "" is "ES256".
	Algorithm string

	// PIN makes a key that signs only with the PIN that Config.PIN gives. Wrong
	// PINs count toward the TPM's lockout. Without, whoever may use the TPM and
	// has the key file can sign, and a lockout does not touch the key.
	PIN bool

	// PCRs binds the key to the values that these PCRs (0 to 23, SHA-256 bank)
	// have now: when the device boots something else, the key does not sign.
	// Empty: bound to nothing.
	PCRs []int
}

// Create makes an ES256 key: with a PIN if Config.PIN is set, without one
// otherwise. See [keystore.Store].
func (s *Store) Create(ctx context.Context, name string) (keystore.Key, error) {
	return s.CreateKey(ctx, name, KeyOptions{PIN: s.config.PIN != nil})
}

// CreateKey makes a key of the kind that o describes, with the errors of Create.
// The key is made in the TPM under its storage root key and is never anywhere
// in the clear. It is fixedTPM and fixedParent, signs what it is given (is not
// restricted), and its private part, encrypted by the TPM, is in the key file.
// Nothing is sent if the name is taken or the options are not valid.
func (s *Store) CreateKey(ctx context.Context, name string, o KeyOptions) (keystore.Key, error) {
	doing := fmt.Sprintf("create key %q", name)
	if err := s.check(ctx, name); err != nil {
		return nil, err
	}
	template, err := newTemplate(o)
	if err != nil {
		return nil, err
	}
	if err := s.folder.Vacant(name); err != nil {
		return nil, err
	}
	var pin []byte
	if o.PIN {
		if pin, err = s.askPIN(ctx, name); err != nil {
			return nil, explain(doing, err)
		}
		defer clear(pin)
	}
	k, err := run(ctx, s.device, func(c *call) (*keyFile, error) { return c.create(template, o.PCRs, pin) })
	if err != nil {
		return nil, explain(doing, err)
	}
	if err := s.folder.Create(name, k.text); err != nil {
		// Nobody can reach the key any more. It is only in a slot of the TPM,
		// and leaves it at the latest for the next key.
		s.forget(context.WithoutCancel(ctx), k)
		return nil, err
	}
	return newKey(s, name, k), nil
}

// Open finds a key and loads it into the TPM. See [keystore.Store].
//
// It takes any TSS2 PEM key file with an ECDSA key on P-256 or P-384, as
// OpenSSL's tpm2 provider, ssh-tpm-agent and tpm2-tools write them, whose parent
// is the owner hierarchy or a persistent key. Such a file does not say which
// storage root key it belongs to; Open adds that when it has loaded the key for
// the first time.
func (s *Store) Open(ctx context.Context, name string) (keystore.Key, error) {
	doing := fmt.Sprintf("open key %q", name)
	if err := s.check(ctx, name); err != nil {
		return nil, err
	}
	k, err := s.folder.load(name)
	if err != nil {
		return nil, err
	}
	loaded, err := run(ctx, s.device, func(c *call) (*keyFile, error) {
		parentName, err := c.load(k)
		if err != nil || k.parentName != nil || parentName == nil {
			return k, err
		}
		c.key.file = k.with(parentName, k.handle)
		return c.key.file, nil
	})
	if err != nil {
		return nil, explain(doing, err)
	}
	if loaded != k {
		// In a folder that cannot be written the key can be used all the same.
		_ = s.folder.Replace(name, loaded.text)
	}
	return newKey(s, name, loaded), nil
}

// Delete removes a key's file, takes the key out of the TPM, and removes it from
// the persistent handle where Persist has put it. See [keystore.Store]. A
// [keystore.Key] that was opened before can still sign until the Store is
// closed.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := s.check(ctx, name); err != nil {
		return err
	}
	// Whatever cannot be read as a key file has nothing in the TPM that could be
	// found, and must be removable too.
	if k, err := s.folder.load(name); err == nil {
		if err := s.withdraw(ctx, k); err != nil {
			return explain(fmt.Sprintf("delete key %q", name), err)
		}
	}
	return s.folder.Delete(name)
}

// List returns the names of all keys. See [keystore.Store].
func (s *Store) List(ctx context.Context) ([]string, error) {
	if err := s.device.ready(ctx); err != nil {
		return nil, fmt.Errorf("tpm: %w", err)
	}
	return s.folder.List()
}

func (s *Store) check(ctx context.Context, name string) error {
	if err := keystore.CheckName(name); err != nil {
		return err
	}
	if err := s.device.ready(ctx); err != nil {
		return fmt.Errorf("tpm: %w", err)
	}
	return nil
}

// withdraw removes a key from the TPM.
func (s *Store) withdraw(ctx context.Context, k *keyFile) error {
	if k.handle == 0 {
		s.forget(ctx, k)
		return nil
	}
	_, err := run(ctx, s.device, func(c *call) (struct{}, error) { return struct{}{}, c.unpersist(k) })
	return err
}

// forget flushes a key, as far as it is loaded. Where that fails, the next
// operation or Close does it.
func (s *Store) forget(ctx context.Context, k *keyFile) {
	_, _ = run(ctx, s.device, func(c *call) (struct{}, error) {
		c.forget(k)
		return struct{}{}, nil
	})
}

// newTemplate returns the public area of a key to be made, without its policy.
func newTemplate(o KeyOptions) (tpm2.TPMTPublic, error) {
	if err := checkPCRs(o.PCRs); err != nil {
		return tpm2.TPMTPublic{}, err
	}
	if o.Algorithm == "" {
		o.Algorithm = "ES256"
	}
	for _, a := range algorithms {
		if a.jws == o.Algorithm {
			return a.template(o), nil
		}
	}
	return tpm2.TPMTPublic{}, fmt.Errorf("tpm: no key for algorithm %.40q: use ES256 or ES384", o.Algorithm)
}

func (a algorithm) template(o KeyOptions) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM:            true,
			FixedParent:         true,
			SensitiveDataOrigin: true,
			SignEncrypt:         true,
			// Bound to PCRs, the policy must be the only way.
			UserWithAuth: len(o.PCRs) == 0,
			// Without a PIN there is nothing to guess, and a lockout that
			// another program has caused must not stop the key.
			NoDA: !o.PIN,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			CurveID: a.curve,
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: a.hashAlg}),
			},
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
	}
}

// create makes a key and loads it.
func (c *call) create(template tpm2.TPMTPublic, pcrs []int, pin []byte) (*keyFile, error) {
	var steps []policyStep
	if len(pcrs) > 0 {
		bound, err := c.bindPCRs(pcrs)
		if err != nil {
			return nil, err
		}
		if steps = append(steps, bound); pin != nil {
			steps = append(steps, tpm2.PolicyAuthValue{})
		}
		if template.AuthPolicy.Buffer, err = policyDigest(steps, template.NameAlg); err != nil {
			return nil, err
		}
	}
	c.makeRoom()
	p, err := c.loadParent(tpm2.TPMRHOwner, nil)
	if err != nil {
		return nil, err
	}
	defer c.release(p)
	rsp, err := c.createUnder(p, template, pin)
	if err != nil {
		return nil, fmt.Errorf("TPM2_Create: %w", err)
	}
	if !follows(rsp.OutPublic, template) {
		return nil, fmt.Errorf("%w: TPM2_Create made another key than it was asked for", errGarbled)
	}
	k, err := newKeyFile(p, tpm2.TPMRHOwner, rsp.OutPublic, rsp.OutPrivate, pin == nil, marshalPolicy(steps))
	if err != nil {
		return nil, err
	}
	return k, c.loadUnder(p, k)
}

// follows reports whether a key is what the template says in all but its point.
func follows(public tpm2.TPM2BPublic, template tpm2.TPMTPublic) bool {
	made, err := public.Contents()
	if err != nil || made.Type != template.Type {
		return false
	}
	kind := *made
	kind.Unique = template.Unique
	return bytes.Equal(tpm2.Marshal(kind), tpm2.Marshal(template))
}

// createUnder sends TPM2_Create, with the PIN, where there is one, encrypted to
// the parent.
func (c *call) createUnder(p *parent, template tpm2.TPMTPublic, pin []byte) (*tpm2.CreateResponse, error) {
	command := tpm2.Create{ParentHandle: p.AuthHandle, InPublic: tpm2.New2B(template)}
	if pin == nil {
		return command.Execute(c)
	}
	session, _, err := tpm2.HMACSession(c, tpm2.TPMAlgSHA256, nonceSize, tpm2.Salted(p.Handle, p.public), tpm2.AESEncryption(128, tpm2.EncryptIn))
	if err != nil {
		return nil, err
	}
	handle := session.Handle()
	if err := c.adopt(handle); err != nil {
		return nil, err
	}
	defer c.flush(handle)
	command.ParentHandle = tpm2.AuthHandle{Handle: p.Handle, Name: p.Name, Auth: session}
	command.InSensitive = tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: pin}}}
	return command.Execute(c)
}

// load makes a key ready for use, if it is not. It returns the Name of the
// parent that it was loaded under, or nil where that was not needed.
func (c *call) load(k *keyFile) (parentName []byte, err error) {
	if c.key.isFor(k) {
		return nil, nil
	}
	c.makeRoom()
	for _, shortcut := range []func(*keyFile) (bool, error){c.usePersistent, c.loadSaved} {
		if done, err := shortcut(k); done || err != nil {
			return nil, err
		}
	}
	p, err := c.loadParent(k.parent, k.parentName)
	if err != nil {
		return nil, err
	}
	defer c.release(p)
	return p.Name.Buffer, c.loadUnder(p, k)
}

// loadUnder sends TPM2_Load.
func (c *call) loadUnder(p *parent, k *keyFile) error {
	rsp, err := tpm2.Load{ParentHandle: p.AuthHandle, InPrivate: k.private, InPublic: k.public}.Execute(c)
	if err != nil {
		return damaged("TPM2_Load", err)
	}
	if err := c.adopt(rsp.ObjectHandle); err != nil {
		return err
	}
	c.key = &loadedKey{file: k, handle: rsp.ObjectHandle}
	return nil
}

// damaged tells a key that the TPM does not understand from one that it does
// not know.
func damaged(command string, err error) error {
	var code tpm2.TPMFmt1Error
	if errors.As(err, &code) && !errors.Is(err, tpm2.TPMRCIntegrity) {
		if ok, _ := code.Parameter(); ok {
			return fmt.Errorf("%w: %s: %w: the key file is damaged, or the TPM does not have the key's algorithm", keystore.ErrCorrupt, command, err)
		}
	}
	return fmt.Errorf("%s: %w", command, err)
}

// loadSaved loads a key that had to make room for another one.
func (c *call) loadSaved(k *keyFile) (bool, error) {
	saved, ok := c.saved[string(k.text)]
	if !ok {
		return false, nil
	}
	rsp, err := tpm2.ContextLoad{Context: saved.context}.Execute(c)
	if errors.As(err, new(tpm2.TPMRC)) { // as after a reset of the TPM
		delete(c.saved, string(k.text))
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := c.adopt(rsp.LoadedHandle); err != nil {
		return false, err
	}
	c.key = &loadedKey{file: k, handle: rsp.LoadedHandle}
	return true, nil
}
