// SPDX-License-Identifier: Apache-2.0

package tpmtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"io/fs"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// ResourceManager behaves like /dev/tpmrm0, the resource manager in the Linux kernel (drivers/char/tpm/tpm2-space.c,
// tpm-dev-common.c, tpm-interface.c):
//
//   - Every open file has its own space of 3 transient objects, under virtual handles 0x80FFFFFF downwards, and 3
//     sessions, whose handles are the TPM's own.
//   - Before each command all of the file's space is loaded into the TPM (TPM2_ContextLoad), after it all is saved
//     (TPM2_ContextSave) and the objects are flushed. So a Sign with one loaded key costs 4 commands at the chip, one
//     with a persistent key 1, and an open session adds 2.
//   - A fourth object or session is ENOMEM on a TPM with room for more (see Roomy); one with three slots itself, as many
//     chips, swtpm and the simulator are, answers TPM_RC_OBJECT_MEMORY or TPM_RC_SESSION_MEMORY first.
//   - ENOMEM and every other failure of a command's preparation or follow-up flushes what is loaded, so that the file's
//     sessions are lost; its objects survive in their saved contexts.
//   - A virtual handle that the file does not have is EINVAL. After a TPM reset, a file that held an object gets EINVAL
//     for every command (EFAULT before Linux 6.10) and has to be closed; a lost session is forgotten without a word.
//   - A saved session that nobody uses blocks all session commands once the TPM's context gap is full: EFAULT.
//   - TPM2_GetCapability shows a file its own objects only, but everybody's sessions.
//   - A command the TPM does not have is answered by the resource manager, in its own error layer.
//   - TPM_RC_RETRY and TPM_RC_TESTING are tried again, 8 times in all (here without the pauses) before the caller sees them.
//   - Closing a file flushes its sessions.
//
// Where the kernel, after a session was flushed behind its back, also loses the file's later sessions, this does not.
//
// Safe for concurrent use; one command at a time reaches the chip.
type ResourceManager struct {
	// BeforeLinux610 makes what is lost in a TPM reset EFAULT instead of EINVAL. Set it before the first Dial.
	BeforeLinux610 bool

	// Roomy plays a TPM that has more slots than a file: where the real one is full because the file is, the file gets
	// what it would get there, ENOMEM. Set it before the first Dial.
	Roomy bool

	device Device

	mu         sync.Mutex // for a whole command with what belongs to it
	chip       transport.TPMCloser
	attributes map[tpm2.TPMCC]tpm2.TPMACC
}

// NewResourceManager starts a resource manager on d, and asks it for its commands' attributes (one TPM2_GetCapability).
// It has one connection to d, dials a new one when that breaks, and closes it at the end of the test.
func NewResourceManager(t testing.TB, d Device) *ResourceManager {
	t.Helper()
	rm := &ResourceManager{device: d}
	t.Cleanup(rm.hangUp)
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapCommands, PropertyCount: 1000}.Execute(chipTPM{rm})
	if err != nil {
		t.Fatalf("tpmtest: resource manager: asking for the TPM's commands: %v", err)
	}
	commands, err := rsp.CapabilityData.Data.Command()
	if err != nil || bool(rsp.MoreData) {
		t.Fatalf("tpmtest: resource manager: the TPM's commands (more data: %t): %v", rsp.MoreData, err)
	}
	rm.attributes = make(map[tpm2.TPMCC]tpm2.TPMACC)
	for _, a := range commands.CommandAttributes {
		code := tpm2.TPMCC(a.CommandIndex)
		if code == tpm2.TPMCCFlushContext || code == tpm2.TPMCCContextSave {
			a.CHandles = 1 // TPM2_FlushContext has it as a parameter
		}
		rm.attributes[code] = a
	}
	return rm
}

// chipTPM is the resource manager's own way to the chip.
type chipTPM struct{ rm *ResourceManager }

func (c chipTPM) Send(cmd []byte) ([]byte, error) {
	c.rm.mu.Lock()
	defer c.rm.mu.Unlock()
	return c.rm.transmit(cmd)
}

// Dial opens a file. It implements Device.
func (rm *ResourceManager) Dial(context.Context) (transport.TPMCloser, error) {
	return &file{rm: rm}, nil
}

