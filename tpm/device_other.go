// SPDX-License-Identifier: Apache-2.0

//go:build !linux && !windows

package tpm

import (
	"context"
	"errors"
	"runtime"

	"github.com/google/go-tpm/tpm2/transport"
)

func dialDevice(string) func(context.Context) (transport.TPMCloser, error) {
	return func(context.Context) (transport.TPMCloser, error) {
		return nil, errors.New("no TPM device is known on " + runtime.GOOS + ": use unix:PATH, tcp:HOST:PORT or Config.Dial")
	}
}
