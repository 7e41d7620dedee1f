// SPDX-License-Identifier: Apache-2.0

package tpmtest

import (
	"encoding/binary"
	"slices"
	"syscall"

	"github.com/google/go-tpm/tpm2"
)

const (
	slots       = 3
	topVirtual  = 0x80FFFFFF
	typeMask    = 0xFF000000
	transient   = uint32(tpm2.TPMHTTransient) << 24
	capHandles  = uint32(tpm2.TPMCapHandles)
	capDataSize = 9 // of TPM2_GetCapability(HANDLES) before the handles: moreData, capability, count
)

// space is what an open file of the resource manager has in the TPM. While a command runs, its objects are loaded and
// have a handle; between commands they have a context. It is copied by assignment; the contexts are never written to.
type space struct {
	objects  [slots]slot
	sessions [slots]slot
}

// slot is free when both fields are zero. A session keeps its handle while it is saved.
type slot struct {
	handle  uint32
	context []byte
}

func (s slot) free() bool { return s.handle == 0 && s.context == nil }

// load brings the space into the TPM.
func (s *space) load(rm *ResourceManager) error {
	for i := range s.objects {
		o := &s.objects[i]
		if o.free() {
			continue
		}
		handle, err := rm.contextLoad(o.context)
		if err != nil {
			return err
		}
		*o = slot{handle: handle}
	}
	for i := range s.sessions {
		session := &s.sessions[i]
		if session.free() {
			continue
		}
		handle, err := rm.contextLoad(session.context)
		switch {
		case err == syscall.ENOENT: // flushed by somebody else
			*session = slot{}
		case err != nil:
			return err
		case handle != session.handle:
			return syscall.EFAULT
		default:
			session.context = nil
		}
	}
	return nil
}

// save takes the space out of the TPM, and notices what the command flushed.
func (s *space) save(rm *ResourceManager) error {
	for i := range s.objects {
		o := &s.objects[i]
		if o.free() {
			continue
		}
		context, err := rm.contextSave(o.handle)
		switch {
		case err == syscall.ENOENT:
			*o = slot{}
		case err != nil:
			return err
		default:
			rm.flushContext(o.handle)
			*o = slot{context: context}
		}
	}
	for i := range s.sessions {
		session := &s.sessions[i]
		if session.free() {
			continue
		}
		context, err := rm.contextSave(session.handle)
		switch {
		case err == syscall.ENOENT:
			*session = slot{}
		case err != nil:
			return err
		default:
			session.context = context
		}
	}
	return nil
}

// flush removes from the TPM all objects that are loaded now, and all sessions.
func (s *space) flush(rm *ResourceManager) {
	for _, o := range s.objects {
		if o.handle != 0 {
			rm.flushContext(o.handle)
		}
	}
	for _, session := range s.sessions {
		if session.handle != 0 {
			rm.flushContext(session.handle)
		}
	}
}

// toReal replaces the virtual handles in a command's handle area.
func (s *space) toReal(handles []byte) error {
	for ; len(handles) > 0; handles = handles[4:] {
		virtual := binary.BigEndian.Uint32(handles)
		if virtual&typeMask != transient {
			continue
		}
		i := topVirtual - virtual
		if i >= slots || s.objects[i].free() {
			return syscall.EINVAL
		}
		binary.BigEndian.PutUint32(handles, s.objects[i].handle)
	}
	return nil
}

// add puts what a command created into a free slot, and its virtual handle into the response.
func (s *space) add(rm *ResourceManager, rsp []byte) error {
	if len(rsp) < headerSize+4 {
		return syscall.EFAULT
	}
	field := rsp[headerSize : headerSize+4]
	handle := binary.BigEndian.Uint32(field)

	table := &s.sessions
	switch tpm2.TPMHT(handle >> 24) {
	case tpm2.TPMHTTransient:
		table = &s.objects
	case tpm2.TPMHTHMACSession, tpm2.TPMHTPolicySession:
	default:
		return nil
	}
	for i := range table {
		if !table[i].free() {
			continue
		}
		table[i].handle = handle
		if table == &s.objects {
			binary.BigEndian.PutUint32(field, topVirtual-uint32(i))
		}
		return nil
	}
	rm.flushContext(handle)
	return syscall.ENOMEM
}

