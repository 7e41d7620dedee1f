// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-attestation/attest"
)

// find returns the first release that fits; nil if none does.
func (r *Reference) find(pcrs map[int][]byte, events []attest.Event) *release {
	for i := range r.software {
		if len(r.software[i].differences(pcrs, events)) == 0 {
			return &r.software[i]
		}
	}
	return nil
}

// nearest says of the release that fits best what does not fit, for the log.
func (r *Reference) nearest(pcrs map[int][]byte, events []attest.Event) string {
	var best *release
	var least []difference
	for i := range r.software {
		if found := r.software[i].differences(pcrs, events); best == nil || len(found) < len(least) {
			best, least = &r.software[i], found
		}
	}
	if best == nil {
		return "there are none"
	}
	var text []string
	for _, d := range least {
		text = append(text, d.String())
	}
	return fmt.Sprintf("the nearest are those of %s %s (line %d): %s", best.name, best.version, best.line, strings.Join(text, "; "))
}

// A difference is where a boot is not that of a release.
type difference struct {
	pcr  int
	want []byte
	got  []byte        // value of the PCR, where it is that
	at   int           // number of the event in its PCR, from 1 on; 0: the value differs
	is   *attest.Event // nil: there is none
}

func (d difference) String() string {
	switch {
	case d.at == 0:
		return fmt.Sprintf("PCR %d is %x, not %x", d.pcr, d.got, d.want)
	case d.is == nil:
		return fmt.Sprintf("PCR %d has no event %d, which is to be %x", d.pcr, d.at, d.want)
	}
	what := d.is.Type.String()
	if d.is.Type == eventUserspace || d.is.Type == eventIMA {
		what = strconv.Quote(string(d.is.Data[:min(len(d.is.Data), 200)]))
	}
	return fmt.Sprintf("event %d of PCR %d (%s) is %x, not %x", d.at, d.pcr, what, d.is.Digest, d.want)
}

// differences compares all that the release has, PCR by PCR. Of a PCR's events the
// first ones count: later ones may have been measured by software that one of them
// started, and such software can repeat a digest, but not come before it.
func (s *release) differences(pcrs map[int][]byte, events []attest.Event) (found []difference) {
	for _, index := range slices.Sorted(maps.Keys(s.pcrs)) {
		if want := s.pcrs[index]; !bytes.Equal(pcrs[index], want) {
			found = append(found, difference{pcr: index, want: want, got: pcrs[index]})
		}
	}
	for _, index := range slices.Sorted(maps.Keys(s.firstEvents)) {
		if d := firstDifference(index, s.firstEvents[index], events); d != nil {
			found = append(found, *d)
		}
	}
	return found
}

func firstDifference(index int, want [][]byte, events []attest.Event) *difference {
	at := 0
	for i := range events {
		if events[i].Index != index {
			continue
		}
		at++
		switch {
		case len(want) == 0:
			return nil
		case isBootAttempt(events[i].Digest):
		case bytes.Equal(events[i].Digest, want[0]):
			want = want[1:]
		default:
			return &difference{pcr: index, want: want[0], at: at, is: &events[i]}
		}
	}
	if len(want) == 0 {
		return nil
	}
	return &difference{pcr: index, want: want[0], at: at + 1}
}

// bootAttempts are what firmware measures before it tries a boot entry, and when one
// has come back (TCG PC Client Platform Firmware Profile, section 3.3.4.5). Which
// entries were tried first, and were not there, depends on their order and on what is
// plugged in, and starts nothing: what is started has an event of its own.
var bootAttempts = [][]byte{
	sum256("Calling EFI Application from Boot Option"),
	sum256("Returning from EFI Application from Boot Option"),
}

func isBootAttempt(digest []byte) bool {
	return slices.ContainsFunc(bootAttempts, func(known []byte) bool { return bytes.Equal(known, digest) })
}

func sum256(text string) []byte {
	digest := sha256.Sum256([]byte(text))
	return digest[:]
}
