// SPDX-License-Identifier: Apache-2.0

// Package storeflag is the -store flag of the example programs, with the flags
// that belong to it: it opens the key store that a command line names.
//
//	-store simulator        the Microsoft TPM simulator, in this process (cgo)
//	-store soft             keys in software
//	-store tcp:HOST:PORT    a socket that speaks plain TPM commands, such as
//	-store unix:PATH        swtpm's "--server"
//	-store /dev/tpmrm0      a TPM device
//	-store tbs              Windows' TPM Base Services
//	-store swtpm:path=PATH  the same as tpm2-tools write them: swtpm:host=H,port=N and
//	                        device:/dev/tpmrm0 as well
//	-keys DIR               the folder of the key files
//
// Which store is used is always the operator's word: nothing here falls back
// from a TPM to software.
package storeflag

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
	"github.com/instancekey/instancekey/tpm"
)

// ErrNoSimulator: this program was built without cgo, and so without the TPM
// simulator.
var ErrNoSimulator = errors.New("this program has no TPM simulator: it was built without cgo (install a C compiler and OpenSSL's headers, on Debian gcc and libssl-dev, and build with CGO_ENABLED=1)")

// Flags are the values of the flags.
type Flags struct {
	// Store is -store. See the package comment.
	Store string
	// Keys is -keys. Empty means a folder that is removed by Close; for soft,
	// the memory of the process.
	Keys string
	// KeyFlags describe the keys that are created.
	KeyFlags
	EKFlags
	AuthFlags
	LogFlags

	// Boot is no flag. If it is not nil, Open calls it with the simulated TPM
	// that has just been started, for what a device's makers and its firmware do
	// to one, and the Store has the boot log that it returns. Other TPMs have
	// booted already.
	Boot func(tpm transport.TPM) (log []byte, err error)
}

// stores are the values of -store.
const stores = "simulator, soft, tcp:HOST:PORT, unix:PATH, a device such as /dev/tpmrm0, or on Windows tbs"

// TemporaryKeys says what Open does without -keys.
const TemporaryKeys = "default: a temporary one, gone at the end"

// Register adds -store and -keys to a program's flags.
func (f *Flags) Register(fs *flag.FlagSet) {
	fs.StringVar(&f.Store, "store", "", "the key `store`: "+stores)
	fs.StringVar(&f.Keys, "keys", "", "`folder` of the key files ("+TemporaryKeys+")")
}

// RegisterDefaults is Register for a program that does something else without
// -store or -keys, and says so in its help: "required", for example.
func (f *Flags) RegisterDefaults(fs *flag.FlagSet, store, keys string) {
	fs.StringVar(&f.Store, "store", "", "the key `store`: "+stores+" ("+store+")")
	fs.StringVar(&f.Keys, "keys", "", "`folder` of the key files ("+keys+")")
}

// A Store is an opened key store. Its Create makes keys as KeyFlags say.
type Store struct {
	keystore.Store        // the tpm.Store or softkey.Store itself
	Name           string // -store
	Dir            string // folder of the key files; "" for memory
	Temporary      bool   // the keys go with Close
	Protection     string // what protects a key, in a few words

	create  func(ctx context.Context, name string) (keystore.Key, error)
	closers []func() error // the last one first
}

// Check reports flags that make no sense, and a PIN file that cannot be read. It
// touches no key and no TPM. Open calls it too.
func (f *Flags) Check() error {
	options, err := f.options()
	if err != nil {
		return err
	}
	if f.Store == "soft" {
		if options.pin != nil || options.pcrs != nil {
			return errors.New("-pin-file and -pcrs need a TPM: a key in software has neither")
		}
		if f.EKCertificates != "" {
			return errors.New("-ek-certificates needs a TPM: a key in software is in none")
		}
		if f.OwnerAuthFile != "" || f.EndorsementAuthFile != "" {
			return errors.New("-owner-auth-file and -endorsement-auth-file need a TPM: software has no hierarchies")
		}
		if f.LogFlags.any() {
			return errors.New("-event-log, -userspace-log and -ima-log need a TPM: they explain its PCRs")
		}
		return nil
	}
	_, err = f.tpmConfig()
	return err
}