// file is an open file of the resource manager. Like the kernel's, it takes one command at a time: a second one, before
// the first one's response was read, is EBUSY.
type file struct {
	rm   *ResourceManager
	busy sync.Mutex

	closed bool  // guarded by rm.mu
	space  space // guarded by rm.mu
}

func (f *file) Send(cmd []byte) ([]byte, error) {
	if !f.busy.TryLock() {
		return nil, writeError(syscall.EBUSY)
	}
	defer f.busy.Unlock()
	f.rm.mu.Lock()
	defer f.rm.mu.Unlock()
	if f.closed {
		return nil, writeError(fs.ErrClosed)
	}
	rsp, err := f.rm.execute(&f.space, bytes.Clone(cmd))
	if err != nil {
		return nil, writeError(err)
	}
	return rsp, nil
}

func (f *file) Close() error {
	f.rm.mu.Lock()
	defer f.rm.mu.Unlock()
	if f.closed {
		return &fs.PathError{Op: "close", Path: "/dev/tpmrm0", Err: fs.ErrClosed}
	}
	f.closed = true
	f.space.flush(f.rm)
	return nil
}

// writeError is how package os reports what write(2) returned.
func writeError(err error) error {
	return &fs.PathError{Op: "write", Path: "/dev/tpmrm0", Err: err}
}

// resmgrLayer marks an error code as the resource manager's own.
const resmgrLayer = 11 << 16

// execute runs one command of a file. The file's space changes only if all went well, as in the kernel.
func (rm *ResourceManager) execute(s *space, cmd []byte) ([]byte, error) {
	if len(cmd) < headerSize {
		return nil, syscall.EINVAL
	}
	code := commandCode(cmd)
	attributes, ok := rm.attributes[code]
	if !ok {
		return frame(uint32(tpm2.TPMRCCommandCode) | resmgrLayer), nil
	}
	handles := cmd[headerSize:]
	if len(handles) < 4*int(attributes.CHandles) {
		return nil, syscall.EINVAL
	}
	handles = handles[:4*attributes.CHandles]

	work := *s
	rsp, err := func() ([]byte, error) {
		if err := work.load(rm); err != nil {
			return nil, err
		}
		if err := work.toReal(handles); err != nil {
			return nil, err
		}
		rsp, err := rm.transmit(cmd)
		if err != nil {
			return nil, err
		}
		switch responseCode(rsp) {
		case tpm2.TPMRCObjectMemory, tpm2.TPMRCSessionMemory:
			if rm.Roomy && attributes.RHandle && work.full(code) {
				return nil, syscall.ENOMEM
			}
		case tpm2.TPMRCSuccess:
			if attributes.RHandle {
				err = work.add(rm, rsp)
			} else if code == tpm2.TPMCCGetCapability {
				rsp, err = work.filter(rsp)
			}
			if err != nil {
				return nil, err
			}
		}
		return rsp, work.save(rm)
	}()
	if err != nil {
		work.flush(rm)
		return nil, err
	}
	*s = work
	return rsp, nil
}

// transmitAttempts is how often the kernel sends a command while the TPM is busy: pauses of 20 ms, doubled up to 2 s.
const transmitAttempts = 8

// transmit sends one command to the chip.
func (rm *ResourceManager) transmit(cmd []byte) ([]byte, error) {
	if rm.chip == nil {
		chip, err := rm.device.Dial(context.Background())
		if err != nil {
			return nil, err
		}
		rm.chip = chip
	}
	for attempt := 1; ; attempt++ {
		rsp, err := rm.chip.Send(bytes.Clone(cmd))
		if err != nil {
			rm.chip.Close()
			rm.chip = nil
			return nil, err
		}
		if len(rsp) < headerSize || len(rsp) != int(binary.BigEndian.Uint32(rsp[2:])) {
			return nil, syscall.EFAULT
		}
		busy := []tpm2.TPMRC{tpm2.TPMRCRetry, tpm2.TPMRCTesting}
		if attempt == transmitAttempts || !slices.Contains(busy, responseCode(rsp)) {
			return rsp, nil
		}
	}
}

func (rm *ResourceManager) hangUp() {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	if rm.chip != nil {
		rm.chip.Close()
		rm.chip = nil
	}
}
