package main

import (
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

// read reads the watched ones, and tells log which certificates are of no use.
func (f *evidenceFiles) read(log *slog.Logger) (roots *evidence.Roots, registry *evidence.Registry, reference *evidence.Reference, err error) {
	roots, findings, err := evidence.LoadRoots(f.roots, f.links, time.Now())
	if err != nil {
		return nil, nil, nil, err
	}
	if f.registry != "" {
		if registry, err = evidence.LoadRegistry(f.registry); err != nil {
			return nil, nil, nil, err
		}
	}
	if f.reference != "" {
		if reference, err = evidence.LoadReference(f.reference); err != nil {
			return nil, nil, nil, err
		}
	}
	for _, finding := range findings {
		log.Warn("TPM makers: " + finding)
	}
	return roots, registry, reference, nil
}

// load returns nil if evidence is not wanted.
func (f *evidenceFiles) load(log *slog.Logger) (*evidence.Verifier, error) {
	if wanted, err := f.wanted(); !wanted {
		return nil, err
	}
	var cfg evidence.Config
	var err error
	if cfg.Roots, cfg.Registry, cfg.Reference, err = f.read(log); err != nil {
		return nil, err
	}
	if cfg.CA, err = akCA(f.ca); err != nil {
		return nil, err
	}
	return evidence.New(cfg)
}

// follow reads the files again when they change, until ctx ends. digest is theirs
// of before they were loaded. While one of them is wrong, all of those before stay
// in force.
func (f *evidenceFiles) follow(ctx context.Context, digest string, verifier *evidence.Verifier, log *slog.Logger) {
	watch.Files(ctx, digest, f.watched(), func() {
		roots, registry, reference, err := f.read(log)
		if err != nil {
			log.Error("files about devices have changed and cannot be used: what was read before stays in force", slog.String("reason", err.Error()))
			return
		}
		verifier.Update(roots, registry, reference)
		log.Info("files about devices have changed, and are in force")
	})
}
