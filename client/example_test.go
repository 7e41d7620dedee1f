// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
)

// openStore stands for tpm.Open(ctx, tpm.Config{Dir: "/var/lib/meter/keys"}):
// any keystore.Store will do.
func openStore() keystore.Store { return softkey.New() }

func ExampleNew() {
	ctx := context.Background()
	store := openStore() // tpm.Open on a device

	c, err := client.New(ctx, client.Config{
		Issuer:   "https://as.example.com",
		ClientID: "meter-firmware",
		Store:    store, // the key is made the first time, and found again later
		Attester: client.HTTPAttester{URL: "https://attester.example.com"},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	token, err := c.Token(ctx, "readings.write") // client credentials; kept until it expires
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(token.Type())
	// Output: Bearer
}

// A device whose TPM was cleared has lost its key, and with it all that was
// bound to the key. Only the application can decide to begin anew.
func ExampleNew_keyLost() {
	ctx := context.Background()
	store := &lostStore{Store: openStore()}
	config := client.Config{
		Issuer:   "https://as.example.com",
		ClientID: "meter-firmware",
		Store:    store,
		KeyName:  "meter",
		Attester: client.HTTPAttester{URL: "https://attester.example.com"},
	}

	c, err := client.New(ctx, config)
	if errors.Is(err, keystore.ErrKeyLost) {
		fmt.Println("the key is lost: enrolling with a new one")
		if err := store.Delete(ctx, config.KeyName); err != nil {
			log.Fatal(err)
		}
		// Refresh tokens were bound to the old key. Users, if there are any,
		// have to authorize this device again.
		if err := os.Remove(filepath.Join(os.TempDir(), "meter-token.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
			log.Fatal(err)
		}
		c, err = client.New(ctx, config) // makes a new key
	}
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	token, err := c.Token(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(token.Type())
	// Output:
	// the key is lost: enrolling with a new one
	// Bearer
}

// Every flow of golang.org/x/oauth2 runs over the Client: here the
// authorization code grant with PKCE, and the refresh after it.
func ExampleClient_HTTPClient() {
	ctx := context.Background()
	c, err := client.New(ctx, client.Config{
		Issuer:   "https://as.example.com",
		ClientID: "meter-firmware",
		Store:    openStore(),
		Attester: client.HTTPAttester{URL: "https://attester.example.com"},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	endpoint, err := c.Endpoint(ctx)
	if err != nil {
		log.Fatal(err)
	}
	config := oauth2.Config{ClientID: "meter-firmware", Endpoint: endpoint, RedirectURL: "http://127.0.0.1:8080/"}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, c.HTTPClient())

	verifier := oauth2.GenerateVerifier()
	_ = config.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)) // send the user there; the code comes back
	token, err := config.Exchange(ctx, "the code", oauth2.VerifierOption(verifier))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(token.Type())

	token, err = config.TokenSource(ctx, &oauth2.Token{RefreshToken: token.RefreshToken}).Token()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(token.Type())
	// Output:
	// Bearer
	// Bearer
}

// A refresh token outlives the process, together with what it is bound to.
func ExampleStoredToken() {
	ctx := context.Background()
	c, err := client.New(ctx, client.Config{
		Issuer:   "https://as.example.com",
		ClientID: "meter-firmware",
		Store:    openStore(),
		Attester: client.HTTPAttester{URL: "https://attester.example.com"},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	file := filepath.Join(os.TempDir(), fmt.Sprintf("meter-token-%d.json", os.Getpid()))
	defer os.Remove(file)

	token, err := c.Refresh(ctx, "a refresh token from a grant")
	if err != nil {
		log.Fatal(err)
	}
	stored, err := c.Bind(token)
	if err != nil {
		log.Fatal(err)
	}
	if err := stored.Write(file); err != nil { // before anything else is done
		log.Fatal(err)
	}

	// After a restart, with a Client over the same key:
	if stored, err = client.ReadStoredToken(file); err != nil {
		log.Fatal(err)
	}
	token, err = c.Adopt(stored)
	if errors.Is(err, client.ErrOtherKey) {
		log.Fatal("authorize the device again")
	}
	fmt.Println(token.RefreshToken, token.Valid())
	// Output: refresh true
}

// lostStore is a store whose key the device has lost, until it is deleted.
type lostStore struct {
	keystore.Store
	deleted bool
}

func (s *lostStore) Open(ctx context.Context, name string) (keystore.Key, error) {
	if !s.deleted {
		return nil, keystore.ErrKeyLost
	}
	return s.Store.Open(ctx, name)
}

func (s *lostStore) Delete(ctx context.Context, name string) error {
	s.deleted = true
	return s.Store.Delete(ctx, name)
}
