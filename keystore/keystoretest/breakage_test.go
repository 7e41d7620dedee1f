// SPDX-License-Identifier: Apache-2.0

package keystoretest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/keystore/keystoretest"
	"github.com/instancekey/instancekey/softkey"
)

// A breakage puts a fault into a Store that has none, and names the check that
// must find it. opened counts the Stores over one place, from 1.
type breakage struct {
	name       string
	check      string
	breakStore func(s keystore.Store, opened int) keystore.Store
}

// broken is a Store, some of whose methods are replaced.
type broken struct {
	keystore.Store
	create func(ctx context.Context, name string) (keystore.Key, error)
	open   func(ctx context.Context, name string) (keystore.Key, error)
	delete func(ctx context.Context, name string) error
	list   func(ctx context.Context) ([]string, error)
}

func (b broken) Create(ctx context.Context, name string) (keystore.Key, error) {
	if b.create != nil {
		return b.create(ctx, name)
	}
	return b.Store.Create(ctx, name)
}

func (b broken) Open(ctx context.Context, name string) (keystore.Key, error) {
	if b.open != nil {
		return b.open(ctx, name)
	}
	return b.Store.Open(ctx, name)
}

func (b broken) Delete(ctx context.Context, name string) error {
	if b.delete != nil {
		return b.delete(ctx, name)
	}
	return b.Store.Delete(ctx, name)
}

func (b broken) List(ctx context.Context) ([]string, error) {
	if b.list != nil {
		return b.list(ctx)
	}
	return b.Store.List(ctx)
}

func b64(octets []byte) string { return base64.RawURLEncoding.EncodeToString(octets) }

func anotherKey() keystore.Key {
	key, err := softkey.New().Create(context.Background(), "another")
	if err != nil {
		panic(err)
	}
	return key
}

var errOwn = errors.New("an error of its own")

// breakages of names and of the Store's methods; those of keys are in a file of their own.
var breakages = slices.Concat(nameBreakages, createBreakages, openBreakages, deleteAndListBreakages, keyBreakages)

