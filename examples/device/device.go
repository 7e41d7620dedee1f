// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// keyName is the Client Instance Key's name in the store.
const keyName = "device"

// A device is the program without its command line.
type device struct {
	options
	log      *slog.Logger
	report   *reporter
	told     *once // of log
	keeper   *client.Timekeeper
	attested atomic.Bool                                // by the last call of the attester
	wait     func(context.Context, time.Duration) error // returns early, with an error, when the context ends
}

func (o *options) attestations() string { return filepath.Join(o.state, "attestations") }
func (o *options) tokenFile() string    { return filepath.Join(o.state, "token.json") }
func (o *options) timeFile() string     { return filepath.Join(o.state, "time") }

// errEnrolAnew: what belonged to a lost key has been put away.
var errEnrolAnew = errors.New("enrol anew")

// run returns nil when ctx ends, and an error when somebody has to do something.
func (d *device) run(ctx context.Context) (err error) {
	d.report = newReporter(d.reportFile, d.store, d.log)
	defer func() { d.report.end(err) }()
	if err := os.MkdirAll(d.state, 0o700); err != nil {
		return err
	}
	d.log.Info("starting", "store", d.store, "state", d.state, "issuer", d.issuer, "client_id", d.clientID, "resource", d.resource)
	if client.BuildTime().IsZero() {
		d.log.Warn("this program does not know when it was built: build it in its repository, or certificates that have long expired may be accepted while the clock is not set")
	}
	// The clock of a device starts in 1970, is behind by a month in the store, or years
	// ahead. What an issuer has said of the time is kept.
	d.keeper = client.NewTimekeeper(client.TimekeeperConfig{IsSet: client.SystemClockIsSet, File: d.timeFile(), Logger: d.log})
	network, err := newNetwork(d.keeper, d.ca)
	if err != nil {
		return err
	}
	var tries backoff
	for {
		err := d.live(ctx, network)
		switch {
		case ctx.Err() != nil:
			d.log.Info("stopping")
			return nil
		case errors.Is(err, errEnrolAnew):
			d.log.Warn("the old key was lost: enrolling with a new one")
		case errors.Is(err, keystore.ErrUnavailable):
			// At boot the TPM's driver may come up after this program.
			pause := tries.next()
			d.warn("no key store: trying again", err, pause)
			if d.wait(ctx, pause) != nil {
				return nil
			}
		default:
			return err
		}
	}
}

// live opens the key and calls the resource with it, until ctx ends or the key
// is lost. When it returns, nothing of it is left in the TPM.
func (d *device) live(ctx context.Context, network http.RoundTripper) (err error) {
	store, err := openStore(ctx, d.store, d.keys, d.bootLogFrom(bootLog))
	if err != nil {
		return err
	}
	defer func() {
		if closed := store.Close(); closed != nil {
			d.log.Error("the TPM may be left with a loaded key", "error", closed)
		}
	}()
	cfg := client.Config{
		Issuer:     d.issuer,
		ClientID:   d.clientID,
		Store:      store,
		KeyName:    keyName,
		Attester:   client.HTTPAttester{URL: d.attester, Client: &http.Client{Transport: network}},
		Cache:      client.DirCache(d.attestations()),
		Resources:  []client.Resource{{Identifier: d.resource, OmitParameter: !d.resourceParameter}},
		Base:       network,
		Timekeeper: d.keeper,
		Logger:     d.log,
		Trace:      &client.Trace{Key: d.opened, Renewal: d.renewed},
	}
	d.report.attach(&cfg)
	c, err := client.New(ctx, cfg)
	if err == nil {
		s := session{device: d, client: c, tokens: newTokens(d, c)}
		err = s.run(ctx)
		c.Close()
	}
	if errors.Is(err, keystore.ErrKeyLost) && d.reEnrol {
		return d.forget(ctx, store, err)
	}
	return err
}

// bootLogFrom returns what reads the firmware's log, for an attester that asks what was
// booted. There is none where it may not be read, or the flag says no: the attester says
// whether it can do without.
func (d *device) bootLogFrom(read func(context.Context) ([]byte, error)) func(context.Context) ([]byte, error) {
	if !d.bootLog {
		return nil
	}
	return func(ctx context.Context) ([]byte, error) {
		log, err := read(ctx)
		if err != nil && ctx.Err() == nil {
			d.log.Warn("the boot log is not sent to the attester", "error", err)
			return nil, nil
		}
		return log, err
	}
}

// renewed tells that the attester has attested the device, when that is news.
func (d *device) renewed(_ context.Context, e transport.TraceEvent) {
	level := slog.LevelDebug
	if last := d.attested.Swap(e.Err == nil); e.Err == nil && !last {
		level = slog.LevelInfo
	}
	if e.Err == nil {
		d.log.Log(context.Background(), level, "attested", "took", e.Duration.Round(time.Millisecond))
	}
}

// warn tells of a failure and the next try.
func (d *device) warn(what string, err error, pause time.Duration) {
	args := []any{"error", err}
	if text := cure(err); text != "" {
		args = append(args, "cure", text)
	}
	d.log.Warn(what, append(args, "again_in", pause.Round(time.Millisecond))...)
}

// opened tells which key the device has.
func (d *device) opened(_ context.Context, key keystore.Key, e transport.TraceEvent) {
	if key == nil {
		return // and live tells why
	}
	what := "key opened"
	if e.Kind == "create" {
		what = "new key made"
	}
	if thumbprint, err := keystore.Thumbprint(key.Public()); err == nil {
		d.log.Info(what, "name", keyName, "thumbprint", thumbprint)
	}
}

// forget puts away what is of no use without the key, so that the device can
// enrol as if it were new: the key's file, the token (its refresh token is bound
// to the key) and the attestation. No library does this by itself: a TPM that
// was cleared by mistake, or a disk in the wrong device, would silently become
// another client instance, and what users had authorized the old one for would
// be gone.
func (d *device) forget(ctx context.Context, store keystore.Store, lost error) error {
	if err := os.Remove(d.tokenFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; and cannot enrol anew: %w", lost, err)
	}
	if err := os.RemoveAll(d.attestations()); err != nil {
		return fmt.Errorf("%w; and cannot enrol anew: %w", lost, err)
	}
	// The key comes last: while it is there, a start after a power cut finds
	// it lost again and comes back here.
	if err := store.Delete(ctx, keyName); err != nil {
		return fmt.Errorf("%w; and cannot enrol anew: %w", lost, err)
	}
	d.log.Warn("key, token and attestation deleted", "cause", lost)
	return errEnrolAnew
}
