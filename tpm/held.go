// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// maxFlushes is how often a flush is tried before the object is left where it is.
const maxFlushes = 3

// firstVirtual: Linux's resource manager numbers transient objects from
// 0x80FFFFFF downward, a TPM from 0x80000000 upward.
const firstVirtual = 0x80FF0000

// held is what a device has in the TPM. One key is loaded at a time: a TPM
// without a resource manager has three slots for objects, and a resource manager
// swaps every loaded object in and out around every command.
type held struct {
	key      *loadedKey
	parents  map[keyfile.Template]savedParent // what is not in it is made when it is needed
	sessions []*session                       // an HMAC session and a policy session, at the most
	pins     map[string]*knownPIN             // by the Name of the key
	bare     map[string]bool                  // keys that the TPM has found to have no PIN, by Name
	watching bool                             // endIdle will be called
	sent     time.Time                        // when the last command was
	used     time.Time                        // when a session last was
	rare     bool                             // the last session served one command and then was idle
	// saved holds contexts of keys that had to make room for another one, by the
	// text of their file. Loading one is much faster than making the parent again.
	saved map[string]savedKey
	// leftovers are handles that could not be flushed, with the number of
	// times it was tried.
	leftovers map[tpm2.TPMHandle]int
	lost      int // how many were given up
	// managed: a resource manager is between, and closing the connection
	// flushes what was loaded through it.
	managed bool
}

// loadedKey is a key that can be used by its handle.
type loadedKey struct {
	file     *keyfile.File
	handle   tpm2.TPMHandle
	verified time.Time // when a signature of it was last checked; zero: not since it was loaded
}

type savedKey struct {
	file    *keyfile.File
	context []byte // TPMS_CONTEXT
}

// isFor reports whether the key was loaded from such a file. The Name alone would
// let a damaged file pass as long as its key is loaded.
func (k *loadedKey) isFor(file *keyfile.File) bool {
	return k != nil && (k.file == file || bytes.Equal(k.file.Text, file.Text))
}

func (k *loadedKey) persistent() bool { return tpm2.TPMHT(k.handle>>24) == tpm2.TPMHTPersistent }

// adopt notes a handle that the TPM has just given out. It refuses what is no
// handle of a transient object or a session: go-tpm takes a missing one for 0.
func (h *held) adopt(handle tpm2.TPMHandle) error {
	switch tpm2.TPMHT(handle >> 24) {
	case tpm2.TPMHTTransient:
		h.managed = h.managed || handle >= firstVirtual
	case tpm2.TPMHTHMACSession, tpm2.TPMHTPolicySession:
	default:
		return fmt.Errorf("%w: the handle 0x%08x", errGarbled, uint32(handle))
	}
	delete(h.leftovers, handle)
	return nil
}

// flush removes a transient object or a session from the TPM, now or, when that
// fails, before the next operation.
func (c *call) flush(handle tpm2.TPMHandle) {
	_, err := tpm2.FlushContext{FlushHandle: handle}.Execute(newTidyingCall(c.device))
	if err == nil || errors.Is(err, tpm2.TPMRCHandle) {
		delete(c.leftovers, handle)
		return
	}
	c.leave(handle)
}

func (c *call) leave(handle tpm2.TPMHandle) {
	if c.leftovers == nil {
		c.leftovers = make(map[tpm2.TPMHandle]int)
	}
	c.leftovers[handle]++
	if c.leftovers[handle] == maxFlushes {
		delete(c.leftovers, handle)
		c.lost++
	}
}

func (c *call) flushLeftovers() {
	for handle := range c.leftovers {
		c.flush(handle)
	}
}

// flushHeld takes all that is held out of the TPM. The PINs stay known.
func (c *call) flushHeld() {
	c.flushSessions()
	c.flushKey()
}

func (c *call) flushKey() {
	if c.key != nil && !c.key.persistent() {
		c.flush(c.key.handle)
	}
	c.key = nil
}

// abandonHeld forgets what is in the TPM since the connection is gone. A resource
// manager has flushed it. Otherwise the TPM still has it.
func (c *call) abandonHeld() {
	for _, s := range c.sessions {
		c.leave(s.handle)
	}
	if c.key != nil && !c.key.persistent() {
		c.leave(c.key.handle)
	}
	c.sessions, c.key = nil, nil
	if c.managed {
		clear(c.leftovers)
	}
}

// makeRoom removes the loaded key, in a way that loading it again is cheap.
func (c *call) makeRoom() {
	if c.key != nil && !c.key.persistent() && !c.isSaved(c.key.file) {
		context, err := c.saveContext(c.key.handle)
		if err == nil && context != nil { // otherwise the key is loaded from its file again
			if c.saved == nil {
				c.saved = make(map[string]savedKey)
			}
			c.saved[string(c.key.file.Text)] = savedKey{c.key.file, context}
		}
	}
	c.flushKey()
}

// clearOut takes everything out of the TPM, in a way that loading it again is cheap.
func (c *call) clearOut() {
	c.makeRoom()
	c.flushHeld()
}

func (h *held) isSaved(file *keyfile.File) bool {
	_, ok := h.saved[string(file.Text)]
	return ok
}

// forget removes what is held of one key, because it is deleted or moves.
func (c *call) forget(file *keyfile.File) {
	c.forgetPIN(file)
	maps.DeleteFunc(c.saved, func(_ string, s savedKey) bool { return s.file.IsKey(file) })
	if c.key != nil && c.key.file.IsKey(file) {
		c.flushHeld()
	}
}

// flushAll flushes every transient object and session in the TPM, whoever made
// them.
func (c *call) flushAll() error {
	const savedSession = tpm2.TPMHTPolicySession // has the same value, and here the meaning TPM_HT_SAVED_SESSION
	for _, first := range []tpm2.TPMHT{tpm2.TPMHTTransient, tpm2.TPMHTHMACSession, savedSession} {
		handles, err := c.handles(tpm2.TPMHandle(first) << 24)
		if err != nil {
			return err
		}
		for _, handle := range handles {
			c.flush(handle)
		}
	}
	return nil
}
