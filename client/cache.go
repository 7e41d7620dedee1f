// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/instancekey/instancekey/internal/privatefile"
	"github.com/instancekey/instancekey/keystore"
)

// A Cache keeps Client Attestations over restarts, so that a device that reboots need not
// ask its attester first. The Client checks what a Cache returns as it checks what an
// Attester returns. It ignores an entry that is damaged or is not its own.
//
// Keys are valid by keystore.CheckName. Implementations are safe for concurrent
// use.
type Cache interface {
	// Get returns the data stored under key, or an error that matches
	// ErrCacheMiss.
	Get(ctx context.Context, key string) ([]byte, error)
	// Put stores data under key, replacing what was there.
	Put(ctx context.Context, key string, data []byte) error
	// Delete removes what is stored under key. A missing key is no error.
	Delete(ctx context.Context, key string) error
}

// ErrCacheMiss is returned by Cache.Get if there is nothing under the key.
var ErrCacheMiss = errors.New("client: not in the cache")

// DirCache is a Cache in the folder of that name. New makes the folder, with mode 0700,
// if it does not exist, and makes a relative name absolute. DirCache refuses a folder
// that others may write to. Files have mode 0600 and are replaced atomically. On Windows
// an access control list of the owner, SYSTEM and Administrators stands for these modes,
// and a folder or file that belongs to another user, who is no administrator, is refused.
// If its context has ended, a method does nothing and returns the context's error.
type DirCache string

// prepared returns a cache whose folder stays the same when the process goes to
// another one. A folder that can't be used is an error here, and not in a log after
// months in which each start has asked the attester; but not if it is the disk that
// fails: a device works without a cache.
func prepared(cache Cache) (Cache, error) {
	dir, ok := cache.(DirCache)
	if !ok {
		return cache, nil
	}
	path, err := filepath.Abs(string(dir))
	if err != nil {
		return nil, fmt.Errorf("client: cache: %w", err)
	}
	if err := checkUsable(path); err != nil && !privatefile.IsDiskFailure(err) {
		return nil, fmt.Errorf("client: cache: %w", err)
	}
	return DirCache(path), nil
}

// checkUsable makes the folder and writes a file into it, which is gone afterwards.
func checkUsable(dir string) error {
	if err := privatefile.MakeDir(dir, privatefile.Writing); err != nil {
		return err
	}
	privatefile.SweepDir(dir)
	probe, err := os.CreateTemp(dir, privatefile.TempPrefix)
	if err != nil {
		return err
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// Get implements Cache. Errors other than ErrCacheMiss are those of the file
// system, and of a folder that others may write to.
func (d DirCache) Get(ctx context.Context, key string) ([]byte, error) {
	path, err := d.path(ctx, key)
	if err != nil {
		return nil, err
	}
	err = privatefile.CheckDir(string(d), privatefile.Writing)
	var data []byte
	if err == nil {
		data, err = privatefile.Read(path, maxAttestation)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrCacheMiss, err)
	}
	if err != nil {
		return nil, fmt.Errorf("client: cache: %w", err)
	}
	return data, nil
}

// Put implements Cache.
func (d DirCache) Put(ctx context.Context, key string, data []byte) error {
	path, err := d.path(ctx, key)
	if err != nil {
		return err
	}
	if err := privatefile.MakeDir(string(d), privatefile.Writing); err != nil {
		return fmt.Errorf("client: cache: %w", err)
	}
	privatefile.SweepDir(string(d)) // of other keys, too, which are written no more
	if err := privatefile.Replace(path, data); err != nil {
		return fmt.Errorf("client: cache: %w", err)
	}
	return nil
}

// Delete implements Cache.
func (d DirCache) Delete(ctx context.Context, key string) error {
	path, err := d.path(ctx, key)
	if err != nil {
		return err
	}
	if err := privatefile.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("client: cache: %w", err)
	}
	return nil
}

func (d DirCache) path(ctx context.Context, key string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("client: cache: %w", err)
	}
	if err := keystore.CheckName(key); err != nil {
		return "", err
	}
	return filepath.Join(string(d), privatefile.FileName(key, "")), nil
}
