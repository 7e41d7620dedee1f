// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpmutil/tbs"
)

func dialDevice(path string) func(context.Context) (transport.TPMCloser, error) {
	return func(context.Context) (transport.TPMCloser, error) { return openDevice(path) }
}

// openDevice opens a context of the TPM Base Services. It does so without
// go-tpm's windowstpm package, whose Send retries busy codes on its own, where
// no context can end it.
func openDevice(path string) (transport.TPMCloser, error) {
	if path != "" {
		return nil, errors.New("Windows has no TPM device files: leave Config.Device empty, or use tcp:HOST:PORT")
	}
	c, err := openTBS()
	if err != nil {
		return nil, err
	}
	return tbsContext{c}, nil
}

func openTBS() (tbs.Context, error) {
	info, err := tbs.GetDeviceInfo()
	if err != nil {
		return 0, tbsError(err)
	}
	if info.TPMVersion != tbs.TPMVersion20 {
		return 0, fmt.Errorf("the TPM is of version %d and not 2.0", info.TPMVersion)
	}
	c, err := tbs.CreateContext(tbs.TPMVersion20, tbs.IncludeTPM20)
	return c, tbsError(err)
}

// tbsError makes a return code one of the table of faults.
func tbsError(err error) error {
	if code := tbs.Error(0); errors.As(err, &code) {
		return tbsCode(code)
	}
	return err
}

type tbsContext struct{ context tbs.Context }

func (c tbsContext) Send(command []byte) ([]byte, error) {
	response := make([]byte, maxMessage)
	n, err := c.context.SubmitCommand(tbs.NormalPriority, command, response)
	runtime.KeepAlive(command) // only its address is known to SubmitCommand
	if err != nil {
		return nil, tbsError(err)
	}
	return response[:min(int(n), len(response))], nil
}

func (c tbsContext) Close() error { return tbsError(c.context.Close()) }
