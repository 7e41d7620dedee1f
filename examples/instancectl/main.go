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
// it; -out writes them to a file. The exit status is 0 if all went well, 1 if
// not, and 2 if the command line is wrong.
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
	{"token", "get access tokens", token},
}

// A program is what a command runs in.
type program struct {
	stdout, stderr io.Writer
	log            *slog.Logger // on stderr
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
	p := &program{stdout, stderr, slog.New(slog.NewTextHandler(stderr, nil))}
	if len(args) > 1 && args[0] == "help" {
		args = append(slices.Clone(args[1:]), "-h")
	}
	c, rest := find(args)
	if c == nil {
		p.usage()
		if asksHelp(args) {
			return 0
		}
		return 2
	}
	err := c.run(ctx, p, rest)
	switch wrong := new(usageError); {
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
	fmt.Fprint(p.stderr, "\ninstancectl COMMAND -h explains the flags of a command.\n"+exitStatuses)
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

// parse parses a command's arguments. missing says what is wrong if no operand
// follows the flags; it is "" for a command without one. -h prints the usage and
// is flag.ErrHelp.
func (p *program) parse(fs *flag.FlagSet, args []string, missing string) error {
	operands := 0
	if missing != "" {
		operands = 1
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
	}
	return nil
}
