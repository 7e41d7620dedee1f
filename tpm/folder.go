package tpm

import (
	"fmt"

	"github.com/instancekey/instancekey/internal/keyfolder"
	"github.com/instancekey/instancekey/keystore"
)

const (
	extension = ".pem"
	// maxFileSize is some 20 times the size of a key's file.
	maxFileSize = 32 << 10
)

// folder keeps the key files.
type folder struct{ keyfolder.Folder }

func openFolder(dir string) (folder, error) {
	f, err := keyfolder.Open("tpm", dir)
	return folder{f}, err
}

// load reads and parses the key's file.
func (f folder) load(name string) (*keyFile, error) {
	text, err := f.Read(name)
	if err != nil {
		return nil, err
	}
	k, err := parseKeyFile(text)
	if err == nil && k.importable {
		err = fmt.Errorf("%w: is an importable key: use Import on it", keystore.ErrCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("tpm: key %q: %s: %w", name, f.File(name), err)
	}
	return k, nil
}
