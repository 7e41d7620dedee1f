// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// A TPM that is busy is asked again after firstWait, then after twice as long
// and so on up to longestWait, for patience in all commands of an operation.
const (
	firstWait   = 2 * time.Millisecond
	longestWait = time.Second
	patience    = 30 * time.Second

	// tidyingPatience is that with commands that take back what was done.
	tidyingPatience = time.Second
)

// Send sends one command and returns the TPM's answer. It repeats the command
// while the TPM is busy, and after TPM2_Startup or TPM2_SelfTest where that had not
// been done.
func (c *call) Send(command []byte) ([]byte, error) {
	started, tested := false, false
	for wait := firstWait; ; wait = min(2*wait, longestWait) {
		if err := c.ctx.Err(); err != nil {
			return nil, err
		}
		answer, code, err := c.exchange(command)
		switch {
		case err != nil:
			return nil, err
		case code == tpm2.TPMRCInitialize && !started:
			started = true
			if err := c.startup(); err != nil {
				return nil, err
			}
		case code == tpm2.TPMRCNeedsTest && !tested:
			tested = true
			if err := c.selfTest(); err != nil {
				return nil, err
			}
		case !slices.Contains(busyCodes, code) || c.waited >= patience:
			c.busy.Store(0)
			return answer, nil
		default:
			c.busy.Store(uint32(code))
			c.waited += wait
			if err := sleep(c.ctx, wait); err != nil {
				return nil, fmt.Errorf("the TPM is busy (%w): %w", code, err)
			}
		}
	}
}

// exchange sends a command once and checks the answer's header. After an error
// the connection is not used any more: what the next answer belongs to would be
// anybody's guess.
func (c *call) exchange(command []byte) ([]byte, tpm2.TPMRC, error) {
	if c.broken != nil {
		return nil, 0, c.broken
	}
	// A copy, since the command may be sent again and simulators decrypt
	// parameters in the caller's memory.
	answer, err := c.tpm.Send(slices.Clone(command))
	c.sent = time.Now()
	if errors.Is(err, tbsCommandBlocked) {
		return nil, 0, err // it has not come to the TPM, and the next one may
	}
	if err == nil && !fits(answer, command) {
		err = fmt.Errorf("%w: %d bytes, %.10x", errGarbled, len(answer), answer)
	}
	if err != nil {
		c.broken = &connError{err}
		return nil, 0, c.broken
	}
	return answer, responseCode(answer), nil
}

// responseCode reads the code in an answer's header.
func responseCode(answer []byte) tpm2.TPMRC { return tpm2.TPMRC(binary.BigEndian.Uint32(answer[6:])) }

// fits reports whether an answer's header is one. Its tag says whether sessions
// follow: as in the command, but never after an error.
func fits(answer, command []byte) bool {
	if len(answer) < headerSize || len(answer) > maxMessage || binary.BigEndian.Uint32(answer[2:]) != uint32(len(answer)) {
		return false
	}
	tag, failed := binary.BigEndian.Uint16(answer), responseCode(answer) != tpm2.TPMRCSuccess
	return tag == binary.BigEndian.Uint16(command) && !failed || tag == uint16(tpm2.TPMSTNoSessions) && failed
}

func (c *call) startup() error {
	kind := binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMSUClear))
	_, code, err := c.exchange(newCommand(tpm2.TPMSTNoSessions, tpm2.TPMCCStartup, kind))
	if err != nil {
		return err
	}
	// INITIALIZE says here that another program was faster.
	if code != tpm2.TPMRCSuccess && code != tpm2.TPMRCInitialize {
		return fmt.Errorf("TPM2_Startup: %w", code)
	}
	return nil
}

// selfTest has the TPM test what was not tested since it was started. It may do so
// while it answers TESTING to other commands. If a test fails, they say FAILURE.
func (c *call) selfTest() error {
	const full = 0 // no
	_, _, err := c.exchange(newCommand(tpm2.TPMSTNoSessions, tpm2.TPMCCSelfTest, []byte{full}))
	return err
}

// newCommand puts a header before the body of a command.
func newCommand(tag tpm2.TPMST, code tpm2.TPMCC, body []byte) []byte {
	size := headerSize + len(body)
	return append(appendHeader(make([]byte, 0, size), tag, size, code), body...)
}

func appendHeader(to []byte, tag tpm2.TPMST, size int, code tpm2.TPMCC) []byte {
	to = binary.BigEndian.AppendUint16(to, uint16(tag))
	to = binary.BigEndian.AppendUint32(to, uint32(size))
	return binary.BigEndian.AppendUint32(to, uint32(code))
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
