// SPDX-License-Identifier: Apache-2.0

package release_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/internal/release"
)

// TestSince: Since is what it says it is, and the changelog has its versions in order.
// Before the first release there is nothing to compare with.
func TestSince(t *testing.T) {
	changelog, err := os.ReadFile("../../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	if release.Since.Day() != 1 || release.Since.Location() != time.UTC || release.Since != release.Since.Truncate(24*time.Hour) {
		t.Errorf("Since is %v, which begins no month in UTC", release.Since)
	}
	headings := regexp.MustCompile(`(?m)^## .*$`).FindAllString(string(changelog), -1)
	if len(headings) == 0 || headings[0] != "## Unreleased" {
		t.Fatalf("the changelog begins with %q, not with what is unreleased", headings)
	}
	last := time.Time{}
	for i, heading := range headings[1:] {
		version, date, _ := strings.Cut(strings.TrimPrefix(heading, "## "), " - ")
		day, err := time.Parse(time.DateOnly, date)
		if err != nil || !regexp.MustCompile(`^\d+\.\d+\.\d+$`).MatchString(version) {
			t.Errorf("%q is not VERSION - YYYY-MM-DD", heading)
			continue
		}
		early := day.AddDate(0, 0, -20)
		if want := early.AddDate(0, 0, 1-early.Day()); i == 0 && release.Since != want {
			t.Errorf("%s was released on %s, so Since is %s, not %s; .ci/release sets it", version, date, want.Format(time.DateOnly), release.Since.Format(time.DateOnly))
		}
		if i > 0 && day.After(last) {
			t.Errorf("%s is older than what stands below it", headings[i])
		}
		last = day
	}
}
