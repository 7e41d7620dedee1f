// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpmutil/tbs"
)

// openDevice opens a context of the TPM Base Services. It does so without
// go-tpm's windowstpm package, whose Send retries busy codes on its own, where
// no context can end it.
func openDevice(_ context.Context, path string) (transport.TPMCloser, error) {
	if path != "" {
		return nil, errors.New("Windows has no TPM device files: leave Config.Device empty, or use tcp:HOST:PORT")
	}
	info, err := tbs.GetDeviceInfo()
	if err != nil {
		return nil, err
	}
	if info.TPMVersion != tbs.TPMVersion20 {
		return nil, fmt.Errorf("the TPM is of version %d and not 2.0", info.TPMVersion)
	}
	c, err := tbs.CreateContext(tbs.TPMVersion20, tbs.IncludeTPM20)
	if err != nil {
		return nil, err
	}
	return tbsContext{c}, nil
}

type tbsContext struct{ tbs.Context }

func (c tbsContext) Send(command []byte) ([]byte, error) {
	response := make([]byte, maxMessage)
	n, err := c.SubmitCommand(tbs.NormalPriority, command, response)
	if err != nil {
		return nil, err
	}
	return response[:n], nil
}
