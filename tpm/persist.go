// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// Persist puts a key at a persistent handle, 0x81000000 to 0x817fffff, where it
// need not be loaded: behind a resource manager a signature is one command then
// and not four. The file still has the key. Persistent room is scarce (seven
// keys on some TPMs) and shared with the whole device; other objects, also of
// the operating system, are there. The handle must be free: nothing is ever
// evicted for it, and the error matches keystore.ErrExists.
//
// The error matches keystore.ErrExists too if the key is persistent at another
// handle already, or if something else than Persist has put it there; where
// Persist has put it, it does nothing. Keys that were opened before use the handle
// once they are opened again. After an error the key can be used as before, and
// Persist be called again with whatever handle.
func (s *Store) Persist(ctx context.Context, name string, handle uint32) error {
	if err := s.check(ctx, name); err != nil {
		return err
	}
	if handle < 0x81000000 || handle > 0x817fffff {
		return fmt.Errorf("tpm: 0x%08x is no handle for a key of the owner: use 0x81000000 to 0x817fffff", handle)
	}
	unlock, err := s.folder.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	k, err := s.folder.load(name)
	if err != nil {
		return err
	}
	doing := fmt.Sprintf("persist key %q at 0x%08x", name, handle)
	noted, err := run(ctx, s.device, func(c *call) (*keyfile.File, error) { return c.mayPersist(k, tpm2.TPMHandle(handle)) })
	if err != nil {
		return explain(doing, err)
	}
	// The file first: if we are killed in between, the file names a handle with
	// nothing there, which does no harm; the other way round nobody would know
	// whose object it is.
	if err := s.folder.update(name, k, noted); err != nil {
		return err
	}
	_, err = run(ctx, s.device, func(c *call) (struct{}, error) { return struct{}{}, c.persist(noted) })
	if errors.As(err, new(*refusedEvict)) {
		// After any other error it is not known whether something is there, and the
		// file keeps the handle.
		_ = s.folder.update(name, noted, k)
	}
	return explain(doing, err)
}

// Unpersist removes a key from the persistent handle where Persist has put it;
// the key can still be used from its file. What is at the handle is removed only
// if it is this key. A key that is not persistent is not an error.
func (s *Store) Unpersist(ctx context.Context, name string) error {
	if err := s.check(ctx, name); err != nil {
		return err
	}
	unlock, err := s.folder.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	k, err := s.folder.load(name)
	if err != nil || k.Handle == 0 {
		return err
	}
	if err := s.withdraw(ctx, k); err != nil {
		return explain(fmt.Sprintf("unpersist key %q", name), err)
	}
	return s.folder.update(name, k, k.WithHandle(0))
}

// isAt reports whether the key is at its persistent handle. An error that
// matches keystore.ErrExists says that something else is.
func (c *call) isAt(k *keyfile.File) (bool, error) {
	area, called, err := c.readPublic(k.Handle)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read what is at 0x%08x: %w", uint32(k.Handle), err)
	}
	if public, err := area.Contents(); err != nil {
		return false, fmt.Errorf("%w: no public area of 0x%08x", errGarbled, uint32(k.Handle))
	} else if name, err := tpm2.ObjectName(public); err != nil || !bytes.Equal(name.Buffer, called) {
		return false, fmt.Errorf("%w: the public area of 0x%08x is not that of its Name", errGarbled, uint32(k.Handle))
	}
	if !bytes.Equal(called, k.Name.Buffer) {
		return false, fmt.Errorf("%w: 0x%08x has something else: choose another handle", keystore.ErrExists, uint32(k.Handle))
	}
	return true, nil
}

// isCertainlyAt is isAt where a key would be left behind if the answer were wrong.
func (c *call) isCertainlyAt(k *keyfile.File) (bool, error) {
	there, err := c.isAt(k)
	if !there && err == nil {
		err = c.confirmAbsent(k.Handle)
	}
	return there, err
}

