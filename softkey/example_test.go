// SPDX-License-Identifier: Apache-2.0

package softkey_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
)

// A key in memory, for a test.
func ExampleNew() {
	key, err := softkey.New().Create(context.Background(), "client-instance")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(key.Algorithm())
	// Output: ES256
}

// Keys in files are found again after a restart.
func ExampleOpenDir() {
	ctx := context.Background()
	home, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(home)

	for range 2 { // two starts of one program
		store, err := softkey.OpenDir(filepath.Join(home, "keys"))
		if err != nil {
			log.Fatal(err)
		}
		if _, err := keystore.OpenOrCreate(ctx, store, "client-instance"); err != nil {
			log.Fatal(err)
		}
		names, err := store.List(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(names)
	}
	// Output:
	// [client-instance]
	// [client-instance]
}

func ExampleStore_CreateKey() {
	key, err := softkey.New().CreateKey(context.Background(), "client-instance", softkey.KeyOptions{Algorithm: "ES384"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(key.Algorithm())
	// Output: ES384
}
