// SPDX-License-Identifier: Apache-2.0

package keystoretest_test

import (
	"context"
	"fmt"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/keystore/keystoretest"
	"github.com/instancekey/instancekey/softkey"
)

// forgetful is a Store that takes each name for a new one.
type forgetful struct{ keystore.Store }

func (forgetful) Create(ctx context.Context, name string) (keystore.Key, error) {
	return softkey.New().Create(ctx, name)
}

// A Store that keeps the contract, and one that does not. A test calls Run, or
// RunPersistent, in the same way.
func ExampleCheck() {
	ctx := context.Background()
	err := keystoretest.Check(ctx, func() (keystore.Store, error) { return softkey.New(), nil })
	fmt.Println("softkey:", err)

	err = keystoretest.Check(ctx, func() (keystore.Store, error) { return forgetful{softkey.New()}, nil })
	fmt.Println("forgetful is wrong:", err != nil)
	// Output:
	// softkey: <nil>
	// forgetful is wrong: true
}