// confirmFree fails unless there is nothing at the persistent handles which a file names
// whose key cannot be read.
func (c *call) confirmFree(found remains) error {
	for _, handle := range found.handles {
		_, err := c.readObject(handle)
		if errors.Is(err, tpm2.TPMRCHandle) {
			err = c.confirmAbsent(handle)
		} else if err == nil {
			err = fmt.Errorf("%w: the key's file %s, so it cannot be told whether what is at the persistent handle in it is the key: restore the file, or remove what is there (tpm2_evictcontrol -C o -c 0x%08x), and delete the key then",
				keystore.ErrUnavailable, found.why, uint32(handle))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// confirmAbsent fails unless the TPM says in other ways, too, that there is nothing
// at a persistent handle: it says so of everything while its hierarchy is disabled,
// and one answer may have been changed on its way.
func (c *call) confirmAbsent(handle tpm2.TPMHandle) error {
	startup, err := c.property(tpm2.TPMPTStartupClear)
	if err != nil {
		return fmt.Errorf("see whether 0x%08x is free: %w", uint32(handle), err)
	}
	if startup&shEnable == 0 {
		return about(theOwner, fmt.Errorf("see whether 0x%08x is free: %w", uint32(handle), tpm2.TPMRCHierarchy))
	}
	handles, err := c.handles(handle)
	if err != nil {
		return fmt.Errorf("see whether 0x%08x is free: %w", uint32(handle), err)
	}
	switch there := slices.Contains(handles, handle); {
	case there && startup&ehEnable == 0: // it can be of that hierarchy, too
		return about(theEndorsement, fmt.Errorf("see whether 0x%08x is free: %w", uint32(handle), tpm2.TPMRCHierarchy))
	case there:
		return fmt.Errorf("%w: the TPM says that 0x%08x is free, and lists it", errGarbled, uint32(handle))
	}
	return nil
}

// mayPersist returns k with its new handle and its parent. It checks that the handle
// is free, or has the key already, and that the key is not at the one in its file:
// Persist may have failed after it noted that.
func (c *call) mayPersist(k *keyfile.File, handle tpm2.TPMHandle) (*keyfile.File, error) {
	if k.Handle != 0 && k.Handle != handle {
		if there, err := c.isCertainlyAt(k); there {
			return nil, fmt.Errorf("%w at 0x%08x: unpersist it first", keystore.ErrExists, uint32(k.Handle))
		} else if err != nil && !errors.Is(err, keystore.ErrExists) {
			return nil, err
		}
	}
	noted := k.WithHandle(handle)
	there, err := c.isCertainlyAt(noted)
	if err != nil {
		return nil, err
	}
	if there && k.Handle != handle {
		return nil, fmt.Errorf("%w: 0x%08x has this key already, and not by Persist: remove it there with tpm2_evictcontrol, or choose another handle", keystore.ErrExists, uint32(handle))
	}
	if k.Parent.Name != nil {
		return noted, nil
	}
	parent, err := c.load(k)
	if err != nil {
		return nil, err
	}
	return noted.WithParent(parent), nil
}

// usePersistent makes the persistent key the loaded one, if it is there.
// Otherwise the key in the file is used.
func (c *call) usePersistent(k *keyfile.File) (bool, error) {
	if k.Handle == 0 || k.Parent.Name == nil { // the parent is to be looked at once
		return false, nil
	}
	there, err := c.isAt(k)
	if there {
		c.key = &loadedKey{file: k, handle: k.Handle}
	}
	if errors.Is(err, keystore.ErrExists) {
		err = nil
	}
	return there, err
}

// whileThere returns err, which the use of a key has given, or errMoved if that was
// another key: what is at a persistent handle can be replaced at any time.
func (c *call) whileThere(k *keyfile.File, err error) error {
	if !c.key.persistent() {
		return err
	}
	if there, readErr := c.isAt(k); there || readErr != nil && !errors.Is(readErr, keystore.ErrExists) {
		return err
	}
	c.key = nil
	return fmt.Errorf("%w: %w", errMoved, err)
}

// refusedEvict is why the TPM has not made a key persistent.
type refusedEvict struct{ error }

func (e *refusedEvict) Unwrap() error { return e.error }

func (c *call) persist(k *keyfile.File) error {
	if there, err := c.isAt(k); there || err != nil {
		return err
	}
	if _, err := c.load(k.WithHandle(0)); err != nil {
		return err
	}
	err := c.evict(tpm2.NamedHandle{Handle: c.key.handle, Name: k.Name}, k.Handle)
	c.forget(k)
	if err != nil && !errors.As(err, new(tpm2.TPMRC)) && !errors.Is(err, tbsCommandBlocked) {
		return err
	}
	// What the TPM has said of it is not authorized by anything.
	switch there, atErr := c.isCertainlyAt(k); {
	case there:
		return nil
	case atErr != nil && (err == nil || !errors.Is(atErr, keystore.ErrExists)):
		return errors.Join(err, atErr)
	case err == nil:
		return fmt.Errorf("%w: TPM2_EvictControl has made nothing persistent", errGarbled)
	default:
		return &refusedEvict{err}
	}
}

func (c *call) unpersist(k *keyfile.File) error {
	c.forget(k)
	there, err := c.isCertainlyAt(k)
	if errors.Is(err, keystore.ErrExists) {
		return nil // not ours
	}
	if err != nil || !there {
		return err
	}
	err = c.evict(tpm2.NamedHandle{Handle: k.Handle, Name: k.Name}, k.Handle)
	if err != nil && !errors.As(err, new(tpm2.TPMRC)) {
		return err
	}
	switch there, atErr := c.isCertainlyAt(k); {
	case !there && (atErr == nil || errors.Is(atErr, keystore.ErrExists)):
		return nil
	case err != nil:
		return err
	case atErr != nil:
		return atErr
	default:
		return fmt.Errorf("%w: TPM2_EvictControl has removed nothing", errGarbled)
	}
}

// evict sends TPM2_EvictControl, which makes a loaded object persistent and
// removes a persistent one.
func (c *call) evict(object tpm2.NamedHandle, handle tpm2.TPMHandle) error {
	auth, done, err := c.hierarchyAuthorization(c.ownerAuth)
	if err != nil {
		return err
	}
	defer done()
	_, err = c.authorized(tpm2.TPMCCEvictControl, []tpm2.TPMHandle{tpm2.TPMRHOwner, object.Handle},
		[]tpm2.TPM2BName{nameOf(tpm2.TPMRHOwner), object.Name}, auth, appendHandle(nil, handle))
	if err != nil {
		return about(theOwner, fmt.Errorf("TPM2_EvictControl: %w", err))
	}
	return nil
}