// Open opens the store. A store that is misspelt or not available is an error
// that says what to do; for the simulator see [ErrNoSimulator].
func (f *Flags) Open(ctx context.Context) (_ *Store, err error) {
	if err := f.Check(); err != nil {
		return nil, err
	}
	options, err := f.options()
	if err != nil {
		return nil, err
	}
	s := &Store{Name: f.Store, Dir: f.Keys}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if f.Store == "soft" {
		return s, s.openSoft(options)
	}
	cfg, err := f.tpmConfig()
	if err != nil {
		return nil, err
	}
	if err := s.chooseDir(); err != nil {
		return nil, err
	}
	s.Protection = "TPM"
	if f.Store == "simulator" {
		s.Protection = "none: a simulated TPM in the program's memory"
		if cfg.TPM, err = s.startSimulator(); err != nil {
			return nil, err
		}
		if f.Boot != nil {
			log, err := f.Boot(cfg.TPM)
			if err != nil {
				return nil, err
			}
			cfg.EventLog = func(context.Context) ([]byte, error) { return log, nil }
		}
	}
	cfg.Dir = s.Dir
	return s, s.openTPM(ctx, cfg, options)
}

// tpmConfig returns the way to the TPM; the simulator's is empty.
func (f *Flags) tpmConfig() (cfg tpm.Config, err error) {
	if cfg.EKCertificates, err = f.certificates(); err != nil {
		return cfg, err
	}
	if err := f.AuthFlags.read(&cfg); err != nil {
		return cfg, err
	}
	if err := f.LogFlags.configure(&cfg); err != nil {
		return cfg, err
	}
	if f.Store, err = fromTCTI(f.Store); err != nil {
		return cfg, err
	}
	kind, address, _ := strings.Cut(f.Store, ":")
	switch {
	case f.Store == "":
		return cfg, errors.New("-store is missing: use " + stores)
	case f.Store == "simulator":
	case f.Store == "tbs" && runtime.GOOS == "windows": // tpm.Config's zero value
	case f.Store == "tbs":
		return cfg, errors.New("-store tbs: only Windows has TPM Base Services: use a device such as /dev/tpmrm0")
	case (kind == "tcp" || kind == "unix") && address != "":
		cfg.Device = f.Store
	case filepath.IsAbs(f.Store):
		cfg.Device = f.Store
	default:
		return cfg, fmt.Errorf("-store %.60q: use %s", f.Store, stores)
	}
	return cfg, nil
}

// chooseDir makes a temporary folder if none is named.
func (s *Store) chooseDir() (err error) {
	if s.Dir != "" {
		return nil
	}
	s.Temporary = true
	if s.Dir, err = os.MkdirTemp("", "instancekey-"); err != nil {
		return err
	}
	s.closers = append(s.closers, func() error { return os.RemoveAll(s.Dir) })
	return nil
}

func (s *Store) openTPM(ctx context.Context, cfg tpm.Config, options keyOptions) error {
	if options.pin != nil {
		cfg.PIN = func(context.Context, string) ([]byte, error) { return options.pin() }
	}
	store, err := tpm.Open(ctx, cfg)
	if err != nil {
		return err
	}
	s.Store = store
	s.closers = append(s.closers, store.Close)
	s.create = func(ctx context.Context, name string) (keystore.Key, error) {
		return store.CreateKey(ctx, name, options.tpm())
	}
	return nil
}

func (s *Store) openSoft(options keyOptions) error {
	store := softkey.New()
	if s.Temporary = s.Dir == ""; !s.Temporary {
		var err error
		if store, err = softkey.OpenDir(s.Dir); err != nil {
			return err
		}
	}
	s.Store = store
	s.Protection = "none: a key in software"
	s.create = func(ctx context.Context, name string) (keystore.Key, error) {
		return store.CreateKey(ctx, name, softkey.KeyOptions{Algorithm: options.algorithm})
	}
	return nil
}

// Create makes a key as the flags -alg, -pin-file and -pcrs say. See
// keystore.Store.
func (s *Store) Create(ctx context.Context, name string) (keystore.Key, error) {
	return s.create(ctx, name)
}

// Close closes the store and removes what was temporary. It may be called more
// than once.
func (s *Store) Close() error {
	var err error
	for len(s.closers) > 0 {
		last := len(s.closers) - 1
		err = errors.Join(err, s.closers[last]())
		s.closers = s.closers[:last]
	}
	return err
}
