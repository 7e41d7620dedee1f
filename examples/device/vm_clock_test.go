// SPDX-License-Identifier: Apache-2.0

//go:build devicevm

package main

import (
	"fmt"
	"strconv"
	"time"
)

// allButKey is what the service keeps, in its folder, that it can do without.
const allButKey = "token.json attestations time"

// startAt starts the service with a clock that shows that, and without the tokens, and the
// time, of earlier runs.
func (l *vmLife) startAt(clock time.Time, forget string) {
	l.Helper()
	l.sh(fmt.Sprintf("systemctl stop instancekey-device; cd /var/lib/private/instancekey-device; rm -rf %s; date -s @%d; systemctl start instancekey-device", forget, clock.Unix()))
	l.goesOn()
}

func (l *vmLife) clockShows1970() {
	if year, _ := strconv.Atoi(l.sh("date +%Y")); year >= time.Now().Year() && l.sh("date +%m") >= "11" {
		l.Errorf("the clock shows %s", l.sh("date"))
	}
	l.logs(0, "level=WARN", "calls fail", "unknown authority")
}

func (l *vmLife) authorityLater() {
	if n := matching(l.journal(0), "calls fail", "cure=", "restart"); n != 1 {
		l.Errorf("%d lines that say what to do", n)
	}
	l.sh("cd /root/files\n" + readme(l.T, "update-ca-certificates"))
	l.goesOn()
	if seconds, _ := strconv.ParseInt(l.sh("date +%s"), 10, 64); time.Since(time.Unix(seconds, 0)) < 24*time.Hour {
		l.Error("the clock is right already")
	}
	// As old as a clock gets.
	l.startAt(time.Unix(24*60*60, 0), allButKey)
	l.startAt(time.Unix(24*60*60, 0), "token.json")
}

func (l *vmLife) youngCertificate() {
	if older := l.certificate.NotBefore.Sub(l.built); older < 300*24*time.Hour {
		l.Errorf("the program is only %v older than the certificate", older)
	}
	if n := matching(l.journal(0), "does not know when it was built"); n != 0 {
		l.Errorf("%d warnings of no build time", n)
	}
	// The earliest that it can be is the time of the program.
	l.startAt(time.Unix(24*60*60, 0), allButKey)
}

func (l *vmLife) clockBehind() {
	for _, forget := range []string{allButKey, "token.json attestations", ""} {
		l.startAt(time.Now().AddDate(0, 0, -20), forget)
	}
}

func (l *vmLife) clockAhead() {
	for _, ahead := range []time.Time{time.Now().AddDate(0, 0, 30), time.Now().AddDate(3, 0, 0)} {
		for _, forget := range []string{allButKey, "token.json attestations"} {
			l.startAt(ahead, forget)
		}
	}
}

func (l *vmLife) clockIsSet() {
	mark := len(l.journal(0))
	for _, clock := range []time.Time{time.Now(), time.Unix(1000000, 0), time.Now().AddDate(0, 0, 30), time.Now()} {
		l.sh(fmt.Sprintf("date -s @%d", clock.Unix()))
		l.refuse()
		l.goesOn()
	}
	if n := matching(l.journal(mark), "calls fail"); n > 3 {
		l.Errorf("%d lines of calls that fail", n)
	}
}