var nameBreakages = []breakage{
	{"invalid names are made valid", "InvalidNames", func(s keystore.Store, _ int) keystore.Store {
		valid := func(name string) string { return strings.NewReplacer("/", "_", `\`, "_", "\x00", "_").Replace(name) }
		return broken{Store: s, create: func(ctx context.Context, name string) (keystore.Key, error) {
			return s.Create(ctx, valid(name))
		}}
	}},
	{"long names are cut", "InvalidNames", func(s keystore.Store, _ int) keystore.Store {
		return broken{Store: s, create: func(ctx context.Context, name string) (keystore.Key, error) {
			return s.Create(ctx, name[:min(len(name), 128)])
		}}
	}},
	{"an invalid name is not found", "InvalidNames", func(s keystore.Store, _ int) keystore.Store {
		return broken{Store: s, open: func(ctx context.Context, name string) (keystore.Key, error) {
			if keystore.CheckName(name) != nil {
				return nil, keystore.ErrNotFound
			}
			return s.Open(ctx, name)
		}}
	}},
	{"an invalid name is deleted without complaint", "InvalidNames", func(s keystore.Store, _ int) keystore.Store {
		return broken{Store: s, delete: func(ctx context.Context, name string) error {
			if keystore.CheckName(name) != nil {
				return nil
			}
			return s.Delete(ctx, name)
		}}
	}},
	{"deleting an invalid name deletes another key", "InvalidNames", func(s keystore.Store, _ int) keystore.Store {
		return broken{Store: s, delete: func(ctx context.Context, name string) error {
			if strings.HasPrefix(name, "a/") {
				return errors.Join(s.Delete(ctx, "a"), errOwn)
			}
			return s.Delete(ctx, name)
		}}
	}},
	{"the longest names are refused", "ValidNames", func(s keystore.Store, _ int) keystore.Store {
		return broken{Store: s, create: func(ctx context.Context, name string) (keystore.Key, error) {
			if len(name) > 64 {
				return nil, errOwn
			}
			return s.Create(ctx, name)
		}}
	}},
	{"names lose their extension", "ValidNames", func(s keystore.Store, _ int) keystore.Store {
		return broken{Store: s, open: func(ctx context.Context, name string) (keystore.Key, error) {
			return s.Open(ctx, strings.TrimSuffix(name, ".pem"))
		}}
	}},
	{"all names are one key", "ValidNames", func(s keystore.Store, _ int) keystore.Store {
		key := anotherKey()
		return withKeys(func(keystore.Key) keystore.Key { return key })(s, 1)
	}},
}

var createBreakages = []breakage{
	{"Create replaces", "CreateExisting", func(s keystore.Store, _ int) keystore.Store {
		return broken{Store: s, create: func(ctx context.Context, name string) (keystore.Key, error) {
			if keystore.CheckName(name) == nil {
				_ = s.Delete(ctx, name)
			}
			return s.Create(ctx, name)
		}}
	}},
	{"Create replaces and says ErrExists", "CreateExisting", func(s keystore.Store, _ int) keystore.Store {
		return broken{Store: s, create: func(ctx context.Context, name string) (keystore.Key, error) {
			key, err := s.Create(ctx, name)
			if errors.Is(err, keystore.ErrExists) {
				_ = s.Delete(ctx, name)
				_, _ = s.Create(ctx, name)
			}
			return key, err
		}}
	}},
	{"Create of an existing key opens it", "CreateExisting", func(s keystore.Store, _ int) keystore.Store {
		return broken{Store: s, create: func(ctx context.Context, name string) (keystore.Key, error) {
			return keystore.OpenOrCreate(ctx, s, name)
		}}
	}},
	{"Create has an error of its own", "CreateExisting", func(s keystore.Store, _ int) keystore.Store {
		return broken{Store: s, create: func(ctx context.Context, name string) (keystore.Key, error) {
			key, err := s.Create(ctx, name)
			if errors.Is(err, keystore.ErrExists) {
				err = errOwn
			}
			return key, err
		}}
	}},
	{"Create returns nothing", "SameKey", func(s keystore.Store, _ int) keystore.Store {
		return broken{Store: s, create: func(context.Context, string) (keystore.Key, error) { return nil, nil }}
	}},
	{"Create returns another key than it stores", "SameKey", func(s keystore.Store, _ int) keystore.Store {
		return broken{Store: s, create: func(ctx context.Context, name string) (keystore.Key, error) {
			_, err := s.Create(ctx, name)
			return anotherKey(), err
		}}
	}},
	{"Create looks first and then writes", "OpenOrCreateAtOnce", func(s keystore.Store, _ int) keystore.Store {
		// All callers have looked before the first one writes.
		var looked sync.WaitGroup
		looked.Add(keystoretest.CallersAtOnce)
		return broken{Store: s, create: func(ctx context.Context, name string) (keystore.Key, error) {
			if name == "at-once" {
				looked.Done()
				looked.Wait()
			}
			key, err := s.Create(ctx, name)
			if name == "at-once" {
				return anotherKey(), nil
			}
			return key, err
		}}
	}},
	{"the error of Create shows the key", "StoreShowsNoSecret", func(s keystore.Store, _ int) keystore.Store {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			panic(err)
		}
		return broken{Store: s, create: func(ctx context.Context, name string) (keystore.Key, error) {
			if _, err := s.Create(ctx, name); err != nil {
				return nil, fmt.Errorf("%w: %+v", err, private)
			}
			return keystore.FromSigner(private)
		}}
	}},
}

var openBreakages = []breakage{
	{"Open creates", "OpenMissing", func(s keystore.Store, _ int) keystore.Store {
		return broken{Store: s, open: func(ctx context.Context, name string) (keystore.Key, error) {
			return keystore.OpenOrCreate(ctx, s, name)
		}}
	}},
	{"Open of a missing key is a lost key", "OpenMissing", func(s keystore.Store, _ int) keystore.Store {
		return broken{Store: s, open: func(ctx context.Context, name string) (keystore.Key, error) {
			key, err := s.Open(ctx, name)
			if errors.Is(err, keystore.ErrNotFound) {
				err = keystore.ErrKeyLost
			}
			return key, err
		}}
	}},
	{"Open of a missing key is an error of its own", "OpenOrCreate", func(s keystore.Store, _ int) keystore.Store {
		return broken{Store: s, open: func(ctx context.Context, name string) (keystore.Key, error) {
			key, err := s.Open(ctx, name)
			if errors.Is(err, keystore.ErrNotFound) {
				err = errOwn
			}
			return key, err
		}}
	}},
	{"a restart forgets", "Restart", func(s keystore.Store, opened int) keystore.Store {
		if opened == 1 {
			return s
		}
		return softkey.New()
	}},
	{"a restart changes keys", "Restart", func(s keystore.Store, opened int) keystore.Store {
		if opened == 1 {
			return s
		}
		return withKeys(func(keystore.Key) keystore.Key { return anotherKey() })(s, opened)
	}},
	{"a deleted key comes back after a restart", "Restart", func(s keystore.Store, opened int) keystore.Store {
		if opened > 1 {
			_, _ = s.Create(context.Background(), "deleted")
		}
		return s
	}},
	{"after Close all goes on", "Close", func(s keystore.Store, _ int) keystore.Store {
		return struct {
			keystore.Store
			io.Closer
		}{s, io.NopCloser(nil)}
	}},
}

var deleteAndListBreakages = []breakage{
	{"Delete of a missing key fails", "Delete", func(s keystore.Store, _ int) keystore.Store {
		return broken{Store: s, delete: func(ctx context.Context, name string) error {
			if _, err := s.Open(ctx, name); err != nil {
				return err
			}
			return s.Delete(ctx, name)
		}}
	}},
	{"Delete does nothing", "Delete", func(s keystore.Store, _ int) keystore.Store {
		return broken{Store: s, delete: func(_ context.Context, name string) error { return keystore.CheckName(name) }}
	}},
	{"Delete deletes all", "Delete", func(s keystore.Store, _ int) keystore.Store {
		return broken{Store: s, delete: func(ctx context.Context, name string) error {
			names, _ := s.List(ctx)
			for _, name := range names {
				_ = s.Delete(ctx, name)
			}
			return keystore.CheckName(name)
		}}
	}},
	{"List is in another order", "List", func(s keystore.Store, _ int) keystore.Store {
		return broken{Store: s, list: func(ctx context.Context) ([]string, error) {
			names, err := s.List(ctx)
			slices.SortFunc(names, func(a, b string) int { return strings.Compare(a+".pem", b+".pem") })
			return names, err
		}}
	}},
	{"List names the files", "List", func(s keystore.Store, _ int) keystore.Store {
		return broken{Store: s, list: func(ctx context.Context) ([]string, error) {
			names, err := s.List(ctx)
			for i := range names {
				names[i] += ".pem"
			}
			return names, err
		}}
	}},
	{"List fails", "List", func(s keystore.Store, _ int) keystore.Store {
		return broken{Store: s, list: func(context.Context) ([]string, error) { return nil, errOwn }}
	}},
}
