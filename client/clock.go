// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/instancekey/instancekey/internal/release"
)

// ErrClock: the device's clock was never set: it shows a time before this
// version of the package was released, at which no certificate of a server is
// valid yet. Give Config.Timekeeper, and the Client learns the time from the
// server; or set the clock (NTP, a real-time clock).
var ErrClock = errors.New("client: the device's clock was never set")

const (
	// maxOffset is within what a server agrees with the device's clock, and how far
	// it may go from one with which it has agreed.
	maxOffset = 7 * 24 * time.Hour

	// minOffset is the least difference that is acted on: Date has whole
	// seconds, and responses take time.
	minOffset = 2 * time.Second

	// sameOffset is within what a difference that was warned of is the same.
	sameOffset = time.Minute

	// maxDelay is how long a request may take for its response's Date to say
	// what time it is now. After that it says so only roughly.
	maxDelay = 5 * time.Second
)

// clock is the device's clock, corrected by what servers say the time is.
// Windows of 15 seconds for "iat" exist, and devices with clocks that are off by
// years.
type clock struct {
	device func() time.Time
	isSet  func() bool // nil: the machine does not say
	log    *slog.Logger
	built  time.Time // a time before which this program was not built; zero: unknown
	file   string    // keeps the newest time that a server said; "": none

	mu     sync.Mutex
	offset time.Duration
	// When the device's clock was last read: by itself, and by the process's,
	// which is never set and stands still while the device sleeps.
	last     moment
	assumed  bool          // offset is no server's word: it only makes up for a clock that shows a time which is past
	compared time.Time     // with a server's Date, by the process's clock; zero: never
	agreed   bool          // a server's Date was within maxOffset of what the device's clock showed
	repeated bool          // the last one told nothing new
	strayed  time.Duration // how far the device's clock has gone from the process's since it was compared

	heard  moment    // the last time that a server said and that was believed, and when; zero: none
	newest time.Time // of all times heard, in earlier processes too
	kept   time.Time // what is in file, as far as it could be written
	tried  bool      // file was written, or could not be, by this process
	unkept bool      // it could not be

	warned time.Duration // the last difference that was warned of and not acted on
	said   []record      // what is to be logged
}

// record is what the clock has to say.
type record struct {
	level slog.Level
	text  string
	args  []any
}

func newClock(device func() time.Time, log *slog.Logger) *clock {
	if device == nil {
		device = time.Now
	}
	c := &clock{device: device, log: log}
	c.last = moment{device(), time.Now()}
	return c
}

// read calls f with what the device's clock shows, under the lock. A step of that
// clock by as much as it had to be corrected by says that it was set right, and ends
// the correction. Any other may be a sleep, after which the clock is as wrong as
// before.
func (c *clock) read(f func(now moment)) {
	now := moment{c.device(), time.Now()}
	c.mu.Lock()
	defer c.mu.Unlock()
	// Round(0): what the clock shows, not what has passed.
	step := now.device.Round(0).Sub(c.last.device.Round(0)) - now.process.Sub(c.last.process)
	c.last = now
	c.strayed += step
	switch {
	case step.Abs() <= minOffset:
	case c.assumed:
		c.assume()
	case c.offset != 0 && (step-c.offset).Abs() < maxDelay:
		c.say(slog.LevelInfo, "the device's clock was set right, and is not corrected any more", "device", now.device, "correction", c.offset)
		c.offset = 0
	}
	f(now)
}

// assume makes up for a clock that shows a time which is certainly past. c.mu is held.
func (c *clock) assume() {
	c.offset, c.assumed = 0, false
	if behind := latest(c.built, c.newest).Sub(c.last.device); behind > 0 {
		c.offset, c.assumed = behind, true
	}
}

// say notes what tell logs. c.mu is held. Of a handler that never gets to see it, the
// last will do.
func (c *clock) say(level slog.Level, text string, args ...any) {
	if len(c.said) == maxSaid {
		c.said = append(c.said[:0], c.said[1:]...)
	}
	c.said = append(c.said, record{level, "client: " + text, args})
}

const maxSaid = 16

// tell logs what the clock has to say, and keeps what it has heard, once an hour at most.
// It is called where nothing is held, and where one caller at the most waits: a handler may
// take its time, want to know what time it is, or send its records through the Client.
func (c *clock) tell(ctx context.Context) {
	c.keep()
	c.mu.Lock()
	said := c.said
	c.said = nil
	c.mu.Unlock()
	for _, r := range said {
		c.log.Log(ctx, r.level, r.text, r.args...)
	}
}

// correction returns what is added to the device's clock.
func (c *clock) correction() (offset time.Duration) {
	c.read(func(moment) { offset = c.offset })
	return offset
}

