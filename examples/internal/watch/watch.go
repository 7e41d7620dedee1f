// SPDX-License-Identifier: Apache-2.0

// Package watch reads an operator's files again when they change.
package watch

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Interval is how often files are looked at: what changes is in force well within
// a minute.
const Interval = 15 * time.Second

// Files calls changed each time that the contents of files have changed since the
// last time, and first if they have since digest was taken (see [Digest]). A path
// that is a folder stands for the files in it. Whether time stamps change does
// not matter. It returns when ctx ends.
func Files(ctx context.Context, digest string, paths []string, changed func()) {
	ticker := time.NewTicker(Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if now := Digest(paths); now != digest {
			digest = now
			changed()
		}
	}
}

// Digest is a digest of the contents of files, and of the files in folders. That a
// file cannot be read is a content, too. Empty paths are passed over.
func Digest(paths []string) string {
	hash := sha256.New()
	for _, path := range paths {
		if path == "" {
			continue
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			digestFile(hash, path)
			continue
		}
		fmt.Fprintf(hash, "%q of %d\n", path, len(entries))
		for _, entry := range entries {
			digestFile(hash, filepath.Join(path, entry.Name()))
		}
	}
	return string(hash.Sum(nil))
}

func digestFile(hash io.Writer, path string) {
	sum, size, err := sumOf(path)
	fmt.Fprintf(hash, "%q %x %d %v\n", path, sum, size, err)
}

func sumOf(path string) (sum []byte, size int64, err error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrInvalid // reading from it might never end
	}
	if err != nil {
		return nil, 0, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer file.Close()
	hash := sha256.New()
	size, err = io.Copy(hash, file)
	return hash.Sum(nil), size, err
}
