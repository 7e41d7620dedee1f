// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"testing"
	"time"

	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

// Fault is a line of the table of faults.
type Fault struct {
	About    string
	Causes   []error
	Sentinel error
	Advice   string
}

// TBSCode is what Windows' TPM Base Services return.
type TBSCode = tbsCode

// Faults returns the table.
func Faults() []Fault {
	var list []Fault
	for _, f := range faults {
		list = append(list, Fault{string(f.about), f.causes, f.sentinel, f.advice})
	}
	return list
}

// SetInUseAfter shortens the wait for a TPM behind a socket that does not answer.
func SetInUseAfter(t *testing.T, d time.Duration) {
	old := inUseAfter
	inUseAfter = d
	t.Cleanup(func() { inUseAfter = old })
}

// ForgetRefusals does what a new process would.
func ForgetRefusals() { refused = newRefusals() }

// ParseKeyFile parses a key file and encodes what it understood.
func ParseKeyFile(text []byte) (encoded []byte, err error) {
	k, err := keyfile.Parse(text)
	if err != nil {
		return nil, err
	}
	k = k.WithEmptyAuth(!k.EmptyAuth).WithEmptyAuth(k.EmptyAuth)
	return k.WithHandle(0).WithHandle(k.Handle).WithParent(k.Parent).Text, nil
}

const (
	Patience       = patience
	IdleTime       = idleTime
	RefreshTime    = refreshTime
	PolicyPatience = policyPatience
	CloseTimeout   = closeTimeout
	LongestCommand = longestCommand
)
