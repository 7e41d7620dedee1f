// SPDX-License-Identifier: Apache-2.0

// Command instancectl is for people who bring up devices: it finds out what is
// wrong with a device's TPM, manages Client Instance Keys, gets Client
// Attestations and gets access tokens, one step at a time, and says what goes
// wrong.
//
//	go run ./examples/instancectl doctor -store /dev/tpmrm0 -keys keys
//	go run ./examples/instancectl key create -store /dev/tpmrm0 -keys keys -name meter
//	go run ./examples/instancectl token -store /dev/tpmrm0 -keys keys -name meter \
//		-issuer https://as.example.com -client-id meter-firmware \
//		-attester https://attester.example.com
//
// instancectl COMMAND -h explains the flags. Results go to standard output, logs
// to standard error. No token or secret is printed, and of a JWT only what is in
// it; -out writes them to a file, or with - to standard output. INSTANCEKEY_STORE and
// INSTANCEKEY_KEYS stand in for -store and -keys. The exit status is 0 if all went
// well, 1 if not, and 2 if the command line is wrong.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A command is one of the things that instancectl does.
type command struct {
	name, summary string
	run           func(ctx context.Context, p *program, args []string) error
}

var commands = []command{
	{"doctor", "find out what is wrong with a device's TPM, its keys and its clock", examine},
	{"key create", "make a key", keyCreate},
	{"key show", "show a key's public half, its place and its protection, as JSON", keyShow},
	{"key list", "list the names of all keys", keyList},
	{"key delete", "destroy a key", keyDelete},
	{"key persist", "store a key permanently in the TPM", keyPersist},
	{"key unpersist", "remove a key from the TPM's persistent memory, not from its folder", keyUnpersist},
	{"key import", "import a key that was wrapped for this TPM", keyImport},
	{"evidence", "show what a Client Attester would get to see of a key and the device", evidence},
	{"attest", "get a Client Attestation and show what is in it", attest},
	{"register", "show what to register the client with at the server", register},
	{"token", "get access tokens", token},
	{"report", "make the page of a run again, from its JSON", makeReport},
	{"version", "say which version this is", version},
	{"completion", "print a script that has a shell complete command lines", completion},
}

// A program is what a command runs in.
type program struct {
	stdout, stderr io.Writer               // of results and of help
	log            *slog.Logger            // on standard error
	secrets        io.Writer               // standard output, for -out -
	stop           context.CancelCauseFunc // ends the command
	progress       *progress               // on standard error; nil if that is no terminal

	// parsed, if it is not nil, gets the flags in the place of what they are for.
	parsed func(fs *flag.FlagSet, missing string)
}

// keepsStdout leaves standard output to the secret if -out is "-": what is to be read by
// people goes to standard error.
func (p *program) keepsStdout(out string) {
	if out == "-" {
		p.stdout = p.stderr
	}
}

// A usageError is a command line that cannot be carried out. Nothing has been
// done.
type usageError struct{ error }

func badUsage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// errFailed: the command has failed and has already said why.
var errFailed = errors.New("failed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run carries out one command line and returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	progress := newProgress(stderr)
	stdout, stderr = progress.beside(stdout), progress.beside(stderr)
	p := &program{stdout: stdout, stderr: stderr, log: newLog(stderr), secrets: stdout, progress: progress}
	ctx, p.stop = context.WithCancelCause(ctx)
	defer p.stop(nil)
	if len(args) > 1 && args[0] == "help" {
		args = append(slices.Clone(args[1:]), "-h")
	}
	if len(args) > 0 && args[0] == completing {
		p.complete(args[1:])
		return 0
	}
	c, rest := find(args)
	if c == nil {
		if asksHelp(args) {
			p.usage()
			return 0
		}
		if len(args) > 0 {
			fmt.Fprintf(stderr, "instancectl: %s\n\n", unknownCommand(args))
		}
		p.usage()
		return 2
	}
	err := c.run(ctx, p, rest)
	late := new(lateError)
	switch wrong := new(usageError); {
	case err != nil && errors.As(context.Cause(ctx), late):
		fmt.Fprintf(stderr, "instancectl %s: %v\n", c.name, *late)
		return 1
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errFailed):
		return 1
	case errors.As(err, wrong):
		fmt.Fprintf(stderr, "instancectl %s: %v\nTry: instancectl %[1]s -h\n", c.name, err)
		return 2
	default:
		fmt.Fprintf(stderr, "instancectl %s: %s\n", c.name, describe(err))
		return 1
	}
}

// find returns the command that args begin with, and the rest of args.
func find(args []string) (*command, []string) {
	for i, c := range commands {
		words := len(strings.Fields(c.name))
		if len(args) >= words && strings.Join(args[:words], " ") == c.name {
			return &commands[i], args[words:]
		}
	}
	return nil, nil
}

