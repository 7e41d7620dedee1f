// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"log/slog"
	"time"

	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/internal/watch"
)

// evidenceFiles are what an operator writes down about devices.
type evidenceFiles struct{ roots, links, registry, reference, ca string }

func (f *evidenceFiles) register(fs *flag.FlagSet) {
	fs.StringVar(&f.roots, "tpm-roots", "", "demand evidence from TPMs of the makers whose certificates are in `DIR`: each of these is trusted; with revocation lists")
	fs.StringVar(&f.links, "tpm-links", "", "certificates that lead from TPMs to -tpm-roots are in `DIR`: they are not trusted by themselves; with revocation lists")
	fs.StringVar(&f.registry, "registry", "", "the devices by their TPMs, in `FILE` (JSON; default: every genuine TPM is welcome)")
	fs.StringVar(&f.reference, "reference", "", "what devices should have booted, in `FILE` (JSON; default: not asked for)")
	fs.StringVar(&f.ca, "ak-ca", "", "CA for attestation keys in `FILE` (PEM), made if it is not there (default: a new one each time, and devices enrol anew)")
}

// watched are those that are read again when they change.
func (f *evidenceFiles) watched() []string {
	return []string{f.roots, f.links, f.registry, f.reference}
}

// wanted reports whether evidence is.
func (f *evidenceFiles) wanted() (bool, error) {
	if f.roots == "" && f.links+f.registry+f.reference+f.ca != "" {
		return false, errors.New("-tpm-links, -registry, -reference and -ak-ca need -tpm-roots")
	}
	return f.roots != "", nil
}

// devices is what was read of devices. What could not be read, or is in no file, is
// nil.
type devices struct {
	roots     *evidence.Roots
	registry  *evidence.Registry
	reference *evidence.Reference
}

// read reads the watched ones, each for itself, and tells log which certificates are
// of no use. Makers and links are one, as are their revocation lists.
func (f *evidenceFiles) read(log *slog.Logger) (read devices, wrong []error) {
	note := func(err error) {
		if err != nil {
			wrong = append(wrong, err)
		}
	}
	roots, findings, err := evidence.LoadRoots(f.roots, f.links, time.Now())
	note(err)
	for _, finding := range findings {
		log.Warn("TPM makers: " + finding)
	}
	read.roots = roots
	if f.registry != "" {
		read.registry, err = evidence.LoadRegistry(f.registry)
		note(err)
	}
	if f.reference != "" {
		read.reference, err = evidence.LoadReference(f.reference)
		note(err)
	}
	return read, wrong
}

// load returns a Verifier and what it knows; nil if evidence is not wanted.
func (f *evidenceFiles) load(log *slog.Logger) (verifier *evidence.Verifier, read devices, err error) {
	if wanted, err := f.wanted(); !wanted {
		return nil, read, err
	}
	read, wrong := f.read(log)
	if wrong != nil {
		return nil, read, errors.Join(wrong...)
	}
	ca, err := akCA(f.ca)
	if err != nil {
		return nil, read, err
	}
	verifier, err = evidence.New(evidence.Config{Roots: read.roots, CA: ca, Registry: read.registry, Reference: read.reference})
	return verifier, read, err
}

// follow reads the files again when they change, until ctx ends. digest is theirs of
// before they were loaded, and known is what the Verifier knows. While one of them is
// wrong, that of before stays in force; the others take effect.
func (f *evidenceFiles) follow(ctx context.Context, digest string, verifier *evidence.Verifier, known devices, log *slog.Logger) {
	watch.Files(ctx, digest, f.watched(), func() {
		read, wrong := f.read(log)
		known = devices{cmp.Or(read.roots, known.roots), cmp.Or(read.registry, known.registry), cmp.Or(read.reference, known.reference)}
		verifier.Update(known.roots, known.registry, known.reference)
		for _, err := range wrong {
			log.Error("a file about devices cannot be used: what was read from it before stays in force", slog.String("reason", err.Error()))
		}
		if len(wrong) > 0 {
			log.Info("the other files about devices are in force")
			return
		}
		log.Info("files about devices have changed, and are in force")
	})
}
