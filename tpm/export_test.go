package tpm

import "github.com/instancekey/instancekey/tpm/internal/keyfile"

// Fault is a line of the table of faults.
type Fault struct {
	Causes   []error
	Sentinel error
	Advice   string
}

// Faults returns the table.
func Faults() []Fault {
	var list []Fault
	for _, f := range faults {
		list = append(list, Fault{f.causes, f.sentinel, f.advice})
	}
	return list
}

// ParseKeyFile parses a key file and encodes what it understood.
func ParseKeyFile(text []byte) (encoded []byte, err error) {
	k, err := keyfile.Parse(text)
	if err != nil {
		return nil, err
	}
	return k.Text, nil
}

const (
	Patience       = patience
	IdleTime       = idleTime
	RefreshTime    = refreshTime
	CloseTimeout   = closeTimeout
	LongestCommand = longestCommand
)
