// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// A device opens its TPM once, at the start, and finds its key or makes it.
func Example() {
	ctx := context.Background()
	store, err := tpm.Open(ctx, tpm.Config{Dir: "/var/lib/myapp/keys"})
	if err != nil {
		fmt.Println(err) // says what to do
		return
	}
	defer store.Close()

	key, err := keystore.OpenOrCreate(ctx, store, "device")
	if errors.Is(err, keystore.ErrKeyLost) {
		// The TPM was exchanged or cleared. Whatever is bound to the key is
		// lost; delete it and enrol again, if that is wanted.
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	signature, err := key.Sign(ctx, []byte("header.payload"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(key.Algorithm(), len(signature))
}

// With swtpm, a TPM in software, on a socket.
func ExampleNewConn() {
	config := tpm.Config{
		Dir:       "/tmp/keys",
		Exclusive: true, // there is no resource manager
		Dial: func(ctx context.Context) (transport.TPMCloser, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "unix", "/run/swtpm.sock")
			if err != nil {
				return nil, err
			}
			return tpm.NewConn(conn), nil
		},
	}
	store, err := tpm.Open(context.Background(), config)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
}

// A key with a PIN, and bound to what the device has booted.
func ExampleStore_CreateKey() {
	ctx := context.Background()
	store, err := tpm.Open(ctx, tpm.Config{
		Dir: "/var/lib/myapp/keys",
		PIN: func(context.Context, string) ([]byte, error) { return []byte("1234"), nil },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	key, err := store.CreateKey(ctx, "device", tpm.KeyOptions{PIN: true, PCRs: []int{0, 7}})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = key.Sign(ctx, []byte("header.payload"))
	switch {
	case errors.Is(err, keystore.ErrPolicy):
		fmt.Println("the device has booted something else")
	case errors.Is(err, keystore.ErrLockedOut):
		var locked *tpm.LockoutError
		if errors.As(err, &locked) {
			fmt.Println("too many wrong PINs: try again in", locked.Recovery)
		}
	}
}
