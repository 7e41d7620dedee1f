package storeflag

import (
	"testing"
	"time"
)

// SetInUseAfter shortens the wait for a TPM that does not answer.
func SetInUseAfter(t *testing.T, d time.Duration) {
	old := inUseAfter
	inUseAfter = d
	t.Cleanup(func() { inUseAfter = old })
}

// DialSocket is the Dial of -store tcp: and unix:.
var DialSocket = dialSocket