// full reports whether there is no slot for what the command makes.
func (s *space) full(code tpm2.TPMCC) bool {
	table := s.objects
	if code == tpm2.TPMCCStartAuthSession {
		table = s.sessions
	}
	return !slices.ContainsFunc(table[:], slot.free)
}

// filter puts virtual handles into the answer of TPM2_GetCapability(HANDLES), and leaves out objects that are not the
// file's.
func (s *space) filter(rsp []byte) ([]byte, error) {
	const start = headerSize + capDataSize
	if len(rsp) < start {
		return nil, syscall.EFAULT
	}
	if binary.BigEndian.Uint32(rsp[headerSize+1:]) != capHandles {
		return rsp, nil
	}
	count := binary.BigEndian.Uint32(rsp[headerSize+5:])
	if uint64(len(rsp)) != start+4*uint64(count) {
		return nil, syscall.EFAULT
	}
	out := rsp[:start:start]
	for rest := rsp[start:]; len(rest) > 0; rest = rest[4:] {
		handle := binary.BigEndian.Uint32(rest)
		if handle&typeMask == transient {
			if handle = s.virtual(handle); handle == 0 {
				continue
			}
		}
		out = binary.BigEndian.AppendUint32(out, handle)
	}
	binary.BigEndian.PutUint32(out[2:], uint32(len(out)))
	binary.BigEndian.PutUint32(out[headerSize+5:], uint32(len(out)-start)/4)
	return out, nil
}

func (s *space) virtual(handle uint32) uint32 {
	for i, o := range s.objects {
		if o.handle == handle {
			return topVirtual - uint32(i)
		}
	}
	return 0
}

// contextLoad returns ENOENT for a session that the TPM does not know any more.
func (rm *ResourceManager) contextLoad(context []byte) (handle uint32, err error) {
	rsp, err := rm.transmit(frame(uint32(tpm2.TPMCCContextLoad), context...))
	if err != nil {
		return 0, syscall.EFAULT
	}
	switch baseRC(rsp) {
	case tpm2.TPMRCSuccess:
		if len(rsp) < headerSize+4 {
			return 0, syscall.EFAULT
		}
		return binary.BigEndian.Uint32(rsp[headerSize:]), nil
	case tpm2.TPMRCHandle, tpm2.TPMRCReferenceH0:
		return 0, syscall.ENOENT
	case tpm2.TPMRCIntegrity:
		if !rm.BeforeLinux610 {
			return 0, syscall.EINVAL
		}
	}
	return 0, syscall.EFAULT
}

// contextSave returns ENOENT for an object or session that is gone.
func (rm *ResourceManager) contextSave(handle uint32) (context []byte, err error) {
	rsp, err := rm.transmit(frame(uint32(tpm2.TPMCCContextSave), binary.BigEndian.AppendUint32(nil, handle)...))
	if err != nil {
		return nil, syscall.EFAULT
	}
	switch baseRC(rsp) {
	case tpm2.TPMRCSuccess:
		return rsp[headerSize:], nil
	case tpm2.TPMRCReferenceH0:
		return nil, syscall.ENOENT
	}
	return nil, syscall.EFAULT
}

// flushContext ignores the answer, as the kernel does: there is nothing left to do about it.
func (rm *ResourceManager) flushContext(handle uint32) {
	rm.transmit(frame(uint32(tpm2.TPMCCFlushContext), binary.BigEndian.AppendUint32(nil, handle)...))
}

// baseRC is a response code without the number of the handle, session or parameter that it is about. TPM 2.0 Part 2,
// 6.6.3.
func baseRC(rsp []byte) tpm2.TPMRC {
	rc := responseCode(rsp)
	if rc&0x80 != 0 {
		rc &= 0xBF
	}
	return rc
}
