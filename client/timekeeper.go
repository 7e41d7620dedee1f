// SPDX-License-Identifier: Apache-2.0

package client

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/instancekey/instancekey/internal/privatefile"
	"github.com/instancekey/instancekey/internal/release"
)

// TimekeeperConfig configures a Timekeeper. The zero value is good for a machine that
// does not say whether its clock is set, and a program that keeps nothing.
type TimekeeperConfig struct {
	// Clock is the device's clock. Nil means time.Now.
	Clock func() time.Time

	// IsSet reports whether the machine says that its clock is set, as
	// SystemClockIsSet does on Linux. By a clock that is set certificates expire from
	// the start; any other has to be confirmed by an issuer first. Nil means that no
	// clock is.
	IsSet func() bool

	// Built is a time before which this program was certainly not built. The zero
	// value means BuildTime.
	Built time.Time

	// File keeps the newest time that an issuer has said over TLS, and that is believed, for
	// the next start: a text (RFC 3339) with mode 0600, in a folder that exists. It is
	// written at the first such time and then once an hour at most, by the call that has
	// heard of it, before that returns. One that cannot be read or written is logged, and
	// done without. Empty means that none is kept.
	File string

	// Logger gets what an operator may want to see. Nil means that nothing is logged.
	Logger *slog.Logger
}

// A Timekeeper knows what time it is on a device whose clock may be wrong by years: not
// set since the power was off, behind after a month in the store, or ahead. It begins
// with the device's clock, but never earlier than this version of the package, the
// program, and the newest time heard in an earlier run. From then on it follows the Date
// of the issuers whose Clients have it in Config.Timekeeper. Who shares one must have
// issuers whose clocks agree.
//
// SECURITY.md has the rules, and what they are good for. Its methods are safe for
// concurrent use.
type Timekeeper struct {
	clock *clock
	over  func(*http.Transport) http.RoundTripper // RoundTripper, which nobody links who makes no Timekeeper
}

// NewTimekeeper returns a Timekeeper. It reads File, and writes nothing yet.
func NewTimekeeper(cfg TimekeeperConfig) *Timekeeper {
	c := newClock(cfg.Clock, newLogger(cfg.Logger))
	c.isSet, c.built = cfg.IsSet, cfg.Built
	if c.built.IsZero() {
		c.built = BuildTime()
	}
	c.built = latest(c.built, release.Since)
	if c.file = cfg.File; c.file != "" {
		if path, err := filepath.Abs(c.file); err == nil {
			c.file = path
		}
		c.restore()
	}
	c.assume()
	t := &Timekeeper{clock: c}
	t.over = t.RoundTripper
	return t
}

// Now returns the time: by the device's clock, corrected by what the issuer says. It is
// also for tls.Config.Time of connections that RoundTripper does not make, once a Client
// has heard from its issuer.
func (t *Timekeeper) Now() time.Time { return t.clock.now() }

// BuildTime returns the time of the commit that this program was built from, which "go
// build" notes in a repository, or which is in the version that "go install" has built.
// It is zero if neither is there: give TimekeeperConfig.Built then, or certificates that have
// expired between the release of this package and that build may be accepted on a
// device whose clock is not set.
func BuildTime() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	return buildTime(info)
}

func buildTime(info *debug.BuildInfo) time.Time {
	for _, setting := range info.Settings {
		if setting.Key == "vcs.time" {
			built, _ := time.Parse(time.RFC3339, setting.Value) // zero if it is none
			return built
		}
	}
	// A pseudo-version: v0.0.0-20261127120000-0123456789ab, perhaps with "+dirty".
	parts := strings.Split(info.Main.Version, "-")
	if len(parts) < 3 {
		return time.Time{}
	}
	stamp := parts[len(parts)-2]
	built, _ := time.Parse("20060102150405", stamp[strings.LastIndexByte(stamp, '.')+1:])
	return built
}

const keepEvery = time.Hour

// hear notes a time that was believed. c.mu is held.
func (c *clock) hear(said moment, leaf *x509.Certificate) {
	c.heard = said
	if leaf != nil { // the server's authority has said that as well
		c.heard.device = latest(said.device, leaf.NotBefore)
	}
	c.newest = latest(c.newest, said.device)
}

// keep writes the newest time heard into the file, if there is one and that is due.
func (c *clock) keep() {
	c.mu.Lock()
	newest := c.newest
	due := c.file != "" && newest.After(c.kept) && (!c.tried || newest.Sub(c.kept) >= keepEvery)
	if due {
		c.kept, c.tried = newest, true
	}
	c.mu.Unlock()
	if !due {
		return
	}
	err := privatefile.Replace(c.file, []byte(newest.UTC().Format(time.RFC3339)+"\n"))
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil && !c.unkept {
		c.say(slog.LevelWarn, "the newest time is not kept, the next start will know an older one", "error", err)
	}
	c.unkept = err != nil
}

// restore reads what an earlier process has kept.
func (c *clock) restore() {
	text, err := privatefile.Read(c.file, 100)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var newest time.Time
	if err == nil {
		newest, err = time.Parse(time.RFC3339, strings.TrimSpace(string(text)))
	}
	if err != nil {
		c.say(slog.LevelWarn, "the newest time of earlier runs is not known", "file", c.file, "error", err)
		return
	}
	c.newest, c.kept = newest, newest
}

func latest(times ...time.Time) (t time.Time) {
	for _, other := range times {
		if other.After(t) {
			t = other
		}
	}
	return t
}