// now returns the corrected time.
func (c *clock) now() (now time.Time) {
	c.read(func(read moment) { now = read.device.Add(c.offset) })
	return now
}

// unset reports whether the device's clock was never set and nothing has
// corrected it.
func (c *clock) unset() bool { return c.now().Before(release.Since) }

// explain tells a certificate that is not valid yet, because the clock was never
// set, from one that is not valid.
func (c *clock) explain(err error) error {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired && c.unset() {
		return fmt.Errorf("%w: %w", ErrClock, err)
	}
	return err
}

// describe says how far the device's clock is from the server's if it is not
// corrected for that, "" otherwise.
func (c *clock) describe() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.warned == 0:
		return ""
	case c.warned < 0:
		return fmt.Sprintf("the device's clock is %s ahead of the server's: set the one that is wrong", -c.warned.Round(time.Minute))
	default:
		return fmt.Sprintf("the device's clock is %s behind the server's: set the one that is wrong", c.warned.Round(time.Minute))
	}
}

// since returns how long ago something was; a time that lies in the future,
// since the clock was set back, was long ago.
func (c *clock) since(t time.Time) time.Duration {
	age := c.now().Sub(t)
	if age < -minOffset {
		return math.MaxInt64
	}
	return age
}

// inDoubt reports whether the device's clock was set, or the device has slept,
// since a server's Date was last compared, or none ever was. A Date that the device's
// clock speaks against needs another that repeats it, and that is in doubt again a
// minute later: what follows from it may keep all from the server that could tell better.
func (c *clock) inDoubt() (doubt bool) {
	c.read(func(now moment) {
		doubt = c.compared.IsZero() || c.hasStrayed() ||
			!c.agreed && (!c.repeated || now.process.Sub(c.compared) >= time.Minute)
	})
	return doubt
}

func (c *clock) hasStrayed() bool { return c.strayed.Abs() > minOffset }

// observe learns from the Date of a response whose server TLS has
// authenticated. delay is how long the request took.
func (c *clock) observe(resp *http.Response, delay time.Duration) {
	if age := resp.Header.Get("Age"); resp.TLS == nil || age != "" && age != "0" {
		return // an Age tells that the Date is that of a cache's copy
	}
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return
	}
	var leaf *x509.Certificate
	if len(resp.TLS.PeerCertificates) > 0 {
		leaf = resp.TLS.PeerCertificates[0]
	}
	uncertainty := minOffset
	if delay > maxDelay {
		uncertainty += delay
	}
	c.read(func(now moment) { c.compare(now, date, uncertainty, leaf) })
}

// compare learns from a server's Date; SECURITY.md has the rule. leaf is the server's
// certificate, nil if that is not known. c.mu is held.
func (c *clock) compare(now moment, date time.Time, uncertainty time.Duration, leaf *x509.Certificate) {
	offset := date.Sub(now.device)
	near := offset.Abs() <= maxOffset
	c.agreed = c.agreed && !c.hasStrayed()
	c.compared, c.strayed, c.repeated = now.process, 0, true
	switch {
	case date.Before(release.Since):
		c.warn(now.device, date, "is from before this version of the package, and is not believed: the server's clock is wrong")
	case date.Before(c.built):
		c.warn(now.device, date, "is from before this program was built, and is not believed: the server's clock is wrong")
	case leaf != nil && date.After(leaf.NotAfter):
		c.warn(now.device, date, "is after the end of its certificate, and is not believed: the server's clock is wrong")
	case c.agreed && !near:
		c.warn(now.device, date, "is more than 7 days from the device's clock, with which it agreed before, and is not believed: the server's clock is wrong")
	default:
		c.agreed = near
		c.hear(moment{date, now.process}, leaf)
		c.correct(now.device, date, uncertainty)
	}
}

// correct makes the clock show what a server says. c.mu is held.
func (c *clock) correct(device, date time.Time, uncertainty time.Duration) {
	offset := date.Sub(device)
	c.warned, c.assumed = 0, false
	if c.repeated = (offset - c.offset).Abs() < uncertainty; c.repeated {
		return
	}
	c.say(slog.LevelWarn, "the device's clock differs from the server's, and is corrected for", "device", device, "server", date)
	c.offset = offset
}

// warn tells, once for each difference and not with each response, of a Date that
// is not believed. c.mu is held.
func (c *clock) warn(device, date time.Time, why string) {
	difference := date.Sub(device)
	if (difference - c.warned).Abs() < sameOffset {
		return
	}
	c.warned = difference
	c.say(slog.LevelWarn, "a server's Date "+why, "device", device, "server", date)
}
