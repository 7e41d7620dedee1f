// SPDX-License-Identifier: Apache-2.0

// Package release says when this version of the module was made.
package release

import "time"

// Since is a time before any program with this version was built: the newest first day
// of a month that is 20 days or more before the newest release in CHANGELOG.md. A clock
// that shows an earlier time was never set. .ci/release moves it, and a test fails where
// it was not moved.
var Since = time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)
