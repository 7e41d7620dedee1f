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
	"net/url"
	"sync"
	"time"

	"github.com/instancekey/instancekey/internal/release"
)

// ErrClock: the device's clock was never set: it shows a time before this
// version of the package was released, at which no certificate of a server is
// valid yet. Set it (NTP, a real-time clock, the time of the last shutdown), or
// give the TLS configuration of Config.Base a Time function that never goes below
// the build time of the program; then the Client learns the time from the server.
var ErrClock = errors.New("client: the device's clock was never set")

const (
	// maxOffset bounds what a server may make of a clock that was once set.
	maxOffset = 7 * 24 * time.Hour

	// minOffset is the least difference that is acted on: Date has whole
	// seconds, and responses take time.
	minOffset = 2 * time.Second

	// sameOffset is within what a difference that was warned of is the same.
	sameOffset = time.Minute

	// maxDelay is how long a request may take for its response's Date to say
	// what time it is now.
	maxDelay = 5 * time.Second
)

// clock is the device's clock, corrected by what servers say the time is.
// Windows of 15 seconds for "iat" exist, and devices with clocks that are off by
// days.
type clock struct {
	device func() time.Time
	log    *slog.Logger

	mu     sync.Mutex
	offset time.Duration
	// When the device's clock was last read: by itself, and by the process's,
	// which is never set and stands still while the device sleeps.
	last     struct{ device, process time.Time }
	compared bool          // with a server's Date, at least once
	strayed  time.Duration // how far the first has gone from the second since

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
	c.last.device, c.last.process = device(), time.Now()
	return c
}

// read calls f with what the device's clock shows, under the lock. A step of that
// clock by as much as it had to be corrected by says that it was set right, and ends
// the correction. Any other may be a sleep, after which the clock is as wrong as
// before.
func (c *clock) read(f func(device time.Time)) {
	device, process := c.device(), time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	// Round(0): what the clock shows, not what has passed.
	step := device.Round(0).Sub(c.last.device.Round(0)) - process.Sub(c.last.process)
	c.last.device, c.last.process = device, process
	c.strayed += step
	if c.offset != 0 && step.Abs() > minOffset && (step-c.offset).Abs() < maxDelay {
		c.say(slog.LevelInfo, "the device's clock was set right, and is not corrected any more", "device", device, "correction", c.offset)
		c.offset = 0
	}
	f(device)
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

// tell logs what the clock has to say. It is called where nothing is held and nobody
// waits: a handler may take its time, want to know what time it is, or send its records
// through the Client.
func (c *clock) tell(ctx context.Context) {
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
	c.read(func(time.Time) { offset = c.offset })
	return offset
}

// now returns the corrected time.
func (c *clock) now() (now time.Time) {
	c.read(func(device time.Time) { now = device.Add(c.offset) })
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
		return fmt.Sprintf("the device's clock is %s ahead of the server's: set it", -c.warned.Round(time.Minute))
	default:
		return fmt.Sprintf("the device's clock is %s behind the server's: set it", c.warned.Round(time.Minute))
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
// since a server's Date was last compared, or none ever was.
func (c *clock) inDoubt() (doubt bool) {
	c.read(func(time.Time) { doubt = !c.compared || c.strayed.Abs() > minOffset })
	return doubt
}

// observe learns from the Date of a response whose server TLS has
// authenticated. delay is how long the request took.
func (c *clock) observe(resp *http.Response, delay time.Duration) {
	if resp.TLS == nil || delay > maxDelay || resp.Header.Get("Age") != "" {
		return // an Age tells that the Date is that of a cache's copy
	}
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return
	}
	c.read(func(device time.Time) { c.compare(device, date) })
}

// compare learns from a server's Date. c.mu is held.
func (c *clock) compare(device, date time.Time) {
	c.compared, c.strayed = true, 0
	offset := date.Sub(device)
	if change := offset - c.offset; -minOffset < change && change < minOffset {
		c.warned = 0
		return
	}
	switch wasSet := !device.Before(release.Since); {
	case date.Before(release.Since):
		c.warn(device, date, "is from before this version of the package, and is not believed: the server's clock is wrong")
	case wasSet && offset.Abs() > maxOffset:
		c.warn(device, date, "is more than 7 days from the device's clock, and is not believed: set the device's clock")
	default:
		c.say(slog.LevelWarn, "the device's clock differs from the server's, and is corrected for", "device", device, "server", date)
		c.offset, c.warned = offset, 0
	}
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

// observer is a base transport that tells a clock that was never set from an
// invalid certificate, and from some of whose responses the clock learns.
type observer struct {
	base   http.RoundTripper
	clock  *clock
	learns func(from *url.URL) bool
}

// CloseIdleConnections is for http.Client's method of that name.
func (o observer) CloseIdleConnections() {
	if base, ok := o.base.(interface{ CloseIdleConnections() }); ok {
		base.CloseIdleConnections()
	}
}

func (o observer) RoundTrip(req *http.Request) (*http.Response, error) {
	start := time.Now()
	resp, err := o.base.RoundTrip(req)
	if err != nil {
		return nil, o.clock.explain(err)
	}
	if resp.TLS != nil && o.learns(req.URL) {
		o.clock.observe(resp, time.Since(start))
	}
	return resp, nil
}
