// SPDX-License-Identifier: Apache-2.0

package storeflag

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/instancekey/instancekey/tpm"
)

// LogFlags are the flags of a program that tells an attester what the device has booted.
type LogFlags struct {
	EventLog     string // -event-log
	UserspaceLog string // -userspace-log
	IMALog       string // -ima-log
}

// thisMachine is the value of a log's flag for that of the machine itself.
const thisMachine = "auto"

// RegisterLogs adds -event-log, -userspace-log and -ima-log to a program's flags.
func (f *LogFlags) RegisterLogs(fs *flag.FlagSet) {
	const of = " in this `file`; auto is this machine's own, for its own TPM (default: none is sent)"
	fs.StringVar(&f.EventLog, "event-log", "", "send the firmware's log of what was booted,"+of)
	fs.StringVar(&f.UserspaceLog, "userspace-log", "", "send systemd's log of what it has measured,"+of)
	fs.StringVar(&f.IMALog, "ima-log", "", "send the list of the files that Linux's IMA has measured,"+of)
}

// any reports whether a log is named.
func (f *LogFlags) any() bool { return f.EventLog+f.UserspaceLog+f.IMALog != "" }

// configure has package tpm read the logs whenever evidence is collected.
func (f *LogFlags) configure(cfg *tpm.Config) error {
	firmware := tpm.LinuxEventLog
	if runtime.GOOS == "windows" {
		firmware = tpm.WindowsEventLog
	}
	type reader = func(context.Context) ([]byte, error)
	for _, log := range []struct {
		flag, file string
		own        reader
		to         *reader
	}{
		{"-event-log", f.EventLog, firmware, &cfg.EventLog},
		{"-userspace-log", f.UserspaceLog, tpm.LinuxUserspaceLog, &cfg.UserspaceLog},
		{"-ima-log", f.IMALog, tpm.LinuxIMALog, &cfg.IMALog},
	} {
		switch log.file {
		case "":
		case thisMachine:
			*log.to = log.own
		default:
			if _, err := readLog(log.file); err != nil {
				return fmt.Errorf("%s: %w", log.flag, err)
			}
			*log.to = func(context.Context) ([]byte, error) { return readLog(log.file) }
		}
	}
	return nil
}

// readLog reads a file of at most so much that package tpm sees that it is too large.
func readLog(name string) ([]byte, error) {
	const enough = 2 << 20 // bytes
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, enough))
}