// unknownCommand says what is wrong with args, which begin with no command.
func unknownCommand(args []string) string {
	word := strings.TrimRight(args[0], "\n")
	if strings.HasPrefix(word, "-") {
		return fmt.Sprintf("%.40q: the command comes first, its flags after it", word)
	}
	text := fmt.Sprintf("unknown command %.40q", word)
	if word == "key" {
		if text = "key needs to be told what to do"; len(args) > 1 {
			text = fmt.Sprintf("unknown command \"key %.40s\"", printable(args[1]))
		}
	}
	var like []string
	for _, c := range commands {
		for _, part := range strings.Fields(c.name) {
			known := word != "key" && (strings.HasPrefix(part, word) || strings.HasPrefix(word, part))
			if known && !slices.Contains(like, c.name) {
				like = append(like, c.name)
			}
		}
	}
	if len(like) > 0 {
		text += ": did you mean " + strings.Join(like, ", ") + "?"
	}
	return text
}

// asksHelp reports whether args, which are no command, ask for the commands.
func asksHelp(args []string) bool {
	if len(args) > 1 && args[0] == "key" {
		args = args[1:]
	}
	return len(args) == 1 && slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0])
}

const exitStatuses = "exit status: 0 if all went well, 1 if not, 2 if the command line is wrong\n"

func (p *program) usage() {
	fmt.Fprint(p.stderr, "usage: instancectl COMMAND [flags]\n\n")
	for _, c := range commands {
		fmt.Fprintf(p.stderr, "  %-15s %s\n", c.name, c.summary)
	}
	fmt.Fprint(p.stderr, "\ninstancectl COMMAND -h explains the flags of a command. INSTANCEKEY_STORE and INSTANCEKEY_KEYS are\n-store and -keys where these are left out.\n"+exitStatuses)
}

// newFlags returns the flag set of a command. operand names what follows the
// flags on the command line, about says what one has to know to use it.
func (p *program) newFlags(name, operand, about string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // run reports what is wrong, once and without all of the usage
	fs.Usage = func() {
		usage := strings.TrimSpace("instancectl " + name + " [flags] " + operand)
		fmt.Fprintf(fs.Output(), "usage: %s\n\n%s\n\n", usage, about)
		fs.PrintDefaults()
		fmt.Fprint(fs.Output(), "\n"+exitStatuses)
	}
	return fs
}

// environment sets -store and -keys from INSTANCEKEY_STORE and INSTANCEKEY_KEYS, which
// the command line overrides.
func environment(fs *flag.FlagSet) {
	for name, variable := range map[string]string{"store": "INSTANCEKEY_STORE", "keys": "INSTANCEKEY_KEYS"} {
		if value := os.Getenv(variable); value != "" && fs.Lookup(name) != nil {
			_ = fs.Set(name, value) // a flag that is a string takes any
		}
	}
}

// parse parses a command's arguments. missing says what is wrong if no operand
// follows the flags; it is "" for a command without one. -h prints the usage and
// is flag.ErrHelp.
func (p *program) parse(fs *flag.FlagSet, args []string, missing string) error {
	operands := 0
	if missing != "" {
		operands = 1
	}
	environment(fs)
	var timeout time.Duration
	bounded := fs.Lookup("timeout") == nil // all but those that see to it themselves
	if bounded {
		fs.DurationVar(&timeout, "timeout", patience, "how long the command may take")
	}
	if p.parsed != nil {
		p.parsed(fs, missing)
		return flag.ErrHelp
	}
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fs.SetOutput(p.stderr)
		fs.Usage()
		return err
	case err != nil:
		return usageError{err}
	case fs.NArg() > operands && strings.HasPrefix(fs.Arg(operands), "-"):
		return badUsage("unexpected argument %.60q: flags come first", fs.Arg(operands))
	case fs.NArg() > operands:
		return badUsage("unexpected argument %.60q", fs.Arg(operands))
	case fs.NArg() < operands:
		return badUsage("%s", missing)
	case !bounded:
		return nil
	case timeout <= 0:
		return badUsage("-timeout must be more than 0")
	}
	p.endAfter(timeout)
	return nil
}

// patience is how long a command may take if nothing else is said.
const patience = 30 * time.Second

// endAfter ends the command then.
func (p *program) endAfter(timeout time.Duration) {
	time.AfterFunc(timeout, func() { p.stop(lateError(timeout)) })
}

// given reports whether a flag is on the command line.
func given(fs *flag.FlagSet, name string) (found bool) {
	fs.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

// A lateError is a command that has taken longer than it may.
type lateError time.Duration

func (e lateError) Is(target error) bool { return target == context.DeadlineExceeded }

func (e lateError) Error() string {
	return fmt.Sprintf("not done after %s: a TPM or a server does not answer; -timeout allows more time", time.Duration(e))
}
