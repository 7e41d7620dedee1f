// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"fmt"
	"slices"
)

// reachable are the releases of a file so far, by each of what they ask for. The
// first release that fits counts: one that asks for all that an earlier one does,
// and for more, would never be reached.
type reachable map[string][]*release

// add returns an error if an earlier release fits whatever this one fits.
func (r reachable) add(s *release) error {
	keys := s.asks()
	for _, key := range keys {
		for _, earlier := range r[key] {
			if earlier.includes(s) {
				return fmt.Errorf("is never reached: %q %q on line %d comes first, and fits whatever this fits", earlier.name, earlier.version, earlier.line)
			}
		}
	}
	// One of what a release asks for is enough, since a release that includes another
	// asks for nothing else: the one that the fewest ask for.
	rarest := slices.MinFunc(keys, func(a, b string) int { return len(r[a]) - len(r[b]) })
	r[rarest] = append(r[rarest], s)
	return nil
}

// asks has a text for each value and each beginning that a release asks for.
func (s *release) asks() (keys []string) {
	for index, value := range s.pcrs {
		keys = append(keys, fmt.Sprintf("%d is %x", index, value))
	}
	for index, digests := range s.firstEvents {
		keys = append(keys, fmt.Sprintf("%d begins with %x", index, digests[0]))
	}
	return keys
}

// includes reports whether s fits whatever other fits.
func (s *release) includes(other *release) bool {
	for index, value := range s.pcrs {
		if !bytes.Equal(other.pcrs[index], value) {
			return false
		}
	}
	for index, digests := range s.firstEvents {
		longer := other.firstEvents[index]
		if len(longer) < len(digests) {
			return false
		}
		for i := range digests {
			if !bytes.Equal(digests[i], longer[i]) {
				return false
			}
		}
	}
	return true
}
